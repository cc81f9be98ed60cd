// The functions of CUDA's runtime, and those with which a host controls the simulation.
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "simulation.h"

namespace hc {
namespace {

constexpr unsigned char kDeviceGarbage = 0xCD;

struct Copy {
  void* to;
  void const* from;  // null: fill with value
  std::size_t bytes;
  int value;
};

int run_copy(void* work) {
  if (work == nullptr) return cudaSuccess;  // it was left by a jump, and held nothing
  Copy const& copy = *static_cast<Copy*>(work);
  if (copy.from == nullptr) {
    std::memset(copy.to, copy.value, copy.bytes);
  } else {
    std::memmove(copy.to, copy.from, copy.bytes);
  }
  return cudaSuccess;
}
void destroy_copy(void* work) { delete static_cast<Copy*>(work); }

}  // namespace

int buffer_of(std::uintptr_t address) {
  auto const& buffers = simulation().buffers;
  auto next = buffers.upper_bound(address);
  if (next == buffers.begin()) return -1;
  auto const& [begin, range] = *--next;
  return address < range.first ? range.second : -1;
}

}  // namespace hc

// --- CUDA's runtime -------------------------------------------------------------------------------------------------

cudaError_t cudaGetLastError() { return std::exchange(hc::simulation().error, cudaSuccess); }

char const* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorNoKernelImageForDevice:
      return "no kernel image is available for execution on the device";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
  }
  return "unrecognized error code";
}

cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (bytes > 0 && (to == nullptr || from == nullptr)) return hc::simulation().error = cudaErrorInvalidValue;
  hc::enqueue(stream, hc::run_copy, hc::destroy_copy, new hc::Copy{to, from, bytes, 0});
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  if (bytes > 0 && memory == nullptr) return hc::simulation().error = cudaErrorInvalidValue;
  hc::enqueue(stream, hc::run_copy, hc::destroy_copy, new hc::Copy{memory, nullptr, bytes, value});
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = hc::simulation().devices;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  *memory = hc_malloc(bytes);
  return *memory != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void* memory) {
  hc_free(memory);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = hc::own_stream();
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(hc::simulation().capture_mode, *mode);
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void const* kernel) {
  hc::simulation().loaded.insert(kernel);
  *attributes = {static_cast<int>(hc::kMaxThreads)};
  return cudaSuccess;
}

bool hc_set_order(char const* order, unsigned seed) { return hc::set_order(order, seed); }

char const* hc_report() {
  static std::string last;
  last = std::exchange(hc::simulation().report, std::string());
  return last.c_str();
}

long long hc_launches() { return hc::simulation().launches; }

void hc_set_stream_hook(void (*enqueue)(cudaStream_t, int (*)(void*), void (*)(void*), void*)) {
  hc::simulation().enqueue = enqueue;
}

int hc_require_loaded(int required) {
  hc::simulation().must_be_loaded = required != 0;
  return 0;
}

int hc_loaded(int* kernels, int* capture_mode) {
  *kernels = static_cast<int>(hc::simulation().loaded.size());
  *capture_mode = hc::simulation().capture_mode;
  return 0;
}

int hc_set_devices(int count) {
  hc::simulation().devices = count;
  return 0;
}

void hc_set_load_hook(int (*refuses)(cudaStream_t)) {
  hc::simulation().refuses_load = refuses;
  hc::simulation().loaded.clear();
}

void* hc_malloc(std::size_t bytes) {
  hc::Simulation& s = hc::simulation();
  void* memory = nullptr;
  constexpr std::size_t kAlignment = 256;  // of cudaMalloc
  if (posix_memalign(&memory, kAlignment, bytes == 0 ? 1 : bytes) != 0) return nullptr;
  std::memset(memory, hc::kDeviceGarbage, bytes);
  auto const begin = reinterpret_cast<std::uintptr_t>(memory);
  s.buffers[begin] = {begin + bytes, s.buffers_made++};
  return memory;
}

void hc_free(void* memory) {
  hc::Simulation& s = hc::simulation();
  s.buffers.erase(reinterpret_cast<std::uintptr_t>(memory));
  if (s.buffers.empty()) s.buffers_made = 0;
  std::free(memory);
}
