// PyramidRoiAlign, plugins/OPS.md section 3, as TensorRT sees it.
#pragma once

#include "op_plugin.h"
#include "panrt/cuda/pyramid_roi_align.h"

namespace panrt::tensorrt {

inline cuda::DataType data_type(nvinfer1::PluginTensorDesc const& tensor) {
  return tensor.type == nvinfer1::DataType::kHALF ? cuda::DataType::kFloat16 : cuda::DataType::kFloat32;
}

struct PyramidRoiAlign {
  static constexpr char const* kName = "PyramidRoiAlign";
  using Args = cuda::PyramidRoiAlignArgs;

  std::vector<std::int32_t> strides;
  std::int32_t output_size = 0;
  std::int32_t sampling_ratio = 0;
  float canonical_size = 0.0F;
  std::int32_t canonical_level = 0;
  std::int32_t min_level = 0;

  template <typename Visit>
  void attributes(Visit&& visit) {
    visit("strides", strides);
    visit("output_size", output_size);
    visit("sampling_ratio", sampling_ratio);
    visit("canonical_size", canonical_size);
    visit("canonical_level", canonical_level);
    visit("min_level", min_level);
  }

  void check_attributes() const {
    expect_strides(strides);
    expect_range("output_size", output_size, 1, kMaxBins);
    expect_range("sampling_ratio", sampling_ratio, 0, kMaxSamples);
    expect_above_zero("canonical_size", canonical_size);
    expect_range("canonical_level", canonical_level, 0, kMaxLevelNumber);
    expect_range("min_level", min_level, 0, kMaxLevelNumber);
  }

  Signature signature() const {
    Signature signature;
    for (std::size_t i = 0; i < strides.size(); ++i) {
      std::string const cells = " H" + std::to_string(i) + " W" + std::to_string(i);
      signature.inputs.push_back({level_name("features_", i), "N C" + cells, Kind::kFeatures});
    }
    signature.inputs.push_back({"rois", "N R 4", Kind::kFloat32});
    signature.outputs = {{"pooled", "N*R C P P", Kind::kFeatures}};
    signature.constants = {{"P", output_size}};
    return signature;
  }

  Args arguments(Sizes const& sizes, nvinfer1::PluginTensorDesc const* inputs) const {
    Args args{};
    for (std::size_t i = 0; i < strides.size(); ++i) {
      args.levels[i].height = narrow(sizes, level_name("H", i).c_str());
      args.levels[i].width = narrow(sizes, level_name("W", i).c_str());
      args.levels[i].stride = static_cast<float>(strides[i]);
    }
    args.images = sizes.at("N");
    args.rois_per_image = sizes.at("R");
    args.level_count = static_cast<std::int32_t>(strides.size());
    args.channels = narrow(sizes, "C");
    args.output_size = output_size;
    args.sampling_ratio = sampling_ratio;
    args.canonical_size = canonical_size;
    args.canonical_level = canonical_level;
    args.min_level = min_level;
    args.type = data_type(inputs[0]);
    args.layout = inputs[0].format == nvinfer1::TensorFormat::kHWC8  ? cuda::Layout::kNhwc8
                  : inputs[0].format == nvinfer1::TensorFormat::kHWC ? cuda::Layout::kNhwc
                                                                     : cuda::Layout::kNchw;
    return args;
  }

  static void point(Args& args, void const* const* inputs, void* const* outputs, void* /*workspace*/,
                    std::size_t /*bytes*/) {
    for (std::int32_t i = 0; i < args.level_count; ++i) args.levels[i].data = inputs[i];
    args.rois = static_cast<float const*>(inputs[args.level_count]);
    args.pooled = outputs[0];
  }

  static cuda::Status check(Args const& args) { return cuda::check_pyramid_roi_align(args); }
  static std::size_t workspace_bytes(Args const& /*args*/) { return 0; }
  static cuda::Status prepare() { return cuda::prepare_pyramid_roi_align(); }
  static cuda::Status launch(Args const& args, cudaStream_t stream) {
    return cuda::launch_pyramid_roi_align(args, stream);
  }
};

}  // namespace panrt::tensorrt
