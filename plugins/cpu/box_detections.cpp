// BoxDetections on the CPU.
//
// Most RoIs are background: where no class can reach the threshold only the maximum of the logits is taken, no softmax.
// A box is decoded when NMS comes to it. Whether all boxes of a RoI are finite is seen from the size of its deltas.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
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

namespace loops {

// The largest value; NaN is skipped.
PANRT_INLINE float largest(float const* values, std::size_t count) {
  Float8 lanes = Float8{} - kInfinity;
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    Float8 value;
    load(values + i, value);
    lanes = value > lanes ? value : lanes;
  }
  float result = -kInfinity;
  for (int lane = 0; lane < 8; ++lane) result = std::max(result, lanes[lane]);
  for (; i < count; ++i) result = std::max(result, values[i]);
  return result;
}

// Whether every |value| <= bound; false for NaN.
PANRT_INLINE bool all_within(float const* values, std::size_t count, float bound) {
  int beyond = 0;
  for (std::size_t i = 0; i < count; ++i) beyond |= !(std::fabs(values[i]) <= bound);
  return beyond == 0;
}

}  // namespace loops

constexpr Variants<loops::largest> largest;
constexpr Variants<loops::all_within> all_within;

// Pairwise and in eight lanes, as NumPy adds.
double sum(double const* values, std::size_t count) {
  if (count > 128) {
    std::size_t const half = count / 16 * 8;
    return sum(values, half) + sum(values + half, count - half);
  }
  double lanes[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (std::size_t lane = 0; lane < 8; ++lane) lanes[lane] += values[i + lane];
  }
  double total = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  for (; i < count; ++i) total += values[i];
  return total;
}

// The RoIs of one image and the box head's outputs for them.
class Image {
 public:
  Image(BoxDetectionsArgs const& args, std::int64_t image)
      : args_(args),
        C_(static_cast<std::size_t>(args.thing_classes)),
        count_(std::clamp<std::int64_t>(args.roi_count[image], 0, args.rois_per_image)),
        logits_(args.class_logits + image * args.rois_per_image * (args.thing_classes + 1)),
        deltas_(args.box_deltas + image * args.rois_per_image * args.thing_classes * 4),
        rois_(args.rois + image * args.rois_per_image * 4),
        least_threshold_(*std::min_element(args.score_thresholds, args.score_thresholds + args.thing_classes)) {}

  // Appends the ranks of all (RoI, class) in [first, end) that score more than the threshold, of valid RoIs.
  // `exponentials` is scratch, C + 1.
  void append_candidates(std::int64_t first, std::int64_t end, double* exponentials,
                         std::vector<Rank>& candidates) const {
    // A score is at most exp(logit - maximum). The margin is far more than rounding; -inf or NaN where nothing can be
    // left out.
    double const least_logit = std::log(static_cast<double>(least_threshold_)) - 1e-6;
    for (auto r = static_cast<std::size_t>(first); r < static_cast<std::size_t>(std::min(end, count_)); ++r) {
      float const* const logits = logits_ + r * (C_ + 1);
      float const best_thing = largest(logits, C_);
      double const maximum = std::max(best_thing, logits[C_]);
      if (best_thing - maximum < least_logit) continue;
      for (std::size_t c = 0; c <= C_; ++c) exponentials[c] = std::exp(logits[c] - maximum);
      double const total = sum(exponentials, C_ + 1);  // NaN if a logit is NaN or +inf, or all are -inf
      std::size_t const known = candidates.size();
      for (std::size_t c = 0; c < C_; ++c) {
        auto const score = static_cast<float>(exponentials[c] / total);
        if (score > args_.score_thresholds[c])
          candidates.push_back(rank_of(score, static_cast<std::uint32_t>(r * C_ + c)));
      }
      if (candidates.size() > known && !all_boxes_finite(r)) candidates.resize(known);
    }
  }

