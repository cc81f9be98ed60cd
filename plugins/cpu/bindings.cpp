// panrt.plugins._native: the CPU kernels for Python. Called by native.py, which has checked the arguments and allocated
// the outputs. Whatever a kernel relies on is checked here again, for those who call the module itself: no call may end
// in anything but a result, a ValueError that names the argument, or a TypeError. The GIL is released around every
// kernel.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"
#include "panrt/limits.h"

namespace nb = nanobind;

template <>
struct nanobind::detail::dtype_traits<panrt::Half> {
  static constexpr dlpack::dtype value{static_cast<std::uint8_t>(dlpack::dtype_code::Float), 16, 1};
  static constexpr auto name = const_name("float16");
};

namespace {

// Arrays are matched as they are (noconvert below): a silent copy would cost more than the kernel.
template <typename T, int rank>
using In = nb::ndarray<T const, nb::ndim<rank>, nb::c_contig, nb::device::cpu>;
template <typename T, int rank>
using Out = nb::ndarray<T, nb::ndim<rank>, nb::c_contig, nb::device::cpu>;

constexpr float kLargest = std::numeric_limits<float>::max();

// Bounds of plugins/contract.py; with them no product below overflows.
constexpr int kMaxThreads = 1024;

[[noreturn]] void reject(std::string const& name, std::string const& problem) {
  throw std::invalid_argument(name + ": " + problem);
}

// An integer within bounds, as an int.
template <typename Integer>
int expect_int(char const* name, Integer value, int least, std::int64_t most = std::numeric_limits<int>::max()) {
  bool const fits = value >= static_cast<Integer>(least) && value <= static_cast<Integer>(most);
  if (!fits) {
    reject(name,
           "expected " + std::to_string(least) + " to " + std::to_string(most) + ", got " + std::to_string(value));
  }
  return static_cast<int>(value);
}

// A number within bounds; never NaN.
void expect_number(char const* name, float value, float least, float most) {
  if (!(value >= least && value <= most)) {
    reject(name,
           "expected " + std::to_string(least) + " to " + std::to_string(most) + ", got " + std::to_string(value));
  }
}

void expect_above_zero(char const* name, float value) {
  if (!(value > 0.0F && value <= std::numeric_limits<float>::max())) {
    reject(name, "expected a number above 0, got " + std::to_string(value));
  }
}

int expect_threads(int threads) { return expect_int("threads", threads, 1, kMaxThreads); }

// The arrays of one call: each of its shape and aligned, and none that is written to overlaps another one.
class Arrays {
 public:
  template <typename Array>
  void read(char const* name, Array const& array, std::vector<std::size_t> const& shape) {
    add(name, array, shape, false);
  }
  template <typename Array>
  void write(char const* name, Array const& array, std::vector<std::size_t> const& shape) {
    add(name, array, shape, true);
  }
  void expect_apart() const {
    for (std::size_t i = 0; i < spans_.size(); ++i) {
      for (std::size_t j = 0; j < spans_.size(); ++j) {
        if (i == j || !spans_[i].written || spans_[i].begin >= spans_[j].end || spans_[j].begin >= spans_[i].end)
          continue;
        reject(spans_[i].name, std::string("expected memory of its own, got some of ") + spans_[j].name);
      }
    }
  }

 private:
  struct Span {
    char const* name;
    std::uintptr_t begin, end;
    bool written;
  };

  template <typename Array>
  void add(char const* name, Array const& array, std::vector<std::size_t> const& shape, bool written) {
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (array.shape(i) != shape[i]) {
        reject(name, "axis " + std::to_string(i) + " is " + std::to_string(array.shape(i)) + ", expected " +
                         std::to_string(shape[i]));
      }
    }
    auto const begin = reinterpret_cast<std::uintptr_t>(array.data());
    if (begin % alignof(typename Array::Scalar) != 0) reject(name, "expected an aligned array; use .copy()");
    spans_.push_back({name, begin, begin + array.nbytes(), written});
  }

  std::vector<Span> spans_;
};

void expect_at_most(char const* name, std::size_t found, std::int64_t most, char const* unit) {
  if (found > static_cast<std::size_t>(most)) {
    reject(name, "expected at most " + std::to_string(most) + " " + unit + ", got " + std::to_string(found));
  }
}

