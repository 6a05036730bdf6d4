// Many pixels in, few numbers out. A block of 256 threads walks over tiles, gathers in shared memory, and adds
// its numbers to the job's result with one atomic each, so the order of blocks cannot show.

//
// Rows are loaded before any is worked on: a store or an atomic between loads would make each wait for the last.

#define EACH_TILE(plane, row, column)                                                                        \
    const int across_ = ((plane).columns + TILE_COLUMNS - 1) / TILE_COLUMNS;                                 \
    const int tiles_ = across_ * (((plane).rows + TILE_ROWS - 1) / TILE_ROWS);                               \
    for (int tile_ = blockIdx.x, column, row;                                                                \
         column = tile_ % across_ * TILE_COLUMNS + threadIdx.x,                                              \
             row = tile_ / across_ * TILE_ROWS + threadIdx.y * ROWS_EACH, tile_ < tiles_;                    \
         tile_ += gridDim.x)

#define EACH_TILE_PIXEL(plane, row, column)                                                                  \
    const int across_ = ((plane).columns + TILE_COLUMNS - 1) / TILE_COLUMNS;                                 \
    const int tiles_ = across_ * (((plane).rows + TILE_ROWS - 1) / TILE_ROWS);                               \
    for (int tile_ = blockIdx.x; tile_ < tiles_; tile_ += gridDim.x)                                         \
        for (int step_ = 0, column = tile_ % across_ * TILE_COLUMNS + threadIdx.x,                           \
                 row = tile_ / across_ * TILE_ROWS + threadIdx.y * ROWS_EACH;                                \
             step_ < ROWS_EACH && column < (plane).columns && row < (plane).rows; ++step_, ++row)

enum { BLOCK_THREADS = TILE_COLUMNS * TILE_THREAD_ROWS };

__device__ __forceinline__ int thread_index() { return threadIdx.y * TILE_COLUMNS + threadIdx.x; }

// Up to ROWS_EACH values below one another, and how many there are.
template <typename T>
__device__ __forceinline__ int load(const Plane &plane, int row, int column, int values[ROWS_EACH])
{
    const int count = column < plane.columns ? clamped(plane.rows - row, 0, ROWS_EACH) : 0;
#pragma unroll
    for (int k = 0; k < ROWS_EACH; ++k)
        if (k < count)
            values[k] = *at<T>(plane, row + k, column);
    return count;
}

// This thread's share of a gapless plane: whole Eights, then what is left over. More blocks than Eights are idle.
#define EACH_EIGHT(plane, place)                                                                             \
    const int eights_ = (int)((i64)(plane).rows * (plane).columns >> 3);                                     \
    for (int place = blockIdx.x * BLOCK_THREADS + thread_index(); place < eights_;                           \
         place += gridDim.x * BLOCK_THREADS)

#define EACH_LEFT_OVER(plane, place)                                                                         \
    const int values_ = (plane).rows * (plane).columns;                                                      \
    const int place = (values_ & ~7) + thread_index();                                                       \
    if (blockIdx.x == 0 && place < values_)

// What is counted on the way to stored values.
struct StoredFacts {
    int outside, low, high;
};

__device__ __forceinline__ int stored_value(const Job &job, u32 largest, int value, StoredFacts &facts)
{
    if (job.flag)
        value = (int)(((u32)value * largest + 32767) / 65535);
    value = clamped(value, job.low, job.high);
    const int kept = clamped(value, job.stored_low, job.stored_high);
    facts.outside += kept != value;
    facts.low = least(facts.low, kept);
    facts.high = most(facts.high, kept);
    return kept;
}

