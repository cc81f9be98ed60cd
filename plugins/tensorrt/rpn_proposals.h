// RpnProposals, plugins/OPS.md section 2, as TensorRT sees it.
#pragma once

#include <algorithm>

#include "op_plugin.h"
#include "panrt/cuda/rpn_proposals.h"

namespace panrt::tensorrt {

struct RpnProposals {
  static constexpr char const* kName = "RpnProposals";
  using Args = cuda::RpnProposalsArgs;

  std::vector<std::int32_t> strides;
  std::vector<float> anchor_sizes;
  std::vector<float> aspect_ratios;
  std::int32_t pre_nms_top_k = 0;
  std::int32_t post_nms_top_k = 0;
  float nms_threshold = 0.0F;
  HeightWidth input_hw{};

  template <typename Visit>
  void attributes(Visit&& visit) {
    visit("strides", strides);
    visit("anchor_sizes", anchor_sizes);
    visit("aspect_ratios", aspect_ratios);
    visit("pre_nms_top_k", pre_nms_top_k);
    visit("post_nms_top_k", post_nms_top_k);
    visit("nms_threshold", nms_threshold);
    visit("input_hw", input_hw);
  }

  void check_attributes() const {
    expect_strides(strides);
    expect(anchor_sizes.size() == strides.size(), "anchor_sizes", "as many entries as strides has",
           static_cast<double>(anchor_sizes.size()));
    expect(!aspect_ratios.empty() && aspect_ratios.size() <= kMaxAnchorsPerCell, "aspect_ratios",
           "1 to " + std::to_string(kMaxAnchorsPerCell) + " entries", static_cast<double>(aspect_ratios.size()));
    for (float const size : anchor_sizes) expect_above_zero("anchor_sizes", size);
    for (float const ratio : aspect_ratios) expect_above_zero("aspect_ratios", ratio);
    expect(pre_nms_top_k >= 1, "pre_nms_top_k", "at least 1", pre_nms_top_k);
    expect_range("post_nms_top_k", post_nms_top_k, 1, kMaxRows);
    expect_fraction("nms_threshold", nms_threshold);
    expect_sides("input_hw", input_hw);
  }

  Signature signature() const {
    Signature signature;
    for (char const* const stem : {"logits_", "deltas_"}) {
      for (std::size_t i = 0; i < strides.size(); ++i) {
        std::string const cells = " H" + std::to_string(i) + " W" + std::to_string(i);
        std::string const channels = stem[0] == 'l' ? "N A" : "N 4A";
        signature.inputs.push_back({level_name(stem, i), channels + cells, Kind::kFloat32});
      }
    }
    signature.outputs = {{"rois", "N R 4", Kind::kFloat32}, {"roi_count", "N", Kind::kInt32}};
    signature.constants = {{"A", static_cast<std::int64_t>(aspect_ratios.size())}, {"R", post_nms_top_k}};
    return signature;
  }

  Args arguments(Sizes const& sizes, nvinfer1::PluginTensorDesc const* /*inputs*/) const {
    Args args{};
    for (std::size_t i = 0; i < strides.size(); ++i) {
      args.levels[i].height = narrow(sizes, level_name("H", i).c_str());
      args.levels[i].width = narrow(sizes, level_name("W", i).c_str());
      args.levels[i].stride = static_cast<float>(strides[i]);
      args.levels[i].anchor_size = anchor_sizes[i];
    }
    std::copy(aspect_ratios.begin(), aspect_ratios.end(), args.aspect_ratios);
    args.images = narrow(sizes, "N");
    args.level_count = static_cast<std::int32_t>(strides.size());
    args.anchor_count = static_cast<std::int32_t>(aspect_ratios.size());
    args.pre_nms_top_k = pre_nms_top_k;
    args.post_nms_top_k = post_nms_top_k;
    args.nms_threshold = nms_threshold;
    args.input_height = input_hw[0];
    args.input_width = input_hw[1];
    return args;
  }

  static void point(Args& args, void const* const* inputs, void* const* outputs, void* workspace, std::size_t bytes) {
    for (std::int32_t i = 0; i < args.level_count; ++i) {
      args.levels[i].logits = static_cast<float const*>(inputs[i]);
      args.levels[i].deltas = static_cast<float const*>(inputs[args.level_count + i]);
    }
    args.rois = static_cast<float*>(outputs[0]);
    args.roi_count = static_cast<std::int32_t*>(outputs[1]);
    args.workspace = workspace;
    args.workspace_bytes = bytes;
  }

  static cuda::Status check(Args const& args) { return cuda::check_rpn_proposals(args); }
  static std::size_t workspace_bytes(Args const& args) { return cuda::rpn_proposals_workspace_bytes(args); }
  static cuda::Status prepare() { return cuda::prepare_rpn_proposals(); }
  static cuda::Status launch(Args const& args, cudaStream_t stream) { return cuda::launch_rpn_proposals(args, stream); }
};

}  // namespace panrt::tensorrt
