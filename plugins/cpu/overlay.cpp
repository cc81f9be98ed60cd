// The colours of a panoptic map over a frame.
//
// A row is done in two steps: the map decides what each pixel is multiplied with and what is added, in runs of one
// segment; then all bytes of the row are blended alike, which is a loop that the compiler vectorises.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "simd.h"
#include "thread_pool.h"

namespace panrt {
namespace {

constexpr int kOne = 256;  // opacity of a pixel that hides the frame

// Cell of a map axis that pixel i of a frame axis shows: the one that its centre lies in.
int cell_below(int i, int pixels, int cells) {
  return static_cast<int>((2 * std::int64_t{i} + 1) * cells / (2 * std::int64_t{pixels}));
}

namespace loops {

PANRT_INLINE void blend(std::uint8_t const* frame, std::uint16_t const* keep, std::uint16_t const* add,
                        std::ptrdiff_t bytes, std::uint8_t* result) {
  for (std::ptrdiff_t i = 0; i < bytes; ++i) {
    auto const sum = static_cast<std::uint16_t>(frame[i] * keep[i] + add[i]);
    result[i] = static_cast<std::uint8_t>(sum >> 8);
  }
}

}  // namespace loops

constexpr Variants<loops::blend> blend;

struct Row {
  explicit Row(int width) : keep(static_cast<std::size_t>(3 * width)), add(static_cast<std::size_t>(3 * width)) {}

  std::vector<std::uint16_t> keep, add;

  // Pixels begin to end - 1 are `frame * (1 - opacity) + color * opacity`, rounded.
  void paint(int begin, int end, std::uint8_t const* color, int opacity) {
    for (int x = begin; x < end; ++x) {
      for (int c = 0; c < 3; ++c) {
        auto const i = static_cast<std::size_t>(3 * x + c);
        keep[i] = static_cast<std::uint16_t>(kOne - opacity);
        add[i] = static_cast<std::uint16_t>(color[c] * opacity + kOne / 2);
      }
    }
  }

  void leave(int begin, int end) {
    std::fill(keep.begin() + 3 * begin, keep.begin() + 3 * end, static_cast<std::uint16_t>(kOne));
    std::fill(add.begin() + 3 * begin, add.begin() + 3 * end, std::uint16_t{0});
  }
};

}  // namespace

void overlay(OverlayArgs const& args, int threads) {
  int const H = args.height, W = args.width, step = args.border;
  std::vector<int> columns;
  for (int x = 0; x < W; ++x) columns.push_back(cell_below(x, W, args.map_width));
  std::vector<Row> rows(static_cast<std::size_t>(threads), Row(W));

  constexpr int kRows = 8;
  parallel_for(threads, (H + kRows - 1) / kRows, [&](std::int64_t chunk, int worker) {
    Row& row = rows[static_cast<std::size_t>(worker)];
    auto const ids_of = [&](int y) {
      return args.map + std::ptrdiff_t{cell_below(std::min(y, H - 1), H, args.map_height)} * args.map_width;
    };
    auto const first = static_cast<int>(chunk) * kRows;
    for (int y = first; y < std::min(first + kRows, H); ++y) {
      std::int32_t const* const ids = ids_of(y);
      std::int32_t const* const below = ids_of(y + step);
      auto const id_at = [&](std::int32_t const* line, int x) { return line[columns[static_cast<std::size_t>(x)]]; };
      auto const is_border = [&](int x) {
        std::int32_t const id = id_at(ids, x);
        return step > 0 && (id_at(ids, std::min(x + step, W - 1)) != id || id_at(below, x) != id);
      };
      for (int begin = 0; begin < W;) {
        std::int32_t const id = id_at(ids, begin);
        bool const border = is_border(begin);
        int end = begin + 1;
        while (end < W && id_at(ids, end) == id && is_border(end) == border) ++end;
        if (id <= 0 || id >= args.colors_count) {
          row.leave(begin, end);
        } else {
          std::uint8_t const* const color = args.colors + 3 * std::ptrdiff_t{id};
          std::uint8_t light[3];
          for (int c = 0; c < 3; ++c) light[c] = static_cast<std::uint8_t>((color[c] + 256) / 2);
          row.paint(begin, end, border ? light : color, border ? kOne : args.opacity);
        }
        begin = end;
      }
      std::ptrdiff_t const offset = std::ptrdiff_t{y} * 3 * W;
      blend(args.frame + offset, row.keep.data(), row.add.data(), std::ptrdiff_t{3} * W, args.result + offset);
    }
  });
}

}  // namespace panrt
