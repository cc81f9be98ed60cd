// PanopticMerge on the GPU, in five kernels:
//
//   order_instances    which detections may be painted, best first, and where their masks reach
//   resolve_instances  count, accept, paint: the sequential rule, side by side wherever masks do not meet
//   label_pixels       semantic argmax where no instance is; every logit is read once, but for the edges of tiles
//   number_segments    ids, areas and boxes
//   write_map          labels to ids
//
// Between the kernels a pixel is a label of one byte (two where K + S needs it): a channel, or S and the place of an
// instance in the order. Most runs of 32 pixels have one label: then the run has it, and its pixels are never written
// nor read. Which pixels are owned is a bit each. Neither masks nor logits exist at output resolution.
//
// How overlaps are decided. The rule is sequential: an instance is judged by the pixels that accepted better ones own.
// Its outcome, though, depends only on better ones whose masks may touch the same pixels. So each instance is cut into
// units of work, first some that count and then as many that paint, and units are numbered: better instances first,
// counting before painting; where one unit is all the work, it does both. Blocks draw numbers from a counter. A unit
// that counts waits until all better instances
// whose supports meet its own are painted, one that paints until its instance is counted. Both wait only for units with
// lower numbers, which blocks that run have drawn: the lowest unfinished unit never waits, so there is no deadlock
// whatever the number of blocks. Each instance is thus counted against exactly the pixels that the sequential rule had
// painted at that moment within its reach, and decided by the same comparison: the result is the rule's.
//
// Shapes: N images, K detections, Gh x Gw a mask, S channels, h x w semantic map, H x W output.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "block_select.h"
#include "checks.h"
#include "hand_over.h"
#include "launch.h"
#include "panrt/boxes.h"
#include "panrt/cuda/panoptic_merge.h"
#include "panrt/limits.h"
#include "panrt/paste.h"
#include "panrt/resize_taps.h"
#include "prepare.h"
#include "workspace.h"

namespace panrt::cuda {
namespace {

constexpr int kTile = 32;          // pixels a side: a row of a tile is a word of bits, a tile is 128 bytes
constexpr int kTilesPerUnit = 32;  // of work on an instance
constexpr int kStagedCells = 1024;
constexpr int kSortedInShared = 1024;
constexpr int kResolveBlocks = 128;  // an image, at most; more than GPUs of the edge run at once

// label_pixels: a block's pixels, and the cells of the semantic map that they reach.
// Its 12 warps stand 4 by 3. A warp's pixels are 20 rows of 4 times 32; 10 rows where the number of a channel needs two
// bytes, for a thread keeps 4 columns of them in registers.
constexpr int kLabelThreads = 384, kWarpsAcross = 4, kWarpsDown = 3, kWarpWords = 4;
template <typename Channel>
constexpr int kWarpRows = 20 / sizeof(Channel);
constexpr int kLabelColumns = kWarpsAcross * kWarpWords * 32, kLabelRows = kWarpsDown * kWarpRows<std::uint8_t>;
constexpr int kCellColumns = 132, kCellRows = 20;
constexpr int kMostRuns = kLabelColumns / 32 * kLabelRows;  // runs of 32 pixels in a row, of a block
static_assert((kLabelColumns - 1 + 3) / 4 + 4 <= kCellColumns && (kLabelRows - 1 + 3) / 4 + 4 <= kCellRows, "at 1 : 1");
constexpr int kChannelsAtOnce = 2;

constexpr float kLargestLogit = 1e30F;

__device__ __forceinline__ float as_float(float value) { return value; }
__device__ __forceinline__ float as_float(__half value) { return __half2float(value); }

// An instance that may be painted.
struct Instance {
  std::int32_t detection;
  Extent y, x;
  PixelRange rows, columns;  // beyond them its mask is empty
};

// Pixels of a segment. Each number grows from 0, so that a fill with zero begins it.
struct Region {
  std::int32_t area;
  std::int32_t from_right, from_bottom;  // W - x0, H - y0
  std::int32_t x1, y1;
};

struct InstanceState {
  std::uint32_t area, taken;       // pixels of the mask, and those among them that others own
  std::uint32_t counted, painted;  // units that are done
  Region region;                   // of what was painted
};

struct View {
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

  Rank* ranks;                  // (N, K to a power of two), where shared memory is too small
  Instance* instances;          // (N, K)
  std::uint32_t* first_ticket;  // (N, K + 1)
  std::int32_t* found;          // (N) instances
  std::uint32_t* next_ticket;   // (N) from here to `labels` all begins as 0
  InstanceState* states;        // (N, K)
  Region* stuff;                // (N, S)
  std::uint32_t* owned;         // (N, tiles, 32) bits of pixels
  void* labels;                 // (N, H, pitch), where a run has several
  void* runs;                   // (N, blocks of label_pixels, kMostRuns) their label, or kSeveral
  std::int32_t* ids;            // (N, K + S)

