// Attributes of an op <-> TensorRT's plugin fields.
//
// An op lists its attributes once, by name: `template <typename Visit> void attributes(Visit&& visit)` calls
// visit("strides", strides) for each. Reading an ONNX node, serialising, naming the fields and the timing cache's key
// are four visitors of that list.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "panrt/limits.h"
#include "report.h"

namespace panrt::tensorrt {

// An attribute's storage as a run of int32 or float.
template <typename Number>
Number* begin_of(Number& value) {
  return &value;
}
template <typename Number, std::size_t length>
Number* begin_of(std::array<Number, length>& value) {
  return value.data();
}
template <typename Number>
Number* begin_of(std::vector<Number>& value) {
  return value.data();
}

template <typename Number>
std::size_t length_of(Number const&) {
  return 1;
}
template <typename Number, std::size_t length>
std::size_t length_of(std::array<Number, length> const&) {
  return length;
}
template <typename Number>
std::size_t length_of(std::vector<Number> const& value) {
  return value.size();
}

template <typename Number>
void fit_length(char const* name, Number const& value, std::size_t length) {
  if (length != length_of(value)) {
    throw OpError("attribute " + std::string(name) + ": expected " + std::to_string(length_of(value)) +
                  (length_of(value) == 1 ? " number, got " : " numbers, got ") + std::to_string(length));
  }
}
template <typename Number>
void fit_length(char const*, std::vector<Number>& value, std::size_t length) {
  value.resize(length);
}

template <typename Attribute>
constexpr bool kIsFloat = std::is_same_v<std::remove_pointer_t<decltype(begin_of(std::declval<Attribute&>()))>, float>;

// Reads the attributes of an ONNX node, or what Serializer wrote. None has a default.
class Reader {
 public:
  explicit Reader(nvinfer1::PluginFieldCollection const& fields) : fields_(fields) {}

  template <typename Attribute>
  void operator()(char const* name, Attribute& value) const {
    nvinfer1::PluginField const& field = find(name);
    fit_length(name, value, static_cast<std::size_t>(field.length));
    auto* const numbers = begin_of(value);
    for (std::size_t i = 0; i < length_of(value); ++i) {
      if constexpr (kIsFloat<Attribute>) {
        numbers[i] = real(name, field, i);
      } else {
        numbers[i] = integer(name, field, i);
      }
    }
  }

 private:
  nvinfer1::PluginField const& find(char const* name) const {
    for (std::int32_t i = 0; i < fields_.nbFields; ++i) {
      nvinfer1::PluginField const& field = fields_.fields[i];
      if (field.name != nullptr && field.name == std::string(name) && field.data != nullptr && field.length >= 0) {
        return field;
      }
    }
    throw OpError("attribute " + std::string(name) + " is missing; export the model again");
  }

  static std::int32_t integer(char const* name, nvinfer1::PluginField const& field, std::size_t i) {
    if (field.type == nvinfer1::PluginFieldType::kINT32) return static_cast<std::int32_t const*>(field.data)[i];
    if (field.type != nvinfer1::PluginFieldType::kINT64) throw OpError(wrong_type(name, "integers", field));
    std::int64_t const wide = static_cast<std::int64_t const*>(field.data)[i];
    if (wide < std::numeric_limits<std::int32_t>::min() || wide > std::numeric_limits<std::int32_t>::max()) {
      throw OpError("attribute " + std::string(name) + ": expected 32-bit integers, got " + std::to_string(wide));
    }
    return static_cast<std::int32_t>(wide);
  }

  static float real(char const* name, nvinfer1::PluginField const& field, std::size_t i) {
    if (field.type == nvinfer1::PluginFieldType::kFLOAT32) return static_cast<float const*>(field.data)[i];
    if (field.type != nvinfer1::PluginFieldType::kFLOAT64) throw OpError(wrong_type(name, "floats", field));
    return static_cast<float>(static_cast<double const*>(field.data)[i]);
  }

