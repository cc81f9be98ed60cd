// What happens before what: races, and which values a strong load may give.
//
// The model is that of the PTX memory consistency model as far as kernels need it. Happens-before is built from
//   * a thread's own order;
//   * bar.sync, which begins a new phase of its block, and bar.warp.sync, for the lanes of its mask;
//   * a release that is observed by an acquire: of an atomic or store with .release, or one after a fence, by one with
//     .acquire, or one before a fence; scopes must reach, and read-modify-writes continue a release sequence.
// Shuffles and votes order no memory. A plain access that conflicts with another and is not ordered with it is a race,
// whatever the schedule was; so is a strong one whose scope does not reach the other thread, and a strong one that
// conflicts with a plain one.
//
// In the weak mode each location that strong accesses write keeps its values of this launch. A strong load may then
// give any of them that no later one, known to the loading thread, has overwritten: its own order of loads of one
// location is kept, and nothing else. That is how loads and stores pass one another around relaxed atomics here. A
// plain load could only differ - a stale L1 line, a store held back - where it races, and that is reported instead.
#pragma once

#include <deque>
#include <memory>
#include <random>
#include <unordered_map>
#include <vector>

#include "memory.h"

namespace ptxsim {

// What a thread knows of others: all accesses before a phase of a block, and before a tick of a thread.
struct Knowledge {
  struct OfThread {
    ThreadId thread;
    std::uint32_t phase, tick;
  };
  std::vector<std::pair<std::uint32_t, std::uint32_t>> blocks;  // block, phase; sorted
  std::vector<OfThread> threads;                                // sorted
};
using KnowledgePointer = std::shared_ptr<Knowledge const>;

struct LaneClock {
  std::uint32_t tick = 1;
  KnowledgePointer known;      // happens before now
  KnowledgePointer seen;       // by strong loads, known after the next fence
  KnowledgePointer seen_near;  // of that what the own block released, for a fence that reaches no further
  KnowledgePointer released;   // by the last fence
  KnowledgePointer in_order;   // by fence.sc: no strong load gives what these have overwritten
  bool released_to_block = false;
};

// tick: of the latest warp synchronisation; row t of `known` holds, a lane, the tick before which its accesses happen
// before lane t's now.
struct WarpClock {
  std::uint32_t tick = 1;
  std::uint32_t known[kLanes][kLanes] = {};
  LaneClock lanes[kLanes];
};

struct Actor {
  WarpClock& clock;
  unsigned lane;
  ThreadId thread;
  std::uint32_t block, phase, pc;
  LaneClock& lane_clock() const { return clock.lanes[lane]; }
};

class Order {
 public:
  Order(std::uint32_t threads_of_block, bool weak, bool races, std::uint64_t seed)
      : threads_of_block_(threads_of_block), weak_(weak), races_(races), random_(seed) {}

  // An access to a cell that may race; the mark that it races with, null for none. Marks the cell.
  Mark const* read(Actor const& actor, Cell& cell, Strength strength) const;
  Mark const* write(Actor const& actor, Cell& cell, Strength strength) const;

  // A strong access of a location, which memory holds in `value`. Load: the value that it gives.
  std::uint64_t load(Actor const& actor, std::uint64_t location, std::uint64_t value, Strength, Semantics);
  void store(Actor const& actor, std::uint64_t location, std::uint64_t before, std::uint64_t value, Strength, Semantics,
             bool is_update);
  void forget(std::uint64_t location);  // a plain store
  // Shared memory of a block that has ended.
  void forget_block(std::uint32_t block) { locations_.erase(shared_location(block, 0) >> kAddressBits); }
  static std::uint64_t shared_location(std::uint32_t block, std::uint64_t address) {
    return kSharedWindow | std::uint64_t{block} << kAddressBits | address;
  }

  void fence(Actor const& actor, Strength strength, bool is_sequential);
  void meet(WarpClock& warp, Mask lanes) const;
  // All warps of a block at a barrier.
  void barrier(std::vector<WarpClock*> const& warps) const;

  bool races() const { return races_; }

 private:
  static constexpr unsigned kAddressBits = 24;  // more than shared memory has
  struct Message {
    std::uint64_t value;
    Mark writer;
    KnowledgePointer released;
    bool to_block = false;  // of `writer`
  };
  struct Location {
    std::deque<Message> messages;
    std::uint64_t dropped = 0;
    std::unordered_map<ThreadId, std::uint64_t> seen;  // the latest message that a thread has met
  };

  bool is_before(Mark const& mark, Actor const& actor) const {
    return is_before(mark, actor, actor.lane_clock().known);
  }
  bool is_before(Mark const& mark, Actor const& actor, KnowledgePointer const& known) const;
  void add_reader(Actor const& actor, Mark& mark, Strength strength) const;
  Mark mark_of(Actor const& actor, Strength strength) const;
  ThreadId first_of_warp(Mark const& mark) const;
  KnowledgePointer release(Actor const& actor) const;
  // Device memory's, or a block's.
  using Locations = std::unordered_map<std::uint64_t, Location>;
  static std::uint64_t home_of(std::uint64_t location) {
    return location < kSharedWindow ? 0 : location >> kAddressBits;
  }
  void acquire(Actor const& actor, Message const& message, Strength strength, Semantics semantics) const;

  std::uint32_t threads_of_block_;
  bool weak_, races_;
  std::minstd_rand random_;
  std::unordered_map<std::uint64_t, Locations> locations_;
  KnowledgePointer sequential_;  // of all fence.sc so far
};

}  // namespace ptxsim
