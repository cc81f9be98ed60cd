// A camera frame to the network's input. The resize is separable: a block first sums the rows of the frame that an
// output row takes, over the columns that its stretch of the row needs, into shared memory, then sums along those.
#include "byte_tile.h"
#include "checks.h"
#include "launch.h"
#include "panrt/antialias_taps.h"
#include "panrt/cuda/preprocess.h"
#include "panrt/limits.h"
#include "panrt/yuv.h"
#include "prepare.h"
#include "workspace.h"

namespace panrt::cuda {
namespace {

// What a block works on: output pixels first to first + pixels - 1 of a row; those from `begin` to `end` of the resized
// frame are among them, if any.
struct Stretch {
  std::int64_t image;
  int y, first, pixels;
  int begin, end;
};

__device__ Stretch stretch_at(PreprocessArgs const& args, int tile, std::int64_t item) {
  int const across = (args.output_width + tile - 1) / tile;
  std::int64_t const row = item / across;
  Stretch stretch{row / args.output_height,
                  static_cast<int>(row % args.output_height),
                  static_cast<int>(item % across) * tile,
                  0,
                  0,
                  0};
  stretch.pixels = min(tile, args.output_width - stretch.first);
  int const y = stretch.y - args.top;
  if (y >= 0 && y < args.resized_height) {
    stretch.begin = max(stretch.first - args.left, 0);
    stretch.end = min(stretch.first + stretch.pixels - args.left, args.resized_width);
  }
  return stretch;
}

struct Rows {
  AntialiasTaps taps;
  float const* weights;  // one a tap, shared
};

// Elements that the first thread starts before a row's first, so that warps read whole sectors where the pitch keeps to
// them.
__device__ __forceinline__ int lead_of(void const* first, int element_bytes) {
  constexpr int kSectorBytes = 32;
  return static_cast<int>(reinterpret_cast<std::uintptr_t>(first) % kSectorBytes) / element_bytes;
}

// columns[3 * i + c]: channel c of column first + i, summed over the rows and divided by the sum of their weights. A
// thread owns a byte of the rows; lanes read side by side.
__device__ void sum_rows(PreprocessArgs const& args, std::uint8_t const* frame, Rows const& rows, int first, int end,
                         float* columns) {
  int const count = rows.taps.end - rows.taps.first;
  std::uint8_t const* const top = frame + rows.taps.first * args.pitch + 3 * first;
  for (int i = static_cast<int>(threadIdx.x) - lead_of(top, 1); i < 3 * (end - first); i += kTilePixels) {
    if (i < 0) continue;
    float sum = 0.0F, total = 0.0F;
    for (int tap = 0; tap < count; ++tap) {
      sum += rows.weights[tap] * static_cast<float>(top[tap * args.pitch + i]);
      total += rows.weights[tap];
    }
    columns[i] = sum / total;
  }
}

template <PixelFormat format>
__device__ __forceinline__ Bgr read_yuv(PreprocessArgs const& args, std::int64_t image, int y, int x) {
  YuvMatrix const matrix = args.standard == YuvStandard::kBt709 ? kBt709 : kBt601;
  std::int64_t const frame = image * args.frame_bytes;
  if constexpr (format == PixelFormat::kNv12) {
    int const luma = args.frame[frame + y * args.pitch + x];
    uchar2 const uv = __ldg(reinterpret_cast<uchar2 const*>(args.chroma + frame + y / 2 * args.pitch) + x / 2);
    return yuv_to_bgr(matrix, luma, uv.x, uv.y);
  } else {
    auto const pair = reinterpret_cast<std::uint32_t const*>(args.frame + frame + y * args.pitch)[x / 2];  // Y U Y V
    int const luma = static_cast<int>(pair >> (x % 2 * 16) & 0xFFU);
    return yuv_to_bgr(matrix, luma, static_cast<int>(pair >> 8 & 0xFFU), static_cast<int>(pair >> 24));
  }
}

// As sum_rows; a thread owns a pixel of the rows.
template <PixelFormat format>
__device__ void sum_yuv_rows(PreprocessArgs const& args, std::int64_t image, Rows const& rows, int first, int end,
                             float* columns) {
  constexpr int kBytes = format == PixelFormat::kNv12 ? 1 : 2;  // of luma and what lies between
  std::uint8_t const* const row = args.frame + image * args.frame_bytes + rows.taps.first * args.pitch + kBytes * first;
  for (int i = static_cast<int>(threadIdx.x) - lead_of(row, kBytes); i < end - first; i += kTilePixels) {
    if (i < 0) continue;
    float b = 0.0F, g = 0.0F, r = 0.0F, total = 0.0F;
    for (int y = rows.taps.first; y < rows.taps.end; ++y) {
      float const weight = rows.weights[y - rows.taps.first];
      Bgr const pixel = read_yuv<format>(args, image, y, first + i);
      b += weight * static_cast<float>(pixel.b);
      g += weight * static_cast<float>(pixel.g);
      r += weight * static_cast<float>(pixel.r);
      total += weight;
    }
    columns[3 * i] = b / total;
    columns[3 * i + 1] = g / total;
    columns[3 * i + 2] = r / total;
  }
}

__device__ __forceinline__ std::uint8_t to_byte(float value) {
  int const rounded = static_cast<int>(value + 0.5F);  // not negative
  return static_cast<std::uint8_t>(min(rounded, 255));
}

// A block owns a stretch of an output row, a thread one of its pixels. Bound by requests for the frame: each of its
// rows is read for the two output rows that it lies between.
template <PixelFormat format>
__global__ void __launch_bounds__(kTilePixels, 4)
    prepare_frame(PreprocessArgs const args, int tile, int column_floats, std::int64_t items) {
  __shared__ std::uint32_t pixels[kTileWords];
  auto* const bytes = reinterpret_cast<std::uint8_t*>(pixels);
  float* const columns = dynamic_shared<float>();
  float* const weights = columns + column_floats;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    Stretch const stretch = stretch_at(args, tile, item);
    bool const has_frame = stretch.begin < stretch.end;
    int first = 0;
    if (has_frame) {
      AntialiasTaps const rows = antialias_taps(stretch.y - args.top, args.height, args.resized_height);
      for (int tap = threadIdx.x; tap < rows.end - rows.first; tap += kTilePixels) {
        weights[tap] = antialias_weight(rows, rows.first + tap);
      }
      first = antialias_taps(stretch.begin, args.width, args.resized_width).first;
      int const end = antialias_taps(stretch.end - 1, args.width, args.resized_width).end;
      __syncthreads();
      if constexpr (format == PixelFormat::kBgr8 || format == PixelFormat::kRgb8) {
        sum_rows(args, args.frame + stretch.image * args.frame_bytes, {rows, weights}, first, end, columns);
      } else {
        sum_yuv_rows<format>(args, stretch.image, {rows, weights}, first, end, columns);
      }
      __syncthreads();
    }
    int const mine = threadIdx.x, x = stretch.first + mine - args.left;
    if (mine < stretch.pixels) {
      std::uint8_t bgr[3] = {args.border[0], args.border[1], args.border[2]};
      if (has_frame && x >= stretch.begin && x < stretch.end) {
        AntialiasTaps const taps = antialias_taps(x, args.width, args.resized_width);
        float sums[3] = {0.0F, 0.0F, 0.0F}, total = 0.0F;
        for (int i = taps.first; i < taps.end; ++i) {
          float const weight = antialias_weight(taps, i);
          float const* const column = columns + 3 * (i - first);
#pragma unroll
          for (int c = 0; c < 3; ++c) sums[c] += weight * column[c];
          total += weight;
        }
#pragma unroll
        for (int c = 0; c < 3; ++c) bgr[c] = to_byte(sums[format == PixelFormat::kRgb8 ? 2 - c : c] / total);
      }
#pragma unroll
      for (int c = 0; c < 3; ++c) bytes[3 * mine + c] = bgr[c];
    }
    __syncthreads();
    std::int64_t const row = stretch.image * args.output_height + stretch.y;
    store_pixels(pixels, stretch.pixels, args.output + 3 * (row * args.output_width + stretch.first));
    __syncthreads();  // shared memory is free again
  }
}

// --- Host ------------------------------------------------------------------------------------------------------------

bool is_multiple(std::int64_t value, int of) { return value % of == 0; }

Status check(PreprocessArgs const& args) {
  constexpr std::int64_t kMaxPitch = 1 << 20, kMaxFrameBytes = kMaxPitch * kMaxSide;
  Checks checks("preprocess");
  checks.range("images", args.images, 1, kMaxImages);
  checks.range("height", args.height, 1, kMaxSide);
  checks.range("width", args.width, 1, kMaxSide);
  checks.range("resized_height", args.resized_height, 1, kMaxSide);
  checks.range("resized_width", args.resized_width, 1, kMaxSide);
  checks.range("output_height", args.output_height, 1, kMaxSide);
  checks.range("output_width", args.output_width, 1, kMaxSide);
  checks.range("frame_bytes", args.frame_bytes, 0, kMaxFrameBytes);
  if (checks.ok()) {
    checks.range("top", args.top, 0, args.output_height - args.resized_height);
    checks.range("left", args.left, 0, args.output_width - args.resized_width);
  }
  checks.that(args.frame != nullptr && args.output != nullptr, "frame or output is null");
  checks.that(args.standard == YuvStandard::kBt601 || args.standard == YuvStandard::kBt709,
              "standard must be BT.601 or BT.709", Code::kUnsupported);
  switch (args.format) {
    case PixelFormat::kBgr8:
    case PixelFormat::kRgb8:
      checks.range("pitch", args.pitch, std::int64_t{3} * args.width, kMaxPitch);
      break;
    case PixelFormat::kNv12:
      checks.that(args.chroma != nullptr, "NV12 needs the plane of chroma");
      checks.that(is_multiple(args.height, 2) && is_multiple(args.width, 2),
                  "height and width of an NV12 frame must be even");
      checks.range("pitch", args.pitch, args.width, kMaxPitch);
      checks.that(is_aligned(args.chroma, 2) && is_multiple(args.pitch, 2) && is_multiple(args.frame_bytes, 2),
                  "NV12's chroma, pitch and frame_bytes must be aligned to 2 bytes");
      break;
    case PixelFormat::kYuyv:
      checks.that(is_multiple(args.width, 2), "the width of a YUYV frame must be even");
      checks.range("pitch", args.pitch, std::int64_t{2} * args.width, kMaxPitch);
      checks.that(is_aligned(args.frame, 4) && is_multiple(args.pitch, 4) && is_multiple(args.frame_bytes, 4),
                  "a YUYV frame, its pitch and frame_bytes must be aligned to 4 bytes");
      break;
    default:
      checks.that(false, "format must be BGR8, RGB8, NV12 or YUYV", Code::kUnsupported);
  }
  return checks.status();
}

// Source pixels under `pixels` output pixels, at most.
std::int64_t source_span(std::int64_t pixels, int source, int output) {
  double const scale = static_cast<double>(source) / output, width = scale > 1.0 ? scale : 1.0;
  auto const span = static_cast<std::int64_t>(static_cast<double>(pixels) * scale + 2.0 * width) + 3;
  return span < source ? span : source;
}

}  // namespace

