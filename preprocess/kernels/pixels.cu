// One pixel in, one pixel out: twins of _resample.to_index, look_up, block_mean and _mask.shift_mean, within,
// brightest_of_nine, and of _blank.blank. A thread takes 8 rows of a column; a warp reads 32 neighbours.

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

template <typename T>
__device__ void mean_tile(const Job &job)
{
    const int side = 1 << job.shift, last_row = job.source.rows - 1, last_column = job.source.columns - 1;
    const int column = blockIdx.x * TILE_COLUMNS + threadIdx.x;
    const int row = blockIdx.y * TILE_ROWS + threadIdx.y * ROWS_EACH;
    if (column >= job.target.columns || row >= job.target.rows)
        return;
    const i64 half = job.shift ? (i64)1 << (2 * job.shift - 1) : 0;
    i64 totals[ROWS_EACH];  // all of a thread's blocks at once, so that their loads do not wait for each other
    for (int k = 0; k < ROWS_EACH; ++k)
        totals[k] = half;
    for (int i = 0; i < side; ++i)
        for (int j = 0; j < side; ++j) {
            const int from = least((column << job.shift) + j, last_column);
#pragma unroll
            for (int k = 0; k < ROWS_EACH; ++k)
                totals[k] += *at<T>(job.source, least(((row + k) << job.shift) + i, last_row), from);
        }
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

// source: U16 values that DALI multiplied by 65535 / (2^precision − 1) → target: U16, the values before that.
extern "C" __global__ void undo_range(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    const u32 largest = (1u << job.precision) - 1;
    EACH_PIXEL(job.target, row, column)
        *at<u16>(job.target, row, column) = (u16)((*at<u16>(job.source, row, column) * largest + 32767) / 65535);
}
