// Stands in for TensorRT around libpanrt_plugins.so: loads it by its entry points alone and asks its plugins what the
// builder and the runtime ask. No TensorRT library, and no GPU.
//
//   driver LIBRARY TEST      runs one test; prints what does not hold and ends with 1
//   driver LIBRARY --list    names them
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

using namespace nvinfer1;

namespace {

int failures = 0;

void fail(int line, std::string const& text) {
  std::cout << "line " << line << ": " << text << "\n";
  ++failures;
}

std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(std::string const& value) { return value; }
std::string text_of(char const* value) { return value == nullptr ? "(null)" : value; }
template <typename Number>
std::string text_of(Number value) {
  return std::to_string(value);
}

template <typename Found, typename Expected>
void expect_equal(int line, char const* what, Found const& found, Expected const& expected) {
  if (text_of(found) != text_of(expected)) {
    fail(line, std::string(what) + ": expected " + text_of(expected) + ", got " + text_of(found));
  }
}
#define EXPECT_EQ(found, expected) expect_equal(__LINE__, #found, found, expected)
#define EXPECT(condition) expect_equal(__LINE__, #condition, static_cast<bool>(condition), true)

// --- TensorRT's side
// ---------------------------------------------------------------------------------------------------

struct Logger final : ILogger {
  void log(Severity severity, AsciiChar const* message) noexcept override {
    text += (severity == Severity::kERROR ? "" : "(not an error) ") + std::string(message) + "\n";
  }
  std::string text;
};

struct LoggerFinder final : ILoggerFinder {
  ILogger* findLogger() override { return &logger; }
  Logger logger;
};

struct Expression final : IDimensionExpr, apiv::VDimensionExpr {
  Expression(std::int64_t size, bool constant) : size_(size), constant_(constant) { mImpl = this; }
  bool isConstant() const override { return constant_; }
  std::int64_t getConstantValue() const override { return constant_ ? size_ : std::int64_t{-999}; }
  bool isSizeTensor() const override { return false; }
  std::int64_t size_;  // what an unknown size turns out to be
  bool constant_;
};

struct Builder final : IExprBuilder, apiv::VExprBuilder {
  Builder() { mImpl = this; }
  IDimensionExpr const* make(std::int64_t size, bool constant) { return &made.emplace_back(size, constant); }
  IDimensionExpr const* constant(std::int64_t size) override { return make(size, true); }
  IDimensionExpr const* operation(DimensionOperation operation, IDimensionExpr const& first,
                                  IDimensionExpr const& second) override {
    auto const& a = static_cast<Expression const&>(first);
    auto const& b = static_cast<Expression const&>(second);
    bool const known = a.constant_ && b.constant_;
    if (operation == DimensionOperation::kSUM) return make(a.size_ + b.size_, known);
    if (operation == DimensionOperation::kPROD) return make(a.size_ * b.size_, known);
    fail(__LINE__, "an operation that no op should need");
    return make(0, true);
  }
  IDimensionExpr const* declareSizeTensor(std::int32_t, IDimensionExpr const&, IDimensionExpr const&) override {
    fail(__LINE__, "a size tensor, though all shapes are fixed");
    return nullptr;
  }
  std::deque<Expression> made;
};

// --- attributes
// ---------------------------------------------------------------------------------------------------------

class Fields {
 public:
  Fields& ints(char const* name, std::vector<std::int32_t> values) {
    return set(name, PluginFieldType::kINT32, values);
  }
  Fields& wide_ints(char const* name, std::vector<std::int64_t> values) {
    return set(name, PluginFieldType::kINT64, values);
  }
  Fields& floats(char const* name, std::vector<float> values) { return set(name, PluginFieldType::kFLOAT32, values); }
  Fields& without(std::string const& name) {
    entries_.erase(name);
    return *this;
  }
  PluginFieldCollection collection() {
    list_.clear();
    for (auto& [name, entry] : entries_) list_.emplace_back(name.c_str(), entry.bytes.data(), entry.type, entry.length);
    return {static_cast<std::int32_t>(list_.size()), list_.data()};
  }

 private:
  struct Entry {
    PluginFieldType type;
    std::int32_t length;
    std::vector<char> bytes;
  };
  template <typename Number>
  Fields& set(char const* name, PluginFieldType type, std::vector<Number> const& values) {
    std::vector<char> bytes(values.size() * sizeof(Number) + 1);
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), values.size() * sizeof(Number));
    entries_[name] = {type, static_cast<std::int32_t>(values.size()), std::move(bytes)};
    return *this;
  }
  std::map<std::string, Entry> entries_;
  std::vector<PluginField> list_;
};

