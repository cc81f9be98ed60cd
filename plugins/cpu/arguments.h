// How panrt.plugins._native checks what Python passes.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"
#include "panrt/limits.h"

namespace nb = nanobind;

template <>
struct nanobind::detail::dtype_traits<panrt::Half> {
  static constexpr dlpack::dtype value{static_cast<std::uint8_t>(dlpack::dtype_code::Float), 16, 1};
  static constexpr auto name = const_name("float16");
};

namespace panrt::python {

// Defines the functions that are no ops; bindings.cpp defines the ops.
void define_helpers(nb::module_& module);

// Arrays are not converted (`noconvert` in the definitions): a silent copy would cost more than the kernel.
template <typename T, int rank>
using In = nb::ndarray<T const, nb::ndim<rank>, nb::c_contig, nb::device::cpu>;
template <typename T, int rank>
using Out = nb::ndarray<T, nb::ndim<rank>, nb::c_contig, nb::device::cpu>;

constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Bounds of plugins/contract.py; with them no product below overflows.
constexpr int kMaxThreads = 1024;

[[noreturn]] inline void reject(std::string const& name, std::string const& problem) {
  throw std::invalid_argument(name + ": " + problem);
}

// An integer within bounds, as an int.
template <typename Integer>
int expect_int(char const* name, Integer value, int least, std::int64_t most = std::numeric_limits<int>::max()) {
  bool const fits = value >= static_cast<Integer>(least) && value <= static_cast<Integer>(most);
  if (!fits) {
    reject(name,
           "expected " + std::to_string(least) + " to " + std::to_string(most) + ", got " + std::to_string(value));
  }
  return static_cast<int>(value);
}

// A number within bounds; never NaN.
inline float expect_number(char const* name, float value, float least, float most) {
  if (!(value >= least && value <= most)) {
    reject(name,
           "expected " + std::to_string(least) + " to " + std::to_string(most) + ", got " + std::to_string(value));
  }
  return value;
}

inline float expect_above_zero(char const* name, float value) {
  if (!(value > 0.0F && value <= std::numeric_limits<float>::max())) {
    reject(name, "expected a number above 0, got " + std::to_string(value));
  }
  return value;
}

inline int expect_threads(int threads) { return expect_int("threads", threads, 1, kMaxThreads); }

// The arrays of one call: each of its shape and aligned, and none that is written to overlaps another one. `read` and
// `write` return where the array begins.
class Arrays {
 public:
  template <typename Array>
  auto* read(char const* name, Array const& array, std::vector<std::size_t> const& shape) {
    add(name, array, shape, false);
    return array.data();
  }
  template <typename Array>
  auto* write(char const* name, Array const& array, std::vector<std::size_t> const& shape) {
    add(name, array, shape, true);
    return array.data();
  }
  void expect_apart() const {
    for (std::size_t i = 0; i < spans_.size(); ++i) {
      for (std::size_t j = 0; j < spans_.size(); ++j) {
        if (i == j || !spans_[i].written || spans_[i].begin >= spans_[j].end || spans_[j].begin >= spans_[i].end)
          continue;
        reject(spans_[i].name, std::string("expected memory of its own, got some of ") + spans_[j].name);
      }
    }
  }

 private:
  struct Span {
    char const* name;
    std::uintptr_t begin, end;
    bool written;
  };

  template <typename Array>
  void add(char const* name, Array const& array, std::vector<std::size_t> const& shape, bool written) {
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (array.shape(i) != shape[i]) {
        reject(name, "axis " + std::to_string(i) + " is " + std::to_string(array.shape(i)) + ", expected " +
                         std::to_string(shape[i]));
      }
    }
    auto const begin = reinterpret_cast<std::uintptr_t>(array.data());
    if (begin % alignof(typename Array::Scalar) != 0) reject(name, "expected an aligned array; use .copy()");
    spans_.push_back({name, begin, begin + array.nbytes(), written});
  }

  std::vector<Span> spans_;
};

inline void expect_at_most(char const* name, std::size_t found, std::int64_t most, char const* unit) {
  if (found > static_cast<std::size_t>(most)) {
    reject(name, "expected at most " + std::to_string(most) + " " + unit + ", got " + std::to_string(found));
  }
}

}  // namespace panrt::python
