// panrt.plugins._native: the CPU kernels for Python. Called by native.py, which has checked the arguments and allocated
// the outputs; here only what memory safety needs is checked again. The GIL is released around every kernel.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

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

template <typename Array>
void expect_shape(char const* name, Array const& array, std::vector<std::size_t> const& shape) {
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (array.shape(i) != shape[i]) {
      throw std::invalid_argument(std::string(name) + ": axis " + std::to_string(i) + " is " +
                                  std::to_string(array.shape(i)) + ", expected " + std::to_string(shape[i]));
    }
  }
}

// Box candidates are numbered in 32 bits.
void expect_numbered(char const* name, std::size_t candidates) {
  if (candidates > std::numeric_limits<std::uint32_t>::max()) {
    throw std::invalid_argument(std::string(name) + ": " + std::to_string(candidates) + " boxes an image are too many");
  }
}

int to_int(char const* name, std::size_t size) {
  if (size > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw std::invalid_argument(std::string(name) + ": a side of " + std::to_string(size) + " is too long");
  }
  return static_cast<int>(size);
}

template <typename T>
void pyramid_roi_align(std::vector<In<T, 4>> const& features, In<float, 3> const& rois, Out<T, 4> const& pooled,
                       std::vector<float> const& strides, int output_size, int sampling_ratio, float canonical_size,
                       int canonical_level, int min_level, bool nhwc, int threads) {
  if (features.empty() || features.size() != strides.size()) {
    throw std::invalid_argument("features: expected one array a stride, at least one");
  }
  if (output_size < 1 || threads < 1) throw std::invalid_argument("output_size, threads: expected at least 1");
  std::size_t const images = features[0].shape(0), channels = features[0].shape(nhwc ? 3 : 1);
  auto const bins = static_cast<std::size_t>(output_size);
  panrt::PyramidRoiAlignArgs<T> args{};
  for (std::size_t i = 0; i < features.size(); ++i) {
    std::size_t const height = features[i].shape(nhwc ? 1 : 2), width = features[i].shape(nhwc ? 2 : 3);
    if (nhwc) {
      expect_shape("features", features[i], {images, height, width, channels});
    } else {
      expect_shape("features", features[i], {images, channels, height, width});
    }
    if (!(strides[i] >= 1.0F)) throw std::invalid_argument("strides: expected at least 1");
    args.levels.push_back({features[i].data(), to_int("features", height), to_int("features", width), strides[i]});
  }
  expect_shape("rois", rois, {images, rois.shape(1), 4});
  if (nhwc) {
    expect_shape("pooled", pooled, {images * rois.shape(1), bins, bins, channels});
  } else {
    expect_shape("pooled", pooled, {images * rois.shape(1), channels, bins, bins});
  }
  args.rois = rois.data();
  args.pooled = pooled.data();
  args.layout = nhwc ? panrt::Layout::kNhwc : panrt::Layout::kNchw;
  args.images = static_cast<std::int64_t>(images);
  args.rois_per_image = static_cast<std::int64_t>(rois.shape(1));
  args.channels = to_int("features", channels);
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
    throw std::invalid_argument("logits, deltas, strides, anchor_sizes: expected one entry a level, at least one");
  }
  if (pre_nms_top_k < 1 || threads < 1) throw std::invalid_argument("pre_nms_top_k, threads: expected at least 1");
  std::size_t const images = rois.shape(0), anchors = aspect_ratios.size();
  std::size_t all_anchors = 0;
  panrt::RpnProposalsArgs args{};
  for (std::size_t i = 0; i < logits.size(); ++i) {
    std::size_t const height = logits[i].shape(2), width = logits[i].shape(3);
    expect_shape("logits", logits[i], {images, anchors, height, width});
    expect_shape("deltas", deltas[i], {images, 4 * anchors, height, width});
    all_anchors += anchors * height * width;
    args.levels.push_back({logits[i].data(), deltas[i].data(), to_int("logits", height), to_int("logits", width),
                           strides[i], anchor_sizes[i]});
  }
  expect_numbered("logits", all_anchors);
  expect_shape("rois", rois, {images, rois.shape(1), 4});
  expect_shape("roi_count", roi_count, {images});
  args.aspect_ratios = aspect_ratios;
  args.rois = rois.data();
  args.roi_count = roi_count.data();
  args.images = static_cast<std::int64_t>(images);
  args.pre_nms_top_k = pre_nms_top_k;
  args.post_nms_top_k = to_int("rois", rois.shape(1));
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
  if (class_logits.shape(2) < 2) throw std::invalid_argument("class_logits: expected a thing class and background");
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1");
  std::size_t const thing_classes = class_logits.shape(2) - 1;
  expect_shape("class_logits", class_logits, {images, rows, thing_classes + 1});
  expect_shape("box_deltas", box_deltas, {images, rows, 4 * thing_classes});
  expect_shape("rois", rois, {images, rows, 4});
  expect_shape("roi_count", roi_count, {images});
  expect_shape("boxes", boxes, {images, K, 4});
  expect_shape("scores", scores, {images, K});
  expect_shape("classes", classes, {images, K});
  expect_shape("count", count, {images});
  expect_numbered("box_deltas", rows * thing_classes);
  panrt::BoxDetectionsArgs args{};
  args.class_logits = class_logits.data();
  args.box_deltas = box_deltas.data();
  args.rois = rois.data();
  args.roi_count = roi_count.data();
  args.boxes = boxes.data();
  args.scores = scores.data();
  args.classes = classes.data();
  args.count = count.data();
  args.images = static_cast<std::int64_t>(images);
  args.rois_per_image = static_cast<std::int64_t>(rows);
  args.thing_classes = to_int("class_logits", thing_classes);
  args.box_weights = {box_weights[0], box_weights[1], box_weights[2], box_weights[3]};
  args.score_threshold = score_threshold;
  args.nms_threshold = nms_threshold;
  args.max_detections = to_int("boxes", K);
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
  expect_shape("semantic_logits", semantic_logits, {N, S, h, w});
  expect_shape("boxes", boxes, {N, K, 4});
  expect_shape("classes", classes, {N, K});
  expect_shape("count", count, {N});
  expect_shape("mask_probs", mask_probs, {N, K, mask_probs.shape(2), mask_probs.shape(3)});
  expect_shape("panoptic", panoptic, {N, panoptic.shape(1), panoptic.shape(2)});
  expect_shape("segments", segments, {N, K + S, 8});
  expect_shape("segment_scores", segment_scores, {N, K + S});
  expect_shape("segment_count", segment_count, {N});
  if (input_height < 1 || input_width < 1 || static_cast<std::size_t>(input_height) > 4 * h ||
      static_cast<std::size_t>(input_width) > 4 * w) {
    throw std::invalid_argument("input_hw: expected at least 1 and at most four times the semantic logits");
  }
  if (panoptic.shape(1) > 32768 || panoptic.shape(2) > 32768) {
    throw std::invalid_argument("panoptic: expected sides of at most 32768");
  }
  panrt::PanopticMergeArgs args{};
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
  args.images = static_cast<std::int64_t>(N);
  args.detections = static_cast<std::int64_t>(K);
  args.channels = static_cast<int>(S);
  args.height = static_cast<int>(h);
  args.width = static_cast<int>(w);
  args.mask_height = static_cast<int>(mask_probs.shape(2));
  args.mask_width = static_cast<int>(mask_probs.shape(3));
  args.input_height = input_height;
  args.input_width = input_width;
  args.output_height = static_cast<int>(panoptic.shape(1));
  args.output_width = static_cast<int>(panoptic.shape(2));
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
  expect_shape("frame", frame, {height, width, 3});
  expect_shape("colors", colors, {colors.shape(0), 3});
  expect_shape("result", result, {height, width, 3});
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1");
  if (opacity < 0 || opacity > 256 || border < 0) {
    throw std::invalid_argument("opacity, border: expected 0 to 256, and at least 0");
  }
  if (height == 0 || width == 0 || panoptic.shape(0) == 0 || panoptic.shape(1) == 0) {
    throw std::invalid_argument("frame, panoptic: expected at least one pixel");
  }
  panrt::OverlayArgs args{};
  args.frame = frame.data();
  args.map = panoptic.data();
  args.colors = colors.data();
  args.result = result.data();
  args.height = to_int("frame", height);
  args.width = to_int("frame", 3 * width) / 3;
  args.map_height = to_int("panoptic", panoptic.shape(0));
  args.map_width = to_int("panoptic", panoptic.shape(1));
  args.colors_count = to_int("colors", colors.shape(0));
  args.opacity = opacity;
  args.border = std::min(border, 64);
  nb::gil_scoped_release const release;
  panrt::overlay(args, threads);
}

