#include "merge_labels.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#include "panrt/merge_rules.h"
#include "simd.h"
#include "thread_pool.h"

namespace panrt {
namespace {

// Vectors of floats, and of the integers that comparing them gives.
template <typename Floats>
constexpr int kLanes = sizeof(Floats) / sizeof(float);
template <typename Floats>
using Integers = decltype(Floats{} > Floats{});

constexpr int kTileRows = 4, kTileColumns = 16;  // of cells
constexpr int kReach = 2;                        // cells beyond a pixel's first one that it reads
constexpr int kLine = kTileColumns + 8;          // columns of a tile and those it reaches, in whole registers

Columns plan_columns(int valid, int output) {
  Columns columns;
  columns.slots.resize(index(output));
  int step = 0, last_cell = -1;
  for (int x = 0; x < output; ++x) {
    ResizeTaps const taps = resize_taps(x, valid, output);
    if (columns.tiles.empty() || taps.cell >= columns.tiles.back().cell + kTileColumns) {
      int const cell = taps.cell / kTileColumns * kTileColumns;
      columns.tiles.push_back({cell, {x, x}, 0, columns.weights.size()});
    }
    Tile& tile = columns.tiles.back();
    step = taps.cell == last_cell ? step + 1 : 0;
    last_cell = taps.cell;
    int const lane = taps.cell - tile.cell;
    tile.pixels.end = x + 1;
    tile.steps = std::max(tile.steps, step + 1);
    columns.weights.resize(tile.weights + index(tile.steps * 3 * kTileColumns));
    columns.slots[index(x)] = step * kTileColumns + lane;
    for (int i = 0; i < 3; ++i) {
      columns.weights[tile.weights + index((step * 3 + i) * kTileColumns + lane)] = taps.weight[i];
    }
  }
  return columns;
}

std::vector<Band> plan_bands(std::vector<ResizeTaps> const& rows, int height) {
  constexpr int kMostRows = 64;  // keeps every thread busy if cells are large
  std::vector<Band> bands;
  int tile = -1;
  for (int y = 0; y < static_cast<int>(rows.size()); ++y) {
    int const cell = rows[index(y)].cell;
    if (cell / kTileRows != tile || bands.back().pixels.size() == kMostRows) bands.push_back({{y, y}, {cell, cell}});
    tile = cell / kTileRows;
    bands.back().pixels.end = y + 1;
    bands.back().cells.end = std::min(cell + kReach + 1, height);
  }
  return bands;
}

// The lowest and the highest of some numbers.
struct Bounds {
  float low, high;
};

float margin(Bounds const& bounds) { return resize_margin(bounds.low, bounds.high); }

namespace loops {

// clamp_logit of each lane.
template <typename Floats>
PANRT_INLINE void clamp_logits(Floats& logits) {
  Floats const lowest = -kLargestLogit + Floats{}, highest = kLargestLogit + Floats{};
  logits = logits > lowest ? logits : lowest;
  logits = logits < highest ? logits : highest;
}

PANRT_INLINE float lowest_lane(Float4 const& value) {
  Float4 lowest = value, swapped;
  shuffle<2, 3, 0, 1>(lowest, lowest, swapped);
  lowest = swapped < lowest ? swapped : lowest;
  return lowest[1] < lowest[0] ? lowest[1] : lowest[0];
}

PANRT_INLINE float lowest_lane(Float8 const& value) {
  Float4 halves[2];
  std::memcpy(halves, &value, sizeof halves);
  halves[0] = halves[1] < halves[0] ? halves[1] : halves[0];
  return lowest_lane(halves[0]);
}

// Of one channel, or of what it leads another by, at the cells that a tile's pixels may read; `columns` are left in the
// map from the tile's first one on.
template <typename Floats, bool lead>
PANRT_INLINE Bounds tile_bounds(float const* logits, float const* other, int rows, std::ptrdiff_t stride, int columns) {
  constexpr int kStep = kLanes<Floats>;
  Floats low = kLargestLogit + Floats{}, high = -kLargestLogit + Floats{};
  auto const add = [&](Floats& value, Floats& minus) __attribute__((always_inline)) {
    clamp_logits(value);
    if constexpr (lead) {
      clamp_logits(minus);
      value -= minus;
    }
    low = value < low ? value : low;
    high = value > high ? value : high;
  };
  auto const scan = [&](auto width) __attribute__((always_inline)) {
    for (int y = 0; y < rows; ++y) {
      for (int next = 0; next < width; next += kStep) {
        int const x = std::min(next, width - kStep);  // the last may overlap the one before
        Floats value, minus{};
        load(logits + y * stride + x, value);
        if constexpr (lead) load(other + y * stride + x, minus);
        add(value, minus);
      }
    }
  };
  if (columns >= kTileColumns + kReach) {
    scan(std::integral_constant<int, kTileColumns + kReach>{});  // mostly: a width that the compiler knows
  } else if (columns >= kStep) {
    scan(columns);
  } else {
    for (int y = 0; y < rows; ++y) {
      for (int x = 0; x < columns; ++x) {
        Floats value = logits[y * stride + x] + Floats{}, minus{};
        if constexpr (lead) minus += other[y * stride + x];
        add(value, minus);
      }
    }
  }
  return {lowest_lane(low), -lowest_lane(-high)};
}

// Bounds of one channel in every tile that is free, `step` apart. `next` is the channel after it.
template <typename Floats>
PANRT_INLINE void bound_channel(float const* logits, float const* next, int rows, std::ptrdiff_t stride,
                                Tile const* tiles, char const* free, std::size_t count, Bounds* bounds,
                                std::size_t step) {
  for (std::size_t i = 0; i < count; ++i) {
    if (free[i] == 0) continue;
    int const cell = tiles[i].cell;
    for (int y = 0; y < rows; ++y) __builtin_prefetch(next + y * stride + cell);  // its rows are too short for hardware
    bounds[i * step] =
        tile_bounds<Floats, false>(logits + cell, nullptr, rows, stride, static_cast<int>(stride) - cell);
  }
}

// The vertical resize of some channels: line i of kLine is channels[i], at the tile's columns and those it reaches.
template <typename Floats>
PANRT_INLINE void combine_rows(float const* const cells[3], float const weights[3], std::ptrdiff_t channel_stride,
                               int const* channels, int count, int columns, float* lines) {
  constexpr int kStep = kLanes<Floats>;
  for (int i = 0; i < count; ++i, lines += kLine) {
    float const* const a = cells[0] + channels[i] * channel_stride;
    float const* const b = cells[1] + channels[i] * channel_stride;
    float const* const c = cells[2] + channels[i] * channel_stride;
    int x = 0;
    for (; x < kTileColumns + kReach && x + kStep <= columns; x += kStep) {
      Floats row_a, row_b, row_c;
      load(a + x, row_a);
      load(b + x, row_b);
      load(c + x, row_c);
      clamp_logits(row_a);
      clamp_logits(row_b);
      clamp_logits(row_c);
      Floats const line = weights[0] * row_a + weights[1] * row_b + weights[2] * row_c;
      store(line, lines + x);
    }
    for (; x < kTileColumns + kReach; ++x) {
      int const at = std::min(x, columns - 1);
      lines[x] = weights[0] * clamp_logit(a[at]) + weights[1] * clamp_logit(b[at]) + weights[2] * clamp_logit(c[at]);
    }
  }
}

// The horizontal resize of some channels and the argmax: per slot the number of the best line, the lowest of equals.
template <typename Floats>
PANRT_INLINE void best_lines(float const* lines, int count, float const* weights, int steps, std::int32_t* best) {
  constexpr int kAtOnce = 2 * kLanes<Floats>;  // what the registers hold
  for (int step = 0; step < steps; ++step, weights += 3 * kTileColumns, best += kTileColumns) {
    for (int first = 0; first < kTileColumns; first += kAtOnce) {
      Floats weight[3][2], highest[2];
      Integers<Floats> winner[2];
      auto const resize = [&](float const* line, int half, Floats& value) __attribute__((always_inline)) {
        Floats a, b, c;
        load(line, a);
        load(line + 1, b);
        load(line + 2, c);
        value = weight[0][half] * a + weight[1][half] * b + weight[2][half] * c;
      };
      for (int half = 0; half < 2; ++half) {
        int const at = first + half * kLanes<Floats>;
        for (int i = 0; i < 3; ++i) load(weights + i * kTileColumns + at, weight[i][half]);
        resize(lines + at, half, highest[half]);
        winner[half] = Integers<Floats>{};
      }
      for (int i = 1; i < count; ++i) {
        for (int half = 0; half < 2; ++half) {
          Floats value;
          resize(lines + i * kLine + first + half * kLanes<Floats>, half, value);
          Integers<Floats> const better = value > highest[half];
          highest[half] = better ? value : highest[half];
          winner[half] = better ? i + Integers<Floats>{} : winner[half];
        }
      }
      std::memcpy(best + first, winner, sizeof winner);
    }
  }
}

// The most by which one channel leads another in a tile, at any cell.
template <typename Floats>
PANRT_INLINE float largest_lead(float const* logits, float const* other, int rows, std::ptrdiff_t stride, int columns) {
  return tile_bounds<Floats, true>(logits, other, rows, stride, columns).high;
}

PANRT_INLINE bool has_free_pixel(std::int32_t const* row, int begin, int end) {
  std::int32_t free = 0;
  for (int x = begin; x < end; ++x) free |= row[x] == 0 ? 1 : 0;
  return free != 0;
}

}  // namespace loops

constexpr Variants<loops::bound_channel<Float4>, loops::bound_channel<Float8>> bound_channel;
constexpr Variants<loops::largest_lead<Float4>, loops::largest_lead<Float8>> largest_lead;
constexpr Variants<loops::combine_rows<Float4>, loops::combine_rows<Float8>> combine_rows;
constexpr Variants<loops::best_lines<Float4>, loops::best_lines<Float8>> best_lines;
constexpr Variants<loops::has_free_pixel> has_free_pixel;

struct LabelScratch {
  explicit LabelScratch(int channels) : regions(index(channels)) {}