// U16 to U16, both gapless: what GPUs decode.
__device__ void stored_eights(const Job &job, StoredFacts &facts)
{
    const u32 largest = (1u << job.precision) - 1;
    const u16 *source = (const u16 *)job.source.data;
    u16 *target = (u16 *)job.target.data;
    EACH_EIGHT(job.source, place)
    {
        Eight eight = ((const Eight *)source)[place];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const int first = stored_value(job, largest, eight.pairs[k] & 0xffff, facts);
            const int second = stored_value(job, largest, eight.pairs[k] >> 16, facts);
            eight.pairs[k] = (u32)first | (u32)second << 16;
        }
        ((Eight *)target)[place] = eight;
    }
    EACH_LEFT_OVER(job.source, rest)
        target[rest] = (u16)stored_value(job, largest, source[rest], facts);
}

template <typename T>
__device__ void stored_tiles(const Job &job, StoredFacts &facts)
{
    const u32 largest = (1u << job.precision) - 1;
    EACH_TILE(job.source, row, column)
    {
        int values[ROWS_EACH];
        const int count = load<T>(job.source, row, column, values);
#pragma unroll
        for (int k = 0; k < ROWS_EACH; ++k) {
            if (k >= count)
                break;
            store(job.target, row + k, column, stored_value(job, largest, values[k], facts));
        }
    }
}

// source: samples of a codec → target: stored values, clamped to the codestream's range (low, high), then to
// that of BitsStored (stored_low, stored_high); with flag, DALI's multiplier of `precision` bits is undone first.
// result: how many lay outside BitsStored's range, the smallest and the largest stored value.
extern "C" __global__ void to_stored(const Job *jobs)
{
    __shared__ int facts[3];
    const Job &job = jobs[blockIdx.z];
    if (thread_index() == 0) {
        facts[0] = 0;
        facts[1] = 0x7fffffff;
        facts[2] = -0x7fffffff - 1;
    }
    __syncthreads();
    StoredFacts mine = {0, 0x7fffffff, -0x7fffffff - 1};
    if (job.source.kind == U16 && job.target.kind == U16 && gapless(job.source) && gapless(job.target))
        stored_eights(job, mine);
    else
        WITH_KIND(job.source.kind, stored_tiles, job, mine)
    atomicAdd(facts, mine.outside);
    atomicMin(facts + 1, mine.low);
    atomicMax(facts + 2, mine.high);
    __syncthreads();
    if (thread_index() == 0) {
        atomicAdd(job.result, facts[0]);
        atomicMin(job.result + 1, facts[1]);
        atomicMax(job.result + 2, facts[2]);
    }
}

// 16-bit values in a gapless plane. Pairs like the one before, as in a background, are not looked up again.
template <typename T>
__device__ void darkest_eights(const Job &job, int *darkest)
{
    const u16 *table = (const u16 *)job.table;
    int found = 65535;
    EACH_EIGHT(job.source, place)
    {
        const Eight eight = ((const Eight *)job.source.data)[place];
        u32 last = ~eight.pairs[0];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const u32 pair = eight.pairs[k];
            if (pair != last) {
                found = least(found, table[index_of((T)(pair & 0xffff))]);
                found = least(found, table[index_of((T)(pair >> 16))]);
            }
            last = pair;
        }
    }
    EACH_LEFT_OVER(job.source, rest)
        found = least(found, table[index_of(((const T *)job.source.data)[rest])]);
    atomicMin(darkest, found);
}

template <typename T>
__device__ void darkest_tiles(const Job &job, int *darkest)
{
    if (sizeof(T) == 2 && gapless(job.source)) {
        darkest_eights<T>(job, darkest);
        return;
    }
    const u16 *table = (const u16 *)job.table;
    int found = 65535;
    EACH_TILE(job.source, row, column)
    {
        int values[ROWS_EACH];
        const int count = load<T>(job.source, row, column, values);
#pragma unroll
        for (int k = 0; k < ROWS_EACH; ++k)
            if (k < count)
                found = least(found, table[index_of((T)values[k])]);
    }
    atomicMin(darkest, found);
}

