// RpnProposals on the CPU.
//
// All but a few thousand of the anchors lose on their logit alone, so the work is to find the best k of a level without
// looking at each one closely: a first pass, vectorised, reduces the logits to the maxima of short columns. The k-th
// largest maximum is a bound that at least k logits reach. The second pass looks only into columns that reach it. A box
// is decoded when NMS comes to it.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "kernels.h"
#include "nms.h"
#include "panrt/boxes.h"
#include "simd.h"
#include "thread_pool.h"

namespace panrt {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::size_t kLanes = 8;

namespace loops {

// maxima[8 * g + lane] = max over j < depth of logits[8 * (g * depth + j) + lane]; what is not finite counts as
// -infinity.
PANRT_INLINE void column_maxima(float const* logits, std::size_t groups, std::size_t depth, float* maxima) {
  Float8 const none = Float8{} - kInfinity;
  for (std::size_t g = 0; g < groups; ++g) {
    Float8 largest = none;
    for (std::size_t j = 0; j < depth; ++j, logits += kLanes) {
      Float8 logit;
      load(logits, logit);
      logit = logit <= FLT_MAX ? logit : none;
      largest = largest > logit ? largest : logit;
    }
    store(largest, maxima + kLanes * g);
  }
}

}  // namespace loops

constexpr Variants<loops::column_maxima> column_maxima;

// Appends the ranks of the k best finite logits, in any order. rank(position, logit) ranks the logit at that place in
// memory.
template <typename RankAt>
void append_best_logits(float const* logits, std::size_t count, std::size_t k, RankAt const& rank,
                        std::vector<Rank>& best) {
  // The maxima are count / depth, the logits looked into about k * depth; measured, their sum costs least near this
  // depth.
  double const ideal_depth = std::sqrt(4.0 * static_cast<double>(count) / static_cast<double>(k));
  std::size_t const depth = std::max<std::size_t>(1, static_cast<std::size_t>(ideal_depth));
  std::size_t const groups = count / (kLanes * depth), columns = groups * kLanes;

  std::vector<float> maxima(columns);
  column_maxima(logits, groups, depth, maxima.data());
  float bound = -FLT_MAX;
  if (columns >= k) {
    std::vector<float> ordered = maxima;
    auto const kth = ordered.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(ordered.begin(), kth, ordered.end(), std::greater<>());
    bound = std::max(bound, *kth);
  }

  std::size_t const first = best.size();
  auto const append = [&](std::size_t position) {
    float const logit = logits[position];
    if (logit >= bound && logit <= FLT_MAX) best.push_back(rank(position, logit));
  };
  for (std::size_t column = 0; column < columns; ++column) {
    if (!(maxima[column] >= bound)) continue;
    std::size_t const top = column / kLanes * depth * kLanes + column % kLanes;
    for (std::size_t j = 0; j < depth; ++j) append(top + j * kLanes);
  }
  for (std::size_t position = columns * depth; position < count; ++position) append(position);
  if (best.size() - first > k) {
    auto const begin = best.begin() + static_cast<std::ptrdiff_t>(first);
    std::nth_element(begin, begin + static_cast<std::ptrdiff_t>(k), best.end());
    best.resize(first + k);
  }
}

// Anchors of one level of one image. They are numbered y, x, a from first_anchor on, over all levels.
class Level {
 public:
  Level(RpnLevel const& level, std::size_t image, std::vector<float> const& aspect_ratios, std::uint32_t first_anchor)
      : area_(static_cast<std::size_t>(level.height) * static_cast<std::size_t>(level.width)),
        anchors_(aspect_ratios.size()),
        width_(static_cast<std::size_t>(level.width)),
        stride_(level.stride),
        first_anchor_(first_anchor),
        logits_(level.logits + image * anchors_ * area_),
        deltas_(level.deltas + image * anchors_ * area_ * 4) {
    for (float const ratio : aspect_ratios) cell_anchors_.push_back(cell_anchor(level.anchor_size, ratio));
  }