  std::int64_t zero_bytes;
  std::int32_t K, S, h, w, Gh, Gw, H, W;
  std::int32_t tiles_across, tiles_down, pitch;
  std::int32_t input_height, input_width;
  std::int32_t label_width, label_height, label_shift;  // pixels of a block of label_pixels; rows that it begins above
  std::int32_t label_across, label_down;                // blocks of label_pixels an image
  float score_threshold, overlap_threshold, mask_threshold;
  std::int32_t stuff_area_limit;
};

// Instead of a run's label: its pixels have their own. No code of a channel or instance is so large.
template <typename Label>
constexpr Label kSeveral = static_cast<Label>(-1);

// The pixels and runs of a block of label_pixels.
struct LabelBlock {
  int left, right, top, bottom;
  int runs_across;
};
__device__ __forceinline__ LabelBlock label_block(View const& view, int column, int row) {
  int const left = column * view.label_width, grid_top = row * view.label_height - view.label_shift;
  return {left, min(left + view.label_width, view.W), max(grid_top, 0), min(grid_top + view.label_height, view.H),
          (view.label_width + 31) / 32};
}

template <typename Label>
__device__ __forceinline__ Label* runs_of(View const& view, std::int64_t image, int column, int row) {
  return static_cast<Label*>(view.runs) +
         ((image * view.label_down + row) * view.label_across + column) * std::int64_t{kMostRuns};
}

__device__ __forceinline__ std::int64_t owned_words(View const& view) {
  return std::int64_t{view.tiles_across} * view.tiles_down * kTile;
}

// --- order_instances -------------------------------------------------------------------------------------------------

// The work on an instance, in units; none where its mask reaches no pixel.
__device__ __forceinline__ std::uint32_t units_of(Instance const& item) {
  if (item.rows.begin >= item.rows.end || item.columns.begin >= item.columns.end) return 0;
  int const down = (item.rows.end - 1) / kTile - item.rows.begin / kTile + 1;
  int const across = (item.columns.end - 1) / kTile - item.columns.begin / kTile + 1;
  return static_cast<std::uint32_t>((down * across + kTilesPerUnit - 1) / kTilesPerUnit);
}

// The first block of an image owns its instances, a thread one at a time; the other blocks fill what begins as zero, 16
// bytes a lane. Bound by the fill, one bit a pixel, and beside it by the latency of the sort.
__global__ __launch_bounds__(256, 4) void order_instances(View const view) {
  constexpr int kWords = sizeof(Instance) / sizeof(std::uint32_t);
  __shared__ Rank shared_ranks[kSortedInShared];
  __shared__ std::uint32_t warp_sums[32];
  __shared__ std::uint32_t
      staged[256 * kWords];  // instances, which lie words apart, on their way to stores side by side

  if (blockIdx.x > 0) {
    uint4* const zero = reinterpret_cast<uint4*>(view.next_ticket);
    std::int64_t const blocks = std::int64_t{gridDim.x - 1} * gridDim.y;
    std::int64_t const block = std::int64_t{blockIdx.y} * (gridDim.x - 1) + blockIdx.x - 1;
    for (std::int64_t i = block * 256 + threadIdx.x; i < view.zero_bytes / 16; i += blocks * 256) {
      __stwb(zero + i, make_uint4(0, 0, 0, 0));
    }
    return;
  }

  std::int64_t const image = blockIdx.y, first = image * view.K;
  auto const K = static_cast<std::uint32_t>(view.K);
  std::uint32_t const padded = power_of_two_from(K);
  Rank* const ranks = padded <= kSortedInShared ? shared_ranks : view.ranks + image * padded;
  auto const extents = [&](std::uint32_t k, Extent& y, Extent& x) {
    Box const box = load_box(view.boxes + (first + k) * 4);
    y = scaled_extent(box.y0, box.y1, view.input_height, view.H);
    x = scaled_extent(box.x0, box.x1, view.input_width, view.W);
    return !is_empty(y) && !is_empty(x);
  };
  std::uint32_t mine = 0;
  for (std::uint32_t k = threadIdx.x; k < padded; k += 256) {
    Rank rank = kNoRank;
    if (k < K && static_cast<std::int64_t>(k) < view.count[image]) {
      float const score = view.scores[first + k];
      Extent y, x;
      if (score >= view.score_threshold && extents(k, y, x)) rank = rank_of(score, k);  // false for NaN
    }
    ranks[k] = rank;
    mine += rank != kNoRank ? 1U : 0U;
  }
  std::uint32_t found;
  exclusive_sum<256>(mine, warp_sums, found);
  sort_ranks<256>(ranks, padded);

  std::uint32_t ticket = 0;
  std::uint32_t* const first_ticket = view.first_ticket + image * (view.K + 1);
  auto* const words = reinterpret_cast<std::uint32_t*>(view.instances + first);
  for (std::uint32_t base = 0; base < found; base += 256) {
    std::uint32_t const i = base + threadIdx.x;
    std::uint32_t tickets = 0;
    if (i < found) {
      Instance& item = reinterpret_cast<Instance*>(staged)[threadIdx.x];
      std::uint32_t const k = index_of(ranks[i]);
      extents(k, item.y, item.x);
      item.detection = static_cast<std::int32_t>(k);
      item.rows = paste_support(item.y, view.Gh, view.H, view.mask_threshold);
      item.columns = paste_support(item.x, view.Gw, view.W, view.mask_threshold);
      std::uint32_t const units = units_of(item);
      tickets = units == 1 ? 1 : 2 * units;
    }
    std::uint32_t total;
    std::uint32_t const before = exclusive_sum<256>(tickets, warp_sums, total);
    if (i < found) first_ticket[i] = ticket + before;
    ticket += total;
    std::uint32_t const end = min(found - base, 256U) * kWords;
#pragma unroll 1
    for (std::uint32_t word = threadIdx.x; word < end; word += 256) words[base * kWords + word] = staged[word];
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    first_ticket[found] = ticket;
    view.found[image] = static_cast<std::int32_t>(found);
  }
}

// --- resolve_instances -----------------------------------------------------------------------------------------------

__device__ __forceinline__ bool meet(PixelRange const& a, PixelRange const& b) {
  return a.begin < b.end && b.begin < a.end;
}

// The units of work on an instance, from its tickets: one for each unit that counts and each that paints, or one alone.
__device__ __forceinline__ std::uint32_t units_from(std::uint32_t tickets) { return (tickets + 1) / 2; }

__device__ __forceinline__ bool is_accepted(View const& view, std::uint32_t area, std::uint32_t taken) {
  if (area == taken) return false;  // no pixel, or none that is free
  auto const share = static_cast<float>(static_cast<double>(taken) / static_cast<double>(area));
  return !(share > view.overlap_threshold);
}

__device__ __forceinline__ void add_to_region(Region* region, Region const& more) {
  if (more.area == 0) return;
  atomicAdd(&region->area, more.area);
  atomicMax(&region->from_right, more.from_right);
  atomicMax(&region->from_bottom, more.from_bottom);
  atomicMax(&region->x1, more.x1);
  atomicMax(&region->y1, more.y1);
}

// A mask with a border of zeros: in shared memory where it fits, else where it is.
template <typename Probability>
struct Mask {
  Probability const* probabilities;  // (Gh, Gw)
  float const* staged;               // (Gh + 2, Gw + 2), or null
  int Gh, Gw;

