#include "machine.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace ptxsim {
namespace {

std::uint64_t next_era() {
  static std::uint64_t era = 0;
  return ++era;
}

std::string triple(std::uint64_t number, Dim const& of) {
  return "(" + std::to_string(number % of.x) + "," + std::to_string(number / of.x % of.y) + "," +
         std::to_string(number / of.x / of.y) + ")";
}

}  // namespace

Machine::Machine(Memory& memory, Program& program, Launch const& launch, Schedule const& schedule,
                 std::vector<std::uint8_t> parameters)
    : memory_(memory),
      program_(program),
      launch_(launch),
      schedule_(schedule),
      parameters_(std::move(parameters)),
      order_(static_cast<std::uint32_t>(launch.block.count()),
             schedule.weak < 0 ? schedule.choice == Schedule::Choice::kRandom : schedule.weak != 0, schedule.races,
             schedule.seed + 1),
      random_(schedule.seed),
      era_(next_era()) {
  if (schedule_.resident == 0) schedule_.resident = is_random() ? 1 + static_cast<unsigned>(random(6)) : 2;
}

void Machine::run() {
  to_start_.resize(launch_.grid.count());
  std::iota(to_start_.rbegin(), to_start_.rend(), 0U);
  if (schedule_.choice == Schedule::Choice::kReverse) std::reverse(to_start_.begin(), to_start_.end());
  if (is_random()) std::shuffle(to_start_.begin(), to_start_.end(), random_);
  ++program_.launches;
  while (blocks_.size() < schedule_.resident && start_block()) {
  }
  while (!blocks_.empty()) {
    Warp* const warp = choose_warp();
    if (warp == nullptr) report_stop("deadlock: no thread can continue");
    step(*warp);
    if (clock_ - quiet_since_ > schedule_.patience) {
      report_stop("livelock: for long no thread has changed memory, met others or left");
    }
  }
}

// --- Blocks ----------------------------------------------------------------------------------------------------------

bool Machine::start_block() {
  if (to_start_.empty()) return false;
  auto const threads = static_cast<std::uint32_t>(launch_.block.count());
  auto owned = std::make_unique<Block>();
  Block& block = *owned;
  block.number = to_start_.back();
  to_start_.pop_back();
  block.era = next_era();
  block.alive = threads;
  std::uint64_t const shared =
      launch_.dynamic_shared == 0 ? program_.shared_size : program_.dynamic_shared + launch_.dynamic_shared;
  std::minstd_rand garbage(static_cast<unsigned>(schedule_.seed + block.number + 1));
  auto const random_byte = [&] { return static_cast<std::uint8_t>(garbage() >> 8); };
  block.shared.resize(shared);
  std::generate(block.shared.begin(), block.shared.end(), random_byte);
  block.shadow = std::make_unique<Shadow>(shared);
  block.warps.resize((threads + kLanes - 1) / kLanes);
  for (unsigned w = 0; w < block.warps.size(); ++w) {
    Warp& warp = block.warps[w];
    warp.machine = this;
    warp.block = &block;
    warp.index = w;
    unsigned const lanes = std::min(kLanes, threads - w * kLanes);
    warp.alive = lanes == kLanes ? kAllLanes : (Mask{1} << lanes) - 1;
    std::fill_n(warp.pc, kLanes, 0U);
    warp.rows.assign(program_.words, 0xCDCDCDCDU);
    warp.predicates.assign(program_.predicates, 0xCDCDCDCDU);
    warp.predicates[program_.true_predicate] = kAllLanes;
    warp.local.resize(std::size_t{program_.local_size} * kLanes);
    std::generate(warp.local.begin(), warp.local.end(), random_byte);
    for (Constant const& constant : program_.constants) {
      if (constant.wide) {
        std::fill_n(warp.row<std::uint64_t>(constant.row), kLanes, constant.bits);
      } else {
        std::fill_n(warp.row<std::uint32_t>(constant.row), kLanes, static_cast<std::uint32_t>(constant.bits));
      }
    }
    fill_specials(block, warp);
  }
  blocks_.push_back(std::move(owned));
  return true;
}