void conv3x3(In<float, 4> const& input, In<float, 4> const& weights, In<float, 1> const& bias,
             Out<float, 4> const& output, Out<float, 2> const& workspace, float lower, float upper, int variant,
             int threads) {
  std::size_t const images = input.shape(0), height = input.shape(1), width = input.shape(2), channels = input.shape(3);
  std::size_t const filters = bias.shape(0);
  constexpr std::size_t kFilters = panrt::kConv3x3Filters;
  if (channels == 0 || channels % kFilters != 0 || filters == 0 || filters % kFilters != 0 || threads < 1) {
    throw std::invalid_argument("input, bias, threads: expected multiples of 16 channels and filters, and a thread");
  }
  expect_shape("weights", weights, {36, filters / kFilters, channels, kFilters});
  expect_shape("output", output, {images, height, width, filters});
  panrt::Conv3x3Args args{};
  args.input = input.data();
  args.weights = weights.data();
  args.bias = bias.data();
  args.output = output.data();
  args.workspace = workspace.data();
  args.images = static_cast<std::int64_t>(images);
  args.height = to_int("input", height);
  args.width = to_int("input", width);
  args.channels = to_int("input", channels);
  args.filters = to_int("bias", filters);
  args.variant = variant;
  args.lower = lower;
  args.upper = upper;
  to_int("input", height * width);
  std::size_t const floats = panrt::conv3x3_workspace(args.channels, args.filters);
  expect_shape("workspace", workspace, {static_cast<std::size_t>(threads), floats});
  nb::gil_scoped_release const release;
  panrt::conv3x3(args, threads);
}

