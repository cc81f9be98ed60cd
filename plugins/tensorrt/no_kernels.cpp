// Launchers of a library that was built without nvcc. Engines can be built with it; running one reports the missing
// kernels.
#include "panrt/cuda/prepare.h"
#include "panrt/ops.h"

namespace panrt::cuda {
namespace {

constexpr Status kNoKernels = unsupported(
    "this plugin library was built without CUDA kernels; build it where nvcc is found (panrt plugins build) and the "
    "engine with that library");

}  // namespace

char const* host_arithmetic_fault() noexcept { return nullptr; }

#define PANRT_NO_KERNELS(Name, function)                             \
  Status check_##function(Name##Args const&) noexcept { return {}; } \
  Status prepare_##function() noexcept { return {}; }                \
  Status launch_##function(Name##Args const&, Stream) noexcept { return kNoKernels; }
#define PANRT_NO_WORKSPACE(Name, function) \
  std::size_t function##_workspace_bytes(Name##Args const&) noexcept { return 0; }
PANRT_FOR_EACH_OP(PANRT_NO_KERNELS)
PANRT_FOR_EACH_WORKSPACE(PANRT_NO_WORKSPACE)

}  // namespace panrt::cuda
