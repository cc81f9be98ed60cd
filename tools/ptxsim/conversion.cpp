// mov of parts and wholes, cvt and cvta.

#include <algorithm>

#include "values.h"

namespace ptxsim {
namespace {

// --- mov: {a, b} to a whole, a whole to {a, b}, a register to another of the same width ------------------------------

std::uint64_t word(Warp& warp, std::uint32_t row, bool wide, unsigned lane) {
  return wide ? warp.row<std::uint64_t>(row)[lane] : warp.row<std::uint32_t>(row)[lane];
}
void set_word(Warp& warp, std::uint32_t row, bool wide, unsigned lane, std::uint64_t value) {
  if (wide) {
    warp.row<std::uint64_t>(row)[lane] = value;
  } else {
    warp.row<std::uint32_t>(row)[lane] = static_cast<std::uint32_t>(value);
  }
}

template <typename T>
void run_move(Warp& warp, Instr const& instr, Mask mask) {
  T const* const from = warp.row<T>(instr.src[0]);
  T* const to = warp.row<T>(instr.dst[0]);
  for_lanes(mask, [&](unsigned lane) { to[lane] = from[lane]; });
}

// width: bytes of the whole.
void run_pack(Warp& warp, Instr const& instr, Mask mask) {
  unsigned const bits = 8U * instr.width / instr.count;
  for_lanes(mask, [&](unsigned lane) {
    std::uint64_t whole = 0;
    for (unsigned i = 0; i < instr.count; ++i) {
      std::uint64_t const part = word(warp, instr.src[i], instr.src_wide, lane);
      whole |= (part & (~0ULL >> (64 - bits))) << bits * i;
    }
    set_word(warp, instr.dst[0], instr.width == 8, lane, whole);
  });
}
void run_unpack(Warp& warp, Instr const& instr, Mask mask) {
  unsigned const bits = 8U * instr.width / instr.count;
  for_lanes(mask, [&](unsigned lane) {
    std::uint64_t const whole = word(warp, instr.src[0], instr.width == 8, lane);
    for (unsigned i = 0; i < instr.count; ++i) {
      set_word(warp, instr.dst[i], instr.dst_wide, lane, whole >> bits * i & (~0ULL >> (64 - bits)));
    }
  });
}

// --- cvt -------------------------------------------------------------------------------------------------------------

template <typename From>
From read(Warp& warp, Instr const& instr, unsigned lane) {
  return value_of<From>(static_cast<Word<From>>(word(warp, instr.src[0], instr.src_wide, lane)));
}

// Numbers as they are taken in, and given out. Narrow results are extended to their register by their sign.
struct HalfTag {};

template <typename T>
double rounded(T value, Rounding rounding) {
  switch (rounding) {
    case Rounding::kNearest:
      return std::nearbyint(static_cast<double>(value));
    case Rounding::kZero:
      return std::trunc(static_cast<double>(value));
    case Rounding::kDown:
      return std::floor(static_cast<double>(value));
    case Rounding::kUp:
      return std::ceil(static_cast<double>(value));
    default:
      return static_cast<double>(value);
  }
}

template <typename To, typename From>
void run_convert(Warp& warp, Instr const& instr, Mask mask) {
  constexpr bool kFromHalf = std::is_same_v<From, HalfTag>, kToHalf = std::is_same_v<To, HalfTag>;
  using Given = std::conditional_t<kFromHalf, std::uint16_t, From>;
  using Made = std::conditional_t<kToHalf, std::uint16_t, To>;
  constexpr bool kFromFloat = kFromHalf || std::is_floating_point_v<From>;
  constexpr bool kToFloat = kToHalf || std::is_floating_point_v<To>;
  Instr const in = instr;
  for_lanes(mask, [&](unsigned lane) {
    Given const given = read<Given>(warp, in, lane);
    auto const value = [&] {
      if constexpr (kFromHalf) {
        return from_half(given);
      } else {
        return given;
      }
    }();
    std::uint64_t result;
    if constexpr (kFromFloat && kToFloat) {
      double wide = rounded(value, in.rounding);
      if (in.saturates) wide = wide > 0 ? std::min(wide, 1.0) : 0;
      if constexpr (kToHalf) {
        result = to_half(wide);
      } else {
        result = word_of(canonical(static_cast<Made>(wide)));
      }
    } else if constexpr (kFromFloat) {
      constexpr auto kLow = static_cast<double>(std::numeric_limits<Made>::min());
      constexpr auto kHigh = static_cast<double>(std::numeric_limits<Made>::max());
      double const wide = rounded(value, in.rounding);
      Made made;
      if (wide != wide) {
        made = sizeof(Made) == 8 || sizeof(Given) == 8 ? static_cast<Made>(1ULL << (8 * sizeof(Made) - 1)) : Made{0};
      } else {
        made = wide <= kLow    ? std::numeric_limits<Made>::min()
               : wide >= kHigh ? std::numeric_limits<Made>::max()
                               : static_cast<Made>(wide);
      }
      result = std::is_signed_v<Made> ? static_cast<std::uint64_t>(static_cast<std::int64_t>(made))
                                      : static_cast<std::uint64_t>(made);
    } else if constexpr (kToHalf) {
      result = to_half(static_cast<double>(value));
    } else if constexpr (kToFloat) {
      result = word_of(static_cast<Made>(value));
    } else {
      Made made = static_cast<Made>(value);
      if (in.saturates) {
        auto const low = static_cast<__int128>(std::numeric_limits<Made>::min());
        auto const high = static_cast<__int128>(std::numeric_limits<Made>::max());
        made = static_cast<Made>(std::clamp(static_cast<__int128>(value), low, high));
      }
      result = std::is_signed_v<Made> ? static_cast<std::uint64_t>(static_cast<std::int64_t>(made))
                                      : static_cast<std::uint64_t>(made);
    }
    set_word(warp, in.dst[0], in.dst_wide, lane, result);
  });
}

template <typename To>
Execute convert_from(Type from) {
  switch (from) {
    case Type::kU8:
      return run_convert<To, std::uint8_t>;
    case Type::kU16:
      return run_convert<To, std::uint16_t>;
    case Type::kU32:
      return run_convert<To, std::uint32_t>;
    case Type::kU64:
      return run_convert<To, std::uint64_t>;
    case Type::kS8:
      return run_convert<To, std::int8_t>;
    case Type::kS16:
      return run_convert<To, std::int16_t>;
    case Type::kS32:
      return run_convert<To, std::int32_t>;
    case Type::kS64:
      return run_convert<To, std::int64_t>;
    case Type::kF16:
      return run_convert<To, HalfTag>;
    case Type::kF32:
      return run_convert<To, float>;
    case Type::kF64:
      return run_convert<To, double>;
    default:
      return nullptr;
  }
}

Execute convert(Type to, Type from) {
  switch (to) {
    case Type::kU8:
      return convert_from<std::uint8_t>(from);
    case Type::kU16:
      return convert_from<std::uint16_t>(from);
    case Type::kU32:
      return convert_from<std::uint32_t>(from);
    case Type::kU64:
      return convert_from<std::uint64_t>(from);
    case Type::kS8:
      return convert_from<std::int8_t>(from);
    case Type::kS16:
      return convert_from<std::int16_t>(from);
    case Type::kS32:
      return convert_from<std::int32_t>(from);
    case Type::kS64:
      return convert_from<std::int64_t>(from);
    case Type::kF16:
      return convert_from<HalfTag>(from);
    case Type::kF32:
      return convert_from<float>(from);
    case Type::kF64:
      return convert_from<double>(from);
    default:
      return nullptr;
  }
}

// The first operand makes the upper half.
void run_two_halves(Warp& warp, Instr const& instr, Mask mask) {
  Values<float> const a(warp, instr.src[0]), b(warp, instr.src[1]);
  Values<std::uint32_t> const d(warp, instr.dst[0]);
  for_lanes(mask,
            [&](unsigned lane) { d.set(lane, std::uint32_t{to_half(a.get(lane))} << 16 | to_half(b.get(lane))); });
}

// --- cvta: between addresses of a space and generic ones -------------------------------------------------------------

void run_address(Warp& warp, Instr const& instr, Mask mask) {
  Values<std::uint64_t> const d(warp, instr.dst[0]), a(warp, instr.src[0]);
  auto const window = static_cast<std::uint64_t>(instr.offset);
  for_lanes(mask, [&](unsigned lane) { d.set(lane, a.get(lane) + window); });
}

}  // namespace

Form find_conversion(Opcode const& opcode, Instr& instr) {
  std::string const& name = opcode.name();
  if (name == "mov") {
    Type const type = opcode.type();
    instr.width = static_cast<std::uint8_t>(bytes_of(type));
    if (instr.moves == Moves::kPack) return {run_pack, "dS", type, Type::kB16};
    if (instr.moves == Moves::kUnpack) return {run_unpack, "Ds", Type::kB16, type};
    return {instr.width == 8 ? run_move<std::uint64_t> : run_move<std::uint32_t>, "ds", type, type};
  }
  if (name == "cvt") {
    Type const to = opcode.type(1), from = opcode.type();
    if (to == Type::kF16x2) return from == Type::kF32 ? Form{run_two_halves, "dss", Type::kB32, Type::kB32} : Form{};
    bool const from_float = from == Type::kF16 || from == Type::kF32 || from == Type::kF64;
    bool const to_float = to == Type::kF16 || to == Type::kF32 || to == Type::kF64;
    instr.saturates = opcode.has("sat");
    instr.rounding = opcode.has("rni")   ? Rounding::kNearest
                     : opcode.has("rzi") ? Rounding::kZero
                     : opcode.has("rmi") ? Rounding::kDown
                     : opcode.has("rpi") ? Rounding::kUp
                                         : Rounding::kNone;
    // Of floats to nearest alone; what rounds an integer or flushes is not met.
    bool const rounds_otherwise = opcode.has("rz") || opcode.has("rm") || opcode.has("rp");
    if (rounds_otherwise && (to_float || from_float)) return {};
    return {convert(to, from), "ds", to, from};
  }
  if (name == "cvta") {
    bool const back = opcode.has("to");
    std::uint64_t const window = opcode.has("shared") ? kSharedWindow : opcode.has("local") ? kLocalWindow : 0;
    if (opcode.has("param")) return {};
    instr.offset = static_cast<std::int64_t>(back ? ~window + 1 : window);
    return {run_address, "ds", Type::kU64, Type::kU64};
  }
  return {};
}

}  // namespace ptxsim
