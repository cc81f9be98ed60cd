// panrt.plugins._native: the CPU kernels for Python. Called by native.py, which has checked the arguments and allocated
// the outputs. Whatever a kernel relies on is checked here again, for those who call the module itself: a call ends in
// a result, a ValueError that names the argument, or a TypeError. The GIL is released around every kernel.
#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "arguments.h"
#include "kernels.h"
#include "panrt/limits.h"

namespace panrt::python {
namespace {

constexpr int kMaxChannels = panrt::kMaxCodes + 1;  // classes of things, and background

// An array on the numbers of a vector, for a call that ends before it does.
template <typename T>
In<T, 1> borrowed(std::vector<T>& numbers) {
  return In<T, 1>(numbers.data(), {numbers.size()});
}

template <typename T>
void pyramid_roi_align(std::vector<In<T, 4>> const& features, In<float, 3> const& rois, Out<T, 4> const& pooled,
                       std::vector<float> const& strides, int output_size, int sampling_ratio, float canonical_size,
                       int canonical_level, int min_level, bool nhwc, int threads) {
  if (features.empty() || features.size() != strides.size()) {
    reject("features", "expected one array per stride, at least one");
  }
  expect_at_most("features", features.size(), panrt::kMaxLevels, "levels");
  expect_threads(threads);
  panrt::PyramidRoiAlignArgs<T> args{};
  args.output_size = expect_int("output_size", output_size, 1, panrt::kMaxBins);
  args.sampling_ratio = expect_int("sampling_ratio", sampling_ratio, 0, panrt::kMaxSamples);
  args.canonical_size = expect_above_zero("canonical_size", canonical_size);
  args.canonical_level = expect_int("canonical_level", canonical_level, 0, panrt::kMaxLevelNumber);
  args.min_level = expect_int("min_level", min_level, 0, panrt::kMaxLevelNumber);
  std::size_t const images = features[0].shape(0), channels = features[0].shape(nhwc ? 3 : 1);
  auto const bins = static_cast<std::size_t>(output_size);
  Arrays arrays;
  args.images = expect_int("features: images", images, 1, panrt::kMaxImages);
  args.channels = expect_int("features: channels", channels, 1, panrt::kMaxPooled);
  expect_at_most("features: channels * output_size^2", channels * bins * bins, panrt::kMaxPooled, "numbers of a RoI");
  for (std::size_t i = 0; i < features.size(); ++i) {
    std::size_t const height = features[i].shape(nhwc ? 1 : 2), width = features[i].shape(nhwc ? 2 : 3);
    if (nhwc) {
      arrays.read("features", features[i], {images, height, width, channels});
    } else {
      arrays.read("features", features[i], {images, channels, height, width});
    }
    expect_number("strides", strides[i], 1.0F, static_cast<float>(panrt::kMaxSide));
    args.levels.push_back({features[i].data(), expect_int("features: height", height, 1, panrt::kMaxSide),
                           expect_int("features: width", width, 1, panrt::kMaxSide), strides[i]});
  }
  args.rois_per_image = expect_int("rois: rows", rois.shape(1), 0, panrt::kMaxRows);
  args.rois = arrays.read("rois", rois, {images, rois.shape(1), 4});
  if (nhwc) {
    args.pooled = arrays.write("pooled", pooled, {images * rois.shape(1), bins, bins, channels});
  } else {
    args.pooled = arrays.write("pooled", pooled, {images * rois.shape(1), channels, bins, bins});
  }
  arrays.expect_apart();
  args.layout = nhwc ? panrt::Layout::kNhwc : panrt::Layout::kNchw;
  nb::gil_scoped_release const release;
  panrt::pyramid_roi_align(args, threads);
}

template <typename T>
void define_pyramid_roi_align(nb::module_& module) {
  module.def("pyramid_roi_align", &pyramid_roi_align<T>, nb::arg("features").noconvert(), nb::arg("rois").noconvert(),
             nb::arg("pooled").noconvert(), nb::kw_only(), nb::arg("strides"), nb::arg("output_size"),
             nb::arg("sampling_ratio"), nb::arg("canonical_size"), nb::arg("canonical_level"), nb::arg("min_level"),
             nb::arg("nhwc"), nb::arg("threads"));
}

void rpn_proposals(std::vector<In<float, 4>> const& logits, std::vector<In<float, 4>> const& deltas,
                   Out<float, 3> const& rois, Out<std::int32_t, 1> const& roi_count, std::vector<float> const& strides,
                   std::vector<float> const& anchor_sizes, std::vector<float> const& aspect_ratios, int pre_nms_top_k,
                   float nms_threshold, int input_height, int input_width, int threads) {
  if (logits.empty() || deltas.size() != logits.size() || strides.size() != logits.size() ||
      anchor_sizes.size() != logits.size()) {
    reject("logits, deltas, strides, anchor_sizes", "expected one entry per level, at least one");
  }
  expect_at_most("logits", logits.size(), panrt::kMaxLevels, "levels");
  if (aspect_ratios.empty()) reject("aspect_ratios", "expected at least one");
  expect_at_most("aspect_ratios", aspect_ratios.size(), panrt::kMaxAnchorsPerCell, "anchors per cell");
  for (float const ratio : aspect_ratios) expect_above_zero("aspect_ratios", ratio);
  expect_threads(threads);
  panrt::RpnProposalsArgs args{};
  args.pre_nms_top_k = expect_int("pre_nms_top_k", pre_nms_top_k, 1);
  args.nms_threshold = expect_number("nms_threshold", nms_threshold, 0.0F, 1.0F);
  args.input_height = expect_int("input_height", input_height, 1, panrt::kMaxSide);
  args.input_width = expect_int("input_width", input_width, 1, panrt::kMaxSide);
  std::size_t const images = rois.shape(0), anchors = aspect_ratios.size();
  std::size_t all_anchors = 0;
  Arrays arrays;
  args.images = expect_int("rois: images", images, 1, panrt::kMaxImages);
  args.post_nms_top_k = expect_int("rois: rows", rois.shape(1), 1, panrt::kMaxRows);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    std::size_t const height = logits[i].shape(2), width = logits[i].shape(3);
    arrays.read("logits", logits[i], {images, anchors, height, width});
    arrays.read("deltas", deltas[i], {images, 4 * anchors, height, width});
    expect_number("strides", strides[i], 1.0F, static_cast<float>(panrt::kMaxSide));
    expect_above_zero("anchor_sizes", anchor_sizes[i]);
    args.levels.push_back({logits[i].data(), deltas[i].data(), expect_int("logits: height", height, 1, panrt::kMaxSide),
                           expect_int("logits: width", width, 1, panrt::kMaxSide), strides[i], anchor_sizes[i]});
    std::size_t const here = anchors * height * width;
    all_anchors += here;
    expect_at_most("logits", all_anchors, panrt::kMaxAnchors, "anchors");
    expect_at_most("pre_nms_top_k", std::min(here, static_cast<std::size_t>(pre_nms_top_k)), panrt::kMaxCandidates,
                   "candidates per level");
  }
  args.rois = arrays.write("rois", rois, {images, rois.shape(1), 4});
  args.roi_count = arrays.write("roi_count", roi_count, {images});
  arrays.expect_apart();
  args.aspect_ratios = aspect_ratios;
  nb::gil_scoped_release const release;
  panrt::rpn_proposals(args, threads);
}

void define_rpn_proposals(nb::module_& module) {
  module.def("rpn_proposals", &rpn_proposals, nb::arg("logits").noconvert(), nb::arg("deltas").noconvert(),
             nb::arg("rois").noconvert(), nb::arg("roi_count").noconvert(), nb::kw_only(), nb::arg("strides"),
             nb::arg("anchor_sizes"), nb::arg("aspect_ratios"), nb::arg("pre_nms_top_k"), nb::arg("nms_threshold"),
             nb::arg("input_height"), nb::arg("input_width"), nb::arg("threads"));
}

// Version 2, which reads its thresholds from an input.
void box_detections_2(In<float, 3> const& class_logits, In<float, 3> const& box_deltas, In<float, 3> const& rois,
                      In<std::int32_t, 1> const& roi_count, In<float, 1> const& thresholds, Out<float, 3> const& boxes,
                      Out<float, 2> const& scores, Out<std::int32_t, 2> const& classes,
                      Out<std::int32_t, 1> const& count, std::array<float, 4> const& box_weights, int input_height,
                      int input_width, int threads) {
  std::size_t const images = rois.shape(0), rows = rois.shape(1), K = boxes.shape(1);
  expect_threads(threads);
  for (float const weight : box_weights) expect_above_zero("box_weights", weight);
  panrt::BoxDetectionsArgs args{};
  args.input_height = expect_int("input_height", input_height, 1, panrt::kMaxSide);
  args.input_width = expect_int("input_width", input_width, 1, panrt::kMaxSide);
  args.images = expect_int("rois: images", images, 1, panrt::kMaxImages);
  args.rois_per_image = expect_int("rois: rows", rows, 0, panrt::kMaxRows);
  args.thing_classes = expect_int("class_logits: classes and background", class_logits.shape(2), 2, kMaxChannels) - 1;
  args.max_detections = expect_int("boxes: rows", K, 1, panrt::kMaxRows);
  auto const thing_classes = static_cast<std::size_t>(args.thing_classes);
  std::size_t const pairs = rows * thing_classes;
  expect_at_most("rois * thing classes", pairs, panrt::kMaxPairs, "pairs");
  expect_at_most("boxes: rows", K, panrt::max_detections_of(static_cast<std::int64_t>(pairs)),
                 "for this number of pairs");
  Arrays arrays;
  args.class_logits = arrays.read("class_logits", class_logits, {images, rows, thing_classes + 1});
  args.box_deltas = arrays.read("box_deltas", box_deltas, {images, rows, 4 * thing_classes});
  args.rois = arrays.read("rois", rois, {images, rows, 4});
  args.roi_count = arrays.read("roi_count", roi_count, {images});
  args.score_thresholds = arrays.read("thresholds", thresholds, {thing_classes + 1});
  args.boxes = arrays.write("boxes", boxes, {images, K, 4});
  args.scores = arrays.write("scores", scores, {images, K});
  args.classes = arrays.write("classes", classes, {images, K});
  args.count = arrays.write("count", count, {images});
  arrays.expect_apart();
  args.box_weights = {box_weights[0], box_weights[1], box_weights[2], box_weights[3]};
  for (std::size_t c = 0; c < thing_classes; ++c) {
    expect_number("thresholds: of a score", args.score_thresholds[c], -kInfinity, kInfinity);
  }
  args.nms_threshold = expect_number("thresholds: of the IoU", args.score_thresholds[thing_classes], 0.0F, 1.0F);
  nb::gil_scoped_release const release;
  panrt::box_detections(args, threads);
}

void box_detections(In<float, 3> const& class_logits, In<float, 3> const& box_deltas, In<float, 3> const& rois,
                    In<std::int32_t, 1> const& roi_count, Out<float, 3> const& boxes, Out<float, 2> const& scores,
                    Out<std::int32_t, 2> const& classes, Out<std::int32_t, 1> const& count,
                    std::array<float, 4> const& box_weights, float score_threshold, float nms_threshold,
                    int input_height, int input_width, int threads) {
  expect_number("score_threshold", score_threshold, -kLargest, kLargest);
  expect_number("nms_threshold", nms_threshold, 0.0F, 1.0F);
  int const channels = expect_int("class_logits: classes and background", class_logits.shape(2), 2, kMaxChannels);
  std::vector<float> thresholds(static_cast<std::size_t>(channels), score_threshold);
  thresholds.back() = nms_threshold;
  box_detections_2(class_logits, box_deltas, rois, roi_count, borrowed(thresholds), boxes, scores, classes, count,
                   box_weights, input_height, input_width, threads);
}

void define_box_detections(nb::module_& module) {
  module.def("box_detections_2", &box_detections_2, nb::arg("class_logits").noconvert(),
             nb::arg("box_deltas").noconvert(), nb::arg("rois").noconvert(), nb::arg("roi_count").noconvert(),
             nb::arg("thresholds").noconvert(), nb::arg("boxes").noconvert(), nb::arg("scores").noconvert(),
             nb::arg("classes").noconvert(), nb::arg("count").noconvert(), nb::kw_only(), nb::arg("box_weights"),
             nb::arg("input_height"), nb::arg("input_width"), nb::arg("threads"));
  module.def("box_detections", &box_detections, nb::arg("class_logits").noconvert(), nb::arg("box_deltas").noconvert(),
             nb::arg("rois").noconvert(), nb::arg("roi_count").noconvert(), nb::arg("boxes").noconvert(),
             nb::arg("scores").noconvert(), nb::arg("classes").noconvert(), nb::arg("count").noconvert(), nb::kw_only(),
             nb::arg("box_weights"), nb::arg("score_threshold"), nb::arg("nms_threshold"), nb::arg("input_height"),
             nb::arg("input_width"), nb::arg("threads"));
}

// Version 2, which reads its thresholds from inputs.
void panoptic_merge_2(In<float, 4> const& semantic_logits, In<float, 3> const& boxes, In<float, 2> const& scores,
                      In<std::int32_t, 2> const& classes, In<std::int32_t, 1> const& count,
                      In<float, 4> const& mask_probs, In<float, 1> const& thresholds,
                      In<std::int32_t, 1> const& stuff_area_limits, Out<std::int32_t, 3> const& panoptic,
                      Out<std::int32_t, 3> const& segments, Out<float, 2> const& segment_scores,
                      Out<std::int32_t, 1> const& segment_count, int input_height, int input_width, int threads) {
  std::size_t const N = scores.shape(0), K = scores.shape(1), S = semantic_logits.shape(1);
  std::size_t const h = semantic_logits.shape(2), w = semantic_logits.shape(3);
  std::size_t const H = panoptic.shape(1), W = panoptic.shape(2);
  expect_threads(threads);
  panrt::PanopticMergeArgs args{};
  args.images = expect_int("scores: images", N, 1, panrt::kMaxImages);
  args.detections = expect_int("scores: detections", K, 0, panrt::kMaxCodes);
  args.channels = expect_int("semantic_logits: channels", S, 1, panrt::kMaxCodes);
  args.height = expect_int("semantic_logits: height", h, 1, panrt::kMaxSide);
  args.width = expect_int("semantic_logits: width", w, 1, panrt::kMaxSide);
  args.mask_height = expect_int("mask_probs: height", mask_probs.shape(2), 1, panrt::kMaxSide);
  args.mask_width = expect_int("mask_probs: width", mask_probs.shape(3), 1, panrt::kMaxSide);
  args.input_height = expect_int("input_height", input_height, 1, panrt::max_input_side(args.height));
  args.input_width = expect_int("input_width", input_width, 1, panrt::max_input_side(args.width));
  args.output_height = expect_int("panoptic: height", H, 1, panrt::kMaxSide);
  args.output_width = expect_int("panoptic: width", W, 1, panrt::kMaxSide);
  expect_at_most("detections + channels", K + S, panrt::kMaxCodes, "together");
  expect_at_most("mask_probs: height * width", mask_probs.shape(2) * mask_probs.shape(3), panrt::kMaxMaskCells,
                 "cells");
  expect_at_most("scores: detections", K, panrt::max_pasted_of(static_cast<std::int64_t>(H * W)),
                 "of an output so large");
  Arrays arrays;
  args.semantic_logits = arrays.read("semantic_logits", semantic_logits, {N, S, h, w});
  args.boxes = arrays.read("boxes", boxes, {N, K, 4});
  args.scores = arrays.read("scores", scores, {N, K});
  args.classes = arrays.read("classes", classes, {N, K});
  args.count = arrays.read("count", count, {N});
  args.mask_probs = arrays.read("mask_probs", mask_probs, {N, K, mask_probs.shape(2), mask_probs.shape(3)});
  float const* const numbers = arrays.read("thresholds", thresholds, {3});
  args.stuff_area_limits = arrays.read("stuff_area_limits", stuff_area_limits, {S});
  args.panoptic = arrays.write("panoptic", panoptic, {N, H, W});
  args.segments = arrays.write("segments", segments, {N, K + S, 8});
  args.segment_scores = arrays.write("segment_scores", segment_scores, {N, K + S});
  args.segment_count = arrays.write("segment_count", segment_count, {N});
  arrays.expect_apart();
  args.score_threshold = expect_number("thresholds: of a score", numbers[0], -kInfinity, kInfinity);
  args.overlap_threshold = expect_number("thresholds: of an overlap", numbers[1], 0.0F, 1.0F);
  args.mask_threshold =
      expect_number("thresholds: of a mask", numbers[2], std::numeric_limits<float>::denorm_min(), 1.0F);
  for (std::size_t s = 0; s < S; ++s) expect_int("stuff_area_limits", args.stuff_area_limits[s], 0);
  nb::gil_scoped_release const release;
  panrt::panoptic_merge(args, threads);
}

void panoptic_merge(In<float, 4> const& semantic_logits, In<float, 3> const& boxes, In<float, 2> const& scores,
                    In<std::int32_t, 2> const& classes, In<std::int32_t, 1> const& count,
                    In<float, 4> const& mask_probs, Out<std::int32_t, 3> const& panoptic,
                    Out<std::int32_t, 3> const& segments, Out<float, 2> const& segment_scores,
                    Out<std::int32_t, 1> const& segment_count, int input_height, int input_width, float score_threshold,
                    float overlap_threshold, int stuff_area_limit, float mask_threshold, int threads) {
  expect_number("score_threshold", score_threshold, -kLargest, kLargest);
  expect_number("overlap_threshold", overlap_threshold, 0.0F, 1.0F);
  expect_int("stuff_area_limit", stuff_area_limit, 0);
  expect_number("mask_threshold", mask_threshold, std::numeric_limits<float>::denorm_min(), 1.0F);
  int const channels = expect_int("semantic_logits: channels", semantic_logits.shape(1), 1, panrt::kMaxCodes);
  std::vector<float> thresholds{score_threshold, overlap_threshold, mask_threshold};
  std::vector<std::int32_t> limits(static_cast<std::size_t>(channels), stuff_area_limit);
  panoptic_merge_2(semantic_logits, boxes, scores, classes, count, mask_probs, borrowed(thresholds), borrowed(limits),
                   panoptic, segments, segment_scores, segment_count, input_height, input_width, threads);
}

void define_panoptic_merge(nb::module_& module) {
  module.def("panoptic_merge_2", &panoptic_merge_2, nb::arg("semantic_logits").noconvert(),
             nb::arg("boxes").noconvert(), nb::arg("scores").noconvert(), nb::arg("classes").noconvert(),
             nb::arg("count").noconvert(), nb::arg("mask_probs").noconvert(), nb::arg("thresholds").noconvert(),
             nb::arg("stuff_area_limits").noconvert(), nb::arg("panoptic").noconvert(), nb::arg("segments").noconvert(),
             nb::arg("segment_scores").noconvert(), nb::arg("segment_count").noconvert(), nb::kw_only(),
             nb::arg("input_height"), nb::arg("input_width"), nb::arg("threads"));
  module.def("panoptic_merge", &panoptic_merge, nb::arg("semantic_logits").noconvert(), nb::arg("boxes").noconvert(),
             nb::arg("scores").noconvert(), nb::arg("classes").noconvert(), nb::arg("count").noconvert(),
             nb::arg("mask_probs").noconvert(), nb::arg("panoptic").noconvert(), nb::arg("segments").noconvert(),
             nb::arg("segment_scores").noconvert(), nb::arg("segment_count").noconvert(), nb::kw_only(),
             nb::arg("input_height"), nb::arg("input_width"), nb::arg("score_threshold"), nb::arg("overlap_threshold"),
             nb::arg("stuff_area_limit"), nb::arg("mask_threshold"), nb::arg("threads"));
}

}  // namespace

}  // namespace panrt::python

NB_MODULE(_native, module) {
  using namespace panrt::python;
  if (char const* const fault = panrt::arithmetic_fault()) {
    throw std::runtime_error(std::string("panrt.plugins._native: ") + fault +
                             ". Build PanRT again with CXXFLAGS unset.");
  }
  define_rpn_proposals(module);
  define_pyramid_roi_align<float>(module);
  define_pyramid_roi_align<panrt::Half>(module);
  define_box_detections(module);
  define_panoptic_merge(module);
  define_helpers(module);
}
