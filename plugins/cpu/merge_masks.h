// Masks to spans: the first stage of PanopticMerge on the CPU.
//
// Between two cell centres a pasted mask is monotone along the row, so its value at the first and the last pixel there
// decides all between; only where the two disagree are the others sampled.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "merge_paint.h"
#include "panrt/merge_rules.h"

namespace panrt {

// The detections of an image that may be painted, best first.
std::vector<Instance> find_instances(PanopticMergeArgs const& args, std::int64_t image);

// The most spans that an instance's mask may have, with one more that closes each row.
std::int64_t most_spans(Instance const& item, int mask_width);

struct Mask {
  Span const* spans;  // row after row of Instance::rows, each closed by a span that begins and ends at 0
  std::int64_t area;
};

// Pastes masks; keeps its memory from one to the next.
class Paster {
 public:
  // Writes the spans of an instance to `spans`, which has room for most_spans.
  Mask paste(Instance const& item, float const* probabilities, int mask_height, int mask_width, float threshold,
             Span* spans);

 private:
  void pad(float const* probabilities, int mask_height, int mask_width);
  void place_columns(Instance const& item, int mask_width);
  std::int64_t find_spans(PixelRange const& columns, float threshold, Span*& spans) const;
  int find_crossing(int cell, int first, int last, bool at_last, float threshold) const;

  std::vector<float> padded_;         // (mask_height + 2, mask_width + 2)
  std::vector<float> fractions_;      // of every pixel of the columns
  std::vector<int> cell_begins_;      // pixel of the columns at which a cell begins, and the end
  int first_cell_ = 0, cells_ = 0;    // those the columns touch
  std::vector<float> first_, last_;   // fraction of a cell's first and last pixel
  std::vector<float> values_;         // of one row, between the mask's rows
  std::vector<std::int32_t> states_;  // of one row's cells
};

}  // namespace panrt