Fields rpn_fields() {
  Fields fields;
  return fields.ints("strides", {4, 8})
      .floats("anchor_sizes", {32, 64})
      .floats("aspect_ratios", {0.5F, 1, 2})
      .ints("pre_nms_top_k", {100})
      .ints("post_nms_top_k", {50})
      .floats("nms_threshold", {0.7F})
      .ints("input_hw", {128, 96});
}
Fields roi_fields() {
  Fields fields;
  return fields.ints("strides", {4, 8})
      .ints("output_size", {7})
      .ints("sampling_ratio", {0})
      .floats("canonical_size", {224})
      .ints("canonical_level", {4})
      .ints("min_level", {2});
}
Fields box_fields() {
  Fields fields;
  return fields.floats("box_weights", {10, 10, 5, 5})
      .floats("score_threshold", {0.05F})
      .floats("nms_threshold", {0.5F})
      .ints("max_detections", {20})
      .ints("input_hw", {128, 96});
}
Fields merge_fields() {
  Fields fields;
  return fields.ints("input_hw", {120, 96})
      .ints("output_hw", {240, 192})
      .floats("score_threshold", {0.5F})
      .floats("overlap_threshold", {0.5F})
      .ints("stuff_area_limit", {64})
      .floats("mask_threshold", {0.5F});
}

using Shape = std::vector<std::int64_t>;
using Shapes = std::vector<Shape>;

Shapes const kRpnInputs = {{2, 3, 32, 24}, {2, 3, 16, 12}, {2, 12, 32, 24}, {2, 12, 16, 12}};
Shapes const kRoiInputs = {{2, 16, 32, 24}, {2, 16, 16, 12}, {2, 50, 4}};
Shapes const kBoxInputs = {{2, 50, 6}, {2, 50, 20}, {2, 50, 4}, {2}};
Shapes const kMergeInputs = {{2, 8, 32, 24}, {2, 20, 4}, {2, 20}, {2, 20}, {2}, {2, 20, 28, 28}};

constexpr DataType F = DataType::kFLOAT, I = DataType::kINT32, H = DataType::kHALF;
std::vector<DataType> const kRpnTypes = {F, F, F, F}, kRoiTypes = {F, F, F}, kBoxTypes = {F, F, F, I},
                            kMergeTypes = {F, F, F, I, I, F};

Dims dims(Shape const& shape) {
  Dims result{};
  result.nbDims = static_cast<std::int32_t>(shape.size());
  for (std::size_t i = 0; i < shape.size(); ++i) result.d[i] = shape[i];
  return result;
}

std::vector<DynamicPluginTensorDesc> descs(Shapes const& shapes, std::vector<DataType> const& types,
                                           TensorFormat features = TensorFormat::kLINEAR) {
  std::vector<DynamicPluginTensorDesc> result;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    DynamicPluginTensorDesc desc{};
    desc.desc.dims = desc.min = desc.opt = desc.max = dims(shapes[i]);
    desc.desc.type = types[i];
    desc.desc.format = shapes[i].size() == 4 ? features : TensorFormat::kLINEAR;
    result.push_back(desc);
  }
  return result;
}

// --- a plugin, as TensorRT holds it
// -------------------------------------------------------------------------------------

struct Library {
  explicit Library(char const* path) {
    void* const handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      std::cout << dlerror() << "\n";
      std::exit(2);
    }
    auto const get = reinterpret_cast<IPluginCreatorInterface* const* (*)(std::int32_t&)>(dlsym(handle, "getCreators"));
    auto const set = reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(handle, "setLoggerFinder"));
    info = reinterpret_cast<char const* (*)()>(dlsym(handle, "panrt_plugins_info"))();
    set(&finder);
    std::int32_t count = 0;
    IPluginCreatorInterface* const* const list = get(count);
    for (std::int32_t i = 0; i < count; ++i) creators.push_back(static_cast<IPluginCreatorV3One*>(list[i]));
  }

  IPluginCreatorV3One* creator(std::string const& name) const {
    for (IPluginCreatorV3One* const creator : creators) {
      if (creator->getPluginName() == name) return creator;
    }
    return nullptr;
  }

  std::string said() {
    std::string const text = finder.logger.text;
    finder.logger.text.clear();
    return text;
  }

  bool has_kernels() const { return info.find("\"cuda_architectures\": \"\"") == std::string::npos; }

  std::vector<IPluginCreatorV3One*> creators;
  LoggerFinder finder;
  std::string info;
};