  std::uint32_t end_anchor() const { return first_anchor_ + static_cast<std::uint32_t>(anchors_ * area_); }

  void append_best(std::size_t k, std::vector<Rank>& best) const {
    auto const rank = [&](std::size_t position, float logit) {
      std::size_t const a = position / area_, cell = position % area_;
      return rank_of(logit, first_anchor_ + static_cast<std::uint32_t>(cell * anchors_ + a));
    };
    append_best_logits(logits_, anchors_ * area_, k, rank, best);
  }

  Box decode(std::uint32_t anchor) const {
    std::size_t const i = anchor - first_anchor_, a = i % anchors_, cell = i / anchors_;
    float const* const delta = deltas_ + 4 * a * area_ + cell;
    Box const from =
        anchor_at(cell_anchors_[a], static_cast<int>(cell / width_), static_cast<int>(cell % width_), stride_);
    return decode_box({delta[0], delta[area_], delta[2 * area_], delta[3 * area_]}, from, {1.0F, 1.0F, 1.0F, 1.0F});
  }

 private:
  std::size_t area_, anchors_, width_;
  float stride_;
  std::uint32_t first_anchor_;
  float const* logits_;
  float const* deltas_;
  std::vector<Box> cell_anchors_;
};

// Writes the proposals of one image, best first, and returns how many there are.
int propose(RpnProposalsArgs const& args, std::vector<Level> const& levels, std::vector<Rank> ranks, float* rois) {
  auto const width = static_cast<float>(args.input_width), height = static_cast<float>(args.input_height);
  std::vector<KeptBoxes> kept(levels.size());
  BestFirst candidates(std::move(ranks));
  int count = 0;
  while (count < args.post_nms_top_k && !candidates.done()) {
    std::uint32_t const anchor = index_of(candidates.next());
    std::size_t i = 0;
    while (anchor >= levels[i].end_anchor()) ++i;
    Box const decoded = levels[i].decode(anchor);
    if (!is_finite(decoded)) continue;
    Box const box = clip_box(decoded, width, height);
    if (is_empty(box) || kept[i].suppress(box, args.nms_threshold)) continue;
    kept[i].add(box);
    store_box(box, rois + std::ptrdiff_t{4} * count++);
  }
  return count;
}

}  // namespace

void rpn_proposals(RpnProposalsArgs const& args, int threads) {
  auto const images = static_cast<std::size_t>(args.images), level_count = args.levels.size();
  std::vector<std::vector<Level>> levels(images);
  for (std::size_t n = 0; n < images; ++n) {
    std::uint32_t first_anchor = 0;
    for (RpnLevel const& level : args.levels) {
      levels[n].emplace_back(level, n, args.aspect_ratios, first_anchor);
      first_anchor = levels[n].back().end_anchor();
    }
  }

  std::vector<std::vector<Rank>> best(images * level_count);  // the largest level of all images first
  parallel_for(threads, static_cast<std::int64_t>(best.size()), [&](std::int64_t chunk, int) {
    auto const i = static_cast<std::size_t>(chunk);
    levels[i % images][i / images].append_best(static_cast<std::size_t>(args.pre_nms_top_k), best[i]);
  });

  parallel_for(threads, args.images, [&](std::int64_t image, int) {
    auto const n = static_cast<std::size_t>(image);
    std::vector<Rank> ranks;
    for (std::size_t i = n; i < best.size(); i += images) ranks.insert(ranks.end(), best[i].begin(), best[i].end());
    std::ptrdiff_t const row = std::ptrdiff_t{4} * args.post_nms_top_k;
    float* const rois = args.rois + image * row;
    int const count = propose(args, levels[n], std::move(ranks), rois);
    std::fill(rois + std::ptrdiff_t{4} * count, rois + row, 0.0F);
    args.roi_count[n] = count;
  });
}

}  // namespace panrt
