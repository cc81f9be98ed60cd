// The kernels behind a plain C interface, for the runtime and for tests: arguments and a stream in, a status out.
//
// Arguments are the structs of panrt/ops.h and include/panrt/cuda/*.h; plugins/cuda_api.py has them for ctypes. Their
// size is passed too, so that a caller whose struct is older or newer is rejected.
#pragma once

#include <cstddef>

#include "panrt/cuda/status.h"
#include "panrt/ops.h"

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
#define PANRT_DECLARE(Name, function) \
  PANRT_EXPORT PanrtStatus panrt_cuda_##function(void const* args, std::size_t args_bytes, void* stream);
#define PANRT_DECLARE_WORKSPACE(Name, function) \
  PANRT_EXPORT std::size_t panrt_cuda_##function##_workspace_bytes(void const* args, std::size_t args_bytes);
PANRT_FOR_EACH_OP(PANRT_DECLARE)
PANRT_FOR_EACH_WORKSPACE(PANRT_DECLARE_WORKSPACE)
#undef PANRT_DECLARE
#undef PANRT_DECLARE_WORKSPACE

// Around the network:
PANRT_EXPORT PanrtStatus panrt_cuda_preprocess(void const* args, std::size_t args_bytes, void* stream);
PANRT_EXPORT PanrtStatus panrt_cuda_overlay(void const* args, std::size_t args_bytes, void* stream);
PANRT_EXPORT PanrtStatus panrt_cuda_narrow_map(void const* args, std::size_t args_bytes, void* stream);
