// The kernels behind a plain C interface, for the runtime and for tests: arguments and a stream in, a status out.
//
// Arguments are the structs of include/panrt/cuda/*.h; plugins/cuda_api.py mirrors them for ctypes. Their size is
// passed too, so that a caller whose struct is older or newer is rejected.
#pragma once

#include <cstddef>

#include "panrt/cuda/status.h"

#if defined(_WIN32)
#define PANRT_EXPORT extern "C" __declspec(dllexport)
#else
#define PANRT_EXPORT extern "C" __attribute__((visibility("default")))
#endif

// Standard-layout copy of panrt::cuda::Status, returned by value.
struct PanrtStatus {
  int code;
  int cuda_error;
  char const* message;
};

// What is done once before the first capture; panrt/cuda/prepare.h.
PANRT_EXPORT PanrtStatus panrt_cuda_prepare();

// An op `x` exports
//   PanrtStatus panrt_cuda_x(XArgs const* args, size_t args_bytes, cudaStream_t stream);
//   size_t panrt_cuda_x_workspace_bytes(XArgs const* args, size_t args_bytes);    if it needs a workspace
PANRT_EXPORT PanrtStatus panrt_cuda_pyramid_roi_align(void const* args, std::size_t args_bytes, void* stream);
PANRT_EXPORT PanrtStatus panrt_cuda_rpn_proposals(void const* args, std::size_t args_bytes, void* stream);
PANRT_EXPORT std::size_t panrt_cuda_rpn_proposals_workspace_bytes(void const* args, std::size_t args_bytes);
PANRT_EXPORT PanrtStatus panrt_cuda_box_detections(void const* args, std::size_t args_bytes, void* stream);
PANRT_EXPORT std::size_t panrt_cuda_box_detections_workspace_bytes(void const* args, std::size_t args_bytes);
PANRT_EXPORT PanrtStatus panrt_cuda_panoptic_merge(void const* args, std::size_t args_bytes, void* stream);
PANRT_EXPORT std::size_t panrt_cuda_panoptic_merge_workspace_bytes(void const* args, std::size_t args_bytes);
PANRT_EXPORT PanrtStatus panrt_cuda_preprocess(void const* args, std::size_t args_bytes, void* stream);
PANRT_EXPORT PanrtStatus panrt_cuda_overlay(void const* args, std::size_t args_bytes, void* stream);
PANRT_EXPORT PanrtStatus panrt_cuda_narrow_map(void const* args, std::size_t args_bytes, void* stream);
