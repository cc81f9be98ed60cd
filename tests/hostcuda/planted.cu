// Small kernels with one bug each, and small kernels without: what the simulation must find, and what it must not.
#include <cuda/atomic>

#include "launch.h"

namespace {

constexpr int kThreads = 64;

__global__ void copy(int const* in, int* out, int count) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) out[i] = in[i];
}

__global__ void copy_strided(int const* in, int* out, int stride) {
  int const i = threadIdx.x;
  out[i] = in[i * stride];
}

// Every `step`th lane writes; neighbours `stride` apart, upwards from 0 or, where it is given, downwards from `last`.
__global__ void scatter(int* out, int step, int stride, int last) {
  int const i = threadIdx.x;
  if (i % step == 0) out[last < 0 ? i * stride : last - i * stride] = i;
}

__global__ void copy_vectors(float4 const* in, float4* out, int count) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) out[i] = in[i];
}

// Each block sums 64 numbers.
template <bool with_barrier>
__global__ void block_sum(int const* in, int* out) {
  __shared__ int partial[kThreads];
  int const t = threadIdx.x;
  partial[t] = in[blockIdx.x * kThreads + t];
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (t < half) partial[t] += partial[t + half];
    if (with_barrier) __syncthreads();
  }
  if (t == 0) out[blockIdx.x] = partial[0];
}

__global__ void warp_sum(int const* in, int* out) {
  int sum = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_down_sync(0xFFFFFFFFU, sum, lanes);
  if (threadIdx.x % 32 == 0) out[(blockIdx.x * blockDim.x + threadIdx.x) / 32] = sum;
}

__global__ void warp_words(int* out) {
  int const lane = threadIdx.x;
  out[lane] = static_cast<int>(__ballot_sync(0xFFFFFFFFU, lane % 3 == 0));
  out[32 + lane] = __shfl_up_sync(0xFFFFFFFFU, lane, 1);
  out[64 + lane] = __shfl_xor_sync(0xFFFFFFFFU, lane, 5);
  out[96 + lane] = __shfl_sync(0xFFFFFFFFU, lane, 3, 8);
  out[128 + lane] = static_cast<int>(__reduce_max_sync(0xFFFFFFFFU, static_cast<unsigned>(lane * 7 % 32)));
  out[160 + lane] = __any_sync(0xFFFFFFFFU, lane == 31) + 2 * __all_sync(0xFFFFFFFFU, lane < 31);
  out[192 + lane] = static_cast<int>(__match_any_sync(0xFFFFFFFFU, lane / 16));
  if (lane < 8) out[224 + lane] = __shfl_down_sync(0xFFU, lane, 4, 8);
}

__global__ void count_all(int* counts) {
  __shared__ int votes;
  if (threadIdx.x == 0) votes = 0;
  __syncthreads();
  atomicAdd(&votes, 1);
  int const odd = __syncthreads_count(threadIdx.x % 2);
  if (threadIdx.x == 0) {
    atomicAdd(&counts[0], votes);
    atomicAdd(&counts[1], odd);
  }
  atomicMax(&counts[2], static_cast<int>(threadIdx.x));
}

