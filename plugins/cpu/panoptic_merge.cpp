// PanopticMerge on the CPU, in three stages an image:
//
// 1. Masks, in parallel over instances, become spans of pixels row by row. Between two cell centres a pasted mask is
//    monotone along the row, so its value at the first and the last pixel there decides all between; only where the two
//    disagree are the others sampled.
// 2. Instances are decided one after another, best first, on the panoptic map itself: count, then paint.
// 3. Semantic labels, in parallel over bands of rows, where the map is still free. Bounds of every channel over a tile
//    of cells leave the few channels that can win anywhere in it: where it is one no logit is resized, else the rows of
//    those are combined, then the columns. Labels stand in the map as ~channel until the areas of all are known.
//
// What is left out is what cannot change a bit of the result; the comments at find_spans and find_candidates say why.
//
// Shapes: K detections, G mask side, S semantic channels, h x w semantic map, H x W output.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "kernels.h"
#include "panrt/paste.h"
#include "panrt/resize_taps.h"
#include "simd.h"
#include "thread_pool.h"

namespace panrt {
namespace {

// Vectors of floats, and of the integers that comparing them gives.
template <typename Floats>
constexpr int kLanes = sizeof(Floats) / sizeof(float);
template <typename Floats>
using Integers = decltype(Floats{} > Floats{});

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

// Pixels of a segment: how many, and their tight half-open box.
struct Region {
  std::int32_t area = 0;
  int x0 = std::numeric_limits<int>::max(), y0 = std::numeric_limits<int>::max(), x1 = 0, y1 = 0;

  void add(int y, int begin, int end) {
    area += end - begin;
    add(Region{0, begin, y, end, y + 1});
  }

  void add(Region const& other) {
    area += other.area;
    x0 = std::min(x0, other.x0);
    y0 = std::min(y0, other.y0);
    x1 = std::max(x1, other.x1);
    y1 = std::max(y1, other.y1);
  }
};

// --- 1. Masks to spans -----------------------------------------------------------------------------------------------

struct Range {
  int begin, end;

  int size() const { return std::max(end - begin, 0); }
};

// Pixels begin to end - 1 of one row.
struct Span {
  std::uint16_t begin, end;
};

// A detection that may be painted, and what its mask covers at most.
struct Instance {
  std::int64_t detection;
  Extent y, x;
  Range rows, columns;
  std::int64_t most_spans;
};

struct Mask {
  Span const* spans;  // row after row of Instance::rows, each closed by a span that begins and ends at 0
  std::int64_t area;
};

std::vector<Instance> find_instances(PanopticMergeArgs const& args, std::int64_t image) {
  float const* const scores = args.scores + image * args.detections;
  std::vector<std::int64_t> order;
  for (std::int64_t k = 0; k < std::min<std::int64_t>(args.detections, args.count[image]); ++k) {
    if (scores[k] >= args.score_threshold) order.push_back(k);  // false for NaN
  }
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return scores[a] > scores[b]; });

  std::vector<Instance> instances;
  for (std::int64_t const k : order) {
    float const* const box = args.boxes + (image * args.detections + k) * 4;
    Instance item{k,
                  scaled_extent(box[1], box[3], args.input_height, args.output_height),
                  scaled_extent(box[0], box[2], args.input_width, args.output_width),
                  {},
                  {},
                  0};
    if (is_empty(item.y) || is_empty(item.x)) continue;
    PixelRange const rows = paste_support(item.y, args.mask_height, args.output_height, args.mask_threshold);
    PixelRange const columns = paste_support(item.x, args.mask_width, args.output_width, args.mask_threshold);
    item.rows = {rows.begin, rows.end};
    item.columns = {columns.begin, columns.end};
    // A cell adds one span at most, two spans have a pixel between them, and every row closes with one more.
    int const spans = std::min(args.mask_width + 1, (item.columns.size() + 1) / 2) + 1;
    item.most_spans = std::int64_t{item.rows.size()} * spans;
    instances.push_back(item);
  }
  return instances;
}

constexpr int kAtFirst = 1, kAtLast = 2;

// Samples one output row at the first and the last pixel of every cell: states[i] tells where the mask is reached.
// `values` receives the mask between the rows above and below.
PANRT_CLONES void sample_cells(float const* above, float const* below, float fraction, float const* first,
                               float const* last, int cells, float threshold, float* values, std::int32_t* states) {
  for (int i = 0; i <= cells; ++i) values[i] = lerp(above[i], below[i], fraction);
  for (int i = 0; i < cells; ++i) {
    float const at_first = lerp(values[i], values[i + 1], first[i]), at_last = lerp(values[i], values[i + 1], last[i]);
    states[i] = (at_first >= threshold ? kAtFirst : 0) | (at_last >= threshold ? kAtLast : 0);
  }
}

