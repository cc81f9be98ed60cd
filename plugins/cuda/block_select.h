// Block-wide operations on ranks: find the k best, sort, collect. A rank (panrt/boxes.h) is 64 bits, a score and
// an index; no two are equal, so there is one right answer and no order of threads shows in it.
//
// Every function here is called by all threads of a block of kThreads, one-dimensional, and begins and ends with a
// barrier: shared memory may be written before and read after.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "panrt/boxes.h"

namespace panrt::cuda {

constexpr Rank kNoRank = ~Rank{0};  // after every real one
constexpr unsigned kAllLanes = 0xFFFFFFFFU;

__device__ __forceinline__ unsigned lane_id() { return threadIdx.x % 32U; }
__device__ __forceinline__ unsigned warp_id() { return threadIdx.x / 32U; }
__device__ __forceinline__ unsigned lanes_below(unsigned lane) { return (1U << lane) - 1U; }

// Takes a place in a list for each lane that wants one; `next` is the list's length. All lanes of a warp call it.
__device__ __forceinline__ std::uint32_t take_place(bool wanted, std::uint32_t* next) {
  unsigned const wanting = __ballot_sync(kAllLanes, wanted);
  std::uint32_t first = 0;
  if (lane_id() == 0 && wanting != 0) first = atomicAdd(next, static_cast<std::uint32_t>(__popc(wanting)));
  first = __shfl_sync(kAllLanes, first, 0);
  return first + static_cast<std::uint32_t>(__popc(wanting & lanes_below(lane_id())));
}

// The sum of `value` over the threads before this one, and over all.
template <int kThreads>
__device__ std::uint32_t exclusive_sum(std::uint32_t value, std::uint32_t (&warp_sums)[32], std::uint32_t& total) {
  static_assert(kThreads % 32 == 0 && kThreads <= 1024, "whole warps");
  constexpr unsigned kWarps = kThreads / 32;
  std::uint32_t inclusive = value;
  for (unsigned step = 1; step < 32; step *= 2) {
    std::uint32_t const before = __shfl_up_sync(kAllLanes, inclusive, step);
    if (lane_id() >= step) inclusive += before;
  }
  __syncthreads();  // the last call's sums have been read
  if (lane_id() == 31) warp_sums[warp_id()] = inclusive;
  __syncthreads();
  std::uint32_t before = 0;
  total = 0;
  for (unsigned warp = 0; warp < kWarps; ++warp) {
    std::uint32_t const sum = warp_sums[warp];
    if (warp < warp_id()) before += sum;
    total += sum;
  }
  return before + inclusive - value;
}

constexpr int kDigitBits = 11;  // of 32: three passes. The first sees sign, exponent and two more bits of a score
constexpr int kDigits = 1 << kDigitBits;

struct SelectScratch {
  std::uint32_t histogram[kDigits];
  std::uint32_t warp_sums[32];
  std::uint32_t digit, before, equal;
};

// The digit in which the k-th of the counted values lies (k from 1), how many values come before that digit, and how
// many are in it; by the histogram in `scratch`.
template <int kThreads>
__device__ void find_digit(SelectScratch& scratch, std::uint32_t k) {
  constexpr int kEach = (kDigits + kThreads - 1) / kThreads;
  std::uint32_t counts[kEach], sum = 0;
  __syncthreads();  // the histogram is complete
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    int const digit = static_cast<int>(threadIdx.x) * kEach + i;
    counts[i] = digit < kDigits ? scratch.histogram[digit] : 0U;
    sum += counts[i];
  }
  std::uint32_t total;
  std::uint32_t before = exclusive_sum<kThreads>(sum, scratch.warp_sums, total);
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (before < k && k <= before + counts[i]) {
      scratch.digit = threadIdx.x * kEach + static_cast<unsigned>(i);
      scratch.before = before;
      scratch.equal = counts[i];
    }
    before += counts[i];
  }
  __syncthreads();
}

// The greatest rank among the k least of `count`: exactly k ranks are at most what it returns. high(i) and low(i) are
// the halves of rank i, and low is asked for only where the high halves tie; k is at least 1, and at least k ranks are
// below kNoRank.
template <int kThreads, typename High, typename Low>
__device__ Rank select_bound(SelectScratch& scratch, std::int64_t count, std::uint32_t k, High const& high,
                             Low const& low) {
  std::uint32_t halves[2] = {0, 0};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    std::uint32_t known = 0;  // bits of this half that are fixed
#pragma unroll 1
    for (int shift = 32 - kDigitBits; known != ~0U; shift = shift > kDigitBits ? shift - kDigitBits : 0) {
      __syncthreads();  // the digit has been read
      for (int i = static_cast<int>(threadIdx.x); i < kDigits; i += kThreads) scratch.histogram[i] = 0;
      __syncthreads();
      for (std::int64_t i = threadIdx.x; i < count; i += kThreads) {
        std::uint32_t value = high(i);
        if (half == 1) {
          if (value != halves[0]) continue;
          value = low(i);
        }
        if ((value & known) == halves[half]) atomicAdd(&scratch.histogram[(value & ~known) >> shift], 1U);
      }
      find_digit<kThreads>(scratch, k);
      halves[half] |= scratch.digit << shift;
      k -= scratch.before;
      known |= ~0U << shift;
      if (scratch.equal == k) {  // all that agree so far are among the best
        std::uint32_t const rest = halves[half] | ~known;
        __syncthreads();
        return half == 0 ? static_cast<Rank>(rest) << 32 | ~0U : static_cast<Rank>(halves[0]) << 32 | rest;
      }
    }
  }
  __syncthreads();
  return static_cast<Rank>(halves[0]) << 32 | halves[1];
}

// Sorts in place, ascending; `count` is a power of two. Bitonic: log2(count) * (log2(count) + 1) / 2 steps. The ranks
// lie in shared memory, or in global memory that only this block touches.
template <int kThreads>
__device__ void sort_ranks(Rank* ranks, std::uint32_t count) {
  for (std::uint32_t size = 2; size <= count; size *= 2) {
    for (std::uint32_t stride = size / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (std::uint32_t pair = threadIdx.x; pair < count / 2; pair += kThreads) {
        std::uint32_t const first = pair / stride * stride * 2 + pair % stride, second = first + stride;
        bool const ascending = (first & size) == 0;
        Rank const a = ranks[first], b = ranks[second];
        if ((a > b) == ascending) {
          ranks[first] = b;
          ranks[second] = a;
        }
      }
    }
  }
  __syncthreads();
}

PANRT_HD std::uint32_t power_of_two_from(std::uint32_t count) {
  std::uint32_t power = 1;
  while (power < count) power *= 2;
  return power;
}

}  // namespace panrt::cuda
