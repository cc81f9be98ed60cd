// Loads, stores, atomics and fences: addresses are checked to the byte, accesses reported to the order.

#include <algorithm>

#include "values.h"

namespace ptxsim {
namespace {

// An access of one lane, resolved.
struct Place {
  std::uint8_t* bytes = nullptr;
  Shadow* shadow = nullptr;    // null for what no other thread can reach
  std::uint64_t offset = 0;    // in the shadow
  std::uint64_t era = 0;       // of its marks
  std::uint64_t location = 0;  // what names it among those of strong accesses
};

std::uint64_t address_of(Warp& warp, Instr const& instr, unsigned lane) {
  std::uint64_t const base =
      instr.address_wide ? warp.row<std::uint64_t>(instr.src[0])[lane] : warp.row<std::uint32_t>(instr.src[0])[lane];
  std::uint64_t const address = base + static_cast<std::uint64_t>(instr.offset);
  return instr.address_wide ? address : address & 0xFFFFFFFFU;
}

std::string hex(std::uint64_t value) {
  static char const* const kDigits = "0123456789abcdef";
  std::string text;
  for (; value != 0 || text.empty(); value >>= 4) text.insert(text.begin(), kDigits[value & 15]);
  return "0x" + text;
}

// Within `size` bytes at `base`, or a fault.
void check_bounds(Warp const& warp, unsigned lane, std::uint64_t address, unsigned bytes, std::uint64_t size,
                  char const* what) {
  if (address + bytes <= size && address + bytes >= bytes) return;
  warp.machine->fail(warp, lane,
                     "out of bounds: " + std::to_string(bytes) + " bytes at byte " + std::to_string(address) + " of " +
                         what + ", which has " + std::to_string(size));
}

Place resolve(Warp& warp, Instr const& instr, unsigned lane, unsigned bytes) {
  Machine& machine = *warp.machine;
  std::uint64_t address = address_of(warp, instr, lane);
  if (address % bytes != 0) {
    machine.fail(warp, lane, "misaligned: " + std::to_string(bytes) + " bytes at address " + hex(address));
  }
  Space space = instr.space;
  if (space == Space::kGeneric) {
    space = address >= kLocalWindow ? Space::kLocal : address >= kSharedWindow ? Space::kShared : Space::kGlobal;
    address &= ~(kLocalWindow | kSharedWindow);
  }
  Place place;
  switch (space) {
    case Space::kShared: {
      Block& block = *warp.block;
      check_bounds(warp, lane, address, bytes, block.shared.size(), "shared memory");
      place.bytes = block.shared.data() + address;
      place.shadow = block.shadow.get();
      place.offset = address;
      place.era = block.era;
      place.location = Order::shared_location(block.number, address);
      return place;
    }
    case Space::kLocal: {
      std::uint64_t const size = warp.local.size() / kLanes;
      check_bounds(warp, lane, address, bytes, size, "local memory");
      place.bytes = warp.local.data() + lane * size + address;
      return place;
    }
    case Space::kParam: {
      auto& parameters = machine.parameters();
      check_bounds(warp, lane, address, bytes, parameters.size(), "the parameters");
      place.bytes = parameters.data() + address;
      return place;
    }
    default: {
      Allocation* const allocation = machine.memory().find(address, bytes);
      if (allocation == nullptr) {
        machine.fail(warp, lane,
                     "out of bounds: " + std::to_string(bytes) + " bytes at " + hex(address) + "; " +
                         machine.memory().describe(address));
      }
      place.bytes = reinterpret_cast<std::uint8_t*>(address);
      place.shadow = &allocation->shadow;
      place.offset = address - allocation->begin;
      place.era = machine.era();
      place.location = address;
      return place;
    }
  }
}

[[noreturn]] void fail_race(Warp& warp, unsigned lane, Mark const& other, char const* what, bool other_wrote) {
  Machine const& machine = *warp.machine;
  char const* const who = other.extent == Mark::Extent::kLanes ? "by " : "by others and ";
  machine.fail(warp, lane,
               std::string("race: ") + what + " what was " + (other_wrote ? "written " : "read ") + who +
                   machine.describe(other.thread) + " at " + machine.program().place(other.pc) + " (" +
                   machine.program().text(other.pc) + "), and nothing orders the two");
}

// Calls check(actor, cell) for each cell of memory that an access touches, if races are looked for.
template <typename Check>
void at_each_cell(Warp& warp, unsigned lane, Place const& place, unsigned bytes, Check const& check) {
  Machine& machine = *warp.machine;
  if (place.shadow == nullptr || !machine.order().races()) return;
  place.shadow->refine(bytes);
  Actor const actor = machine.actor(warp, lane);
  std::uint64_t const last = place.shadow->last(place.offset, bytes);
  for (std::uint64_t i = place.shadow->first(place.offset); i <= last; ++i) {
    check(actor, place.shadow->cell(i, place.era));
  }
}

void order_read(Warp& warp, Instr const& instr, unsigned lane, Place const& place, unsigned bytes) {
  Machine& machine = *warp.machine;
  at_each_cell(warp, lane, place, bytes, [&](Actor const& actor, Cell& cell) {
    if (instr.non_coherent && cell.write.extent != Mark::Extent::kNone) {
      machine.fail(
          warp, lane,
          "a load by ld.global.nc of what " + machine.describe(cell.write.thread) + " has written in this launch");
    }
    Mark const* const race = machine.order().read(actor, cell, instr.strength);
    if (race != nullptr) fail_race(warp, lane, *race, "it reads", true);
  });
}

void order_write(Warp& warp, Instr const& instr, unsigned lane, Place const& place, unsigned bytes) {
  Machine& machine = *warp.machine;
  machine.progressed();
  at_each_cell(warp, lane, place, bytes, [&](Actor const& actor, Cell& cell) {
    Mark const* const race = machine.order().write(actor, cell, instr.strength);
    if (race != nullptr) fail_race(warp, lane, *race, "it writes", race == &cell.write);
  });
}

std::uint64_t load_bytes(std::uint8_t const* bytes, unsigned width) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes, width);
  return value;
}