class Paster {
 public:
  // Writes the spans of an instance to `spans`, which has room for most_spans.
  Mask paste(Instance const& item, float const* probabilities, int mask_height, int mask_width, float threshold,
             Span* spans) {
    Mask mask{spans, 0};
    if (item.rows.size() == 0 || item.columns.size() == 0) return mask;
    pad(probabilities, mask_height, mask_width);
    place_columns(item, mask_width);
    int const stride = mask_width + 2;
    for (int y = item.rows.begin; y < item.rows.end; ++y) {
      PasteTaps const taps = paste_taps(paste_position(y, item.y, mask_height), mask_height);
      float const* const above = padded_.data() + (taps.cell + 1) * stride + first_cell_ + 1;
      sample_cells(above, above + stride, taps.fraction, first_.data(), last_.data(), cells_, threshold, values_.data(),
                   states_.data());
      mask.area += find_spans(item.columns, threshold, spans);
    }
    return mask;
  }

 private:
  // A border of zeros stands for "outside".
  void pad(float const* probabilities, int mask_height, int mask_width) {
    padded_.assign(index((mask_height + 2) * (mask_width + 2)), 0.0F);
    for (int y = 0; y < mask_height; ++y) {
      std::transform(probabilities + y * mask_width, probabilities + (y + 1) * mask_width,
                     padded_.begin() + (y + 1) * (mask_width + 2) + 1, paste_probability);
    }
  }

  void place_columns(Instance const& item, int mask_width) {
    int const pixels = item.columns.size();
    fractions_.resize(index(pixels));
    auto const taps = [&](int x) { return paste_taps(paste_position(x, item.x, mask_width), mask_width); };
    first_cell_ = taps(item.columns.begin).cell;
    cells_ = taps(item.columns.end - 1).cell - first_cell_ + 1;
    cell_begins_.assign(index(cells_ + 1), pixels);
    first_.assign(index(cells_), 0.0F);
    last_.assign(index(cells_), 0.0F);
    values_.resize(index(cells_ + 1));
    states_.resize(index(cells_));
    int next = 0;  // the first cell that does not know yet where it begins
    for (int i = 0; i < pixels; ++i) {
      PasteTaps const at = taps(item.columns.begin + i);
      fractions_[index(i)] = at.fraction;
      int const cell = at.cell - first_cell_;
      if (cell >= next) first_[index(cell)] = at.fraction;
      last_[index(cell)] = at.fraction;
      for (; next <= cell; ++next) cell_begins_[index(next)] = i;
    }
  }

  // Spans of one sampled row, and how many pixels they hold. Within a cell `fraction` grows from pixel to pixel, and
  // rounding keeps order: lerp, and so "is in the mask", changes once at most. That holds where b - a overflows too:
  // the value is then NaN, which is not in the mask, at fraction 0 and the same infinity, or NaN, from there on.
  std::int64_t find_spans(Range const& columns, float threshold, Span*& spans) const {
    constexpr int kNone = -1;
    std::int64_t area = 0;
    int open = kNone;
    auto const close = [&](int end) {
      area += end - open;
      *spans++ = {static_cast<std::uint16_t>(columns.begin + open), static_cast<std::uint16_t>(columns.begin + end)};
      open = kNone;
    };
    for (int cell = 0; cell < cells_; ++cell) {
      int const begin = cell_begins_[index(cell)], end = cell_begins_[index(cell + 1)];
      if (begin == end) continue;  // no pixel, where the box is small
      int const state = states_[index(cell)];
      bool const at_first = (state & kAtFirst) != 0, at_last = (state & kAtLast) != 0;
      if (at_first && open == kNone) open = begin;
      if (!at_first && open != kNone) close(begin);
      if (at_first == at_last) continue;
      int const crossing = find_crossing(cell, begin, end - 1, at_last, threshold);
      if (at_last) {
        open = crossing;
      } else {
        close(crossing);
      }
    }
    if (open != kNone) close(columns.size());
    *spans++ = {0, 0};
    return area;
  }

  // The pixel of a cell from which on all are as its last one is; `first` is not.
  int find_crossing(int cell, int first, int last, bool at_last, float threshold) const {
    float const a = values_[index(cell)], b = values_[index(cell + 1)];
    int crossing = first + 1;
    for (int i = first + 1; i < last; ++i) crossing += (lerp(a, b, fractions_[index(i)]) >= threshold) != at_last;
    return crossing;
  }