__global__ void divergent_barrier(int* out) {
  if (threadIdx.x < 7) __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void two_barriers(int* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

__global__ void deadlocked_warp(int* out) {
  if (threadIdx.x != 5) __syncwarp();
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void mask_of_the_absent(int* out) {
  if (threadIdx.x >= 16) return;
  out[threadIdx.x] = __shfl_sync(0xFFFFFFFFU, 1, 0);
}

__global__ void mask_without_itself(int* out) { out[threadIdx.x] = static_cast<int>(__ballot_sync(0xFFFEU, 1)); }

__global__ void shuffle_from_outside(int* out) {
  if (threadIdx.x < 8) out[threadIdx.x] = __shfl_sync(0xFFU, 1, 9);
}

__global__ void past_the_end(int const* in, int* out, int count) { out[threadIdx.x] = in[count]; }

__global__ void past_static_shared(int* out, int past) {
  __shared__ int cells[kThreads];
  int* const first = cells;
  first[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = first[threadIdx.x + past];
}

__global__ void past_dynamic_shared(int* out, int past) {
  int* const cells = panrt::cuda::dynamic_shared<int>();
  cells[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = cells[threadIdx.x + past];
}

__global__ void unwritten_shared(unsigned* out) {
  unsigned const* const cells = panrt::cuda::dynamic_shared<unsigned>();
  out[threadIdx.x] = cells[threadIdx.x];
}

// Lanes hand values on through shared memory; a shuffle between orders nothing.
template <bool with_syncwarp>
__global__ void warp_exchange(int* out) {
  __shared__ int cells[32];
  cells[threadIdx.x] = threadIdx.x;
  int const zero = __shfl_sync(0xFFFFFFFFU, 0, 0);
  if (with_syncwarp) __syncwarp();
  out[threadIdx.x] = cells[31 - threadIdx.x] + zero;
}

__global__ void blocks_meet(int* out) { out[threadIdx.x] = static_cast<int>(blockIdx.x); }

// The first block gives a value to the second, by way of `done`; right only where the hand-over orders it.
template <cuda::memory_order release, cuda::memory_order acquire>
__global__ void give_and_take(int* out, int* value, unsigned* done) {
  cuda::atomic_ref<unsigned, cuda::thread_scope_device> const count(*done);
  if (blockIdx.x == 0) {
    value[threadIdx.x] = 7;
    count.fetch_add(1, release);
  } else {
    while (count.load(acquire) < blockDim.x) __nanosleep(100);
    out[threadIdx.x] = value[threadIdx.x];
  }
}

__global__ void column_of_tile(int* out, int pitch) {
  int* const tile = panrt::cuda::dynamic_shared<int>();
  tile[threadIdx.x * pitch] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x * pitch];
}

template <typename... Parameters, typename... Arguments>
int run(void (*kernel)(Parameters...), unsigned grid, unsigned block, std::size_t shared, Arguments... arguments) {
  return static_cast<int>(panrt::cuda::launch(kernel, {grid, block, shared}, nullptr, arguments...).code);
}

// What a hooked stream holds back.
struct Held {
  int (*run)(void*);
  void (*destroy)(void*);
  void* work;
};
Held held[2];
int held_count = 0;

}  // namespace

extern "C" {
// Fills and copies through a stream that runs nothing until all is in it; *early is what `out` began with before that.
int run_held_back(int const* in, int* out, int* early, int count) {
  hc_set_stream_hook([](cudaStream_t, int (*run)(void*), void (*destroy)(void*), void* work) {
    held[held_count++] = {run, destroy, work};
  });
  cudaMemsetAsync(out, 0, sizeof(int), nullptr);
  int error = run(copy, 1, kThreads, 0, in, out, count);
  hc_set_stream_hook(nullptr);
  *early = *out;
  for (int i = 0; i < held_count; ++i) {
    error |= held[i].run(held[i].work);
    held[i].destroy(held[i].work);
  }
  held_count = 0;
  return error;
}
int run_copy(int const* in, int* out, int count, int grid) { return run(copy, grid, kThreads, 0, in, out, count); }
int run_copy_of(int const* in, int* out, int grid, int block, int shared) {
  return run(copy, grid, block, shared, in, out, 0);
}
int run_copy_strided(int const* in, int* out, int stride) { return run(copy_strided, 1, 32, 0, in, out, stride); }
int run_scatter(int* out, int step, int stride, int last) { return run(scatter, 1, 32, 0, out, step, stride, last); }
int run_copy_vectors(float4 const* in, float4* out, int count) { return run(copy_vectors, 2, 32, 0, in, out, count); }
int run_block_sum(int const* in, int* out, int grid) { return run(block_sum<true>, grid, kThreads, 0, in, out); }
int run_block_sum_racy(int const* in, int* out, int grid) { return run(block_sum<false>, grid, kThreads, 0, in, out); }
int run_warp_sum(int const* in, int* out, int grid) { return run(warp_sum, grid, kThreads, 0, in, out); }
int run_warp_words(int* out) { return run(warp_words, 1, 32, 0, out); }
int run_count_all(int* counts, int grid) { return run(count_all, grid, 70, 0, counts); }
int run_divergent_barrier(int* out) { return run(divergent_barrier, 1, kThreads, 0, out); }
int run_two_barriers(int* out) { return run(two_barriers, 1, kThreads, 0, out); }
int run_deadlocked_warp(int* out) { return run(deadlocked_warp, 1, 32, 0, out); }
int run_mask_of_the_absent(int* out) { return run(mask_of_the_absent, 1, 32, 0, out); }
int run_mask_without_itself(int* out) { return run(mask_without_itself, 1, 32, 0, out); }
int run_shuffle_from_outside(int* out) { return run(shuffle_from_outside, 1, 32, 0, out); }
int run_past_the_end(int const* in, int* out, int count) { return run(past_the_end, 1, 32, 0, in, out, count); }
int run_past_static_shared(int* out, int past) { return run(past_static_shared, 1, kThreads, 0, out, past); }
int run_past_dynamic_shared(int* out, int past) {
  return run(past_dynamic_shared, 1, kThreads, kThreads * sizeof(int), out, past);
}
int run_unwritten_shared(unsigned* out) { return run(unwritten_shared, 1, 32, 128, out); }
int run_warp_exchange(int* out) { return run(warp_exchange<true>, 1, 32, 0, out); }
int run_warp_exchange_racy(int* out) { return run(warp_exchange<false>, 1, 32, 0, out); }
int run_blocks_meet(int* out, int grid) { return run(blocks_meet, grid, 32, 0, out); }
int run_give_and_take(int* out, int* value, unsigned* done) {
  return run(give_and_take<cuda::memory_order_release, cuda::memory_order_acquire>, 2, 32, 0, out, value, done);
}
int run_give_unreleased(int* out, int* value, unsigned* done) {
  return run(give_and_take<cuda::memory_order_relaxed, cuda::memory_order_acquire>, 2, 32, 0, out, value, done);
}
int run_take_unacquired(int* out, int* value, unsigned* done) {
  return run(give_and_take<cuda::memory_order_release, cuda::memory_order_relaxed>, 2, 32, 0, out, value, done);
}
int run_column_of_tile(int* out, int pitch) {
  return run(column_of_tile, 1, 32, 32U * pitch * sizeof(int), out, pitch);
}
}
