// A 3 x 3 convolution with stride 1 and padding 1 in fewer multiplications: Winograd's F(4 x 4, 3 x 3), after Lavin and
// Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
//
// An output tile of 4 x 4 pixels takes 36 products per channel instead of 144: its 6 x 6 inputs are transformed,
// each of the 36 points is a matrix product over the channels, tiles by filters, and the inverse transform gives the
// tile. All three steps go over a block of tiles, so that intermediate results stay in the second-level cache.
//
// Shapes: T tiles of a block, C channels in, O filters, P = 36 points.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "simd.h"
#include "thread_pool.h"

namespace panrt {
namespace {

constexpr int kTile = 4, kPatch = 6, kPoints = kPatch * kPatch;
constexpr int kTilesPerBlock = 20;
constexpr int kFilters = kConv3x3Filters;  // that are adjacent in memory

struct Block {
  Conv3x3Args const* args;
  int image, first, tiles;  // `first` of the image's tiles, row by row
  float* patches;           // (P, T, C), transformed
  float* products;          // (P, T, O)
};

// d -> B^T d
template <typename Vector>
PANRT_INLINE void transform_patch(Vector const (&d)[kPatch], Vector (&t)[kPatch]) {
  Vector const a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
  t[0] = 4 * d[0] - 5 * d[2] + d[4];
  t[1] = a + b;
  t[2] = a - b;
  t[3] = c + e;
  t[4] = c - e;
  t[5] = 4 * d[1] - 5 * d[3] + d[5];
}

// m -> A^T m
template <typename Vector>
PANRT_INLINE void transform_products(Vector const (&m)[kPatch], Vector (&y)[kTile]) {
  Vector const a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], e = m[3] - m[4];
  y[0] = m[0] + a + c;
  y[1] = b + 2 * e;
  y[2] = a + 4 * c;
  y[3] = b + 8 * e + m[5];
}

template <typename Vector>
PANRT_INLINE void gather_patches(Block const& block) {
  constexpr int kLanes = sizeof(Vector) / sizeof(float);
  Conv3x3Args const& args = *block.args;
  int const C = args.channels, H = args.height, W = args.width, across = (W + kTile - 1) / kTile;
  float const* const image = args.input + std::ptrdiff_t{block.image} * H * W * C;
  for (int tile = 0; tile < block.tiles; ++tile) {
    int const top = (block.first + tile) / across * kTile - 1, left = (block.first + tile) % across * kTile - 1;
    for (int c = 0; c < C; c += kLanes) {
      Vector half[kPatch][kPatch];
      for (int j = 0; j < kPatch; ++j) {
        Vector column[kPatch], transformed[kPatch];
        int const x = left + j;
        for (int i = 0; i < kPatch; ++i) {
          int const y = top + i;
          column[i] = Vector{};
          if (x >= 0 && x < W && y >= 0 && y < H) load(image + (std::ptrdiff_t{y} * W + x) * C + c, column[i]);
        }
        transform_patch(column, transformed);
        for (int i = 0; i < kPatch; ++i) half[i][j] = transformed[i];
      }
      for (int i = 0; i < kPatch; ++i) {
        Vector row[kPatch];
        transform_patch(half[i], row);
        for (int j = 0; j < kPatch; ++j) {
          store(row[j], block.patches + (std::ptrdiff_t{i * kPatch + j} * kTilesPerBlock + tile) * C + c);
        }
      }
    }
  }
}

// (rows, C) x (C, kFilters) -> (rows, kFilters), all sums in registers.
template <typename Vector, int rows>
PANRT_INLINE void multiply(float const* patches, float const* weights, int C, float* products, int stride) {
  constexpr int kLanes = sizeof(Vector) / sizeof(float), kVectors = kFilters / kLanes;
  Vector sums[rows][kVectors];
  for (auto& row : sums) {
    for (Vector& sum : row) sum = Vector{};
  }
  for (int c = 0; c < C; ++c) {
    Vector weight[kVectors];
    for (int v = 0; v < kVectors; ++v) load(weights + c * kFilters + v * kLanes, weight[v]);
#pragma GCC unroll 16
    for (int row = 0; row < rows; ++row) {
      for (int v = 0; v < kVectors; ++v) sums[row][v] += patches[row * C + c] * weight[v];
    }
  }
  for (int row = 0; row < rows; ++row) {
    for (int v = 0; v < kVectors; ++v) store(sums[row][v], products + row * stride + v * kLanes);
  }
}

template <typename Vector, int rows>
PANRT_INLINE void multiply_points(Block const& block) {
  static_assert(kTilesPerBlock % rows == 0);
  int const C = block.args->channels, O = block.args->filters;
  float const* weights = block.args->weights;
  for (int point = 0; point < kPoints; ++point) {
    for (int o = 0; o < O; o += kFilters, weights += C * kFilters) {
      for (int tile = 0; tile < block.tiles; tile += rows) {  // past the last one: results that are not read
        std::ptrdiff_t const at = std::ptrdiff_t{point} * kTilesPerBlock + tile;
        multiply<Vector, rows>(block.patches + at * C, weights, C, block.products + at * O + o, O);
      }
    }
  }
}

template <typename Vector>
PANRT_INLINE void write_tiles(Block const& block) {
  constexpr int kLanes = sizeof(Vector) / sizeof(float);
  Conv3x3Args const& args = *block.args;
  int const O = args.filters, H = args.height, W = args.width, across = (W + kTile - 1) / kTile;
  float* const image = args.output + std::ptrdiff_t{block.image} * H * W * O;
  Vector const lower = Vector{} + args.lower, upper = Vector{} + args.upper;
  for (int tile = 0; tile < block.tiles; ++tile) {
    int const top = (block.first + tile) / across * kTile, left = (block.first + tile) % across * kTile;
    for (int o = 0; o < O; o += kLanes) {
      Vector half[kTile][kPatch], bias;
      load(args.bias + o, bias);
      for (int j = 0; j < kPatch; ++j) {
        Vector column[kPatch], transformed[kTile];
        for (int i = 0; i < kPatch; ++i) {
          load(block.products + (std::ptrdiff_t{i * kPatch + j} * kTilesPerBlock + tile) * O + o, column[i]);
        }
        transform_products(column, transformed);
        for (int i = 0; i < kTile; ++i) half[i][j] = transformed[i];
      }
      for (int i = 0; i < std::min(kTile, H - top); ++i) {
        Vector row[kTile];
        transform_products(half[i], row);
        for (int j = 0; j < std::min(kTile, W - left); ++j) {
          Vector value = row[j] + bias;
          value = value < lower ? lower : value;
          value = value > upper ? upper : value;
          store(value, image + (std::ptrdiff_t{top + i} * W + left + j) * O + o);
        }
      }
    }
  }
}

// `rows` fill the registers.
template <typename Vector, int rows>
PANRT_INLINE void convolve(Block const& block) {
  gather_patches<Vector>(block);
  multiply_points<Vector, rows>(block);
  write_tiles<Vector>(block);
}

#ifdef __aarch64__
constexpr int kRows = 5;  // of 4 x 4 floats, in 32 registers
#else
constexpr int kRows = 2;  // in 16
#endif

using Convolve = Variants<convolve<Float4, kRows>, convolve<Float8, 5>, convolve<Float16, 10>>;

}  // namespace

