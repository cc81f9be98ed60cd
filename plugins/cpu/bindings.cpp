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

}  // namespace

NB_MODULE(_native, module) {
  define_pyramid_roi_align<float>(module);
  define_pyramid_roi_align<panrt::Half>(module);
}
