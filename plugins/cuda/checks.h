// The checks of a launch's arguments: the first that fails is reported.
#pragma once

#include <cstdint>
#include <cstdio>

#include "panrt/boxes.h"
#include "panrt/cuda/status.h"

namespace panrt::cuda {

class Checks {
 public:
  explicit Checks(char const* op) noexcept : op_(op) {}

  void range(char const* name, std::int64_t value, std::int64_t least, std::int64_t most) noexcept {
    if (!ok() || (value >= least && value <= most)) return;
    say("%s: %s: expected %lld to %lld, got %lld", op_, name, static_cast<long long>(least),
        static_cast<long long>(most), static_cast<long long>(value));
  }
  void at_most(char const* name, std::int64_t value, std::int64_t most, char const* unit) noexcept {
    if (!ok() || value <= most) return;
    say("%s: %s: expected at most %lld %s, got %lld", op_, name, static_cast<long long>(most), unit,
        static_cast<long long>(value));
  }
  void number(char const* name, float value, float least, float most) noexcept {  // NaN is invalid
    if (!ok() || (value >= least && value <= most)) return;
    say("%s: %s: expected %g to %g, got %g", op_, name, static_cast<double>(least), static_cast<double>(most),
        static_cast<double>(value));
  }
  void above_zero(char const* name, float value) noexcept {
    if (!ok() || (value > 0.0F && is_finite(value))) return;
    say("%s: %s: expected a finite number above 0, got %g", op_, name, static_cast<double>(value));
  }
  // `what` says what is expected.
  void that(bool holds, char const* what, Code code = Code::kInvalidArgument) noexcept {
    if (!ok() || holds) return;
    say("%s: %s", op_, what);
    status_.code = code;
  }

  bool ok() const noexcept { return status_.ok(); }
  Status const& status() const noexcept { return status_; }

 private:
  template <typename... Values>
  void say(char const* format, Values... values) noexcept {
    static thread_local char text[256];
    std::snprintf(text, sizeof text, format, values...);
    status_ = invalid(text);
  }

  char const* op_;
  Status status_;
};

}  // namespace panrt::cuda
