// Between the simulation and trace.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hc {

struct Range {
  std::uintptr_t begin, end;
  bool contains(std::uintptr_t address) const { return address >= begin && address < end; }
};

constexpr unsigned kLanes = 32;

Range static_shared();
Range dynamic_shared_range();
// The buffer of cudaMalloc that holds an address, counted from 0 in the order of allocation; -1 for none.
int buffer_of(std::uintptr_t address);

#ifdef HC_TRACE
void trace_thread(unsigned thread);  // accesses from here on are of this thread of the block; kNoThread: of none
void trace_launch(void const* kernel);
void trace_meeting();  // this thread comes to a barrier or a warp operation
void trace_block_end(unsigned threads);
constexpr unsigned kNoThread = ~0U;
#endif

}  // namespace hc