  static std::string wrong_type(char const* name, char const* expected, nvinfer1::PluginField const& field) {
    return "attribute " + std::string(name) + ": expected " + expected + ", got fields of type " +
           std::to_string(static_cast<int>(field.type)) + " (nvinfer1::PluginFieldType)";
  }

  nvinfer1::PluginFieldCollection const& fields_;
};

// Fields that point into the op, or, without values, name what Reader looks for.
class Serializer {
 public:
  enum class Data { kValues, kNamesOnly };

  Serializer(std::vector<nvinfer1::PluginField>& fields, Data data) : fields_(fields), data_(data) {}

  template <typename Attribute>
  void operator()(char const* name, Attribute& value) const {
    auto const type = kIsFloat<Attribute> ? nvinfer1::PluginFieldType::kFLOAT32 : nvinfer1::PluginFieldType::kINT32;
    if (data_ == Data::kValues) {
      fields_.emplace_back(name, begin_of(value), type, static_cast<std::int32_t>(length_of(value)));
    } else {
      fields_.emplace_back(name, nullptr, type, 1);
    }
  }

 private:
  std::vector<nvinfer1::PluginField>& fields_;
  Data data_;
};

// All attributes as text; equal where, and only where, they are equal.
class Printer {
 public:
  Printer() { text_.precision(std::numeric_limits<float>::max_digits10); }

  template <typename Attribute>
  void operator()(char const* name, Attribute& value) {
    text_ << name << '=';
    for (std::size_t i = 0; i < length_of(value); ++i) text_ << (i > 0 ? "," : "") << begin_of(value)[i];
    text_ << ';';
  }

  std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
};

inline void expect(bool holds, char const* attribute, std::string const& expected, double found) {
  if (holds) return;
  std::ostringstream text;
  text.precision(std::numeric_limits<std::int32_t>::digits10 + 1);
  text << "attribute " << attribute << ": expected " << expected << ", got " << found;
  throw OpError(text.str());
}

// The checks of attributes, which an op calls by name.
struct Expect {
  void levels(char const* attribute, std::size_t entries) const {
    expect(entries >= 1 && entries <= kMaxLevels, attribute,
           "1 to " + std::to_string(kMaxLevels) + " entries, one per pyramid level", static_cast<double>(entries));
  }
  void levels(char const* attribute, std::size_t entries, std::size_t strides) const {
    expect(entries == strides, attribute, "as many entries as strides has", static_cast<double>(entries));
  }
  void entries(char const* attribute, std::size_t found, std::size_t least, std::size_t most) const {
    expect(found >= least && found <= most, attribute,
           std::to_string(least) + " to " + std::to_string(most) + " entries", static_cast<double>(found));
  }
  // `unit` may be empty.
  void integer(char const* attribute, std::int64_t value, std::int64_t least, std::int64_t most,
               char const* unit) const {
    std::string const named = *unit == 0 ? "" : std::string(unit) + " from ";
    std::string const open = *unit == 0 ? "at least " + std::to_string(least) : named + std::to_string(least);
    std::string const range = named + std::to_string(least) + " to " + std::to_string(most);
    expect(value >= least && value <= most, attribute, most == INT32_MAX ? open : range, static_cast<double>(value));
  }
  void fraction(char const* attribute, float value) const {
    expect(value >= 0.0F && value <= 1.0F, attribute, "a number from 0 to 1", value);
  }
  void finite(char const* attribute, float value) const {
    expect(std::isfinite(value), attribute, "a finite number", value);
  }
  void above_zero(char const* attribute, float value) const {
    expect(value > 0.0F && std::isfinite(value), attribute, "finite numbers above 0", value);
  }
  void above_zero(char const* attribute, float value, float most) const {
    std::ostringstream expected;
    expected << "a number above 0, at most " << most;
    expect(value > 0.0F && value <= most, attribute, expected.str(), value);
  }
};

}  // namespace panrt::tensorrt
