// Crop, orient, resample, look up, letterbox and blank in one pass, straight into the batch's output: twin of
// _resample.resample, and of render.py's order of kernels.
//
// A block makes 32 × 32 output pixels. It takes the samples they need 32 rows at a time: the horizontal pass
// goes into shared memory as 16-bit values, the vertical pass sums those into registers. So a sample is read
// from memory once, but for the rows and columns that neighbouring tiles share. Sums are 32-bit signed:
// weights are non-negative and sum to 2^14, so the largest is 65535·2^14 + 8192 = 1,073,733,632.

enum { WEIGHT_BITS = 14, HALF = 1 << (WEIGHT_BITS - 1), SIDE = 32, THREAD_ROWS = 8, EACH = SIDE / THREAD_ROWS };

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

// Rows of samples between the first and the last that content rows [from, to) need.
__device__ __forceinline__ void span(const Axis &axis, int from, int to, int &first, int &end)
{
    first = 0x7fffffff;
    end = 0;
    for (int output = from; output < to; ++output) {
        first = least(first, axis.start[output]);
        end = most(end, axis.start[output] + axis.count);
    }
}

template <typename T>
__device__ void horizontal(const Picture &picture, int output, int first, int end, u16 between[SIDE][SIDE])
{
    const Axis &axis = picture.columns;
    int sums[EACH];
    for (int k = 0; k < EACH; ++k)
        sums[k] = HALF;
    const int start = axis.start[output];
#pragma unroll 1
    for (int tap = 0; tap < axis.count; ++tap) {
        const int weight = axis.taps[output + tap * axis.outputs];
        if (!weight)
            continue;
        for (int k = 0; k < EACH; ++k) {
            const int row = first + threadIdx.y + k * THREAD_ROWS;
            if (row < end)
                sums[k] += weight * index_of(*at<T>(picture.source, row, start + tap));
        }
    }
    for (int k = 0; k < EACH; ++k)
        between[threadIdx.y + k * THREAD_ROWS][threadIdx.x] = (u16)(sums[k] >> WEIGHT_BITS);
}

__device__ __forceinline__ void write(const Picture &picture, int row, int column, bool inside, int index)
{
    int value = 0;
    const int y = row - picture.content_row, x = column - picture.content_column;
    if (inside && picture.mask.data)
        inside = *at<u8>(picture.mask, picture.kept_rows[y], picture.kept_columns[x]);
    if (!inside)
        value = *picture.fill;
    else
        value = picture.table ? picture.table[index] : index;
    store(picture.target, row, column, value);
}

extern "C" __global__ void __launch_bounds__(256) pictures(const Picture *batch)
{
    __shared__ u16 between[SIDE][SIDE];
    const Picture &picture = batch[blockIdx.z];
    const int column = blockIdx.x * SIDE + threadIdx.x, top = blockIdx.y * SIDE;
    const int x = column - picture.content_column;
    const bool in_columns = x >= 0 && x < picture.columns.outputs;
    int first, end, sums[EACH];
    for (int k = 0; k < EACH; ++k)
        sums[k] = HALF;
    const int from = most(top - picture.content_row, 0);
    const int to = least(top + SIDE - picture.content_row, picture.rows.outputs);
    span(picture.rows, from, to, first, end);
    // The same rounds for every thread of the block: barriers are inside.
    for (int chunk = first; chunk < end; chunk += SIDE) {
        const int stop = least(chunk + SIDE, end);
        if (in_columns)
            WITH_KIND(picture.source.kind, horizontal, picture, x, chunk, stop, between)
        __syncthreads();
        for (int k = 0; k < EACH; ++k) {
            const int y = top + (int)threadIdx.y + k * THREAD_ROWS - picture.content_row;
            if (!in_columns || y < 0 || y >= picture.rows.outputs)
                continue;
            const int start = picture.rows.start[y];
            const int last = least(picture.rows.count, stop - start);
            for (int tap = most(chunk - start, 0); tap < last; ++tap)
                sums[k] += picture.rows.taps[y + tap * picture.rows.outputs] *
                           between[start + tap - chunk][threadIdx.x];
        }
        __syncthreads();
    }
    if (column >= picture.target.columns)
        return;
    for (int k = 0; k < EACH; ++k) {
        const int row = top + threadIdx.y + k * THREAD_ROWS, y = row - picture.content_row;
        const bool inside = in_columns && y >= 0 && y < picture.rows.outputs;
        if (row < picture.target.rows)
            write(picture, row, column, inside, sums[k] >> WEIGHT_BITS);
    }
}
