// Runs every CPU kernel on small deterministic inputs, ordinary and nasty, for a sanitizer to watch: on one thread, on
// three, and from two callers at once. All runs of a case must give the same bytes, and write every one of them.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels.h"
#include "panrt/roi_align.h"
#include "thread_pool.h"

namespace {

using Bytes = std::vector<unsigned char>;

// `run` fills its output with `filling` first, so that a byte the kernel leaves out differs from run to run.
struct Case {
  std::string name;
  std::function<Bytes(int threads, unsigned char filling)> run;
};

struct Op {
  char const* name;
  std::vector<Case> cases;
};

[[noreturn]] void fail(std::string const& what) {
  std::fprintf(stderr, "FAILED %s\n", what.c_str());
  std::exit(1);
}

void expect(bool condition, std::string const& what) {
  if (!condition) fail(what);
}

void run(Op const& op) {
  for (Case const& item : op.cases) {
    std::string const name = std::string(op.name) + ", " + item.name;
    Bytes const one = item.run(1, 0x00);
    expect(item.run(3, 0x5A) == one, name + ": three threads differ from one");
    Bytes left, right;
    std::thread other([&] { left = item.run(3, 0xA5); });
    right = item.run(3, 0xFF);
    other.join();
    expect(left == one && right == one, name + ": two callers at once differ from one");
  }
  std::printf("%-20s %3zu cases\n", op.name, op.cases.size());
}

// Values in [-1, 1), the same on every platform.
class Random {
 public:
  explicit Random(std::uint32_t seed) : state_(seed) {}
  float next() {
    state_ = state_ * 1664525U + 1013904223U;
    return static_cast<float>(state_ >> 8) / 8388608.0F - 1.0F;
  }

