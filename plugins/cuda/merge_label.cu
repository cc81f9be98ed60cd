// The third stage of PanopticMerge: the semantic argmax where no instance is. Every logit is read once, except at the
// edges of tiles.
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "merge_view.h"
#include "panrt/resize_taps.h"
#include "prepare.h"
#include "vectors.h"

namespace panrt::cuda {
namespace {

constexpr int kLabelWarps = kLabelThreads / 32;
constexpr int kChannelsAtOnce = 2;

// --- Where a block's pixels read the map -----------------------------------------------------------------------------

// The number of the three cells that a pixel uses, counted from the first.
__device__ __forceinline__ int cells_used(ResizeTaps const& taps) {
  return taps.weight[2] != 0.0F ? 3 : taps.weight[1] != 0.0F ? 2 : 1;
}

// Cells begin to end - 1, which pixels first to last reach: both ends grow with the pixel.
__device__ __forceinline__ PixelRange cells_of(int first, int last, int valid, int output, int cells) {
  ResizeTaps const low = resize_taps(first, valid, output), high = resize_taps(last, valid, output);
  int const begin = low.cell < cells - 1 ? low.cell : cells - 1, end = high.cell + cells_used(high);
  return {begin, end < cells ? end : cells};
}

// Weights, and in the last component the three cells as bytes, counted from the first of `cells`. A cell beyond them
// has weight 0, or is the map's last once more.
__device__ __forceinline__ float4 packed_taps(int pixel, int valid, int output, PixelRange const& cells) {
  ResizeTaps const taps = resize_taps(pixel, valid, output);
  unsigned packed = 0;
  for (int i = 0; i < 3; ++i) {
    int const cell = taps.cell + i < cells.end ? taps.cell + i : cells.end - 1;
    packed |= static_cast<unsigned>(cell - cells.begin) << 8 * i;
  }
  return make_float4(taps.weight[0], taps.weight[1], taps.weight[2], __uint_as_float(packed));
}
__device__ __forceinline__ int cell_of(float4 const& taps, int i) {
  return static_cast<int>(__float_as_uint(taps.w) >> 8 * i & 0xFFU);
}

// The owned bits of 32 pixels of a row from x on; set at and beyond `end`.
__device__ __forceinline__ std::uint32_t owned_from(MergeView const& view, std::uint32_t const* owned, int y, int x,
                                                    int end) {
  if (x >= end) return ~0U;
  std::uint32_t const* const word =
      owned + (std::int64_t{y / kTile} * view.tiles_across + x / kTile) * kTile + y % kTile;
  std::uint32_t bits = word[0] >> x % kTile;
  if (x % kTile != 0 && x / kTile + 1 < view.tiles_across) bits |= word[kTile] << (kTile - x % kTile);
  if (end - x < 32) bits |= ~0U << (end - x);
  return bits;
}

struct LabelScratch {
  float cells[kChannelsAtOnce][kCellRows * kCellColumns];  // clamped logits; afterwards the regions of the channels
  float4 row_taps[kLabelRows], column_taps[kLabelColumns];
  float combined[kLabelWarps][kCellColumns];  // a warp's row of pixels, between the rows of cells
  std::uint32_t owned[kLabelWarps][kWarpWords][kWarpRows<std::uint8_t>];
  int4 reach[kLabelWarps];        // first and last row, first and last column of the cells that a warp's pixels reach
  std::uint16_t runs[kMostRuns];  // labels
};

// The pixels of a block and of this thread's warp, and the cells that the block's pixels reach.
struct LabelArea {
  LabelBlock block;
  PixelRange rows, columns;  // of cells
  int x, y;                  // the warp's first pixel
};

template <int kRows>
__device__ __forceinline__ LabelArea label_area(MergeView const& view) {
  LabelBlock const block = label_block(view, static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y));
  auto const warp = static_cast<int>(warp_id());
  return {block, cells_of(block.top, block.bottom - 1, view.input_height, view.H, view.h),
          cells_of(block.left, block.right - 1, view.input_width, view.W, view.w),
          block.left + warp % kWarpsAcross * 32 * kWarpWords, block.top + warp / kWarpsAcross * kRows};
}

__device__ __forceinline__ void place_taps(MergeView const& view, LabelArea const& area, LabelScratch& scratch) {
  auto const thread = static_cast<int>(threadIdx.x);
  for (int i = thread; area.block.left + i < area.block.right; i += kLabelThreads) {
    scratch.column_taps[i] = packed_taps(area.block.left + i, view.input_width, view.W, area.columns);
  }
  if (thread < kLabelRows && area.block.top + thread < area.block.bottom) {
    scratch.row_taps[thread] = packed_taps(area.block.top + thread, view.input_height, view.H, area.rows);
  }
}

// Loads the owned bits of a warp's pixels; true if one of them is free.
template <int kRows>
__device__ __forceinline__ bool load_owned(MergeView const& view, LabelArea const& area,
                                           std::uint32_t (&owned)[kWarpWords][kWarpRows<std::uint8_t>]) {
  std::uint32_t const* const bits_of_image = view.owned + std::int64_t{blockIdx.z} * owned_words(view);
  bool any_free = false;
  for (auto i = static_cast<int>(lane_id()); i < kWarpWords * kRows; i += 32) {
    int const x = area.x + i / kRows * 32, y = area.y + i % kRows;
    std::uint32_t const bits = y < area.block.bottom ? owned_from(view, bits_of_image, y, x, area.block.right) : ~0U;
    owned[i / kRows][i % kRows] = bits;
    any_free |= bits != ~0U;
  }
  return __any_sync(kAllLanes, any_free) != 0;
}

// The cells that a warp's pixels reach.
template <int kRows>
__device__ __forceinline__ int4 reach_of(LabelArea const& area, LabelScratch const& scratch) {
  int const last_row = min(area.y + kRows, area.block.bottom) - 1;
  int const last_column = min(area.x + 32 * kWarpWords, area.block.right) - 1;
  return make_int4(cell_of(scratch.row_taps[area.y - area.block.top], 0),
                   cell_of(scratch.row_taps[last_row - area.block.top], 2),
                   cell_of(scratch.column_taps[area.x - area.block.left], 0),
                   cell_of(scratch.column_taps[last_column - area.block.left], 2));
}

// --- Argmax ----------------------------------------------------------------------------------------------------------

// Reads some channels of the cells that the block's pixels reach, and clamps them.
template <typename Logit>
__device__ __forceinline__ void load_channels(MergeView const& view, LabelArea const& area, int first, int channels,
                                              LabelScratch& scratch) {
  constexpr int kInSector = 32 / sizeof(Logit);
  int const row_count = area.rows.end - area.rows.begin;
  Logit const* const map =
      static_cast<Logit const*>(view.logits) +
      ((std::int64_t{blockIdx.z} * view.S + first) * view.h + area.rows.begin) * static_cast<std::int64_t>(view.w);
  for (auto i = static_cast<int>(warp_id()); i < channels * row_count; i += kLabelWarps) {
    int const channel = i / row_count, row = i % row_count;
    Logit const* const line = map + (std::int64_t{channel} * view.h + row) * view.w;
    float* const to = scratch.cells[channel] + row * kCellColumns;
    // From where a sector begins: its other cells are read with it, and no request touches one sector more than it
    // must.
#pragma unroll 5
    for (int x = area.columns.begin / kInSector * kInSector + static_cast<int>(lane_id()); x < area.columns.end;
         x += 32) {
      float const logit = clamp_logit(as_float(line[x]));
      if (x >= area.columns.begin) to[x - area.columns.begin] = logit;
    }
    __syncwarp(kAllLanes);  // lanes continue side by side
  }
}

// The most that a channel may come to at the warp's pixels.
__device__ __forceinline__ float upper_bound_of(float const* cells, int4 const& reach) {
  float high = -INFINITY, low = INFINITY;
  for (int x = reach.z + static_cast<int>(lane_id()); x <= reach.w; x += 32) {
    for (int y = reach.x; y <= reach.y; ++y) {
      float const logit = cells[y * kCellColumns + x];
      high = fmaxf(high, logit);
      low = fminf(low, logit);
    }
  }
  for (int step = 16; step > 0; step /= 2) {
    high = fmaxf(high, __shfl_xor_sync(kAllLanes, high, step));
    low = fminf(low, __shfl_xor_sync(kAllLanes, low, step));
  }
  return high + resize_margin(low, high);
}

// The best logit so far of each of a thread's pixels, and the number of its channel; in registers.
template <typename Channel>
struct Best {
  static constexpr int kRows = kWarpRows<Channel>;
  static constexpr int kInWord = 4 / sizeof(Channel), kBits = 8 * sizeof(Channel);
  static constexpr std::uint32_t kOnes = (1U << kBits) - 1U;

