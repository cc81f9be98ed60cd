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

static_assert(sizeof(PanrtStatus) == 16 && offsetof(PanrtStatus, code) == 0 && offsetof(PanrtStatus, cuda_error) == 4 &&
              offsetof(PanrtStatus, message) == 8);

static_assert(sizeof(PreprocessArgs) == 88 && offsetof(PreprocessArgs, frame) == 0 &&
              offsetof(PreprocessArgs, chroma) == 8 && offsetof(PreprocessArgs, output) == 16 &&
              offsetof(PreprocessArgs, pitch) == 24 && offsetof(PreprocessArgs, frame_bytes) == 32 &&
              offsetof(PreprocessArgs, images) == 40 && offsetof(PreprocessArgs, format) == 44 &&
              offsetof(PreprocessArgs, standard) == 48 && offsetof(PreprocessArgs, height) == 52 &&
              offsetof(PreprocessArgs, width) == 56 && offsetof(PreprocessArgs, resized_height) == 60 &&
              offsetof(PreprocessArgs, resized_width) == 64 && offsetof(PreprocessArgs, top) == 68 &&
              offsetof(PreprocessArgs, left) == 72 && offsetof(PreprocessArgs, output_height) == 76 &&
              offsetof(PreprocessArgs, output_width) == 80 && offsetof(PreprocessArgs, border) == 84);

static_assert(sizeof(OverlayArgs) == 64 && offsetof(OverlayArgs, frame) == 0 && offsetof(OverlayArgs, panoptic) == 8 &&
              offsetof(OverlayArgs, colors) == 16 && offsetof(OverlayArgs, output) == 24 &&
              offsetof(OverlayArgs, images) == 32 && offsetof(OverlayArgs, height) == 36 &&
              offsetof(OverlayArgs, width) == 40 && offsetof(OverlayArgs, map_height) == 44 &&
              offsetof(OverlayArgs, map_width) == 48 && offsetof(OverlayArgs, color_count) == 52 &&
              offsetof(OverlayArgs, opacity) == 56 && offsetof(OverlayArgs, border) == 60);

static_assert(sizeof(NarrowMapArgs) == 32 && offsetof(NarrowMapArgs, ids) == 0 &&
              offsetof(NarrowMapArgs, narrow) == 8 && offsetof(NarrowMapArgs, count) == 16 &&
              offsetof(NarrowMapArgs, bytes_per_id) == 24);

}  // namespace panrt::cuda
