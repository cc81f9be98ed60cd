// The second stage of PanopticMerge: count, accept, paint. panoptic_merge.cu says how overlaps are decided.
#include <algorithm>
#include <cstdint>

#include "hand_over.h"
#include "merge_view.h"
#include "prepare.h"
#include "vectors.h"

namespace panrt::cuda {
namespace {

constexpr int kResolveThreads = 256, kResolveWarps = kResolveThreads / 32;
constexpr int kStagedCells = 1024;
constexpr int kResolveBlocks = 128;  // per image, at most; more than an edge GPU runs at once

__device__ __forceinline__ bool meet(PixelRange const& a, PixelRange const& b) {
  return a.begin < b.end && b.begin < a.end;
}

// The units of work on an instance, from its tickets: two tickets for each unit, or one for a single unit.
__device__ __forceinline__ std::uint32_t units_from(std::uint32_t tickets) { return (tickets + 1) / 2; }

// --- Sampling --------------------------------------------------------------------------------------------------------

// A mask with a border of zeros: in shared memory if it fits, else in place.
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

// Which pixels of a tile a mask covers, by a warp: lane r receives the bits of row r.
template <typename Probability>
__device__ std::uint32_t covered_bits(MergeView const& view, Instance const& item, Mask<Probability> const& mask,
                                      int top, int left) {
  int const x = left + static_cast<int>(lane_id()), y = top + static_cast<int>(lane_id());
  bool const inside = x >= item.columns.begin && x < item.columns.end;
  PasteTaps const columns = paste_taps(paste_position(x, item.x, mask.Gw), mask.Gw);
  PasteTaps const rows = paste_taps(paste_position(y, item.y, mask.Gh), mask.Gh);
  int const begin = item.rows.begin > top ? item.rows.begin - top : 0;
  int const end = item.rows.end < top + kTile ? item.rows.end - top : kTile;
  float const threshold = mask_threshold_of(view);
  std::uint32_t covered = 0;
  int cell = -2;  // none yet: cells start at -1
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
    unsigned const bits = __ballot_sync(kAllLanes, inside && value >= threshold);
    if (static_cast<int>(lane_id()) == r) covered = bits;
  }
  return covered;
}

// Copies the mask and a border of zeros to shared memory.
template <typename Probability>
__device__ void stage(Mask<Probability> const& mask, float* staged) {
  int const across = mask.Gw + 2, last = (mask.Gh + 1) * across;
  for (int i = static_cast<int>(threadIdx.x); i < mask.Gh * mask.Gw; i += kResolveThreads) {
    staged[(i / mask.Gw + 1) * across + i % mask.Gw + 1] = paste_probability(as_float(mask.probabilities[i]));
  }
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < across; i += kResolveThreads) staged[i] = staged[last + i] = 0.0F;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) + 1; i <= mask.Gh; i += kResolveThreads) {
    staged[i * across] = staged[i * across + across - 1] = 0.0F;
  }
}

// --- Units of work ---------------------------------------------------------------------------------------------------

// What the threads of a block share about the unit they work on.
struct Unit {
  std::uint32_t tickets, ticket;  // of the image; this unit's
  std::int32_t found, drawn;      // instances; this one's place in the order
  std::uint32_t number, units;    // this one's number among the instance's units
  bool counts, paints, wanted;
  std::uint32_t area, taken;  // counted by the block
  Region region;              // painted by the block
  Instance item;
};

// Draws the block's next unit; false if none is left.
__device__ __forceinline__ bool draw_unit(MergeView const& view, std::int64_t image, Instance const* instances,
                                          std::uint32_t const* first_ticket, Unit& unit) {
  __syncthreads();  // the last unit is done
  if (threadIdx.x == 0) {
    unit.ticket = atomicAdd(view.next_ticket + image, 1U);
    unit.area = 0;
    unit.taken = 0;
    unit.region = {0, 0, 0, 0, 0};
  }
  __syncthreads();
  if (unit.ticket >= unit.tickets) return false;
  for (auto i = static_cast<std::int32_t>(threadIdx.x); i < unit.found; i += kResolveThreads) {
    std::uint32_t const begin = first_ticket[i], end = first_ticket[i + 1];
    if (begin <= unit.ticket && unit.ticket < end) {
      unit.drawn = i;
      unit.item = instances[i];
      unit.units = units_from(end - begin);
      unit.counts = unit.ticket - begin < unit.units;
      unit.paints = end - begin == 1 || !unit.counts;
      unit.number = unit.ticket - begin - (unit.counts ? 0 : unit.units);
    }
  }
  __syncthreads();
  return true;
}