template <typename T>
void pyramid_roi_align(std::vector<In<T, 4>> const& features, In<float, 3> const& rois, Out<T, 4> const& pooled,
                       std::vector<float> const& strides, int output_size, int sampling_ratio, float canonical_size,
                       int canonical_level, int min_level, bool nhwc, int threads) {
  if (features.empty() || features.size() != strides.size()) {
    reject("features", "expected one array a stride, at least one");
  }
  expect_at_most("features", features.size(), panrt::kMaxLevels, "levels");
  expect_threads(threads);
  expect_int("output_size", output_size, 1, panrt::kMaxBins);
  expect_int("sampling_ratio", sampling_ratio, 0, panrt::kMaxSamples);
  expect_above_zero("canonical_size", canonical_size);
  expect_int("canonical_level", canonical_level, 0, panrt::kMaxLevelNumber);
  expect_int("min_level", min_level, 0, panrt::kMaxLevelNumber);
  std::size_t const images = features[0].shape(0), channels = features[0].shape(nhwc ? 3 : 1);
  auto const bins = static_cast<std::size_t>(output_size);
  panrt::PyramidRoiAlignArgs<T> args{};
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
  arrays.read("rois", rois, {images, rois.shape(1), 4});
  if (nhwc) {
    arrays.write("pooled", pooled, {images * rois.shape(1), bins, bins, channels});
  } else {
    arrays.write("pooled", pooled, {images * rois.shape(1), channels, bins, bins});
  }
  arrays.expect_apart();
  args.rois = rois.data();
  args.pooled = pooled.data();
  args.layout = nhwc ? panrt::Layout::kNhwc : panrt::Layout::kNchw;
  args.output_size = output_size;
  args.sampling_ratio = sampling_ratio;
  args.canonical_size = canonical_size;
  args.canonical_level = canonical_level;
  args.min_level = min_level;
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
    reject("logits, deltas, strides, anchor_sizes", "expected one entry a level, at least one");
  }
  expect_at_most("logits", logits.size(), panrt::kMaxLevels, "levels");
  if (aspect_ratios.empty()) reject("aspect_ratios", "expected at least one");
  expect_at_most("aspect_ratios", aspect_ratios.size(), panrt::kMaxAnchorsPerCell, "anchors of a cell");
  for (float const ratio : aspect_ratios) expect_above_zero("aspect_ratios", ratio);
  expect_threads(threads);
  expect_int("pre_nms_top_k", pre_nms_top_k, 1);
  expect_number("nms_threshold", nms_threshold, 0.0F, 1.0F);
  expect_int("input_height", input_height, 1, panrt::kMaxSide);
  expect_int("input_width", input_width, 1, panrt::kMaxSide);
  std::size_t const images = rois.shape(0), anchors = aspect_ratios.size();
  std::size_t all_anchors = 0;
  panrt::RpnProposalsArgs args{};
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
                   "candidates of a level");
  }
  arrays.write("rois", rois, {images, rois.shape(1), 4});
  arrays.write("roi_count", roi_count, {images});
  arrays.expect_apart();
  args.aspect_ratios = aspect_ratios;
  args.rois = rois.data();
  args.roi_count = roi_count.data();
  args.pre_nms_top_k = pre_nms_top_k;
  args.nms_threshold = nms_threshold;
  args.input_height = input_height;
  args.input_width = input_width;
  nb::gil_scoped_release const release;
  panrt::rpn_proposals(args, threads);
}

void define_rpn_proposals(nb::module_& module) {
  module.def("rpn_proposals", &rpn_proposals, nb::arg("logits").noconvert(), nb::arg("deltas").noconvert(),
             nb::arg("rois").noconvert(), nb::arg("roi_count").noconvert(), nb::kw_only(), nb::arg("strides"),
             nb::arg("anchor_sizes"), nb::arg("aspect_ratios"), nb::arg("pre_nms_top_k"), nb::arg("nms_threshold"),
             nb::arg("input_height"), nb::arg("input_width"), nb::arg("threads"));
}

