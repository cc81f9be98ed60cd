// The largest sizes that the ops take: the limits of plugins/OPS.md 1.3, and so those of plugins/contract.py. Within
// them no 32-bit count overflows, and no launch takes longer than seconds.
#pragma once

#include <cstdint>

namespace panrt {

constexpr std::int64_t kMaxImages = 65535;         // of a batch: the rows that a grid has
constexpr std::int64_t kMaxSide = 32768;           // pixels of an image, cells of a map, and strides
constexpr std::int64_t kMaxRows = 1 << 20;         // RoIs or detections of an image
constexpr std::int64_t kMaxLevels = 8;             // of a pyramid
constexpr std::int64_t kMaxAnchorsPerCell = 16;    //
constexpr std::int64_t kMaxAnchors = INT32_MAX;    // of an image
constexpr std::int64_t kMaxCandidates = 16384;     // of a level that enter NMS
constexpr std::int64_t kMaxBins = 1024;            // of a RoI, per side
constexpr std::int64_t kMaxSamples = 1024;         // of a bin, per side
constexpr std::int64_t kMaxPooled = 1 << 30;       // numbers of a RoI
constexpr std::int64_t kMaxLevelNumber = 64;       // canonical_level, min_level
constexpr std::int64_t kMaxPairs = 1 << 21;        // of RoI and class, of an image
constexpr std::int64_t kMaxPairsKept = 1LL << 35;  // pairs times max_detections
constexpr std::int64_t kMaxCodes = 65535;          // detections and channels together
constexpr std::int64_t kMaxMaskCells = 1 << 24;    // of a mask
constexpr std::int64_t kMaxPasted = 1LL << 38;     // detections times pixels of the output

// The most pixels of the network input along an axis of this many cells of the semantic map.
constexpr std::int64_t max_input_side(std::int64_t cells) { return 4 * cells < kMaxSide ? 4 * cells : kMaxSide; }

// The most detections whose masks may be pasted into an output of this many pixels.
constexpr std::int64_t max_pasted_of(std::int64_t pixels) { return kMaxPasted / pixels; }

// The most detections that may be kept of this many pairs.
constexpr std::int64_t max_detections_of(std::int64_t pairs) { return kMaxPairsKept / (pairs > 0 ? pairs : 1); }

}  // namespace panrt
