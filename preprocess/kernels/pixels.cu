// One pixel out: twins of _resample.to_index, look_up, block_mean, of _mask.shift_mean, within,
// brightest_of_nine, of _blank.blank, and of _wavelet.low_pass. A thread takes 8 rows of a column; a warp reads 32 neighbours.

template <typename T>
__device__ void index_tile(const Job &job)
{
    EACH_PIXEL(job.target, row, column)
        *at<u16>(job.target, row, column) = (u16)index_of(*at<T>(job.source, row, column));
}

// source: stored values → target: U16 table indices.
extern "C" __global__ void to_index(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    WITH_KIND(job.source.kind, index_tile, job)
}

// source: U16 indices, table: 65,536 entries of the target's kind (U8 or U16) → target.
extern "C" __global__ void look_up(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    EACH_PIXEL(job.target, row, column)
    {
        const int index = *at<u16>(job.source, row, column);
        if (job.target.kind == U8)
            *at<u8>(job.target, row, column) = ((const u8 *)job.table)[index];
        else
            *at<u16>(job.target, row, column) = ((const u16 *)job.table)[index];
    }
}

// Sums of up to 2^14 values.
template <typename T> struct Sum { typedef int type; };
template <> struct Sum<int> { typedef i64 type; };

// Blocks that lie in the image whole: ROWS_EACH of them below one another, all at once, so that their loads do
// not wait for each other; 16-bit values in pairs where they lie so.
template <typename T>
__device__ void sum_whole(const Job &job, int row, int column, typename Sum<T>::type totals[ROWS_EACH])
{
    const int side = 1 << job.shift;
    const i64 below = side * job.source.stride;
    for (int i = 0; i < side; ++i) {
        const T *first = at<T>(job.source, (row << job.shift) + i, column << job.shift);
        int j = 0;
        if (sizeof(T) == 2 && side > 1 && ((u64)first & 3) == 0)  // and so are those below: side is even
            for (; j < side; j += 2)
#pragma unroll
                for (int k = 0; k < ROWS_EACH; ++k) {
                    const u32 pair = *(const u32 *)(first + j + k * below);
                    totals[k] += (T)(pair & 0xffff) + (T)(pair >> 16);
                }
        for (; j < side; ++j)
#pragma unroll
            for (int k = 0; k < ROWS_EACH; ++k)
                totals[k] += first[j + k * below];
    }
}

// The same where blocks reach beyond the image: edges are repeated.
template <typename T>
__device__ void sum_at_edge(const Job &job, int row, int column, typename Sum<T>::type totals[ROWS_EACH])
{
    const int side = 1 << job.shift, last_row = job.source.rows - 1, last_column = job.source.columns - 1;
    for (int i = 0; i < side; ++i)
        for (int j = 0; j < side; ++j) {
            const int from = least((column << job.shift) + j, last_column);
#pragma unroll
            for (int k = 0; k < ROWS_EACH; ++k)
                totals[k] += *at<T>(job.source, least(((row + k) << job.shift) + i, last_row), from);
        }
}

template <typename T>
__device__ void mean_tile(const Job &job)
{
    const int column = blockIdx.x * TILE_COLUMNS + threadIdx.x;
    const int row = blockIdx.y * TILE_ROWS + threadIdx.y * ROWS_EACH;
    if (column >= job.target.columns || row >= job.target.rows)
        return;
    typename Sum<T>::type totals[ROWS_EACH];
#pragma unroll
    for (int k = 0; k < ROWS_EACH; ++k)
        totals[k] = job.shift ? 1 << (2 * job.shift - 1) : 0;
    const bool whole = (row + ROWS_EACH) << job.shift <= job.source.rows &&
                       (column + 1) << job.shift <= job.source.columns;
    if (whole)
        sum_whole<T>(job, row, column, totals);
    else
        sum_at_edge<T>(job, row, column, totals);
#pragma unroll
    for (int k = 0; k < ROWS_EACH; ++k)
        if (row + k < job.target.rows)
            store(job.target, row + k, column, (int)(totals[k] >> (2 * job.shift)));
}