  __device__ float outside(int y, int x) const {
    if (y < 0 || y >= Gh || x < 0 || x >= Gw) return 0.0F;
    return paste_probability(as_float(probabilities[y * Gw + x]));
  }
  __device__ float at(int y, int x) const {
    return staged != nullptr ? staged[(y + 1) * (Gw + 2) + x + 1] : outside(y, x);
  }
};

// Which pixels of a tile a mask covers, by a warp: lane r is given the bits of row r.
template <typename Probability>
__device__ std::uint32_t covered_bits(View const& view, Instance const& item, Mask<Probability> const& mask, int top,
                                      int left) {
  int const x = left + static_cast<int>(lane_id()), y = top + static_cast<int>(lane_id());
  bool const inside = x >= item.columns.begin && x < item.columns.end;
  PasteTaps const columns = paste_taps(paste_position(x, item.x, mask.Gw), mask.Gw);
  PasteTaps const rows = paste_taps(paste_position(y, item.y, mask.Gh), mask.Gh);
  int const begin = item.rows.begin > top ? item.rows.begin - top : 0;
  int const end = item.rows.end < top + kTile ? item.rows.end - top : kTile;
  std::uint32_t covered = 0;
  int cell = -2;  // none yet: cells begin at -1
  float a = 0.0F, b = 0.0F, c = 0.0F, d = 0.0F;
  for (int r = begin; r < end; ++r) {
    int const row = __shfl_sync(kAllLanes, rows.cell, r);
    float const fraction = __shfl_sync(kAllLanes, rows.fraction, r);
    if (row != cell) {
      a = mask.at(row, columns.cell);
      b = mask.at(row, columns.cell + 1);
      c = mask.at(row + 1, columns.cell);
      d = mask.at(row + 1, columns.cell + 1);
      cell = row;
    }
    float const value = lerp(lerp(a, c, fraction), lerp(b, d, fraction), columns.fraction);
    unsigned const bits = __ballot_sync(kAllLanes, inside && value >= view.mask_threshold);
    if (static_cast<int>(lane_id()) == r) covered = bits;
  }
  return covered;
}

// The mask and a border of zeros, in shared memory.
template <typename Probability>
__device__ void stage(Mask<Probability> const& mask, float* staged) {
  int const across = mask.Gw + 2, last = (mask.Gh + 1) * across;
  for (int i = static_cast<int>(threadIdx.x); i < mask.Gh * mask.Gw; i += 256) {
    staged[(i / mask.Gw + 1) * across + i % mask.Gw + 1] = paste_probability(as_float(mask.probabilities[i]));
  }
  for (int i = static_cast<int>(threadIdx.x); i < across; i += 256) staged[i] = staged[last + i] = 0.0F;
  for (int i = static_cast<int>(threadIdx.x) + 1; i <= mask.Gh; i += 256) {
    staged[i * across] = staged[i * across + across - 1] = 0.0F;
  }
}

// A block draws units until none is left; a warp owns a tile of 32 x 32 pixels at a time, a lane a column of it for
// sampling and a row of it for bits. Reads a mask once a unit, into shared memory, and 128 bytes of bits a tile; writes
// the bits, and a label for each pixel that is painted. Bound by sampling, some 30 instructions a pixel of a box, and
// by the chain of instances that lie upon one another.
template <typename Probability, typename Label>
__global__ __launch_bounds__(256, 4) void resolve_instances(View const view) {
  __shared__ float staged[kStagedCells];
  __shared__ std::uint32_t free_bits[kTilesPerUnit][kTile];  // of what the unit's mask covers; a lane's own
  __shared__ std::uint32_t tickets, ticket, first, units, area, taken;
  __shared__ std::int32_t found, drawn;
  __shared__ Region region;
  __shared__ Instance item;
  __shared__ bool counts, paints, wanted;

  std::int64_t const image = blockIdx.y;
  Instance const* const instances = view.instances + image * view.K;
  std::uint32_t const* const first_ticket = view.first_ticket + image * (view.K + 1);
  InstanceState* const states = view.states + image * view.K;
  std::uint32_t* const owned = view.owned + image * owned_words(view);
  Label* const labels = static_cast<Label*>(view.labels) + image * view.H * view.pitch;
  bool const fits = (view.Gh + 2) * std::int64_t{view.Gw + 2} <= kStagedCells;
  if (threadIdx.x == 0) {
    found = view.found[image];
    tickets = first_ticket[found];
  }

  for (;;) {
    __syncthreads();  // the last unit is done
    if (threadIdx.x == 0) {
      ticket = atomicAdd(view.next_ticket + image, 1U);
      area = 0;
      taken = 0;
      region = {0, 0, 0, 0, 0};
    }
    __syncthreads();
    if (ticket >= tickets) return;
    for (auto i = static_cast<std::int32_t>(threadIdx.x); i < found; i += 256) {
      std::uint32_t const begin = first_ticket[i], end = first_ticket[i + 1];
      if (begin <= ticket && ticket < end) {
        drawn = i;
        item = instances[i];
        first = begin;
        units = units_from(end - begin);
        counts = ticket - begin < units;
        paints = end - begin == 1 || !counts;
      }
    }
    __syncthreads();
    InstanceState* const state = states + drawn;
    std::uint32_t const unit = ticket - first - (counts ? 0 : units);

    if (counts) {
      for (auto j = static_cast<std::int32_t>(threadIdx.x); j < drawn; j += 256) {
        Instance const& better = instances[j];
        if (!meet(better.rows, item.rows) || !meet(better.columns, item.columns)) continue;
        wait_until(states[j].painted, units_from(first_ticket[j + 1] - first_ticket[j]));
      }
      if (threadIdx.x == 0) wanted = true;
    } else if (threadIdx.x == 0) {
      wait_until(state->counted, units);
      wanted = is_accepted(view, state->area, state->taken);
    }
    __syncthreads();  // what one thread has waited for is there for all

    if (wanted) {
      std::int64_t const cells = std::int64_t{view.Gh} * view.Gw;
      Mask<Probability> mask{static_cast<Probability const*>(view.masks) + (image * view.K + item.detection) * cells,
                             nullptr, view.Gh, view.Gw};
      if (fits) {
        stage(mask, staged);
        mask.staged = staged;
      }
      __syncthreads();

      int const first_row = item.rows.begin / kTile, first_column = item.columns.begin / kTile;
      int const across = (item.columns.end - 1) / kTile - first_column + 1;
      int const tiles = ((item.rows.end - 1) / kTile - first_row + 1) * across - static_cast<int>(unit) * kTilesPerUnit;
      std::uint32_t my_area = 0, my_taken = 0;
      for (auto i = static_cast<int>(warp_id()); i < min(kTilesPerUnit, tiles); i += 8) {
        int const tile = static_cast<int>(unit) * kTilesPerUnit + i;
        int const row = first_row + tile / across, column = first_column + tile % across;
        std::uint32_t const covered = covered_bits(view, item, mask, row * kTile, column * kTile);
        std::uint32_t const others =
            load_relaxed(owned[(std::int64_t{row} * view.tiles_across + column) * kTile + lane_id()]) & covered;
        my_area += static_cast<std::uint32_t>(__popc(covered));
        my_taken += static_cast<std::uint32_t>(__popc(others));
        free_bits[i][lane_id()] = covered & ~others;
      }
      if (counts) {
        if (my_area != 0) atomicAdd(&area, my_area);
        if (my_taken != 0) atomicAdd(&taken, my_taken);
        __syncthreads();
        if (threadIdx.x == 0) {
          atomicAdd(&state->area, area);
          atomicAdd(&state->taken, taken);
          wanted = paints && is_accepted(view, area, taken);  // all of it, where this unit paints too
        }
        __syncthreads();
      }

      Region mine{0, 0, 0, 0, 0};
      for (auto i = static_cast<int>(warp_id()); wanted && i < min(kTilesPerUnit, tiles); i += 8) {
        int const tile = static_cast<int>(unit) * kTilesPerUnit + i;
        int const row = first_row + tile / across, column = first_column + tile % across;
        std::uint32_t const free = free_bits[i][lane_id()];
        int const x = column * kTile + static_cast<int>(lane_id()), y = row * kTile + static_cast<int>(lane_id());
        if (free != 0) {
          // A neighbour whose support ends in this word may write to it too.
          atomicOr(owned + (std::int64_t{row} * view.tiles_across + column) * kTile + lane_id(), free);
          int const x0 = column * kTile + __ffs(static_cast<int>(free)) - 1;
          mine.area += __popc(free);
          mine.from_right = max(mine.from_right, view.W - x0);
          mine.from_bottom = max(mine.from_bottom, view.H - y);
          mine.x1 = max(mine.x1, column * kTile + 32 - __clz(static_cast<int>(free)));
          mine.y1 = max(mine.y1, y + 1);
        }
        for (int r = 0; r < kTile; ++r) {
          std::uint32_t const bits = __shfl_sync(kAllLanes, free, r);
          if ((bits >> lane_id() & 1U) != 0) {
            labels[std::int64_t{row * kTile + r} * view.pitch + x] = static_cast<Label>(view.S + drawn);
          }
        }
      }
      add_to_region(&region, mine);
      __syncthreads();
      if (threadIdx.x == 0) add_to_region(&state->region, region);
    }
    __syncthreads();  // all has been written
    if (threadIdx.x == 0) add_release(paints ? state->painted : state->counted, 1U);
  }
}

// --- label_pixels ----------------------------------------------------------------------------------------------------

__device__ __forceinline__ float clamp_logit(float logit) {
  if (!(logit >= -kLargestLogit)) return -kLargestLogit;  // NaN too
  return logit > kLargestLogit ? kLargestLogit : logit;
}

// How many of its three cells a pixel uses, from the first on.
__device__ __forceinline__ int cells_used(ResizeTaps const& taps) {
  return taps.weight[2] != 0.0F ? 3 : taps.weight[1] != 0.0F ? 2 : 1;
}

// Cells begin to end - 1 that pixels first to last reach: both ends grow with the pixel.
__device__ __forceinline__ PixelRange cells_of(int first, int last, int valid, int output, int cells) {
  ResizeTaps const low = resize_taps(first, valid, output), high = resize_taps(last, valid, output);
  int const begin = low.cell < cells - 1 ? low.cell : cells - 1, end = high.cell + cells_used(high);
  return {begin, end < cells ? end : cells};
}

// Weights, and in the last component the three cells as bytes, counted from the first of `cells`. A cell beyond has
// weight 0, or is the map's last once more.
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

// The owned bits of 32 pixels of a row from x on; set beyond `end`.
__device__ __forceinline__ std::uint32_t owned_from(View const& view, std::uint32_t const* owned, int y, int x,
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
  float combined[kLabelThreads / 32][kCellColumns];  // a warp's row of pixels, between the rows of cells
  std::uint32_t owned[kLabelThreads / 32][kWarpWords][kWarpRows<std::uint8_t>];
  int4 reach[kLabelThreads / 32];  // first and last row, first and last column of the cells that a warp's pixels reach
  std::uint16_t runs[kMostRuns];   // labels
};

// A block owns up to 512 x 60 pixels, a warp 128 x 20 of them, a lane four columns whose best logit so far stands in
// registers. Channels pass through shared memory two at a time: each row of cells is read in whole sectors, and read
// again only by the blocks beside, a row and two columns of cells. Writes a label a run, and one a pixel where a run
// has several. Bound by the read of the logits: a warp leaves out a channel that stays below what all its pixels have
// reached, as most do in most places.
template <typename Logit, typename Label, typename Channel>
__global__ __launch_bounds__(kLabelThreads, 1) void label_pixels(View const view) {
  __shared__ LabelScratch scratch;
  constexpr int kRows = kWarpRows<Channel>;
  constexpr int kInWord = 4 / sizeof(Channel), kBits = 8 * sizeof(Channel);
  constexpr std::uint32_t kOnes = (1U << kBits) - 1U;
  constexpr int kInSector = 32 / sizeof(Logit);

  std::int64_t const image = blockIdx.z;
  auto const [left, right, top, bottom, runs_across] =
      label_block(view, static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y));
  PixelRange const rows = cells_of(top, bottom - 1, view.input_height, view.H, view.h);
  PixelRange const columns = cells_of(left, right - 1, view.input_width, view.W, view.w);
  auto const thread = static_cast<int>(threadIdx.x);
  for (int i = thread; left + i < right; i += kLabelThreads) {
    scratch.column_taps[i] = packed_taps(left + i, view.input_width, view.W, columns);
  }
  if (thread < kLabelRows && top + thread < bottom) {
    scratch.row_taps[thread] = packed_taps(top + thread, view.input_height, view.H, rows);
  }