void Machine::fill_specials(Block& block, Warp& warp) const {
  for (auto const& [special, row] : program_.specials) {
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      warp.row<std::uint32_t>(row)[lane] = special_value(special, block, warp, lane);
    }
  }
}

std::uint32_t Machine::special_value(Special special, Block const& block, Warp const& warp, unsigned lane) const {
  Dim const &b = launch_.block, &g = launch_.grid;
  std::uint32_t const thread = warp.index * kLanes + lane;
  Mask const bit = Mask{1} << lane;
  switch (special) {
    case Special::kTidX:
      return thread % b.x;
    case Special::kTidY:
      return thread / b.x % b.y;
    case Special::kTidZ:
      return thread / b.x / b.y;
    case Special::kNtidX:
      return b.x;
    case Special::kNtidY:
      return b.y;
    case Special::kNtidZ:
      return b.z;
    case Special::kCtaidX:
      return block.number % g.x;
    case Special::kCtaidY:
      return block.number / g.x % g.y;
    case Special::kCtaidZ:
      return block.number / g.x / g.y;
    case Special::kNctaidX:
      return g.x;
    case Special::kNctaidY:
      return g.y;
    case Special::kNctaidZ:
      return g.z;
    case Special::kLaneid:
      return lane;
    case Special::kWarpid:
      return warp.index;
    case Special::kNwarpid:
      return static_cast<std::uint32_t>(block.warps.size());
    case Special::kLanemaskEq:
      return bit;
    case Special::kLanemaskLe:
      return bit | (bit - 1);
    case Special::kLanemaskLt:
      return bit - 1;
    case Special::kLanemaskGe:
      return ~(bit - 1);
    case Special::kLanemaskGt:
      return ~(bit | (bit - 1));
    case Special::kDynamicSmem:
      return static_cast<std::uint32_t>(launch_.dynamic_shared);
  }
  return 0;  // there are no others
}

// --- Choices ---------------------------------------------------------------------------------------------------------

Warp* Machine::choose_warp() {
  std::size_t count = 0;
  for (auto const& block : blocks_) count += block->warps.size();
  // Forward and reverse go round, so that nobody waits for ever for one who never runs.
  bool const backward = schedule_.choice == Schedule::Choice::kReverse;
  std::size_t const from = is_random() ? random(count) : latest_warp_ + (backward ? count - 1 : 1);
  for (std::size_t i = 0; i < count; ++i) {
    std::size_t number = (backward ? from + count - i : from + i) % count;
    latest_warp_ = number;
    for (auto const& block : blocks_) {
      if (number < block->warps.size()) {
        if (block->warps[number].runnable() != 0) return &block->warps[number];
        break;
      }
      number -= block->warps.size();
    }
  }
  return nullptr;
}

// Lanes at one instruction: the lowest, or any.
Mask Machine::choose_lanes(Warp& warp) {
  Mask const runnable = warp.runnable();
  std::uint32_t chosen = ~0U;
  if (is_random() && random(4) == 0) {
    auto lane = static_cast<unsigned>(random(kLanes));
    while ((runnable >> lane & 1U) == 0) lane = (lane + 1) % kLanes;
    chosen = warp.pc[lane];
  } else {
    for_lanes(runnable, [&](unsigned lane) {
      if (warp.pc[lane] > warp.passed) chosen = std::min(chosen, warp.pc[lane]);
    });
    if (chosen == ~0U) for_lanes(runnable, [&](unsigned lane) { chosen = std::min(chosen, warp.pc[lane]); });
  }
  Mask lanes = 0;
  for_lanes(runnable, [&](unsigned lane) { lanes |= (warp.pc[lane] == chosen ? 1U : 0U) << lane; });
  if (is_random() && random(16) == 0) {
    auto const some = lanes & static_cast<Mask>(random_());
    if (some != 0) lanes = some;
  }
  return lanes;
}

