#include "memory.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace ptxsim {

void Shadow::Free::operator()(Cell* cells) const { std::free(cells); }

void Shadow::reserve() {
  std::size_t const count = (bytes_ >> shift_) + 1;
  cells_.reset(static_cast<Cell*>(std::calloc(count, sizeof(Cell))));  // era 0 is before any launch
  if (cells_ == nullptr) throw std::bad_alloc();
}

void Shadow::split(unsigned bytes) {
  std::unique_ptr<Cell, Free> const old = std::move(cells_);
  unsigned const old_shift = shift_;
  shift_ = bytes == 1 ? 0 : 1;
  if (old == nullptr) return;
  reserve();
  for (std::uint64_t i = 0; i <= bytes_ >> shift_; ++i) {
    Cell const& whole = old.get()[i << shift_ >> old_shift];
    if (whole.era != 0) cells_.get()[i] = whole;
  }
}

void* Memory::allocate(std::size_t bytes) {
  constexpr std::size_t kAlignment = 256;
  auto storage = std::unique_ptr<std::uint8_t[]>(new (std::nothrow) std::uint8_t[bytes + kAlignment]);
  if (storage == nullptr) return nullptr;
  std::uint64_t const address =
      (reinterpret_cast<std::uintptr_t>(storage.get()) + kAlignment - 1) / kAlignment * kAlignment;
  void* const pointer = reinterpret_cast<void*>(address);
  std::memset(pointer, 0xCD, bytes);
  allocations_.emplace(address, Allocation{address, bytes, count_++, std::move(storage), Shadow(bytes)});
  return pointer;
}

bool Memory::release(void* pointer) {
  latest_ = nullptr;
  bool const found = allocations_.erase(reinterpret_cast<std::uintptr_t>(pointer)) == 1;
  if (allocations_.empty()) count_ = 0;
  return found || pointer == nullptr;
}

Allocation* Memory::find(std::uint64_t address, std::uint64_t bytes) {
  auto const holds = [&](Allocation const& a) { return address >= a.begin && address + bytes <= a.begin + a.bytes; };
  if (latest_ != nullptr && holds(*latest_)) return latest_;
  auto after = allocations_.upper_bound(address);
  if (after == allocations_.begin()) return nullptr;
  Allocation& before = std::prev(after)->second;
  if (!holds(before)) return nullptr;
  return latest_ = &before;
}

std::string Memory::describe(std::uint64_t address) const {
  auto const after = allocations_.upper_bound(address);
  if (after == allocations_.begin()) return "no buffer lies there";
  Allocation const& before = std::prev(after)->second;
  std::uint64_t const offset = address - before.begin;
  return "byte " + std::to_string(offset) + " of buffer " + std::to_string(before.number) + ", which has " +
         std::to_string(before.bytes);
}

}  // namespace ptxsim
