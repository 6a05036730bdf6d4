// What every kernel needs: planes, jobs, and the passage from stored values to table indices.
//
// This text is put before each of the other .cu files, which are then compiled by NVRTC for GPUs and, in the
// tests, by a C++ compiler for the CPU. Integers only; no header is included.
//
// A launch runs over a batch: blockIdx.z is the job, and every job has sizes of its own. A block outside its
// job's area ends at once. Nothing is read back by the host between the launches of a batch.

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef short i16;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#ifndef RELOAD
// Read again what other threads may have changed.
#define RELOAD(address) (*(volatile int *)(address))
#endif

// Kinds of elements, as in launches.py. Masks are U8 and hold 0 or 1.
enum Kind { U8, I8, U16, I16, I32 };

// A 2-D array whose rows are contiguous. stride: elements from one row to the next.
struct Plane {
    void *data;
    i64 stride;
    int rows, columns;
    int kind, reserved;
};

// One image's part in a launch; each kernel says which fields it uses.
struct Job {
    Plane source, target, mask;
    void *table;
    int *result;
    int low, high;
    int stored_low, stored_high;
    int shift, precision;
    int row_radius, column_radius;
    int flag, reserved;
};

// Eight 16-bit values in one load or store.
struct __align__(16) Eight {
    u32 pairs[4];
};

static_assert(sizeof(Plane) == PLANE_BYTES && sizeof(Job) == JOB_BYTES, "launches.py packs other structures");

// Pixels of a tile: a warp takes 32 columns, a thread ROWS_EACH rows below one another.
enum { TILE_COLUMNS = 32, TILE_THREAD_ROWS = 8, ROWS_EACH = 8, TILE_ROWS = TILE_THREAD_ROWS * ROWS_EACH };

__device__ __forceinline__ int least(int a, int b) { return a < b ? a : b; }
__device__ __forceinline__ int most(int a, int b) { return a > b ? a : b; }
__device__ __forceinline__ int clamped(int value, int low, int high) { return least(most(value, low), high); }

template <typename T>
__device__ __forceinline__ T *at(const Plane &plane, int row, int column)
{
    return (T *)plane.data + row * plane.stride + column;
}

// Whether rows follow one another without gaps, from a multiple of 16 bytes on: then they may be read as Eights.
__device__ __forceinline__ bool gapless(const Plane &plane)
{
    return plane.stride == plane.columns && ((u64)plane.data & (sizeof(Eight) - 1)) == 0;
}

// Table index of a stored value: v, or v + 32768 where signed.
__device__ __forceinline__ int index_of(u8 value) { return value; }
__device__ __forceinline__ int index_of(u16 value) { return value; }
__device__ __forceinline__ int index_of(i8 value) { return value + 32768; }
__device__ __forceinline__ int index_of(i16 value) { return value + 32768; }
__device__ __forceinline__ int index_of(int value) { return value; }

// Call work<T>(…) with the element type of a kind; the same branch for a whole block.
#define WITH_KIND(kind, work, ...)                                                                           \
    switch (kind) {                                                                                          \
    case U8: work<u8>(__VA_ARGS__); break;                                                                   \
    case I8: work<i8>(__VA_ARGS__); break;                                                                   \
    case U16: work<u16>(__VA_ARGS__); break;                                                                 \
    case I16: work<i16>(__VA_ARGS__); break;                                                                 \
    default: work<int>(__VA_ARGS__); break;                                                                  \
    }

// Loop over this thread's pixels of the block's tile.
#define EACH_PIXEL(plane, row, column)                                                                       \
    const int column = blockIdx.x * TILE_COLUMNS + threadIdx.x;                                              \
    const int first_row_ = blockIdx.y * TILE_ROWS + threadIdx.y * ROWS_EACH;                                 \
    if (column < (plane).columns)                                                                            \
        for (int row = first_row_; row < least(first_row_ + ROWS_EACH, (plane).rows); ++row)

__device__ __forceinline__ void store(const Plane &plane, int row, int column, int value)
{
    switch (plane.kind) {
    case U8: *at<u8>(plane, row, column) = (u8)value; break;
    case I8: *at<i8>(plane, row, column) = (i8)value; break;
    case U16: *at<u16>(plane, row, column) = (u16)value; break;
    case I16: *at<i16>(plane, row, column) = (i16)value; break;
    default: *at<int>(plane, row, column) = value; break;
    }
}
