// BoxDetections, plugins/OPS.md section 4, as TensorRT sees it.
#pragma once

#include <algorithm>

#include "op_plugin.h"
#include "panrt/cuda/box_detections.h"

namespace panrt::tensorrt {

struct BoxDetections {
  static constexpr char const* kName = "BoxDetections";
  using Args = cuda::BoxDetectionsArgs;

  std::array<float, 4> box_weights{};
  float score_threshold = 0.0F;
  float nms_threshold = 0.0F;
  std::int32_t max_detections = 0;
  HeightWidth input_hw{};

  template <typename Visit>
  void attributes(Visit&& visit) {
    visit("box_weights", box_weights);
    visit("score_threshold", score_threshold);
    visit("nms_threshold", nms_threshold);
    visit("max_detections", max_detections);
    visit("input_hw", input_hw);
  }

  void check_attributes() const {
    for (float const weight : box_weights) expect_above_zero("box_weights", weight);
    expect_finite("score_threshold", score_threshold);
    expect_fraction("nms_threshold", nms_threshold);
    expect_range("max_detections", max_detections, 1, kMaxRows);
    expect_sides("input_hw", input_hw);
  }

  Signature signature() const {
    Signature signature;
    signature.inputs = {{"class_logits", "N R C+1", Kind::kFloat32},
                        {"box_deltas", "N R 4C", Kind::kFloat32},
                        {"rois", "N R 4", Kind::kFloat32},
                        {"roi_count", "N", Kind::kInt32}};
    signature.outputs = {{"boxes", "N K 4", Kind::kFloat32},
                         {"scores", "N K", Kind::kFloat32},
                         {"classes", "N K", Kind::kInt32},
                         {"count", "N", Kind::kInt32}};
    signature.constants = {{"K", max_detections}};
    return signature;
  }

  Args arguments(Sizes const& sizes, nvinfer1::PluginTensorDesc const* /*inputs*/) const {
    Args args{};
    args.images = narrow(sizes, "N");
    args.rois_per_image = narrow(sizes, "R");
    args.thing_classes = narrow(sizes, "C");
    args.max_detections = max_detections;
    std::copy(box_weights.begin(), box_weights.end(), args.box_weights);
    args.score_threshold = score_threshold;
    args.nms_threshold = nms_threshold;
    args.input_height = input_hw[0];
    args.input_width = input_hw[1];
    return args;
  }

  static void point(Args& args, void const* const* inputs, void* const* outputs, void* workspace, std::size_t bytes) {
    args.class_logits = static_cast<float const*>(inputs[0]);
    args.box_deltas = static_cast<float const*>(inputs[1]);
    args.rois = static_cast<float const*>(inputs[2]);
    args.roi_count = static_cast<std::int32_t const*>(inputs[3]);
    args.boxes = static_cast<float*>(outputs[0]);
    args.scores = static_cast<float*>(outputs[1]);
    args.classes = static_cast<std::int32_t*>(outputs[2]);
    args.count = static_cast<std::int32_t*>(outputs[3]);
    args.workspace = workspace;
    args.workspace_bytes = bytes;
  }

  static cuda::Status check(Args const& args) { return cuda::check_box_detections(args); }
  static std::size_t workspace_bytes(Args const& args) { return cuda::box_detections_workspace_bytes(args); }
  static cuda::Status prepare() { return cuda::prepare_box_detections(); }
  static cuda::Status launch(Args const& args, cudaStream_t stream) {
    return cuda::launch_box_detections(args, stream);
  }
};

}  // namespace panrt::tensorrt