  std::vector<Region> regions;     // of every channel
  std::vector<Bounds> bounds;      // (tiles, S)
  std::vector<char> free;          // tiles
  std::vector<int> candidates;     // channels that may win somewhere in a tile, ascending
  std::vector<float> lines;        // (candidates, kLine)
  std::vector<std::int32_t> best;  // (steps, kTileColumns), an index of candidates
};

// Semantic labels of one image.
class Labeller {
 public:
  Labeller(PanopticMergeArgs const& args, std::vector<ResizeTaps> const& rows, Columns const& columns,
           float const* logits, std::int32_t* map)
      : S_(args.channels),
        h_(args.height),
        w_(args.width),
        output_width_(args.output_width),
        rows_(rows),
        columns_(columns),
        logits_(logits),
        map_(map) {}

  void label(Band const& band, LabelScratch& scratch) const {
    std::vector<Tile> const& tiles = columns_.tiles;
    scratch.free.resize(tiles.size());
    bool any = false;
    for (std::size_t i = 0; i < tiles.size(); ++i) {
      scratch.free[i] = false;
      for (int y = band.pixels.begin; y < band.pixels.end && scratch.free[i] == 0; ++y) {
        scratch.free[i] = has_free_pixel(row(y), tiles[i].pixels.begin, tiles[i].pixels.end);
      }
      any |= scratch.free[i] != 0;
    }
    if (!any) return;
    scratch.bounds.resize(tiles.size() * index(S_));
    for (int channel = 0; channel < S_; ++channel) {
      bound_channel(cells(channel, band.cells.begin), cells(std::min(channel + 1, S_ - 1), band.cells.begin),
                    band.cells.size(), w_, tiles.data(), scratch.free.data(), tiles.size(),
                    scratch.bounds.data() + channel, index(S_));
    }
    for (std::size_t i = 0; i < tiles.size(); ++i) {
      if (scratch.free[i] == 0) continue;
      find_candidates(band, tiles[i], &scratch.bounds[i * index(S_)], scratch.candidates);
      label_tile(band, tiles[i], scratch);
    }
  }