Status launch_preprocess(PreprocessArgs const& args, cudaStream_t stream) noexcept {
  Status const checked = check(args);
  if (!checked.ok()) return checked;
  constexpr std::size_t kFixedBytes = kTileWords * sizeof(std::uint32_t);
  std::int64_t const row_taps = source_span(1, args.height, args.resized_height);
  for (int tile = kTilePixels; tile >= 32; tile /= 2) {  // as wide as shared memory has room for
    std::int64_t const column_floats = 3 * source_span(tile, args.width, args.resized_width);
    std::size_t const shared_bytes = static_cast<std::size_t>(column_floats + row_taps) * sizeof(float);
    if (shared_bytes + kFixedBytes > kMaxSharedBytes) continue;
    std::int64_t const items = std::int64_t{args.images} * args.output_height * ((args.output_width + tile - 1) / tile);
    LaunchShape const shape{blocks_for(items, 1), kTilePixels, shared_bytes};
    auto const run = [&](auto kernel) {
      return launch(kernel, shape, stream, args, tile, static_cast<int>(column_floats), items);
    };
    switch (args.format) {
      case PixelFormat::kBgr8:
        return run(prepare_frame<PixelFormat::kBgr8>);
      case PixelFormat::kRgb8:
        return run(prepare_frame<PixelFormat::kRgb8>);
      case PixelFormat::kNv12:
        return run(prepare_frame<PixelFormat::kNv12>);
      case PixelFormat::kYuyv:
        return run(prepare_frame<PixelFormat::kYuyv>);
    }
  }
  return unsupported("preprocess: the frame shrinks by more than shared memory has room for (about 100 along x)");
}

Status prepare_preprocess() noexcept {
  return prepare(prepare_frame<PixelFormat::kBgr8>, prepare_frame<PixelFormat::kRgb8>,
                 prepare_frame<PixelFormat::kNv12>, prepare_frame<PixelFormat::kYuyv>);
}

}  // namespace panrt::cuda
