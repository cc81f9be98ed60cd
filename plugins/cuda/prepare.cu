#include <atomic>
#include <cstdint>

#include "launch.h"
#include "panrt/arithmetic.h"
#include "panrt/cuda/narrow_map.h"
#include "panrt/cuda/overlay.h"
#include "panrt/cuda/prepare.h"
#include "panrt/cuda/preprocess.h"
#include "panrt/limits.h"
#include "panrt/ops.h"
#include "prepare.h"

namespace panrt::cuda {
namespace {

// One thread; bound by the latency of one launch.
__global__ __launch_bounds__(32) void find_arithmetic_faults(ArithmeticProbe const probe, std::uint32_t* faults) {
  if (threadIdx.x == 0) *faults = arithmetic_faults(probe);
}

Status failed(cudaError_t error) {
  (void)cudaGetLastError();  // or the next launch would be taken for what failed
  if (error == cudaErrorNoKernelImageForDevice) {
    return {Code::kLaunchFailed, static_cast<std::int32_t>(error),
            "the plugin library has no code for this GPU; build it on this machine (panrt plugins build)"};
  }
  return {Code::kLaunchFailed, static_cast<std::int32_t>(error), cudaGetErrorString(error)};
}

// What the current device's code does wrong, by a launch on a stream of its own.
Status find_faults_on_device(std::uint32_t& faults) noexcept {
  std::uint32_t* found = nullptr;
  cudaStream_t stream = nullptr;
  Status status;
  cudaFuncAttributes attributes;
  cudaError_t error = cudaFuncGetAttributes(&attributes, reinterpret_cast<void const*>(find_arithmetic_faults));
  if (error == cudaSuccess) error = cudaMalloc(reinterpret_cast<void**>(&found), sizeof *found);
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error == cudaSuccess) {
    status = launch(find_arithmetic_faults, {dim3(1), dim3(32)}, stream, ArithmeticProbe{}, found);
    if (status.ok()) error = cudaMemcpyAsync(&faults, found, sizeof faults, cudaMemcpyDeviceToHost, stream);
    cudaError_t const waited = cudaStreamSynchronize(stream);
    if (error == cudaSuccess) error = waited;
    (void)cudaStreamDestroy(stream);
  }
  (void)cudaFree(found);
  return error == cudaSuccess ? status : failed(error);
}

Status check_device_arithmetic() noexcept {
  constexpr int kMostDevices = 64;
  static std::atomic<bool> sound[kMostDevices];  // the same code runs on it from then on
  int device = 0;
  cudaError_t const error = cudaGetDevice(&device);
  if (error != cudaSuccess) return failed(error);
  if (device < kMostDevices && sound[device]) return {};
  std::uint32_t faults = 0;
  Status const status = find_faults_on_device(faults);
  if (!status.ok()) return status;
  if (char const* const fault = fault_text(faults)) return unsupported(fault);
  if (device < kMostDevices) sound[device] = true;
  return {};
}

}  // namespace

char const* host_arithmetic_fault() noexcept { return fault_text(host_arithmetic_faults()); }

Preparation::Preparation() noexcept {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    (void)cudaGetLastError();
    return;
  }
  // Another thread may be capturing: what this one does is not part of that.
  (void)cudaThreadExchangeStreamCaptureMode(&mode_);
  status_ = check_device_arithmetic();
  ready_ = status_.ok();
}

Preparation::~Preparation() {
  if (mode_ != cudaStreamCaptureModeRelaxed) (void)cudaThreadExchangeStreamCaptureMode(&mode_);
}

bool Preparation::load(void const* kernel) noexcept {
  cudaFuncAttributes attributes;
  cudaError_t const error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) status_ = failed(error);
  return error == cudaSuccess;
}

Status prepare() noexcept {
  if (char const* const fault = host_arithmetic_fault()) return unsupported(fault);
  using Prepare = Status (*)() noexcept;
#define PANRT_PREPARE(Name, function) prepare_##function,
  constexpr Prepare kAll[] = {PANRT_FOR_EACH_OP(PANRT_PREPARE) prepare_preprocess, prepare_overlay, prepare_narrow_map};
  for (Prepare const each : kAll) {
    Status const status = each();
    if (!status.ok()) return status;
  }
  return {};
}

}  // namespace panrt::cuda
