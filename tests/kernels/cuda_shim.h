// As much of CUDA as our kernels use, for a C++ compiler: the same .cu text runs on the CPU, block by block.
//
// Threads are fibers where a file has barriers (SHIM_FIBERS), else plain calls. Fibers run in a shuffled order
// that changes at every barrier. Where a file has none, SHIM_RACES runs all threads of the grid at once and
// switches between them at every atomic and every RELOAD, in a random order given by a seed.
// Shared memory is filled with rubbish before each block, as a GPU leaves it.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <deque>
#include <vector>
#include <csetjmp>
#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static __attribute__((section("shim_shared")))
#define __syncthreads() shim::barrier()
#define RELOAD(address) (shim::yield(), *(volatile int *)(address))

struct shim_index { int x, y, z; };
static shim_index threadIdx, blockIdx, blockDim, gridDim;

extern "C" char __start_shim_shared[] __attribute__((weak));
extern "C" char __stop_shim_shared[] __attribute__((weak));

namespace shim {

typedef void (*Kernel)(const void *);

struct Fiber {
    ucontext_t begin;
    jmp_buf state;
    std::unique_ptr<char[]> stack;
    shim_index thread, block;
    bool started = false, done = false, waiting = false;
};

static std::deque<Fiber> fibers;  // never moved: a context holds pointers into itself
static Fiber *running = nullptr;
static jmp_buf scheduler;
static Kernel kernel;
static const void *argument;
static uint64_t random_state;
static bool racing = false;
enum { STACK = 64 * 1024 };

static inline uint32_t random_number(uint32_t below)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((random_state >> 33) % below);
}

static void leave()
{
    if (!_setjmp(running->state))
        _longjmp(scheduler, 1);
    threadIdx = running->thread;
    blockIdx = running->block;
}

static inline void yield()
{
    if (racing)
        leave();
}

static inline void barrier()
{
    if (!running || racing) {
        std::fprintf(stderr, "a barrier outside fibers\n");
        std::abort();
    }
    running->waiting = true;
    leave();
}

static void body()
{
    kernel(argument);
    running->done = true;
    _longjmp(scheduler, 1);
}

static void resume(Fiber &fiber)
{
    running = &fiber;
    threadIdx = fiber.thread;
    blockIdx = fiber.block;
    if (!_setjmp(scheduler)) {
        if (fiber.started)
            _longjmp(fiber.state, 1);
        fiber.started = true;
        setcontext(&fiber.begin);
    }
    running = nullptr;
}

static void add(size_t slot, shim_index thread, shim_index block)
{
    if (fibers.size() <= slot)
        fibers.emplace_back();
    Fiber &fiber = fibers[slot];
    if (!fiber.stack)
        fiber.stack.reset(new char[STACK]);
    fiber.thread = thread;
    fiber.block = block;
    fiber.started = fiber.done = fiber.waiting = false;
    getcontext(&fiber.begin);
    fiber.begin.uc_stack.ss_sp = fiber.stack.get();
    fiber.begin.uc_stack.ss_size = STACK;
    fiber.begin.uc_link = nullptr;
    makecontext(&fiber.begin, body, 0);
}

// Every live thread runs to the next barrier or its end; 1 if only some of them came to a barrier.
static int run_to_barriers(size_t count)
{
    for (;;) {
        size_t waiting = 0, first = random_number((uint32_t)count), step = 2 * random_number(1024) + 1;
        for (size_t i = 0; i < count; ++i) {  // block sizes are powers of two: an odd step visits every thread
            Fiber &fiber = fibers[(first + i * step) % count];
            if (!fiber.done) {
                fiber.waiting = false;
                resume(fiber);
                waiting += fiber.waiting;
            }
        }
        if (!waiting)
            return 0;
        if (waiting != count)
            return 1;
    }
}

static void run_racing(size_t count)
{
    std::vector<size_t> live(count);
    for (size_t i = 0; i < count; ++i)
        live[i] = i;
    while (!live.empty()) {
        size_t pick = random_number((uint32_t)live.size());
        resume(fibers[live[pick]]);
        if (fibers[live[pick]].done) {
            live[pick] = live.back();
            live.pop_back();
        }
    }
}

}  // namespace shim

template <typename T> static inline T atomicAdd(T *address, T value)
{
    shim::yield();
    T old = *address;
    *address = (T)((uint64_t)old + (uint64_t)value);
    return old;
}

template <typename T> static inline T atomicMin(T *address, T value)
{
    shim::yield();
    T old = *address;
    if (value < old)
        *address = value;
    return old;
}

template <typename T> static inline T atomicMax(T *address, T value)
{
    shim::yield();
    T old = *address;
    if (value > old)
        *address = value;
    return old;
}

// mode 0: plain calls; 1: fibers with barriers; 2: all threads of the grid racing.
extern "C" int shim_launch(shim::Kernel kernel, const void *jobs, const int *grid, const int *block, int mode,
                           uint64_t seed)
{
    using namespace shim;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    shim::kernel = kernel;
    argument = jobs;
    random_state = seed;
    racing = mode == 2;
    const size_t threads = (size_t)block[0] * block[1] * block[2];
    size_t slot = 0;
    int divergent = 0;
    for (int z = 0; z < grid[2]; ++z)
        for (int y = 0; y < grid[1]; ++y)
            for (int x = 0; x < grid[0]; ++x) {
                blockIdx = {x, y, z};
                if (__start_shim_shared)
                    std::memset(__start_shim_shared, 0xA5, (size_t)(__stop_shim_shared - __start_shim_shared));
                if (mode == 1)
                    slot = 0;
                for (int k = 0; k < block[2]; ++k)
                    for (int j = 0; j < block[1]; ++j)
                        for (int i = 0; i < block[0]; ++i) {
                            threadIdx = {i, j, k};
                            if (mode)
                                add(slot++, threadIdx, blockIdx);
                            else
                                kernel(jobs);
                        }
                if (mode == 1)
                    divergent |= run_to_barriers(threads);
            }
    if (mode == 2)
        run_racing(slot);
    racing = false;
    return divergent;
}
