#include "c_api.h"

#include "layout.h"
#include "panrt/cuda/narrow_map.h"
#include "panrt/cuda/overlay.h"
#include "panrt/cuda/prepare.h"
#include "panrt/cuda/preprocess.h"
#include "panrt/ops.h"

namespace panrt::cuda {
namespace {

PanrtStatus exported(Status const& status) noexcept {
  return {static_cast<int>(status.code), status.cuda_error, status.message};
}

template <typename Args>
PanrtStatus call(Status (*launch)(Args const&, cudaStream_t) noexcept, void const* args, std::size_t args_bytes,
                 void* stream) noexcept {
  if (args == nullptr || args_bytes != sizeof(Args)) {
    return exported(
        invalid("the caller's argument struct is not this library's; use the headers or bindings that came with it"));
  }
  return exported(launch(*static_cast<Args const*>(args), static_cast<cudaStream_t>(stream)));
}

template <typename Args>
std::size_t bytes_of(std::size_t (*workspace_bytes)(Args const&) noexcept, void const* args,
                     std::size_t args_bytes) noexcept {
  return args == nullptr || args_bytes != sizeof(Args) ? 0 : workspace_bytes(*static_cast<Args const*>(args));
}

}  // namespace
}  // namespace panrt::cuda

PanrtStatus panrt_cuda_prepare() { return panrt::cuda::exported(panrt::cuda::prepare()); }

#define PANRT_LAUNCH(Name, function)                                                          \
  PanrtStatus panrt_cuda_##function(void const* args, std::size_t args_bytes, void* stream) { \
    return panrt::cuda::call(panrt::cuda::launch_##function, args, args_bytes, stream);       \
  }
#define PANRT_WORKSPACE(Name, function)                                                           \
  std::size_t panrt_cuda_##function##_workspace_bytes(void const* args, std::size_t args_bytes) { \
    return panrt::cuda::bytes_of(panrt::cuda::function##_workspace_bytes, args, args_bytes);      \
  }
PANRT_FOR_EACH_OP(PANRT_LAUNCH)
PANRT_FOR_EACH_WORKSPACE(PANRT_WORKSPACE)

PanrtStatus panrt_cuda_preprocess(void const* args, std::size_t args_bytes, void* stream) {
  return panrt::cuda::call(panrt::cuda::launch_preprocess, args, args_bytes, stream);
}

PanrtStatus panrt_cuda_overlay(void const* args, std::size_t args_bytes, void* stream) {
  return panrt::cuda::call(panrt::cuda::launch_overlay, args, args_bytes, stream);
}

PanrtStatus panrt_cuda_narrow_map(void const* args, std::size_t args_bytes, void* stream) {
  return panrt::cuda::call(panrt::cuda::launch_narrow_map, args, args_bytes, stream);
}