  float logits[kRows][kWarpWords];
  std::uint32_t channels[kRows][kWarpWords / kInWord];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int j = 0; j < kWarpWords; ++j) {
        logits[r][j] = -INFINITY;
        channels[r][j / kInWord] = 0;
      }
    }
  }
  __device__ __forceinline__ void offer(int r, int j, float logit, int channel) {
    if (logit > logits[r][j]) {
      logits[r][j] = logit;
      int const shift = j % kInWord * kBits;
      std::uint32_t& packed = channels[r][j / kInWord];
      packed = (packed & ~(kOnes << shift)) | static_cast<std::uint32_t>(channel) << shift;
    }
  }
  __device__ __forceinline__ int channel(int r, int j) const {
    return static_cast<int>(channels[r][j / kInWord] >> j % kInWord * kBits & kOnes);
  }
};

// Resizes a channel at the warp's pixels, row by row: first between rows of cells, then between columns.
template <typename Channel>
__device__ __forceinline__ void offer_channel(LabelArea const& area, LabelScratch const& scratch, float const* cells,
                                              int4 const& reach, float (&combined)[kCellColumns],
                                              std::uint32_t const (&owned)[kWarpWords][kWarpRows<std::uint8_t>],
                                              int channel, Best<Channel>& best) {
  auto const lane = static_cast<int>(lane_id());
#pragma unroll
  for (int r = 0; r < Best<Channel>::kRows; ++r) {
    if (area.y + r >= area.block.bottom) continue;  // the same for the whole warp
    float4 const row = scratch.row_taps[area.y - area.block.top + r];
    float const* const above = cells + cell_of(row, 0) * kCellColumns;
    float const* const middle = cells + cell_of(row, 1) * kCellColumns;
    float const* const below = cells + cell_of(row, 2) * kCellColumns;
    __syncwarp(kAllLanes);
    for (int x = reach.z + lane; x <= reach.w; x += 32) {
      float const two = row.x * above[x] + row.y * middle[x];
      combined[x] = row.z != 0.0F ? two + row.z * below[x] : two;  // no map that grows has a third cell
    }
    __syncwarp(kAllLanes);
#pragma unroll
    for (int j = 0; j < kWarpWords; ++j) {
      if ((owned[j][r] >> lane & 1U) != 0) continue;
      float4 const taps = scratch.column_taps[area.x - area.block.left + j * 32 + lane];
      float value = taps.x * combined[cell_of(taps, 0)] + taps.y * combined[cell_of(taps, 1)];
      if (taps.z != 0.0F) value += taps.z * combined[cell_of(taps, 2)];
      best.offer(r, j, value, channel);
    }
  }
}

