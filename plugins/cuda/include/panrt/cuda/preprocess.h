// A camera frame to the network's input: colour, antialiased resize, letterbox, in one launch.
//
// The frame is converted to BGR, rounded to 8 bits per channel (panrt/yuv.h), resized to resized_height x resized_width
// with panrt/antialias_taps.h - first along y, then along x, each the weighted sum in ascending order divided by the
// sum of weights, in float32 - and rounded, halves up. The result lies at (top, left) of the network's input; every
// pixel around it is `border`. YUV formats carry chroma at half resolution; each chroma sample serves the pixels it
// covers.
//
// Shapes: N frames of height x width; output (N, output_height, output_width, 3).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "panrt/cuda/status.h"

namespace panrt::cuda {

enum class PixelFormat : std::int32_t {
  kBgr8 = 0,  // (height, width, 3)
  kRgb8 = 1,  // (height, width, 3)
  kNv12 = 2,  // luma (height, width), then U and V interleaved (height / 2, width); both sizes even
  kYuyv = 3,  // Y U Y V (height, width / 2, 4); width even
};

enum class YuvStandard : std::int32_t { kBt601 = 0, kBt709 = 1 };  // limited range

struct PreprocessArgs {
  std::uint8_t const* frame;   // in `format`; device
  std::uint8_t const* chroma;  // NV12 alone: the plane of U and V; device
  std::uint8_t* output;        // (N, output_height, output_width, 3) BGR; device
  std::int64_t pitch;          // bytes from a row of `frame` and of `chroma` to the next
  std::int64_t frame_bytes;    // from a frame to the next, of `frame` and of `chroma`
  std::int32_t images;
  PixelFormat format;
  YuvStandard standard;
  std::int32_t height, width;
  std::int32_t resized_height, resized_width;
  std::int32_t top, left;  // of the resized frame in the output
  std::int32_t output_height, output_width;
  std::uint8_t border[4];  // BGR; the fourth is not used
};

// One launch. Rejects frames that shrink by more than about 100 along x.
Status launch_preprocess(PreprocessArgs const& args, cudaStream_t stream) noexcept;

Status prepare_preprocess() noexcept;  // panrt/cuda/prepare.h

}  // namespace panrt::cuda
