// Crop, orient, resample, look up, letterbox and blank in one pass, straight into the batch's output: twin of
// _resample.resample, and of render.py's order of kernels.
//
// A block makes 32 × 32 output pixels. It takes the samples they need up to 64 rows at a time: the horizontal pass
// goes into shared memory as 16-bit values, the vertical pass sums those into registers. So a sample is read
// from memory once, but for the rows and columns that neighbouring tiles share. Sums are 32-bit signed:
// weights are non-negative and sum to 2^14, so the largest is 65535·2^14 + 8192 = 1,073,733,632.

enum { WEIGHT_BITS = 14, HALF = 1 << (WEIGHT_BITS - 1), SIDE = 32, THREAD_ROWS = 8, EACH = SIDE / THREAD_ROWS };
enum { CHUNK = 64, CHUNK_EACH = CHUNK / THREAD_ROWS };

// Blocks of a multiprocessor: the most whose registers it has. Loads of one hide behind the work of others.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
enum { BLOCKS = 3 };
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
enum { BLOCKS = 2 };
#else
enum { BLOCKS = 4 };
#endif

// Weights of one axis. taps lie tap by tap: that of output o is taps[o + tap · outputs].
struct Axis {
    const int *start, *taps;
    int outputs, count;
};

struct Picture {
    Plane source, target, mask;  // stored values; the whole output; what --background blank keeps, or no data
    Axis rows, columns;
    const u16 *table;  // 65,536 entries; none: the indices themselves
    const int *kept_rows, *kept_columns;  // of each content row and column, its row and column in the mask
    const int *fill;
    int content_row, content_column;
};

static_assert(sizeof(Picture) == PICTURE_BYTES, "launches.py packs another structure");

// Rows of samples between the first and the last that content rows [from, to) need. Starts rise, or fall where
// the axis is flipped.
__device__ __forceinline__ void span(const Axis &axis, int from, int to, int &first, int &end)
{
    first = end = 0;
    if (from >= to)
        return;
    const int one = axis.start[from], other = axis.start[to - 1];
    first = least(one, other);
    end = most(one, other) + axis.count;
}

// The horizontal pass over rows [first, end): one output column of a thread, every THREAD_ROWS-th row.
template <typename T>
__device__ void horizontal(const Plane &source, const Axis &axis, int output, int first, int end,
                           u16 between[CHUNK][SIDE])
{
    const int rows = (end - first - (int)threadIdx.y + THREAD_ROWS - 1) / THREAD_ROWS;  // this thread's
    const T *samples = at<T>(source, first + threadIdx.y, axis.start[output]);
    const int *taps = axis.taps + output;
    const i64 below = THREAD_ROWS * source.stride;
    int sums[CHUNK_EACH];
#pragma unroll
    for (int k = 0; k < CHUNK_EACH; ++k)
        sums[k] = HALF;
    for (int tap = 0; tap < axis.count; tap += 2) {  // in pairs: twice as many loads under way
        const bool two = tap + 1 < axis.count;
        const int weight = taps[tap * axis.outputs], other = two ? taps[(tap + 1) * axis.outputs] : 0;
        const T *next = samples + (two ? tap + 1 : tap);
#pragma unroll
        for (int k = 0; k < CHUNK_EACH; ++k)
            if (k < rows)
                sums[k] += weight * index_of(samples[tap + k * below]) + other * index_of(next[k * below]);
    }
#pragma unroll
    for (int k = 0; k < CHUNK_EACH; ++k)
        if (k < rows)
            between[threadIdx.y + k * THREAD_ROWS][threadIdx.x] = (u16)(sums[k] >> WEIGHT_BITS);
}

__device__ __forceinline__ void write(const Picture &picture, int row, int column, bool inside, int index)
{
    int value;
    const int y = row - picture.content_row, x = column - picture.content_column;
    if (inside && picture.mask.data)
        inside = *at<u8>(picture.mask, picture.kept_rows[y], picture.kept_columns[x]);
    if (!inside)
        value = *picture.fill;
    else
        value = picture.table ? picture.table[index] : index;
    store(picture.target, row, column, value);
}

extern "C" __global__ void __launch_bounds__(256, BLOCKS) pictures(const Picture *batch)
{
    __shared__ u16 between[CHUNK][SIDE];
    const Picture &picture = batch[blockIdx.z];
    const Plane source = picture.source;  // copies: what is stored might be thought to change the batch
    const Axis rows = picture.rows, columns = picture.columns;
    const int column = blockIdx.x * SIDE + threadIdx.x, top = blockIdx.y * SIDE;
    const int x = column - picture.content_column, first_y = top - picture.content_row;
    const bool in_columns = x >= 0 && x < columns.outputs;
    int first, end, start[EACH], sums[EACH];
    span(rows, most(first_y, 0), least(first_y + SIDE, rows.outputs), first, end);
#pragma unroll
    for (int k = 0; k < EACH; ++k) {
        const int y = first_y + (int)threadIdx.y + k * THREAD_ROWS;
        start[k] = y >= 0 && y < rows.outputs ? rows.start[y] : end;  // no tap of it is in any chunk
        sums[k] = HALF;
    }
    // The same rounds for every thread of the block: barriers are inside.
    const int rounds = most((end - first + CHUNK - 1) / CHUNK, 1);
    const int step = (end - first + rounds - 1) / rounds;
    for (int chunk = first; chunk < end; chunk += step) {
        const int stop = least(chunk + step, end);
        if (in_columns)
            WITH_KIND(source.kind, horizontal, source, columns, x, chunk, stop, between)
        __syncthreads();
        for (int tap = 0; tap < rows.count; ++tap) {
            const int *taps = rows.taps + tap * rows.outputs + first_y + threadIdx.y;
#pragma unroll
            for (int k = 0; k < EACH; ++k) {
                const int row = start[k] + tap;
                if (row >= chunk && row < stop)
                    sums[k] += taps[k * THREAD_ROWS] * between[row - chunk][threadIdx.x];
            }
        }
        __syncthreads();
    }
    if (column >= picture.target.columns)
        return;
    for (int k = 0; k < EACH; ++k) {
        const int row = top + threadIdx.y + k * THREAD_ROWS, y = row - picture.content_row;
        const bool inside = in_columns && y >= 0 && y < rows.outputs;
        if (row < picture.target.rows)
            write(picture, row, column, inside, sums[k] >> WEIGHT_BITS);
    }
}