// source: stored values, table: U16 → result: the smallest entry that any pixel has.
extern "C" __global__ void darkest(const Job *jobs)
{
    __shared__ int smallest;
    const Job &job = jobs[blockIdx.z];
    if (thread_index() == 0)
        smallest = 65535;
    __syncthreads();
    WITH_KIND(job.source.kind, darkest_tiles, job, &smallest)
    __syncthreads();
    if (thread_index() == 0)
        atomicMin(job.result, smallest);
}

template <typename T>
__device__ void count_tiles(const Job &job)
{
    int run = 0, previous = -1;  // backgrounds are of one value: equal pixels below one another count at once
    EACH_TILE_PIXEL(job.source, row, column)
    {
        if (job.mask.data && !*at<u8>(job.mask, row, column))
            continue;
        const int index = index_of(*at<T>(job.source, row, column));
        if (index != previous && run) {
            atomicAdd(job.result + previous, run);
            run = 0;
        }
        previous = index;
        ++run;
    }
    if (run)
        atomicAdd(job.result + previous, run);
}

// source: stored values, mask: which to count (none: all) → result: counts of the 65,536 table indices.
extern "C" __global__ void count_values(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    WITH_KIND(job.source.kind, count_tiles, job)
}

// source: I32, mask: which to count → result: 1,024 bins of (value − low) >> shift, clipped to the ends.
extern "C" __global__ void histogram(const Job *jobs)
{
    enum { BINS = 1024, THREADS = BLOCK_THREADS };
    __shared__ int bins[BINS];
    const Job &job = jobs[blockIdx.z];
    for (int bin = thread_index(); bin < BINS; bin += THREADS)
        bins[bin] = 0;
    __syncthreads();
    int run = 0, previous = 0;
    EACH_TILE_PIXEL(job.source, row, column)
    {
        if (!*at<u8>(job.mask, row, column))
            continue;
        const int bin = clamped((*at<int>(job.source, row, column) - job.low) >> job.shift, 0, BINS - 1);
        if (bin != previous) {
            atomicAdd(bins + previous, run);
            run = 0;
        }
        previous = bin;
        ++run;
    }
    atomicAdd(bins + previous, run);
    __syncthreads();
    for (int bin = thread_index(); bin < BINS; bin += THREADS)
        if (bins[bin])
            atomicAdd(job.result + bin, bins[bin]);
}

// source: mask → result: first row, last row, first column, last column of what is set; pixels set in the left
// half and in the right half, an odd middle column in neither.
extern "C" __global__ void mask_facts(const Job *jobs)
{
    __shared__ int facts[6];
    const Job &job = jobs[blockIdx.z];
    const Plane &mask = job.source;
    const int half = mask.columns / 2;
    if (thread_index() == 0) {
        facts[0] = facts[2] = 0x7fffffff;
        facts[1] = facts[3] = -1;
        facts[4] = facts[5] = 0;
    }
    __syncthreads();
    int top = 0x7fffffff, bottom = -1, first = 0x7fffffff, last = -1, left = 0, right = 0;
    EACH_TILE_PIXEL(mask, row, column)
        if (*at<u8>(mask, row, column)) {
            top = least(top, row);
            bottom = most(bottom, row);
            first = least(first, column);
            last = most(last, column);
            left += column < half;
            right += column >= mask.columns - half;
        }
    if (bottom >= 0) {
        atomicMin(facts, top);
        atomicMax(facts + 1, bottom);
        atomicMin(facts + 2, first);
        atomicMax(facts + 3, last);
        atomicAdd(facts + 4, left);
        atomicAdd(facts + 5, right);
    }
    __syncthreads();
    if (thread_index() == 0 && facts[1] >= 0) {
        atomicMin(job.result, facts[0]);
        atomicMax(job.result + 1, facts[1]);
        atomicMin(job.result + 2, facts[2]);
        atomicMax(job.result + 3, facts[3]);
        atomicAdd(job.result + 4, facts[4]);
        atomicAdd(job.result + 5, facts[5]);
    }
}
