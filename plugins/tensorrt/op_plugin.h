// The TensorRT plugin around one op, and the creator that TensorRT finds it by.
//
// An `Op` is one of panrt/ops.h, generated from plugins/schema.py: a copyable struct of attributes that knows its
// tensors and fills the arguments of its kernels.
//
// Only version 1.0 interfaces, whose layout is the same from TensorRT 10.3 to 11 and in TensorRT for RTX; nothing of
// libnvinfer is called, so that one library loads into all of them.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "attributes.h"
#include "panrt/ops.h"
#include "report.h"
#include "signature.h"

namespace panrt::tensorrt {

constexpr char const* kNamespace = "panrt";
constexpr std::int32_t kOk = 0;
constexpr std::int32_t kFailed = 1;

// What a call shows: its sizes, as int32, and the types and formats of its inputs.
class CallSizes {
 public:
  CallSizes(Sizes const& sizes, nvinfer1::PluginTensorDesc const* inputs) : sizes_(sizes), inputs_(inputs) {}

  std::int32_t operator()(std::string const& letter) const {
    std::int64_t const size = sizes_.at(letter);
    if (size < 0 || size > std::numeric_limits<std::int32_t>::max()) {
      throw OpError("size " + letter + ": expected 0 to 2^31 - 1, got " + std::to_string(size));
    }
    return static_cast<std::int32_t>(size);
  }
  std::int32_t operator()(std::string const& letter, std::size_t level) const {
    return (*this)(letter + std::to_string(level));
  }
  cuda::DataType type(std::size_t input) const {
    return inputs_[input].type == nvinfer1::DataType::kHALF ? cuda::DataType::kFloat16 : cuda::DataType::kFloat32;
  }
  cuda::Layout layout(std::size_t input) const {
    nvinfer1::TensorFormat const format = inputs_[input].format;
    if (format == nvinfer1::TensorFormat::kHWC8) return cuda::Layout::kNhwc8;
    return format == nvinfer1::TensorFormat::kHWC ? cuda::Layout::kNhwc : cuda::Layout::kNchw;
  }
  // A height and width of at most `factor` times those of a map, which `text` names.
  void expect_within(char const* attribute, std::array<std::int32_t, 2> const& found, std::int64_t factor,
                     std::array<std::int32_t, 2> const& map, char const* text) const {
    if (found[0] <= factor * map[0] && found[1] <= factor * map[1]) return;
    throw OpError("attribute " + std::string(attribute) + ": expected at most " + text + " " + std::to_string(map[0]) +
                  " x " + std::to_string(map[1]) + ", got " + std::to_string(found[0]) + " x " +
                  std::to_string(found[1]));
  }

 private:
  Sizes const& sizes_;
  nvinfer1::PluginTensorDesc const* inputs_;
};

template <typename Op>
class OpPlugin final : public nvinfer1::IPluginV3,
                       public nvinfer1::IPluginV3OneCore,
                       public nvinfer1::IPluginV3OneBuild,
                       public nvinfer1::IPluginV3OneRuntime {
 public:
  // `node` is the ONNX node's name, for messages. Throws OpError.
  OpPlugin(std::string const& node, nvinfer1::PluginFieldCollection const& fields)
      : label_(node.empty() || node == Op::kName ? Op::kName : std::string(Op::kName) + " '" + node + "'") {
    op_.attributes(Reader(fields));
    op_.check_attributes(Expect{});
    op_.tensors(signature_);
    Printer printer;
    op_.attributes(printer);
    text_ = printer.text();
  }

  // --- IPluginV3

  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
      case nvinfer1::PluginCapabilityType::kCORE:
        return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case nvinfer1::PluginCapabilityType::kBUILD:
        return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME:
        return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }

  nvinfer1::IPluginV3* clone() noexcept override {
    return guarded(label_, static_cast<nvinfer1::IPluginV3*>(nullptr), [&] { return new OpPlugin(*this); });
  }

  // --- core