void look_up(In<std::uint8_t, 4> const& image, In<float, 2> const& table, Out<float, 4> const& output, int threads) {
  std::size_t const images = image.shape(0), height = image.shape(1), width = image.shape(2);
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1");
  expect_shape("image", image, {images, height, width, 3});
  expect_shape("table", table, {3, 256});
  expect_shape("output", output, {images, 3, height, width});
  panrt::LookUpArgs args{};
  args.image = image.data();
  args.table = table.data();
  args.output = output.data();
  args.images = static_cast<std::int64_t>(images);
  args.height = to_int("image", height);
  args.width = to_int("image", width);
  nb::gil_scoped_release const release;
  panrt::look_up(args, threads);
}

}  // namespace

NB_MODULE(_native, module) {
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
  module.def("conv3x3_workspace", &panrt::conv3x3_workspace, nb::arg("channels"), nb::arg("filters"));
  module.def("conv3x3", &conv3x3, nb::arg("input").noconvert(), nb::arg("weights").noconvert(),
             nb::arg("bias").noconvert(), nb::arg("output").noconvert(), nb::arg("workspace").noconvert(),
             nb::kw_only(), nb::arg("lower"), nb::arg("upper"), nb::arg("variant"), nb::arg("threads"));
  module.def("look_up", &look_up, nb::arg("image").noconvert(), nb::arg("table").noconvert(),
             nb::arg("output").noconvert(), nb::kw_only(), nb::arg("threads"));
  module.def("overlay", &overlay, nb::arg("frame").noconvert(), nb::arg("panoptic").noconvert(),
             nb::arg("colors").noconvert(), nb::arg("result").noconvert(), nb::kw_only(), nb::arg("opacity"),
             nb::arg("border"), nb::arg("threads"));
}
