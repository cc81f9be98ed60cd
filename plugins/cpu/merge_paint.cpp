#include "merge_paint.h"

#include "simd.h"

namespace panrt {
namespace loops {
namespace {

PANRT_INLINE std::int64_t count_taken(Span const* spans, int rows, std::int32_t const* map, std::ptrdiff_t width) {
  std::int64_t taken = 0;
  for (int y = 0; y < rows; ++y, map += width) {
    for (; spans->end != 0; ++spans) {
      std::int32_t in_span = 0;
      for (int x = spans->begin; x < spans->end; ++x) in_span += map[x] != 0 ? 1 : 0;
      taken += in_span;
    }
    ++spans;
  }
  return taken;
}

// Gives the free pixels of part of a row to `id`, and adds them to the region.
PANRT_INLINE void paint_span(std::int32_t* row, int y, int begin, int end, std::int32_t id, Region& painted) {
  // The ends matter only where they widen the box.
  int left = begin, right = end;
  while (left < std::min(end, painted.x0) && row[left] != 0) ++left;
  if (left < end) painted.x0 = std::min(painted.x0, left);
  while (right > std::max(begin, painted.x1) && row[right - 1] != 0) --right;
  if (right > begin) painted.x1 = std::max(painted.x1, right);
  std::int32_t area = 0;
  for (int x = begin; x < end; ++x) {
    area += row[x] == 0 ? 1 : 0;
    row[x] = row[x] == 0 ? id : row[x];
  }
  if (area == 0) return;
  painted.area += area;
  painted.y0 = std::min(painted.y0, y);
  painted.y1 = std::max(painted.y1, y + 1);
}

PANRT_INLINE void paint_spans(Span const* spans, PixelRange rows, std::int32_t id, std::int32_t* map,
                              std::ptrdiff_t width, Region& painted) {
  for (int y = rows.begin; y < rows.end; ++y) {
    for (; spans->end != 0; ++spans) paint_span(map + y * width, y, spans->begin, spans->end, id, painted);
    ++spans;
  }
}

PANRT_INLINE void paint_rectangle(PixelRange columns, PixelRange rows, std::int32_t id, std::int32_t* map,
                                  std::ptrdiff_t width, Region& painted) {
  for (int y = rows.begin; y < rows.end; ++y) {
    paint_span(map + y * width, y, columns.begin, columns.end, id, painted);
  }
}

}  // namespace
}  // namespace loops

std::int64_t count_taken(Span const* spans, int rows, std::int32_t const* map, std::ptrdiff_t width) {
  constexpr Variants<loops::count_taken> count;
  return count(spans, rows, map, width);
}

void paint_spans(Span const* spans, PixelRange rows, std::int32_t id, std::int32_t* map, std::ptrdiff_t width,
                 Region& painted) {
  constexpr Variants<loops::paint_spans> paint;
  paint(spans, rows, id, map, width, painted);
}

void paint_rectangle(PixelRange columns, PixelRange rows, std::int32_t id, std::int32_t* map, std::ptrdiff_t width,
                     Region& painted) {
  constexpr Variants<loops::paint_rectangle> paint;
  paint(columns, rows, id, map, width, painted);
}

}  // namespace panrt
