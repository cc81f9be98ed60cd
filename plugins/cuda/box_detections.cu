// BoxDetections on the GPU, in two kernels:
//
//   score_rois       softmax, and a list of the (RoI, class) pairs that score more than the threshold
//   keep_detections  class-wise greedy NMS, 256 candidates at a time, until K are kept or none is left
//
// Taking the best 256, then the next, is exact: no candidate changes what happens to a better one. A network's frame
// has a few hundred candidates and keeps 100, so one or two rounds are the rule; any number is right.
//
// Shapes: N images, R RoIs, C thing classes, K = max_detections.
#include <algorithm>
#include <cfloat>
#include <cmath>
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

constexpr int kRoisPerChunk = 32;
constexpr int kRound = 256;  // candidates
constexpr int kRoundWords = kRound / 32;

struct View {
  float const* class_logits;
  float4 const* box_deltas;
  float4 const* rois;
  std::int32_t const* roi_count;
  float4* boxes;
  float* scores;
  std::int32_t* classes;
  std::int32_t* count;
  Rank* listed;           // (N, chunks, kRoisPerChunk * C) candidates of each chunk
  std::uint32_t* counts;  // (N, chunks)
  Rank* candidates;       // (N, R * C), those of all chunks without gaps
  std::int32_t rois_per_image, chunks;
  std::uint32_t thing_classes, most;
  BoxDeltas weights;
  float const* thresholds;  // (C + 1), or null: those below
  double least_logit;       // below the row's maximum by more than this no class reaches its threshold
  float score_threshold, nms_threshold, width, height, sane_delta;
};

__device__ __forceinline__ float score_threshold_of(View const& view, std::uint32_t c) {
  return view.thresholds == nullptr ? view.score_threshold : __ldg(view.thresholds + c);
}

__device__ __forceinline__ float nms_threshold_of(View const& view) {
  return view.thresholds == nullptr ? view.nms_threshold : __ldg(view.thresholds + view.thing_classes);
}

// Far more than rounding; -inf or NaN, and so below nothing, where no class may be left out.
PANRT_HD double least_logit_of(float threshold) { return std::log(static_cast<double>(threshold)) - 1e-6; }

// As `view.least_logit`, of the lowest threshold of all classes; called by a warp.
__device__ __forceinline__ double least_logit_of(View const& view) {
  if (view.thresholds == nullptr) return view.least_logit;
  float least = INFINITY;  // NaN is skipped: nothing is greater
  for (std::uint32_t c = lane_id(); c < view.thing_classes; c += 32) least = fminf(least, __ldg(view.thresholds + c));
  for (unsigned step = 16; step > 0; step /= 2) {
    least = fminf(least, __shfl_xor_sync(kAllLanes, least, static_cast<int>(step)));
  }
  return least_logit_of(least);
}

__device__ __forceinline__ std::int32_t real_rois(View const& view, std::int64_t image) {
  std::int32_t const count = view.roi_count[image];
  return count < 0 ? 0 : count < view.rois_per_image ? count : view.rois_per_image;
}

__device__ __forceinline__ Box as_box(float4 const& corners) { return {corners.x, corners.y, corners.z, corners.w}; }

// The box of a (RoI, class), `rois` and `deltas` being the image's.
__device__ __forceinline__ Box decode(View const& view, float4 const* rois, float4 const* deltas, std::uint32_t i) {
  float4 const delta = __ldg(deltas + i);
  return decode_box({delta.x, delta.y, delta.z, delta.w}, as_box(__ldg(rois + i / view.thing_classes)), view.weights);
}

__device__ __forceinline__ bool within(float4 const& v, float bound) {  // false for NaN
  return fabsf(v.x) <= bound && fabsf(v.y) <= bound && fabsf(v.z) <= bound && fabsf(v.w) <= bound;
}

// Whether the boxes of all classes of a RoI are finite; called by a warp. If RoI and deltas are of sane size nothing
// overflows: a side is at most 2e6, a shift 1e6 sides, and a side grows at most 62.5 times.
__device__ bool all_boxes_finite(View const& view, float4 const* rois, float4 const* deltas, std::uint32_t roi) {
  std::uint32_t const first = roi * view.thing_classes;
  bool sane = within(__ldg(rois + roi), 1e6F);
  for (std::uint32_t c = lane_id(); c < view.thing_classes; c += 32)
    sane &= within(__ldg(deltas + first + c), view.sane_delta);
  if (__all_sync(kAllLanes, sane)) return true;
  bool finite = true;
  for (std::uint32_t c = lane_id(); c < view.thing_classes; c += 32) {
    finite &= is_finite(decode(view, rois, deltas, first + c));
  }
  return __all_sync(kAllLanes, finite) != 0;
}

