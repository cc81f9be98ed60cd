// Semantic labels: the last stage of PanopticMerge on the CPU.
//
// Bounds of every channel over a tile of cells leave the few channels that can win anywhere in it: if it is one no
// logit is resized, else the rows of those are combined, then the columns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "merge_paint.h"
#include "panrt/resize_taps.h"

namespace panrt {

// Output pixels whose first cell lies in a tile's columns. They are computed as lanes of kTileColumns neighbouring
// cells, so that their logits lie side by side in memory: slot s * kTileColumns + i is the s-th pixel of cell i.
struct Tile {
  int cell;           // the first
  PixelRange pixels;  // not empty
  int steps;          // most pixels of a cell
  std::size_t weights;
};

struct Columns {
  std::vector<Tile> tiles;
  std::vector<int> slots;      // of every output column
  std::vector<float> weights;  // (steps, 3, kTileColumns) per tile
};

// Output rows whose first cells share a row of tiles, and the rows of cells that they read.
struct Band {
  PixelRange pixels, cells;
};

// How the output's pixels read the semantic map; the same for all images.
struct LabelPlan {
  std::vector<ResizeTaps> rows;  // of every output row
  std::vector<Band> bands;
  Columns columns;
};

LabelPlan plan_labels(PanopticMergeArgs const& args);

// Gives every free pixel of an image's map the label ~channel of its best channel, and returns each channel's region.
std::vector<Region> label_free_pixels(PanopticMergeArgs const& args, LabelPlan const& plan, std::int64_t image,
                                      int threads, std::int32_t* map);

}  // namespace panrt