  std::vector<float> padded_;         // (mask_height + 2, mask_width + 2)
  std::vector<float> fractions_;      // of every pixel of the columns
  std::vector<int> cell_begins_;      // pixel of the columns at which a cell begins, and the end
  int first_cell_ = 0, cells_ = 0;    // those the columns touch
  std::vector<float> first_, last_;   // fraction of a cell's first and last pixel
  std::vector<float> values_;         // of one row, between the mask's rows
  std::vector<std::int32_t> states_;  // of one row's cells
};

// --- 2. Accept and paint ---------------------------------------------------------------------------------------------

PANRT_CLONES std::int64_t count_taken(Span const* spans, int rows, std::int32_t const* map, std::ptrdiff_t width) {
  std::int64_t taken = 0;
  for (int y = 0; y < rows; ++y, map += width) {
    for (; spans->end != 0; ++spans) {
      std::int32_t in_span = 0;
      for (int x = spans->begin; x < spans->end; ++x) in_span += map[x] != 0 ? 1 : 0;
      taken += in_span;
    }
    ++spans;
  }
  return taken;
}

// Gives the free pixels of part of a row to `id`, and adds them to the region.
PANRT_INLINE void paint_span(std::int32_t* row, int y, int begin, int end, std::int32_t id, Region& painted) {
  // The ends matter only where they widen the box.
  int left = begin, right = end;
  while (left < std::min(end, painted.x0) && row[left] != 0) ++left;
  if (left < end) painted.x0 = std::min(painted.x0, left);
  while (right > std::max(begin, painted.x1) && row[right - 1] != 0) --right;
  if (right > begin) painted.x1 = std::max(painted.x1, right);
  std::int32_t area = 0;
  for (int x = begin; x < end; ++x) {
    area += row[x] == 0 ? 1 : 0;
    row[x] = row[x] == 0 ? id : row[x];
  }
  if (area == 0) return;
  painted.area += area;
  painted.y0 = std::min(painted.y0, y);
  painted.y1 = std::max(painted.y1, y + 1);
}

PANRT_CLONES void paint_spans(Span const* spans, Range rows, std::int32_t id, std::int32_t* map, std::ptrdiff_t width,
                              Region& painted) {
  for (int y = rows.begin; y < rows.end; ++y) {
    for (; spans->end != 0; ++spans) paint_span(map + y * width, y, spans->begin, spans->end, id, painted);
    ++spans;
  }
}

PANRT_CLONES void paint_rectangle(Range columns, Range rows, std::int32_t id, std::int32_t* map, std::ptrdiff_t width,
                                  Region& painted) {
  for (int y = rows.begin; y < rows.end; ++y) {
    paint_span(map + y * width, y, columns.begin, columns.end, id, painted);
  }
}

// Rows of `segments` and `segment_scores` of one image.
class SegmentList {
 public:
  SegmentList(PanopticMergeArgs const& args, std::int64_t image)
      : rows_(args.segments + image * (args.detections + args.channels) * 8),
        scores_(args.segment_scores + image * (args.detections + args.channels)) {}

  std::int32_t next_id() const { return count_ + 1; }

  void add(std::int32_t category, bool is_thing, Region const& region, float score) {
    std::int32_t const row[8] = {next_id(), category,  is_thing,  region.area,
                                 region.x0, region.y0, region.x1, region.y1};
    std::copy_n(row, 8, rows_ + 8 * count_);
    scores_[count_++] = score;
  }

 private:
  std::int32_t* rows_;
  float* scores_;
  std::int32_t count_ = 0;
};

