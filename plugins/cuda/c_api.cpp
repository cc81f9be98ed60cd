#include "c_api.h"

#include "panrt/cuda/narrow_map.h"
#include "panrt/cuda/overlay.h"
#include "panrt/cuda/preprocess.h"
#include "panrt/cuda/pyramid_roi_align.h"

namespace panrt::cuda {
namespace {

template <typename Args>
PanrtStatus call(Status (*launch)(Args const&, cudaStream_t) noexcept, void const* args, std::size_t args_bytes,
                 void* stream) noexcept {
  Status status;
  if (args == nullptr || args_bytes != sizeof(Args)) {
    status =
        invalid("the caller's argument struct is not this library's; use the headers or bindings that came with it");
  } else {
    status = launch(*static_cast<Args const*>(args), static_cast<cudaStream_t>(stream));
  }
  return {static_cast<int>(status.code), status.cuda_error, status.message};
}

}  // namespace
}  // namespace panrt::cuda

PanrtStatus panrt_cuda_pyramid_roi_align(void const* args, std::size_t args_bytes, void* stream) {
  return panrt::cuda::call(panrt::cuda::launch_pyramid_roi_align, args, args_bytes, stream);
}

PanrtStatus panrt_cuda_preprocess(void const* args, std::size_t args_bytes, void* stream) {
  return panrt::cuda::call(panrt::cuda::launch_preprocess, args, args_bytes, stream);
}

PanrtStatus panrt_cuda_overlay(void const* args, std::size_t args_bytes, void* stream) {
  return panrt::cuda::call(panrt::cuda::launch_overlay, args, args_bytes, stream);
}

PanrtStatus panrt_cuda_narrow_map(void const* args, std::size_t args_bytes, void* stream) {
  return panrt::cuda::call(panrt::cuda::launch_narrow_map, args, args_bytes, stream);
}