// --- Running ---------------------------------------------------------------------------------------------------------

void Machine::step(Warp& warp) {
  Mask lanes = choose_lanes(warp);
  std::uint32_t pc = warp.pc[__builtin_ctz(lanes)];
  std::uint32_t others = ~0U;  // the lowest program counter of lanes that could run too
  // Some random steps ignore where others are.
  bool const alone = is_random() && random(4) == 0;
  auto const look_around = [&] {
    others = ~0U;
    if (!alone) for_lanes(warp.runnable() & ~lanes, [&](unsigned l) { others = std::min(others, warp.pc[l]); });
  };
  look_around();
  warp.passed = -1;
  auto const put = [&](Mask which, std::uint32_t at) { for_lanes(which, [&](unsigned lane) { warp.pc[lane] = at; }); };
  std::uint64_t const end = clock_ + (is_random() ? 1 + random(random(8) == 0 ? 8 : 512) : 4096);

  while (clock_ < end) {
    Instr const& instr = program_.code[pc];
    Mask const mask =
        instr.guard < 0 ? lanes : lanes & warp.predicate(static_cast<std::uint32_t>(instr.guard), instr.guard_negated);
    ++program_.executed[pc];
    ++clock_;
    pc_ = pc;
    switch (instr.kind) {
      case Kind::kPlain:
        if (mask != 0) instr.execute(warp, instr, mask);
        ++pc;
        break;
      case Kind::kBranch:
        if (mask == lanes) {
          pc = instr.target;
        } else if (mask == 0) {
          ++pc;
        } else {
          put(mask, instr.target);
          put(lanes & ~mask, pc + 1);
          bool const jump = is_random() ? random(2) == 0 : instr.target < pc + 1;
          lanes = jump ? mask : lanes & ~mask;
          pc = jump ? instr.target : pc + 1;
          look_around();
        }
        break;
      default:
        // Lanes that do not take part continue.
        put(lanes & ~mask, pc + 1);
        if (mask == 0) {
          ++pc;
          break;
        }
        put(mask, pc);
        if (instr.kind == Kind::kExit) leave(warp, mask);
        if (instr.kind == Kind::kBarrier) arrive_at_barrier(warp, mask);
        if (instr.kind == Kind::kMeeting) arrive_at_meeting(warp, mask);
        if (instr.kind == Kind::kYield) put(mask, pc + 1);
        return;
    }
    if (pc >= others) break;
  }
  if (clock_ >= end) warp.passed = static_cast<std::int64_t>(pc);
  put(lanes, pc);
}

void Machine::leave(Warp& warp, Mask lanes) {
  progressed();
  Block& block = *warp.block;
  warp.alive &= ~lanes;
  block.alive -= static_cast<std::uint32_t>(__builtin_popcount(lanes));
  if (block.alive == 0) {
    order_.forget_block(block.number);
    blocks_.erase(std::find_if(blocks_.begin(), blocks_.end(), [&](auto const& b) { return b.get() == &block; }));
    start_block();
    return;
  }
  if (block.waiting == block.alive) release_barrier(block);
  if (warp.at_meeting != 0) arrive_at_meeting(warp, 0);
}

void Machine::arrive_at_barrier(Warp& warp, Mask lanes) {
  Block& block = *warp.block;
  warp.at_barrier |= lanes;
  block.waiting += static_cast<std::uint32_t>(__builtin_popcount(lanes));
  if (block.waiting == block.alive) release_barrier(block);
}

