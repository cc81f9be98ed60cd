// panrt.plugins._native: the CPU kernels for Python. Called by native.py, which has checked the arguments and allocated
// the outputs; here only what memory safety needs is checked again. The GIL is released around every kernel.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

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

}  // namespace

NB_MODULE(_native, module) {
  define_pyramid_roi_align<float>(module);
  define_pyramid_roi_align<panrt::Half>(module);
  module.def("panoptic_merge", &panoptic_merge, nb::arg("semantic_logits").noconvert(), nb::arg("boxes").noconvert(),
             nb::arg("scores").noconvert(), nb::arg("classes").noconvert(), nb::arg("count").noconvert(),
             nb::arg("mask_probs").noconvert(), nb::arg("panoptic").noconvert(), nb::arg("segments").noconvert(),
             nb::arg("segment_scores").noconvert(), nb::arg("segment_count").noconvert(), nb::kw_only(),
             nb::arg("input_height"), nb::arg("input_width"), nb::arg("score_threshold"), nb::arg("overlap_threshold"),
             nb::arg("stuff_area_limit"), nb::arg("mask_threshold"), nb::arg("threads"));
}