std::uint64_t extended(std::uint64_t value, Instr const& instr) {
  unsigned const unused = 64 - 8U * instr.width;
  if (!instr.sign_extends) return value;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << unused) >> unused);
}

void set(Warp& warp, std::uint32_t row, bool wide, unsigned lane, std::uint64_t value) {
  if (wide) {
    warp.row<std::uint64_t>(row)[lane] = value;
  } else {
    warp.row<std::uint32_t>(row)[lane] = static_cast<std::uint32_t>(value);
  }
}
std::uint64_t get(Warp& warp, std::uint32_t row, bool wide, unsigned lane) {
  return wide ? warp.row<std::uint64_t>(row)[lane] : warp.row<std::uint32_t>(row)[lane];
}

// --- ld, st ----------------------------------------------------------------------------------------------------------

// Calls access(lane, place, bytes) for each lane.
template <typename Access>
void at_each_place(Warp& warp, Instr const& instr, Mask mask, Access const& access) {
  unsigned const bytes = instr.width * instr.count;
  for (; mask != 0; mask &= mask - 1) {
    auto const lane = static_cast<unsigned>(__builtin_ctz(mask));
    access(lane, resolve(warp, instr, lane, bytes), bytes);
  }
}

void run_load(Warp& warp, Instr const& instr, Mask mask) {
  Machine& machine = *warp.machine;
  at_each_place(warp, instr, mask, [&](unsigned lane, Place const& place, unsigned bytes) {
    order_read(warp, instr, lane, place, bytes);
    for (unsigned i = 0; i < instr.count; ++i) {
      std::uint64_t value = load_bytes(place.bytes + i * instr.width, instr.width);
      if (instr.strength != Strength::kPlain && place.shadow != nullptr) {
        value = machine.order().load(machine.actor(warp, lane), place.location + i * instr.width, value, instr.strength,
                                     instr.semantics);
      }
      set(warp, instr.dst[i], instr.dst_wide, lane, extended(value, instr));
    }
  });
}