  int const lane = static_cast<int>(lane_id()), warp = static_cast<int>(warp_id());
  int const x_of_warp = left + warp % kWarpsAcross * 32 * kWarpWords;
  int const y_of_warp = top + warp / kWarpsAcross * kRows;
  std::uint32_t (&owned)[kWarpWords][kWarpRows<std::uint8_t>] = scratch.owned[warp];
  bool any_free = false;
  for (int i = lane; i < kWarpWords * kRows; i += 32) {
    int const x = x_of_warp + i / kRows * 32, y = y_of_warp + i % kRows;
    std::uint32_t const bits = y < bottom ? owned_from(view, view.owned + image * owned_words(view), y, x, right) : ~0U;
    owned[i / kRows][i % kRows] = bits;
    any_free |= bits != ~0U;
  }
  any_free = __any_sync(kAllLanes, any_free) != 0;
  Label* const runs = runs_of<Label>(view, image, static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y));
  int const run_count = (bottom - top) * runs_across;
  for (int i = thread; i < run_count; i += kLabelThreads) scratch.runs[i] = kSeveral<Label>;
  if (__syncthreads_or(any_free) == 0) {
    for (int i = thread; i < run_count; i += kLabelThreads) runs[i] = kSeveral<Label>;
    return;
  }

  if (any_free && lane == 0) {
    int const last_row = min(y_of_warp + kRows, bottom) - 1, last_column = min(x_of_warp + 128, right) - 1;
    scratch.reach[warp] = make_int4(
        cell_of(scratch.row_taps[y_of_warp - top], 0), cell_of(scratch.row_taps[last_row - top], 2),
        cell_of(scratch.column_taps[x_of_warp - left], 0), cell_of(scratch.column_taps[last_column - left], 2));
  }