 private:
  std::int32_t* row(int y) const { return map_ + y * output_width_; }
  float const* cells(int channel, int y) const { return logits_ + (std::ptrdiff_t{channel} * h_ + y) * w_; }

  // Channels that may win somewhere in the tile. Left out are those that stay below what another one reaches
  // everywhere, and those that a strong one leads at every cell: resizing takes means of cells with the same weights
  // for all channels, so it then leads at every pixel. Both by more than rounding could turn, so that no tie is decided
  // here.
  void find_candidates(Band const& band, Tile const& tile, Bounds const* bounds, std::vector<int>& candidates) const {
    float reached = -std::numeric_limits<float>::infinity();
    for (int channel = 0; channel < S_; ++channel) {
      reached = std::max(reached, bounds[channel].low - margin(bounds[channel]));
    }
    candidates.clear();
    for (int channel = 0; channel < S_; ++channel) {
      if (bounds[channel].high + margin(bounds[channel]) >= reached) candidates.push_back(channel);
    }

    constexpr int kStrong = 3;
    auto const middle = [&](int channel) { return bounds[channel].low + bounds[channel].high; };
    float limit = std::numeric_limits<float>::infinity();
    for (int i = 0; i < kStrong && candidates.size() > 1; ++i) {
      int strong = -1;
      for (int const channel : candidates) {
        if (middle(channel) < limit && (strong == -1 || middle(channel) > middle(strong))) strong = channel;
      }
      if (strong == -1) return;
      limit = middle(strong);
      auto const is_led = [&](int channel) {
        float const lead =
            largest_lead(cells(channel, band.cells.begin) + tile.cell, cells(strong, band.cells.begin) + tile.cell,
                         band.cells.size(), w_, w_ - tile.cell);
        return lead + margin(bounds[channel]) + margin(bounds[strong]) < 0.0F;
      };
      std::size_t const before = candidates.size();
      candidates.erase(std::remove_if(candidates.begin(), candidates.end(), is_led), candidates.end());
      if (candidates.size() == before) return;
    }
  }

