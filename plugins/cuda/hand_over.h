// What one block of a launch hands to another while both run: plain writes, then a number that says they are done.
//
//   the giving block:  writes, __syncthreads(), then one thread add_release()
//   the taking block:  one thread wait_until(), __syncthreads(), then reads
//
// The barriers make one release and one acquire stand for the whole block: PTX orders what threads of a block did
// before bar.sync with what they do after it, and a release hands on all that is ordered before it.
#pragma once

#include <cstdint>
#include <cuda/atomic>

namespace panrt::cuda {

template <typename T>
using Shared = ::cuda::atomic_ref<T, ::cuda::thread_scope_device>;

// A word that other blocks may change at any moment, in some of its bits.
__device__ __forceinline__ std::uint32_t load_relaxed(std::uint32_t& word) {
  return Shared<std::uint32_t>(word).load(::cuda::memory_order_relaxed);
}

__device__ __forceinline__ void add_release(std::uint32_t& done, std::uint32_t units) {
  Shared<std::uint32_t>(done).fetch_add(units, ::cuda::memory_order_release);
}

// Sleeps longer from turn to turn, so that many waiting threads leave memory to those that work.
__device__ __forceinline__ void wait_until(std::uint32_t& done, std::uint32_t units) {
  constexpr unsigned kShortest = 32, kLongest = 512;  // nanoseconds, about
  for (unsigned pause = kShortest; Shared<std::uint32_t>(done).load(::cuda::memory_order_acquire) < units;
       pause = pause < kLongest ? 2 * pause : kLongest) {
    __nanosleep(pause);
  }
}

}  // namespace panrt::cuda