// The lowest of the best logits of the warp's free pixels.
template <typename Channel>
__device__ __forceinline__ float lowest_best(std::uint32_t const (&owned)[kWarpWords][kWarpRows<std::uint8_t>],
                                             Best<Channel> const& best) {
  float lowest = INFINITY;
#pragma unroll
  for (int r = 0; r < Best<Channel>::kRows; ++r) {
#pragma unroll
    for (int j = 0; j < kWarpWords; ++j) {
      if ((owned[j][r] >> lane_id() & 1U) == 0) lowest = fminf(lowest, best.logits[r][j]);
    }
  }
  for (int step = 16; step > 0; step /= 2) lowest = fminf(lowest, __shfl_xor_sync(kAllLanes, lowest, step));
  return lowest;
}

// Finds the best channel of each of the block's free pixels. A warp without a free pixel only helps to load.
template <typename Logit, typename Channel>
__device__ __forceinline__ void find_best(MergeView const& view, LabelArea const& area, bool any_free,
                                          LabelScratch& scratch, Best<Channel>& best) {
  unsigned const warp = warp_id();
  float lowest = -INFINITY;
  for (int first = 0; first < view.S && view.S > 1; first += kChannelsAtOnce) {
    int const channels = min(kChannelsAtOnce, view.S - first);
    __syncthreads();  // the last channels have been read
    load_channels<Logit>(view, area, first, channels, scratch);
    __syncthreads();
    if (!any_free) continue;
    for (int channel = 0; channel < channels; ++channel) {
      float const* const cells = scratch.cells[channel];
      int4 const reach = scratch.reach[warp];
      if (upper_bound_of(cells, reach) <= lowest) continue;  // an equal one does not win
      offer_channel(area, scratch, cells, reach, scratch.combined[warp], scratch.owned[warp], first + channel, best);
      lowest = lowest_best(scratch.owned[warp], best);
    }
  }
}