// A block owns 32 RoIs, a warp one at a time, a lane every 32nd class. Reads each logit twice, the second time from L1,
// and the deltas of RoIs that have a candidate; writes a list without gaps. Bound by the read of the logits: if no
// class can reach the threshold, and most RoIs are background, only the maximum is computed. The softmax is in double,
// which is slow on some GPUs.
__global__ __launch_bounds__(256, 4) void score_rois(View const view) {
  __shared__ std::uint32_t listed;

  std::int64_t const image = blockIdx.y;
  auto const C = view.thing_classes;
  std::int64_t const first_roi = image * view.rois_per_image;
  float4 const* const rois = view.rois + first_roi;
  float4 const* const deltas = view.box_deltas + first_roi * C;
  std::int64_t const chunk = image * view.chunks + blockIdx.x;
  Rank* const list = view.listed + chunk * kRoisPerChunk * C;
  std::int32_t const count = real_rois(view, image);
  double const least_logit = least_logit_of(view);
  if (threadIdx.x == 0) listed = 0;
  __syncthreads();

  for (unsigned turn = 0; turn < kRoisPerChunk; turn += 8) {
    std::uint32_t const roi = blockIdx.x * kRoisPerChunk + turn + warp_id();
    if (static_cast<std::int64_t>(roi) >= count) break;
    float const* const logits = view.class_logits + (first_roi + roi) * (C + 1);
    float best_thing = -INFINITY;  // NaN is skipped
    for (std::uint32_t c = lane_id(); c < C; c += 32) best_thing = fmaxf(best_thing, logits[c]);
    for (unsigned step = 16; step > 0; step /= 2) {
      best_thing = fmaxf(best_thing, __shfl_xor_sync(kAllLanes, best_thing, static_cast<int>(step)));
    }
    double const maximum = static_cast<double>(fmaxf(best_thing, logits[C]));
    if (static_cast<double>(best_thing) - maximum < least_logit) continue;

    double total = 0.0;  // NaN if a logit is NaN or +inf, or all are -inf: then no score is greater than anything
    for (std::uint32_t c = lane_id(); c <= C; c += 32) total += exp(static_cast<double>(logits[c]) - maximum);
    for (unsigned step = 16; step > 0; step /= 2) total += __shfl_xor_sync(kAllLanes, total, static_cast<int>(step));
    bool asked = false;
    for (std::uint32_t first = 0; first < C; first += 32) {
      std::uint32_t const c = first + lane_id();
      float score = 0.0F;
      bool wanted = false;
      if (c < C) {
        double const logit = static_cast<double>(logits[c]) - maximum;
        if (!(logit < least_logit)) {
          score = static_cast<float>(exp(logit) / total);
          wanted = score > score_threshold_of(view, c);
        }
      }
      if (!__any_sync(kAllLanes, wanted)) continue;
      if (!asked && !all_boxes_finite(view, rois, deltas, roi)) break;
      asked = true;
      std::uint32_t const place = take_place(wanted, &listed);
      if (wanted) list[place] = rank_of(score, roi * C + c);
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) view.counts[chunk] = listed;
}

struct RoundScratch {
  Rank ranks[kRound];
  Box boxes[kRound];
  std::uint32_t classes[kRound];
  std::uint32_t alive[kRoundWords];
  std::uint32_t suppresses[kRound][kRoundWords];  // bits of better to worse candidates
};

// Which candidates of the round the kept ones leave alive; a thread owns a candidate.
__device__ void thin_by_kept(View const& view, RoundScratch& round, std::uint32_t size, std::int64_t row,
                             std::uint32_t kept) {
  if (threadIdx.x < kRound) {
    float const threshold = nms_threshold_of(view);
    bool alive = threadIdx.x < size;
    if (alive) {
      Box const box = round.boxes[threadIdx.x];
      float const area = box_area(box);
      auto const group = static_cast<std::int32_t>(round.classes[threadIdx.x]);
      for (std::uint32_t k = 0; k < kept && alive; ++k) {
        if (view.classes[row + k] != group) continue;
        Box const better = as_box(view.boxes[row + k]);
        alive = !(iou(better, box_area(better), box, area) > threshold);
      }
    }
    unsigned const bits = __ballot_sync(kAllLanes, alive);
    if (lane_id() == 0) round.alive[warp_id()] = bits;
  }
}

// Which candidates of the round suppress which; a warp owns a word, a lane a bit of it.
template <int kThreads>
__device__ void compare_round(View const& view, RoundScratch& round, std::uint32_t size) {
  float const threshold = nms_threshold_of(view);
  for (std::uint32_t at = warp_id(); at < size * kRoundWords; at += kThreads / 32) {
    std::uint32_t const row = at / kRoundWords, word = at % kRoundWords, column = word * 32 + lane_id();
    if (word < row / 32) continue;  // never read
    bool suppressed = column > row && column < size && round.classes[row] == round.classes[column];
    if (suppressed) {
      Box const better = round.boxes[row], box = round.boxes[column];
      suppressed = iou(better, box_area(better), box, box_area(box)) > threshold;
    }
    unsigned const bits = __ballot_sync(kAllLanes, suppressed);
    if (lane_id() == 0) round.suppresses[row][word] = bits;
  }
}

// The greedy rule over a round, by one warp. Appends the kept candidates to the `kept` earlier ones and returns the
// sum.
__device__ std::uint32_t keep_of_round(View const& view, RoundScratch& round, std::uint32_t size, std::int64_t row,
                                       std::uint32_t kept) {
  for (std::uint32_t word = 0; word * 32 < size && kept < view.most; ++word) {
    __syncwarp(kAllLanes);
    std::uint32_t const at = word * 32 + lane_id();
    std::uint32_t const mine = at < size ? round.suppresses[at][word] : 0;
    std::uint32_t left = round.alive[word], keep = 0;
    for (unsigned i = 0; i < 32; ++i) {
      std::uint32_t const suppressed = __shfl_sync(kAllLanes, mine, static_cast<int>(i));
      if ((left >> i & 1U) == 0) continue;
      keep |= 1U << i;
      left &= ~suppressed;
    }
    std::uint32_t const place = kept + static_cast<std::uint32_t>(__popc(keep & lanes_below(lane_id())));
    if ((keep >> lane_id() & 1U) != 0 && place < view.most) {
      Box const box = round.boxes[at];
      __stwb(view.boxes + row + place, make_float4(box.x0, box.y0, box.x1, box.y1));
      view.scores[row + place] = score_of(round.ranks[at]);
      view.classes[row + place] = static_cast<std::int32_t>(round.classes[at]);
    }
    kept += static_cast<std::uint32_t>(__popc(keep));
    std::uint32_t const later = lane_id();
    if (later > word && later * 32 < size) {
      std::uint32_t suppressed = 0;
      for (std::uint32_t rest = keep; rest != 0; rest &= rest - 1) {
        suppressed |=
            round.suppresses[word * 32 + static_cast<std::uint32_t>(__ffs(static_cast<int>(rest)) - 1)][later];
      }
      round.alive[later] &= ~suppressed;
    }
  }
  return kept < view.most ? kept : view.most;
}

constexpr int kKeepThreads = 512;

// Copies the candidates of all chunks of an image to `candidates`, without gaps, and returns how many there are.
__device__ __forceinline__ std::uint32_t join_lists(View const& view, std::int64_t image, SelectScratch& scratch,
                                                    std::uint32_t (&offsets)[kKeepThreads], Rank* candidates) {
  std::uint32_t all = 0;
  for (std::int32_t first = 0; first < view.chunks; first += kKeepThreads) {
    std::int32_t const chunk = first + static_cast<std::int32_t>(threadIdx.x);
    std::uint32_t const mine = chunk < view.chunks ? view.counts[image * view.chunks + chunk] : 0;
    std::uint32_t total;
    offsets[threadIdx.x] = all + exclusive_sum<kKeepThreads>(mine, scratch.warp_sums, total);
    __syncthreads();
    for (std::int32_t i = static_cast<std::int32_t>(warp_id()); i < kKeepThreads && first + i < view.chunks;
         i += kKeepThreads / 32) {
      std::uint32_t const end = i + 1 < kKeepThreads ? offsets[i + 1] : all + total;
      Rank const* const list = view.listed + (image * view.chunks + first + i) * kRoisPerChunk * view.thing_classes;
      for (std::uint32_t j = lane_id(); offsets[i] + j < end; j += 32) candidates[offsets[i] + j] = list[j];
      __syncwarp(kAllLanes);  // or lanes that end early run ahead, and the warp stores in two places at once
    }
    __syncthreads();
    all += total;
  }
  return all;
}

// Sorts the best `size` candidates worse than `last` into the round, and returns the worst of them.
__device__ __forceinline__ Rank take_round(Rank const* candidates, std::uint32_t all, std::uint32_t left,
                                           std::uint32_t size, Rank last, SelectScratch& scratch, std::uint32_t& taken,
                                           RoundScratch& round) {
  Rank bound = kNoRank - 1;
  if (size < left) {
    bound = select_bound<kKeepThreads>(
        scratch, all, size,
        [&](std::int64_t i) { return candidates[i] > last ? static_cast<std::uint32_t>(candidates[i] >> 32) : ~0U; },
        [&](std::int64_t i) { return candidates[i] > last ? index_of(candidates[i]) : ~0U; });
  }
  if (threadIdx.x == 0) taken = 0;
  __syncthreads();
  for (std::uint32_t i = threadIdx.x; i < (all + 31) / 32 * 32; i += kKeepThreads) {
    Rank const rank = i < all ? candidates[i] : kNoRank;
    bool const take = rank > last && rank <= bound;
    std::uint32_t const place = take_place(take, &taken);
    if (take) round.ranks[place] = rank;
  }
  std::uint32_t const padded = power_of_two_from(size);
  if (threadIdx.x >= size && threadIdx.x < padded) round.ranks[threadIdx.x] = kNoRank;
  sort_ranks<kKeepThreads>(round.ranks, padded);
  return bound;
}

// A block owns an image. Reads the lists once and then, a few times per round and from L2, their ranks without gaps;
// writes the detections, and zeros after them. Bound by the latency of its steps, some tens of barriers per round.
__global__ __launch_bounds__(kKeepThreads, 1) void keep_detections(View const view) {
  __shared__ SelectScratch scratch;
  __shared__ RoundScratch round;
  __shared__ std::uint32_t taken, kept_so_far;
  __shared__ std::uint32_t offsets[kKeepThreads];

  std::int64_t const image = blockIdx.x;
  std::int64_t const row = image * view.most;
  auto const C = view.thing_classes;
  float4 const* const rois = view.rois + image * view.rois_per_image;
  float4 const* const deltas = view.box_deltas + image * view.rois_per_image * C;
  Rank* const candidates = view.candidates + image * view.rois_per_image * C;
  std::uint32_t const all = join_lists(view, image, scratch, offsets, candidates);

  std::uint32_t left = all, kept = 0;
  Rank last = 0;  // the worst of the earlier rounds; no real rank is 0, that is infinity's
  while (left > 0 && kept < view.most) {
    std::uint32_t const size = left < kRound ? left : kRound;
    last = take_round(candidates, all, left, size, last, scratch, taken, round);
    if (threadIdx.x < size) {
      std::uint32_t const i = index_of(round.ranks[threadIdx.x]);
      round.boxes[threadIdx.x] = clip_box(decode(view, rois, deltas, i), view.width, view.height);
      round.classes[threadIdx.x] = i % C;
    }
    __syncthreads();
    thin_by_kept(view, round, size, row, kept);
    compare_round<kKeepThreads>(view, round, size);
    __syncthreads();
    if (threadIdx.x < 32) {
      std::uint32_t const now = keep_of_round(view, round, size, row, kept);
      if (threadIdx.x == 0) kept_so_far = now;
    }
    __syncthreads();
    kept = kept_so_far;
    left -= size;
  }

  for (std::uint32_t k = kept + threadIdx.x; k < view.most; k += kKeepThreads) {
    __stwb(view.boxes + row + k, make_float4(0.0F, 0.0F, 0.0F, 0.0F));
    view.scores[row + k] = 0.0F;
    view.classes[row + k] = 0;
  }
  if (threadIdx.x == 0) view.count[image] = static_cast<std::int32_t>(kept);
}

// Sizes of `view`, and its arrays from the workspace.
std::size_t plan(BoxDetectionsArgs const& args, void* base, View& view) noexcept {
  view.rois_per_image = args.rois_per_image;
  view.thing_classes = static_cast<std::uint32_t>(args.thing_classes);
  view.most = static_cast<std::uint32_t>(args.max_detections);
  view.chunks = (args.rois_per_image + kRoisPerChunk - 1) / kRoisPerChunk;
  Workspace workspace(base);
  std::int64_t const images = args.images;
  view.listed = workspace.take<Rank>(images * view.chunks * kRoisPerChunk * args.thing_classes);
  view.counts = workspace.take<std::uint32_t>(images * view.chunks);
  view.candidates = workspace.take<Rank>(images * args.rois_per_image * args.thing_classes);
  return workspace.needed_bytes();
}

}  // namespace

