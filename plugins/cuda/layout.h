// How the argument structs of the C interface lie in memory on a 64-bit machine. plugins/cuda_api.py has them for
// ctypes, and a test compares its offsets with these. panrt/ops.h has those of the ops.
#pragma once

#include <cstddef>

#include "c_api.h"
#include "panrt/cuda/narrow_map.h"
#include "panrt/cuda/overlay.h"
#include "panrt/cuda/preprocess.h"
#include "panrt/ops.h"

namespace panrt::cuda {

static_assert(sizeof(PanrtStatus) == 16);
static_assert(offsetof(PanrtStatus, code) == 0);
static_assert(offsetof(PanrtStatus, cuda_error) == 4);
static_assert(offsetof(PanrtStatus, message) == 8);

static_assert(sizeof(PreprocessArgs) == 88);
static_assert(offsetof(PreprocessArgs, frame) == 0);
static_assert(offsetof(PreprocessArgs, chroma) == 8);
static_assert(offsetof(PreprocessArgs, output) == 16);
static_assert(offsetof(PreprocessArgs, pitch) == 24);
static_assert(offsetof(PreprocessArgs, frame_bytes) == 32);
static_assert(offsetof(PreprocessArgs, images) == 40);
static_assert(offsetof(PreprocessArgs, format) == 44);
static_assert(offsetof(PreprocessArgs, standard) == 48);
static_assert(offsetof(PreprocessArgs, height) == 52);
static_assert(offsetof(PreprocessArgs, width) == 56);
static_assert(offsetof(PreprocessArgs, resized_height) == 60);
static_assert(offsetof(PreprocessArgs, resized_width) == 64);
static_assert(offsetof(PreprocessArgs, top) == 68);
static_assert(offsetof(PreprocessArgs, left) == 72);
static_assert(offsetof(PreprocessArgs, output_height) == 76);
static_assert(offsetof(PreprocessArgs, output_width) == 80);
static_assert(offsetof(PreprocessArgs, border) == 84);

static_assert(sizeof(OverlayArgs) == 64);
static_assert(offsetof(OverlayArgs, frame) == 0);
static_assert(offsetof(OverlayArgs, panoptic) == 8);
static_assert(offsetof(OverlayArgs, colors) == 16);
static_assert(offsetof(OverlayArgs, output) == 24);
static_assert(offsetof(OverlayArgs, images) == 32);
static_assert(offsetof(OverlayArgs, height) == 36);
static_assert(offsetof(OverlayArgs, width) == 40);
static_assert(offsetof(OverlayArgs, map_height) == 44);
static_assert(offsetof(OverlayArgs, map_width) == 48);
static_assert(offsetof(OverlayArgs, color_count) == 52);
static_assert(offsetof(OverlayArgs, opacity) == 56);
static_assert(offsetof(OverlayArgs, border) == 60);

static_assert(sizeof(NarrowMapArgs) == 32);
static_assert(offsetof(NarrowMapArgs, ids) == 0);
static_assert(offsetof(NarrowMapArgs, narrow) == 8);
static_assert(offsetof(NarrowMapArgs, count) == 16);
static_assert(offsetof(NarrowMapArgs, bytes_per_id) == 24);

}  // namespace panrt::cuda
