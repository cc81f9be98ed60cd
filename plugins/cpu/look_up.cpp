// Pixels to the numbers that a network begins with: each byte of each channel has one.
#include <cstddef>
#include <cstdint>

#include "kernels.h"
#include "thread_pool.h"

namespace panrt {

void look_up(LookUpArgs const& args, int threads) {
  constexpr int kRows = 16;
  std::int64_t const W = args.width, pixels = std::int64_t{args.height} * W;
  std::int64_t const chunks = (args.height + kRows - 1) / kRows;
  parallel_for(threads, args.images * chunks, [&](std::int64_t chunk, int) {
    std::int64_t const image = chunk / chunks, first = chunk % chunks * kRows * W;
    std::int64_t const end = first + kRows * W < pixels ? first + kRows * W : pixels;
    std::uint8_t const* const from = args.image + image * 3 * pixels;
    float* const to = args.output + image * 3 * pixels;
    for (std::int64_t i = first; i < end; ++i) {
      for (int c = 0; c < 3; ++c) to[c * pixels + i] = args.table[c * 256 + from[3 * i + c]];
    }
  });
}

}  // namespace panrt
