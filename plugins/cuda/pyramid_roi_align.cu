// PyramidRoiAlign. A block owns a RoI.
//
// The samples of a bin form a separable grid, so their taps are collapsed to one weight per row and one per column of
// cells: a bin is a sum over rows and columns of row_weight * column_weight * feature. That is done once per RoI, into
// shared memory, by a thread for each bin of each axis, and the whole block pools with it. Work is bounded by the
// map, however far a RoI reaches.
#include <algorithm>
#include <cmath>

#include "checks.h"
#include "launch.h"
#include "panrt/limits.h"
#include "panrt/ops.h"
#include "panrt/roi_align.h"
#include "prepare.h"
#include "vectors.h"
#include "workspace.h"

namespace panrt::cuda {
namespace {

constexpr int kMaxThreads = 256;

// --- A RoI's taps in shared memory -----------------------------------------------------------------------------------

// One axis: bin b reads the cells begin[b] to end[b] - 1, none if they are equal; weights[first[b] + i] belongs to
// the i-th of them. It is kUntouched if samples are so far apart that none touches the cell.
struct AxisTaps {
  float* weights;
  int* begin;
  int* end;
  int* first;
};

// Neighbouring bins share up to two cells, and three where rounding turns samples of a very thin RoI about.
__host__ __device__ constexpr int weight_capacity(int size, int bins) { return size + 4 * bins; }
__host__ __device__ constexpr int axis_words(int size, int bins) { return weight_capacity(size, bins) + 3 * bins; }

__device__ AxisTaps place_axis(int* words, int size, int bins) {
  int* const bounds = words + weight_capacity(size, bins);
  return {reinterpret_cast<float*>(words), bounds, bounds + bins, bounds + 2 * bins};
}

// The value of a cell that no sample touches must not matter, even if it is not finite; a touch with weight 0 counts,
// as in IEEE arithmetic. To tell them apart, the weight of an untouched cell is NaN, and so is any product with it.
constexpr float kUntouched = NAN;
__device__ __forceinline__ bool is_untouched(float weight) { return weight != weight; }

struct SampleRange {
  int first, end;
};

// The samples of a bin within a few cells of the map. A bin that reaches far outside has thousands that are not.
__device__ SampleRange samples_near_map(RoiAxis const& axis, int bin, int size) {
  auto const samples = static_cast<float>(axis.samples);
  float const step = axis.bin_size / samples;
  if (!(step > 0.0F)) return {0, axis.samples};
  float const origin = axis.start + static_cast<float>(bin) * axis.bin_size;
  float const below = floorf((-3.0F - origin) / step);
  float const above = floorf((static_cast<float>(size) + 2.0F - origin) / step);
  auto const first = static_cast<int>(fminf(fmaxf(below, 0.0F), samples));
  auto const last = static_cast<int>(fminf(fmaxf(above, 0.0F), samples));
  return {first, min(last + 1, axis.samples)};
}

struct CellRange {
  int begin, end;
};

// Cells that the samples of a bin touch.
__device__ CellRange touched_cells(RoiAxis const& axis, int bin, int size, SampleRange const& samples) {
  int first = samples.first, last = samples.end - 1;
  while (first <= last && !is_inside(sample_position(axis, bin, first), size)) ++first;
  while (last >= first && !is_inside(sample_position(axis, bin, last), size)) --last;
  if (first > last) return {0, 0};
  return {linear_taps(sample_position(axis, bin, first), size).low,
          linear_taps(sample_position(axis, bin, last), size).high + 1};
}

// Weights of a bin's `cells`.
__device__ void collapse(RoiAxis const& axis, int bin, int size, SampleRange const& samples, CellRange const& cells,
                         float* weights) {
  auto const touch = [](float& weight, float more) { weight = is_untouched(weight) ? more : weight + more; };
  for (int i = 0; i < cells.end - cells.begin; ++i) weights[i] = kUntouched;
  for (int sample = samples.first; sample < samples.end; ++sample) {
    float const position = sample_position(axis, bin, sample);
    if (!is_inside(position, size)) continue;
    LinearTaps const taps = linear_taps(position, size);
    touch(weights[taps.low - cells.begin], taps.low_weight);
    touch(weights[taps.high - cells.begin], taps.high_weight);
  }
  for (int i = 0; i < cells.end - cells.begin; ++i) weights[i] /= static_cast<float>(axis.samples);
}

struct Pyramid {
  PyramidLevel levels[kMaxLevels];
  int level_count, max_height, max_width;  // the largest of all levels
  float canonical_size;
  int canonical_level, min_level;
};

struct Pooling {
  float const* rois;
  std::int64_t rois_total, rois_per_image;
  int channels;  // of a RoI's result, padding included
  int bins;      // S
  int sampling_ratio;
};

struct PlacedRoi {
  AxisTaps rows, columns;
  PyramidLevel level;
  std::int64_t image;
};

// What a thread collapses: a bin of one axis, one of 2 * S, rows first.
struct BinOfRoi {
  RoiAxis axis;
  AxisTaps taps;
  SampleRange samples;
  int bin, size;
};

__device__ __forceinline__ BinOfRoi bin_of_roi(Pyramid const& pyramid, Pooling const& pooling, Roi const& roi,
                                               int level, int item) {
  int const S = pooling.bins, row_words = axis_words(pyramid.max_height, S);
  bool const is_row = item < S;
  int* const words = dynamic_shared<int>() + (is_row ? 0 : row_words);
  int const size = is_row ? pyramid.levels[level].height : pyramid.levels[level].width;
  RoiAxis const axis = roi_axis(is_row ? roi.y0 : roi.x0, is_row ? roi.y1 : roi.x1, pyramid.levels[level].stride, S,
                                pooling.sampling_ratio);
  int const bin = is_row ? item : item - S;
  return {axis, place_axis(words, is_row ? pyramid.max_height : pyramid.max_width, S),
          samples_near_map(axis, bin, size), bin, size};
}

// Called by the whole block; ends with a barrier. An unusable RoI has no cells in any bin.
__device__ PlacedRoi place_roi(Pyramid const& pyramid, Pooling const& pooling, std::int64_t index) {
  int const S = pooling.bins;
  float4 const row = __ldg(reinterpret_cast<float4 const*>(pooling.rois) + index);
  Roi roi{row.x, row.y, row.z, row.w};
  bool const usable = is_usable(roi);
  int level = 0;
  if (!usable) {
    roi = {0.0F, 0.0F, 0.0F, 0.0F};
  } else {
    level = pyramid_level(roi, pyramid.canonical_size, pyramid.canonical_level, pyramid.min_level, pyramid.level_count);
  }
  for (int item = threadIdx.x; item < 2 * S; item += blockDim.x) {
    BinOfRoi const own = bin_of_roi(pyramid, pooling, roi, level, item);
    CellRange const cells = usable ? touched_cells(own.axis, own.bin, own.size, own.samples) : CellRange{0, 0};
    own.taps.begin[own.bin] = cells.begin;
    own.taps.end[own.bin] = cells.end;
  }
  __syncthreads();
  for (int item = threadIdx.x; item < 2 * S; item += blockDim.x) {
    BinOfRoi const own = bin_of_roi(pyramid, pooling, roi, level, item);
    int first = 0;
    for (int before = 0; before < own.bin; ++before) first += own.taps.end[before] - own.taps.begin[before];
    own.taps.first[own.bin] = first;
    CellRange const cells{own.taps.begin[own.bin], own.taps.end[own.bin]};
    if (cells.begin < cells.end) {
      collapse(own.axis, own.bin, own.size, own.samples, cells, own.taps.weights + first);
    }
  }
  __syncthreads();
  int* const words = dynamic_shared<int>();
  return {place_axis(words, pyramid.max_height, S),
          place_axis(words + axis_words(pyramid.max_height, S), pyramid.max_width, S), pyramid.levels[level],
          index / pooling.rois_per_image};
}

// --- Channels last ---------------------------------------------------------------------------------------------------

// `sums[q]` of one row of cells: over the columns of bin first_bin + q, which lie in `cells`. Each of these is read
// once, a few at a time; if samples are more than two cells apart, unneeded ones are read too.
template <typename T, int channels, int kBins>
__device__ __forceinline__ void pool_row(T const* row, int pitch, AxisTaps const& columns, CellRange const& cells,
                                         int first_bin, int bins, float (&sums)[kBins][channels]) {
  constexpr int kBatch = channels == 8 ? 2 : 4;  // loads in flight, as many as registers hold
#pragma unroll
  for (int q = 0; q < kBins; ++q) {
#pragma unroll
    for (int c = 0; c < channels; ++c) sums[q][c] = 0.0F;
  }
  for (int cell = cells.begin; cell < cells.end; cell += kBatch) {
    float values[kBatch][channels];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (cell + i < cells.end) load_vector(row + static_cast<std::int64_t>(cell + i) * pitch, values[i]);
    }
#pragma unroll
    for (int q = 0; q < kBins; ++q) {
      if (q >= bins) break;
      int const bin = first_bin + q, begin = columns.begin[bin], end = columns.end[bin];
      if (end <= cell || begin >= cell + kBatch) continue;
      float const* const weights = columns.weights + columns.first[bin] - begin;
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        float const weight = cell + i >= begin && cell + i < end ? weights[cell + i] : kUntouched;
        if (is_untouched(weight)) continue;
#pragma unroll
        for (int c = 0; c < channels; ++c) sums[q][c] = fmaf(weight, values[i][c], sums[q][c]);
      }
    }
  }
}