  float best[kRows][kWarpWords];
  std::uint32_t winner[kRows][kWarpWords / kInWord];  // numbers of channels
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int j = 0; j < kWarpWords; ++j) {
      best[r][j] = -INFINITY;
      winner[r][j / kInWord] = 0;
    }
  }

  float lowest = -INFINITY;  // of the best logits of the warp's free pixels
  float (&combined)[kCellColumns] = scratch.combined[warp];
  int const row_count = rows.end - rows.begin;
  for (int first = 0; first < view.S && view.S > 1; first += kChannelsAtOnce) {
    int const channels = min(kChannelsAtOnce, view.S - first);
    __syncthreads();  // the last channels have been read
    Logit const* const map = static_cast<Logit const*>(view.logits) +
                             ((image * view.S + first) * view.h + rows.begin) * static_cast<std::int64_t>(view.w);
    for (int i = warp; i < channels * row_count; i += kLabelThreads / 32) {
      int const channel = i / row_count, row = i % row_count;
      Logit const* const line = map + (std::int64_t{channel} * view.h + row) * view.w;
      float* const to = scratch.cells[channel] + row * kCellColumns;
      // From where a sector begins: its other cells come with it, and no request crosses one more than it has to.
#pragma unroll 5
      for (int x = columns.begin / kInSector * kInSector + lane; x < columns.end; x += 32) {
        float const logit = clamp_logit(as_float(line[x]));
        if (x >= columns.begin) to[x - columns.begin] = logit;
      }
      __syncwarp(kAllLanes);  // lanes go on side by side
    }
    __syncthreads();
    if (!any_free) continue;

    for (int channel = 0; channel < channels; ++channel) {
      float const* const cells = scratch.cells[channel];
      int4 const reach = scratch.reach[warp];
      float high = -INFINITY, low = INFINITY;
      for (int x = reach.z + lane; x <= reach.w; x += 32) {
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
      // A mean of cells lies this far beyond them at most: see margin() of the CPU kernel. An equal one does not win.
      float const margin = fmaxf(fabsf(high), fabsf(low)) * 0x1p-18F + FLT_MIN;
      if (high + margin <= lowest) continue;

#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (y_of_warp + r >= bottom) continue;  // the same for the whole warp
        float4 const row = scratch.row_taps[y_of_warp - top + r];
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
          float4 const taps = scratch.column_taps[x_of_warp - left + j * 32 + lane];
          float value = taps.x * combined[cell_of(taps, 0)] + taps.y * combined[cell_of(taps, 1)];
          if (taps.z != 0.0F) value += taps.z * combined[cell_of(taps, 2)];
          if (value > best[r][j]) {
            best[r][j] = value;
            int const shift = j % kInWord * kBits;
            std::uint32_t& packed = winner[r][j / kInWord];
            packed = (packed & ~(kOnes << shift)) | static_cast<std::uint32_t>(first + channel) << shift;
          }
        }
      }
      lowest = INFINITY;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int j = 0; j < kWarpWords; ++j) {
          if ((owned[j][r] >> lane & 1U) == 0) lowest = fminf(lowest, best[r][j]);
        }
      }
      for (int step = 16; step > 0; step /= 2) lowest = fminf(lowest, __shfl_xor_sync(kAllLanes, lowest, step));
    }
  }

  // Regions are collected in shared memory, where that has room for all channels.
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
  Label* const labels = static_cast<Label*>(view.labels) + image * view.H * view.pitch;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    int const y = y_of_warp + r;
    if (!any_free || y >= bottom) continue;
