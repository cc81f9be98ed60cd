// Parts of the single block of memory that a caller passes to a launch.
#pragma once

#include <cstddef>
#include <cstdint>

namespace panrt::cuda {

// Hands out arrays one after another, each aligned as cudaMalloc aligns, from a base of any alignment. With a null
// base it only adds up what is needed: size and arrays come from the same code, so they cannot differ.
class Workspace {
 public:
  explicit Workspace(void* base) noexcept : base_(rounded_up(reinterpret_cast<std::uintptr_t>(base))) {}

  template <typename T>
  T* take(std::int64_t count) noexcept {
    std::uintptr_t const at = base_ + bytes_;
    bytes_ += rounded_up(static_cast<std::size_t>(count) * sizeof(T));
    return reinterpret_cast<T*>(at);
  }

  // Of the arrays so far.
  std::size_t bytes() const noexcept { return bytes_; }

  // What a caller must pass: TensorRT promises no alignment, so some bytes may be skipped before the first
  // array.
  std::size_t needed_bytes() const noexcept { return bytes_ + kAlignment - 1; }

 private:
  static constexpr std::size_t kAlignment = 256;

  static constexpr std::size_t rounded_up(std::size_t bytes) noexcept {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  std::uintptr_t base_;
  std::size_t bytes_ = 0;
};

inline bool is_aligned(void const* pointer, std::size_t alignment) noexcept {
  return reinterpret_cast<std::uintptr_t>(pointer) % alignment == 0;
}

}  // namespace panrt::cuda