  nvinfer1::AsciiChar const* getPluginName() const noexcept override { return Op::kName; }
  nvinfer1::AsciiChar const* getPluginVersion() const noexcept override { return Op::kVersion; }
  nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }

  // --- build

  std::int32_t getNbOutputs() const noexcept override { return static_cast<std::int32_t>(signature_.outputs.size()); }

  std::int32_t getOutputDataTypes(nvinfer1::DataType* output_types, std::int32_t output_count,
                                  nvinfer1::DataType const* input_types,
                                  std::int32_t input_count) const noexcept override {
    return guarded(label_, kFailed, [&] {
      signature_.output_types(input_types, input_count, output_types, output_count);
      return kOk;
    });
  }

  std::int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, std::int32_t input_count,
                               nvinfer1::DimsExprs const* /*shape_inputs*/, std::int32_t /*shape_input_count*/,
                               nvinfer1::DimsExprs* outputs, std::int32_t output_count,
                               nvinfer1::IExprBuilder& builder) noexcept override {
    return guarded(label_, kFailed, [&] {
      signature_.output_shapes(inputs, input_count, outputs, output_count, builder);
      return kOk;
    });
  }

  bool supportsFormatCombination(std::int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                 std::int32_t input_count, std::int32_t output_count) noexcept override {
    return guarded(label_, false, [&] { return signature_.supports(position, tensors, input_count, output_count); });
  }

  std::int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, std::int32_t input_count,
                               nvinfer1::DynamicPluginTensorDesc const* /*outputs*/,
                               std::int32_t output_count) noexcept override {
    return guarded(label_, kFailed, [&] {
      signature_.check_counts(input_count, output_count);
      Sizes const sizes = signature_.bind(largest_dims(inputs, input_count));
      for (auto const& [letter, size] : sizes) {
        if (size < 0) return kOk;  // not known yet: checked when it is
      }
      cuda::Status const status = Op::check(arguments_of_largest(inputs, input_count));
      if (!status.ok()) throw OpError(status.message);
      return kOk;
    });
  }

  std::size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, std::int32_t input_count,
                               nvinfer1::DynamicPluginTensorDesc const* /*outputs*/,
                               std::int32_t /*output_count*/) const noexcept override {
    return guarded(label_, std::size_t{0},
                   [&] { return Op::workspace_bytes(arguments_of_largest(inputs, input_count)); });
  }

  // One way to run it, so no tactics. TensorRT times it once for equal attributes, shapes and formats.
  std::int32_t getNbTactics() noexcept override { return 0; }
  std::int32_t getValidTactics(std::int32_t* /*tactics*/, std::int32_t /*count*/) noexcept override { return kOk; }
  char const* getTimingCacheID() noexcept override { return text_.c_str(); }
  char const* getMetadataString() noexcept override { return text_.c_str(); }

  // --- runtime

  std::int32_t setTactic(std::int32_t /*tactic*/) noexcept override { return kOk; }

  std::int32_t onShapeChange(nvinfer1::PluginTensorDesc const* inputs, std::int32_t input_count,
                             nvinfer1::PluginTensorDesc const* /*outputs*/,
                             std::int32_t output_count) noexcept override {
    return guarded(label_, kFailed, [&] {
      signature_.check_counts(input_count, output_count);
      if (!prepared_) prepare();
      Sizes const sizes = signature_.bind(dims_of(inputs, input_count));
      arguments_ = op_.arguments(CallSizes(sizes, inputs));
      workspace_bytes_ = Op::workspace_bytes(arguments_);
      return kOk;
    });
  }

  // Nothing is allocated, waited for or read back, so that a CUDA graph can capture it.
  std::int32_t enqueue(nvinfer1::PluginTensorDesc const* /*input_descs*/,
                       nvinfer1::PluginTensorDesc const* /*output_descs*/, void const* const* inputs,
                       void* const* outputs, void* workspace, cudaStream_t stream) noexcept override {
    Op::point(arguments_, inputs, outputs, workspace, workspace_bytes_);
    cuda::Status const status = Op::launch(arguments_, stream);
    if (status.ok()) return kOk;
    report(label_, status.message);
    return kFailed;
  }

  // TensorRT captures runs, also those that it times while it builds: kernels are loaded before. The builder calls this
  // on machines without a GPU too, which have nothing to load.
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* /*context*/) noexcept override {
    return guarded(label_, static_cast<nvinfer1::IPluginV3*>(nullptr), [&] {
      auto attached = std::make_unique<OpPlugin>(*this);
      attached->prepare();
      return attached.release();
    });
  }

  nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override {
    return guarded(label_, static_cast<nvinfer1::PluginFieldCollection const*>(nullptr), [&] {
      fields_.clear();
      op_.attributes(Serializer(fields_, Serializer::Data::kValues));
      collection_ = {static_cast<std::int32_t>(fields_.size()), fields_.data()};
      return &collection_;
    });
  }

 private:
  void prepare() {
    cuda::Status const status = Op::prepare();
    if (!status.ok()) throw OpError(std::string("its kernels cannot be used on this GPU: ") + status.message);
    prepared_ = true;
  }

  static std::vector<nvinfer1::Dims> largest_dims(nvinfer1::DynamicPluginTensorDesc const* inputs, std::int32_t count) {
    std::vector<nvinfer1::Dims> dims;
    for (std::int32_t i = 0; i < count; ++i) dims.push_back(inputs[i].max);
    return dims;
  }

  typename Op::Args arguments_of_largest(nvinfer1::DynamicPluginTensorDesc const* inputs, std::int32_t count) const {
    std::vector<nvinfer1::PluginTensorDesc> descs;
    for (std::int32_t i = 0; i < count; ++i) descs.push_back(inputs[i].desc);
    Sizes const sizes = signature_.bind(largest_dims(inputs, count));
    return op_.arguments(CallSizes(sizes, descs.data()));
  }

  Op op_{};
  Signature signature_;
  std::string label_;
  std::string text_;                           // attributes
  typename Op::Args arguments_{};              // of the shapes that onShapeChange passed
  std::size_t workspace_bytes_ = 0;            // likewise
  bool prepared_ = false;                      // its kernels are loaded
  std::vector<nvinfer1::PluginField> fields_;  // of getFieldsToSerialize
  nvinfer1::PluginFieldCollection collection_{};
};

template <typename Op>
class OpCreator final : public nvinfer1::IPluginCreatorV3One {
 public:
  OpCreator() {
    Op op{};
    op.attributes(Serializer(fields_, Serializer::Data::kNamesOnly));
    collection_ = {static_cast<std::int32_t>(fields_.size()), fields_.data()};
  }

  // `fields` are the ONNX node's attributes or, at run time, what getFieldsToSerialize gave: the same list.
  nvinfer1::IPluginV3* createPlugin(nvinfer1::AsciiChar const* name, nvinfer1::PluginFieldCollection const* fields,
                                    nvinfer1::TensorRTPhase /*phase*/) noexcept override {
    std::string const node = name == nullptr ? "" : name;
    return guarded(node.empty() ? Op::kName : Op::kName + (" '" + node + "'"),
                   static_cast<nvinfer1::IPluginV3*>(nullptr), [&] {
                     if (fields == nullptr) throw OpError("no attributes were given");
                     return new OpPlugin<Op>(node, *fields);
                   });
  }

  nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &collection_; }
  nvinfer1::AsciiChar const* getPluginName() const noexcept override { return Op::kName; }
  nvinfer1::AsciiChar const* getPluginVersion() const noexcept override { return Op::kVersion; }
  nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace panrt::tensorrt
