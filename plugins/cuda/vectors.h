// Elements to and from float, one at a time or 16 bytes at a time: a vector is one memory request.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace panrt::cuda {

__device__ __forceinline__ float as_float(float value) { return value; }
__device__ __forceinline__ float as_float(__half value) { return __half2float(value); }

__device__ __forceinline__ void load_vector(float const* from, float (&to)[1]) { to[0] = __ldg(from); }
__device__ __forceinline__ void load_vector(__half const* from, float (&to)[1]) { to[0] = __half2float(__ldg(from)); }

__device__ __forceinline__ void load_vector(float const* from, float (&to)[4]) {
  float4 const raw = __ldg(reinterpret_cast<float4 const*>(from));
  to[0] = raw.x, to[1] = raw.y, to[2] = raw.z, to[3] = raw.w;
}

__device__ __forceinline__ void load_vector(__half const* from, float (&to)[8]) {
  union {
    uint4 raw;
    __half2 pairs[4];
  };
  raw = __ldg(reinterpret_cast<uint4 const*>(from));
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float2 const pair = __half22float2(pairs[i]);
    to[2 * i] = pair.x, to[2 * i + 1] = pair.y;
  }
}

__device__ __forceinline__ void store_vector(float const (&from)[1], float* to) { *to = from[0]; }
__device__ __forceinline__ void store_vector(float const (&from)[1], __half* to) { *to = __float2half_rn(from[0]); }

__device__ __forceinline__ void store_vector(float const (&from)[4], float* to) {
  __stwb(reinterpret_cast<float4*>(to), make_float4(from[0], from[1], from[2], from[3]));
}

__device__ __forceinline__ void store_vector(float const (&from)[8], __half* to) {
  union {
    uint4 raw;
    __half2 pairs[4];
  };
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = __floats2half2_rn(from[2 * i], from[2 * i + 1]);
  __stwb(reinterpret_cast<uint4*>(to), raw);
}

}  // namespace panrt::cuda
