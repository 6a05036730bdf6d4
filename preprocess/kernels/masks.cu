// Erosion, dilation and 8-connected components of masks: twins of _mask.erode, dilate, largest_component,
// border_connected and fill_holes.
//
// Components are trees in an array of pixel indices whose links lead to smaller indices, so that a component's
// root is its first pixel in raster order, whatever the order of threads (the lock-free union with atomicMin:
// D. P. Playne, K. Hawick, IEEE Trans. Parallel Distrib. Syst. 29 (2018) 1217-1230).

// source → target: AND of the source within row_radius and column_radius (one of them 0), False beyond the
// border; with flag OR, for dilation.
extern "C" __global__ void window(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    const Plane &mask = job.source;
    EACH_PIXEL(job.target, row, column)
    {
        const int top = row - job.row_radius, bottom = row + job.row_radius;
        const int left = column - job.column_radius, right = column + job.column_radius;
        const bool inside = top >= 0 && left >= 0 && bottom < mask.rows && right < mask.columns;
        const u8 seeks = job.flag ? 1 : 0;  // dilation seeks a pixel that is set, erosion one that is not
        bool found = !job.flag && !inside;
        for (int i = most(top, 0); i <= least(bottom, mask.rows - 1) && !found; ++i)
            for (int j = most(left, 0); j <= least(right, mask.columns - 1) && !found; ++j)
                found = *at<u8>(mask, i, j) == seeks;
        *at<u8>(job.target, row, column) = found == (job.flag != 0);
    }
}

__device__ __forceinline__ int root_of(const int *links, int pixel)
{
    for (int next; (next = RELOAD(links + pixel)) != pixel; pixel = next) {}
    return pixel;
}

__device__ void unite(int *links, int a, int b)
{
    for (;;) {
        a = root_of(links, a);
        b = root_of(links, b);
        if (a == b)
            return;
        const int high = most(a, b), low = least(a, b);
        const int was = atomicMin(links + high, low);
        if (was == high)
            return;  // `high` was a root still, and now hangs below `low`
        a = was;  // another thread was faster: what `high` hung below is to be united with `low`
        b = low;
    }
}

// source: mask, flag: 1 for components of what is not set → target: I32 links, each pixel to itself, −1 outside.
extern "C" __global__ void components_begin(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    EACH_PIXEL(job.target, row, column)
        *at<int>(job.target, row, column) =
            (*at<u8>(job.source, row, column) != 0) != (job.flag != 0) ? row * job.target.columns + column : -1;
}

// target: links → united with the neighbours left, above left, above and above right.
extern "C" __global__ void components_unite(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    int *links = (int *)job.target.data;
    const int columns = job.target.columns;
    EACH_PIXEL(job.target, row, column)
    {
        const int pixel = row * columns + column;
        if (RELOAD(links + pixel) < 0)
            continue;
        const bool above = row > 0, left = column > 0, right = column < columns - 1;
        if (left && RELOAD(links + pixel - 1) >= 0)
            unite(links, pixel, pixel - 1);
        if (above && RELOAD(links + pixel - columns) >= 0)
            unite(links, pixel, pixel - columns);
        if (above && left && RELOAD(links + pixel - columns - 1) >= 0)
            unite(links, pixel, pixel - columns - 1);
        if (above && right && RELOAD(links + pixel - columns + 1) >= 0)
            unite(links, pixel, pixel - columns + 1);
    }
}

// target: links → each pixel to its root. result: at each root, the component's pixels; in its second half (from
// pixel count on), 1 if it touches the frame's border. Both begin as 0.
extern "C" __global__ void components_measure(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    int *links = (int *)job.target.data;
    const int rows = job.target.rows, columns = job.target.columns;
    int run = 0, previous = -1;
    EACH_PIXEL(job.target, row, column)
    {
        const int pixel = row * columns + column;
        if (RELOAD(links + pixel) < 0)
            continue;
        const int root = root_of(links, pixel);
        links[pixel] = root;
        if (row == 0 || column == 0 || row == rows - 1 || column == columns - 1)
            job.result[(i64)rows * columns + root] = 1;
        if (root != previous && run) {
            atomicAdd(job.result + previous, run);
            run = 0;
        }
        previous = root;
        ++run;
    }
    if (run)
        atomicAdd(job.result + previous, run);
}

// target: links to roots, result: areas → table: one u64, the largest of (area, first pixel closest to 0).
extern "C" __global__ void components_choose(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    EACH_PIXEL(job.target, row, column)
    {
        const int pixel = row * job.target.columns + column;
        if (*at<int>(job.target, row, column) == pixel)
            atomicMax((u64 *)job.table, (u64)job.result[pixel] << 32 | (u32)~pixel);
    }
}

// target: links to roots, table: the chosen one → mask: the pixels of that component.
extern "C" __global__ void components_select(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    const u64 chosen = *(const u64 *)job.table;
    const int root = chosen ? (int)~(u32)chosen : -2;
    EACH_PIXEL(job.mask, row, column)
        *at<u8>(job.mask, row, column) = *at<int>(job.target, row, column) == root;
}

// target: links to roots, result: areas and borders, flag 0 → mask: components that touch the border.
// flag 1 → mask: the source, and those other components that have at most `high` pixels.
extern "C" __global__ void components_filter(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    const int *border = job.result + (i64)job.target.rows * job.target.columns;
    EACH_PIXEL(job.mask, row, column)
    {
        const int root = *at<int>(job.target, row, column);
        const bool touches = root >= 0 && border[root], small = root >= 0 && job.result[root] <= job.high;
        *at<u8>(job.mask, row, column) = job.flag ? root < 0 || (small && !touches) : touches;
    }
}
