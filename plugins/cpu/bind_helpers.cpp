// The functions of panrt.plugins._native that are no ops.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "arguments.h"
#include "kernels.h"
#include "panrt/limits.h"

namespace panrt::python {
namespace {

void overlay(In<std::uint8_t, 3> const& frame, In<std::int32_t, 2> const& panoptic, In<std::uint8_t, 2> const& colors,
             Out<std::uint8_t, 3> const& result, int opacity, int border, int threads) {
  std::size_t const height = frame.shape(0), width = frame.shape(1);
  expect_threads(threads);
  panrt::OverlayArgs args{};
  args.opacity = expect_int("opacity", opacity, 0, 256);
  expect_int("border", border, 0);
  args.height = expect_int("frame: height", height, 1);
  args.width = expect_int("frame: width", width, 1, std::numeric_limits<int>::max() / 3);
  args.map_height = expect_int("panoptic: height", panoptic.shape(0), 1);
  args.map_width = expect_int("panoptic: width", panoptic.shape(1), 1);
  args.colors_count = expect_int("colors: rows", colors.shape(0), 0);
  Arrays arrays;
  args.frame = arrays.read("frame", frame, {height, width, 3});
  args.map = arrays.read("panoptic", panoptic, {panoptic.shape(0), panoptic.shape(1)});
  args.colors = arrays.read("colors", colors, {colors.shape(0), 3});
  args.result = arrays.write("result", result, {height, width, 3});
  arrays.expect_apart();
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
  args.input = arrays.read("input", input, {images, height, width, channels});
  args.weights = arrays.read("weights", weights, {36, filters / kFilters, channels, kFilters});
  args.bias = arrays.read("bias", bias, {filters});
  args.output = arrays.write("output", output, {images, height, width, filters});
  args.workspace =
      arrays.write("workspace", workspace, {workers, panrt::conv3x3_workspace(args.channels, args.filters)});
  arrays.expect_apart();
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
  args.image = arrays.read("image", image, {images, height, width, 3});
  args.table = arrays.read("table", table, {3, 256});
  args.output = arrays.write("output", output, {images, 3, height, width});
  arrays.expect_apart();
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

void define_helpers(nb::module_& module) {
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

}  // namespace panrt::python