// Columns of a few neighbouring bins together.
__device__ __forceinline__ CellRange cells_of_bins(AxisTaps const& taps, int first_bin, int bins) {
  CellRange cells{0, 0};
  for (int bin = first_bin; bin < first_bin + bins; ++bin) {
    int const begin = taps.begin[bin], end = taps.end[bin];
    if (begin == end) continue;
    cells.begin = cells.begin == cells.end ? begin : min(cells.begin, begin);
    cells.end = max(cells.end, end);
  }
  return cells;
}

template <int channels, int kBins>
__device__ __forceinline__ void add_scaled(float weight, float const (&from)[kBins][channels],
                                           float (&to)[kBins][channels]) {
#pragma unroll
  for (int q = 0; q < kBins; ++q) {
#pragma unroll
    for (int c = 0; c < channels; ++c) to[q][c] = fmaf(weight, from[q][c], to[q][c]);
  }
}

// A thread owns `channels` neighbouring channels (16 bytes) of a tile of kRows x kBins bins; the lanes of a warp lie
// side by side, so that a warp reads and writes whole sectors. It walks down the rows of cells, pools each along x
// once, and keeps the last two such rows in registers, since the next row of bins begins with them. So a cell is read
// once per tile; with kRows = kBins = S, once per RoI. Bound by memory latency, which the batches of pool_row hide.
template <typename T, int channels, int kBins>
__global__ void __launch_bounds__(kMaxThreads, channels == 8 ? 1 : 2)
    pool_channels_last(Pyramid const pyramid, Pooling const pooling, T* pooled) {
  constexpr int kRows = 7;
  int const S = pooling.bins, pitch = pooling.channels, vectors = pitch / channels;
  int const tiles_across = (S + kBins - 1) / kBins, tiles = (S + kRows - 1) / kRows * tiles_across;
  for (std::int64_t index = blockIdx.x; index < pooling.rois_total; index += gridDim.x) {
    PlacedRoi const roi = place_roi(pyramid, pooling, index);
    T* const result = pooled + index * S * S * pitch;
    for (int item = threadIdx.x; item < tiles * vectors; item += blockDim.x) {
      int const tile = item / vectors, channel = item % vectors * channels;
      int const first_row = tile / tiles_across * kRows, end_row = min(first_row + kRows, S);
      int const first_bin = tile % tiles_across * kBins, bins = min(kBins, S - first_bin);
      CellRange const columns = cells_of_bins(roi.columns, first_bin, bins);
      float here[kBins][channels], above[kBins][channels];
      int here_cell = -1, above_cell = -1;
      T const* const map =
          static_cast<T const*>(roi.level.data) + roi.image * roi.level.height * roi.level.width * pitch + channel;
      for (int p = first_row; p < end_row; ++p) {
        float sums[kBins][channels] = {};
        for (int cell = roi.rows.begin[p]; cell < roi.rows.end[p]; ++cell) {
          float const weight = roi.rows.weights[roi.rows.first[p] + cell - roi.rows.begin[p]];
          if (is_untouched(weight)) continue;
          if (cell == above_cell) {
            add_scaled(weight, above, sums);
            continue;
          }
          if (cell != here_cell) {
#pragma unroll
            for (int q = 0; q < kBins; ++q) {
#pragma unroll
              for (int c = 0; c < channels; ++c) above[q][c] = here[q][c];
            }
            above_cell = here_cell;
            here_cell = cell;
            pool_row(map + static_cast<std::int64_t>(cell) * roi.level.width * pitch, pitch, roi.columns, columns,
                     first_bin, bins, here);
          }
          add_scaled(weight, here, sums);
        }
#pragma unroll
        for (int q = 0; q < kBins; ++q) {
          if (q < bins) {
            store_vector(sums[q], result + static_cast<std::int64_t>(p * S + first_bin + q) * pitch + channel);
          }
        }
      }
    }
    __syncthreads();  // the taps are free again
  }
}