// --- Labels ----------------------------------------------------------------------------------------------------------

// Adds the free pixels of 32 in a row to the regions of their labels; once for each label.
__device__ __forceinline__ void add_run(MergeView const& view, int x, int y, std::uint32_t owned, int label,
                                        Region* regions) {
  auto const lane = static_cast<int>(lane_id());
  bool const free = (owned >> lane & 1U) == 0;
  unsigned left_over = ~owned;
  while (left_over != 0) {
    int const leader = __ffs(static_cast<int>(left_over)) - 1;
    int const common = __shfl_sync(kAllLanes, label, leader);
    unsigned const same = __ballot_sync(kAllLanes, free && label == common);
    if (lane == leader) {
      add_to_region(regions + common,
                    {__popc(same), view.W - (x + leader), view.H - y, x + 32 - __clz(static_cast<int>(same)), y + 1});
    }
    left_over &= ~same;
  }
}

// Writes the labels of a warp's free pixels, or of whole runs, and adds them to the regions.
template <typename Label, typename Channel>
__device__ __forceinline__ void write_labels(MergeView const& view, LabelArea const& area, Best<Channel> const& best,
                                             LabelScratch& scratch, Region* regions) {
  auto const lane = static_cast<int>(lane_id());
  std::uint32_t const(&owned)[kWarpWords][kWarpRows<std::uint8_t>] = scratch.owned[warp_id()];
  Label* const labels = static_cast<Label*>(view.labels) + std::int64_t{blockIdx.z} * view.H * view.pitch;
#pragma unroll
  for (int r = 0; r < Best<Channel>::kRows; ++r) {
    int const y = area.y + r;
    if (y >= area.block.bottom) continue;
#pragma unroll
    for (int j = 0; j < kWarpWords; ++j) {
      int const x = area.x + j * 32;
      bool const free = (owned[j][r] >> lane & 1U) == 0;
      int const label = best.channel(r, j);
      bool const whole = owned[j][r] == 0 && __all_sync(kAllLanes, label == __shfl_sync(kAllLanes, label, 0)) != 0;
      if (whole && lane == 0) {
        scratch.runs[(y - area.block.top) * area.block.runs_across + (x - area.block.left) / 32] =
            static_cast<std::uint16_t>(label);
      }
      if (free && !whole) labels[std::int64_t{y} * view.pitch + x + lane] = static_cast<Label>(label);
      add_run(view, x, y, owned[j][r], label, regions);
    }
  }
}

