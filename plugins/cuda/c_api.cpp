#include "c_api.h"

#include "layout.h"
#include "panrt/cuda/box_detections.h"
#include "panrt/cuda/narrow_map.h"
#include "panrt/cuda/overlay.h"
#include "panrt/cuda/panoptic_merge.h"
#include "panrt/cuda/prepare.h"
#include "panrt/cuda/preprocess.h"
#include "panrt/cuda/pyramid_roi_align.h"
#include "panrt/cuda/rpn_proposals.h"

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

PanrtStatus panrt_cuda_pyramid_roi_align(void const* args, std::size_t args_bytes, void* stream) {
  return panrt::cuda::call(panrt::cuda::launch_pyramid_roi_align, args, args_bytes, stream);
}

PanrtStatus panrt_cuda_rpn_proposals(void const* args, std::size_t args_bytes, void* stream) {
  return panrt::cuda::call(panrt::cuda::launch_rpn_proposals, args, args_bytes, stream);
}
std::size_t panrt_cuda_rpn_proposals_workspace_bytes(void const* args, std::size_t args_bytes) {
  return panrt::cuda::bytes_of(panrt::cuda::rpn_proposals_workspace_bytes, args, args_bytes);
}

PanrtStatus panrt_cuda_box_detections(void const* args, std::size_t args_bytes, void* stream) {
  return panrt::cuda::call(panrt::cuda::launch_box_detections, args, args_bytes, stream);
}
std::size_t panrt_cuda_box_detections_workspace_bytes(void const* args, std::size_t args_bytes) {
  return panrt::cuda::bytes_of(panrt::cuda::box_detections_workspace_bytes, args, args_bytes);
}

PanrtStatus panrt_cuda_panoptic_merge(void const* args, std::size_t args_bytes, void* stream) {
  return panrt::cuda::call(panrt::cuda::launch_panoptic_merge, args, args_bytes, stream);
}
std::size_t panrt_cuda_panoptic_merge_workspace_bytes(void const* args, std::size_t args_bytes) {
  return panrt::cuda::bytes_of(panrt::cuda::panoptic_merge_workspace_bytes, args, args_bytes);
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