#pragma unroll
    for (int j = 0; j < kWarpWords; ++j) {
      int const x = x_of_warp + j * 32;
      bool const free = (owned[j][r] >> lane & 1U) == 0;
      auto const label = static_cast<int>(winner[r][j / kInWord] >> j % kInWord * kBits & kOnes);
      bool const whole = owned[j][r] == 0 && __all_sync(kAllLanes, label == __shfl_sync(kAllLanes, label, 0)) != 0;
      if (whole && lane == 0) {
        scratch.runs[(y - top) * runs_across + (x - left) / 32] = static_cast<std::uint16_t>(label);
      }
      if (free && !whole) labels[std::int64_t{y} * view.pitch + x + lane] = static_cast<Label>(label);
      unsigned left_over = ~owned[j][r];
      while (left_over != 0) {  // once for each label in these 32 pixels
        int const leader = __ffs(static_cast<int>(left_over)) - 1;
        int const common = __shfl_sync(kAllLanes, label, leader);
        unsigned const same = __ballot_sync(kAllLanes, free && label == common);
        if (lane == leader) {
          add_to_region(regions + common, {__popc(same), view.W - (x + leader), view.H - y,
                                           x + 32 - __clz(static_cast<int>(same)), y + 1});
        }
        left_over &= ~same;
      }
    }
  }
  __syncthreads();
  for (int i = thread; i < run_count; i += kLabelThreads) runs[i] = static_cast<Label>(scratch.runs[i]);
  if (!in_shared) return;
  for (int channel = thread; channel < view.S; channel += kLabelThreads)
    add_to_region(stuff + channel, regions[channel]);
}

// --- number_segments -------------------------------------------------------------------------------------------------

// A block owns an image, a thread a segment at a time: accepted instances in order, then channels that are large
// enough. Reads what the kernels before counted; writes the rows, a sector each, and the id of every label. Bound by
// latency.
__global__ __launch_bounds__(256, 4) void number_segments(View const view) {
  __shared__ std::uint32_t warp_sums[32];
  __shared__ int4 staged[2 * 256];  // rows, on their way to stores side by side

  std::int64_t const image = blockIdx.x;
  std::int32_t const found = view.found[image];
  std::int64_t const rows = std::int64_t{view.K} + view.S;
  std::int32_t* const ids = view.ids + image * rows;
  int4* const segments = reinterpret_cast<int4*>(view.segments) + image * rows * 2;
  float* const scores = view.segment_scores + image * rows;
  std::int32_t count = 0;
  for (std::int32_t first = 0; first < found + view.S; first += 256) {
    std::int32_t const i = first + static_cast<std::int32_t>(threadIdx.x), channel = i - found;
    bool const thing = i < found;
    bool exists = false;
    Region region{0, 0, 0, 0, 0};
    if (thing) {
      InstanceState const* const state = view.states + image * view.K + i;
      exists = is_accepted(view, state->area, state->taken);
      region = state->region;
    } else if (channel > 0 && channel < view.S) {
      region = view.stuff[image * view.S + channel];
      exists = region.area >= max(view.stuff_area_limit, 1);
    }
    std::uint32_t total;
    auto const place = static_cast<std::int32_t>(exclusive_sum<256>(exists ? 1U : 0U, warp_sums, total));
    std::int32_t const row = count + place;
    if (exists) {
      std::int64_t const detection = image * view.K + (thing ? view.instances[image * view.K + i].detection : 0);
      staged[2 * place] = make_int4(row + 1, thing ? view.classes[detection] : channel, thing ? 1 : 0, region.area);
      staged[2 * place + 1] = make_int4(view.W - region.from_right, view.H - region.from_bottom, region.x1, region.y1);
      scores[row] = thing ? view.scores[detection] : 0.0F;
    }
    if (thing) {
      ids[view.S + i] = exists ? row + 1 : 0;
    } else if (channel < view.S) {
      ids[channel] = exists ? row + 1 : 0;
    }
    __syncthreads();
#pragma unroll 1
    for (auto half = static_cast<std::int32_t>(threadIdx.x); half < 2 * static_cast<std::int32_t>(total); half += 256) {
      __stwb(segments + 2 * count + half, staged[half]);
    }
    count += static_cast<std::int32_t>(total);
    __syncthreads();
  }
  for (std::int64_t half = 2 * std::int64_t{count} + threadIdx.x; half < 2 * rows; half += 256) {
    __stwb(segments + half, make_int4(0, 0, 0, 0));
  }
  for (std::int64_t row = count + static_cast<std::int64_t>(threadIdx.x); row < rows; row += 256) scores[row] = 0.0F;
  if (threadIdx.x == 0) view.segment_count[image] = count;
}

// --- write_map -------------------------------------------------------------------------------------------------------

constexpr int kIdsInShared = 2048;
constexpr int kRunsPerBlock = 256, kBlocksPerLabelBlock = (kMostRuns + kRunsPerBlock - 1) / kRunsPerBlock;

