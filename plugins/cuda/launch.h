// What every kernel file includes: how to launch, and how a kernel file is written so that it compiles twice.
//
//   nvcc     for the GPU: <cuda_runtime.h> is the toolkit's.
//   g++      for the CPU: tools/hostcuda/include comes first on the include path, and its <cuda_runtime.h> runs each
//            CUDA thread as a fiber. The source is the same, compiled with -x c++; __CUDACC__ is not defined.
//
// The rules for a kernel file that follow from this:
//   * Kernels live in an anonymous namespace, templates too: AddressSanitizer overlooks shared arrays of others.
//   * A launch is launch(kernel, shape, stream, arguments...), never <<<>>>.
//   * Dynamic shared memory is dynamic_shared<T>(), never extern __shared__.
//   * One __syncthreads() a source line: a line is a barrier's identity in the simulation.
//   * Threads that leave early never meet a barrier that others wait at; a warp operation names its lanes.
//   * __launch_bounds__ on every kernel; grid-stride loops; 64-bit offsets into tensors.
//   * Nothing allocates, synchronises or reads on the host: launches are captured into CUDA graphs.
//   * Blocks of one launch hand over to each other by hand_over.h alone.
//
// Naming: op `x` has include/panrt/cuda/x.h with `struct XArgs` (pointers, sizes, attributes), if it needs one
// `std::size_t x_workspace_bytes(XArgs const&) noexcept`, `Status prepare_x() noexcept`, which names every kernel, and
// `Status launch_x(XArgs const&, cudaStream_t) noexcept`, which checks all that decides how long it takes (checks.h);
// x.cu implements them, c_api.cpp exports them, plugins/cuda_api.py mirrors the struct and layout.h asserts its layout.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "panrt/cuda/status.h"

namespace panrt::cuda {

struct LaunchShape {
  dim3 grid, block;
  std::size_t shared_bytes = 0;  // dynamic; at most kMaxSharedBytes
};

// The shared memory that every architecture gives a block by default.
constexpr std::size_t kMaxSharedBytes = 48 * 1024;

// Launches, and returns CUDA's error if it did not take the launch. An unread error of an earlier launch shows here.
template <typename... Parameters, typename... Arguments>
Status launch(void (*kernel)(Parameters...), LaunchShape const& shape, cudaStream_t stream,
              Arguments const&... arguments) noexcept {
#ifdef __CUDACC__
  kernel<<<shape.grid, shape.block, shape.shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
#else
  hc::launch(kernel, shape.grid, shape.block, shape.shared_bytes, stream, static_cast<Parameters>(arguments)...);
#endif
  cudaError_t const error = cudaGetLastError();
  if (error == cudaSuccess) return {};
  return {Code::kLaunchFailed, static_cast<std::int32_t>(error), cudaGetErrorString(error)};
}

// Blocks for a grid-stride loop over `items`: one each as far as `most` goes.
constexpr unsigned blocks_for(std::int64_t items, std::int64_t items_per_block, unsigned most = 65535) noexcept {
  std::int64_t const blocks = (items + items_per_block - 1) / items_per_block;
  return blocks < static_cast<std::int64_t>(most) ? static_cast<unsigned>(blocks) : most;
}

// The block's dynamic shared memory from its first byte, aligned to 16.
template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ uint4 panrt_dynamic_shared[];
  return reinterpret_cast<T*>(panrt_dynamic_shared);
#else
  return static_cast<T*>(hc::dynamic_shared());
#endif
}

}  // namespace panrt::cuda
