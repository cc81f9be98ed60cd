// Arithmetic, logic, comparisons and selection: what happens to registers of one lane at a time.

#include <algorithm>
#include <cfenv>

#include "operations.h"

namespace ptxsim {
namespace {

// --- Loops over lanes ------------------------------------------------------------------------------------------------

template <typename T, auto const& op>
void run1(Warp& warp, Instr const& instr, Mask mask) {
  Values<T> const d(warp, instr.dst[0]), a(warp, instr.src[0]);
  for_lanes(mask, [&](unsigned lane) { d.set(lane, static_cast<T>(op(a.get(lane)))); });
}
template <typename T, auto const& op>
void run2(Warp& warp, Instr const& instr, Mask mask) {
  Values<T> const d(warp, instr.dst[0]), a(warp, instr.src[0]), b(warp, instr.src[1]);
  for_lanes(mask, [&](unsigned lane) { d.set(lane, static_cast<T>(op(a.get(lane), b.get(lane)))); });
}
template <typename T, auto const& op>
void run3(Warp& warp, Instr const& instr, Mask mask) {
  Values<T> const d(warp, instr.dst[0]), a(warp, instr.src[0]), b(warp, instr.src[1]), c(warp, instr.src[2]);
  for_lanes(mask, [&](unsigned lane) { d.set(lane, static_cast<T>(op(a.get(lane), b.get(lane), c.get(lane)))); });
}
// A value and a shift or count of 32 bits.
template <typename T, auto const& op>
void run_shift(Warp& warp, Instr const& instr, Mask mask) {
  Values<T> const d(warp, instr.dst[0]), a(warp, instr.src[0]);
  Values<std::uint32_t> const b(warp, instr.src[1]);
  for_lanes(mask, [&](unsigned lane) { d.set(lane, static_cast<T>(op(a.get(lane), b.get(lane)))); });
}
// To 32 bits.
template <typename T, auto const& op>
void run_count(Warp& warp, Instr const& instr, Mask mask) {
  Values<T> const a(warp, instr.src[0]);
  Values<std::uint32_t> const d(warp, instr.dst[0]);
  for_lanes(mask, [&](unsigned lane) { d.set(lane, static_cast<std::uint32_t>(op(a.get(lane)))); });
}

// The rounding of an instruction, .ftz and .sat around an operation on floats.
template <typename T, auto const& op, unsigned kOperands>
void run_float(Warp& warp, Instr const& instr, Mask mask) {
  static constexpr int kModes[] = {FE_TONEAREST, FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
  Values<T> const d(warp, instr.dst[0]), a(warp, instr.src[0]), b(warp, instr.src[1]), c(warp, instr.src[2]);
  bool const plain = instr.rounding <= Rounding::kNearest && !instr.flushes && !instr.saturates;
  auto const apply = [&](T x, T y, T z) {
    if constexpr (kOperands == 1) return canonical<T>(static_cast<T>(op(x)));
    if constexpr (kOperands == 2) return canonical<T>(op(x, y));
    if constexpr (kOperands == 3) return canonical<T>(op(x, y, z));
  };
  if (plain) {
    for_lanes(mask, [&](unsigned lane) { d.set(lane, apply(a.get(lane), b.get(lane), c.get(lane))); });
    return;
  }
  auto const flushed = [&](T x) {
    return instr.flushes && std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(T{0}, x) : x;
  };
  std::fesetround(kModes[static_cast<int>(instr.rounding)]);
  for_lanes(mask, [&](unsigned lane) {
    T result = flushed(apply(flushed(a.get(lane)), flushed(b.get(lane)), flushed(c.get(lane))));
    if (instr.saturates) result = result > T{0} ? std::min(result, T{1}) : T{0};  // 0 for NaN
    d.set(lane, result);
  });
  std::fesetround(FE_TONEAREST);
}

// Half precision, in double and rounded once.
template <auto const& op, unsigned kOperands, unsigned kHalves>
void run_half(Warp& warp, Instr const& instr, Mask mask) {
  Values<std::uint32_t> const d(warp, instr.dst[0]), a(warp, instr.src[0]), b(warp, instr.src[1]),
      c(warp, instr.src[2]);
  for_lanes(mask, [&](unsigned lane) {
    std::uint32_t result = 0;
    for (unsigned half = 0; half < kHalves; ++half) {
      auto const part = [&](Values<std::uint32_t> const& row) {
        return from_half(static_cast<std::uint16_t>(row.get(lane) >> 16 * half));
      };
      double value;
      if constexpr (kOperands == 1) value = op(part(a));
      if constexpr (kOperands == 2) value = op(part(a), part(b));
      if constexpr (kOperands == 3) value = op(part(a), part(b), part(c));
      result |= static_cast<std::uint32_t>(to_half(value)) << 16 * half;
    }
    d.set(lane, result);
  });
}

template <typename To, typename From>
void run_wide(Warp& warp, Instr const& instr, Mask mask) {
  Values<From> const a(warp, instr.src[0]), b(warp, instr.src[1]);
  Values<To> const d(warp, instr.dst[0]), c(warp, instr.src[2]);
  bool const adds = instr.mode != 0;
  for_lanes(mask, [&](unsigned lane) {
    using U = std::make_unsigned_t<To>;
    U const product = static_cast<U>(static_cast<To>(a.get(lane))) * static_cast<U>(static_cast<To>(b.get(lane)));
    d.set(lane, static_cast<To>(product + (adds ? static_cast<U>(c.get(lane)) : U{0})));
  });
}

// --- Predicates ------------------------------------------------------------------------------------------------------

Mask operand(Warp const& warp, Instr const& instr, unsigned number) {
  return warp.predicate(instr.src[number], (instr.negated >> number & 1U) != 0);
}

enum Combination : std::uint8_t { kNoCombination, kAnd, kOr, kXor };
Mask combined(std::uint8_t how, Mask a, Mask b) { return how == kAnd ? a & b : how == kOr ? a | b : a ^ b; }

template <typename T>
void run_setp(Warp& warp, Instr const& instr, Mask mask) {
  Values<T> const a(warp, instr.src[0]), b(warp, instr.src[1]);
  Mask holds = 0;
  auto const test = [&](auto const& compare) {
    for_lanes(mask, [&](unsigned lane) {
      T const x = a.get(lane), y = b.get(lane);
      bool const both = x == x && y == y;
      holds |= static_cast<Mask>(both ? compare(x, y) : instr.unordered) << lane;
    });
  };
  switch (instr.compare) {
    case Compare::kEq:
      test([](T x, T y) { return x == y; });
      break;
    case Compare::kNe:
      test([](T x, T y) { return x != y; });
      break;
    case Compare::kLt:
      test([](T x, T y) { return x < y; });
      break;
    case Compare::kLe:
      test([](T x, T y) { return x <= y; });
      break;
    case Compare::kGt:
      test([](T x, T y) { return x > y; });
      break;
    case Compare::kGe:
      test([](T x, T y) { return x >= y; });
      break;
    case Compare::kNever:
      test([](T, T) { return false; });
      break;
    case Compare::kAlways:
      test([](T, T) { return true; });
      break;
  }
  Mask first = holds, second = ~holds;
  if (instr.mode != kNoCombination) {
    first = combined(instr.mode, holds, operand(warp, instr, 2));
    second = combined(instr.mode, ~holds, operand(warp, instr, 2));
  }
  warp.set_predicate(instr.dst[0], mask, first);
  warp.set_predicate(instr.dst[1], mask, second);
}

void run_predicate(Warp& warp, Instr const& instr, Mask mask) {
  Mask const a = operand(warp, instr, 0);
  warp.set_predicate(instr.dst[0], mask,
                     instr.mode == kNoCombination ? a : combined(instr.mode, a, operand(warp, instr, 1)));
}
void run_predicate_not(Warp& warp, Instr const& instr, Mask mask) {
  warp.set_predicate(instr.dst[0], mask, ~operand(warp, instr, 0));
}

template <typename T>
void run_selp(Warp& warp, Instr const& instr, Mask mask) {
  Values<T> const d(warp, instr.dst[0]), a(warp, instr.src[0]), b(warp, instr.src[1]);
  Mask const chosen = operand(warp, instr, 2);
  for_lanes(mask, [&](unsigned lane) { d.set(lane, (chosen >> lane & 1) != 0 ? a.get(lane) : b.get(lane)); });
}

void run_rcp_gross(Warp& warp, Instr const& instr, Mask mask) {
  // 20 bits of the reciprocal; the lower word of the argument is ignored, that of the result is 0.
  Values<double> const d(warp, instr.dst[0]), a(warp, instr.src[0]);
  auto const upper = [](double x) {
    x = bits_as<double>(word_of(x) & 0xFFFFFFFF00000000);
    return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0, x) : x;
  };
  for_lanes(mask, [&](unsigned lane) { d.set(lane, upper(1 / upper(a.get(lane)))); });
}

// --- Opcodes ---------------------------------------------------------------------------------------------------------

// The instance of a loop for a type, null for a type that it is not for. B types are U types.
template <template <typename> class Loop>
Execute for_integer(Type type) {
  switch (type) {
    case Type::kB16:
    case Type::kU16:
      return Loop<std::uint16_t>::run;
    case Type::kB32:
    case Type::kU32:
      return Loop<std::uint32_t>::run;
    case Type::kB64:
    case Type::kU64:
      return Loop<std::uint64_t>::run;
    case Type::kS16:
      return Loop<std::int16_t>::run;
    case Type::kS32:
      return Loop<std::int32_t>::run;
    case Type::kS64:
      return Loop<std::int64_t>::run;
    default:
      return nullptr;
  }
}
template <template <typename> class Loop>
Execute for_number(Type type) {
  if (type == Type::kF32) return Loop<float>::run;
  return type == Type::kF64 ? Loop<double>::run : for_integer<Loop>(type);
}

template <auto const& op, unsigned kOperands>
struct Integer {
  template <typename T>
  struct Loop {
    static void run(Warp& warp, Instr const& instr, Mask mask) {
      if constexpr (kOperands == 1) run1<T, op>(warp, instr, mask);
      if constexpr (kOperands == 2) run2<T, op>(warp, instr, mask);
      if constexpr (kOperands == 3) run3<T, op>(warp, instr, mask);
    }
  };
};
template <typename T>
struct SetpLoop {
  static constexpr Execute run = run_setp<T>;
};
template <typename T>
struct SelpLoop {
  static constexpr Execute run = run_selp<T>;
};
template <typename T>
struct ShlLoop {
  static constexpr Execute run = run_shift<T, left>;
};
template <typename T>
struct ShrLoop {
  static constexpr Execute run = run_shift<T, right>;
};

struct Entry {
  char const* name;
  char const* operands;
  Execute (*integer)(Type);
  Execute single, twice, half, halves;  // f32, f64, f16, f16x2
};
// A destination and so many sources.
constexpr char const* operands_of(unsigned sources) { return sources == 1 ? "ds" : sources == 2 ? "dss" : "dsss"; }
template <auto const& op, unsigned kOperands>
constexpr Entry integer(char const* name) {
  return {name,   operands_of(kOperands), for_integer<Integer<op, kOperands>::template Loop>, nullptr, nullptr, nullptr,
          nullptr};
}
template <auto const& op, unsigned kOperands>
constexpr Entry floating(char const* name) {
  return {name,
          operands_of(kOperands),
          nullptr,
          run_float<float, op, kOperands>,
          run_float<double, op, kOperands>,
          run_half<op, kOperands, 1>,
          run_half<op, kOperands, 2>};
}
constexpr Entry kEntries[] = {
    integer<add, 2>("add"),       integer<sub, 2>("sub"),       integer<least, 2>("min"),
    integer<most, 2>("max"),      integer<quotient, 2>("div"),  integer<remainder, 2>("rem"),
    integer<negative, 1>("neg"),  integer<absolute, 1>("abs"),  integer<both, 2>("and"),
    integer<either, 2>("or"),     integer<differing, 2>("xor"), integer<complement, 1>("not"),
    integer<reversed, 1>("brev"), integer<sad, 3>("sad"),       floating<fadd, 2>("add"),
    floating<fsub, 2>("sub"),     floating<fmul, 2>("mul"),     floating<fdiv, 2>("div"),
    floating<ffma, 3>("fma"),     floating<fmin, 2>("min"),     floating<fmax, 2>("max"),
    floating<fneg, 1>("neg"),     floating<fabs, 1>("abs"),     floating<frcp, 1>("rcp"),
    floating<fsqrt, 1>("sqrt"),   floating<frsqrt, 1>("rsqrt"), floating<fex2, 1>("ex2"),
    floating<flg2, 1>("lg2"),     floating<fsin, 1>("sin"),     floating<fcos, 1>("cos"),
    floating<ftanh, 1>("tanh"),
};

Execute from_table(std::string const& name, Type type, std::string& operands) {
  for (Entry const& entry : kEntries) {
    if (name != entry.name) continue;
    Execute found = nullptr;
    if (entry.integer != nullptr) found = entry.integer(type);
    if (type == Type::kF32) found = entry.single;
    if (type == Type::kF64) found = entry.twice;
    if (type == Type::kF16) found = entry.half;
    if (type == Type::kF16x2) found = entry.halves;
    if (found == nullptr) continue;
    operands = entry.operands;
    return found;
  }
  return nullptr;
}

bool find_comparison(Opcode const& opcode, Instr& instr) {
  struct Name {
    char const* name;
    Compare compare;
    bool unordered;
  };
  static constexpr Name kNames[] = {
      {"eq", Compare::kEq, false}, {"ne", Compare::kNe, false},      {"lt", Compare::kLt, false},
      {"le", Compare::kLe, false}, {"gt", Compare::kGt, false},      {"ge", Compare::kGe, false},
      {"lo", Compare::kLt, false}, {"ls", Compare::kLe, false},      {"hi", Compare::kGt, false},
      {"hs", Compare::kGe, false}, {"equ", Compare::kEq, true},      {"neu", Compare::kNe, true},
      {"ltu", Compare::kLt, true}, {"leu", Compare::kLe, true},      {"gtu", Compare::kGt, true},
      {"geu", Compare::kGe, true}, {"num", Compare::kAlways, false}, {"nan", Compare::kNever, true},
  };
  for (Name const& known : kNames) {
    if (opcode.words()[1] == known.name) {
      instr.compare = known.compare;
      instr.unordered = known.unordered;
      return true;
    }
  }
  return false;
}

std::uint8_t combination(Opcode const& opcode) {
  return opcode.has("and") ? kAnd : opcode.has("or") ? kOr : opcode.has("xor") ? kXor : kNoCombination;
}

Form multiplication(Opcode const& opcode, Type type, Instr& instr) {
  bool const adds = opcode.name() == "mad";
  char const* const operands = adds ? "dsss" : "dss";
  if (opcode.has("lo")) {
    return {adds ? for_integer<Integer<mad, 3>::Loop>(type) : for_integer<Integer<mul, 2>::Loop>(type), operands, type,
            type};
  }
  if (opcode.has("hi") && !adds) return {for_integer<Integer<upper_product, 2>::Loop>(type), operands, type, type};
  if (!opcode.has("wide")) return {};
  instr.mode = adds ? 1 : 0;
  // The third operand is as wide as the result.
  std::string const wide = adds ? "dsst" : "dss";
  switch (type) {
    case Type::kU16:
      return {run_wide<std::uint32_t, std::uint16_t>, wide, Type::kU32, type};
    case Type::kS16:
      return {run_wide<std::int32_t, std::int16_t>, wide, Type::kS32, type};
    case Type::kU32:
      return {run_wide<std::uint64_t, std::uint32_t>, wide, Type::kU64, type};
    case Type::kS32:
      return {run_wide<std::int64_t, std::int32_t>, wide, Type::kS64, type};
    default:
      return {};
  }
}

Form bits(Opcode const& opcode, Type type) {
  std::string const& name = opcode.name();
  bool const wide = bytes_of(type) == 8;
  if (name == "shl") return {for_integer<ShlLoop>(type), "dsi", type, type};
  if (name == "shr") return {for_integer<ShrLoop>(type), "dsi", type, type};
  if (name == "popc")
    return {wide ? run_count<std::uint64_t, population> : run_count<std::uint32_t, population>, "ds", Type::kU32, type};
  if (name == "clz")
    return {wide ? run_count<std::uint64_t, leading_zeros> : run_count<std::uint32_t, leading_zeros>, "ds", Type::kU32,
            type};
  if (name == "bfind") {
    bool const shift = opcode.has("shiftamt");
    Execute const run =
        type == Type::kU32   ? (shift ? run_count<std::uint32_t, shift_to_top> : run_count<std::uint32_t, highest_bit>)
        : type == Type::kS32 ? (shift ? run_count<std::int32_t, shift_to_top> : run_count<std::int32_t, highest_bit>)
        : type == Type::kU64 ? (shift ? run_count<std::uint64_t, shift_to_top> : run_count<std::uint64_t, highest_bit>)
                             : (shift ? run_count<std::int64_t, shift_to_top> : run_count<std::int64_t, highest_bit>);
    return {run, "ds", Type::kU32, type};
  }
  return {};
}

}  // namespace

Form find_arithmetic(Opcode const& opcode, Instr& instr) {
  std::string const& name = opcode.name();
  if (!opcode.has_type()) return {};
  Type const type = opcode.type();
  bool const is_single = type == Type::kF32 || type == Type::kF64, is_half = type == Type::kF16 || type == Type::kF16x2;
  bool const alters = opcode.has("sat") || opcode.has("ftz");  // which only the loop over floats knows
  if (opcode.has("cc") || opcode.has("relu") || opcode.has("NaN") || opcode.has("xorsign")) return {};
  if (alters && (!is_single || name == "setp")) return {};
  instr.saturates = opcode.has("sat");
  instr.flushes = opcode.has("ftz");
  instr.rounding = opcode.has("rz")   ? Rounding::kZero
                   : opcode.has("rm") ? Rounding::kDown
                   : opcode.has("rp") ? Rounding::kUp
                                      : Rounding::kNone;
  if (type == Type::kPred) {
    instr.mode = name == "and" ? kAnd : name == "or" ? kOr : name == "xor" ? kXor : kNoCombination;
    if (name == "not") return {run_predicate_not, "pP", type, type};
    if (name == "mov") return {run_predicate, "pP", type, type};
    return instr.mode == kNoCombination ? Form{} : Form{run_predicate, "pPP", type, type};
  }
  if (name == "setp") {
    if (!find_comparison(opcode, instr)) return {};
    instr.mode = combination(opcode);
    return {for_number<SetpLoop>(type), instr.mode == kNoCombination ? "pqss" : "pqssP", type, type};
  }
  if (name == "selp") return {for_number<SelpLoop>(type), "dssP", type, type};
  if (name == "rcp" && type == Type::kF64 && opcode.has("approx")) return {run_rcp_gross, "ds", type, type};
  if ((name == "mul" || name == "mad") && !is_single && !is_half) return multiplication(opcode, type, instr);
  Form form = bits(opcode, type);
  if (form.execute != nullptr) return form;
  std::string operands;
  Execute const found = from_table(name == "mad" ? "fma" : name, type, operands);
  if (found != nullptr) return {found, operands, type, type};
  return {};
}

}  // namespace ptxsim