// --- Channels first --------------------------------------------------------------------------------------------------

// A thread owns a bin of a channel; lanes follow the result, so writes are whole sectors, and neighbouring lanes read
// neighbouring cells of a row. Bound by the requests for cells; engines choose channels last where they can.
template <typename T>
__global__ void __launch_bounds__(kMaxThreads, 2)
    pool_channels_first(Pyramid const pyramid, Pooling const pooling, T* pooled) {
  int const S = pooling.bins, area = S * S;
  for (std::int64_t index = blockIdx.x; index < pooling.rois_total; index += gridDim.x) {
    PlacedRoi const roi = place_roi(pyramid, pooling, index);
    int const items = pooling.channels * area;
    std::int64_t const cells = static_cast<std::int64_t>(roi.level.height) * roi.level.width;
    for (int item = threadIdx.x; item < items; item += blockDim.x) {
      int const channel = item / area, bin = item % area;
      float sum[1] = {0.0F};
      int const p = bin / S, q = bin % S;
      T const* const map = static_cast<T const*>(roi.level.data) + (roi.image * pooling.channels + channel) * cells;
      float const* const row_weights = roi.rows.weights + roi.rows.first[p] - roi.rows.begin[p];
      float const* const column_weights = roi.columns.weights + roi.columns.first[q] - roi.columns.begin[q];
      for (int y = roi.rows.begin[p]; y < roi.rows.end[p]; ++y) {
        T const* const row = map + static_cast<std::int64_t>(y) * roi.level.width;
        for (int x = roi.columns.begin[q]; x < roi.columns.end[q]; ++x) {
          float const weight = row_weights[y] * column_weights[x];
          if (is_untouched(weight)) continue;
          float value[1];
          load_vector(row + x, value);
          sum[0] = fmaf(weight, value[0], sum[0]);
        }
      }
      store_vector(sum, pooled + index * items + item);
    }
    __syncthreads();  // the taps are free again
  }
}

