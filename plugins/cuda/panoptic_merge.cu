// PanopticMerge on the GPU, in five kernels:
//
//   order_instances    which detections may be painted, best first, and where their masks reach    merge_order.cu
//   resolve_instances  count, accept, paint: the sequential rule, in parallel where no masks meet  merge_resolve.cu
//   label_pixels       semantic argmax where no instance is                                        merge_label.cu
//   number_segments    ids, areas and boxes                                                        merge_write.cu
//   write_map          labels to ids                                                               merge_write.cu
//
// Between the kernels a pixel is a label of one byte (two if K + S needs it): a channel, or S plus the place of an
// instance in the order. Most runs of 32 pixels have one label: then the run has it, and its pixels are neither written
// nor read. Which pixels are owned is a bit each. Neither masks nor logits exist at output resolution.
//
// How overlaps are decided. The rule is sequential: an instance is judged by the pixels that accepted better ones own.
// Its outcome, though, depends only on better ones whose masks may touch the same pixels. So each instance is cut into
// units of work, first some that count and then as many that paint, and units are numbered: better instances first,
// counting before painting; if one unit is all the work, it does both. Blocks draw numbers from a counter. A unit that
// counts waits until all better instances whose supports meet its own are painted, one that paints until its instance
// is counted. Both wait only for units with lower numbers, which running blocks have drawn: the lowest unfinished unit
// never waits, so there is no deadlock whatever the number of blocks. Each instance is thus counted against exactly the
// pixels that the sequential rule had painted at that moment within its reach, and decided by the same comparison: the
// result is the rule's.
//
// Shapes: N images, K detections, Gh x Gw a mask, S channels, h x w semantic map, H x W output.
#include <algorithm>
#include <cfloat>
#include <cstddef>
#include <cstdint>

#include "checks.h"
#include "merge_view.h"
#include "panrt/limits.h"
#include "panrt/ops.h"
#include "workspace.h"

namespace panrt::cuda {
namespace {

// The most pixels up to `most` that surely reach no more than `room` of `cells`: two pixels lie input / output / 4
// cells apart, three cells are reached from each, and rounding may cost one.
std::int32_t pixels_within(std::int32_t most, std::int32_t room, std::int32_t cells, std::int32_t input,
                           std::int32_t output) {
  if (cells <= room) return std::min(most, output);
  std::int64_t const pixels = (std::int64_t{room} - 4) * 4 * output / input;
  return static_cast<std::int32_t>(std::clamp<std::int64_t>(pixels, 1, std::min(most, output)));
}

// Sizes of `view`, and its arrays from the workspace.
std::size_t plan(PanopticMergeArgs const& args, void* base, MergeView& view) noexcept {
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
  checks.range("input_height", args.input_height, 1, max_input_side(args.height));
  checks.range("input_width", args.input_width, 1, max_input_side(args.width));
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
    checks.at_most("detections", args.detections, max_pasted_of(pixels), "of an output so large");
  }
  return checks.status();
}

std::size_t panoptic_merge_workspace_bytes(PanopticMergeArgs const& args) noexcept {
  MergeView view;
  return check_panoptic_merge(args).ok() ? plan(args, nullptr, view) : 0;
}

Status launch_panoptic_merge(PanopticMergeArgs const& args, cudaStream_t stream) noexcept {
  Status const checked = check_panoptic_merge(args);
  if (!checked.ok()) return checked;
  if (!is_aligned(args.panoptic, 16) || !is_aligned(args.segments, 16)) {
    return invalid("PanopticMerge: panoptic and segments: expected memory aligned to 16 bytes");
  }
  if ((args.thresholds == nullptr) != (args.stuff_area_limits == nullptr)) {
    return invalid("PanopticMerge: thresholds and stuff_area_limits: expected both or neither");
  }
  MergeView view;
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
  view.thresholds = args.thresholds;
  view.stuff_area_limits = args.stuff_area_limits;
  view.score_threshold = args.score_threshold;
  view.overlap_threshold = args.overlap_threshold;
  view.stuff_area_limit = args.stuff_area_limit;
  view.mask_threshold = args.mask_threshold;
  using Stage = Status (*)(PanopticMergeArgs const&, MergeView const&, cudaStream_t) noexcept;
  constexpr Stage kStages[] = {launch_order_instances, launch_resolve_instances, launch_label_pixels,
                               launch_write_segments};
  for (Stage const stage : kStages) {
    Status const status = stage(args, view, stream);
    if (!status.ok()) return status;
  }
  return {};
}

Status prepare_panoptic_merge() noexcept {
  using Prepare = Status (*)() noexcept;
  constexpr Prepare kStages[] = {prepare_order_instances, prepare_resolve_instances, prepare_label_pixels,
                                 prepare_write_segments};
  for (Prepare const stage : kStages) {
    Status const status = stage();
    if (!status.ok()) return status;
  }
  return {};
}

}  // namespace panrt::cuda