void box_detections(In<float, 3> const& class_logits, In<float, 3> const& box_deltas, In<float, 3> const& rois,
                    In<std::int32_t, 1> const& roi_count, Out<float, 3> const& boxes, Out<float, 2> const& scores,
                    Out<std::int32_t, 2> const& classes, Out<std::int32_t, 1> const& count,
                    std::array<float, 4> const& box_weights, float score_threshold, float nms_threshold,
                    int input_height, int input_width, int threads) {
  std::size_t const images = rois.shape(0), rows = rois.shape(1), K = boxes.shape(1);
  expect_threads(threads);
  for (float const weight : box_weights) expect_above_zero("box_weights", weight);
  expect_number("score_threshold", score_threshold, -kLargest, kLargest);
  expect_number("nms_threshold", nms_threshold, 0.0F, 1.0F);
  expect_int("input_height", input_height, 1, panrt::kMaxSide);
  expect_int("input_width", input_width, 1, panrt::kMaxSide);
  panrt::BoxDetectionsArgs args{};
  args.images = expect_int("rois: images", images, 1, panrt::kMaxImages);
  args.rois_per_image = expect_int("rois: rows", rows, 0, panrt::kMaxRows);
  args.thing_classes =
      expect_int("class_logits: classes and background", class_logits.shape(2), 2, panrt::kMaxCodes + 1) - 1;
  args.max_detections = expect_int("boxes: rows", K, 1, panrt::kMaxRows);
  auto const thing_classes = static_cast<std::size_t>(args.thing_classes);
  std::size_t const pairs = rows * thing_classes;
  expect_at_most("rois * thing classes", pairs, panrt::kMaxPairs, "pairs");
  expect_at_most("boxes: rows", K, panrt::max_detections_of(static_cast<std::int64_t>(pairs)), "of so many pairs");
  Arrays arrays;
  arrays.read("class_logits", class_logits, {images, rows, thing_classes + 1});
  arrays.read("box_deltas", box_deltas, {images, rows, 4 * thing_classes});
  arrays.read("rois", rois, {images, rows, 4});
  arrays.read("roi_count", roi_count, {images});
  arrays.write("boxes", boxes, {images, K, 4});
  arrays.write("scores", scores, {images, K});
  arrays.write("classes", classes, {images, K});
  arrays.write("count", count, {images});
  arrays.expect_apart();
  args.class_logits = class_logits.data();
  args.box_deltas = box_deltas.data();
  args.rois = rois.data();
  args.roi_count = roi_count.data();
  args.boxes = boxes.data();
  args.scores = scores.data();
  args.classes = classes.data();
  args.count = count.data();
  args.box_weights = {box_weights[0], box_weights[1], box_weights[2], box_weights[3]};
  args.score_threshold = score_threshold;
  args.nms_threshold = nms_threshold;
  args.input_height = input_height;
  args.input_width = input_width;
  nb::gil_scoped_release const release;
  panrt::box_detections(args, threads);
}

void define_box_detections(nb::module_& module) {
  module.def("box_detections", &box_detections, nb::arg("class_logits").noconvert(), nb::arg("box_deltas").noconvert(),
             nb::arg("rois").noconvert(), nb::arg("roi_count").noconvert(), nb::arg("boxes").noconvert(),
             nb::arg("scores").noconvert(), nb::arg("classes").noconvert(), nb::arg("count").noconvert(), nb::kw_only(),
             nb::arg("box_weights"), nb::arg("score_threshold"), nb::arg("nms_threshold"), nb::arg("input_height"),
             nb::arg("input_width"), nb::arg("threads"));
}

