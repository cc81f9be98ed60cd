// PyramidRoiAlign on the CPU.
//
// The samples of a bin form a separable grid. So per bin and axis the taps of all samples are collapsed to one weight
// per feature row or column, and the bin is a sum over rows and columns: row_weight * column_weight * feature[row,
// column]. Every cell is read once however many samples fall into it, and the work for a RoI is bounded by the size of
// the map.
//
// That sum runs over channels, contiguous in float32 NHWC. Features in another form are brought to it first, but only
// those tiles of the map that some RoI touches; a result in another form is converted RoI by RoI, from cache.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <tuple>
#include <type_traits>
#include <vector>

#include "kernels.h"
#include "panrt/roi_align.h"
#include "scratch.h"
#include "simd.h"
#include "thread_pool.h"

namespace panrt {
namespace {

// --- Collapsed taps --------------------------------------------------------------------------------------------------

// A feature row or column that a bin touches, and its offset in floats from the first one of the map.
struct Tap {
  std::ptrdiff_t offset;
  float weight;
};

// One axis of a RoI: the taps of bin b are taps[first[b]] to taps[first[b + 1] - 1].
struct AxisTaps {
  std::vector<Tap> taps;
  std::vector<std::size_t> first;

  Tap const* begin(int bin) const { return taps.data() + first[static_cast<std::size_t>(bin)]; }
  Tap const* end(int bin) const { return begin(bin + 1); }
};

struct Range {
  int first, end;
};

// The samples of a bin that may lie inside the map: those within a cell of it, which is more than rounding can move
// them. An adaptive grid takes thousands of samples in a bin that reaches far outside; this skips them at once.
Range samples_near_map(RoiAxis const& axis, int bin, int size) {
  float const step = axis.bin_size / static_cast<float>(axis.samples);
  if (!(step > 0.0F)) return {0, axis.samples};
  float const origin = axis.start + static_cast<float>(bin) * axis.bin_size;
  auto const samples_below = [&](float position) {
    float const samples = std::floor((position - origin) / step);
    return static_cast<int>(std::clamp(samples, 0.0F, static_cast<float>(axis.samples)));
  };
  return {samples_below(-3.0F), std::min(samples_below(static_cast<float>(size) + 2.0F) + 1, axis.samples)};
}

void collapse(RoiAxis const& axis, int bins, int size, std::ptrdiff_t cell_stride, AxisTaps& result) {
  result.taps.clear();
  result.first.assign(1, 0);
  for (int bin = 0; bin < bins; ++bin) {
    std::size_t const first = result.taps.size();
    auto const add = [&](int cell, float weight) {
      std::ptrdiff_t const offset = cell * cell_stride;
      std::size_t const end = result.taps.size();
      std::size_t const last_two = std::max(first + 2, end) - 2;  // positions ascend: an equal tap can only be here
      for (std::size_t i = last_two; i < end; ++i) {
        if (result.taps[i].offset == offset) {
          result.taps[i].weight += weight;
          return;
        }
      }
      result.taps.push_back({offset, weight});
    };
    Range const samples = samples_near_map(axis, bin, size);
    for (int sample = samples.first; sample < samples.end; ++sample) {
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

// --- Hot loops -------------------------------------------------------------------------------------------------------

namespace loops {

template <int blocks>
PANRT_INLINE void sum_channels(float const* map, Tap const* row, Tap const* rows_end, Tap const* columns,
                               Tap const* columns_end, float* result) {
  Float8 sum[blocks];
  for (int i = 0; i < blocks; ++i) sum[i] = Float8{};
  for (; row != rows_end; ++row) {
    for (Tap const* column = columns; column != columns_end; ++column) {
      float const* const cell = map + row->offset + column->offset;
      float const weight = row->weight * column->weight;
      for (int i = 0; i < blocks; ++i) {
        Float8 value;
        load(cell + 8 * i, value);
        sum[i] += weight * value;
      }
    }
  }
  for (int i = 0; i < blocks; ++i) store(sum[i], result + 8 * i);
}

// One bin: result[c] = sum over rows and columns of weight * map[row, column, c].
PANRT_INLINE void pool_bin(float const* map, Tap const* rows, Tap const* rows_end, Tap const* columns,
                           Tap const* columns_end, int channels, float* result) {
  int channel = 0;
  for (; channel + 64 <= channels; channel += 64) {
    sum_channels<8>(map + channel, rows, rows_end, columns, columns_end, result + channel);
  }
  for (; channel + 8 <= channels; channel += 8) {
    sum_channels<1>(map + channel, rows, rows_end, columns, columns_end, result + channel);
  }
  for (; channel < channels; ++channel) {
    float sum = 0.0F;
    for (Tap const* row = rows; row != rows_end; ++row) {
      for (Tap const* column = columns; column != columns_end; ++column) {
        sum += row->weight * column->weight * map[row->offset + column->offset + channel];
      }
    }
    result[channel] = sum;
  }
}

template <typename From, typename To>
PANRT_INLINE void convert(From const* from, std::ptrdiff_t count, To* to) {
  for (std::ptrdiff_t i = 0; i < count; ++i) from_float(to_float(from[i]), to[i]);
}

// to[column, row] = from[row, column]; rows and columns at most 8.
template <typename From, typename To>
PANRT_INLINE void transpose_square(From const* from, std::ptrdiff_t from_stride, int rows, int columns, To* to,
                                   std::ptrdiff_t to_stride) {
  if (rows < 8 || columns < 8) {
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j) from_float(to_float(from[i * from_stride + j]), to[j * to_stride + i]);
    }
    return;
  }
  float lines[8][8], result[8][8];
  for (int i = 0; i < 8; ++i) convert(from + i * from_stride, 8, lines[i]);
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 8; j += 4) {
      Float4 square[4];
      for (int k = 0; k < 4; ++k) load(&lines[i + k][j], square[k]);
      transpose_lanes(square);
      for (int k = 0; k < 4; ++k) store(square[k], &result[j + k][i]);
    }
  }
  for (int i = 0; i < 8; ++i) convert(result[i], 8, to + i * to_stride);
}

template <typename From, typename To>
PANRT_INLINE void transpose(From const* from, std::ptrdiff_t from_stride, int rows, int columns, To* to,
                            std::ptrdiff_t to_stride) {
  for (int row = 0; row < rows; row += 8) {
    for (int column = 0; column < columns; column += 8) {
      transpose_square(from + row * from_stride + column, from_stride, std::min(8, rows - row),
                       std::min(8, columns - column), to + column * to_stride + row, to_stride);
    }
  }
}

}  // namespace loops

constexpr Variants<loops::pool_bin> pool_bin;
template <typename From, typename To>
constexpr Variants<loops::convert<From, To>> convert;
template <typename From, typename To>
constexpr Variants<loops::transpose<From, To>> transpose;

// --- Where the RoIs lie ----------------------------------------------------------------------------------------------

constexpr int kNoLevel = -1;

struct PlacedRoi {
  std::int64_t index;  // 0 to N*R - 1
  std::int64_t image;
  int level;  // kNoLevel: pools to zero
  RoiAxis y, x;
};

// All RoIs, those close to one another in the pyramid next to one another, so that they meet the same cells in cache.
template <typename T>
std::vector<PlacedRoi> place(PyramidRoiAlignArgs<T> const& args) {
  std::vector<PlacedRoi> placed;
  placed.reserve(static_cast<std::size_t>(args.images * args.rois_per_image));
  for (std::int64_t index = 0; index < args.images * args.rois_per_image; ++index) {
    float const* const row = args.rois + 4 * index;
    Roi const roi{row[0], row[1], row[2], row[3]};
    PlacedRoi item{index, index / args.rois_per_image, kNoLevel, {}, {}};
    if (is_usable(roi)) {
      item.level = pyramid_level(roi, args.canonical_size, args.canonical_level, args.min_level,
                                 static_cast<int>(args.levels.size()));
      float const stride = args.levels[static_cast<std::size_t>(item.level)].stride;
      item.y = roi_axis(roi.y0, roi.y1, stride, args.output_size, args.sampling_ratio);
      item.x = roi_axis(roi.x0, roi.x1, stride, args.output_size, args.sampling_ratio);
    }
    placed.push_back(item);
  }
  auto const place_of = [](PlacedRoi const& item) {
    constexpr float kBand = 16.0F;  // rows of cells
    return std::make_tuple(item.level, item.image, std::floor(item.y.start / kBand), item.x.start, item.index);
  };
  std::sort(placed.begin(), placed.end(),
            [&](PlacedRoi const& a, PlacedRoi const& b) { return place_of(a) < place_of(b); });
  return placed;
}

// --- Features as float32 NHWC ----------------------------------------------------------------------------------------

// One level as the hot loop reads it.
struct Map {
  float const* cells;  // (N, height, width, C)
  int height, width;
  std::unique_ptr<float[], FreeMemory> scratch;  // holds the cells if they had to be converted
};

constexpr int kTileRows = 4;
constexpr int kTileColumns = 16;  // a cache line of float32

struct Tile {
  std::size_t level;
  std::int64_t image;
  int row, column;  // of its first cell
};

// Cells that the samples of a RoI may touch along one axis, a cell of margin on both sides.
Range touched_cells(RoiAxis const& axis, int bins, int size) {
  auto const cell = [&](float position) {
    return static_cast<int>(std::clamp(std::floor(position), 0.0F, static_cast<float>(size - 1)));
  };
  return {cell(axis.start - 1.0F), cell(axis.start + static_cast<float>(bins) * axis.bin_size + 2.0F) + 1};
}

template <typename T>
std::vector<Tile> touched_tiles(PyramidRoiAlignArgs<T> const& args, std::vector<PlacedRoi> const& rois) {
  std::vector<std::vector<bool>> touched(args.levels.size());  // (N, tile rows, tile columns) per level
  auto const tiles_along = [](int size, int tile) { return (size + tile - 1) / tile; };
  for (std::size_t i = 0; i < args.levels.size(); ++i) {
    touched[i].resize(static_cast<std::size_t>(args.images * tiles_along(args.levels[i].height, kTileRows) *
                                               tiles_along(args.levels[i].width, kTileColumns)));
  }
  for (PlacedRoi const& item : rois) {
    if (item.level == kNoLevel) continue;
    auto const i = static_cast<std::size_t>(item.level);
    FeatureLevel<T> const& level = args.levels[i];
    Range const rows = touched_cells(item.y, args.output_size, level.height);
    Range const columns = touched_cells(item.x, args.output_size, level.width);
    for (int y = rows.first / kTileRows; y * kTileRows < rows.end; ++y) {
      std::int64_t const line =
          (item.image * tiles_along(level.height, kTileRows) + y) * tiles_along(level.width, kTileColumns);
      for (int x = columns.first / kTileColumns; x * kTileColumns < columns.end; ++x) {
        touched[i][static_cast<std::size_t>(line + x)] = true;
      }
    }
  }
  std::vector<Tile> tiles;
  for (std::size_t i = 0; i < args.levels.size(); ++i) {
    std::size_t next = 0;
    for (std::int64_t image = 0; image < args.images; ++image) {
      for (int row = 0; row < args.levels[i].height; row += kTileRows) {
        for (int column = 0; column < args.levels[i].width; column += kTileColumns) {
          if (touched[i][next++]) tiles.push_back({i, image, row, column});
        }
      }
    }
  }
  return tiles;
}

template <typename T>
void convert_tile(PyramidRoiAlignArgs<T> const& args, Tile const& tile, float* cells) {
  FeatureLevel<T> const& level = args.levels[tile.level];
  std::ptrdiff_t const area = static_cast<std::ptrdiff_t>(level.height) * level.width;
  std::ptrdiff_t const image = tile.image * area * args.channels;
  int const columns = std::min(kTileColumns, level.width - tile.column);
  for (int row = tile.row; row < std::min(tile.row + kTileRows, level.height); ++row) {
    std::ptrdiff_t const cell = static_cast<std::ptrdiff_t>(row) * level.width + tile.column;
    float* const to = cells + image + cell * args.channels;
    if (args.layout == Layout::kNchw) {
      transpose<T, float>(level.data + image + cell, area, args.channels, columns, to, args.channels);
    } else if constexpr (!std::is_same_v<T, float>) {
      convert<T, float>(level.data + image + cell * args.channels, std::ptrdiff_t{columns} * args.channels, to);
    }
  }
}

template <typename T>
std::vector<Map> float_nhwc_maps(PyramidRoiAlignArgs<T> const& args, std::vector<PlacedRoi> const& rois, int threads) {
  std::vector<Map> maps;
  for (FeatureLevel<T> const& level : args.levels) maps.push_back({nullptr, level.height, level.width, nullptr});
  if constexpr (std::is_same_v<T, float>) {
    if (args.layout == Layout::kNhwc) {
      for (std::size_t i = 0; i < maps.size(); ++i) maps[i].cells = args.levels[i].data;
      return maps;
    }
  }
  std::vector<Tile> const tiles = touched_tiles(args, rois);
  for (Tile const& tile : tiles) {
    Map& map = maps[tile.level];
    if (map.scratch != nullptr) continue;
    map.scratch = allocate_scratch(static_cast<std::size_t>(args.images * map.height * map.width * args.channels));
    map.cells = map.scratch.get();
  }
  parallel_for(threads, static_cast<std::int64_t>(tiles.size()), [&](std::int64_t chunk, int) {
    Tile const& tile = tiles[static_cast<std::size_t>(chunk)];
    convert_tile(args, tile, maps[tile.level].scratch.get());
  });
  return maps;
}

// --- The op ----------------------------------------------------------------------------------------------------------

struct Scratch {
  AxisTaps rows, columns;
  std::vector<float> bins;  // (S, S, C)
};

// All bins of one RoI, (S, S, C).
void pool_roi(Map const& map, PlacedRoi const& item, int channels, int S, Scratch& scratch, float* bins) {
  std::ptrdiff_t const row_stride = static_cast<std::ptrdiff_t>(map.width) * channels;
  collapse(item.y, S, map.height, row_stride, scratch.rows);
  collapse(item.x, S, map.width, channels, scratch.columns);
  float const* const image = map.cells + item.image * map.height * row_stride;
  for (int y = 0; y < S; ++y) {
    for (int x = 0; x < S; ++x, bins += channels) {
      pool_bin(image, scratch.rows.begin(y), scratch.rows.end(y), scratch.columns.begin(x), scratch.columns.end(x),
               channels, bins);
    }
  }
}

}  // namespace