struct Plugin {
  explicit Plugin(IPluginV3* made) : owner(made) {
    if (made == nullptr) return;
    core = static_cast<IPluginV3OneCore*>(made->getCapabilityInterface(PluginCapabilityType::kCORE));
    build = static_cast<IPluginV3OneBuild*>(made->getCapabilityInterface(PluginCapabilityType::kBUILD));
    runtime = static_cast<IPluginV3OneRuntime*>(made->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  }
  Plugin(Library const& library, char const* name, Fields fields, TensorRTPhase phase = TensorRTPhase::kBUILD)
      : Plugin(make(library, name, fields, phase)) {}

  static IPluginV3* make(Library const& library, char const* name, Fields& fields, TensorRTPhase phase) {
    PluginFieldCollection const collection = fields.collection();
    return library.creator(name)->createPlugin("node_7", &collection, phase);
  }

  explicit operator bool() const { return owner != nullptr; }

  // "(2, 50, 4) (2)", a size that is not constant in [].
  std::string output_shapes(Shapes const& inputs, bool known = true) const {
    Builder builder;
    std::vector<DimsExprs> in(inputs.size()), out(static_cast<std::size_t>(build->getNbOutputs()));
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      in[i].nbDims = static_cast<std::int32_t>(inputs[i].size());
      for (std::size_t axis = 0; axis < inputs[i].size(); ++axis) {
        bool const fixed = known || (inputs[i].size() != 4 ? axis > 0 : axis == 1);  // N, height, width are not
        in[i].d[axis] = builder.make(inputs[i][axis], fixed);
      }
    }
    if (build->getOutputShapes(in.data(), static_cast<std::int32_t>(in.size()), nullptr, 0, out.data(),
                               static_cast<std::int32_t>(out.size()), builder) != 0) {
      return "refused";
    }
    std::string text;
    for (DimsExprs const& shape : out) {
      text += text.empty() ? "(" : " (";
      for (std::int32_t axis = 0; axis < shape.nbDims; ++axis) {
        auto const& size = static_cast<Expression const&>(*shape.d[axis]);
        std::string const number = std::to_string(size.size_);
        text += (axis > 0 ? ", " : "") + (size.constant_ ? number : "[" + number + "]");
      }
      text += ")";
    }
    return text;
  }

  // "f32 i32", or "refused".
  std::string output_types(std::vector<DataType> const& inputs) const {
    std::vector<DataType> out(static_cast<std::size_t>(build->getNbOutputs()));
    if (build->getOutputDataTypes(out.data(), static_cast<std::int32_t>(out.size()), inputs.data(),
                                  static_cast<std::int32_t>(inputs.size())) != 0) {
      return "refused";
    }
    std::string text;
    for (DataType const type : out) {
      text += (text.empty() ? "" : " ") + std::string(type == F ? "f32" : type == I ? "i32" : type == H ? "f16" : "?");
    }
    return text;
  }

  std::int32_t configure(std::vector<DynamicPluginTensorDesc> const& inputs) const {
    return build->configurePlugin(inputs.data(), static_cast<std::int32_t>(inputs.size()), nullptr,
                                  build->getNbOutputs());
  }
  std::size_t workspace(std::vector<DynamicPluginTensorDesc> const& inputs) const {
    return build->getWorkspaceSize(inputs.data(), static_cast<std::int32_t>(inputs.size()), nullptr,
                                   build->getNbOutputs());
  }
  std::int32_t change_shape(std::vector<DynamicPluginTensorDesc> const& inputs) const {
    std::vector<PluginTensorDesc> now;
    for (DynamicPluginTensorDesc const& input : inputs) now.push_back(input.desc);
    return runtime->onShapeChange(now.data(), static_cast<std::int32_t>(now.size()), nullptr, build->getNbOutputs());
  }
  // With null pointers for all tensors.
  std::int32_t enqueue() const {
    void const* inputs[16] = {};
    void* outputs[16] = {};
    return runtime->enqueue(nullptr, nullptr, inputs, outputs, nullptr, nullptr);
  }
  // "strides=4,8 output_size=7 ..."
  std::string serialised() const {
    PluginFieldCollection const* const fields = runtime->getFieldsToSerialize();
    std::ostringstream text;
    for (std::int32_t i = 0; i < fields->nbFields; ++i) {
      PluginField const& field = fields->fields[i];
      text << (i > 0 ? " " : "") << field.name << "=";
      for (std::int32_t k = 0; k < field.length; ++k) {
        text << (k > 0 ? "," : "");
        if (field.type == PluginFieldType::kINT32) text << static_cast<std::int32_t const*>(field.data)[k];
        if (field.type == PluginFieldType::kFLOAT32) text << static_cast<float const*>(field.data)[k];
      }
    }
    return text.str();
  }

  std::unique_ptr<IPluginV3> owner;
  IPluginV3OneCore* core = nullptr;
  IPluginV3OneBuild* build = nullptr;
  IPluginV3OneRuntime* runtime = nullptr;
};

// Every entry point is noexcept, so that a refusal is a return value and one line in the log.
void expect_said(int line, Library& library, std::string const& expected) {
  std::string const said = library.said();
  if (said.find(expected) == std::string::npos) fail(line, "expected the log to say: " + expected + "\n  got: " + said);
}
#define EXPECT_SAID(text) expect_said(__LINE__, library, text)