void run_store(Warp& warp, Instr const& instr, Mask mask) {
  Machine& machine = *warp.machine;
  at_each_place(warp, instr, mask, [&](unsigned lane, Place const& place, unsigned bytes) {
    order_write(warp, instr, lane, place, bytes);
    for (unsigned i = 0; i < instr.count; ++i) {
      std::uint64_t const value = get(warp, instr.src[1 + i], instr.src_wide, lane);
      std::uint8_t* const to = place.bytes + i * instr.width;
      std::uint64_t const location = place.location + i * instr.width;
      if (place.shadow != nullptr && instr.strength != Strength::kPlain) {
        machine.order().store(machine.actor(warp, lane), location, load_bytes(to, instr.width), value, instr.strength,
                              instr.semantics, false);
      } else {
        machine.order().forget(location);
      }
      std::memcpy(to, &value, instr.width);
    }
  });
}

// --- atom, red -------------------------------------------------------------------------------------------------------

enum Update : std::uint8_t { kAdd, kAnd, kOr, kXor, kMin, kMax, kExch, kCas, kInc, kDec };

template <typename T>
T updated(std::uint8_t mode, T old, T b, T c) {
  if constexpr (std::is_floating_point_v<T>) {
    if (mode == kAdd) return canonical(old + b);
  } else {
    using U = std::make_unsigned_t<T>;
    switch (mode) {
      case kAdd:
        return static_cast<T>(static_cast<U>(old) + static_cast<U>(b));
      case kAnd:
        return old & b;
      case kOr:
        return old | b;
      case kXor:
        return old ^ b;
      case kMin:
        return std::min(old, b);
      case kMax:
        return std::max(old, b);
      case kInc:
        return old >= b ? T{0} : static_cast<T>(old + 1);
      case kDec:
        return old == 0 || old > b ? b : static_cast<T>(old - 1);
      default:
        break;
    }
  }
  return mode == kCas && word_of(old) != word_of(b) ? old : mode == kCas ? c : b;
}

template <typename T>
void run_atomic(Warp& warp, Instr const& instr, Mask mask) {
  Machine& machine = *warp.machine;
  Values<T> const d(warp, instr.dst[0]), b(warp, instr.src[1]), c(warp, instr.src[2]);
  auto const update = [&](unsigned lane) {
    Place const place = resolve(warp, instr, lane, sizeof(T));
    if (place.shadow == nullptr)
      machine.fail(warp, lane, "an atomic on memory that is neither device nor shared memory");
    T old;
    std::memcpy(&old, place.bytes, sizeof(T));
    T const value = updated<T>(instr.mode, old, b.get(lane), c.get(lane));
    auto const still = machine.quiet_since();
    order_read(warp, instr, lane, place, sizeof(T));
    order_write(warp, instr, lane, place, sizeof(T));
    if (word_of(value) == word_of(old)) machine.progressed(still);  // who tries in vain may be spinning
    machine.order().store(machine.actor(warp, lane), place.location, word_of(old), word_of(value), instr.strength,
                          instr.semantics, true);
    std::memcpy(place.bytes, &value, sizeof(T));
    if (instr.has_result) d.set(lane, old);
  };
  for (; mask != 0; mask &= mask - 1) update(static_cast<unsigned>(__builtin_ctz(mask)));
}

