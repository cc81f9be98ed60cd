// Where threads meet, or wait: barriers, warp operations, sleep.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "simulation.h"

namespace hc {
namespace {

std::uint64_t combine(WarpOp op, std::uint64_t a, std::uint64_t b) {
  auto const x = static_cast<std::uint32_t>(a), y = static_cast<std::uint32_t>(b);
  auto const i = static_cast<std::int32_t>(x), j = static_cast<std::int32_t>(y);
  switch (op) {
    case WarpOp::kAdd:
      return x + y;
    case WarpOp::kMin:
      return std::min(x, y);
    case WarpOp::kMax:
      return std::max(x, y);
    case WarpOp::kMinSigned:
      return static_cast<std::uint32_t>(std::min(i, j));
    case WarpOp::kMaxSigned:
      return static_cast<std::uint32_t>(std::max(i, j));
    case WarpOp::kAnd:
      return x & y;
    case WarpOp::kOr:
      return x | y;
    default:
      return x ^ y;
  }
}

void give_results(WarpOp op, std::vector<Thread*> const& lanes) {
  if (op == WarpOp::kSync) return;
  std::uint64_t ballot = 0;
  std::uint64_t reduced = lanes.front()->value;
  for (Thread* lane : lanes) ballot |= (lane->value & 1U) << lane->view.lane;
  for (std::size_t i = 1; i < lanes.size(); ++i) reduced = combine(op, reduced, lanes[i]->value);
  for (Thread* lane : lanes) {
    if (op == WarpOp::kShuffle) {
      for (Thread* other : lanes) {
        if (static_cast<int>(other->view.lane) == lane->source) lane->result = other->value;
      }
    } else if (op == WarpOp::kMatchAny) {
      lane->result = 0;
      for (Thread* other : lanes) {
        if (other->value == lane->value) lane->result |= std::uint64_t{1} << other->view.lane;
      }
    } else {
      lane->result = op == WarpOp::kBallot ? ballot : reduced;
    }
  }
}

}  // namespace

bool resolve_warp(unsigned warp) {
  bool resolved = false;
  for (unsigned first = 0; first < kLanes; ++first) {
    Thread* const thread = lane_of(warp, first);
    if (thread == nullptr || thread->state != State::kAtWarpOp) continue;
    std::vector<Thread*> lanes;
    bool complete = true;
    for (unsigned i = 0; i < kLanes && complete; ++i) {
      if ((thread->mask >> i & 1U) == 0) continue;
      Thread* const lane = lane_of(warp, i);
      if (lane == nullptr || lane->state == State::kExited) {
        fail("bad mask " + std::to_string(thread->mask) + " of a warp operation: lane " + std::to_string(i) +
             (lane == nullptr ? " is no thread of the block; " : " has left the kernel; ") + describe(*thread));
        return false;
      }
      complete = lane->state == State::kAtWarpOp && lane->warp_op == thread->warp_op && lane->mask == thread->mask;
      lanes.push_back(lane);
    }
    if (!complete) continue;
    for (Thread* lane : lanes) {
      if (lane->warp_op == WarpOp::kShuffle && (lane->mask >> static_cast<unsigned>(lane->source) & 1U) == 0) {
        fail("bad shuffle: lane " + std::to_string(lane->source) + " is read but is not in the mask; " +
             describe(*lane));
        return false;
      }
    }
    give_results(thread->warp_op, lanes);
    if (thread->warp_op == WarpOp::kSync) order_all(lanes);
    for (Thread* lane : lanes) lane->state = State::kReady;
    resolved = true;
  }
  return resolved;
}

bool resolve_barrier() {
  Simulation& s = simulation();
  std::vector<Thread*> threads;
  for (unsigned i = 0; i < s.thread_count; ++i) threads.push_back(&s.threads[i]);
  int count = 0;
  for (Thread* thread : threads) {
    Thread const& first = *threads.front();
    if (thread->state != State::kAtBarrier) return false;
    if (thread->place.line != first.place.line || std::strcmp(thread->place.file, first.place.file) != 0 ||
        thread->block_op != first.block_op) {
      fail("divergent barrier: " + describe(first) + ", but " + describe(*thread));
      return false;
    }
    count += thread->predicate != 0;
  }
  order_all(threads);
  int const all = static_cast<int>(threads.size());
  for (Thread* thread : threads) {
    thread->result = static_cast<std::uint64_t>(thread->block_op == BlockOp::kCount ? count
                                                : thread->block_op == BlockOp::kAnd ? count == all
                                                                                    : count != 0);
    thread->state = State::kReady;
  }
  return true;
}

void report_stuck() {
  Simulation& s = simulation();
  Thread const* waits = nullptr;
  Thread const* elsewhere = nullptr;
  for (unsigned i = 0; i < s.thread_count; ++i) {
    Thread const& thread = s.threads[i];
    if (thread.state != State::kExited && waits == nullptr) waits = &thread;
  }
  for (unsigned i = 0; i < s.thread_count; ++i) {
    Thread const& thread = s.threads[i];
    bool const in_mask =
        waits->state != State::kAtWarpOp || (i / kLanes == static_cast<unsigned>(waits - s.threads.data()) / kLanes &&
                                             (waits->mask >> thread.view.lane & 1U) != 0);
    bool const same =
        thread.state == waits->state &&
        (waits->state == State::kAtBarrier || (thread.warp_op == waits->warp_op && thread.mask == waits->mask));
    if (in_mask && !same && elsewhere == nullptr) elsewhere = &thread;
  }
  std::string const kind = waits->state == State::kAtBarrier ? "divergent barrier: " : "deadlock: ";
  fail(kind + describe(*waits) + (elsewhere == nullptr ? std::string() : ", but " + describe(*elsewhere)));
}

// --- What kernels call ----------------------------------------------------------------------------------------------

int block_op(BlockOp op, int predicate, Place place) {
  Thread& self = *simulation().current;
#ifdef HC_TRACE
  trace_meeting();
#endif
  self.block_op = op;
  self.predicate = predicate;
  self.place = place;
  self.state = State::kAtBarrier;
  to_scheduler();
  return static_cast<int>(self.result);
}

std::uint64_t warp_op(WarpOp op, unsigned mask, std::uint64_t value, int source, Place place) {
  Thread& self = *simulation().current;
#ifdef HC_TRACE
  trace_meeting();
#endif
  self.warp_op = op;
  self.mask = mask;
  self.value = value;
  self.source = source;
  self.place = place;
  self.state = State::kAtWarpOp;
  if ((mask >> self.view.lane & 1U) == 0) {
    fail("bad mask " + std::to_string(mask) + " of a warp operation: it lacks lane " + std::to_string(self.view.lane) +
         " that calls it; " + describe(self));
  }
  to_scheduler();
  return self.result;
}

void sleep(Place place) {
  constexpr long long kForever = 1 << 16;  // turns of all threads; blocks run one after another, so no wait is long
  Simulation& s = simulation();
  Thread& self = *s.current;
  self.place = place;
  if (++s.sleeps > kForever) fail("endless wait: " + describe(self) + " sleeps, and nothing else happens");
  to_scheduler();
}

void fence() {
#ifdef HC_TSAN
  static std::uint64_t event;
  __tsan_release(&event);
  __tsan_acquire(&event);
#endif
}

}  // namespace hc