void Machine::release_barrier(Block& block) {
  std::uint32_t at = ~0U;
  for (Warp const& warp : block.warps) {
    for_lanes(warp.alive, [&](unsigned lane) {
      if (at == ~0U) at = warp.pc[lane];
      if (warp.pc[lane] != at) {
        fail(warp, lane,
             "divergent barrier: it waits at " + program_.place(warp.pc[lane]) + ", others of its block at " +
                 program_.place(at));
      }
    });
  }
  reduce_at_barrier(block);
  std::vector<WarpClock*> clocks;
  for (Warp& warp : block.warps) {
    warp.at_barrier = 0;
    for_lanes(warp.alive, [&](unsigned lane) { ++warp.pc[lane]; });
    clocks.push_back(&warp.clock);
  }
  order_.barrier(clocks);
  ++block.phase;
  block.waiting = 0;
  progressed();
}

void Machine::arrive_at_meeting(Warp& warp, Mask lanes) {
  warp.at_meeting |= lanes;
  for_lanes(lanes, [&](unsigned lane) {
    Mask const named = meeting_mask(warp, lane);
    if ((named >> lane & 1U) == 0) fail(warp, lane, "its mask of a warp operation lacks the lane itself");
  });
  for (Mask rest = warp.at_meeting; rest != 0; rest &= rest - 1) {
    auto const first = static_cast<unsigned>(__builtin_ctz(rest));
    if ((warp.at_meeting >> first & 1U) == 0) continue;  // it met
    Mask const named = meeting_mask(warp, first), needed = named & warp.alive;
    if ((needed & ~warp.at_meeting) != 0) continue;
    std::uint32_t const operation = program_.code[warp.pc[first]].meeting;
    bool all = true;
    for_lanes(needed, [&](unsigned lane) {
      all = all && program_.code[warp.pc[lane]].meeting == operation && meeting_mask(warp, lane) == named;
    });
    if (!all) continue;
    meet(warp, needed);
  }
}

void Machine::meet(Warp& warp, Mask lanes) {
  auto const first = static_cast<unsigned>(__builtin_ctz(lanes));
  Instr const& instr = program_.code[warp.pc[first]];
  instr.execute(warp, instr, lanes);
  warp.at_meeting &= ~lanes;
  for_lanes(lanes, [&](unsigned lane) { ++warp.pc[lane]; });
}

// --- Reports ---------------------------------------------------------------------------------------------------------

Actor Machine::actor(Warp& warp, unsigned lane) const {
  Block const& block = *warp.block;
  auto const threads = static_cast<std::uint32_t>(launch_.block.count());
  return {warp.clock, lane, block.number * threads + warp.index * kLanes + lane, block.number, block.phase, pc_};
}

std::string Machine::describe(ThreadId thread) const {
  std::uint64_t const threads = launch_.block.count();
  return "thread " + triple(thread % threads, launch_.block) + " of block " + triple(thread / threads, launch_.grid);
}

void Machine::fail(Warp const& warp, unsigned lane, std::string const& what) const {
  auto const threads = static_cast<std::uint32_t>(launch_.block.count());
  throw Fault(program_.place(pc_) + ": " + program_.text(pc_) + ", " +
              describe(warp.block->number * threads + warp.index * kLanes + lane) + ": " + what);
}

void Machine::report_stop(char const* what) const {
  std::string text = what;
  unsigned told = 0;
  for (auto const& block : blocks_) {
    for (Warp const& warp : block->warps) {
      std::uint32_t latest = ~0U;
      for_lanes(warp.alive, [&](unsigned lane) {
        if (warp.pc[lane] == latest || told >= 8) return;
        latest = warp.pc[lane];
        ++told;
        bool const waits = ((warp.at_barrier | warp.at_meeting) >> lane & 1U) != 0;
        auto const threads = static_cast<std::uint32_t>(launch_.block.count());
        text += "; " + describe(block->number * threads + warp.index * kLanes + lane) + (waits ? " waits" : " is") +
                " at " + program_.place(latest) + " (" + program_.text(latest) + ")";
      });
    }
  }
  if (!to_start_.empty()) text += "; " + std::to_string(to_start_.size()) + " blocks have not started";
  throw Fault(text);
}

}  // namespace ptxsim