void panoptic_merge(In<float, 4> const& semantic_logits, In<float, 3> const& boxes, In<float, 2> const& scores,
                    In<std::int32_t, 2> const& classes, In<std::int32_t, 1> const& count,
                    In<float, 4> const& mask_probs, Out<std::int32_t, 3> const& panoptic,
                    Out<std::int32_t, 3> const& segments, Out<float, 2> const& segment_scores,
                    Out<std::int32_t, 1> const& segment_count, int input_height, int input_width, float score_threshold,
                    float overlap_threshold, int stuff_area_limit, float mask_threshold, int threads) {
  std::size_t const N = scores.shape(0), K = scores.shape(1), S = semantic_logits.shape(1);
  std::size_t const h = semantic_logits.shape(2), w = semantic_logits.shape(3);
  std::size_t const H = panoptic.shape(1), W = panoptic.shape(2);
  expect_threads(threads);
  expect_number("score_threshold", score_threshold, -kLargest, kLargest);
  expect_number("overlap_threshold", overlap_threshold, 0.0F, 1.0F);
  expect_int("stuff_area_limit", stuff_area_limit, 0);
  expect_number("mask_threshold", mask_threshold, std::numeric_limits<float>::denorm_min(), 1.0F);
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
  arrays.read("semantic_logits", semantic_logits, {N, S, h, w});
  arrays.read("boxes", boxes, {N, K, 4});
  arrays.read("scores", scores, {N, K});
  arrays.read("classes", classes, {N, K});
  arrays.read("count", count, {N});
  arrays.read("mask_probs", mask_probs, {N, K, mask_probs.shape(2), mask_probs.shape(3)});
  arrays.write("panoptic", panoptic, {N, H, W});
  arrays.write("segments", segments, {N, K + S, 8});
  arrays.write("segment_scores", segment_scores, {N, K + S});
  arrays.write("segment_count", segment_count, {N});
  arrays.expect_apart();
  args.semantic_logits = semantic_logits.data();
  args.boxes = boxes.data();
  args.scores = scores.data();
  args.classes = classes.data();
  args.count = count.data();
  args.mask_probs = mask_probs.data();
  args.panoptic = panoptic.data();
  args.segments = segments.data();
  args.segment_scores = segment_scores.data();
  args.segment_count = segment_count.data();
  args.score_threshold = score_threshold;
  args.overlap_threshold = overlap_threshold;
  args.stuff_area_limit = stuff_area_limit;
  args.mask_threshold = mask_threshold;
  nb::gil_scoped_release const release;
  panrt::panoptic_merge(args, threads);
}

void overlay(In<std::uint8_t, 3> const& frame, In<std::int32_t, 2> const& panoptic, In<std::uint8_t, 2> const& colors,
             Out<std::uint8_t, 3> const& result, int opacity, int border, int threads) {
  std::size_t const height = frame.shape(0), width = frame.shape(1);
  expect_threads(threads);
  expect_int("opacity", opacity, 0, 256);
  expect_int("border", border, 0);
  panrt::OverlayArgs args{};
  args.height = expect_int("frame: height", height, 1);
  args.width = expect_int("frame: width", width, 1, std::numeric_limits<int>::max() / 3);
  args.map_height = expect_int("panoptic: height", panoptic.shape(0), 1);
  args.map_width = expect_int("panoptic: width", panoptic.shape(1), 1);
  args.colors_count = expect_int("colors: rows", colors.shape(0), 0);
  Arrays arrays;
  arrays.read("frame", frame, {height, width, 3});
  arrays.read("panoptic", panoptic, {panoptic.shape(0), panoptic.shape(1)});
  arrays.read("colors", colors, {colors.shape(0), 3});
  arrays.write("result", result, {height, width, 3});
  arrays.expect_apart();
  args.frame = frame.data();
  args.map = panoptic.data();
  args.colors = colors.data();
  args.result = result.data();
  args.opacity = opacity;
  args.border = std::min(border, 64);
  nb::gil_scoped_release const release;
  panrt::overlay(args, threads);
}

// Channels or filters, which lie side by side in the lanes of vectors.
int expect_lanes(char const* name, std::size_t count) {
  if (count % panrt::kConv3x3Filters != 0) reject(name, "expected a multiple of 16, got " + std::to_string(count));
  return expect_int(name, count, panrt::kConv3x3Filters, panrt::kMaxSide);
}

std::size_t conv3x3_workspace(std::size_t channels, std::size_t filters) {
  return panrt::conv3x3_workspace(expect_lanes("channels", channels), expect_lanes("filters", filters));
}

void conv3x3(In<float, 4> const& input, In<float, 4> const& weights, In<float, 1> const& bias,
             Out<float, 4> const& output, Out<float, 2> const& workspace, float lower, float upper, int variant,
             int threads) {
  std::size_t const images = input.shape(0), height = input.shape(1), width = input.shape(2), channels = input.shape(3);
  std::size_t const filters = bias.shape(0);
  constexpr std::size_t kFilters = panrt::kConv3x3Filters;
  panrt::Conv3x3Args args{};
  args.images = expect_int("input: images", images, 0);
  args.height = expect_int("input: height", height, 0);
  args.width = expect_int("input: width", width, 0);
  expect_int("input: pixels", height * width, 0);
  args.channels = expect_lanes("input: channels", channels);
  args.filters = expect_lanes("bias", filters);
  args.variant = expect_int("variant", variant, 0, static_cast<int>(panrt::conv3x3_variants().size()) - 1);
  if (!(lower <= upper)) reject("lower, upper", "expected a lower bound and one that is not below it");
  auto const workers = static_cast<std::size_t>(expect_threads(threads));
  Arrays arrays;
  arrays.read("input", input, {images, height, width, channels});
  arrays.read("weights", weights, {36, filters / kFilters, channels, kFilters});
  arrays.read("bias", bias, {filters});
  arrays.write("output", output, {images, height, width, filters});
  arrays.write("workspace", workspace, {workers, panrt::conv3x3_workspace(args.channels, args.filters)});
  arrays.expect_apart();
  args.input = input.data();
  args.weights = weights.data();
  args.bias = bias.data();
  args.output = output.data();
  args.workspace = workspace.data();
  args.lower = lower;
  args.upper = upper;
  nb::gil_scoped_release const release;
  panrt::conv3x3(args, threads);
}