// A block owns up to 512 x 60 pixels, a warp 128 x 20 of them, a lane four columns whose best logit so far stands in
// registers. Channels pass through shared memory two at a time: each row of cells is read in whole sectors, and read
// again only by neighbouring blocks, a row and two columns of cells. Writes a label per run, and one per pixel if a run
// has several. Bound by the read of the logits: a warp skips a channel that stays below what all its pixels have
// reached, as most do in most places.
template <typename Logit, typename Label, typename Channel>
__global__ __launch_bounds__(kLabelThreads, 1) void label_pixels(MergeView const view) {
  __shared__ LabelScratch scratch;
  constexpr int kRows = kWarpRows<Channel>;
  std::int64_t const image = blockIdx.z;
  auto const thread = static_cast<int>(threadIdx.x);
  LabelArea const area = label_area<kRows>(view);
  place_taps(view, area, scratch);
  bool const any_free = load_owned<kRows>(view, area, scratch.owned[warp_id()]);
  Label* const runs = runs_of<Label>(view, image, static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y));
  int const run_count = (area.block.bottom - area.block.top) * area.block.runs_across;
  for (int i = thread; i < run_count; i += kLabelThreads) scratch.runs[i] = kSeveral<Label>;
  if (__syncthreads_or(any_free) == 0) {
    for (int i = thread; i < run_count; i += kLabelThreads) runs[i] = kSeveral<Label>;
    return;
  }
  if (any_free && lane_id() == 0) scratch.reach[warp_id()] = reach_of<kRows>(area, scratch);
  Best<Channel> best;
  best.clear();
  find_best<Logit>(view, area, any_free, scratch, best);

  // Regions are collected in shared memory, if that has room for all channels.
  __syncthreads();
  static_assert(sizeof(Region) == 5 * sizeof(std::int32_t), "no padding");
  Region* const stuff = view.stuff + image * view.S;
  bool const in_shared = static_cast<std::size_t>(view.S) * sizeof(Region) <= sizeof scratch.cells;
  Region* const regions = in_shared ? reinterpret_cast<Region*>(scratch.cells) : stuff;
  auto* const numbers = reinterpret_cast<std::int32_t*>(scratch.cells);
  if (in_shared) {
    for (int i = thread; i < view.S * 5; i += kLabelThreads) numbers[i] = 0;
  }
  __syncthreads();
  if (any_free) write_labels<Label>(view, area, best, scratch, regions);
  __syncthreads();
  for (int i = thread; i < run_count; i += kLabelThreads) runs[i] = static_cast<Label>(scratch.runs[i]);
  if (!in_shared) return;
  for (int channel = thread; channel < view.S; channel += kLabelThreads) {
    add_to_region(stuff + channel, regions[channel]);
  }
}

template <typename Logit>
auto choose_label_pixels(PanopticMergeArgs const& args) noexcept {
  if (has_byte_labels(args)) return label_pixels<Logit, std::uint8_t, std::uint8_t>;
  return has_byte_channels(args) ? label_pixels<Logit, std::uint16_t, std::uint8_t>
                                 : label_pixels<Logit, std::uint16_t, std::uint16_t>;
}

}  // namespace

Status launch_label_pixels(PanopticMergeArgs const& args, MergeView const& view, cudaStream_t stream) noexcept {
  auto* const kernel =
      args.logit_type == DataType::kFloat32 ? choose_label_pixels<float>(args) : choose_label_pixels<__half>(args);
  dim3 const grid(static_cast<unsigned>(view.label_across), static_cast<unsigned>(view.label_down),
                  static_cast<unsigned>(args.images));
  return launch(kernel, {grid, dim3(kLabelThreads)}, stream, view);
}

Status prepare_label_pixels() noexcept {
  return prepare(label_pixels<float, std::uint8_t, std::uint8_t>, label_pixels<float, std::uint16_t, std::uint8_t>,
                 label_pixels<float, std::uint16_t, std::uint16_t>, label_pixels<__half, std::uint8_t, std::uint8_t>,
                 label_pixels<__half, std::uint16_t, std::uint8_t>, label_pixels<__half, std::uint16_t, std::uint16_t>);
}

}  // namespace panrt::cuda
