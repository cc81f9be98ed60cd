// Greedy non-maximum suppression, best first, that stops as soon as enough boxes are kept. Stopping is exact: no
// candidate changes what happens to a better one. So neither is the order of candidates found further than needed, nor
// a box decoded.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "panrt/boxes.h"

namespace panrt {

// Candidates best first, sorted only as far as they are read.
class BestFirst {
 public:
  explicit BestFirst(std::vector<Rank> candidates) : ranks_(std::move(candidates)) {}

  bool done() const { return next_ == ranks_.size(); }
  Rank next() {
    if (next_ == sorted_) sort_more();
    return ranks_[next_++];
  }

 private:
  void sort_more();

  std::vector<Rank> ranks_;
  std::size_t next_ = 0;
  std::size_t sorted_ = 0;  // this many are in order, and no other is better than any of them
};

// Eight boxes, coordinate by coordinate. What is not filled is empty, and overlaps nothing.
struct BoxBlock {
  float x0[8], y0[8], x1[8], y1[8], area[8];
};

// The kept boxes of one group, a level or a class.
class KeptBoxes {
 public:
  void add(Box const& box);
  // Whether the IoU of `box` with any of them is greater than the threshold.
  bool suppress(Box const& box, float threshold) const;

 private:
  std::vector<BoxBlock> blocks_;
  std::size_t count_ = 0;
};

}  // namespace panrt