// --- Host ------------------------------------------------------------------------------------------------------------

// Checks the pointers, which check_pyramid_roi_align ignores.
Status check_pointers(PyramidRoiAlignArgs const& args) noexcept {
  Checks checks("PyramidRoiAlign");
  for (int i = 0; i < args.level_count; ++i) {
    checks.that(args.levels[i].data != nullptr, "a level of features is null");
    checks.that(is_aligned(args.levels[i].data, 16), "features: expected memory aligned to 16 bytes");
  }
  if (args.rois_per_image == 0) return checks.status();
  checks.that(args.rois != nullptr && args.pooled != nullptr, "rois or pooled is null");
  checks.that(is_aligned(args.rois, 16) && is_aligned(args.pooled, 16),
              "rois and pooled: expected memory aligned to 16 bytes");
  return checks.status();
}

struct Plan {
  Pyramid pyramid;
  Pooling pooling;
  LaunchShape shape;
};

template <typename T>
Status launch_as(PyramidRoiAlignArgs const& args, Plan plan, cudaStream_t stream) {
  auto* const pooled = static_cast<T*>(args.pooled);
  auto const threads_for = [](std::int64_t items) {
    std::int64_t const rounded = (items + 31) / 32 * 32;
    return static_cast<unsigned>(rounded > kMaxThreads ? kMaxThreads : rounded);
  };
  if (args.layout == Layout::kNchw) {
    plan.shape.block = threads_for(std::int64_t{args.channels} * args.output_size * args.output_size);
    return launch(pool_channels_first<T>, plan.shape, stream, plan.pyramid, plan.pooling, pooled);
  }
  constexpr int kVector = 16 / static_cast<int>(sizeof(T));
  constexpr int kBins = kVector == 8 ? 3 : 4;  // as many sums as registers hold
  if (args.layout == Layout::kNhwc8) plan.pooling.channels = (args.channels + 7) / 8 * 8;
  std::int64_t const tiles_down = (args.output_size + 6) / 7;
  if (plan.pooling.channels % kVector == 0) {
    plan.shape.block =
        threads_for(tiles_down * ((args.output_size + kBins - 1) / kBins) * (plan.pooling.channels / kVector));
    return launch(pool_channels_last<T, kVector, kBins>, plan.shape, stream, plan.pyramid, plan.pooling, pooled);
  }
  plan.shape.block = threads_for(tiles_down * tiles_down * plan.pooling.channels);
  return launch(pool_channels_last<T, 1, 7>, plan.shape, stream, plan.pyramid, plan.pooling, pooled);
}

