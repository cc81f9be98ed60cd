#include "nms.h"

#include <algorithm>

#include "simd.h"

namespace panrt {

void BestFirst::sort_more() {
  // Twice as many each time: little more work in total than sorting once, and little work if few are read.
  std::size_t const more = std::min(std::max<std::size_t>(sorted_, 512), ranks_.size() - sorted_);
  auto const begin = ranks_.begin() + static_cast<std::ptrdiff_t>(sorted_);
  auto const end = begin + static_cast<std::ptrdiff_t>(more);
  std::nth_element(begin, end, ranks_.end());
  std::sort(begin, end);
  sorted_ += more;
}

namespace {

namespace loops {

PANRT_INLINE bool overlaps_any(BoxBlock const* block, BoxBlock const* end, Box const* box, float area,
                               float threshold) {
  for (; block != end; ++block) {
    int overlapping = 0;
    for (int i = 0; i < 8; ++i) {
      Box const other{block->x0[i], block->y0[i], block->x1[i], block->y1[i]};
      overlapping |= iou(other, block->area[i], *box, area) > threshold;
    }
    if (overlapping != 0) return true;
  }
  return false;
}

}  // namespace loops

constexpr Variants<loops::overlaps_any> overlaps_any;

}  // namespace

void KeptBoxes::add(Box const& box) {
  if (count_ % 8 == 0) blocks_.push_back({});
  BoxBlock& block = blocks_.back();
  std::size_t const i = count_++ % 8;
  block.x0[i] = box.x0;
  block.y0[i] = box.y0;
  block.x1[i] = box.x1;
  block.y1[i] = box.y1;
  block.area[i] = box_area(box);
}

bool KeptBoxes::suppress(Box const& box, float threshold) const {
  return overlaps_any(blocks_.data(), blocks_.data() + blocks_.size(), &box, box_area(box), threshold);
}

}  // namespace panrt
