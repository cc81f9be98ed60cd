// What arithmetic does to the values of one lane.
#pragma once

#include <algorithm>

#include "values.h"

namespace ptxsim {

// Integers wrap round: work is done on unsigned ones of at least 32 bits.
template <typename T>
using Wrapping = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;

inline constexpr auto add = [](auto a, auto b) { return Wrapping<decltype(a)>(a) + Wrapping<decltype(a)>(b); };
inline constexpr auto sub = [](auto a, auto b) { return Wrapping<decltype(a)>(a) - Wrapping<decltype(a)>(b); };
inline constexpr auto mul = [](auto a, auto b) { return Wrapping<decltype(a)>(a) * Wrapping<decltype(a)>(b); };
inline constexpr auto mad = [](auto a, auto b, auto c) { return mul(a, b) + Wrapping<decltype(a)>(c); };
inline constexpr auto sad = [](auto a, auto b, auto c) {
  return (a < b ? sub(b, a) : sub(a, b)) + Wrapping<decltype(a)>(c);
};
inline constexpr auto least = [](auto a, auto b) { return a < b ? a : b; };
inline constexpr auto most = [](auto a, auto b) { return a < b ? b : a; };
inline constexpr auto negative = [](auto a) { return static_cast<decltype(a)>(sub(decltype(a){0}, a)); };
inline constexpr auto absolute = [](auto a) { return a < 0 ? negative(a) : a; };
inline constexpr auto both = [](auto a, auto b) { return a & b; };
inline constexpr auto either = [](auto a, auto b) { return a | b; };
inline constexpr auto differing = [](auto a, auto b) { return a ^ b; };
inline constexpr auto complement = [](auto a) { return ~a; };
// Unspecified by PTX: all bits of a division by zero, as hardware gives.
inline constexpr auto quotient = [](auto a, auto b) {
  using T = decltype(a);
  if (b == 0) return static_cast<T>(~T{0});
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return negative(a);
  return static_cast<T>(a / b);
};
inline constexpr auto remainder = [](auto a, auto b) {
  using T = decltype(a);
  if (b == 0) return a;
  return std::is_signed_v<T> && b == static_cast<T>(-1) ? T{0} : static_cast<T>(a % b);
};
inline constexpr auto upper_product = [](auto a, auto b) {
  using Wide = std::conditional_t<std::is_signed_v<decltype(a)>, __int128, unsigned __int128>;
  return Wide{a} * Wide{b} >> 8 * sizeof(a);
};
inline constexpr auto left = [](auto a, std::uint32_t n) {
  using T = decltype(a);
  return n >= 8 * sizeof(T) ? Wrapping<T>{0} : Wrapping<T>(a) << n;
};
inline constexpr auto right = [](auto a, std::uint32_t n) {
  using T = decltype(a);
  unsigned const most_bits = 8 * sizeof(T) - 1;
  return std::is_unsigned_v<T> && n > most_bits ? T{0} : static_cast<T>(a >> std::min(n, most_bits));
};
inline constexpr auto reversed = [](auto a) {
  decltype(a) result = 0;
  for (unsigned i = 0; i < 8 * sizeof(a); ++i) result = static_cast<decltype(a)>(result << 1 | (a >> i & 1));
  return result;
};
inline constexpr auto population = [](auto a) {
  return __builtin_popcountll(static_cast<std::make_unsigned_t<decltype(a)>>(a));
};
inline constexpr auto leading_zeros = [](auto a) {
  auto const bits = static_cast<std::make_unsigned_t<decltype(a)>>(a);
  return bits == 0 ? 8 * static_cast<int>(sizeof(a)) : __builtin_clzll(bits) - (64 - 8 * static_cast<int>(sizeof(a)));
};
// The highest bit that is not the sign's: how far from the top, or its number.
inline constexpr auto shift_to_top = [](auto a) {
  auto const rest = static_cast<std::make_unsigned_t<decltype(a)>>(a < decltype(a){0} ? ~a : a);
  return rest == 0 ? -1 : leading_zeros(rest);
};
inline constexpr auto highest_bit = [](auto a) {
  int const shift = shift_to_top(a);
  return shift < 0 ? -1 : 8 * static_cast<int>(sizeof(a)) - 1 - shift;
};

inline constexpr auto fadd = [](auto a, auto b) { return a + b; };
inline constexpr auto fsub = [](auto a, auto b) { return a - b; };
inline constexpr auto fmul = [](auto a, auto b) { return a * b; };
inline constexpr auto fdiv = [](auto a, auto b) { return a / b; };
inline constexpr auto ffma = [](auto a, auto b, auto c) { return std::fma(a, b, c); };
inline constexpr auto fsqrt = [](auto a) { return std::sqrt(a); };
inline constexpr auto frcp = [](auto a) { return 1 / a; };
inline constexpr auto frsqrt = [](double a) { return 1 / std::sqrt(a); };
inline constexpr auto fex2 = [](double a) { return std::exp2(a); };
inline constexpr auto flg2 = [](double a) { return std::log2(a); };
inline constexpr auto fsin = [](double a) { return std::sin(a); };
inline constexpr auto fcos = [](double a) { return std::cos(a); };
inline constexpr auto ftanh = [](double a) { return std::tanh(a); };
// One NaN loses; -0 is less than 0.
inline constexpr auto fmin = [](auto a, auto b) {
  if (a != a) return b;
  if (b != b) return a;
  return a < b || (a == b && std::signbit(a)) ? a : b;
};
inline constexpr auto fmax = [](auto a, auto b) {
  if (a != a) return b;
  if (b != b) return a;
  return a > b || (a == b && !std::signbit(a)) ? a : b;
};
inline constexpr auto fneg = [](auto a) {
  return bits_as<decltype(a)>(word_of(a) ^ Word<decltype(a)>{1} << (8 * sizeof(a) - 1));
};
inline constexpr auto fabs = [](auto a) {
  return bits_as<decltype(a)>(word_of(a) & ~(Word<decltype(a)>{1} << (8 * sizeof(a) - 1)));
};

}  // namespace ptxsim