// --- tests
// --------------------------------------------------------------------------------------------------------------

void the_library_offers_a_creator_of_each_op(Library& library) {
  for (char const* const name : {"RpnProposals", "PyramidRoiAlign", "BoxDetections", "PanopticMerge"}) {
    IPluginCreatorV3One* const creator = library.creator(name);
    EXPECT(creator != nullptr);
    if (creator == nullptr) continue;
    EXPECT_EQ(creator->getPluginNamespace(), "panrt");
    EXPECT_EQ(creator->getPluginVersion(), "1");
    EXPECT_EQ(creator->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE");
    EXPECT_EQ(creator->getInterfaceInfo().major, 1);
  }
}

void creators_name_every_attribute_and_nothing_else(Library& library) {
  auto const names = [&](char const* op) {
    PluginFieldCollection const* const fields = library.creator(op)->getFieldNames();
    std::string text;
    for (std::int32_t i = 0; i < fields->nbFields; ++i) {
      bool const is_float = fields->fields[i].type == PluginFieldType::kFLOAT32;
      text += std::string(i > 0 ? " " : "") + fields->fields[i].name + (is_float ? ":f" : ":i");
    }
    return text;
  };
  EXPECT_EQ(names("RpnProposals"),
            "strides:i anchor_sizes:f aspect_ratios:f pre_nms_top_k:i post_nms_top_k:i nms_threshold:f input_hw:i");
  EXPECT_EQ(names("PyramidRoiAlign"),
            "strides:i output_size:i sampling_ratio:i canonical_size:f canonical_level:i min_level:i");
  EXPECT_EQ(names("BoxDetections"), "box_weights:f score_threshold:f nms_threshold:f max_detections:i input_hw:i");
  EXPECT_EQ(names("PanopticMerge"),
            "input_hw:i output_hw:i score_threshold:f overlap_threshold:f stuff_area_limit:i mask_threshold:f");
}

void plugins_are_named_as_their_creators(Library& library) {
  Plugin const plugin(library, "BoxDetections", box_fields());
  EXPECT_EQ(plugin.core->getPluginName(), "BoxDetections");
  EXPECT_EQ(plugin.core->getPluginVersion(), "1");
  EXPECT_EQ(plugin.core->getPluginNamespace(), "panrt");
  EXPECT_EQ(plugin.core->getInterfaceInfo().major, 1);
  EXPECT_EQ(plugin.build->getInterfaceInfo().major, 1);
  EXPECT_EQ(plugin.runtime->getInterfaceInfo().major, 1);
  EXPECT_EQ(plugin.build->getNbTactics(), 0);
}

void output_shapes_are_the_contracts(Library& library) {
  EXPECT_EQ(Plugin(library, "RpnProposals", rpn_fields()).output_shapes(kRpnInputs), "(2, 50, 4) (2)");
  EXPECT_EQ(Plugin(library, "PyramidRoiAlign", roi_fields()).output_shapes(kRoiInputs), "(100, 16, 7, 7)");
  EXPECT_EQ(Plugin(library, "BoxDetections", box_fields()).output_shapes(kBoxInputs), "(2, 20, 4) (2, 20) (2, 20) (2)");
  EXPECT_EQ(Plugin(library, "PanopticMerge", merge_fields()).output_shapes(kMergeInputs),
            "(2, 240, 192) (2, 28, 8) (2, 28) (2)");
  EXPECT_EQ(library.said(), "");
}

void output_shapes_follow_sizes_that_are_not_known_yet(Library& library) {
  EXPECT_EQ(Plugin(library, "RpnProposals", rpn_fields()).output_shapes(kRpnInputs, false), "([2], 50, 4) ([2])");
  EXPECT_EQ(Plugin(library, "PyramidRoiAlign", roi_fields()).output_shapes(kRoiInputs, false), "([100], 16, 7, 7)");
  EXPECT_EQ(Plugin(library, "PanopticMerge", merge_fields()).output_shapes(kMergeInputs, false),
            "([2], 240, 192) ([2], 28, 8) ([2], 28) ([2])");
}

void output_types_are_the_contracts(Library& library) {
  EXPECT_EQ(Plugin(library, "RpnProposals", rpn_fields()).output_types(kRpnTypes), "f32 i32");
  EXPECT_EQ(Plugin(library, "PyramidRoiAlign", roi_fields()).output_types({F, F, F}), "f32");
  EXPECT_EQ(Plugin(library, "PyramidRoiAlign", roi_fields()).output_types({H, H, F}), "f16");
  EXPECT_EQ(Plugin(library, "BoxDetections", box_fields()).output_types(kBoxTypes), "f32 f32 i32 i32");
  EXPECT_EQ(Plugin(library, "PanopticMerge", merge_fields()).output_types({H, F, F, I, I, H}), "i32 i32 f32 i32");
}

// All formats and types for every tensor of an op, given that those before it have their first choice.
std::string offered(Plugin const& plugin, std::vector<DynamicPluginTensorDesc> tensors, std::int32_t inputs,
                    std::int32_t position) {
  std::string text;
  for (std::int32_t type = 0; type <= static_cast<std::int32_t>(DataType::kINT64); ++type) {
    for (std::int32_t format = 0; format <= 12; ++format) {
      PluginTensorDesc& desc = tensors[static_cast<std::size_t>(position)].desc;
      desc.type = static_cast<DataType>(type);
      desc.format = static_cast<TensorFormat>(format);
      auto const outputs = static_cast<std::int32_t>(tensors.size()) - inputs;
      if (plugin.build->supportsFormatCombination(position, tensors.data(), inputs, outputs)) {
        text += (text.empty() ? "" : " ") +
                std::string(desc.type == F   ? "f32"
                            : desc.type == H ? "f16"
                                             : "i32") +
                ":" + std::to_string(format);
      }
    }
  }
  return text;
}

void formats_are_linear_but_for_features(Library& library) {
  Plugin const rpn(library, "RpnProposals", rpn_fields());
  Shapes shapes = kRpnInputs;
  shapes.insert(shapes.end(), {{2, 50, 4}, {2}});
  for (std::int32_t i = 0; i < 5; ++i) EXPECT_EQ(offered(rpn, descs(shapes, {F, F, F, F, F, I}), 4, i), "f32:0");
  EXPECT_EQ(offered(rpn, descs(shapes, {F, F, F, F, F, I}), 4, 5), "i32:0");

  Plugin const merge(library, "PanopticMerge", merge_fields());
  shapes = kMergeInputs;
  shapes.insert(shapes.end(), {{2, 240, 192}, {2, 28, 8}, {2, 28}, {2}});
  std::vector<DataType> const types = {F, F, F, I, I, H, I, I, F, I};
  std::vector<char const*> const expected = {"f32:0 f16:0", "f32:0", "f32:0", "i32:0", "i32:0",
                                             "f32:0 f16:0", "i32:0", "i32:0", "f32:0", "i32:0"};
  for (std::int32_t i = 0; i < 10; ++i) {
    EXPECT_EQ(offered(merge, descs(shapes, types), 6, i), expected[static_cast<std::size_t>(i)]);
  }
}

void features_are_linear_or_channels_last_and_all_alike(Library& library) {
  Plugin const roi(library, "PyramidRoiAlign", roi_fields());
  Shapes shapes = kRoiInputs;
  shapes.push_back({100, 16, 7, 7});
  auto const kHwc = static_cast<std::int32_t>(TensorFormat::kHWC),
             kHwc8 = static_cast<std::int32_t>(TensorFormat::kHWC8);
  EXPECT_EQ(offered(roi, descs(shapes, {F, F, F, F}), 3, 0),
            "f32:0 f32:" + std::to_string(kHwc) + " f16:0 f16:" + std::to_string(kHwc8));
  auto const as_first = [&](DataType type, TensorFormat format, std::string const& expected) {
    for (std::int32_t const position : {1, 3}) {
      EXPECT_EQ(offered(roi, descs(shapes, {type, type, F, type}, format), 3, position), expected);
    }
    EXPECT_EQ(offered(roi, descs(shapes, {type, type, F, type}, format), 3, 2), "f32:0");
  };
  as_first(F, TensorFormat::kLINEAR, "f32:0");
  as_first(F, TensorFormat::kHWC, "f32:" + std::to_string(kHwc));
  as_first(H, TensorFormat::kLINEAR, "f16:0");
  as_first(H, TensorFormat::kHWC8, "f16:" + std::to_string(kHwc8));
}

void what_is_serialised_makes_the_same_plugin(Library& library) {
  std::map<char const*, Fields> const all = {{"RpnProposals", rpn_fields()},
                                             {"PyramidRoiAlign", roi_fields()},
                                             {"BoxDetections", box_fields()},
                                             {"PanopticMerge", merge_fields()}};
  for (auto const& [name, fields] : all) {
    Plugin const first(library, name, fields);
    PluginFieldCollection const* const kept = first.runtime->getFieldsToSerialize();
    Plugin const second(library.creator(name)->createPlugin("node_7", kept, TensorRTPhase::kRUNTIME));
    EXPECT(static_cast<bool>(second));
    if (!second) continue;
    EXPECT_EQ(second.serialised(), first.serialised());
    EXPECT_EQ(second.build->getTimingCacheID(), first.build->getTimingCacheID());
  }
  EXPECT_EQ(Plugin(library, "PyramidRoiAlign", roi_fields()).serialised(),
            "strides=4,8 output_size=7 sampling_ratio=0 canonical_size=224 canonical_level=4 min_level=2");
  EXPECT_EQ(library.said(), "");
}

void the_timing_cache_tells_attributes_apart(Library& library) {
  std::string const id = Plugin(library, "BoxDetections", box_fields()).build->getTimingCacheID();
  EXPECT(!id.empty());
  EXPECT_EQ(std::string(Plugin(library, "BoxDetections", box_fields()).build->getTimingCacheID()), id);
  std::string const other = Plugin(library, "BoxDetections", box_fields().floats("score_threshold", {0.050000004F}))
                                .build->getTimingCacheID();
  EXPECT(other != id);
}

void a_clone_lives_on_its_own(Library& library) {
  auto first = std::make_unique<Plugin>(library, "PyramidRoiAlign", roi_fields());
  EXPECT_EQ(first->change_shape(descs(kRoiInputs, kRoiTypes)), 0);
  std::string const serialised = first->serialised();
  Plugin const second(first->owner->clone());
  Plugin const attached(first->runtime->attachToContext(nullptr));
  first.reset();
  for (Plugin const* const copy : {&second, &attached}) {
    EXPECT(static_cast<bool>(*copy));
    EXPECT_EQ(copy->serialised(), serialised);
    EXPECT_EQ(copy->output_shapes(kRoiInputs), "(100, 16, 7, 7)");
  }
}

void wide_integers_are_taken_where_they_fit(Library& library) {
  Plugin const plugin(library, "RpnProposals",
                      rpn_fields().wide_ints("strides", {4, 8}).wide_ints("input_hw", {64, 32}));
  EXPECT(static_cast<bool>(plugin));
  EXPECT(!Plugin(library, "RpnProposals", rpn_fields().wide_ints("post_nms_top_k", {std::int64_t{1} << 32})));
  EXPECT_SAID("PanRT RpnProposals 'node_7': attribute post_nms_top_k: expected 32-bit integers, got 4294967296");
}

void attributes_that_do_not_do_are_refused_by_name(Library& library) {
  struct Case {
    char const* op;
    Fields fields;
    char const* said;
  };
  std::vector<Case> const cases = {
      {"RpnProposals", rpn_fields().without("nms_threshold"), "attribute nms_threshold is missing"},
      {"RpnProposals", rpn_fields().ints("nms_threshold", {1}), "attribute nms_threshold: expected floats, got fields"},
      {"RpnProposals", rpn_fields().floats("strides", {4, 8}), "attribute strides: expected integers"},
      {"RpnProposals", rpn_fields().floats("nms_threshold", {1.5F}),
       "nms_threshold: expected a number from 0 to 1, got 1.5"},
      {"RpnProposals", rpn_fields().floats("nms_threshold", {NAN}),
       "nms_threshold: expected a number from 0 to 1, got nan"},
      {"RpnProposals", rpn_fields().floats("anchor_sizes", {32}), "anchor_sizes: expected as many entries as strides"},
      {"RpnProposals", rpn_fields().ints("strides", {}),
       "strides: expected 1 to 8 entries, one per pyramid level, got 0"},
      {"RpnProposals", rpn_fields().ints("strides", std::vector<std::int32_t>(9, 4)), "1 to 8 entries"},
      {"RpnProposals", rpn_fields().floats("aspect_ratios", {}), "aspect_ratios: expected 1 to 16 entries, got 0"},
      {"RpnProposals", rpn_fields().ints("post_nms_top_k", {0}), "post_nms_top_k: expected 1 to 1048576, got 0"},
      {"RpnProposals", rpn_fields().ints("input_hw", {128}), "attribute input_hw: expected 2 numbers, got 1"},
      {"PyramidRoiAlign", roi_fields().ints("output_size", {0}), "output_size: expected 1 to 1024, got 0"},
      {"PyramidRoiAlign", roi_fields().ints("strides", {4, 0}), "strides: expected pixels from 1 to 32768, got 0"},
      {"BoxDetections", box_fields().floats("box_weights", {10, 10, 5}),
       "attribute box_weights: expected 4 numbers, got 3"},
      {"BoxDetections", box_fields().floats("box_weights", {10, 10, 5, 0}),
       "box_weights: expected finite numbers above 0, got 0"},
      {"BoxDetections", box_fields().floats("score_threshold", {NAN}), "score_threshold: expected a finite number"},
      {"BoxDetections", box_fields().ints("max_detections", {1 << 30}), "max_detections: expected 1 to 1048576, got"},
      {"PyramidRoiAlign", roi_fields().ints("sampling_ratio", {1 << 30}),
       "sampling_ratio: expected 0 to 1024, got 1073741824"},
      {"PyramidRoiAlign", roi_fields().ints("output_size", {1025}), "output_size: expected 1 to 1024, got 1025"},
      {"PyramidRoiAlign", roi_fields().floats("canonical_size", {INFINITY}), "canonical_size: expected finite numbers"},
      {"RpnProposals", rpn_fields().floats("anchor_sizes", {32, INFINITY}), "anchor_sizes: expected finite numbers"},
      {"PanopticMerge", merge_fields().floats("score_threshold", {INFINITY}),
       "score_threshold: expected a finite number"},
      {"BoxDetections", box_fields().ints("input_hw", {40000, 96}),
       "input_hw: expected sides from 1 to 32768, got 40000"},
      {"PanopticMerge", merge_fields().floats("mask_threshold", {0}), "mask_threshold: expected a number above 0"},
      {"PanopticMerge", merge_fields().ints("stuff_area_limit", {-1}),
       "stuff_area_limit: expected output pixels from 0"},
  };
  for (Case const& each : cases) {
    EXPECT(!Plugin(library, each.op, each.fields));
    expect_said(__LINE__, library, "PanRT " + std::string(each.op) + " 'node_7': ");
    EXPECT(!Plugin(library, each.op, each.fields));
    EXPECT_SAID(each.said);
  }
  EXPECT(library.creator("BoxDetections")->createPlugin(nullptr, nullptr, TensorRTPhase::kBUILD) == nullptr);
  EXPECT_SAID("PanRT BoxDetections: no attributes were given");
}

void shapes_that_do_not_do_are_refused_by_name(Library& library) {
  Plugin const rpn(library, "RpnProposals", rpn_fields());
  Plugin const roi(library, "PyramidRoiAlign", roi_fields());
  Plugin const boxes(library, "BoxDetections", box_fields());
  Plugin const merge(library, "PanopticMerge", merge_fields());
  auto const refused = [&](Plugin const& plugin, Shapes shapes, std::size_t input, Shape shape, char const* said) {
    shapes[input] = std::move(shape);
    EXPECT_EQ(plugin.output_shapes(shapes), "refused");
    EXPECT_SAID(said);
  };
  refused(rpn, kRpnInputs, 0, {2, 5, 32, 24},
          "PanRT RpnProposals 'node_7': input logits_0: expected shape (N, A, H0, W0) with N = 2, A = 3, got (2, 5, "
          "32, 24)");
  refused(rpn, kRpnInputs, 3, {2, 12, 16, 13}, "input deltas_1: expected shape (N, 4A, H1, W1)");
  refused(rpn, kRpnInputs, 2, {2, 13, 32, 24}, "input deltas_0: expected shape (N, 4A, H0, W0)");
  refused(roi, kRoiInputs, 1, {2, 24, 16, 12}, "input features_1: expected shape (N, C, H1, W1) with N = 2, C = 16");
  refused(roi, kRoiInputs, 2, {2, 50, 5}, "input rois: expected shape (N, R, 4) with N = 2, R = 50, got (2, 50, 5)");
  refused(roi, kRoiInputs, 2, {100, 5}, "input rois: expected shape (N, R, 4) with N = 2, got (100, 5)");
  refused(boxes, kBoxInputs, 1, {2, 50, 24}, "input box_deltas: expected shape (N, R, 4C) with N = 2, R = 50, C = 5");
  refused(merge, kMergeInputs, 5, {2, 21, 28, 28},
          "input mask_probs: expected shape (N, K, Gh, Gw) with N = 2, K = 20");
  EXPECT_EQ(roi.output_shapes({{2, 16, 32, 24}, {2, 50, 4}}), "refused");
  EXPECT_SAID("expected 3 inputs (features_0, features_1, rois), got 2");

  Shapes small = kMergeInputs;
  small[0] = {2, 8, 29, 24};  // 116 rows of input, 120 are valid
  EXPECT(merge.configure(descs(small, kMergeTypes)) != 0);
  EXPECT_SAID("attribute input_hw: expected at most four times the semantic logits' 29 x 24, got 120 x 96");
  EXPECT(merge.change_shape(descs(small, kMergeTypes)) != 0);
  EXPECT_SAID("attribute input_hw");
}

void types_that_do_not_do_are_refused_by_name(Library& library) {
  EXPECT_EQ(Plugin(library, "RpnProposals", rpn_fields()).output_types({F, H, F, F}), "refused");
  EXPECT_SAID("PanRT RpnProposals 'node_7': input logits_1: expected float32, got float16");
  EXPECT_EQ(Plugin(library, "PyramidRoiAlign", roi_fields()).output_types({H, F, F}), "refused");
  EXPECT_SAID("input features_1: expected float16 like features_0, got float32");
  EXPECT_EQ(Plugin(library, "PyramidRoiAlign", roi_fields()).output_types({DataType::kINT8, DataType::kINT8, F}),
            "refused");
  EXPECT_SAID("input features_0: expected float32 or float16, got int8");
  EXPECT_EQ(Plugin(library, "PyramidRoiAlign", roi_fields()).output_types({H, H, H}), "refused");
  EXPECT_SAID("input rois: expected float32, got float16");
  EXPECT_EQ(Plugin(library, "BoxDetections", box_fields()).output_types({F, F, F, DataType::kINT64}), "refused");
  EXPECT_SAID("input roi_count: expected int32, got int64");
}

void sizes_that_are_not_known_yet_are_configured_later(Library& library) {
  Plugin const plugin(library, "PanopticMerge", merge_fields());
  std::vector<DynamicPluginTensorDesc> unknown = descs(kMergeInputs, kMergeTypes);
  for (DynamicPluginTensorDesc& desc : unknown) desc.desc.dims.d[0] = desc.min.d[0] = desc.max.d[0] = -1;
  EXPECT_EQ(plugin.configure(unknown), 0);
  EXPECT_EQ(library.said(), "");
}

void workspace_is_that_of_the_largest_shapes(Library& library) {
  struct Case {
    char const* op;
    Fields fields;
    Shapes shapes;
    std::vector<DataType> types;
    bool has_workspace;
  };
  std::vector<Case> const cases = {{"RpnProposals", rpn_fields(), kRpnInputs, kRpnTypes, true},
                                   {"PyramidRoiAlign", roi_fields(), kRoiInputs, kRoiTypes, false},
                                   {"BoxDetections", box_fields(), kBoxInputs, kBoxTypes, true},
                                   {"PanopticMerge", merge_fields(), kMergeInputs, kMergeTypes, true}};
  for (Case const& each : cases) {
    Plugin const plugin(library, each.op, each.fields);
    std::vector<DynamicPluginTensorDesc> tensors = descs(each.shapes, each.types);
    EXPECT_EQ(plugin.configure(tensors), 0);
    std::size_t const largest = plugin.workspace(tensors);
    EXPECT_EQ(largest > 0, each.has_workspace && library.has_kernels());
    for (DynamicPluginTensorDesc& desc : tensors) desc.desc.dims.d[0] = 1;  // the current shape is smaller
    EXPECT_EQ(plugin.workspace(tensors), largest);
  }
  if (!library.has_kernels()) return;
  Plugin const plugin(library, "RpnProposals", rpn_fields().ints("pre_nms_top_k", {20000}));
  Shapes const large = {{2, 3, 320, 240}, {2, 3, 160, 120}, {2, 12, 320, 240}, {2, 12, 160, 120}};
  EXPECT(plugin.configure(descs(large, kRpnTypes)) != 0);
  EXPECT_SAID("candidates per level, got ");
}

// Nothing here has a GPU: with kernels CUDA refuses the launch, without them the library does.
void running_fails_with_a_reason_where_it_cannot_run(Library& library) {
  Plugin const plugin(library, "PanopticMerge", merge_fields());
  EXPECT_EQ(plugin.change_shape(descs(kMergeInputs, kMergeTypes)), 0);
  EXPECT(plugin.enqueue() != 0);
  std::string const said = library.said();
  EXPECT(said.find("PanRT PanopticMerge 'node_7': ") == 0);
  if (!library.has_kernels()) EXPECT(said.find("this plugin library was built without CUDA kernels") != said.npos);
}

using Test = void (*)(Library&);
#define TEST(name) {#name, name}
std::vector<std::pair<char const*, Test>> const kTests = {
    TEST(the_library_offers_a_creator_of_each_op),
    TEST(creators_name_every_attribute_and_nothing_else),
    TEST(plugins_are_named_as_their_creators),
    TEST(output_shapes_are_the_contracts),
    TEST(output_shapes_follow_sizes_that_are_not_known_yet),
    TEST(output_types_are_the_contracts),
    TEST(formats_are_linear_but_for_features),
    TEST(features_are_linear_or_channels_last_and_all_alike),
    TEST(what_is_serialised_makes_the_same_plugin),
    TEST(the_timing_cache_tells_attributes_apart),
    TEST(a_clone_lives_on_its_own),
    TEST(wide_integers_are_taken_where_they_fit),
    TEST(attributes_that_do_not_do_are_refused_by_name),
    TEST(shapes_that_do_not_do_are_refused_by_name),
    TEST(types_that_do_not_do_are_refused_by_name),
    TEST(sizes_that_are_not_known_yet_are_configured_later),
    TEST(workspace_is_that_of_the_largest_shapes),
    TEST(running_fails_with_a_reason_where_it_cannot_run),
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  for (auto const& [name, test] : kTests) {
    if (std::string(argv[2]) == "--list") {
      std::cout << name << "\n";
    } else if (std::string(argv[2]) == name) {
      Library library(argv[1]);
      test(library);
      return failures > 0 ? 1 : 0;
    }
  }
  return std::string(argv[2]) == "--list" ? 0 : 2;
}
