// Element types and memory layouts of tensors, as TensorRT's linear, kHWC and kHWC8 formats have them.
#pragma once

#include <cstdint>

namespace panrt::cuda {

enum class DataType : std::int32_t { kFloat32 = 0, kFloat16 = 1 };

enum class Layout : std::int32_t {
  kNchw = 0,   // (N, C, H, W)
  kNhwc = 1,   // (N, H, W, C)
  kNhwc8 = 2,  // (N, H, W, C rounded up to 8); float16 only; what the padding holds has no meaning
};

}  // namespace panrt::cuda