void merge_instances(PanopticMergeArgs const& args, std::int64_t image, int threads, std::int32_t* map,
                     SegmentList& segments) {
  std::vector<Instance> const instances = find_instances(args, image);
  // As many at a time as fit into the memory of the map itself, spans at their most: real masks need a tenth.
  auto const budget = std::int64_t{args.output_height} * args.output_width *
                      static_cast<std::int64_t>(sizeof(std::int32_t) / sizeof(Span));
  std::vector<Paster> pasters(index(threads));
  std::vector<Mask> masks(instances.size());
  std::unique_ptr<Span[]> spans;
  std::int64_t room = 0;
  for (std::size_t begin = 0, end = 0; begin < instances.size(); begin = end) {
    std::vector<std::int64_t> offsets;
    std::int64_t most = 0;
    for (; end < instances.size() && (end == begin || most + instances[end].most_spans <= budget); ++end) {
      offsets.push_back(most);
      most += instances[end].most_spans;
    }
    if (most > room) {
      spans.reset(new Span[index(most)]);  // not initialised: memory that is not needed is never touched
      room = most;
    }
    parallel_for(threads, static_cast<std::int64_t>(end - begin), [&](std::int64_t chunk, int worker) {
      Instance const& item = instances[begin + index(chunk)];
      std::int64_t const mask = image * args.detections + item.detection;
      masks[begin + index(chunk)] = pasters[index(worker)].paste(
          item, args.mask_probs + mask * args.mask_height * args.mask_width, args.mask_height, args.mask_width,
          args.mask_threshold, spans.get() + offsets[index(chunk)]);
    });
    for (std::size_t i = begin; i < end; ++i) {
      Instance const& item = instances[i];
      std::int64_t const area = masks[i].area;
      if (area == 0) continue;
      std::ptrdiff_t const width = args.output_width;
      std::int64_t const taken = count_taken(masks[i].spans, item.rows.size(), map + item.rows.begin * width, width);
      auto const share = static_cast<float>(static_cast<double>(taken) / static_cast<double>(area));
      if (taken == area || share > args.overlap_threshold) continue;
      std::int64_t const detection = image * args.detections + item.detection;
      Region painted;
      paint_spans(masks[i].spans, item.rows, segments.next_id(), map, width, painted);
      segments.add(args.classes[detection], true, painted, args.scores[detection]);
    }
  }
}

// --- 3. Semantic labels ----------------------------------------------------------------------------------------------

constexpr int kTileRows = 4, kTileColumns = 16;  // of cells
constexpr int kReach = 2;                        // cells beyond a pixel's first one that it reads
constexpr int kLine = kTileColumns + 8;          // columns of a tile and those it reaches, in whole registers
constexpr float kLargestLogit = 1e30F;

// NaN becomes the lowest.
PANRT_INLINE float clamp_logit(float logit) {
  float const above = logit > -kLargestLogit ? logit : -kLargestLogit;
  return above < kLargestLogit ? above : kLargestLogit;
}

template <typename Floats>
PANRT_INLINE void clamp_logits(Floats& logits) {
  Floats const lowest = -kLargestLogit + Floats{}, highest = kLargestLogit + Floats{};
  logits = logits > lowest ? logits : lowest;
  logits = logits < highest ? logits : highest;
}

// Output pixels whose first cell lies in a tile's columns. They are computed as lanes of kTileColumns neighbouring
// cells, so that their logits lie side by side in memory: slot s * kTileColumns + i is the s-th pixel of cell i.
struct Tile {
  int cell;      // the first
  Range pixels;  // not empty
  int steps;     // most pixels of a cell
  std::size_t weights;
};

struct Columns {
  std::vector<Tile> tiles;
  std::vector<int> slots;      // of every output column
  std::vector<float> weights;  // (steps, 3, kTileColumns) a tile
};

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

// Output rows whose first cells share a row of tiles, and the rows of cells that they read.
struct Band {
  Range pixels, cells;
};