// Waits until the instance may be counted, or has been; then `unit.wanted` says whether there is anything to do.
__device__ __forceinline__ void wait_for_turn(MergeView const& view, Instance const* instances,
                                              std::uint32_t const* first_ticket, InstanceState* states,
                                              InstanceState* state, Unit& unit) {
  if (unit.counts) {
    for (auto j = static_cast<std::int32_t>(threadIdx.x); j < unit.drawn; j += kResolveThreads) {
      Instance const& better = instances[j];
      if (!meet(better.rows, unit.item.rows) || !meet(better.columns, unit.item.columns)) continue;
      wait_until(states[j].painted, units_from(first_ticket[j + 1] - first_ticket[j]));
    }
    if (threadIdx.x == 0) unit.wanted = true;
  } else if (threadIdx.x == 0) {
    wait_until(state->counted, unit.units);
    unit.wanted = is_accepted(state->area, state->taken, overlap_threshold_of(view));
  }
  __syncthreads();  // what one thread has waited for is visible to all
}

// The tiles of a unit: `count` from tile `first` on of those that the instance's mask reaches, row by row.
struct UnitTiles {
  int first_row, first_column, across;
  int first, count;
};
__device__ __forceinline__ UnitTiles tiles_of(Unit const& unit) {
  int const first_row = unit.item.rows.begin / kTile, first_column = unit.item.columns.begin / kTile;
  int const across = (unit.item.columns.end - 1) / kTile - first_column + 1;
  int const first = static_cast<int>(unit.number) * kTilesPerUnit;
  int const tiles = ((unit.item.rows.end - 1) / kTile - first_row + 1) * across - first;
  return {first_row, first_column, across, first, min(kTilesPerUnit, tiles)};
}

// Finds the free pixels of a unit's tiles, of which a warp owns every eighth. If the unit counts, adds up area and
// taken pixels too, and decides at once if it is the instance's only unit.
template <typename Probability>
__device__ __forceinline__ void count_tiles(MergeView const& view, UnitTiles const& tiles,
                                            Mask<Probability> const& mask, std::uint32_t* owned, InstanceState* state,
                                            std::uint32_t (&free_bits)[kTilesPerUnit][kTile], Unit& unit) {
  std::uint32_t area = 0, taken = 0;
  for (auto i = static_cast<int>(warp_id()); i < tiles.count; i += kResolveWarps) {
    int const tile = tiles.first + i;
    int const row = tiles.first_row + tile / tiles.across, column = tiles.first_column + tile % tiles.across;
    std::uint32_t const covered = covered_bits(view, unit.item, mask, row * kTile, column * kTile);
    std::uint32_t const others =
        load_relaxed(owned[(std::int64_t{row} * view.tiles_across + column) * kTile + lane_id()]) & covered;
    area += static_cast<std::uint32_t>(__popc(covered));
    taken += static_cast<std::uint32_t>(__popc(others));
    free_bits[i][lane_id()] = covered & ~others;
  }
  if (!unit.counts) return;
  if (area != 0) atomicAdd(&unit.area, area);
  if (taken != 0) atomicAdd(&unit.taken, taken);
  __syncthreads();
  if (threadIdx.x == 0) {
    atomicAdd(&state->area, unit.area);
    atomicAdd(&state->taken, unit.taken);
    unit.wanted = unit.paints && is_accepted(unit.area, unit.taken, overlap_threshold_of(view));
  }
  __syncthreads();
}

// Paints the free pixels of a unit's tiles: their bits and their labels.
template <typename Label>
__device__ __forceinline__ Region paint_tiles(MergeView const& view, UnitTiles const& tiles, std::uint32_t* owned,
                                              Label* labels, std::uint32_t const (&free_bits)[kTilesPerUnit][kTile],
                                              Unit const& unit) {
  Region mine{0, 0, 0, 0, 0};
  for (auto i = static_cast<int>(warp_id()); unit.wanted && i < tiles.count; i += kResolveWarps) {
    int const tile = tiles.first + i;
    int const row = tiles.first_row + tile / tiles.across, column = tiles.first_column + tile % tiles.across;
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
        labels[std::int64_t{row * kTile + r} * view.pitch + x] = static_cast<Label>(view.S + unit.drawn);
      }
    }
  }
  return mine;
}

