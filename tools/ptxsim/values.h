// Values of lanes in rows, and half precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "machine.h"

namespace ptxsim {

template <typename To, typename From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <typename T>
using Word = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;

template <typename T>
T value_of(Word<T> word) {
  if constexpr (std::is_floating_point_v<T>) {
    return bits_as<T>(word);
  } else {
    return static_cast<T>(word);
  }
}
template <typename T>
Word<T> word_of(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    return bits_as<Word<T>>(value);
  } else {
    return static_cast<std::make_unsigned_t<T>>(value);
  }
}

// A row as values of T.
template <typename T>
class Values {
 public:
  Values(Warp& warp, std::uint32_t row) : words_(warp.row<Word<T>>(row)) {}
  T get(unsigned lane) const { return value_of<T>(words_[lane]); }
  void set(unsigned lane, T value) const { words_[lane] = word_of<T>(value); }

 private:
  Word<T>* words_;
};

// A NaN that arithmetic on float32 makes has these bits.
template <typename T>
T canonical(T value) {
  if constexpr (std::is_same_v<T, float>) {
    return value != value ? bits_as<float>(0x7FFFFFFFU) : value;
  } else {
    return value;
  }
}

inline double from_half(std::uint16_t half) {
  int const exponent = half >> 10 & 0x1F;
  double const fraction = half & 0x3FF;
  double const sign = (half & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 0x1F) return fraction != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * HUGE_VAL;
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(fraction + 1024, exponent - 25));
}

// To nearest, ties to even; one rounding also from a double.
inline std::uint16_t to_half(double value) {
  if (value != value) return 0x7FFF;
  std::uint16_t const sign = std::signbit(value) ? 0x8000 : 0;
  double const magnitude = std::fabs(value);
  if (magnitude == 0) return sign;
  if (magnitude >= 65520) return static_cast<std::uint16_t>(sign | 0x7C00);
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude is from 2^(exponent - 1) on
  exponent = std::max(exponent - 1, -14);
  // Counted in units of the last place; 1024 and more make the exponent's field by carrying into it.
  auto const units = static_cast<unsigned>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return static_cast<std::uint16_t>(sign | (static_cast<unsigned>(exponent + 14) * 1024 + units));
}

}  // namespace ptxsim