std::vector<Band> plan_bands(std::vector<ResizeTaps> const& rows, int height) {
  constexpr int kMostRows = 64;  // keeps every thread busy where cells are large
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

// The lowest and the highest of some numbers.
struct Bounds {
  float low, high;
};

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
PANRT_INLINE void bound_channel_by(float const* logits, float const* next, int rows, std::ptrdiff_t stride,
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

// How far a resized logit may lie beyond the lowest or the highest logit it is a mean of. The weights of an axis sum to
// 1 within 4 roundings and the mean takes 3, of at most 2^-24 of the largest magnitude each: 14 for both axes, and 64
// are allowed. FLT_MIN is far above what is lost where results are subnormal.
float margin(Bounds const& bounds) {
  return std::max(std::fabs(bounds.low), std::fabs(bounds.high)) * 0x1p-18F + FLT_MIN;
}

// The vertical resize of some channels: line i of kLine is channels[i], at the tile's columns and those it reaches.
template <typename Floats>
PANRT_INLINE void combine_rows_by(float const* const cells[3], float const weights[3], std::ptrdiff_t channel_stride,
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
PANRT_INLINE void best_lines_by(float const* lines, int count, float const* weights, int steps, std::int32_t* best) {
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

PANRT_DEFAULT void bound_channel(float const* logits, float const* next, int rows, std::ptrdiff_t stride,
                                 Tile const* tiles, char const* free, std::size_t count, Bounds* bounds,
                                 std::size_t step) {
  bound_channel_by<DefaultFloats>(logits, next, rows, stride, tiles, free, count, bounds, step);
}

// The most by which one channel leads another in a tile, at any cell.
PANRT_DEFAULT float largest_lead(float const* logits, float const* other, int rows, std::ptrdiff_t stride,
                                 int columns) {
  return tile_bounds<DefaultFloats, true>(logits, other, rows, stride, columns).high;
}

PANRT_DEFAULT void combine_rows(float const* const cells[3], float const weights[3], std::ptrdiff_t channel_stride,
                                int const* channels, int count, int columns, float* lines) {
  combine_rows_by<DefaultFloats>(cells, weights, channel_stride, channels, count, columns, lines);
}

PANRT_DEFAULT void best_lines(float const* lines, int count, float const* weights, int steps, std::int32_t* best) {
  best_lines_by<DefaultFloats>(lines, count, weights, steps, best);
}

#ifdef PANRT_AVX2
PANRT_AVX2 void bound_channel(float const* logits, float const* next, int rows, std::ptrdiff_t stride,
                              Tile const* tiles, char const* free, std::size_t count, Bounds* bounds,
                              std::size_t step) {
  bound_channel_by<Float8>(logits, next, rows, stride, tiles, free, count, bounds, step);
}

PANRT_AVX2 float largest_lead(float const* logits, float const* other, int rows, std::ptrdiff_t stride, int columns) {
  return tile_bounds<Float8, true>(logits, other, rows, stride, columns).high;
}

PANRT_AVX2 void combine_rows(float const* const cells[3], float const weights[3], std::ptrdiff_t channel_stride,
                             int const* channels, int count, int columns, float* lines) {
  combine_rows_by<Float8>(cells, weights, channel_stride, channels, count, columns, lines);
}

PANRT_AVX2 void best_lines(float const* lines, int count, float const* weights, int steps, std::int32_t* best) {
  best_lines_by<Float8>(lines, count, weights, steps, best);
}
#endif

PANRT_CLONES bool has_free_pixel(std::int32_t const* row, int begin, int end) {
  std::int32_t free = 0;
  for (int x = begin; x < end; ++x) free |= row[x] == 0 ? 1 : 0;
  return free != 0;
}

// Labels, ~channel, become the ids of their channels.
PANRT_CLONES void replace_labels(std::int32_t const* ids, std::int32_t* pixel, std::int32_t const* end) {
  for (; pixel != end; ++pixel) *pixel = *pixel < 0 ? ids[~*pixel] : *pixel;
}

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

void panoptic_merge(PanopticMergeArgs const& args, int threads) {
  int const S = args.channels, H = args.output_height, W = args.output_width;
  std::vector<ResizeTaps> rows;
  for (int y = 0; y < H; ++y) rows.push_back(resize_taps(y, args.input_height, H));
  std::vector<Band> const bands = plan_bands(rows, args.height);
  Columns const columns = plan_columns(args.input_width, W);

  std::int64_t const most_segments = args.detections + S;
  std::fill_n(args.segments, args.images * most_segments * 8, 0);
  std::fill_n(args.segment_scores, args.images * most_segments, 0.0F);

  // `change` gets the first pixel of some rows, and the one after the last.
  auto const change_rows = [&](std::int32_t* map, auto const& change) {
    constexpr std::int64_t kRows = 16;
    parallel_for(threads, (H + kRows - 1) / kRows, [&](std::int64_t chunk, int) {
      change(map + chunk * kRows * W, map + std::min<std::int64_t>(H, (chunk + 1) * kRows) * W);
    });
  };

  for (std::int64_t image = 0; image < args.images; ++image) {
    std::int32_t* const map = args.panoptic + image * H * W;
    SegmentList segments(args, image);
    change_rows(map, [](std::int32_t* begin, std::int32_t* end) { std::fill(begin, end, 0); });
    merge_instances(args, image, threads, map, segments);

    if (S > 1) {
      Labeller const labeller(args, rows, columns, args.semantic_logits + image * S * args.height * args.width, map);
      std::vector<LabelScratch> scratches(index(threads), LabelScratch(S));
      parallel_for(threads, static_cast<std::int64_t>(bands.size()), [&](std::int64_t chunk, int worker) {
        labeller.label(bands[index(chunk)], scratches[index(worker)]);
      });
      std::vector<std::int32_t> ids(index(S), 0);
      for (int channel = 1; channel < S; ++channel) {
        Region region;
        for (LabelScratch const& scratch : scratches) region.add(scratch.regions[index(channel)]);
        if (region.area < std::max(args.stuff_area_limit, 1)) continue;
        ids[index(channel)] = segments.next_id();
        segments.add(channel, false, region, 0.0F);
      }
      change_rows(map, [&](std::int32_t* begin, std::int32_t* end) { replace_labels(ids.data(), begin, end); });
    }
    args.segment_count[image] = segments.next_id() - 1;
  }
}

}  // namespace panrt
