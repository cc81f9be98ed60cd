#include "merge_masks.h"

#include <algorithm>
#include <cstddef>

#include "simd.h"

namespace panrt {

std::vector<Instance> find_instances(PanopticMergeArgs const& args, std::int64_t image) {
  std::int64_t const first = image * args.detections;
  std::vector<Rank> ranks;
  for (std::int64_t k = 0; k < std::min<std::int64_t>(args.detections, args.count[image]); ++k) {
    float const score = args.scores[first + k];
    if (is_candidate(score, args.score_threshold)) ranks.push_back(rank_of(score, static_cast<std::uint32_t>(k)));
  }
  std::sort(ranks.begin(), ranks.end());

  std::vector<Instance> instances;
  for (Rank const rank : ranks) {
    std::uint32_t const k = index_of(rank);
    Instance item{static_cast<std::int32_t>(k), {}, {}, {}, {}};
    Box const box = load_box(args.boxes + (first + k) * 4);
    if (!place_box(box, args.input_height, args.input_width, args.output_height, args.output_width, item.y, item.x)) {
      continue;
    }
    item.rows = paste_support(item.y, args.mask_height, args.output_height, args.mask_threshold);
    item.columns = paste_support(item.x, args.mask_width, args.output_width, args.mask_threshold);
    instances.push_back(item);
  }
  return instances;
}

std::int64_t most_spans(Instance const& item, int mask_width) {
  // A cell adds one span at most, two spans have a pixel between them, and every row closes with one more.
  int const spans = std::min(mask_width + 1, (item.columns.size() + 1) / 2) + 1;
  return std::int64_t{item.rows.size()} * spans;
}

namespace {

constexpr int kAtFirst = 1, kAtLast = 2;

namespace loops {

// Samples one output row at the first and the last pixel of every cell: states[i] tells at which of them the mask is
// reached. `values` receives the mask between the rows above and below.
PANRT_INLINE void sample_cells(float const* above, float const* below, float fraction, float const* first,
                               float const* last, int cells, float threshold, float* values, std::int32_t* states) {
  for (int i = 0; i <= cells; ++i) values[i] = lerp(above[i], below[i], fraction);
  for (int i = 0; i < cells; ++i) {
    float const at_first = lerp(values[i], values[i + 1], first[i]), at_last = lerp(values[i], values[i + 1], last[i]);
    states[i] = (at_first >= threshold ? kAtFirst : 0) | (at_last >= threshold ? kAtLast : 0);
  }
}

}  // namespace loops

constexpr Variants<loops::sample_cells> sample_cells;

}  // namespace

Mask Paster::paste(Instance const& item, float const* probabilities, int mask_height, int mask_width, float threshold,
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

// A border of zeros stands for "outside".
void Paster::pad(float const* probabilities, int mask_height, int mask_width) {
  padded_.assign(index((mask_height + 2) * (mask_width + 2)), 0.0F);
  for (int y = 0; y < mask_height; ++y) {
    std::transform(probabilities + y * mask_width, probabilities + (y + 1) * mask_width,
                   padded_.begin() + (y + 1) * (mask_width + 2) + 1, paste_probability);
  }
}

void Paster::place_columns(Instance const& item, int mask_width) {
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
  int next = 0;  // the first cell whose begin is not known yet
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
std::int64_t Paster::find_spans(PixelRange const& columns, float threshold, Span*& spans) const {
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
    if (begin == end) continue;  // no pixel: the box is small
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
int Paster::find_crossing(int cell, int first, int last, bool at_last, float threshold) const {
  float const a = values_[index(cell)], b = values_[index(cell + 1)];
  int crossing = first + 1;
  for (int i = first + 1; i < last; ++i) crossing += (lerp(a, b, fractions_[index(i)]) >= threshold) != at_last;
  return crossing;
}

}  // namespace panrt
