// RpnProposals on the GPU, in five kernels:
//
//   select_in_chunks   the k best logits of every 8192, read once
//   sort_level         the k best of a level's chunks, in order
//   decode_candidates  anchors to boxes
//   find_overlaps      which candidate suppresses which, one bit a pair
//   keep_best          greedy NMS over those bits, and the R best of all levels
//
// The k best of a level are the k best of the k best of its chunks; a rank is a logit and an anchor number, so ties go
// to the lower anchor by themselves. Candidates of a level lie in rows of `slots`, a multiple of 256, beyond their
// count filled with kNoRank and empty boxes.
//
// Shapes: N images, L levels, A anchors per cell, k = candidates per level, R = post_nms_top_k.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "block_select.h"
#include "checks.h"
#include "launch.h"
#include "panrt/boxes.h"
#include "panrt/limits.h"
#include "panrt/ops.h"
#include "prepare.h"
#include "workspace.h"

namespace panrt::cuda {
namespace {

constexpr int kChunk = 8192;  // logits
constexpr int kSortedInShared = 2048;
constexpr std::uint32_t kNoHigh = ~0U;  // after the rank of every finite logit

struct LevelView {
  float const* logits;
  float const* deltas;
  std::int64_t cells;
  std::int32_t width;
  float stride;
  std::uint32_t first_anchor;  // of this level, where all levels are numbered through
  std::int32_t first_chunk;
  std::int32_t chunks;
  std::uint32_t most;  // candidates: pre_nms_top_k, or all anchors if they are fewer
};

struct View {
  LevelView levels[kMaxLevels];
  Box cell_anchors[kMaxLevels][kMaxAnchorsPerCell];
  Rank* chosen;            // (N, chunks of all levels, chunk_slots)
  Rank* sorted;            // (N, L, slots)
  std::uint32_t* counts;   // (N, L) candidates
  float4* boxes;           // (N, L, slots)
  std::uint32_t* valid;    // (N, L, slots / 32), bits
  std::uint32_t* overlap;  // (N, L, slots, slots / 32), bits of better to worse candidates
  Rank* kept;              // (N, L, keep_slots), where shared memory is too small
  std::uint32_t* order;    // (N, R), likewise
  float4* rois;
  std::int32_t* roi_count;
  std::int32_t level_count, anchor_count, chunks, chunk_slots;
  std::uint32_t slots, keep_slots;
  std::int32_t post_nms_top_k;
  float nms_threshold, width, height;
};

// A block owns a chunk of one level of one image, a thread every 1024th logit of it. Reads each logit once, coalesced;
// writes k ranks, in rows that begin on a sector. Bound by that read: the histogram passes run in shared memory.
__global__ __launch_bounds__(1024) void select_in_chunks(View const view) {
  __shared__ std::uint32_t keys[kChunk];
  __shared__ SelectScratch scratch;
  __shared__ std::uint32_t taken;

  auto const chunk = static_cast<std::int32_t>(blockIdx.x);
  int l = 0;
  while (l + 1 < view.level_count && chunk >= view.levels[l + 1].first_chunk) ++l;
  LevelView const& level = view.levels[l];
  std::int64_t const anchors = level.cells * view.anchor_count;
  std::int64_t const first = std::int64_t{chunk - level.first_chunk} * kChunk;
  auto const size = static_cast<std::int32_t>(anchors - first < kChunk ? anchors - first : kChunk);
  float const* const logits = level.logits + blockIdx.y * anchors + first;

  std::uint32_t mine = 0;
  for (std::int32_t i = static_cast<std::int32_t>(threadIdx.x); i < size; i += 1024) {
    float const logit = logits[i];
    bool const finite = is_finite(logit);
    keys[i] = finite ? static_cast<std::uint32_t>(rank_of(logit, 0) >> 32) : kNoHigh;
    mine += finite ? 1U : 0U;
  }
  if (threadIdx.x == 0) taken = 0;
  std::uint32_t finite;
  exclusive_sum<1024>(mine, scratch.warp_sums, finite);

  // Position p of the map is anchor p / cells of cell p % cells; anchors are numbered the other way round.
  auto const low = [&](std::int64_t i) {
    std::int64_t const position = first + i;
    return level.first_anchor +
           static_cast<std::uint32_t>(position % level.cells * view.anchor_count + position / level.cells);
  };
  std::uint32_t const k = finite < level.most ? finite : level.most;
  Rank bound = static_cast<Rank>(kNoHigh - 1) << 32 | ~0U;
  if (k > 0 && k < finite) {
    bound = select_bound<1024>(scratch, size, k, [&](std::int64_t i) { return keys[i]; }, low);
  }

  Rank* const chosen = view.chosen + (std::int64_t{blockIdx.y} * view.chunks + chunk) * view.chunk_slots;
  std::int32_t const whole_warps = (size + 31) / 32 * 32;
  for (std::int32_t i = static_cast<std::int32_t>(threadIdx.x); i < whole_warps; i += 1024) {
    Rank rank = kNoRank;
    if (i < size && keys[i] <= static_cast<std::uint32_t>(bound >> 32)) {
      rank = static_cast<Rank>(keys[i]) << 32 | low(i);
    }
    bool const take = rank <= bound;
    std::uint32_t const place = take_place(take, &taken);
    if (take) chosen[place] = rank;
  }
  for (std::int32_t i = static_cast<std::int32_t>(k + threadIdx.x); i < view.chunk_slots; i += 1024) {
    chosen[i] = kNoRank;
  }
}

// A block owns a level of an image. Reads the ranks that its chunks chose, three to six times and mostly from L2;
// writes the k best in order. Bound by the latency of one block: levels and images are all that runs at once.
__global__ __launch_bounds__(1024) void sort_level(View const view) {
  __shared__ Rank shared_ranks[kSortedInShared];
  __shared__ SelectScratch scratch;
  __shared__ std::uint32_t taken;

  LevelView const& level = view.levels[blockIdx.x];
  std::int64_t const row = std::int64_t{blockIdx.y} * view.level_count + blockIdx.x;
  Rank const* const chosen =
      view.chosen + (std::int64_t{blockIdx.y} * view.chunks + level.first_chunk) * view.chunk_slots;
  std::int64_t const size = std::int64_t{level.chunks} * view.chunk_slots;
  Rank* const sorted = view.sorted + row * view.slots;

  std::uint32_t mine = 0;
  for (std::int64_t i = threadIdx.x; i < size; i += 1024) mine += chosen[i] != kNoRank ? 1U : 0U;
  if (threadIdx.x == 0) taken = 0;
  std::uint32_t found;
  exclusive_sum<1024>(mine, scratch.warp_sums, found);
  std::uint32_t const k = found < level.most ? found : level.most;
  Rank bound = kNoRank - 1;
  if (k > 0 && k < found) {
    bound = select_bound<1024>(
        scratch, size, k, [&](std::int64_t i) { return static_cast<std::uint32_t>(chosen[i] >> 32); },
        [&](std::int64_t i) { return index_of(chosen[i]); });
  }

  std::uint32_t const padded = power_of_two_from(k);
  Rank* const ranks = padded <= kSortedInShared ? shared_ranks : sorted;  // slots are a power of two from there on
  std::int64_t const whole_warps = (size + 31) / 32 * 32;
  for (std::int64_t i = threadIdx.x; i < whole_warps; i += 1024) {
    Rank const rank = i < size ? chosen[i] : kNoRank;
    bool const take = rank <= bound;
    std::uint32_t const place = take_place(take, &taken);
    if (take) ranks[place] = rank;
  }
  for (std::uint32_t i = k + threadIdx.x; i < padded; i += 1024) ranks[i] = kNoRank;
  sort_ranks<1024>(ranks, padded);
  for (std::uint32_t i = threadIdx.x; i < view.slots; i += 1024) sorted[i] = i < k ? ranks[i] : kNoRank;
  if (threadIdx.x == 0) view.counts[row] = k;
}

// A thread owns a candidate. Reads its rank, coalesced, and four deltas where its anchor is, which no order of reading
// makes neighbours; writes its box. Bound by the two exponentials in double, and so spread over all of the GPU.
__global__ __launch_bounds__(128) void decode_candidates(View const view) {
  std::int64_t const row = std::int64_t{blockIdx.z} * view.level_count + blockIdx.y;
  LevelView const& level = view.levels[blockIdx.y];
  std::uint32_t const slot = blockIdx.x * 128U + threadIdx.x;  // slots are a multiple of 128
  Rank const rank = view.sorted[row * view.slots + slot];
  Box box{0.0F, 0.0F, 0.0F, 0.0F};
  bool valid = false;
  if (rank != kNoRank) {
    std::uint32_t const i = index_of(rank) - level.first_anchor;
    auto const anchors = static_cast<std::uint32_t>(view.anchor_count);
    std::uint32_t const a = i % anchors, cell = i / anchors;
    auto const width = static_cast<std::uint32_t>(level.width);
    float const* const delta = level.deltas + (std::int64_t{blockIdx.z} * anchors + a) * 4 * level.cells + cell;
    Box const from = anchor_at(view.cell_anchors[blockIdx.y][a], static_cast<int>(cell / width),
                               static_cast<int>(cell % width), level.stride);
    Box const decoded = decode_box({delta[0], delta[level.cells], delta[2 * level.cells], delta[3 * level.cells]}, from,
                                   {1.0F, 1.0F, 1.0F, 1.0F});
    if (is_finite(decoded)) {
      box = clip_box(decoded, view.width, view.height);
      valid = !is_empty(box);
    }
  }
  __stwb(view.boxes + row * view.slots + slot, make_float4(box.x0, box.y0, box.x1, box.y1));
  unsigned const bits = __ballot_sync(kAllLanes, valid);
  if (lane_id() == 0) view.valid[(row * view.slots + slot) / 32] = bits;
}

// A block owns 32 better by 256 worse candidates, a thread one of the worse; a ballot makes 32 of its answers a word.
// Reads each box once per block, 16 bytes per lane; writes whole sectors. Bound by arithmetic, half of it skipped:
// pairs that do not touch need no division, and blocks below the diagonal end at once, their bits are never read.
__global__ __launch_bounds__(256) void find_overlaps(View const view) {
  __shared__ float4 better[32];
  __shared__ std::uint32_t words[32][8];

  std::uint32_t const columns = view.slots / 256;
  std::uint32_t const first_row = blockIdx.x / columns * 32, first_column = blockIdx.x % columns * 256;
  std::int64_t const level = std::int64_t{blockIdx.z} * view.level_count + blockIdx.y;
  std::uint32_t const count = view.counts[level];
  if (first_row >= count || first_column >= count || first_column + 256 <= first_row) return;

  float4 const* const boxes = view.boxes + level * view.slots;
  if (threadIdx.x < 32) better[threadIdx.x] = __ldg(boxes + first_row + threadIdx.x);
  std::uint32_t const column = first_column + threadIdx.x;
  float4 const corners = __ldg(boxes + column);
  Box const box{corners.x, corners.y, corners.z, corners.w};
  float const area = box_area(box);
  __syncthreads();
  std::uint32_t word = 0;
#pragma unroll 4
  for (unsigned i = 0; i < 32; ++i) {
    Box const other{better[i].x, better[i].y, better[i].z, better[i].w};
    bool overlaps = first_row + i < column && other.x0 < box.x1 && box.x0 < other.x1 && other.y0 < box.y1 &&
                    box.y0 < other.y1;  // else the intersection is 0, and 0 is greater than no threshold
    if (overlaps) overlaps = iou(other, box_area(other), box, area) > view.nms_threshold;
    unsigned const bits = __ballot_sync(kAllLanes, overlaps);
    if (lane_id() == i) word = bits;
  }
  words[lane_id()][warp_id()] = word;
  __syncthreads();
  std::uint32_t const row = threadIdx.x / 8, at = threadIdx.x % 8;
  view.overlap[(level * view.slots + first_row + row) * (view.slots / 32) + first_column / 32 + at] = words[row][at];
}

// How many of `count` ascending ranks come before `rank`.
__device__ __forceinline__ std::uint32_t ranks_before(Rank const* ranks, std::uint32_t count, Rank rank) {
  std::uint32_t begin = 0, end = count;
  while (begin < end) {
    std::uint32_t const middle = (begin + end) / 2;
    if (ranks[middle] < rank) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

// Greedy NMS of one level by one warp, 32 candidates at a time: the bits among the 32 decide in registers which are
// kept, then the rows of those are joined, a word per lane. Keeps at most `most`, and returns how many. In the ranks
// that are kept the slot stands for the anchor: it gives the same order, within a level and between levels.
__device__ std::uint32_t keep_of_level(View const& view, std::int64_t level, std::uint32_t first_slot,
                                       std::uint32_t count, std::uint32_t most, std::uint32_t* removed, Rank* kept) {
  std::uint32_t const words = view.slots / 32, used = (count + 31) / 32;
  std::uint32_t const* const rows = view.overlap + level * view.slots * words;
  for (std::uint32_t word = lane_id(); word < used; word += 32) removed[word] = 0;
  std::uint32_t total = 0;
  for (std::uint32_t word = 0; word < used && total < most; ++word) {
    __syncwarp(kAllLanes);
    Rank const rank = view.sorted[level * view.slots + word * 32 + lane_id()];
    std::uint32_t const mine = rows[std::int64_t{word * 32 + lane_id()} * words + word];
    std::uint32_t left = view.valid[level * words + word] & ~removed[word], keep = 0;
    for (unsigned i = 0; i < 32; ++i) {
      std::uint32_t const suppressed = __shfl_sync(kAllLanes, mine, static_cast<int>(i));
      if ((left >> i & 1U) == 0) continue;
      keep |= 1U << i;
      left &= ~suppressed;
    }
    std::uint32_t const place = total + static_cast<std::uint32_t>(__popc(keep & lanes_below(lane_id())));
    if ((keep >> lane_id() & 1U) != 0 && place < most) {
      kept[place] = (rank & ~Rank{0xFFFFFFFFU}) | (first_slot + word * 32 + lane_id());
    }
    total += static_cast<std::uint32_t>(__popc(keep));
    for (std::uint32_t later = word + 1 + lane_id(); later < used; later += 32) {
      std::uint32_t joined = removed[later];
      for (std::uint32_t rest = keep; rest != 0; rest &= rest - 1) {
        auto const row = word * 32 + static_cast<std::uint32_t>(__ffs(static_cast<int>(rest)) - 1);
        joined |= rows[std::int64_t{row} * words + later];
      }
      removed[later] = joined;
    }
  }
  return total < most ? total : most;
}

// A block owns an image, a warp one level at a time; then a thread owns a kept candidate, whose place among all is the
// sum of its places among each level. Reads the bits of kept candidates once, rows coalesced, and writes the RoIs,
// 16 bytes per lane. Bound by latency: the greedy rule is a chain over the candidates, 32 links at a time.
__global__ __launch_bounds__(1024) void keep_best(View const view, bool const in_shared) {
  __shared__ std::uint32_t counts[kMaxLevels];

  std::int64_t const image = blockIdx.x;
  auto const most = static_cast<std::uint32_t>(view.post_nms_top_k);
  // Shared memory: the removed bits of every level, and then, if there is room, the kept ranks and the order.
  std::uint32_t* const removed = dynamic_shared<std::uint32_t>();
  std::uint32_t const words = view.slots / 32;
  Rank* const kept = in_shared ? reinterpret_cast<Rank*>(removed + static_cast<std::uint32_t>(view.level_count) * words)
                               : view.kept + image * view.level_count * view.keep_slots;
  std::uint32_t* const order = in_shared ? reinterpret_cast<std::uint32_t*>(kept + view.level_count * view.keep_slots)
                                         : view.order + image * view.post_nms_top_k;
  for (auto l = static_cast<std::int32_t>(warp_id()); l < view.level_count; l += 32) {
    std::int64_t const level = image * view.level_count + l;
    std::uint32_t const count = keep_of_level(view, level, static_cast<std::uint32_t>(l) * view.slots,
                                              view.counts[level], most, removed + static_cast<std::uint32_t>(l) * words,
                                              kept + static_cast<std::uint32_t>(l) * view.keep_slots);
    if (lane_id() == 0) counts[l] = count;
  }
  __syncthreads();
  std::uint32_t total = 0;
  for (std::int32_t l = 0; l < view.level_count; ++l) {
    total += counts[l];
    for (std::uint32_t i = threadIdx.x; i < counts[l]; i += 1024) {
      Rank const rank = kept[static_cast<std::uint32_t>(l) * view.keep_slots + i];
      std::uint32_t place = i;
      for (std::int32_t other = 0; other < view.level_count && place < most; ++other) {
        if (other == l) continue;
        place += ranks_before(kept + static_cast<std::uint32_t>(other) * view.keep_slots, counts[other], rank);
      }
      if (place < most) order[place] = index_of(rank);
    }
  }
  if (total > most) total = most;
  __syncthreads();
  float4 const* const boxes = view.boxes + image * view.level_count * view.slots;
  for (std::uint32_t r = threadIdx.x; r < most; r += 1024) {
    __stwb(view.rois + image * most + r, r < total ? __ldg(boxes + order[r]) : make_float4(0.0F, 0.0F, 0.0F, 0.0F));
  }
  if (threadIdx.x == 0) view.roi_count[image] = static_cast<std::int32_t>(total);
}

std::uint32_t round_up(std::uint32_t value, std::uint32_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Sizes of `view`, and its arrays from the workspace.
std::size_t plan(RpnProposalsArgs const& args, void* base, View& view) noexcept {
  std::uint32_t most = 0, first_anchor = 0;
  view.chunks = 0;
  for (int l = 0; l < args.level_count; ++l) {
    RpnLevel const& from = args.levels[l];
    LevelView& level = view.levels[l];
    level.logits = from.logits;
    level.deltas = from.deltas;
    level.cells = std::int64_t{from.height} * from.width;
    level.width = from.width;
    level.stride = from.stride;
    level.first_anchor = first_anchor;
    auto const anchors = static_cast<std::uint32_t>(level.cells * args.anchor_count);
    first_anchor += anchors;
    level.first_chunk = view.chunks;
    level.chunks = static_cast<std::int32_t>((anchors + kChunk - 1) / kChunk);
    view.chunks += level.chunks;
    level.most = std::min(anchors, static_cast<std::uint32_t>(args.pre_nms_top_k));
    most = std::max(most, level.most);
  }
  view.chunk_slots = static_cast<std::int32_t>(round_up(std::min<std::uint32_t>(most, kChunk), 4));
  view.slots = round_up(most > kSortedInShared ? power_of_two_from(most) : most, 256);
  view.keep_slots = std::min(view.slots, static_cast<std::uint32_t>(args.post_nms_top_k));
  view.level_count = args.level_count;
  view.anchor_count = args.anchor_count;

  Workspace workspace(base);
  std::int64_t const rows = std::int64_t{args.images} * args.level_count;
  view.chosen = workspace.take<Rank>(std::int64_t{args.images} * view.chunks * view.chunk_slots);
  view.sorted = workspace.take<Rank>(rows * view.slots);
  view.counts = workspace.take<std::uint32_t>(rows);
  view.boxes = workspace.take<float4>(rows * view.slots);
  view.valid = workspace.take<std::uint32_t>(rows * view.slots / 32);
  view.overlap = workspace.take<std::uint32_t>(rows * view.slots * (view.slots / 32));
  view.kept = workspace.take<Rank>(rows * view.keep_slots);
  view.order = workspace.take<std::uint32_t>(std::int64_t{args.images} * args.post_nms_top_k);
  return workspace.needed_bytes();
}

}  // namespace

Status check_rpn_proposals(RpnProposalsArgs const& args) noexcept {
  Checks checks("RpnProposals");
  checks.range("images", args.images, 1, kMaxImages);
  checks.range("level_count", args.level_count, 1, kMaxLevels);
  checks.range("anchor_count", args.anchor_count, 1, kMaxAnchorsPerCell);
  checks.range("pre_nms_top_k", args.pre_nms_top_k, 1, INT32_MAX);
  checks.range("post_nms_top_k", args.post_nms_top_k, 1, kMaxRows);
  checks.number("nms_threshold", args.nms_threshold, 0.0F, 1.0F);
  checks.range("input_height", args.input_height, 1, kMaxSide);
  checks.range("input_width", args.input_width, 1, kMaxSide);
  std::int64_t anchors = 0;
  for (int l = 0; checks.ok() && l < args.level_count; ++l) {
    RpnLevel const& level = args.levels[l];
    checks.range("levels: height", level.height, 1, kMaxSide);
    checks.range("levels: width", level.width, 1, kMaxSide);
    checks.number("levels: stride", level.stride, 1.0F, static_cast<float>(kMaxSide));
    checks.above_zero("levels: anchor_size", level.anchor_size);
    std::int64_t const here = std::int64_t{level.height} * level.width * args.anchor_count;
    anchors += here;
    checks.at_most("levels", anchors, kMaxAnchors, "anchors");
    checks.at_most("pre_nms_top_k", std::min<std::int64_t>(here, args.pre_nms_top_k), kMaxCandidates,
                   "candidates per level");
  }
  for (int a = 0; checks.ok() && a < args.anchor_count; ++a) checks.above_zero("aspect_ratios", args.aspect_ratios[a]);
  return checks.status();
}

std::size_t rpn_proposals_workspace_bytes(RpnProposalsArgs const& args) noexcept {
  View view;
  return check_rpn_proposals(args).ok() ? plan(args, nullptr, view) : 0;
}

Status launch_rpn_proposals(RpnProposalsArgs const& args, cudaStream_t stream) noexcept {
  Status status = check_rpn_proposals(args);
  if (!status.ok()) return status;
  if (!is_aligned(args.rois, 16)) return invalid("RpnProposals: rois: expected memory aligned to 16 bytes");
  View view;
  if (plan(args, args.workspace, view) > args.workspace_bytes) {
    return workspace_too_small("RpnProposals: workspace: smaller than rpn_proposals_workspace_bytes");
  }
  for (int l = 0; l < args.level_count; ++l) {
    for (int a = 0; a < args.anchor_count; ++a) {
      view.cell_anchors[l][a] = cell_anchor(args.levels[l].anchor_size, args.aspect_ratios[a]);
    }
  }
  view.rois = reinterpret_cast<float4*>(args.rois);
  view.roi_count = args.roi_count;
  view.post_nms_top_k = args.post_nms_top_k;
  view.nms_threshold = args.nms_threshold;
  view.width = static_cast<float>(args.input_width);
  view.height = static_cast<float>(args.input_height);

  auto const images = static_cast<unsigned>(args.images), levels = static_cast<unsigned>(args.level_count);
  status = launch(select_in_chunks, {dim3(static_cast<unsigned>(view.chunks), images), dim3(1024)}, stream, view);
  if (!status.ok()) return status;
  status = launch(sort_level, {dim3(levels, images), dim3(1024)}, stream, view);
  if (!status.ok()) return status;
  status = launch(decode_candidates, {dim3(view.slots / 128, levels, images), dim3(128)}, stream, view);
  if (!status.ok()) return status;
  status = launch(find_overlaps, {dim3(view.slots / 32 * (view.slots / 256), levels, images), dim3(256)}, stream, view);
  if (!status.ok()) return status;
  std::size_t const removed = std::size_t{levels} * (view.slots / 32) * sizeof(std::uint32_t);  // a multiple of 32
  std::size_t const all = removed + std::size_t{levels} * view.keep_slots * sizeof(Rank) +
                          static_cast<std::size_t>(args.post_nms_top_k) * sizeof(std::uint32_t);
  bool const in_shared = all + sizeof(std::uint32_t) * kMaxLevels <= kMaxSharedBytes;
  return launch(keep_best, {dim3(images), dim3(1024), in_shared ? all : removed}, stream, view, in_shared);
}

Status prepare_rpn_proposals() noexcept {
  return prepare(select_in_chunks, sort_level, decode_candidates, find_overlaps, keep_best);
}

}  // namespace panrt::cuda
