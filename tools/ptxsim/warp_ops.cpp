// What lanes do together: shuffles, votes, matches, reductions, barriers.
//
// A warp operation runs for all lanes that meet, each with the operands of the instruction that it is at: the compiler
// may have copied one operation to several places.

#include <functional>

#include "values.h"

namespace ptxsim {
namespace {

Instr const& instruction_of(Warp& warp, unsigned lane) { return warp.machine->program().code[warp.pc[lane]]; }

std::uint32_t word(Warp& warp, std::uint32_t row, unsigned lane) { return warp.row<std::uint32_t>(row)[lane]; }

bool predicate(Warp& warp, Instr const& instr, unsigned lane) {
  return (warp.predicate(instr.src[0], (instr.negated & 1U) != 0) >> lane & 1U) != 0;
}

void set_predicate(Warp& warp, std::uint32_t number, unsigned lane, bool value) {
  warp.set_predicate(number, Mask{1} << lane, value ? kAllLanes : 0);
}

// The last source is always the mask.
std::uint32_t mask_row(Instr const& instr) { return instr.src[instr.count]; }

// --- shfl: value, lane or distance, clamp and segment, mask ----------------------------------------------------------

enum Shuffle : std::uint8_t { kUp, kDown, kBfly, kIdx };

void run_shuffle(Warp& warp, Instr const& first, Mask lanes) {
  std::uint32_t values[kLanes], results[kLanes];
  for_lanes(lanes, [&](unsigned lane) { values[lane] = word(warp, instruction_of(warp, lane).src[0], lane); });
  bool in_range[kLanes] = {};
  for_lanes(lanes, [&](unsigned lane) {
    Instr const& instr = instruction_of(warp, lane);
    auto const b = static_cast<int>(word(warp, instr.src[1], lane) & 31U);
    std::uint32_t const c = word(warp, instr.src[2], lane);
    auto const me = static_cast<int>(lane), segment = static_cast<int>(c >> 8 & 31U), clamp = static_cast<int>(c & 31U);
    int const low = me & segment, high = low | (clamp & ~segment);
    int from = me;
    switch (first.mode) {
      case kUp:
        from = me - b;
        in_range[lane] = from >= high;
        break;
      case kDown:
        from = me + b;
        in_range[lane] = from <= high;
        break;
      case kBfly:
        from = me ^ b;
        in_range[lane] = from <= high;
        break;
      default:
        from = low | (b & ~segment);
        in_range[lane] = from <= high;
        break;
    }
    if (!in_range[lane]) from = me;
    if ((lanes >> from & 1U) == 0) {
      warp.machine->fail(warp, lane, "a shuffle from lane " + std::to_string(from) + ", which does not take part");
    }
    results[lane] = values[from];
  });
  for_lanes(lanes, [&](unsigned lane) {
    Instr const& instr = instruction_of(warp, lane);
    warp.row<std::uint32_t>(instr.dst[0])[lane] = results[lane];
    set_predicate(warp, instr.dst[1], lane, in_range[lane]);
  });
}

// --- vote: predicate, mask -------------------------------------------------------------------------------------------

enum Vote : std::uint8_t { kAll, kAny, kUni, kBallot };

void run_vote(Warp& warp, Instr const& first, Mask lanes) {
  Mask ballot = 0;
  for_lanes(lanes, [&](unsigned lane) {
    ballot |= static_cast<Mask>(predicate(warp, instruction_of(warp, lane), lane)) << lane;
  });
  bool const result = first.mode == kAll   ? ballot == lanes
                      : first.mode == kAny ? ballot != 0
                                           : ballot == lanes || ballot == 0;
  for_lanes(lanes, [&](unsigned lane) {
    Instr const& instr = instruction_of(warp, lane);
    if (first.mode == kBallot) {
      warp.row<std::uint32_t>(instr.dst[0])[lane] = ballot;
    } else {
      set_predicate(warp, instr.dst[0], lane, result);
    }
  });
}

// --- match, redux: value, mask ---------------------------------------------------------------------------------------

template <typename T>
void run_match(Warp& warp, Instr const& first, Mask lanes) {
  bool const all = first.mode != 0;
  T values[kLanes];
  for_lanes(lanes, [&](unsigned lane) { values[lane] = warp.row<T>(instruction_of(warp, lane).src[0])[lane]; });
  for_lanes(lanes, [&](unsigned lane) {
    Mask equal = 0;
    for_lanes(lanes, [&](unsigned other) { equal |= static_cast<Mask>(values[other] == values[lane]) << other; });
    Instr const& instr = instruction_of(warp, lane);
    warp.row<std::uint32_t>(instr.dst[0])[lane] = all && equal != lanes ? 0 : equal;
    if (all) set_predicate(warp, instr.dst[1], lane, equal == lanes);
  });
}

enum Reduction : std::uint8_t { kAdd, kMinU, kMaxU, kMinS, kMaxS, kAnd, kOr, kXor };

std::uint32_t reduced(std::uint8_t mode, std::uint32_t a, std::uint32_t b) {
  auto const x = static_cast<std::int32_t>(a), y = static_cast<std::int32_t>(b);
  switch (mode) {
    case kAdd:
      return a + b;
    case kMinU:
      return std::min(a, b);
    case kMaxU:
      return std::max(a, b);
    case kMinS:
      return static_cast<std::uint32_t>(std::min(x, y));
    case kMaxS:
      return static_cast<std::uint32_t>(std::max(x, y));
    case kAnd:
      return a & b;
    case kOr:
      return a | b;
    default:
      return a ^ b;
  }
}

void run_redux(Warp& warp, Instr const& first, Mask lanes) {
  auto const one = static_cast<unsigned>(__builtin_ctz(lanes));
  std::uint32_t result = word(warp, instruction_of(warp, one).src[0], one);
  for_lanes(lanes & (lanes - 1), [&](unsigned lane) {
    result = reduced(first.mode, result, word(warp, instruction_of(warp, lane).src[0], lane));
  });
  for_lanes(lanes, [&](unsigned lane) { warp.row<std::uint32_t>(instruction_of(warp, lane).dst[0])[lane] = result; });
}

void run_sync(Warp& warp, Instr const&, Mask lanes) {
  warp.machine->order().meet(warp.clock, lanes);
  warp.machine->progressed();
}

void run_active(Warp& warp, Instr const& instr, Mask mask) {
  Values<std::uint32_t> const d(warp, instr.dst[0]);
  for_lanes(mask, [&](unsigned lane) { d.set(lane, mask); });
}

void run_nothing(Warp&, Instr const&, Mask) {}  // the machine does it

// `sources` come before the mask.
Form meets(Instr& instr, Opcode const& opcode, Execute execute, std::string operands, unsigned sources,
           Type type = Type::kB32) {
  instr.kind = Kind::kMeeting;
  instr.count = static_cast<std::uint8_t>(sources);
  instr.meeting = static_cast<std::uint32_t>(std::hash<std::string>{}(opcode.text()));
  return {execute, std::move(operands), type, type};
}

}  // namespace

Mask meeting_mask(Warp& warp, unsigned lane) { return word(warp, mask_row(instruction_of(warp, lane)), lane); }

enum BlockReduction : std::uint8_t { kNoReduction, kBlockAnd, kBlockOr, kBlockPopc };

// Every thread has come; its instruction may ask how many, or whether any or all, bring a predicate.
void reduce_at_barrier(Block& block) {
  std::uint32_t count = 0, threads = 0;
  auto const for_threads = [&](auto const& body) {
    for (Warp& warp : block.warps) {
      for_lanes(warp.alive, [&](unsigned lane) { body(warp, instruction_of(warp, lane), lane); });
    }
  };
  for_threads([&](Warp& warp, Instr const& instr, unsigned lane) {
    ++threads;
    if (instr.mode != kNoReduction) count += predicate(warp, instr, lane) ? 1 : 0;
  });
  for_threads([&](Warp& warp, Instr const& instr, unsigned lane) {
    if (instr.mode == kBlockPopc) warp.row<std::uint32_t>(instr.dst[0])[lane] = count;
    if (instr.mode == kBlockAnd) set_predicate(warp, instr.dst[0], lane, count == threads);
    if (instr.mode == kBlockOr) set_predicate(warp, instr.dst[0], lane, count != 0);
  });
}

Form find_meeting(Opcode const& opcode, Instr& instr) {
  std::string const& name = opcode.name();
  if (name == "activemask") return {run_active, "d", Type::kB32, Type::kB32};
  if (name == "nanosleep") {
    instr.kind = Kind::kYield;
    return {run_nothing, "i", Type::kB32, Type::kB32};
  }
  if (name == "shfl" && opcode.has("sync")) {
    instr.mode = opcode.has("up") ? kUp : opcode.has("down") ? kDown : opcode.has("bfly") ? kBfly : kIdx;
    return meets(instr, opcode, run_shuffle, "dqiiii", 3);
  }
  if (name == "vote" && opcode.has("sync")) {
    instr.mode = opcode.has("all") ? kAll : opcode.has("any") ? kAny : opcode.has("uni") ? kUni : kBallot;
    return meets(instr, opcode, run_vote, instr.mode == kBallot ? "dPi" : "pPi", 1);
  }
  if (name == "match" && opcode.has("sync")) {
    bool const all = opcode.has("all");
    instr.mode = all ? 1 : 0;
    Type const type = opcode.type();
    Form form = meets(instr, opcode, bytes_of(type) == 8 ? run_match<std::uint64_t> : run_match<std::uint32_t>,
                      all ? "dqsi" : "dsi", 1, type);
    form.destination = Type::kB32;
    return form;
  }
  if (name == "redux" && opcode.has("sync")) {
    bool const is_signed = opcode.type() == Type::kS32;
    instr.mode = opcode.has("add")   ? kAdd
                 : opcode.has("min") ? (is_signed ? kMinS : kMinU)
                 : opcode.has("max") ? (is_signed ? kMaxS : kMaxU)
                 : opcode.has("and") ? kAnd
                 : opcode.has("or")  ? kOr
                                     : kXor;
    return meets(instr, opcode, run_redux, "dsi", 1);
  }
  bool const is_bar = name == "bar" || name == "barrier";
  if (is_bar && opcode.has("warp")) return meets(instr, opcode, run_sync, "i", 0);
  if (is_bar && (opcode.has("sync") || opcode.has("red"))) {
    instr.kind = Kind::kBarrier;
    if (!opcode.has("red")) return {run_nothing, "n", Type::kB32, Type::kB32};
    instr.mode = opcode.has("and") ? kBlockAnd : opcode.has("or") ? kBlockOr : kBlockPopc;
    return {run_nothing, instr.mode == kBlockPopc ? "dnP" : "pnP", Type::kB32, Type::kB32};
  }
  return {};
}

}  // namespace ptxsim