// A block draws units until none is left; a warp owns a tile of 32 x 32 pixels at a time, a lane a column of it for
// sampling and a row of it for bits. Reads a mask once per unit, into shared memory, and 128 bytes of bits per tile;
// writes the bits, and a label for each painted pixel. Bound by sampling, some 30 instructions per pixel of a box, and
// by the chain of instances that overlap one another.
template <typename Probability, typename Label>
__global__ __launch_bounds__(kResolveThreads, 4) void resolve_instances(MergeView const view) {
  __shared__ float staged[kStagedCells];
  __shared__ std::uint32_t free_bits[kTilesPerUnit][kTile];  // of what the unit's mask covers; a lane's own
  __shared__ Unit unit;

  std::int64_t const image = blockIdx.y;
  Instance const* const instances = view.instances + image * view.K;
  std::uint32_t const* const first_ticket = view.first_ticket + image * (view.K + 1);
  InstanceState* const states = view.states + image * view.K;
  std::uint32_t* const owned = view.owned + image * owned_words(view);
  Label* const labels = static_cast<Label*>(view.labels) + image * view.H * view.pitch;
  bool const fits = (view.Gh + 2) * std::int64_t{view.Gw + 2} <= kStagedCells;
  if (threadIdx.x == 0) {
    unit.found = view.found[image];
    unit.tickets = first_ticket[unit.found];
  }

  while (draw_unit(view, image, instances, first_ticket, unit)) {
    InstanceState* const state = states + unit.drawn;
    wait_for_turn(view, instances, first_ticket, states, state, unit);
    if (unit.wanted) {
      std::int64_t const cells = std::int64_t{view.Gh} * view.Gw;
      Mask<Probability> mask{
          static_cast<Probability const*>(view.masks) + (image * view.K + unit.item.detection) * cells, nullptr,
          view.Gh, view.Gw};
      if (fits) {
        stage(mask, staged);
        mask.staged = staged;
      }
      __syncthreads();

      UnitTiles const tiles = tiles_of(unit);
      count_tiles(view, tiles, mask, owned, state, free_bits, unit);
      add_to_region(&unit.region, paint_tiles(view, tiles, owned, labels, free_bits, unit));
      __syncthreads();
      if (threadIdx.x == 0) add_to_region(&state->region, unit.region);
    }
    __syncthreads();  // all has been written
    if (threadIdx.x == 0) add_release(unit.paints ? state->painted : state->counted, 1U);
  }
}

template <typename Label>
auto choose_resolve_instances(PanopticMergeArgs const& args) noexcept {
  return args.mask_type == DataType::kFloat32 ? resolve_instances<float, Label> : resolve_instances<__half, Label>;
}

}  // namespace

Status launch_resolve_instances(PanopticMergeArgs const& args, MergeView const& view, cudaStream_t stream) noexcept {
  auto* const kernel = has_byte_labels(args) ? choose_resolve_instances<std::uint8_t>(args)
                                             : choose_resolve_instances<std::uint16_t>(args);
  std::int64_t const tiles = std::int64_t{view.tiles_across} * view.tiles_down;
  std::int64_t const most_units = std::int64_t{view.K} * ((tiles + kTilesPerUnit - 1) / kTilesPerUnit);
  unsigned const blocks = blocks_for(std::max<std::int64_t>(most_units, 1), 1, kResolveBlocks);
  dim3 const grid(blocks, static_cast<unsigned>(args.images));
  return launch(kernel, {grid, dim3(kResolveThreads)}, stream, view);
}

Status prepare_resolve_instances() noexcept {
  return prepare(resolve_instances<float, std::uint8_t>, resolve_instances<float, std::uint16_t>,
                 resolve_instances<__half, std::uint8_t>, resolve_instances<__half, std::uint16_t>);
}

}  // namespace panrt::cuda