// source: integers, shift → target: the rounded mean of each 2^shift × 2^shift block; edges are repeated.
extern "C" __global__ void block_mean(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    WITH_KIND(job.source.kind, mean_tile, job)
}

template <typename T>
__device__ void within_tile(const Job &job)
{
    EACH_PIXEL(job.target, row, column)
    {
        const int value = *at<T>(job.source, row, column);
        *at<u8>(job.target, row, column) = job.low <= value && value <= job.high;
    }
}

// source: integers, low, high → target: mask of low ≤ value ≤ high.
extern "C" __global__ void within(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    WITH_KIND(job.source.kind, within_tile, job)
}

template <typename T>
__device__ void nine_tile(const Job &job)
{
    const int last_row = job.source.rows - 1, last_column = job.source.columns - 1;
    EACH_PIXEL(job.target, row, column)
    {
        T best = *at<T>(job.source, row, column);
        for (int i = most(row - 1, 0); i <= least(row + 1, last_row); ++i)
            for (int j = most(column - 1, 0); j <= least(column + 1, last_column); ++j) {
                const T value = *at<T>(job.source, i, j);
                if (job.flag ? value < best : value > best)
                    best = value;
            }
        *at<T>(job.target, row, column) = best;
    }
}

// source → target of the same kind: the largest of each 3 × 3 neighbourhood, or with flag the smallest.
extern "C" __global__ void brightest_of_nine(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    WITH_KIND(job.source.kind, nine_tile, job)
}

// mask: what stays; table: for each row, then for each column of target, its row and column in the mask.
// What does not stay becomes *result.
extern "C" __global__ void blank(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    const int *rows = (const int *)job.table, *columns = rows + job.target.rows;
    EACH_PIXEL(job.target, row, column)
        if (!*at<u8>(job.mask, rows[row], columns[column]))
            store(job.target, row, column, *job.result);
}

// Index of a line of `size` ≥ 2 samples that goes on mirrored at its first and last one.
__device__ __forceinline__ int mirrored(int index, int size)
{
    const int inside = index < 0 ? -index : index;
    return inside < size ? inside : 2 * (size - 1) - inside;
}

// Low-pass sample between two details; each is a sample less the mean of its neighbours (T.800 F-9, F-10).
__device__ __forceinline__ int lifted(int far_before, int before, int here, int after, int far_after)
{
    const int detail_before = before - ((far_before + here) >> 1), detail_after = after - ((here + far_after) >> 1);
    return here + ((detail_before + detail_after + 2) >> 2);
}

// Columns come before rows: rows are gone over with the low-pass samples of columns.
template <typename T>
__device__ __forceinline__ int low_of_column(const Plane &plane, int row, int column)
{
    if (plane.rows == 1)
        return *at<T>(plane, 0, column);
    int near[5];
#pragma unroll
    for (int k = 0; k < 5; ++k)
        near[k] = *at<T>(plane, mirrored(2 * row + k - 2, plane.rows), column);
    return lifted(near[0], near[1], near[2], near[3], near[4]);
}

template <typename T>
__device__ void low_tile(const Job &job)
{
    const int columns = job.source.columns;
    EACH_PIXEL(job.target, row, column)
    {
        int value;
        if (columns == 1)
            value = low_of_column<T>(job.source, row, 0);
        else {
            int near[5];
#pragma unroll
            for (int k = 0; k < 5; ++k)
                near[k] = low_of_column<T>(job.source, row, mirrored(2 * column + k - 2, columns));
            value = lifted(near[0], near[1], near[2], near[3], near[4]);
        }
        *at<int>(job.target, row, column) = value;
    }
}

// source: integers → target: I32, half as many rows and columns: one step of the 5/3 low-pass filter.
extern "C" __global__ void low_pass(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    WITH_KIND(job.source.kind, low_tile, job)
}

// source: U16 values that DALI multiplied by 65535 / (2^precision − 1) → target: U16, the values before that.
extern "C" __global__ void undo_range(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    const u32 largest = (1u << job.precision) - 1;
    EACH_PIXEL(job.target, row, column)
        *at<u16>(job.target, row, column) = (u16)((*at<u16>(job.source, row, column) * largest + 32767) / 65535);
}
