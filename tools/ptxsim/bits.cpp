// Bytes and fields of bits: prmt, bfi, bfe, lop3, shf.

#include <algorithm>

#include "values.h"

namespace ptxsim {
namespace {

template <typename T>
void run_bfi(Warp& warp, Instr const& instr, Mask mask) {
  Values<T> const d(warp, instr.dst[0]), a(warp, instr.src[0]), b(warp, instr.src[1]);
  Values<std::uint32_t> const start(warp, instr.src[2]), length(warp, instr.src[3]);
  constexpr unsigned kBits = 8 * sizeof(T);
  for_lanes(mask, [&](unsigned lane) {
    unsigned const from = start.get(lane) & 0xFF, count = std::min(length.get(lane) & 0xFF, kBits);
    T const ones = count == kBits ? ~T{0} : (T{1} << count) - 1;
    T const field = from >= kBits ? T{0} : ones << from;
    T const moved = from >= kBits ? T{0} : a.get(lane) << from;
    d.set(lane, (b.get(lane) & ~field) | (moved & field));
  });
}

template <typename T>
void run_bfe(Warp& warp, Instr const& instr, Mask mask) {
  Values<T> const d(warp, instr.dst[0]), a(warp, instr.src[0]);
  Values<std::uint32_t> const start(warp, instr.src[1]), length(warp, instr.src[2]);
  constexpr unsigned kBits = 8 * sizeof(T);
  for_lanes(mask, [&](unsigned lane) {
    unsigned const from = start.get(lane) & 0xFF, count = length.get(lane) & 0xFF;
    T const value = a.get(lane);
    T result = 0;
    for (unsigned i = 0; i < kBits; ++i) {
      unsigned const top = std::min(from + (count == 0 ? 0 : count - 1), kBits - 1);
      bool const sign = std::is_signed_v<T> && count != 0 && (value >> top & 1) != 0;
      bool const bit = i < count && from + i < kBits ? (value >> (from + i) & 1) != 0 : sign;
      result = static_cast<T>(result | static_cast<T>(static_cast<std::make_unsigned_t<T>>(bit) << i));
    }
    d.set(lane, result);
  });
}

void run_prmt(Warp& warp, Instr const& instr, Mask mask) {
  Values<std::uint32_t> const d(warp, instr.dst[0]), a(warp, instr.src[0]), b(warp, instr.src[1]),
      c(warp, instr.src[2]);
  for_lanes(mask, [&](unsigned lane) {
    std::uint64_t const bytes = std::uint64_t{b.get(lane)} << 32 | a.get(lane);
    std::uint32_t result = 0;
    for (unsigned i = 0; i < 4; ++i) {
      unsigned const selector = c.get(lane) >> 4 * i & 0xF;
      auto byte = static_cast<std::uint8_t>(bytes >> 8 * (selector & 7));
      if ((selector & 8) != 0) byte = (byte & 0x80) != 0 ? 0xFF : 0;
      result |= std::uint32_t{byte} << 8 * i;
    }
    d.set(lane, result);
  });
}

void run_lop3(Warp& warp, Instr const& instr, Mask mask) {
  Values<std::uint32_t> const d(warp, instr.dst[0]), a(warp, instr.src[0]), b(warp, instr.src[1]),
      c(warp, instr.src[2]);
  Values<std::uint32_t> const table(warp, instr.src[3]);
  for_lanes(mask, [&](unsigned lane) {
    std::uint32_t result = 0;
    for (unsigned row = 0; row < 8; ++row) {
      std::uint32_t const x = (row & 4) != 0 ? a.get(lane) : ~a.get(lane),
                          y = (row & 2) != 0 ? b.get(lane) : ~b.get(lane);
      std::uint32_t const z = (row & 1) != 0 ? c.get(lane) : ~c.get(lane);
      if ((table.get(lane) >> row & 1) != 0) result |= x & y & z;
    }
    d.set(lane, result);
  });
}

// Modes: 0 left, 1 right; the count is clamped, or with 2 more wrapped.
void run_shf(Warp& warp, Instr const& instr, Mask mask) {
  Values<std::uint32_t> const d(warp, instr.dst[0]), a(warp, instr.src[0]), b(warp, instr.src[1]),
      c(warp, instr.src[2]);
  for_lanes(mask, [&](unsigned lane) {
    unsigned const count = (instr.mode & 2) != 0 ? c.get(lane) & 31 : std::min(c.get(lane), 32U);
    std::uint64_t const both = std::uint64_t{b.get(lane)} << 32 | a.get(lane);
    d.set(lane, static_cast<std::uint32_t>((instr.mode & 1) != 0 ? both >> count : both << count >> 32));
  });
}

}  // namespace

Form find_bits(Opcode const& opcode, Instr& instr) {
  std::string const& name = opcode.name();
  if (!opcode.has_type()) return {};
  Type const type = opcode.type();
  bool const wide = bytes_of(type) == 8;
  if (name == "bfi") return {wide ? run_bfi<std::uint64_t> : run_bfi<std::uint32_t>, "dssii", type, type};
  if (name == "bfe") {
    Execute const run = type == Type::kU32   ? run_bfe<std::uint32_t>
                        : type == Type::kS32 ? run_bfe<std::int32_t>
                        : type == Type::kU64 ? run_bfe<std::uint64_t>
                                             : run_bfe<std::int64_t>;
    return {run, "dsii", type, type};
  }
  if (name == "prmt" && opcode.words().size() == 2) return {run_prmt, "diii", type, type};
  if (name == "lop3") return {run_lop3, "diiii", type, type};
  if (name == "shf") {
    instr.mode = static_cast<std::uint8_t>((opcode.has("r") ? 1 : 0) | (opcode.has("wrap") ? 2 : 0));
    return {run_shf, "diii", type, type};
  }
  return {};
}

}  // namespace ptxsim
