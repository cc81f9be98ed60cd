// The first stage of PanopticMerge: which detections may be painted, best first, and where their masks reach.
#include <cstdint>

#include "merge_view.h"
#include "prepare.h"

namespace panrt::cuda {
namespace {

constexpr int kOrderThreads = 256;
constexpr int kSortedInShared = 1024;

// The units of work on an instance; none if its mask reaches no pixel.
__device__ __forceinline__ std::uint32_t units_of(Instance const& item) {
  if (item.rows.begin >= item.rows.end || item.columns.begin >= item.columns.end) return 0;
  int const down = (item.rows.end - 1) / kTile - item.rows.begin / kTile + 1;
  int const across = (item.columns.end - 1) / kTile - item.columns.begin / kTile + 1;
  return static_cast<std::uint32_t>((down * across + kTilesPerUnit - 1) / kTilesPerUnit);
}

// Zeroes what starts as zero, 16 bytes per lane; by all blocks but the first of each image.
__device__ __forceinline__ void clear_counts(MergeView const& view) {
  uint4* const zero = reinterpret_cast<uint4*>(view.next_ticket);
  std::int64_t const blocks = std::int64_t{gridDim.x - 1} * gridDim.y;
  std::int64_t const block = std::int64_t{blockIdx.y} * (gridDim.x - 1) + blockIdx.x - 1;
  for (std::int64_t i = block * kOrderThreads + threadIdx.x; i < view.zero_bytes / 16; i += blocks * kOrderThreads) {
    __stwb(zero + i, make_uint4(0, 0, 0, 0));
  }
}

__device__ __forceinline__ bool place_detection(MergeView const& view, std::int64_t detection, Extent& y, Extent& x) {
  Box const box = load_box(view.boxes + detection * 4);
  return place_box(box, view.input_height, view.input_width, view.H, view.W, y, x);
}

// Sorts the ranks of the detections that may be painted to the front of `ranks`, and returns how many there are.
__device__ __forceinline__ std::uint32_t rank_detections(MergeView const& view, std::int64_t image, Rank* ranks,
                                                         std::uint32_t padded, std::uint32_t (&warp_sums)[32]) {
  std::int64_t const first = image * view.K;
  float const threshold = score_threshold_of(view);
  auto const K = static_cast<std::uint32_t>(view.K);
  std::uint32_t mine = 0;
  for (std::uint32_t k = threadIdx.x; k < padded; k += kOrderThreads) {
    Rank rank = kNoRank;
    if (k < K && static_cast<std::int64_t>(k) < view.count[image]) {
      float const score = view.scores[first + k];
      Extent y, x;
      if (is_candidate(score, threshold) && place_detection(view, first + k, y, x)) rank = rank_of(score, k);
    }
    ranks[k] = rank;
    mine += rank != kNoRank ? 1U : 0U;
  }
  std::uint32_t found;
  exclusive_sum<kOrderThreads>(mine, warp_sums, found);
  sort_ranks<kOrderThreads>(ranks, padded);
  return found;
}

// Fills in an instance, and returns the tickets of its units: each unit counts and then paints with a ticket of its
// own, but a single unit does both with one.
__device__ __forceinline__ std::uint32_t place_instance(MergeView const& view, std::int64_t image, std::uint32_t k,
                                                        Instance& item) {
  place_detection(view, image * view.K + k, item.y, item.x);
  item.detection = static_cast<std::int32_t>(k);
  float const threshold = mask_threshold_of(view);
  item.rows = paste_support(item.y, view.Gh, view.H, threshold);
  item.columns = paste_support(item.x, view.Gw, view.W, threshold);
  std::uint32_t const units = units_of(item);
  return units == 1 ? 1 : 2 * units;
}

// The first block of an image owns its instances, a thread one at a time; the other blocks clear the counts. Bound by
// clearing, one bit per pixel, and beside it by the latency of the sort.
__global__ __launch_bounds__(kOrderThreads, 4) void order_instances(MergeView const view) {
  constexpr int kWords = sizeof(Instance) / sizeof(std::uint32_t);
  __shared__ Rank shared_ranks[kSortedInShared];
  __shared__ std::uint32_t warp_sums[32];
  __shared__ std::uint32_t staged[kOrderThreads * kWords];  // instances, for stores of neighbouring words

  if (blockIdx.x > 0) {
    clear_counts(view);
    return;
  }
  std::int64_t const image = blockIdx.y;
  std::uint32_t const padded = power_of_two_from(static_cast<std::uint32_t>(view.K));
  Rank* const ranks = padded <= kSortedInShared ? shared_ranks : view.ranks + image * padded;
  std::uint32_t const found = rank_detections(view, image, ranks, padded, warp_sums);

  std::uint32_t ticket = 0;
  std::uint32_t* const first_ticket = view.first_ticket + image * (view.K + 1);
  auto* const words = reinterpret_cast<std::uint32_t*>(view.instances + image * view.K);
  for (std::uint32_t base = 0; base < found; base += kOrderThreads) {
    std::uint32_t const i = base + threadIdx.x;
    std::uint32_t tickets = 0;
    if (i < found) {
      Instance& item = reinterpret_cast<Instance*>(staged)[threadIdx.x];
      tickets = place_instance(view, image, index_of(ranks[i]), item);
    }
    std::uint32_t total;
    std::uint32_t const before = exclusive_sum<kOrderThreads>(tickets, warp_sums, total);
    if (i < found) first_ticket[i] = ticket + before;
    ticket += total;
    std::uint32_t const end = min(found - base, std::uint32_t{kOrderThreads}) * kWords;
#pragma unroll 1
    for (std::uint32_t word = threadIdx.x; word < end; word += kOrderThreads) {
      words[base * kWords + word] = staged[word];
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    first_ticket[found] = ticket;
    view.found[image] = static_cast<std::int32_t>(found);
  }
}

}  // namespace

Status launch_order_instances(PanopticMergeArgs const& args, MergeView const& view, cudaStream_t stream) noexcept {
  // A block for the instances, and one for every 64 KiB to clear.
  unsigned const blocks = 1 + blocks_for(view.zero_bytes, 1 << 16);
  dim3 const grid(blocks, static_cast<unsigned>(args.images));
  return launch(order_instances, {grid, dim3(kOrderThreads)}, stream, view);
}

Status prepare_order_instances() noexcept { return prepare(order_instances); }

}  // namespace panrt::cuda
