// A panoptic map of int32 to one of uint16 or uint8, for a quarter or half of the traffic to the host.
//
// Ids saturate: below 0 becomes 0, beyond the type's largest number becomes that number.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "panrt/cuda/status.h"

namespace panrt::cuda {

struct NarrowMapArgs {
  std::int32_t const* ids;    // aligned to 16 bytes; device
  void* narrow;               // as many uint16 or uint8, aligned to 16 bytes; device
  std::int64_t count;         // of ids
  std::int32_t bytes_per_id;  // of `narrow`: 2 or 1
};

// One launch.
Status launch_narrow_map(NarrowMapArgs const& args, cudaStream_t stream) noexcept;

Status prepare_narrow_map() noexcept;  // panrt/cuda/prepare.h

}  // namespace panrt::cuda