// A warp owns 32 runs of a block of label_pixels, a lane four neighbouring pixels at a time; one where rows are no
// multiple of four. Reads a label a run, and one a pixel where a run has several, and writes each id once, coalesced;
// bound by that.
template <typename Label, int kEach>
__global__ __launch_bounds__(256) void write_map(View const view) {
  __shared__ std::int32_t shared_ids[kIdsInShared];
  constexpr int kLanesPerRun = 32 / kEach;

  std::int64_t const image = blockIdx.y;
  std::int32_t const codes = view.K + view.S;
  std::int32_t const* const all_ids = view.ids + image * codes;
  bool const in_shared = codes <= kIdsInShared;
  if (in_shared) {
    for (auto i = static_cast<std::int32_t>(threadIdx.x); i < view.S + view.found[image]; i += 256) {
      shared_ids[i] = all_ids[i];
    }
  }
  __syncthreads();
  std::int32_t const* const ids = in_shared ? shared_ids : all_ids;
  auto const number = static_cast<int>(blockIdx.x / kBlocksPerLabelBlock);
  int const column = number % view.label_across, row = number / view.label_across;
  LabelBlock const block = label_block(view, column, row);
  Label const* const runs = runs_of<Label>(view, image, column, row);
  Label const* const labels = static_cast<Label const*>(view.labels) + image * view.H * view.pitch;
  std::int32_t* const map = view.panoptic + image * view.H * view.W;
  int const run_count = (block.bottom - block.top) * block.runs_across;
  auto const lane = static_cast<int>(lane_id());
  int const first =
      static_cast<int>(blockIdx.x % kBlocksPerLabelBlock) * kRunsPerBlock + static_cast<int>(warp_id()) * 32;
  int const own = first + lane < run_count ? runs[first + lane] : 0;
  for (int r = 0; r < kLanesPerRun; ++r) {
    int const run = first + (r * 32 + lane) / kLanesPerRun;
    auto const label = static_cast<Label>(__shfl_sync(kAllLanes, own, (r * 32 + lane) / kLanesPerRun));
    int const y = block.top + run / block.runs_across;
    int const x = block.left + run % block.runs_across * 32 + lane % kLanesPerRun * kEach;
    if (run >= run_count || x >= block.right) continue;
    Label const* const from = labels + std::int64_t{y} * view.pitch + x;
    std::int32_t* const to = map + std::int64_t{y} * view.W + x;
    bool const several = label == kSeveral<Label>;
    if constexpr (kEach == 1) {
      *to = ids[several ? *from : label];
    } else if constexpr (sizeof(Label) == 1) {
      uchar4 const four = several ? __ldg(reinterpret_cast<uchar4 const*>(from)) : uchar4{label, label, label, label};
      __stwb(reinterpret_cast<int4*>(to), make_int4(ids[four.x], ids[four.y], ids[four.z], ids[four.w]));
    } else {
      ushort4 const four =
          several ? __ldg(reinterpret_cast<ushort4 const*>(from)) : ushort4{label, label, label, label};
      __stwb(reinterpret_cast<int4*>(to), make_int4(ids[four.x], ids[four.y], ids[four.z], ids[four.w]));
    }
  }
}

// --- Launch ----------------------------------------------------------------------------------------------------------

bool has_byte_labels(PanopticMergeArgs const& args) { return args.detections + args.channels <= 255; }  // kSeveral
bool has_byte_channels(PanopticMergeArgs const& args) { return args.channels <= 256; }

// The most pixels up to `most` that surely reach no more than `room` of `cells`: two pixels lie input / output / 4
// cells apart, three cells are reached from each, and rounding may cost one.
std::int32_t pixels_within(std::int32_t most, std::int32_t room, std::int32_t cells, std::int32_t input,
                           std::int32_t output) {
  if (cells <= room) return std::min(most, output);
  std::int64_t const pixels = (std::int64_t{room} - 4) * 4 * output / input;
  return static_cast<std::int32_t>(std::clamp<std::int64_t>(pixels, 1, std::min(most, output)));
}

// Sizes of `view`, and its arrays from the workspace.
std::size_t plan(PanopticMergeArgs const& args, void* base, View& view) noexcept {
  view.K = args.detections;
  view.S = args.channels;
  view.h = args.height;
  view.w = args.width;
  view.Gh = args.mask_height;
  view.Gw = args.mask_width;
  view.H = args.output_height;
  view.W = args.output_width;
  view.tiles_across = (view.W + kTile - 1) / kTile;
  view.tiles_down = (view.H + kTile - 1) / kTile;
  view.pitch = view.tiles_across * kTile;
  view.input_height = args.input_height;
  view.input_width = args.input_width;
  view.label_width = pixels_within(kLabelColumns, kCellColumns, view.w, args.input_width, view.W);
  if (view.label_width > 32 && view.label_width < view.W) view.label_width -= view.label_width % 32;  // whole tiles
  std::int32_t const most_rows = has_byte_channels(args) ? kLabelRows : kLabelRows / 2;
  view.label_height = pixels_within(most_rows, kCellRows, view.h, args.input_height, view.H);
  // At the input's own size pixels 4c + 2 to 4c + 5 lie between cells c and c + 1: so placed, a block needs one row
  // of cells that its neighbour needs too, else two.
  view.label_shift = args.output_height == args.input_height && view.label_height == most_rows ? 2 : 0;
  view.label_across = (view.W + view.label_width - 1) / view.label_width;
  view.label_down = (view.H + view.label_shift + view.label_height - 1) / view.label_height;

  Workspace workspace(base);
  std::int64_t const images = args.images, K = view.K, S = view.S;
  view.ranks = workspace.take<Rank>(images * power_of_two_from(static_cast<std::uint32_t>(K)));
  view.instances = workspace.take<Instance>(images * K);
  view.first_ticket = workspace.take<std::uint32_t>(images * (K + 1));
  view.found = workspace.take<std::int32_t>(images);
  std::size_t const before = workspace.bytes();
  view.next_ticket = workspace.take<std::uint32_t>(images);
  view.states = workspace.take<InstanceState>(images * K);
  view.stuff = workspace.take<Region>(images * S);
  view.owned = workspace.take<std::uint32_t>(images * view.tiles_across * view.tiles_down * kTile);
  view.zero_bytes = static_cast<std::int64_t>(workspace.bytes() - before);
  view.labels = workspace.take<std::uint8_t>(images * view.H * view.pitch * (has_byte_labels(args) ? 1 : 2));
  view.runs = workspace.take<std::uint8_t>(images * view.label_down * view.label_across * kMostRuns *
                                           (has_byte_labels(args) ? 1 : 2));
  view.ids = workspace.take<std::int32_t>(images * (K + S));
  return workspace.needed_bytes();
}

template <typename Logit, typename Label>
auto choose_label_pixels(PanopticMergeArgs const& args) noexcept {
  if constexpr (sizeof(Label) == 1) {
    return label_pixels<Logit, Label, std::uint8_t>;
  } else {
    return has_byte_channels(args) ? label_pixels<Logit, Label, std::uint8_t>
                                   : label_pixels<Logit, Label, std::uint16_t>;
  }
}