// The size of a RoI's taps in shared memory.
std::size_t tap_bytes(PyramidRoiAlignArgs const& args) {
  std::int32_t height = 0, width = 0;
  for (int i = 0; i < args.level_count; ++i) {
    height = std::max(height, args.levels[i].height);
    width = std::max(width, args.levels[i].width);
  }
  return static_cast<std::size_t>(axis_words(height, args.output_size) + axis_words(width, args.output_size)) *
         sizeof(int);
}

}  // namespace

Status check_pyramid_roi_align(PyramidRoiAlignArgs const& args) noexcept {
  Checks checks("PyramidRoiAlign");
  checks.range("images", args.images, 1, kMaxImages);
  checks.range("rois_per_image", args.rois_per_image, 0, kMaxRows);
  checks.range("level_count", args.level_count, 1, kMaxLevels);
  checks.range("channels", args.channels, 1, kMaxPooled);
  checks.range("output_size", args.output_size, 1, kMaxBins);
  checks.range("sampling_ratio", args.sampling_ratio, 0, kMaxSamples);
  checks.above_zero("canonical_size", args.canonical_size);
  checks.range("canonical_level", args.canonical_level, 0, kMaxLevelNumber);
  checks.range("min_level", args.min_level, 0, kMaxLevelNumber);
  checks.at_most("channels * output_size^2", std::int64_t{args.channels} * args.output_size * args.output_size,
                 kMaxPooled, "numbers of a RoI");
  checks.that(args.type == DataType::kFloat32 || args.type == DataType::kFloat16,
              "features: expected float32 or float16", Code::kUnsupported);
  bool const known = args.layout == Layout::kNchw || args.layout == Layout::kNhwc || args.layout == Layout::kNhwc8;
  checks.that(known && (args.layout != Layout::kNhwc8 || args.type == DataType::kFloat16),
              "features: expected NCHW, NHWC, or NHWC8 in float16", Code::kUnsupported);
  for (int i = 0; checks.ok() && i < args.level_count; ++i) {
    PyramidLevel const& level = args.levels[i];
    checks.range("levels: height", level.height, 1, kMaxSide);
    checks.range("levels: width", level.width, 1, kMaxSide);
    checks.number("levels: stride", level.stride, 1.0F, static_cast<float>(kMaxSide));
  }
  checks.that(!checks.ok() || tap_bytes(args) <= kMaxSharedBytes,
              "levels: the taps of a RoI do not fit into shared memory (height and width of the largest levels and 14 "
              "times output_size come to 12288 at most)",
              Code::kUnsupported);
  return checks.status();
}

Status launch_pyramid_roi_align(PyramidRoiAlignArgs const& args, cudaStream_t stream) noexcept {
  Status status = check_pyramid_roi_align(args);
  if (status.ok()) status = check_pointers(args);
  std::int64_t const rois = args.images * args.rois_per_image;
  if (!status.ok() || rois == 0) return status;
  Plan plan{};
  plan.pyramid = {{}, args.level_count, 0, 0, args.canonical_size, args.canonical_level, args.min_level};
  for (int i = 0; i < args.level_count; ++i) {
    plan.pyramid.levels[i] = args.levels[i];
    if (args.levels[i].height > plan.pyramid.max_height) plan.pyramid.max_height = args.levels[i].height;
    if (args.levels[i].width > plan.pyramid.max_width) plan.pyramid.max_width = args.levels[i].width;
  }
  plan.pooling = {args.rois, rois, args.rois_per_image, args.channels, args.output_size, args.sampling_ratio};
  plan.shape.shared_bytes = tap_bytes(args);
  plan.shape.grid = blocks_for(rois, 1);
  return args.type == DataType::kFloat32 ? launch_as<float>(args, plan, stream) : launch_as<__half>(args, plan, stream);
}

Status prepare_pyramid_roi_align() noexcept {
  return prepare(pool_channels_first<float>, pool_channels_first<__half>, pool_channels_last<float, 4, 4>,
                 pool_channels_last<__half, 8, 3>, pool_channels_last<float, 1, 7>, pool_channels_last<__half, 1, 7>);
}

}  // namespace panrt::cuda
