// Small kernels, each right with `bug` 0 and wrong in one place with its own number; what they show is an
// interpreter's.
#include <cuda_runtime.h>

#include <cuda/atomic>

enum Bug { kNone, kNoBarrier, kNoSyncwarp, kPlainStore, kNoRelease, kNoAcquire };

namespace {

using Flag = cuda::atomic_ref<int, cuda::thread_scope_device>;

// A block reverses its numbers through shared memory.
__global__ void reverse_block(int const* in, int* out, int bug) {
  __shared__ int staged[128];
  staged[threadIdx.x] = in[threadIdx.x];
  if (bug != kNoBarrier) __syncthreads();
  out[threadIdx.x] = staged[127 - threadIdx.x];
}

// Each warp swaps neighbours through shared memory.
__global__ void swap_neighbours(int const* in, int* out, int bug) {
  __shared__ int staged[64];
  staged[threadIdx.x] = in[threadIdx.x];
  if (bug != kNoSyncwarp) __syncwarp();
  out[threadIdx.x] = staged[threadIdx.x ^ 1];
}

// Blocks count what they find.
__global__ void count_kinds(int const* in, int* counts, int bug) {
  int* const count = counts + in[blockIdx.x * blockDim.x + threadIdx.x];
  if (bug == kPlainStore) {
    *count = *count + 1;
  } else {
    atomicAdd(count, 1);
  }
}

// The block that comes first hands its numbers, doubled, to the others. With `is_strong` the numbers themselves are
// relaxed atomics: then nothing is a race, and only their values tell that they came too early.
__global__ void hand_over(int const* in, int* between, int* ready, int* out, int bug, int is_strong) {
  __shared__ int ticket;
  int const t = static_cast<int>(threadIdx.x);
  if (t == 0) ticket = atomicAdd(ready + 1, 1);
  __syncthreads();
  Flag flag(*ready), number(between[t]);
  if (ticket == 0) {
    if (is_strong != 0) {
      number.store(2 * in[t], cuda::memory_order_relaxed);
    } else {
      between[t] = 2 * in[t];
    }
    __syncthreads();
    if (t == 0) flag.fetch_add(1, bug == kNoRelease ? cuda::memory_order_relaxed : cuda::memory_order_release);
  } else {
    if (t == 0) {
      if (bug == kNoAcquire) {
        while (flag.load(cuda::memory_order_relaxed) == 0) __nanosleep(20);
      } else {
        while (flag.load(cuda::memory_order_acquire) == 0) __nanosleep(20);
      }
    }
    __syncthreads();
    int const received = is_strong != 0 ? number.load(cuda::memory_order_relaxed) : between[t];
    out[(ticket - 1) * 32 + t] = received;
  }
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int run_reverse_block(int const* in, int* out, int bug) {
  reverse_block<<<1, 128>>>(in, out, bug);
  return cudaGetLastError();
}
EXPORT int run_swap_neighbours(int const* in, int* out, int bug) {
  swap_neighbours<<<1, 64>>>(in, out, bug);
  return cudaGetLastError();
}
EXPORT int run_count_kinds(int const* in, int* counts, int bug) {
  count_kinds<<<4, 32>>>(in, counts, bug);
  return cudaGetLastError();
}
EXPORT int run_hand_over(int const* in, int* between, int* ready, int* out, int bug, int is_strong) {
  hand_over<<<3, 32>>>(in, between, ready, out, bug, is_strong);
  return cudaGetLastError();
}