template <typename Label>
Status launch_with(PanopticMergeArgs const& args, View const& view, cudaStream_t stream) noexcept {
  auto const images = static_cast<unsigned>(args.images);
  // A block for the instances, and one for every 64 KiB to clear.
  unsigned const blocks = 1 + blocks_for(view.zero_bytes, 1 << 16);
  Status status = launch(order_instances, {dim3(blocks, images), dim3(256)}, stream, view);
  if (!status.ok()) return status;

  auto* const resolve =
      args.mask_type == DataType::kFloat32 ? resolve_instances<float, Label> : resolve_instances<__half, Label>;
  std::int64_t const tiles = std::int64_t{view.tiles_across} * view.tiles_down;
  std::int64_t const most_units = std::int64_t{view.K} * ((tiles + kTilesPerUnit - 1) / kTilesPerUnit);
  unsigned const resolve_blocks = blocks_for(std::max<std::int64_t>(most_units, 1), 1, kResolveBlocks);
  status = launch(resolve, {dim3(resolve_blocks, images), dim3(256)}, stream, view);
  if (!status.ok()) return status;

  auto* const label = args.logit_type == DataType::kFloat32 ? choose_label_pixels<float, Label>(args)
                                                            : choose_label_pixels<__half, Label>(args);
  dim3 const grid(static_cast<unsigned>(view.label_across), static_cast<unsigned>(view.label_down), images);
  status = launch(label, {grid, dim3(kLabelThreads)}, stream, view);
  if (!status.ok()) return status;

  status = launch(number_segments, {dim3(images), dim3(256)}, stream, view);
  if (!status.ok()) return status;

  auto* const write = view.W % 4 == 0 && view.label_width % 4 == 0 ? write_map<Label, 4> : write_map<Label, 1>;
  return launch(write, {dim3(grid.x * grid.y * kBlocksPerLabelBlock, images), dim3(256)}, stream, view);
}

}  // namespace

Status check_panoptic_merge(PanopticMergeArgs const& args) noexcept {
  Checks checks("PanopticMerge");
  checks.range("images", args.images, 1, kMaxImages);
  checks.range("detections", args.detections, 0, kMaxCodes);
  checks.range("channels", args.channels, 1, kMaxCodes);
  checks.range("height", args.height, 1, kMaxSide);
  checks.range("width", args.width, 1, kMaxSide);
  checks.range("mask_height", args.mask_height, 1, kMaxSide);
  checks.range("mask_width", args.mask_width, 1, kMaxSide);
  checks.range("input_height", args.input_height, 1, std::min(kMaxSide, std::int64_t{4} * args.height));
  checks.range("input_width", args.input_width, 1, std::min(kMaxSide, std::int64_t{4} * args.width));
  checks.range("output_height", args.output_height, 1, kMaxSide);
  checks.range("output_width", args.output_width, 1, kMaxSide);
  checks.number("score_threshold", args.score_threshold, -FLT_MAX, FLT_MAX);
  checks.number("overlap_threshold", args.overlap_threshold, 0.0F, 1.0F);
  checks.range("stuff_area_limit", args.stuff_area_limit, 0, INT32_MAX);
  checks.number("mask_threshold", args.mask_threshold, FLT_TRUE_MIN, 1.0F);
  auto const is_type = [](DataType type) { return type == DataType::kFloat32 || type == DataType::kFloat16; };
  checks.that(is_type(args.logit_type), "semantic_logits: expected float32 or float16");
  checks.that(is_type(args.mask_type), "mask_probs: expected float32 or float16");
  checks.at_most("detections + channels", std::int64_t{args.detections} + args.channels, kMaxCodes, "together");
  checks.at_most("mask_height * mask_width", std::int64_t{args.mask_height} * args.mask_width, kMaxMaskCells, "cells");
  if (checks.ok()) {
    std::int64_t const pixels = std::int64_t{args.output_height} * args.output_width;
    checks.at_most("detections", args.detections, kMaxPasted / pixels, "of an output so large");
  }
  return checks.status();
}

std::size_t panoptic_merge_workspace_bytes(PanopticMergeArgs const& args) noexcept {
  View view;
  return check_panoptic_merge(args).ok() ? plan(args, nullptr, view) : 0;
}

Status launch_panoptic_merge(PanopticMergeArgs const& args, cudaStream_t stream) noexcept {
  Status const checked = check_panoptic_merge(args);
  if (!checked.ok()) return checked;
  if (!is_aligned(args.panoptic, 16) || !is_aligned(args.segments, 16)) {
    return invalid("PanopticMerge: panoptic and segments: expected memory aligned to 16 bytes");
  }
  View view;
  if (plan(args, args.workspace, view) > args.workspace_bytes) {
    return workspace_too_small("PanopticMerge: workspace: smaller than panoptic_merge_workspace_bytes");
  }
  view.logits = args.semantic_logits;
  view.masks = args.mask_probs;
  view.boxes = args.boxes;
  view.scores = args.scores;
  view.classes = args.classes;
  view.count = args.count;
  view.panoptic = args.panoptic;
  view.segments = args.segments;
  view.segment_scores = args.segment_scores;
  view.segment_count = args.segment_count;
  view.score_threshold = args.score_threshold;
  view.overlap_threshold = args.overlap_threshold;
  view.stuff_area_limit = args.stuff_area_limit;
  view.mask_threshold = args.mask_threshold;
  return has_byte_labels(args) ? launch_with<std::uint8_t>(args, view, stream)
                               : launch_with<std::uint16_t>(args, view, stream);
}

Status prepare_panoptic_merge() noexcept {
  return prepare(order_instances, resolve_instances<float, std::uint8_t>, resolve_instances<float, std::uint16_t>,
                 resolve_instances<__half, std::uint8_t>, resolve_instances<__half, std::uint16_t>,
                 label_pixels<float, std::uint8_t, std::uint8_t>, label_pixels<float, std::uint16_t, std::uint8_t>,
                 label_pixels<float, std::uint16_t, std::uint16_t>, label_pixels<__half, std::uint8_t, std::uint8_t>,
                 label_pixels<__half, std::uint16_t, std::uint8_t>, label_pixels<__half, std::uint16_t, std::uint16_t>,
                 number_segments, write_map<std::uint8_t, 1>, write_map<std::uint8_t, 4>, write_map<std::uint16_t, 1>,
                 write_map<std::uint16_t, 4>);
}

}  // namespace panrt::cuda
