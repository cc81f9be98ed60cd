// Copies and fills.

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "driver.h"

namespace simcuda {

namespace {

bool is_device_address(std::uint64_t address) { return holding(driver().device_memory, address, 1) != nullptr; }

// A copy as work. Each end is checked when it runs, which is when a GPU would fault.
Work copy_work(char const* name, std::uint64_t to, std::uint64_t from, std::size_t bytes, bool to_device,
               bool from_device) {
  return [=] {
    {
      Lock const lock(driver().mutex);
      CUresult const result = to_device ? check_device(name, to, bytes) : check_host(name, to, bytes);
      CUresult const other = from_device ? check_device(name, from, bytes) : check_host(name, from, bytes);
      if (result != CUDA_SUCCESS || other != CUDA_SUCCESS) return CUDA_ERROR_ILLEGAL_ADDRESS;
      spend_copy(to, from, bytes);
    }
    std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<void const*>(from), bytes);
    return CUDA_SUCCESS;
  };
}

CUresult copy(Call& call, char const* name, std::uint64_t to, std::uint64_t from, std::size_t bytes, bool to_device,
              bool from_device, Stream* stream, bool waits) {
  auto& d = driver();
  if (to_device && !holding(d.device_memory, to, bytes) && !holding(d.host_memory, to, bytes))
    return call.misuse(std::string(name) + ": the destination " + hex(to) + " + " + std::to_string(bytes) +
                           " is not allocated on the device",
                       CUDA_ERROR_INVALID_VALUE);
  if (from_device && !holding(d.device_memory, from, bytes) && !holding(d.host_memory, from, bytes))
    return call.misuse(std::string(name) + ": the source " + hex(from) + " + " + std::to_string(bytes) +
                           " is not allocated on the device",
                       CUDA_ERROR_INVALID_VALUE);
  auto work = copy_work(name, to, from, bytes, to_device, from_device);
  if (waits) return enqueue_and_wait(call, stream, name, std::move(work));
  bool const is_pageable =
      (!to_device && !holding(d.host_memory, to, bytes)) || (!from_device && !holding(d.host_memory, from, bytes));
  if (!is_pageable) return enqueue(call, stream, name, std::move(work));
  d.log.back() += "!pageable";  // the driver goes through memory of its own, and makes the caller wait
  return enqueue_and_wait(call, stream, name, std::move(work));
}

}  // namespace

#define COPY(NAME, FUNCTION, TO_TYPE, FROM_TYPE, TO_DEVICE, FROM_DEVICE)                                           \
  CUresult FUNCTION(TO_TYPE to, FROM_TYPE from, std::size_t bytes) {                                               \
    ENTER(NAME, kContext | kSafe);                                                                                 \
    return copy(call, NAME, (std::uint64_t)to, (std::uint64_t)from, bytes, TO_DEVICE, FROM_DEVICE,                 \
                default_stream(current_context()), true);                                                          \
  }                                                                                                                \
  CUresult FUNCTION##_async(TO_TYPE to, FROM_TYPE from, std::size_t bytes, CUstream handle) {                      \
    ENTER(NAME "Async", kContext);                                                                                 \
    CUresult error = CUDA_SUCCESS;                                                                                 \
    auto* const stream = stream_of(call, handle, NAME "Async", &error);                                            \
    if (stream == nullptr) return error;                                                                           \
    return copy(call, NAME "Async", (std::uint64_t)to, (std::uint64_t)from, bytes, TO_DEVICE, FROM_DEVICE, stream, \
                false);                                                                                            \
  }
COPY("cuMemcpyHtoD", memcpy_htod, CUdeviceptr, void const*, true, false)
COPY("cuMemcpyDtoH", memcpy_dtoh, void*, CUdeviceptr, false, true)
COPY("cuMemcpyDtoD", memcpy_dtod, CUdeviceptr, CUdeviceptr, true, true)
COPY("cuMemcpy", memcpy_any, CUdeviceptr, CUdeviceptr, is_device_address(to), is_device_address(from))
#undef COPY

CUresult memcpy_2d_async(CUDA_MEMCPY2D const* copy_of, CUstream handle) {
  ENTER("cuMemcpy2DAsync", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuMemcpy2DAsync", &error);
  if (stream == nullptr) return error;
  auto const& c = *copy_of;
  bool const from_device = c.srcMemoryType != CU_MEMORYTYPE_HOST, to_device = c.dstMemoryType != CU_MEMORYTYPE_HOST;
  auto const from = (from_device ? c.srcDevice : (std::uint64_t)c.srcHost) + c.srcY * c.srcPitch + c.srcXInBytes;
  auto const to = (to_device ? c.dstDevice : (std::uint64_t)c.dstHost) + c.dstY * c.dstPitch + c.dstXInBytes;
  std::vector<Work> rows;
  for (std::size_t row = 0; row < c.Height; ++row)
    rows.push_back(copy_work("cuMemcpy2DAsync", to + row * c.dstPitch, from + row * c.srcPitch, c.WidthInBytes,
                             to_device, from_device));
  Work work = [rows] {
    for (auto const& row : rows)
      if (CUresult const result = row(); result != CUDA_SUCCESS) return result;
    return CUDA_SUCCESS;
  };
  bool const is_pageable = (!from_device && !holding(driver().host_memory, from, c.WidthInBytes)) ||
                           (!to_device && !holding(driver().host_memory, to, c.WidthInBytes));
  if (!is_pageable) return enqueue(call, stream, "cuMemcpy2DAsync", std::move(work));
  driver().log.back() += "!pageable";
  return enqueue_and_wait(call, stream, "cuMemcpy2DAsync", std::move(work));
}

namespace {

template <typename T>
CUresult fill_async(char const* name, CUdeviceptr to, T value, std::size_t count, CUstream handle, bool waits) {
  ENTER(name, waits ? kContext | kSafe : kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, name, &error);
  if (stream == nullptr) return error;
  Work work = [=] {
    {
      Lock const lock(driver().mutex);
      if (CUresult const result = check_device(name, to, count * sizeof(T)); result != CUDA_SUCCESS) return result;
      spend_fill(count * sizeof(T));
    }
    for (std::size_t i = 0; i < count; ++i) reinterpret_cast<T*>(to)[i] = value;
    return CUDA_SUCCESS;
  };
  return waits ? enqueue_and_wait(call, stream, name, std::move(work)) : enqueue(call, stream, name, std::move(work));
}

}  // namespace

CUresult memset_d8(CUdeviceptr to, unsigned char value, std::size_t count) {
  return fill_async("cuMemsetD8", to, value, count, nullptr, true);
}
CUresult memset_d8_async(CUdeviceptr to, unsigned char value, std::size_t count, CUstream stream) {
  return fill_async("cuMemsetD8Async", to, value, count, stream, false);
}
CUresult memset_d32_async(CUdeviceptr to, unsigned value, std::size_t count, CUstream stream) {
  return fill_async("cuMemsetD32Async", to, value, count, stream, false);
}

}  // namespace simcuda
