// Parts of the one piece of memory that a caller gives a launch.
#pragma once

#include <cstddef>
#include <cstdint>

namespace panrt::cuda {

// Hands out arrays one after another, each aligned as cudaMalloc aligns. Of a null base it says only how much is
// needed: both answers come from the same code, so they cannot differ.
class Workspace {
 public:
  explicit Workspace(void* base) noexcept : base_(reinterpret_cast<std::uintptr_t>(base)) {}

  template <typename T>
  T* take(std::int64_t count) noexcept {
    std::uintptr_t const at = base_ + bytes_;
    bytes_ += (static_cast<std::size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return reinterpret_cast<T*>(at);
  }

  std::size_t bytes() const noexcept { return bytes_; }

 private:
  static constexpr std::size_t kAlignment = 256;

  std::uintptr_t base_;
  std::size_t bytes_ = 0;
};

inline bool is_aligned(void const* pointer, std::size_t alignment) noexcept {
  return reinterpret_cast<std::uintptr_t>(pointer) % alignment == 0;
}

}  // namespace panrt::cuda