Status check_box_detections(BoxDetectionsArgs const& args) noexcept {
  Checks checks("BoxDetections");
  checks.range("images", args.images, 1, kMaxImages);
  checks.range("rois_per_image", args.rois_per_image, 0, kMaxRows);
  checks.range("thing_classes", args.thing_classes, 1, kMaxCodes);
  checks.range("max_detections", args.max_detections, 1, kMaxRows);
  checks.number("score_threshold", args.score_threshold, -FLT_MAX, FLT_MAX);
  checks.number("nms_threshold", args.nms_threshold, 0.0F, 1.0F);
  for (float const weight : args.box_weights) checks.above_zero("box_weights", weight);
  checks.range("input_height", args.input_height, 1, kMaxSide);
  checks.range("input_width", args.input_width, 1, kMaxSide);
  std::int64_t const pairs = std::int64_t{args.rois_per_image} * args.thing_classes;
  checks.at_most("rois_per_image * thing_classes", pairs, kMaxPairs, "pairs");
  // The greedy rule compares each pair with what is kept.
  if (checks.ok())
    checks.at_most("max_detections", args.max_detections, max_detections_of(pairs), "for this number of pairs");
  return checks.status();
}

std::size_t box_detections_workspace_bytes(BoxDetectionsArgs const& args) noexcept {
  View view;
  return check_box_detections(args).ok() ? plan(args, nullptr, view) : 0;
}