std::size_t conv3x3_workspace(int channels, int filters) {
  return static_cast<std::size_t>(kPoints * kTilesPerBlock) * static_cast<std::size_t>(channels + filters);
}

std::vector<char const*> conv3x3_variants() {
  std::vector<char const*> names;
  for (auto const& variant : Convolve::all()) names.push_back(variant.instructions);
  return names;
}

void conv3x3(Conv3x3Args const& args, int threads) {
  static auto const all = Convolve::all();
  auto* const convolve_block = all.at(static_cast<std::size_t>(args.variant)).function;
  int const across = (args.width + kTile - 1) / kTile, down = (args.height + kTile - 1) / kTile;
  int const tiles = across * down, blocks = (tiles + kTilesPerBlock - 1) / kTilesPerBlock;
  std::size_t const floats = conv3x3_workspace(args.channels, args.filters);
  parallel_for(threads, args.images * blocks, [&](std::int64_t chunk, int worker) {
    float* const patches = args.workspace + static_cast<std::size_t>(worker) * floats;
    float* const products = patches + std::ptrdiff_t{kPoints * kTilesPerBlock} * args.channels;
    auto const image = static_cast<int>(chunk / blocks), first = static_cast<int>(chunk % blocks) * kTilesPerBlock;
    convolve_block({&args, image, first, std::min(kTilesPerBlock, tiles - first), patches, products});
  });
}

}  // namespace panrt
