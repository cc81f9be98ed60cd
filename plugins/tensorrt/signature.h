// What an op's tensors look like: names, types, and shapes as legends such as "N 4A H0 W0".
//
// A legend's words are sizes: a number ("4"), a letter ("N", "H0"), a multiple ("4A"), a sum ("C+1", "K+S") or a
// product ("N*R"). A letter is bound by the first input that has it and must be the same in all later ones. Input
// legends hold at most one letter per word.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace panrt::tensorrt {

enum class Kind {
  kFloat32,
  kInt32,
  kFloating,  // float32 or float16
  kFeatures,  // float32 or float16, linear or channels last; all of an op alike
};

struct Tensor {
  std::string name;
  std::string legend;
  Kind kind;
};

using Sizes = std::map<std::string, std::int64_t>;  // -1: not known yet

struct Signature {
  static constexpr Kind kFloat32 = Kind::kFloat32, kInt32 = Kind::kInt32;
  static constexpr Kind kFloating = Kind::kFloating, kFeatures = Kind::kFeatures;

  std::vector<Tensor> inputs;
  std::vector<Tensor> outputs;
  Sizes constants;  // letters that attributes fix

  void input(char const* name, char const* legend, Kind kind) { inputs.push_back({name, legend, kind}); }
  void output(char const* name, char const* legend, Kind kind) { outputs.push_back({name, legend, kind}); }
  void constant(char const* letter, std::int64_t size) { constants[letter] = size; }
  // One for each level, `name_0` and so on; H and W of its legend are H0 and W0 there.
  void inputs_per_level(std::size_t levels, char const* name, char const* legend, Kind kind);

  // Checks these dimensions, of which -1 is unknown, and gives every letter a size. Throws OpError.
  Sizes bind(std::vector<nvinfer1::Dims> const& inputs) const;

  // Output shapes as expressions of input shapes; what is constant is checked. Throws OpError.
  void output_shapes(nvinfer1::DimsExprs const* inputs, std::int32_t input_count, nvinfer1::DimsExprs* outputs,
                     std::int32_t output_count, nvinfer1::IExprBuilder& builder) const;

  // Throws OpError if an input's type is not of its kind.
  void output_types(nvinfer1::DataType const* inputs, std::int32_t input_count, nvinfer1::DataType* outputs,
                    std::int32_t output_count) const;

  // Whether tensor `position` (inputs, then outputs) may have its type and format, given those before it.
  bool supports(std::int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors, std::int32_t input_count,
                std::int32_t output_count) const;

  // Throws OpError.
  void check_counts(std::int32_t input_count, std::int32_t output_count) const;
};

std::vector<nvinfer1::Dims> dims_of(nvinfer1::PluginTensorDesc const* tensors, std::int32_t count);

}  // namespace panrt::tensorrt
