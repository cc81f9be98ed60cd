// What the stages of PanopticMerge on the CPU share: pixels of the map, the regions that they form, and the list of
// segments. In the map 0 is a free pixel.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels.h"
#include "panrt/paste.h"

namespace panrt {

inline std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

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

// Pixels begin to end - 1 of one row.
struct Span {
  std::uint16_t begin, end;
};

// How many pixels of the spans are not free. `spans` holds a list for each row, which ends with a span that ends at 0;
// `map` is the first of the rows.
std::int64_t count_taken(Span const* spans, int rows, std::int32_t const* map, std::ptrdiff_t width);

// Gives the free pixels of the spans, or of a rectangle, to `id`, and adds them to the region.
void paint_spans(Span const* spans, PixelRange rows, std::int32_t id, std::int32_t* map, std::ptrdiff_t width,
                 Region& painted);
void paint_rectangle(PixelRange columns, PixelRange rows, std::int32_t id, std::int32_t* map, std::ptrdiff_t width,
                     Region& painted);

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

}  // namespace panrt
