// PanopticMerge, plugins/OPS.md section 5, as TensorRT sees it.
#pragma once

#include "op_plugin.h"
#include "panrt/cuda/panoptic_merge.h"
#include "pyramid_roi_align.h"

namespace panrt::tensorrt {

struct PanopticMerge {
  static constexpr char const* kName = "PanopticMerge";
  using Args = cuda::PanopticMergeArgs;

  HeightWidth input_hw{};
  HeightWidth output_hw{};
  float score_threshold = 0.0F;
  float overlap_threshold = 0.0F;
  std::int32_t stuff_area_limit = 0;
  float mask_threshold = 0.0F;

  template <typename Visit>
  void attributes(Visit&& visit) {
    visit("input_hw", input_hw);
    visit("output_hw", output_hw);
    visit("score_threshold", score_threshold);
    visit("overlap_threshold", overlap_threshold);
    visit("stuff_area_limit", stuff_area_limit);
    visit("mask_threshold", mask_threshold);
  }

  void check_attributes() const {
    expect_sides("input_hw", input_hw);
    expect_sides("output_hw", output_hw);
    expect_finite("score_threshold", score_threshold);
    expect_fraction("overlap_threshold", overlap_threshold);
    expect(stuff_area_limit >= 0, "stuff_area_limit", "output pixels from 0", stuff_area_limit);
    expect(mask_threshold > 0.0F && mask_threshold <= 1.0F, "mask_threshold", "a number above 0, at most 1",
           mask_threshold);
  }

  Signature signature() const {
    Signature signature;
    signature.inputs = {{"semantic_logits", "N S h w", Kind::kFloating},
                        {"boxes", "N K 4", Kind::kFloat32},
                        {"scores", "N K", Kind::kFloat32},
                        {"classes", "N K", Kind::kInt32},
                        {"count", "N", Kind::kInt32},
                        {"mask_probs", "N K Gh Gw", Kind::kFloating}};
    signature.outputs = {{"panoptic", "N H W", Kind::kInt32},
                         {"segments", "N K+S 8", Kind::kInt32},
                         {"segment_scores", "N K+S", Kind::kFloat32},
                         {"segment_count", "N", Kind::kInt32}};
    signature.constants = {{"H", output_hw[0]}, {"W", output_hw[1]}};
    return signature;
  }

  Args arguments(Sizes const& sizes, nvinfer1::PluginTensorDesc const* inputs) const {
    Args args{};
    args.logit_type = data_type(inputs[0]);
    args.mask_type = data_type(inputs[5]);
    args.images = narrow(sizes, "N");
    args.detections = narrow(sizes, "K");
    args.channels = narrow(sizes, "S");
    args.height = narrow(sizes, "h");
    args.width = narrow(sizes, "w");
    args.mask_height = narrow(sizes, "Gh");
    args.mask_width = narrow(sizes, "Gw");
    args.input_height = input_hw[0];
    args.input_width = input_hw[1];
    args.output_height = output_hw[0];
    args.output_width = output_hw[1];
    args.score_threshold = score_threshold;
    args.overlap_threshold = overlap_threshold;
    args.stuff_area_limit = stuff_area_limit;
    args.mask_threshold = mask_threshold;
    if (input_hw[0] > std::int64_t{4} * args.height || input_hw[1] > std::int64_t{4} * args.width) {
      throw OpError("attribute input_hw: expected at most four times the semantic logits' " +
                    std::to_string(args.height) + " x " + std::to_string(args.width) + ", got " +
                    std::to_string(input_hw[0]) + " x " + std::to_string(input_hw[1]));
    }
    return args;
  }

  static void point(Args& args, void const* const* inputs, void* const* outputs, void* workspace, std::size_t bytes) {
    args.semantic_logits = inputs[0];
    args.boxes = static_cast<float const*>(inputs[1]);
    args.scores = static_cast<float const*>(inputs[2]);
    args.classes = static_cast<std::int32_t const*>(inputs[3]);
    args.count = static_cast<std::int32_t const*>(inputs[4]);
    args.mask_probs = inputs[5];
    args.panoptic = static_cast<std::int32_t*>(outputs[0]);
    args.segments = static_cast<std::int32_t*>(outputs[1]);
    args.segment_scores = static_cast<float*>(outputs[2]);
    args.segment_count = static_cast<std::int32_t*>(outputs[3]);
    args.workspace = workspace;
    args.workspace_bytes = bytes;
  }

  static cuda::Status check(Args const& args) { return cuda::check_panoptic_merge(args); }
  static std::size_t workspace_bytes(Args const& args) { return cuda::panoptic_merge_workspace_bytes(args); }
  static cuda::Status prepare() { return cuda::prepare_panoptic_merge(); }
  static cuda::Status launch(Args const& args, cudaStream_t stream) {
    return cuda::launch_panoptic_merge(args, stream);
  }
};

}  // namespace panrt::tensorrt