template <typename T>
void pyramid_roi_align(PyramidRoiAlignArgs<T> const& args, int threads) {
  constexpr std::int64_t kRoisPerChunk = 4;
  int const S = args.output_size;
  std::ptrdiff_t const roi_floats = static_cast<std::ptrdiff_t>(S) * S * args.channels;
  std::vector<PlacedRoi> const rois = place(args);
  std::vector<Map> const maps = float_nhwc_maps(args, rois, threads);
  std::vector<Scratch> scratches(static_cast<std::size_t>(threads));

  auto const count = static_cast<std::int64_t>(rois.size());
  parallel_for(threads, (count + kRoisPerChunk - 1) / kRoisPerChunk, [&](std::int64_t chunk, int worker) {
    Scratch& scratch = scratches[static_cast<std::size_t>(worker)];
    std::int64_t const end = std::min(count, (chunk + 1) * kRoisPerChunk);
    for (std::int64_t i = chunk * kRoisPerChunk; i < end; ++i) {
      PlacedRoi const& item = rois[static_cast<std::size_t>(i)];
      T* const pooled = args.pooled + item.index * roi_floats;
      if (item.level == kNoLevel) {
        std::fill_n(pooled, roi_floats, T{});
        continue;
      }
      Map const& map = maps[static_cast<std::size_t>(item.level)];
      if constexpr (std::is_same_v<T, float>) {
        if (args.layout == Layout::kNhwc) {
          pool_roi(map, item, args.channels, S, scratch, pooled);
          continue;
        }
      }
      scratch.bins.resize(static_cast<std::size_t>(roi_floats));
      pool_roi(map, item, args.channels, S, scratch, scratch.bins.data());
      if (args.layout == Layout::kNchw) {
        transpose<float, T>(scratch.bins.data(), args.channels, S * S, args.channels, pooled, std::ptrdiff_t{S} * S);
      } else if constexpr (!std::is_same_v<T, float>) {
        convert<float, T>(scratch.bins.data(), roi_floats, pooled);
      }
    }
  });
}

template void pyramid_roi_align(PyramidRoiAlignArgs<float> const&, int);
template void pyramid_roi_align(PyramidRoiAlignArgs<Half> const&, int);

}  // namespace panrt