 private:
  std::uint32_t state_;
};

template <typename T>
Bytes filled(std::size_t count, unsigned char filling) {
  return Bytes(count * sizeof(T), filling);
}

// --- PyramidRoiAlign -------------------------------------------------------------------------------------------------

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct PyramidCase {
  char const* name;
  std::vector<std::pair<int, int>> sizes;  // height and width a level
  int images;
  int channels;
  std::vector<panrt::Roi> rois;  // of every image
  int output_size;
  bool finite;  // or features with NaN and infinity among them
};

std::vector<PyramidCase> pyramid_cases() {
  std::vector<panrt::Roi> ordinary;
  Random random(7);
  for (int i = 0; i < 40; ++i) {
    float const x = 64.0F * (random.next() + 1.0F), y = 40.0F * (random.next() + 1.0F);
    float const w = 30.0F * (random.next() + 1.01F), h = 30.0F * (random.next() + 1.01F);
    ordinary.push_back({x - w, y - h, x + w, y + h});
  }
  constexpr float kFar = panrt::kMaxRoiCoordinate;
  std::vector<panrt::Roi> const nasty = {
      {0, 0, 0, 0},
      {5, 5, 5, 9},
      {9, 9, 5, 5},
      {kNan, 0, 8, 8},
      {0, 0, 8, kNan},
      {0, 0, kInfinity, 8},
      {-kInfinity, -kInfinity, kInfinity, kInfinity},
      {-kFar, -kFar, kFar, kFar},
      {-kFar, 3, kFar, 3.5F},
      {3, -kFar, 3.25F, kFar},
      {kFar - 1, kFar - 1, kFar, kFar},
      {-kFar, -kFar, -kFar + 0.01F, -kFar + 0.01F},
      {65535.0F, 1, 65535.004F, 9},
      {0, 0, 2 * kFar, 8},
      {3e38F, 3e38F, 3.1e38F, 3.2e38F},
      {1, 1, 1 + 1e-6F, 1 + 1e-6F},
      {0, 0, 1e-40F, 1e-40F},
      {-4, -4, 132, 84},
      {127.5F, 79.5F, 200, 200},
      {-300, -300, -200, -200},
  };
  return {
      {"ordinary", {{20, 32}, {10, 16}, {5, 8}, {3, 4}}, 2, 72, ordinary, 7, true},
      {"odd channels", {{20, 32}, {10, 16}}, 1, 67, ordinary, 3, true},
      {"one channel", {{20, 33}}, 1, 1, ordinary, 14, true},
      {"nasty RoIs", {{20, 32}, {10, 16}, {5, 8}, {3, 4}}, 2, 9, nasty, 7, true},
      {"nasty RoIs and features", {{20, 32}, {10, 16}, {5, 8}, {3, 4}}, 1, 9, nasty, 2, false},
      {"maps of one cell, output of one bin", {{1, 1}, {1, 1}}, 1, 5, nasty, 1, true},
      {"maps of one row and one column", {{1, 40}, {40, 1}}, 1, 16, ordinary, 2, true},
      {"no RoIs", {{4, 4}}, 2, 3, {}, 7, true},
  };
}

template <typename T>
Case pyramid_roi_align_case(PyramidCase const& item, panrt::Layout layout, int sampling_ratio) {
  auto name = std::string(item.name) + (sizeof(T) == 2 ? ", float16" : ", float32") +
              (layout == panrt::Layout::kNhwc ? ", NHWC" : ", NCHW") + ", sampling " + std::to_string(sampling_ratio);
  return {std::move(name), [=](int threads, unsigned char filling) {
            Random random(11);
            std::vector<std::vector<T>> features;
            panrt::PyramidRoiAlignArgs<T> args{};
            float stride = 4.0F;
            for (auto const& [height, width] : item.sizes) {
              features.emplace_back(static_cast<std::size_t>(item.images * item.channels * height * width));
              for (T& feature : features.back()) {
                float value = random.next();
                if (!item.finite && value > 0.98F) value = value > 0.99F ? kNan : kInfinity;
                panrt::from_float(value, feature);
              }
              args.levels.push_back({features.back().data(), height, width, stride});
              stride *= 2.0F;
            }
            std::vector<panrt::Roi> rois;
            for (int image = 0; image < item.images; ++image) {
              rois.insert(rois.end(), item.rois.begin(), item.rois.end());
            }
            auto const S = static_cast<std::size_t>(item.output_size);
            Bytes pooled = filled<T>(rois.size() * S * S * static_cast<std::size_t>(item.channels), filling);
            args.rois = rois.empty() ? nullptr : &rois[0].x0;
            args.pooled = reinterpret_cast<T*>(pooled.data());
            args.layout = layout;
            args.images = item.images;
            args.rois_per_image = static_cast<std::int64_t>(item.rois.size());
            args.channels = item.channels;
            args.output_size = item.output_size;
            args.sampling_ratio = sampling_ratio;
            args.canonical_size = 56.0F;
            args.canonical_level = 4;
            args.min_level = 2;
            panrt::pyramid_roi_align(args, threads);
            return pooled;
          }};
}

Op pyramid_roi_align() {
  Op op{"pyramid_roi_align", {}};
  for (PyramidCase const& item : pyramid_cases()) {
    for (panrt::Layout const layout : {panrt::Layout::kNchw, panrt::Layout::kNhwc}) {
      for (int const sampling_ratio : {0, 1, 2, 100}) {
        op.cases.push_back(pyramid_roi_align_case<float>(item, layout, sampling_ratio));
        op.cases.push_back(pyramid_roi_align_case<panrt::Half>(item, layout, sampling_ratio));
      }
    }
  }
  return op;
}

// --- PanopticMerge ---------------------------------------------------------------------------------------------------

struct MergeCase {
  char const* name;
  int images, detections, channels, height, width, mask_height, mask_width;
  int input_height, input_width, output_height, output_width;
  float mask_threshold;
  bool finite;  // or NaN, infinity and numbers near the ends of float32 among all inputs
};

std::vector<MergeCase> merge_cases() {
  return {
      {"ordinary", 2, 20, 9, 12, 40, 14, 14, 48, 160, 48, 160, 0.5F, true},
      {"nasty", 2, 20, 9, 12, 40, 14, 14, 45, 155, 90, 211, 0.5F, false},
      {"reduced", 1, 20, 5, 30, 61, 7, 5, 120, 241, 33, 50, 0.3F, false},
      {"enlarged", 1, 20, 5, 6, 17, 28, 28, 24, 67, 97, 300, 0.5F, true},
      {"narrow", 1, 9, 5, 40, 7, 28, 28, 160, 28, 160, 28, 0.5F, false},
      {"one cell", 2, 9, 3, 1, 1, 1, 1, 3, 4, 70, 90, 0.5F, true},
      {"one pixel", 1, 9, 3, 5, 20, 28, 28, 17, 80, 1, 1, 0.1F, true},
      {"more masks than fit at once", 1, 200, 3, 4, 4, 28, 28, 16, 16, 16, 16, 0.5F, true},
      {"a threshold that rounds to 0", 1, 9, 3, 4, 8, 5, 5, 16, 32, 16, 32, 0.0F, false},
      {"no detections", 1, 0, 9, 8, 24, 28, 28, 32, 96, 32, 96, 0.5F, false},
      {"no stuff", 1, 9, 1, 8, 24, 28, 28, 32, 96, 32, 96, 0.5F, true},
  };
}

Case panoptic_merge_case(MergeCase const& item, int count) {
  return {std::string(item.name) + ", count " + std::to_string(count), [=](int threads, unsigned char filling) {
            Random random(13);
            auto const draw = [&](int size, float low, float high) {
              std::vector<float> values(static_cast<std::size_t>(item.images * size));
              for (float& value : values) {
                float const drawn = random.next();
                value = low + (high - low) * (drawn + 1.0F) / 2.0F;
                if (!item.finite && drawn > 0.9F) {
                  value = drawn > 0.98F ? kNan : drawn > 0.96F ? kInfinity : drawn > 0.94F ? -3e38F : 1e-38F;
                }
              }
              return values;
            };
            int const K = item.detections, S = item.channels;
            std::vector<float> const logits = draw(S * item.height * item.width, -1.0F, 1.0F);
            std::vector<float> const masks = draw(K * item.mask_height * item.mask_width, 0.0F, 1.0F);
            std::vector<float> const scores = draw(K, 0.0F, 1.0F);
            std::vector<float> boxes = draw(K * 4, -0.1F, 1.1F);
            for (std::size_t i = 0; i < boxes.size(); ++i) {
              boxes[i] *= static_cast<float>(i % 2 == 0 ? item.input_width : item.input_height);
            }
            std::vector<std::int32_t> const classes(scores.size(), 7);
            std::vector<std::int32_t> const counts(static_cast<std::size_t>(item.images), count);

            auto const images = static_cast<std::size_t>(item.images), segments = static_cast<std::size_t>(K + S);
            Bytes panoptic = filled<std::int32_t>(
                images * static_cast<std::size_t>(item.output_height * item.output_width), filling);
            Bytes rows = filled<std::int32_t>(images * segments * 8, filling);
            Bytes segment_scores = filled<float>(images * segments, filling);
            Bytes segment_count = filled<std::int32_t>(images, filling);
            std::vector<std::int32_t> const area_limits(static_cast<std::size_t>(S), 4);
            panrt::PanopticMergeArgs args{};
            args.semantic_logits = logits.data();
            args.boxes = boxes.data();
            args.scores = scores.data();
            args.classes = classes.data();
            args.count = counts.data();
            args.mask_probs = masks.data();
            args.panoptic = reinterpret_cast<std::int32_t*>(panoptic.data());
            args.segments = reinterpret_cast<std::int32_t*>(rows.data());
            args.segment_scores = reinterpret_cast<float*>(segment_scores.data());
            args.segment_count = reinterpret_cast<std::int32_t*>(segment_count.data());
            args.images = item.images;
            args.detections = K;
            args.channels = S;
            args.height = item.height;
            args.width = item.width;
            args.mask_height = item.mask_height;
            args.mask_width = item.mask_width;
            args.input_height = item.input_height;
            args.input_width = item.input_width;
            args.output_height = item.output_height;
            args.output_width = item.output_width;
            args.score_threshold = 0.2F;
            args.overlap_threshold = 0.5F;
            args.stuff_area_limits = area_limits.data();
            args.mask_threshold = item.mask_threshold;
            panrt::panoptic_merge(args, threads);
            for (Bytes const& more : {rows, segment_scores, segment_count}) {
              panoptic.insert(panoptic.end(), more.begin(), more.end());
            }
            return panoptic;
          }};
}

Op panoptic_merge() {
  Op op{"panoptic_merge", {}};
  for (MergeCase const& item : merge_cases()) {
    for (int const count : {item.detections, item.detections / 2, 1 << 30, -1}) {
      op.cases.push_back(panoptic_merge_case(item, count));
    }
  }
  return op;
}

// Two callers write to one array, then a map ends a row early: a race for ThreadSanitizer, an overflow for
// AddressSanitizer.
void plant_faults() {
  panrt::Roi const roi{0, 0, 32, 32};
  std::vector<float> const map(8 * 8 * 8), short_map(7 * 8 * 8);
  std::vector<float> pooled(8 * 2 * 2);
  panrt::PyramidRoiAlignArgs<float> args{};
  args.levels = {{map.data(), 8, 8, 4.0F}};
  args.rois = &roi.x0;
  args.pooled = pooled.data();
  args.layout = panrt::Layout::kNhwc;
  args.images = args.rois_per_image = 1;
  args.channels = 8;
  args.output_size = 2;
  args.canonical_size = 224.0F;
  args.canonical_level = 4;
  args.min_level = 2;
  std::thread other([&] { panrt::pyramid_roi_align(args, 1); });
  panrt::pyramid_roi_align(args, 1);
  other.join();
  args.levels[0].data = short_map.data();
  panrt::pyramid_roi_align(args, 1);
}

// --- RpnProposals and BoxDetections ----------------------------------------------------------------------------------

// Adds the results of one run to one another.
Bytes joined(std::vector<Bytes> const& parts) {
  Bytes all;
  for (Bytes const& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

enum class Values { kOrdinary, kTied, kNasty };

// Numbers in [-scale, scale); tied: a few of them, both zeros among them; nasty: NaN, infinite and huge ones among
// them.
std::vector<float> numbers(std::size_t count, float scale, Values values, std::uint32_t seed) {
  constexpr float kOdd[] = {kNan, kInfinity, -kInfinity, 3e38F, -3e38F, 1e-45F, 0.0F, -0.0F};
  Random random(seed);
  std::vector<float> result(count);
  for (float& number : result) {
    float const value = random.next(), choice = random.next() + 1.0F;
    number = scale * value;
    if (values == Values::kTied) number = scale * std::trunc(2.0F * value);  // -0 for negative ones near 0
    if (values == Values::kNasty && choice < 0.2F) number = kOdd[static_cast<int>(choice * 40.0F)];
  }
  return result;
}

struct RpnCase {
  char const* name;
  std::vector<std::pair<int, int>> sizes;  // height and width a level
  int images;
  int pre_nms_top_k;
  int post_nms_top_k;
  Values logits, deltas;
  float nms_threshold;
};

std::vector<RpnCase> rpn_cases() {
  std::vector<std::pair<int, int>> const pyramid = {{40, 48}, {20, 24}, {10, 12}, {5, 6}, {3, 3}};
  return {
      {"ordinary", pyramid, 2, 100, 100, Values::kOrdinary, Values::kOrdinary, 0.7F},
      {"few of many", pyramid, 3, 7, 5, Values::kOrdinary, Values::kOrdinary, 0.3F},
      {"more than there are", pyramid, 1, 100000, 20000, Values::kOrdinary, Values::kOrdinary, 0.9F},
      {"tied logits", pyramid, 2, 150, 100, Values::kTied, Values::kOrdinary, 0.5F},
      {"nasty logits", pyramid, 2, 150, 100, Values::kNasty, Values::kOrdinary, 0.0F},
      {"nasty deltas", pyramid, 2, 150, 300, Values::kOrdinary, Values::kNasty, 1.0F},
      {"one cell", {{1, 1}, {1, 1}}, 2, 1, 1, Values::kNasty, Values::kOrdinary, 0.5F},
  };
}

Case rpn_proposals_case(RpnCase const& item) {
  return {item.name, [=](int threads, unsigned char filling) {
            panrt::RpnProposalsArgs args{};
            args.aspect_ratios = {0.5F, 1.0F, 2.0F};
            std::vector<std::vector<float>> maps;
            float stride = 4.0F;
            for (auto const& [height, width] : item.sizes) {
              auto const anchors = 3 * static_cast<std::size_t>(item.images * height * width);
              auto const seed = static_cast<std::uint32_t>(stride);
              maps.push_back(numbers(anchors, 3.0F, item.logits, seed));
              maps.push_back(numbers(4 * anchors, 0.5F, item.deltas, seed + 1));
              args.levels.push_back(
                  {maps[maps.size() - 2].data(), maps.back().data(), height, width, stride, 8.0F * stride});
              stride *= 2.0F;
            }
            auto const rows = static_cast<std::size_t>(item.images * item.post_nms_top_k);
            Bytes rois = filled<float>(4 * rows, filling);
            Bytes roi_count = filled<std::int32_t>(static_cast<std::size_t>(item.images), filling);
            args.rois = reinterpret_cast<float*>(rois.data());
            args.roi_count = reinterpret_cast<std::int32_t*>(roi_count.data());
            args.images = item.images;
            args.pre_nms_top_k = item.pre_nms_top_k;
            args.post_nms_top_k = item.post_nms_top_k;
            args.nms_threshold = item.nms_threshold;
            args.input_height = 150;
            args.input_width = 190;
            panrt::rpn_proposals(args, threads);
            return joined({rois, roi_count});
          }};
}

Op rpn_proposals() {
  Op op{"rpn_proposals", {}};
  for (RpnCase const& item : rpn_cases()) op.cases.push_back(rpn_proposals_case(item));
  return op;
}

struct DetectionCase {
  char const* name;
  std::vector<std::int32_t> roi_count;  // of every image
  int rois;
  int thing_classes;
  int max_detections;
  Values logits, deltas, boxes;
  float score_threshold;
};

std::vector<DetectionCase> detection_cases() {
  return {
      {"ordinary", {300, 200}, 300, 80, 100, Values::kOrdinary, Values::kOrdinary, Values::kOrdinary, 0.05F},
      {"one class", {300}, 300, 1, 1000, Values::kOrdinary, Values::kOrdinary, Values::kOrdinary, 0.5F},
      {"more than 128 classes", {9}, 9, 300, 100, Values::kOrdinary, Values::kOrdinary, Values::kOrdinary, 0.001F},
      {"everything is a candidate", {40}, 40, 19, 2000, Values::kTied, Values::kOrdinary, Values::kTied, -1.0F},
      {"nasty logits", {200, 200}, 200, 7, 50, Values::kNasty, Values::kOrdinary, Values::kOrdinary, 0.0F},
      {"nasty deltas", {200, 200}, 200, 2, 50, Values::kOrdinary, Values::kNasty, Values::kOrdinary, 0.05F},
      {"nasty RoIs", {200, 200}, 200, 5, 50, Values::kOrdinary, Values::kOrdinary, Values::kNasty, 0.05F},
      {"counts out of range",
       {-7, 2000000000, 0},
       5,
       3,
       4,
       Values::kOrdinary,
       Values::kOrdinary,
       Values::kOrdinary,
       0.0F},
      {"no RoIs", {3, 0}, 0, 3, 4, Values::kOrdinary, Values::kOrdinary, Values::kOrdinary, 0.05F},
  };
}

Case box_detections_case(DetectionCase const& item) {
  return {item.name, [=](int threads, unsigned char filling) {
            std::size_t const images = item.roi_count.size(), rows = images * static_cast<std::size_t>(item.rois);
            auto const C = static_cast<std::size_t>(item.thing_classes);
            std::vector<float> const logits = numbers(rows * (C + 1), 4.0F, item.logits, 1);
            std::vector<float> const deltas = numbers(rows * C * 4, 3.0F, item.deltas, 2);
            std::vector<float> rois = numbers(rows * 4, 100.0F, item.boxes, 3);
            for (std::size_t i = 0; i < rois.size(); ++i) rois[i] += i % 4 < 2 ? 100.0F : 150.0F;
            std::size_t const kept = images * static_cast<std::size_t>(item.max_detections);
            Bytes boxes = filled<float>(4 * kept, filling), scores = filled<float>(kept, filling);
            Bytes classes = filled<std::int32_t>(kept, filling), count = filled<std::int32_t>(images, filling);
            std::vector<float> const score_thresholds(static_cast<std::size_t>(item.thing_classes),
                                                      item.score_threshold);
            panrt::BoxDetectionsArgs args{};
            args.class_logits = logits.data();
            args.box_deltas = deltas.data();
            args.rois = rois.data();
            args.roi_count = item.roi_count.data();
            args.boxes = reinterpret_cast<float*>(boxes.data());
            args.scores = reinterpret_cast<float*>(scores.data());
            args.classes = reinterpret_cast<std::int32_t*>(classes.data());
            args.count = reinterpret_cast<std::int32_t*>(count.data());
            args.images = static_cast<std::int64_t>(images);
            args.rois_per_image = item.rois;
            args.thing_classes = item.thing_classes;
            args.box_weights = {10.0F, 10.0F, 5.0F, 5.0F};
            args.score_thresholds = score_thresholds.data();
            args.nms_threshold = 0.5F;
            args.max_detections = item.max_detections;
            args.input_height = 240;
            args.input_width = 260;
            panrt::box_detections(args, threads);
            return joined({boxes, scores, classes, count});
          }};
}

Op box_detections() {
  Op op{"box_detections", {}};
  for (DetectionCase const& item : detection_cases()) op.cases.push_back(box_detections_case(item));
  return op;
}

// --- overlay
// -----------------------------------------------------------------------------------------------------------

struct OverlayCase {
  char const* name;
  int height, width, map_height, map_width, colors, border;
};

Op overlay() {
  std::vector<OverlayCase> const items = {
      {"same size", 33, 45, 33, 45, 9, 1}, {"map smaller", 31, 50, 7, 3, 9, 2},  {"map larger", 5, 3, 64, 48, 9, 1},
      {"one pixel", 1, 1, 1, 1, 9, 64},    {"wide border", 9, 40, 9, 40, 9, 64}, {"no colours", 9, 9, 9, 9, 0, 0},
  };
  Op op{"overlay", {}};
  for (OverlayCase const& item : items) {
    op.cases.push_back({item.name, [item](int threads, unsigned char filling) {
                          std::vector<unsigned char> frame(static_cast<std::size_t>(3 * item.height * item.width));
                          std::vector<unsigned char> colors(static_cast<std::size_t>(3 * item.colors));
                          std::vector<std::int32_t> map(static_cast<std::size_t>(item.map_height * item.map_width));
                          std::vector<unsigned char> result(frame.size(), filling);
                          for (std::size_t i = 0; i < frame.size(); ++i) frame[i] = static_cast<unsigned char>(7 * i);
                          for (std::size_t i = 0; i < colors.size(); ++i) {
                            colors[i] = static_cast<unsigned char>(31 * i);
                          }
                          // ids without a colour among them
                          for (std::size_t i = 0; i < map.size(); ++i)
                            map[i] = static_cast<std::int32_t>(i / 5 % 13) - 2;
                          panrt::OverlayArgs args{};
                          args.frame = frame.data();
                          args.map = map.data();
                          args.colors = colors.data();
                          args.result = result.data();
                          args.height = item.height;
                          args.width = item.width;
                          args.map_height = item.map_height;
                          args.map_width = item.map_width;
                          args.colors_count = item.colors;
                          args.opacity = 100;
                          args.border = item.border;
                          panrt::overlay(args, threads);
                          return result;
                        }});
  }
  return op;
}

// --- conv3x3 ---------------------------------------------------------------------------------------------------------

struct ConvolutionCase {
  char const* name;
  int images, height, width, channels, filters;
};

Op conv3x3() {
  std::vector<ConvolutionCase> const items = {
      {"whole tiles", 1, 16, 24, 16, 32}, {"ragged", 2, 23, 37, 32, 16}, {"one pixel", 1, 1, 1, 16, 16}};
  Op op{"conv3x3", {}};
  for (ConvolutionCase const& item : items) {
    op.cases.push_back({item.name, [item](int threads, unsigned char filling) {
                          Random random(5);
                          auto const numbers = [&](int count) {
                            std::vector<float> result(static_cast<std::size_t>(count));
                            for (float& number : result) number = random.next();
                            return result;
                          };
                          int const pixels = item.images * item.height * item.width;
                          auto const input = numbers(pixels * item.channels), bias = numbers(item.filters);
                          auto const weights = numbers(36 * item.filters * item.channels);
                          Bytes result(sizeof(float) * static_cast<std::size_t>(pixels * item.filters), filling);
                          panrt::Conv3x3Args args{};
                          args.input = input.data();
                          args.weights = weights.data();
                          args.bias = bias.data();
                          args.output = reinterpret_cast<float*>(result.data());
                          std::size_t const floats = panrt::conv3x3_workspace(item.channels, item.filters);
                          std::vector<float> workspace(static_cast<std::size_t>(threads) * floats);
                          args.workspace = workspace.data();
                          args.images = item.images;
                          args.height = item.height;
                          args.width = item.width;
                          args.channels = item.channels;
                          args.filters = item.filters;
                          args.lower = -1.0F;
                          args.upper = std::numeric_limits<float>::infinity();
                          panrt::conv3x3(args, threads);
                          return result;
                        }});
  }
  return op;
}

// --- look_up ---------------------------------------------------------------------------------------------------------

Op look_up() {
  Op op{"look_up", {}};
  for (int const height : {1, 37}) {
    op.cases.push_back({std::to_string(height) + " rows", [height](int threads, unsigned char filling) {
                          constexpr int kImages = 2, kWidth = 21;
                          auto const bytes = static_cast<std::size_t>(3 * kImages * height * kWidth);
                          std::vector<std::uint8_t> image(bytes);
                          for (std::size_t i = 0; i < bytes; ++i) image[i] = static_cast<std::uint8_t>(7 * i);
                          std::vector<float> table(3 * 256);
                          Random random(6);
                          for (float& number : table) number = random.next();
                          Bytes result(sizeof(float) * bytes, filling);
                          panrt::LookUpArgs args{};
                          args.image = image.data();
                          args.table = table.data();
                          args.output = reinterpret_cast<float*>(result.data());
                          args.images = kImages;
                          args.height = height;
                          args.width = kWidth;
                          panrt::look_up(args, threads);
                          return result;
                        }});
  }
  return op;
}

// --- parallel_for ----------------------------------------------------------------------------------------------------

void check_parallel_for() {
  for (int const threads : {1, 2, 3, 8}) {
    for (std::int64_t const chunks : {0, 1, 2, 7, 1000}) {
      std::vector<int> visits(static_cast<std::size_t>(chunks)), by_worker(static_cast<std::size_t>(threads));
      panrt::parallel_for(threads, chunks, [&](std::int64_t chunk, int worker) {
        ++visits[static_cast<std::size_t>(chunk)];      // a race, if a chunk is given out twice
        ++by_worker[static_cast<std::size_t>(worker)];  // a race, if two threads are one worker
      });
      std::int64_t total = 0;
      for (int const visit : visits) expect(visit == 1, "parallel_for: a chunk was not visited once");
      for (int const visit : by_worker) total += visit;
      expect(total == chunks, "parallel_for: workers did not add up");
    }
  }
  for (int repeat = 0; repeat < 50; ++repeat) {
    bool caught = false;
    try {
      panrt::parallel_for(3, 100, [](std::int64_t chunk, int) {
        if (chunk % 10 == 7) throw std::runtime_error("planned");
      });
    } catch (std::runtime_error const& error) {
      caught = std::strcmp(error.what(), "planned") == 0;
    }
    expect(caught, "parallel_for: the exception did not arrive");
  }
  std::vector<std::int64_t> sums(6);
  panrt::parallel_for(3, 6, [&](std::int64_t outer, int) {
    std::vector<std::int64_t> inner(50);
    panrt::parallel_for(3, 50, [&](std::int64_t chunk, int) { inner[static_cast<std::size_t>(chunk)] = chunk; });
    for (std::int64_t const value : inner) sums[static_cast<std::size_t>(outer)] += value;
  });
  for (std::int64_t const sum : sums) expect(sum == 49 * 50 / 2, "parallel_for: a nested loop was not complete");
  std::printf("%-20s ok\n", "parallel_for");
}

// --- The pool's life -------------------------------------------------------------------------------------------------

std::int64_t sum_of(int threads, std::int64_t chunks) {
  std::vector<std::int64_t> by_worker(static_cast<std::size_t>(threads));
  panrt::parallel_for(threads, chunks,
                      [&](std::int64_t chunk, int worker) { by_worker[static_cast<std::size_t>(worker)] += chunk; });
  std::int64_t total = 0;
  for (std::int64_t const sum : by_worker) total += sum;
  return total;
}

bool sums_are_right(int most_threads) {
  for (int threads = 1; threads <= most_threads; ++threads) {
    for (std::int64_t const chunks : {1, 3, 200}) {
      if (sum_of(threads, chunks) != chunks * (chunks - 1) / 2) return false;
    }
  }
  return true;
}

#ifdef __SANITIZE_THREAD__
constexpr int kThreadsOfChild = 1;  // ThreadSanitizer cannot follow threads that a forked child starts
#else
constexpr int kThreadsOfChild = 5;
#endif

// Callers that begin, meet and end at any time; children that are forked meanwhile have a pool of their own.
void check_callers_and_forks() {
  constexpr int kCallers = 3, kForks = 8;
  std::atomic<bool> stop{false}, right{true};
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&] {
      while (!stop) {
        if (!sums_are_right(5)) right = false;
      }
    });
  }
  for (int i = 0; i < kForks; ++i) {
    pid_t const child = fork();
    expect(child >= 0, "pool: no fork");
    if (child == 0) _exit(sums_are_right(kThreadsOfChild) && sums_are_right(kThreadsOfChild) ? 0 : 1);
    int status = 0;
    expect(waitpid(child, &status, 0) == child && status == 0, "pool: a forked child did not add up");
  }
  stop = true;
  for (std::thread& caller : callers) caller.join();
  expect(right, "pool: callers that meet did not add up");
  for (int i = 0; i < 20; ++i) std::thread([] { expect(sum_of(4, 50) == 1225, "pool: a short thread"); }).join();
  std::printf("%-20s ok\n", "pool");
}

// The process ends while a thread is in a loop and the pool's threads are at work: neither may outlive what it uses.
void leave_amid_work() {
  std::thread([] {
    for (;;) panrt::parallel_for(3, 100, [](std::int64_t, int) {});
  }).detach();
  sum_of(3, 1000);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "planted") == 0) {
    plant_faults();
    return 0;
  }
  check_parallel_for();
  check_callers_and_forks();
  run(rpn_proposals());
  run(pyramid_roi_align());
  run(box_detections());
  run(panoptic_merge());
  run(overlay());
  run(conv3x3());
  run(look_up());
  leave_amid_work();
}
