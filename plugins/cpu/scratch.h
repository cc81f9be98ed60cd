// Uninitialised memory for one call.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace panrt {

struct FreeMemory {
  void operator()(void* memory) const { std::free(memory); }
};

// Large blocks ask for huge pages: tens of megabytes in pages of 4 KiB cost more in page faults than filling them does.
inline std::unique_ptr<float[], FreeMemory> allocate_scratch(std::size_t floats) {
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  std::size_t const bytes = (floats * sizeof(float) + kHugePage - 1) / kHugePage * kHugePage;
  void* const memory = std::aligned_alloc(kHugePage, bytes);
  if (memory == nullptr) throw std::bad_alloc();
#ifdef __linux__
  madvise(memory, bytes, MADV_HUGEPAGE);  // a hint: without it the result is the same
#endif
  return std::unique_ptr<float[], FreeMemory>(static_cast<float*>(memory));
}

}  // namespace panrt
