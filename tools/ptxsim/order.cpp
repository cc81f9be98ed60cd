#include "order.h"

#include <algorithm>

namespace ptxsim {
namespace {

constexpr std::size_t kMostMessages = 64;  // of a location; older ones are as good as overwritten

std::uint32_t phase_of(Knowledge const& knowledge, std::uint32_t block) {
  auto const found = std::lower_bound(knowledge.blocks.begin(), knowledge.blocks.end(), std::pair(block, 0U));
  return found != knowledge.blocks.end() && found->first == block ? found->second : 0;
}

std::uint32_t tick_of(Knowledge const& knowledge, ThreadId thread) {
  auto const found = std::lower_bound(knowledge.threads.begin(), knowledge.threads.end(), thread,
                                      [](Knowledge::OfThread const& a, ThreadId b) { return a.thread < b; });
  return found != knowledge.threads.end() && found->thread == thread ? found->tick : 0;
}

void learn_block(Knowledge& knowledge, std::uint32_t block, std::uint32_t phase) {
  auto const found = std::lower_bound(knowledge.blocks.begin(), knowledge.blocks.end(), std::pair(block, 0U));
  if (found == knowledge.blocks.end() || found->first != block) {
    knowledge.blocks.insert(found, {block, phase});
  } else {
    found->second = std::max(found->second, phase);
  }
}

void learn_thread(Knowledge& knowledge, Knowledge::OfThread const& other) {
  auto const found = std::lower_bound(knowledge.threads.begin(), knowledge.threads.end(), other.thread,
                                      [](Knowledge::OfThread const& a, ThreadId b) { return a.thread < b; });
  if (found == knowledge.threads.end() || found->thread != other.thread) {
    knowledge.threads.insert(found, other);
  } else if (found->tick < other.tick) {
    *found = other;
  }
}

void join(KnowledgePointer& into, KnowledgePointer const& other, std::uint32_t threads_of_block) {
  if (other == nullptr || into == other) return;
  if (into == nullptr) {
    into = other;
    return;
  }
  auto joined = std::make_shared<Knowledge>(*into);
  for (auto const& [block, phase] : other->blocks) learn_block(*joined, block, phase);
  for (auto const& thread : other->threads) learn_thread(*joined, thread);
  auto const is_known = [&](Knowledge::OfThread const& t) {
    return phase_of(*joined, t.thread / threads_of_block) > t.phase;
  };
  joined->threads.erase(std::remove_if(joined->threads.begin(), joined->threads.end(), is_known),
                        joined->threads.end());
  into = joined;
}

bool reaches(Strength strength, bool same_block) {
  return strength == Strength::kDevice || (strength == Strength::kBlock && same_block);
}

}  // namespace

// --- Happens-before --------------------------------------------------------------------------------------------------

bool Order::is_before(Mark const& mark, Actor const& actor, KnowledgePointer const& known) const {
  if (mark.extent == Mark::Extent::kNone) return true;
  if (mark.extent == Mark::Extent::kGrid) return false;
  std::uint32_t const block = mark.block;
  if (block == actor.block && mark.phase < actor.phase) return true;
  if (known != nullptr && phase_of(*known, block) > mark.phase) return true;
  if (mark.extent == Mark::Extent::kBlock) return false;
  ThreadId const first = first_of_warp(mark);
  bool const same_warp = first == actor.thread - actor.lane;
  if (!same_warp && known == nullptr) return false;
  for (Mask rest = mark.lanes; rest != 0; rest &= rest - 1) {
    auto const lane = static_cast<unsigned>(__builtin_ctz(rest));
    if (same_warp && (lane == actor.lane || mark.tick < actor.clock.known[actor.lane][lane])) continue;
    if (known != nullptr && tick_of(*known, first + lane) > mark.tick) continue;
    return false;
  }
  return true;
}

Mark Order::mark_of(Actor const& actor, Strength strength) const {
  Mark mark;
  mark.extent = Mark::Extent::kLanes;
  mark.strength = strength;
  mark.thread = actor.thread;
  mark.block = actor.block;
  mark.phase = actor.phase;
  mark.tick = actor.lane_clock().tick;
  mark.lanes = Mask{1} << actor.lane;
  mark.pc = actor.pc;
  return mark;
}

ThreadId Order::first_of_warp(Mark const& mark) const {
  ThreadId const first_of_block = mark.block * threads_of_block_;
  return first_of_block + (mark.thread - first_of_block) / kLanes * kLanes;
}

void Order::add_reader(Actor const& actor, Mark& mark, Strength strength) const {
  // Mostly nothing changes: the same threads read the same words again.
  bool const now = mark.block == actor.block && mark.phase == actor.phase && mark.strength == strength;
  if (mark.extent == Mark::Extent::kBlock && now) return;
  if (mark.extent == Mark::Extent::kLanes && now && (mark.lanes >> actor.lane & 1U) != 0 &&
      mark.tick >= actor.lane_clock().tick && first_of_warp(mark) == actor.thread - actor.lane) {
    return;
  }
  if (is_before(mark, actor)) {
    mark = mark_of(actor, strength);
    return;
  }
  if (mark.extent == Mark::Extent::kGrid) return;
  bool const same_block = mark.block == actor.block;
  bool const same_warp = first_of_warp(mark) == actor.thread - actor.lane;
  if (!same_block) {
    mark.extent = Mark::Extent::kGrid;
  } else if (mark.extent == Mark::Extent::kLanes && same_warp) {
    mark.lanes |= Mask{1} << actor.lane;
    mark.tick = std::max(mark.tick, actor.lane_clock().tick);
  } else {
    mark.extent = Mark::Extent::kBlock;
  }
  if (strength < mark.strength) mark.strength = strength;
}

Mark const* Order::read(Actor const& actor, Cell& cell, Strength strength) const {
  Mark const& write = cell.write;
  if (write.extent != Mark::Extent::kNone && !is_before(write, actor)) {
    bool const same_block = write.block == actor.block;
    if (!reaches(write.strength, same_block) || !reaches(strength, same_block)) return &write;
  }
  add_reader(actor, strength == Strength::kPlain ? cell.read : cell.strong_read, strength);
  return nullptr;
}

Mark const* Order::write(Actor const& actor, Cell& cell, Strength strength) const {
  for (Mark const* mark : {&cell.write, &cell.read, &cell.strong_read}) {
    if (is_before(*mark, actor)) continue;
    bool const same_block = mark->extent != Mark::Extent::kGrid && mark->block == actor.block;
    if (!reaches(mark->strength, same_block) || !reaches(strength, same_block)) return mark;
  }
  cell.write = mark_of(actor, strength);
  return nullptr;
}

void Order::meet(WarpClock& warp, Mask lanes) const {
  std::uint32_t joined[kLanes] = {};
  KnowledgePointer known;
  for (Mask rest = lanes; rest != 0; rest &= rest - 1) {
    auto const lane = static_cast<unsigned>(__builtin_ctz(rest));
    for (unsigned other = 0; other < kLanes; ++other) joined[other] = std::max(joined[other], warp.known[lane][other]);
    join(known, warp.lanes[lane].known, threads_of_block_);
  }
  ++warp.tick;
  for (Mask rest = lanes; rest != 0; rest &= rest - 1) joined[__builtin_ctz(rest)] = warp.tick;
  for (Mask rest = lanes; rest != 0; rest &= rest - 1) {
    auto const lane = static_cast<unsigned>(__builtin_ctz(rest));
    std::copy(joined, joined + kLanes, warp.known[lane]);
    warp.lanes[lane].tick = warp.tick;
    warp.lanes[lane].known = known;
  }
}

void Order::barrier(std::vector<WarpClock*> const& warps) const {
  KnowledgePointer known;
  for (WarpClock* warp : warps) {
    for (LaneClock const& lane : warp->lanes) join(known, lane.known, threads_of_block_);
  }
  for (WarpClock* warp : warps) {
    for (LaneClock& lane : warp->lanes) lane.known = known;
    std::fill_n(&warp->known[0][0], kLanes * kLanes, 0U);  // the phase says it
  }
}

// --- Releases and acquires -------------------------------------------------------------------------------------------

// All that happens before now, and the thread's own accesses until now; those to come are of a later tick.
KnowledgePointer Order::release(Actor const& actor) const {
  LaneClock& lane = actor.lane_clock();
  auto released = std::make_shared<Knowledge>();
  if (lane.known != nullptr) *released = *lane.known;
  learn_block(*released, actor.block, actor.phase);
  lane.tick = ++actor.clock.tick;
  for (unsigned other = 0; other < kLanes; ++other) {
    std::uint32_t const tick = other == actor.lane ? lane.tick : actor.clock.known[actor.lane][other];
    if (tick != 0) learn_thread(*released, {actor.thread - actor.lane + other, actor.phase, tick});
  }
  return released;
}

void Order::fence(Actor const& actor, Strength strength, bool is_sequential) {
  LaneClock& lane = actor.lane_clock();
  join(lane.known, strength == Strength::kBlock ? lane.seen_near : lane.seen, threads_of_block_);
  lane.released = release(actor);
  lane.released_to_block = strength == Strength::kBlock;
  if (is_sequential && strength == Strength::kDevice) {
    join(sequential_, lane.released, threads_of_block_);
    lane.in_order = sequential_;
  }
}

void Order::forget(std::uint64_t location) {
  auto const home = locations_.find(home_of(location));
  if (home != locations_.end()) home->second.erase(location);
}

void Order::acquire(Actor const& actor, Message const& message, Strength strength, Semantics semantics) const {
  if (message.released == nullptr) return;
  bool const same_block = message.writer.block == actor.block;
  if (!same_block && (message.to_block || strength == Strength::kBlock)) return;
  LaneClock& lane = actor.lane_clock();
  if (acquires(semantics)) join(lane.known, message.released, threads_of_block_);
  join(lane.seen, message.released, threads_of_block_);
  if (same_block) join(lane.seen_near, message.released, threads_of_block_);
}

std::uint64_t Order::load(Actor const& actor, std::uint64_t address, std::uint64_t value, Strength strength,
                          Semantics semantics) {
  auto const home = locations_.find(home_of(address));
  if (home == locations_.end()) return value;
  auto const found = home->second.find(address);
  if (found == home->second.end()) return value;
  Location& location = found->second;
  std::size_t const newest = location.messages.size() - 1;
  std::size_t chosen = newest;
  if (weak_) {
    std::uint64_t& seen = location.seen[actor.thread];
    LaneClock const& lane = actor.lane_clock();
    std::size_t oldest = newest;
    while (oldest > 0 && location.dropped + oldest > seen && !is_before(location.messages[oldest].writer, actor) &&
           !(lane.in_order != nullptr && is_before(location.messages[oldest].writer, actor, lane.in_order))) {
      --oldest;
    }
    // Half of the loads are up to date, so that a waiting thread continues.
    if (oldest < newest && random_() % 2 != 0) chosen = oldest + random_() % (newest - oldest + 1);
    seen = location.dropped + chosen;
  }
  acquire(actor, location.messages[chosen], strength, semantics);
  return location.messages[chosen].value;
}

void Order::store(Actor const& actor, std::uint64_t address, std::uint64_t before, std::uint64_t value,
                  Strength strength, Semantics semantics, bool is_update) {
  Location& location = locations_[home_of(address)][address];
  if (location.messages.empty()) location.messages.push_back({before, {}, nullptr, false});
  if (is_update) acquire(actor, location.messages.back(), strength, semantics);
  LaneClock const& lane = actor.lane_clock();
  Message message{value, mark_of(actor, strength), nullptr, strength == Strength::kBlock};
  if (releases(semantics)) {
    message.released = release(actor);
  } else if (lane.released != nullptr) {
    message.released = lane.released;
    message.to_block = message.to_block || lane.released_to_block;
  }
  Message const& last = location.messages.back();
  if (is_update && last.released != nullptr) {
    message.to_block = message.to_block || last.to_block;
    join(message.released, last.released, threads_of_block_);
  }
  location.messages.push_back(std::move(message));
  if (location.messages.size() > kMostMessages) {
    location.messages.pop_front();
    ++location.dropped;
  }
  if (weak_) location.seen[actor.thread] = location.dropped + location.messages.size() - 1;
}

}  // namespace ptxsim
