// Boxes: anchors, decoding, clipping, IoU, and the order of scores. Semantics are detectron2's; float32 in the order
// written.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "panrt/host_device.h"

namespace panrt {

// (x0, y0, x1, y1) in pixels of the network input, continuous coordinates, no +1.
struct Box {
  float x0, y0, x1, y1;
};

PANRT_HD Box load_box(float const* row) { return {row[0], row[1], row[2], row[3]}; }
PANRT_HD void store_box(Box const& box, float* row) {
  row[0] = box.x0;
  row[1] = box.y0;
  row[2] = box.x1;
  row[3] = box.y1;
}

// A network's output for a box, relative to an anchor or RoI; or the weights that it was multiplied by.
struct BoxDeltas {
  float x, y, width, height;
};

// ln(1000/16), detectron2's limit: a side grows at most from 16 to 1000 pixels in one step.
constexpr float kMaxSizeDelta = 4.135166556742356F;

// In double, so that every platform rounds it to the same float.
PANRT_HD float exp_in_double(float x) { return static_cast<float>(std::exp(static_cast<double>(x))); }

// A side's factor; NaN stays.
PANRT_HD float size_factor(float delta, float weight) {
  float const scaled = delta / weight;
  return exp_in_double(scaled > kMaxSizeDelta ? kMaxSizeDelta : scaled);
}

PANRT_HD Box decode_box(BoxDeltas const& deltas, Box const& from, BoxDeltas const& weights) {
  float const width = from.x1 - from.x0;
  float const height = from.y1 - from.y0;
  float const centre_x = from.x0 + 0.5F * width;
  float const centre_y = from.y0 + 0.5F * height;
  float const new_centre_x = deltas.x / weights.x * width + centre_x;
  float const new_centre_y = deltas.y / weights.y * height + centre_y;
  float const half_width = 0.5F * (size_factor(deltas.width, weights.width) * width);
  float const half_height = 0.5F * (size_factor(deltas.height, weights.height) * height);
  return {new_centre_x - half_width, new_centre_y - half_height, new_centre_x + half_width, new_centre_y + half_height};
}

PANRT_HD bool is_finite(float x) { return std::fabs(x) <= FLT_MAX; }
PANRT_HD bool is_finite(Box const& box) {
  return is_finite(box.x0) && is_finite(box.y0) && is_finite(box.x1) && is_finite(box.y1);
}

PANRT_HD float clip(float x, float limit) {
  float const positive = x > 0.0F ? x : 0.0F;
  return positive < limit ? positive : limit;
}

// A finite box cut to [0, width] x [0, height].
PANRT_HD Box clip_box(Box const& box, float width, float height) {
  return {clip(box.x0, width), clip(box.y0, height), clip(box.x1, width), clip(box.y1, height)};
}

PANRT_HD bool is_empty(Box const& box) { return !(box.x1 - box.x0 > 0.0F && box.y1 - box.y0 > 0.0F); }

PANRT_HD float box_area(Box const& box) { return (box.x1 - box.x0) * (box.y1 - box.y0); }

// Intersection over union; the areas are those of the boxes. 0/0 where both are empty, which is greater than nothing.
PANRT_HD float iou(Box const& a, float area_a, Box const& b, float area_b) {
  float const width = (a.x1 < b.x1 ? a.x1 : b.x1) - (a.x0 > b.x0 ? a.x0 : b.x0);
  float const height = (a.y1 < b.y1 ? a.y1 : b.y1) - (a.y0 > b.y0 ? a.y0 : b.y0);
  float const intersection = (width > 0.0F ? width : 0.0F) * (height > 0.0F ? height : 0.0F);
  return intersection / (area_a + area_b - intersection);
}

// The anchor of a cell whose top-left corner is at 0; ratio is height / width.
PANRT_HD Box cell_anchor(float size, float ratio) {
  double const area = static_cast<double>(size) * static_cast<double>(size);
  double const width = std::sqrt(area / static_cast<double>(ratio));
  double const height = width * static_cast<double>(ratio);
  auto const half_width = static_cast<float>(width / 2.0), half_height = static_cast<float>(height / 2.0);
  return {-half_width, -half_height, half_width, half_height};
}

PANRT_HD Box anchor_at(Box const& cell_anchor, int y, int x, float stride) {
  float const left = static_cast<float>(x) * stride, top = static_cast<float>(y) * stride;
  return {left + cell_anchor.x0, top + cell_anchor.y0, left + cell_anchor.x1, top + cell_anchor.y1};
}

// A place in the order "best first": smaller is better, by descending score, then by ascending index. -0 equals +0; the
// score is not NaN.
using Rank = std::uint64_t;

PANRT_HD Rank rank_of(float score, std::uint32_t index) {
  float const normal = score + 0.0F;  // -0 becomes +0
  std::uint32_t bits;
  std::memcpy(&bits, &normal, sizeof bits);
  std::uint32_t const descending = (bits & 0x80000000U) != 0 ? bits : ~(bits | 0x80000000U);
  return static_cast<Rank>(descending) << 32 | index;
}

PANRT_HD std::uint32_t index_of(Rank rank) { return static_cast<std::uint32_t>(rank); }

PANRT_HD float score_of(Rank rank) {
  auto const descending = static_cast<std::uint32_t>(rank >> 32);
  std::uint32_t const bits = (descending & 0x80000000U) != 0 ? descending : ~descending & 0x7FFFFFFFU;
  float score;
  std::memcpy(&score, &bits, sizeof score);
  return score;
}

}  // namespace panrt
