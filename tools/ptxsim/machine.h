// A GPU that executes nvcc's own PTX, instruction by instruction, to show what hardware would hide or only sometimes
// do.
//
// The machine
//   * Each lane has a program counter of its own. A step takes lanes of one warp that are at the same instruction and
//     runs them on together, for a number of instructions; where they part, or come to where others wait, it chooses
//     anew. Nothing reconverges unless the schedule happens to bring lanes together.
//   * A warp operation (shfl, vote, match, redux, bar.warp.sync) waits until every lane of its mask that has not left
//     waits at the same operation with the same mask, wherever in the code that is. A lane that is not in its own mask,
//     and a shuffle from a lane that is not there, are faults.
//   * bar.sync waits for every thread of the block that has not left; all must be at one and the same instruction.
//   * `resident` blocks run at once; the next starts when one ends. When no lane can run there is a deadlock; when
//     for long none changes memory, meets others or leaves, a livelock: who spins for a block that is not resident.
//   * Device, shared and local memory are checked to the byte, for alignment too. What nobody wrote is garbage: 0xCD
//     in device memory, pseudo-random words in shared and local memory, leftovers in registers.
//   * Races and weak memory are the subject of order.h.
//   * Warp instructions are counted, by instruction; line information gives them by line.
//
// Schedules: "forward" takes the lowest lanes, warps and blocks, stays with the lowest program counter, as a compiler's
// reconvergence would, and keeps memory strong: the counts of this one are those to report. "reverse" is the same from
// the other end. "random" chooses everything by a seed: blocks, how many are resident, warps, lanes - also some of
// those that could continue together - and how long a step lasts; memory is weak.
//
// What it does not show: time, caches, limits of registers; approximate instructions are those of the host's libm.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "memory.h"
#include "order.h"
#include "program.h"

namespace ptxsim {

class Machine;
struct Block;

struct Dim {
  std::uint32_t x = 1, y = 1, z = 1;
  std::uint64_t count() const { return std::uint64_t{x} * y * z; }
};

struct Launch {
  Dim grid, block;
  std::uint64_t dynamic_shared = 0;
};

struct Schedule {
  enum class Choice { kForward, kReverse, kRandom };
  Choice choice = Choice::kForward;
  std::uint64_t seed = 0;
  unsigned resident = 0;  // blocks; 0: 2, or by the seed from 1 to 6
  int weak = -1;          // 0 or 1; -1: where the choice is random
  bool races = true;
  std::uint64_t patience = 8'000'000;  // warp instructions until spinning counts as a livelock
};

// Words of the register file, and masks of predicates; see program.h.
struct Warp {
  Machine* machine;
  Block* block;
  unsigned index;
  Mask alive = 0, at_barrier = 0, at_meeting = 0;
  std::uint32_t pc[kLanes];
  std::int64_t passed = -1;  // lanes beyond this program counter are next: others have had their time
  std::vector<std::uint32_t> rows;
  std::vector<Mask> predicates;
  std::vector<std::uint8_t> local;  // of one lane after the other
  WarpClock clock;

  Mask runnable() const { return alive & ~at_barrier & ~at_meeting; }
  template <typename T>
  T* row(std::uint32_t offset) {
    return reinterpret_cast<T*>(rows.data() + offset);
  }
  Mask predicate(std::uint32_t number, bool negated) const {
    return negated ? ~predicates[number] : predicates[number];
  }
  void set_predicate(std::uint32_t number, Mask mask, Mask bits) {
    predicates[number] = (predicates[number] & ~mask) | (bits & mask);
  }
};

struct Block {
  std::uint32_t number = 0;
  std::uint64_t era = 0;
  std::uint32_t phase = 0;
  std::uint32_t alive = 0, waiting = 0;
  std::vector<Warp> warps;
  std::vector<std::uint8_t> shared;
  std::unique_ptr<Shadow> shadow;
};

class Machine {
 public:
  Machine(Memory& memory, Program& program, Launch const& launch, Schedule const& schedule,
          std::vector<std::uint8_t> parameters);
  // Throws Fault.
  void run();

  // --- for instructions ---
  Memory& memory() { return memory_; }
  Order& order() { return order_; }
  Program const& program() const { return program_; }
  std::vector<std::uint8_t>& parameters() { return parameters_; }
  std::uint64_t era() const { return era_; }
  Actor actor(Warp& warp, unsigned lane) const;
  // Warp instructions until something last made progress.
  std::uint64_t quiet_since() const { return quiet_since_; }
  void progressed() { quiet_since_ = clock_; }
  void progressed(std::uint64_t since) { quiet_since_ = since; }
  [[noreturn]] void fail(Warp const& warp, unsigned lane, std::string const& what) const;
  std::string describe(ThreadId thread) const;

 private:
  bool is_random() const { return schedule_.choice == Schedule::Choice::kRandom; }
  std::uint64_t random(std::uint64_t below) { return random_() % below; }
  bool start_block();
  void fill_specials(Block& block, Warp& warp) const;
  std::uint32_t special_value(Special special, Block const& block, Warp const& warp, unsigned lane) const;
  Warp* choose_warp();
  Mask choose_lanes(Warp& warp);
  void step(Warp& warp);
  void arrive_at_barrier(Warp& warp, Mask lanes);
  void release_barrier(Block& block);
  void arrive_at_meeting(Warp& warp, Mask lanes);
  void meet(Warp& warp, Mask lanes);
  void leave(Warp& warp, Mask lanes);
  [[noreturn]] void report_stop(char const* what) const;

  Memory& memory_;
  Program& program_;
  Launch launch_;
  Schedule schedule_;
  std::vector<std::uint8_t> parameters_;
  Order order_;
  std::mt19937_64 random_;
  std::vector<std::uint32_t> to_start_;  // blocks, the next one last
  std::vector<std::unique_ptr<Block>> blocks_;
  std::size_t latest_warp_ = 0;
  std::uint64_t era_ = 0, clock_ = 0, quiet_since_ = 0;
  std::uint32_t pc_ = 0;
};

// warp_ops.cpp: the mask that a lane at a warp operation names; what a barrier that all have reached does to registers.
Mask meeting_mask(Warp& warp, unsigned lane);
void reduce_at_barrier(Block& block);

template <typename Body>
inline void for_lanes(Mask mask, Body const& body) {
  if (mask == kAllLanes) {
    for (unsigned lane = 0; lane < kLanes; ++lane) body(lane);
  } else {
    for (; mask != 0; mask &= mask - 1) body(static_cast<unsigned>(__builtin_ctz(mask)));
  }
}

}  // namespace ptxsim
