// Device memory to the byte, and what the machine remembers of who touched it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "program.h"

namespace ptxsim {

// Where generic addresses of shared and local memory begin; device memory keeps the host's addresses, which lie below.
constexpr std::uint64_t kSharedWindow = 1ULL << 60, kLocalWindow = 1ULL << 61;

using ThreadId = std::uint32_t;  // of a launch: block * threads of a block + thread
constexpr ThreadId kNobody = ~0U;

// Who accessed a place last, as far as later accesses need to know. `lanes` are those of one warp that share the mark;
// a mark of several warps of a block, or of several blocks, keeps one thread as its example.
struct Mark {
  enum class Extent : std::uint8_t { kNone, kLanes, kBlock, kGrid };
  Extent extent = Extent::kNone;
  Strength strength = Strength::kPlain;
  ThreadId thread = kNobody;
  std::uint32_t block = 0;  // of `thread`
  std::uint32_t phase = 0, tick = 0;
  Mask lanes = 0;
  std::uint32_t pc = 0;
};

struct Cell {
  Mark write, read, strong_read;
  std::uint64_t era = 0;  // launch or block that the marks are of; older ones are void
};

// Cells of a stretch of memory: one for 4 bytes, and from the first access of fewer on one for as many.
class Shadow {
 public:
  explicit Shadow(std::uint64_t bytes) : bytes_(bytes) {}
  void refine(unsigned bytes) {
    if (bytes < 1U << shift_) split(bytes);
  }
  std::uint64_t first(std::uint64_t offset) const { return offset >> shift_; }
  std::uint64_t last(std::uint64_t offset, unsigned bytes) const { return (offset + bytes - 1) >> shift_; }
  Cell& cell(std::uint64_t index, std::uint64_t era) {
    if (cells_ == nullptr) reserve();
    Cell& cell = cells_.get()[index];
    if (cell.era != era) {
      cell = Cell{};
      cell.era = era;
    }
    return cell;
  }

 private:
  struct Free {
    void operator()(Cell* cells) const;
  };
  void reserve();
  void split(unsigned bytes);

  std::uint64_t bytes_;
  unsigned shift_ = 2;
  std::unique_ptr<Cell, Free> cells_;  // zeroed by the system where it is touched
};

struct Allocation {
  std::uint64_t begin, bytes;
  unsigned number;  // in the order of allocation
  std::unique_ptr<std::uint8_t[]> storage;
  Shadow shadow;
};

class Memory {
 public:
  // Aligned to 256 bytes as cudaMalloc does; holds 0xCD bytes.
  void* allocate(std::size_t bytes);
  bool release(void* pointer);
  // The allocation that holds all of the bytes; null for none.
  Allocation* find(std::uint64_t address, std::uint64_t bytes);
  // What lies around an address, for a report.
  std::string describe(std::uint64_t address) const;

 private:
  std::map<std::uint64_t, Allocation> allocations_;
  Allocation* latest_ = nullptr;
  unsigned count_ = 0;
};

}  // namespace ptxsim
