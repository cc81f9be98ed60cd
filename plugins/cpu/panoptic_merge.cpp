// PanopticMerge on the CPU, in three stages per image:
//
// 1. Masks, in parallel over instances, become spans of pixels row by row (merge_masks).
// 2. Instances are decided one after another, best first, on the panoptic map itself: count, then paint (merge_paint).
// 3. Semantic labels, in parallel over bands of rows, where the map is still free (merge_labels). Labels stand in the
//    map as ~channel until the areas of all are known.
//
// Only work that cannot change a bit of the result is skipped; the comments at find_spans and find_candidates say why.
//
// Shapes: K detections, G mask side, S semantic channels, h x w semantic map, H x W output.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels.h"
#include "merge_labels.h"
#include "merge_masks.h"
#include "merge_paint.h"
#include "panrt/merge_rules.h"
#include "simd.h"
#include "thread_pool.h"

namespace panrt {
namespace {

// Paints an instance, if it is accepted.
void paint_instance(PanopticMergeArgs const& args, std::int64_t image, Instance const& item, Mask const& mask,
                    std::int32_t* map, SegmentList& segments) {
  if (mask.area == 0) return;
  std::ptrdiff_t const width = args.output_width;
  std::int64_t const taken = count_taken(mask.spans, item.rows.size(), map + item.rows.begin * width, width);
  if (!is_accepted(static_cast<std::uint32_t>(mask.area), static_cast<std::uint32_t>(taken), args.overlap_threshold)) {
    return;
  }
  std::int64_t const detection = image * args.detections + item.detection;
  Region painted;
  paint_spans(mask.spans, item.rows, segments.next_id(), map, width, painted);
  segments.add(args.classes[detection], true, painted, args.scores[detection]);
}

void merge_instances(PanopticMergeArgs const& args, std::int64_t image, int threads, std::int32_t* map,
                     SegmentList& segments) {
  std::vector<Instance> const instances = find_instances(args, image);
  // As many at a time as fit into the memory of the map itself, with the most spans possible: real masks need a tenth.
  auto const budget = std::int64_t{args.output_height} * args.output_width *
                      static_cast<std::int64_t>(sizeof(std::int32_t) / sizeof(Span));
  std::vector<Paster> pasters(index(threads));
  std::vector<Mask> masks(instances.size());
  std::unique_ptr<Span[]> spans;
  std::int64_t room = 0;
  for (std::size_t begin = 0, end = 0; begin < instances.size(); begin = end) {
    std::vector<std::int64_t> offsets;
    std::int64_t most = 0;
    for (; end < instances.size(); ++end) {
      std::int64_t const more = most_spans(instances[end], args.mask_width);
      if (end != begin && most + more > budget) break;
      offsets.push_back(most);
      most += more;
    }
    if (most > room) {
      spans.reset(new Span[index(most)]);  // not initialised: memory that is not needed is never touched
      room = most;
    }
    parallel_for(threads, static_cast<std::int64_t>(end - begin), [&](std::int64_t chunk, int worker) {
      Instance const& item = instances[begin + index(chunk)];
      std::int64_t const mask = image * args.detections + item.detection;
      masks[begin + index(chunk)] = pasters[index(worker)].paste(
          item, args.mask_probs + mask * args.mask_height * args.mask_width, args.mask_height, args.mask_width,
          args.mask_threshold, spans.get() + offsets[index(chunk)]);
    });
    for (std::size_t i = begin; i < end; ++i) paint_instance(args, image, instances[i], masks[i], map, segments);
  }
}

namespace loops {

// Labels, ~channel, become the ids of their channels.
PANRT_INLINE void replace_labels(std::int32_t const* ids, std::int32_t* pixel, std::int32_t const* end) {
  for (; pixel != end; ++pixel) *pixel = *pixel < 0 ? ids[~*pixel] : *pixel;
}

}  // namespace loops

constexpr Variants<loops::replace_labels> replace_labels;

}  // namespace

void panoptic_merge(PanopticMergeArgs const& args, int threads) {
  int const S = args.channels, H = args.output_height, W = args.output_width;
  LabelPlan const plan = plan_labels(args);

  std::int64_t const most_segments = args.detections + S;
  std::fill_n(args.segments, args.images * most_segments * 8, 0);
  std::fill_n(args.segment_scores, args.images * most_segments, 0.0F);

  // `change` receives the first pixel of some rows, and the one after the last.
  auto const change_rows = [&](std::int32_t* map, auto const& change) {
    constexpr std::int64_t kRows = 16;
    parallel_for(threads, (H + kRows - 1) / kRows, [&](std::int64_t chunk, int) {
      change(map + chunk * kRows * W, map + std::min<std::int64_t>(H, (chunk + 1) * kRows) * W);
    });
  };

  for (std::int64_t image = 0; image < args.images; ++image) {
    std::int32_t* const map = args.panoptic + image * H * W;
    SegmentList segments(args, image);
    change_rows(map, [](std::int32_t* begin, std::int32_t* end) { std::fill(begin, end, 0); });
    merge_instances(args, image, threads, map, segments);

    if (S > 1) {
      std::vector<Region> const regions = label_free_pixels(args, plan, image, threads, map);
      std::vector<std::int32_t> ids(index(S), 0);
      for (int channel = 1; channel < S; ++channel) {
        Region const& region = regions[index(channel)];
        if (!is_large_enough(region.area, args.stuff_area_limits[channel])) continue;
        ids[index(channel)] = segments.next_id();
        segments.add(channel, false, region, 0.0F);
      }
      change_rows(map, [&](std::int32_t* begin, std::int32_t* end) { replace_labels(ids.data(), begin, end); });
    }
    args.segment_count[image] = segments.next_id() - 1;
  }
}

}  // namespace panrt