  // Writes the detections, best first, and returns how many there are.
  std::int32_t detect(std::vector<Rank> ranks, float* boxes, float* scores, std::int32_t* classes) const {
    auto const width = static_cast<float>(args_.input_width), height = static_cast<float>(args_.input_height);
    std::vector<KeptBoxes> kept(C_);
    BestFirst candidates(std::move(ranks));
    std::int32_t count = 0;
    while (count < args_.max_detections && !candidates.done()) {
      Rank const rank = candidates.next();
      std::size_t const r = index_of(rank) / C_, c = index_of(rank) % C_;
      Box const box = clip_box(decode(r, c), width, height);
      if (kept[c].suppress(box, args_.nms_threshold)) continue;
      kept[c].add(box);
      store_box(box, boxes + std::ptrdiff_t{4} * count);
      scores[count] = score_of(rank);
      classes[count] = static_cast<std::int32_t>(c);
      ++count;
    }
    return count;
  }

 private:
  Box decode(std::size_t r, std::size_t c) const {
    float const* const delta = deltas_ + 4 * (r * C_ + c);
    return decode_box({delta[0], delta[1], delta[2], delta[3]}, load_box(rois_ + 4 * r), args_.box_weights);
  }

  bool all_boxes_finite(std::size_t r) const {
    // A side is at most 2 * kSane, a shift kSane sides, and a side grows at most 62.5 times: nothing overflows.
    constexpr float kSane = 1e6F;
    BoxDeltas const& weights = args_.box_weights;
    float const least_weight = std::min({weights.x, weights.y, weights.width, weights.height});
    float const largest_delta = std::min(kSane * least_weight, FLT_MAX);  // 0 if a weight rounded to 0
    if (largest_delta > 0.0F && all_within(rois_ + 4 * r, 4, kSane) &&
        all_within(deltas_ + 4 * r * C_, 4 * C_, largest_delta)) {
      return true;
    }
    for (std::size_t c = 0; c < C_; ++c) {
      if (!is_finite(decode(r, c))) return false;
    }
    return true;
  }

  BoxDetectionsArgs const& args_;
  std::size_t C_;
  std::int64_t count_;  // RoIs that are real
  float const* logits_;
  float const* deltas_;
  float const* rois_;
  float least_threshold_;  // of all classes
};

}  // namespace

void box_detections(BoxDetectionsArgs const& args, int threads) {
  constexpr std::int64_t kRoisPerChunk = 128;
  std::int64_t const chunks = (args.rois_per_image + kRoisPerChunk - 1) / kRoisPerChunk;
  std::vector<std::vector<Rank>> found(static_cast<std::size_t>(args.images * chunks));
  std::size_t const row = static_cast<std::size_t>(args.thing_classes) + 1;
  std::vector<double> exponentials(row * static_cast<std::size_t>(threads));
  parallel_for(threads, args.images * chunks, [&](std::int64_t chunk, int worker) {
    std::int64_t const first = chunk % chunks * kRoisPerChunk;
    Image(args, chunk / chunks)
        .append_candidates(first, first + kRoisPerChunk, exponentials.data() + row * static_cast<std::size_t>(worker),
                           found[static_cast<std::size_t>(chunk)]);
  });

  parallel_for(threads, args.images, [&](std::int64_t n, int) {
    std::vector<Rank> ranks;
    for (std::int64_t i = n * chunks; i < (n + 1) * chunks; ++i) {
      auto const& part = found[static_cast<std::size_t>(i)];
      ranks.insert(ranks.end(), part.begin(), part.end());
    }
    std::ptrdiff_t const K = args.max_detections;
    float* const boxes = args.boxes + n * K * 4;
    float* const scores = args.scores + n * K;
    std::int32_t* const classes = args.classes + n * K;
    std::int32_t const count = Image(args, n).detect(std::move(ranks), boxes, scores, classes);
    std::fill(boxes + std::ptrdiff_t{4} * count, boxes + 4 * K, 0.0F);
    std::fill(scores + count, scores + K, 0.0F);
    std::fill(classes + count, classes + K, 0);
    args.count[n] = count;
  });
}

}  // namespace panrt
