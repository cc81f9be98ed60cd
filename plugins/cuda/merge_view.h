// What the stages of PanopticMerge share: the arrays in the workspace, and how output pixels are divided. A stage is a
// file, merge_*.cu; panoptic_merge.cu describes the whole and launches them in order.
//
// Shapes: N images, K detections, Gh x Gw a mask, S channels, h x w semantic map, H x W output.
#pragma once

#include <cstdint>

#include "block_select.h"
#include "launch.h"
#include "panrt/limits.h"
#include "panrt/merge_rules.h"
#include "panrt/ops.h"

namespace panrt::cuda {

constexpr int kTile = 32;          // pixels per side: a row of a tile is a word of bits, a tile is 128 bytes
constexpr int kTilesPerUnit = 32;  // a unit of work on an instance

// label_pixels: the pixels of a block, and the cells of the semantic map that they reach.
// Its 12 warps stand 4 by 3. A warp's pixels are 20 rows of 4 times 32; 10 rows if the number of a channel needs two
// bytes, because a thread keeps 4 columns of them in registers.
constexpr int kLabelThreads = 384, kWarpsAcross = 4, kWarpsDown = 3, kWarpWords = 4;
template <typename Channel>
constexpr int kWarpRows = 20 / sizeof(Channel);
constexpr int kLabelColumns = kWarpsAcross * kWarpWords * 32, kLabelRows = kWarpsDown * kWarpRows<std::uint8_t>;
constexpr int kCellColumns = 132, kCellRows = 20;
constexpr int kMostRuns = kLabelColumns / 32 * kLabelRows;  // runs of 32 pixels in a row, per block
static_assert((kLabelColumns - 1 + 3) / 4 + 4 <= kCellColumns && (kLabelRows - 1 + 3) / 4 + 4 <= kCellRows, "at 1 : 1");

// Pixels of a segment. Every number grows from 0, so a region starts as zeros.
struct Region {
  std::int32_t area;
  std::int32_t from_right, from_bottom;  // W - x0, H - y0
  std::int32_t x1, y1;
};

struct InstanceState {
  std::uint32_t area, taken;       // pixels of the mask, and those among them that others own
  std::uint32_t counted, painted;  // units that are done
  Region region;                   // of the painted pixels
};

struct MergeView {
  void const* logits;
  void const* masks;
  float const* boxes;
  float const* scores;
  std::int32_t const* classes;
  std::int32_t const* count;
  std::int32_t* panoptic;
  std::int32_t* segments;
  float* segment_scores;
  std::int32_t* segment_count;

  Rank* ranks;                  // (N, K to a power of two), used if shared memory is too small
  Instance* instances;          // (N, K), best first
  std::uint32_t* first_ticket;  // (N, K + 1)
  std::int32_t* found;          // (N) instances
  std::uint32_t* next_ticket;   // (N); from here to `labels` everything starts as 0
  InstanceState* states;        // (N, K)
  Region* stuff;                // (N, S)
  std::uint32_t* owned;         // (N, tiles, 32) bits of pixels
  void* labels;                 // (N, H, pitch), only where a run has several
  void* runs;                   // (N, blocks of label_pixels, kMostRuns) their label, or kSeveral
  std::int32_t* ids;            // (N, K + S)

  std::int64_t zero_bytes;
  std::int32_t K, S, h, w, Gh, Gw, H, W;
  std::int32_t tiles_across, tiles_down, pitch;
  std::int32_t input_height, input_width;
  std::int32_t label_width, label_height, label_shift;  // pixels of a block of label_pixels; rows that it starts above
  std::int32_t label_across, label_down;                // blocks of label_pixels per image
  float const* thresholds;                // (3): score, overlap, mask; or null, as is the next: those below
  std::int32_t const* stuff_area_limits;  // (S)
  float score_threshold, overlap_threshold, mask_threshold;
  std::int32_t stuff_area_limit;
};

__device__ __forceinline__ float score_threshold_of(MergeView const& view) {
  return view.thresholds == nullptr ? view.score_threshold : __ldg(view.thresholds);
}
__device__ __forceinline__ float overlap_threshold_of(MergeView const& view) {
  return view.thresholds == nullptr ? view.overlap_threshold : __ldg(view.thresholds + 1);
}
__device__ __forceinline__ float mask_threshold_of(MergeView const& view) {
  return view.thresholds == nullptr ? view.mask_threshold : __ldg(view.thresholds + 2);
}
__device__ __forceinline__ std::int32_t stuff_area_limit_of(MergeView const& view, std::int32_t channel) {
  return view.stuff_area_limits == nullptr ? view.stuff_area_limit : __ldg(view.stuff_area_limits + channel);
}

// The stages, in the order of their launches. Each prepare_* loads the kernels of its file (prepare.h).
Status launch_order_instances(PanopticMergeArgs const& args, MergeView const& view, cudaStream_t stream) noexcept;
Status launch_resolve_instances(PanopticMergeArgs const& args, MergeView const& view, cudaStream_t stream) noexcept;
Status launch_label_pixels(PanopticMergeArgs const& args, MergeView const& view, cudaStream_t stream) noexcept;
Status launch_write_segments(PanopticMergeArgs const& args, MergeView const& view, cudaStream_t stream) noexcept;
Status prepare_order_instances() noexcept;
Status prepare_resolve_instances() noexcept;
Status prepare_label_pixels() noexcept;
Status prepare_write_segments() noexcept;

// Whether a label, and the number of a channel, fits into a byte; one value of a label is kSeveral.
inline bool has_byte_labels(PanopticMergeArgs const& args) noexcept { return args.detections + args.channels <= 255; }
inline bool has_byte_channels(PanopticMergeArgs const& args) noexcept { return args.channels <= 256; }

// Stands instead of a run's label if its pixels have their own. No code of a channel or instance is so large.
template <typename Label>
constexpr Label kSeveral = static_cast<Label>(-1);

// The pixels and runs of a block of label_pixels.
struct LabelBlock {
  int left, right, top, bottom;
  int runs_across;
};

__device__ __forceinline__ LabelBlock label_block(MergeView const& view, int column, int row) {
  int const left = column * view.label_width, grid_top = row * view.label_height - view.label_shift;
  return {left, min(left + view.label_width, view.W), max(grid_top, 0), min(grid_top + view.label_height, view.H),
          (view.label_width + 31) / 32};
}

template <typename Label>
__device__ __forceinline__ Label* runs_of(MergeView const& view, std::int64_t image, int column, int row) {
  return static_cast<Label*>(view.runs) +
         ((image * view.label_down + row) * view.label_across + column) * std::int64_t{kMostRuns};
}

__device__ __forceinline__ std::int64_t owned_words(MergeView const& view) {
  return std::int64_t{view.tiles_across} * view.tiles_down * kTile;
}

__device__ __forceinline__ void add_to_region(Region* region, Region const& more) {
  if (more.area == 0) return;
  atomicAdd(&region->area, more.area);
  atomicMax(&region->from_right, more.from_right);
  atomicMax(&region->from_bottom, more.from_bottom);
  atomicMax(&region->x1, more.x1);
  atomicMax(&region->y1, more.y1);
}

}  // namespace panrt::cuda
