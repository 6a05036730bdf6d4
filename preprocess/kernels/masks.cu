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

// The root above a pixel. Links on the way are shortened: each to its link's link, which is in the same tree.
__device__ __forceinline__ int root_of(int *links, int pixel)
{
    for (int next; (next = RELOAD(links + pixel)) != pixel;) {
        const int beyond = RELOAD(links + next);
        if (beyond != next)
            atomicMin(links + pixel, beyond);
        pixel = beyond;
    }
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

// source: mask, flag: 1 for components of what is not set → target: I32 links, −1 outside; inside, each pixel to
// the first of its run within the tile's columns, which keeps the trees low.
extern "C" __global__ void components_begin(const Job *jobs)
{
    const Job &job = jobs[blockIdx.z];
    const bool inside = job.flag == 0;
    EACH_PIXEL(job.target, row, column)
    {
        const u8 *pixels = at<u8>(job.source, row, 0);
        int first = -1;
        if ((pixels[column] != 0) == inside)
            for (first = column; first % TILE_COLUMNS && (pixels[first - 1] != 0) == inside; --first) {}
        *at<int>(job.target, row, column) = first < 0 ? -1 : row * job.target.columns + first;
    }
}

// target: links → united with the neighbours left, above left, above and above right; but not where two of these
// are neighbours that are united elsewhere.
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
        const bool in_left = column > 0, in_right = column < columns - 1;
        const bool left = in_left && RELOAD(links + pixel - 1) >= 0;
        if (left && column % TILE_COLUMNS == 0)
            unite(links, pixel, pixel - 1);
        if (row == 0)
            continue;
        const int *above = links + pixel - columns;
        const bool up = RELOAD(above) >= 0, up_left = in_left && RELOAD(above - 1) >= 0;
        if (up && !(left && up_left))
            unite(links, pixel, pixel - columns);
        if (up)
            continue;
        if (up_left && !left)
            unite(links, pixel, pixel - columns - 1);
        if (in_right && RELOAD(above + 1) >= 0 && RELOAD(links + pixel + 1) < 0)
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
        atomicMin(links + pixel, root);
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
