// The last stage of PanopticMerge: ids, areas and boxes of the segments, and the map of ids.
#include <cstdint>

#include "merge_view.h"
#include "prepare.h"

namespace panrt::cuda {
namespace {

// --- number_segments -------------------------------------------------------------------------------------------------

constexpr int kNumberThreads = 256;

// A block owns an image, a thread a segment at a time: accepted instances in order, then channels that are large
// enough. Reads what the earlier kernels counted; writes the rows, a sector each, and the id of every label. Bound by
// latency.
__global__ __launch_bounds__(kNumberThreads, 4) void number_segments(MergeView const view) {
  __shared__ std::uint32_t warp_sums[32];
  __shared__ int4 staged[2 * kNumberThreads];  // rows, for stores of neighbouring words

  std::int64_t const image = blockIdx.x;
  std::int32_t const found = view.found[image];
  std::int64_t const rows = std::int64_t{view.K} + view.S;
  std::int32_t* const ids = view.ids + image * rows;
  int4* const segments = reinterpret_cast<int4*>(view.segments) + image * rows * 2;
  float* const scores = view.segment_scores + image * rows;
  std::int32_t count = 0;
  for (std::int32_t first = 0; first < found + view.S; first += kNumberThreads) {
    std::int32_t const i = first + static_cast<std::int32_t>(threadIdx.x), channel = i - found;
    bool const thing = i < found;
    bool exists = false;
    Region region{0, 0, 0, 0, 0};
    if (thing) {
      InstanceState const* const state = view.states + image * view.K + i;
      exists = is_accepted(state->area, state->taken, overlap_threshold_of(view));
      region = state->region;
    } else if (channel > 0 && channel < view.S) {
      region = view.stuff[image * view.S + channel];
      exists = is_large_enough(region.area, stuff_area_limit_of(view, channel));
    }
    std::uint32_t total;
    auto const place = static_cast<std::int32_t>(exclusive_sum<kNumberThreads>(exists ? 1U : 0U, warp_sums, total));
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
    auto const halves = 2 * static_cast<std::int32_t>(total);
#pragma unroll 1
    for (auto half = static_cast<std::int32_t>(threadIdx.x); half < halves; half += kNumberThreads) {
      __stwb(segments + 2 * count + half, staged[half]);
    }
    count += static_cast<std::int32_t>(total);
    __syncthreads();
  }
  for (std::int64_t half = 2 * std::int64_t{count} + threadIdx.x; half < 2 * rows; half += kNumberThreads) {
    __stwb(segments + half, make_int4(0, 0, 0, 0));
  }
  for (std::int64_t row = count + std::int64_t{threadIdx.x}; row < rows; row += kNumberThreads) scores[row] = 0.0F;
  if (threadIdx.x == 0) view.segment_count[image] = count;
}

// --- write_map -------------------------------------------------------------------------------------------------------

constexpr int kWriteThreads = 256;
constexpr int kIdsInShared = 2048;
constexpr int kRunsPerBlock = 256, kBlocksPerLabelBlock = (kMostRuns + kRunsPerBlock - 1) / kRunsPerBlock;

// A warp owns 32 runs of a block of label_pixels, a lane four neighbouring pixels at a time; one if rows are no
// multiple of four. Reads a label per run, and one per pixel if a run has several, and writes each id once, coalesced;
// bound by that.
template <typename Label, int kEach>
__global__ __launch_bounds__(kWriteThreads) void write_map(MergeView const view) {
  __shared__ std::int32_t shared_ids[kIdsInShared];
  constexpr int kLanesPerRun = 32 / kEach;

  std::int64_t const image = blockIdx.y;
  std::int32_t const codes = view.K + view.S;
  std::int32_t const* const all_ids = view.ids + image * codes;
  bool const in_shared = codes <= kIdsInShared;
  if (in_shared) {
    for (auto i = static_cast<std::int32_t>(threadIdx.x); i < view.S + view.found[image]; i += kWriteThreads) {
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

template <typename Label>
auto choose_write_map(MergeView const& view) noexcept {
  return view.W % 4 == 0 && view.label_width % 4 == 0 ? write_map<Label, 4> : write_map<Label, 1>;
}

}  // namespace

Status launch_write_segments(PanopticMergeArgs const& args, MergeView const& view, cudaStream_t stream) noexcept {
  auto const images = static_cast<unsigned>(args.images);
  Status const status = launch(number_segments, {dim3(images), dim3(kNumberThreads)}, stream, view);
  if (!status.ok()) return status;
  auto* const write =
      has_byte_labels(args) ? choose_write_map<std::uint8_t>(view) : choose_write_map<std::uint16_t>(view);
  auto const blocks = static_cast<unsigned>(view.label_across * view.label_down * kBlocksPerLabelBlock);
  return launch(write, {dim3(blocks, images), dim3(kWriteThreads)}, stream, view);
}

Status prepare_write_segments() noexcept {
  return prepare(number_segments, write_map<std::uint8_t, 1>, write_map<std::uint8_t, 4>, write_map<std::uint16_t, 1>,
                 write_map<std::uint16_t, 4>);
}

}  // namespace panrt::cuda