Execute atomic(Type type) {
  switch (type) {
    case Type::kB32:
    case Type::kU32:
      return run_atomic<std::uint32_t>;
    case Type::kS32:
      return run_atomic<std::int32_t>;
    case Type::kB64:
    case Type::kU64:
      return run_atomic<std::uint64_t>;
    case Type::kS64:
      return run_atomic<std::int64_t>;
    case Type::kF32:
      return run_atomic<float>;
    case Type::kF64:
      return run_atomic<double>;
    default:
      return nullptr;
  }
}

// --- Fences ----------------------------------------------------------------------------------------------------------

void run_fence(Warp& warp, Instr const& instr, Mask mask) {
  Machine& machine = *warp.machine;
  for (; mask != 0; mask &= mask - 1) {
    Actor const actor = machine.actor(warp, static_cast<unsigned>(__builtin_ctz(mask)));
    machine.order().fence(actor, instr.strength, instr.semantics == Semantics::kSequential);
  }
}

void run_nothing(Warp&, Instr const&, Mask) {}

Space space_of(Opcode const& opcode) {
  if (opcode.has("global")) return Space::kGlobal;
  if (opcode.has("shared") || opcode.has("shared::cta")) return Space::kShared;
  if (opcode.has("local")) return Space::kLocal;
  if (opcode.has("param") || opcode.has("param::entry")) return Space::kParam;
  if (opcode.has("const")) return Space::kConst;
  return Space::kGeneric;
}

Strength scope_of(Opcode const& opcode) { return opcode.has("cta") ? Strength::kBlock : Strength::kDevice; }

Semantics semantics_of(Opcode const& opcode) {
  return opcode.has("acq_rel")   ? Semantics::kAcquireRelease
         : opcode.has("acquire") ? Semantics::kAcquire
         : opcode.has("release") ? Semantics::kRelease
                                 : Semantics::kRelaxed;
}

}  // namespace

Form find_access(Opcode const& opcode, Instr& instr) {
  std::string const& name = opcode.name();
  instr.space = space_of(opcode);
  instr.semantics = semantics_of(opcode);
  if (name == "membar" || name == "fence") {
    if (opcode.has("proxy")) return {};
    // membar is fence.sc under its old name.
    bool const is_sequential = name == "membar" || opcode.has("sc");
    instr.semantics = is_sequential ? Semantics::kSequential : Semantics::kAcquireRelease;
    instr.strength = scope_of(opcode);
    return {run_fence, "", Type::kB32, Type::kB32};
  }
  if (name == "prefetch" || name == "prefetchu") return {run_nothing, "a", Type::kB32, Type::kB32};
  if (name != "ld" && name != "ldu" && name != "st" && name != "atom" && name != "red") return {};
  Type const type = opcode.type();
  instr.width = static_cast<std::uint8_t>(bytes_of(type));
  instr.sign_extends = is_signed(type);
  bool const is_strong = opcode.has("volatile") || opcode.has("relaxed") || opcode.has("acquire") ||
                         opcode.has("release") || opcode.has("mmio");
  if (name == "ld" || name == "ldu" || name == "st") {
    instr.strength = is_strong ? scope_of(opcode) : Strength::kPlain;
    instr.non_coherent = opcode.has("nc") || name == "ldu";
    // Registers may be wider than what they take.
    if (name == "st") return {run_store, "aS", type, type};
    return {run_load, "Da", type, type};
  }
  static constexpr std::pair<char const*, Update> kUpdates[] = {
      {"add", kAdd}, {"and", kAnd},   {"or", kOr},   {"xor", kXor}, {"min", kMin},
      {"max", kMax}, {"exch", kExch}, {"cas", kCas}, {"inc", kInc}, {"dec", kDec},
  };
  instr.strength = scope_of(opcode);
  instr.has_result = name == "atom";
  for (auto const& [word, update] : kUpdates) {
    if (!opcode.has(word)) continue;
    instr.mode = update;
    std::string const operands = std::string(name == "atom" ? "da" : "a") + (update == kCas ? "ss" : "s");
    return {atomic(type), operands, type, type};
  }
  return {};
}

}  // namespace ptxsim