void look_up(In<std::uint8_t, 4> const& image, In<float, 2> const& table, Out<float, 4> const& output, int threads) {
  std::size_t const images = image.shape(0), height = image.shape(1), width = image.shape(2);
  expect_threads(threads);
  panrt::LookUpArgs args{};
  args.images = expect_int("image: images", images, 0);
  args.height = expect_int("image: height", height, 0);
  args.width = expect_int("image: width", width, 0);
  Arrays arrays;
  arrays.read("image", image, {images, height, width, 3});
  arrays.read("table", table, {3, 256});
  arrays.write("output", output, {images, 3, height, width});
  arrays.expect_apart();
  args.image = image.data();
  args.table = table.data();
  args.output = output.data();
  nb::gil_scoped_release const release;
  panrt::look_up(args, threads);
}

#ifdef __GLIBC__
void leave(int status, void*) {
  std::fflush(nullptr);
  _exit(status);
}
#endif

// Ends this process, when its time comes, before the destructors of libraries run that were loaded until now. For
// forked processes: ONNX Runtime's destructors wait for threads that did not survive the fork.
void skip_destructors() {
#ifdef __GLIBC__
  on_exit(&leave, nullptr);
#endif
}

}  // namespace

NB_MODULE(_native, module) {
  if (char const* const fault = panrt::arithmetic_fault()) {
    throw std::runtime_error(std::string("panrt.plugins._native: ") + fault +
                             ". Build PanRT again with CXXFLAGS unset.");
  }
  define_rpn_proposals(module);
  define_pyramid_roi_align<float>(module);
  define_pyramid_roi_align<panrt::Half>(module);
  define_box_detections(module);
  module.def("panoptic_merge", &panoptic_merge, nb::arg("semantic_logits").noconvert(), nb::arg("boxes").noconvert(),
             nb::arg("scores").noconvert(), nb::arg("classes").noconvert(), nb::arg("count").noconvert(),
             nb::arg("mask_probs").noconvert(), nb::arg("panoptic").noconvert(), nb::arg("segments").noconvert(),
             nb::arg("segment_scores").noconvert(), nb::arg("segment_count").noconvert(), nb::kw_only(),
             nb::arg("input_height"), nb::arg("input_width"), nb::arg("score_threshold"), nb::arg("overlap_threshold"),
             nb::arg("stuff_area_limit"), nb::arg("mask_threshold"), nb::arg("threads"));
  module.def("conv3x3_variants", [] {
    std::vector<std::string> names;
    for (char const* name : panrt::conv3x3_variants()) names.emplace_back(name);
    return names;
  });
  module.def("conv3x3_workspace", &conv3x3_workspace, nb::arg("channels"), nb::arg("filters"));
  module.def("conv3x3", &conv3x3, nb::arg("input").noconvert(), nb::arg("weights").noconvert(),
             nb::arg("bias").noconvert(), nb::arg("output").noconvert(), nb::arg("workspace").noconvert(),
             nb::kw_only(), nb::arg("lower"), nb::arg("upper"), nb::arg("variant"), nb::arg("threads"));
  module.def("skip_destructors", &skip_destructors);
  module.def("look_up", &look_up, nb::arg("image").noconvert(), nb::arg("table").noconvert(),
             nb::arg("output").noconvert(), nb::kw_only(), nb::arg("threads"));
  module.def("overlay", &overlay, nb::arg("frame").noconvert(), nb::arg("panoptic").noconvert(),
             nb::arg("colors").noconvert(), nb::arg("result").noconvert(), nb::kw_only(), nb::arg("opacity"),
             nb::arg("border"), nb::arg("threads"));
}