Status launch_box_detections(BoxDetectionsArgs const& args, cudaStream_t stream) noexcept {
  Status const checked = check_box_detections(args);
  if (!checked.ok()) return checked;
  if (!is_aligned(args.box_deltas, 16) || !is_aligned(args.rois, 16) || !is_aligned(args.boxes, 16)) {
    return invalid("BoxDetections: box_deltas, rois and boxes: expected memory aligned to 16 bytes");
  }
  View view;
  if (plan(args, args.workspace, view) > args.workspace_bytes) {
    return workspace_too_small("BoxDetections: workspace: smaller than box_detections_workspace_bytes");
  }
  view.class_logits = args.class_logits;
  view.box_deltas = reinterpret_cast<float4 const*>(args.box_deltas);
  view.rois = reinterpret_cast<float4 const*>(args.rois);
  view.roi_count = args.roi_count;
  view.boxes = reinterpret_cast<float4*>(args.boxes);
  view.scores = args.scores;
  view.classes = args.classes;
  view.count = args.count;
  float const* const w = args.box_weights;
  view.weights = {w[0], w[1], w[2], w[3]};
  view.thresholds = args.thresholds;
  view.least_logit = least_logit_of(args.score_threshold);
  view.sane_delta = std::min(1e6F * std::min({w[0], w[1], w[2], w[3]}), FLT_MAX);
  view.score_threshold = args.score_threshold;
  view.nms_threshold = args.nms_threshold;
  view.width = static_cast<float>(args.input_width);
  view.height = static_cast<float>(args.input_height);

  auto const images = static_cast<unsigned>(args.images);
  if (view.chunks > 0) {  // a grid is not empty
    Status const status =
        launch(score_rois, {dim3(static_cast<unsigned>(view.chunks), images), dim3(256)}, stream, view);
    if (!status.ok()) return status;
  }
  return launch(keep_detections, {dim3(images), dim3(kKeepThreads)}, stream, view);
}

Status prepare_box_detections() noexcept { return prepare(score_rois, keep_detections); }

}  // namespace panrt::cuda