  void label_tile(Band const& band, Tile const& tile, LabelScratch& scratch) const {
    auto const candidates = static_cast<int>(scratch.candidates.size());
    if (candidates == 1) {
      int const channel = scratch.candidates[0];
      paint_rectangle(tile.pixels, band.pixels, ~channel, map_, output_width_, scratch.regions[index(channel)]);
      return;
    }
    scratch.lines.resize(index(candidates * kLine));
    scratch.best.resize(index(tile.steps * kTileColumns));
    for (int y = band.pixels.begin; y < band.pixels.end; ++y) {
      if (!has_free_pixel(row(y), tile.pixels.begin, tile.pixels.end)) continue;
      ResizeTaps const& taps = rows_[index(y)];
      float const* three[3];
      for (int i = 0; i < 3; ++i) three[i] = cells(0, std::min(taps.cell + i, h_ - 1)) + tile.cell;
      combine_rows(three, taps.weight, std::ptrdiff_t{h_} * w_, scratch.candidates.data(), candidates, w_ - tile.cell,
                   scratch.lines.data());
      best_lines(scratch.lines.data(), candidates, &columns_.weights[tile.weights], tile.steps, scratch.best.data());
      write_labels(y, tile, scratch);
    }
  }

  // Free pixels become ~channel; runs of one channel are counted at once.
  void write_labels(int y, Tile const& tile, LabelScratch& scratch) const {
    constexpr int kOwned = -1;
    std::int32_t* const pixels = row(y);
    int const* const slots = columns_.slots.data();
    int const* const candidates = scratch.candidates.data();
    std::int32_t const* const best = scratch.best.data();
    int label = kOwned, begin = 0;
    auto const change = [&](int next, int x) {
      if (label != kOwned) scratch.regions[index(label)].add(y, begin, x);
      label = next;
      begin = x;
    };
    for (int x = tile.pixels.begin; x < tile.pixels.end; ++x) {
      int const next = pixels[x] == 0 ? candidates[best[slots[x]]] : kOwned;
      if (next != label) change(next, x);
      if (next != kOwned) pixels[x] = ~next;
    }
    change(kOwned, tile.pixels.end);
  }

  int S_, h_, w_;
  std::ptrdiff_t output_width_;
  std::vector<ResizeTaps> const& rows_;
  Columns const& columns_;
  float const* logits_;
  std::int32_t* map_;
};

}  // namespace

LabelPlan plan_labels(PanopticMergeArgs const& args) {
  LabelPlan plan;
  for (int y = 0; y < args.output_height; ++y) {
    plan.rows.push_back(resize_taps(y, args.input_height, args.output_height));
  }
  plan.bands = plan_bands(plan.rows, args.height);
  plan.columns = plan_columns(args.input_width, args.output_width);
  return plan;
}

std::vector<Region> label_free_pixels(PanopticMergeArgs const& args, LabelPlan const& plan, std::int64_t image,
                                      int threads, std::int32_t* map) {
  int const S = args.channels;
  float const* const logits = args.semantic_logits + image * S * args.height * args.width;
  Labeller const labeller(args, plan.rows, plan.columns, logits, map);
  std::vector<LabelScratch> scratches(index(threads), LabelScratch(S));
  parallel_for(threads, static_cast<std::int64_t>(plan.bands.size()), [&](std::int64_t chunk, int worker) {
    labeller.label(plan.bands[index(chunk)], scratches[index(worker)]);
  });
  std::vector<Region> regions(index(S));
  for (int channel = 0; channel < S; ++channel) {
    for (LabelScratch const& scratch : scratches) regions[index(channel)].add(scratch.regions[index(channel)]);
  }
  return regions;
}

}  // namespace panrt
