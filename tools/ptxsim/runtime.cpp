// The CUDA runtime's entry points, for code that nvcc compiled with -cudart none: PTX is read from the fat binaries
// that such code registers, a launch is executed on the spot, streams and events are all in order already.

#include <cuda_runtime_api.h>

#include <cstring>
#include <unordered_map>
#include <utility>

#include "device.h"

#define PTXSIM_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using ptxsim::Device;
using ptxsim::LoadedModule;
using ptxsim::Outcome;

// What __cudaRegisterFatBinary is given, and what that points to: a header and entries, each with a header of its own.
struct FatBinaryWrapper {
  std::uint32_t magic, version;
  std::uint8_t const* data;
  void const* unused;
};
struct FatBinaryHeader {
  std::uint32_t magic;
  std::uint16_t version, header_bytes;
  std::uint64_t bytes;  // of all entries
};
struct FatBinaryEntry {
  std::uint16_t kind, attributes;
  std::uint32_t header_bytes;
  std::uint64_t bytes;
};
constexpr std::uint32_t kWrapperMagic = 0x466243B1, kHeaderMagic = 0xBA55ED50;
constexpr std::uint16_t kPtx = 1;

struct FatBinary {
  std::string ptx, error;
  LoadedModule* module = nullptr;  // once a kernel of it is launched
};
struct Registered {
  FatBinary* binary;
  std::string name;
};

struct Runtime {
  std::unordered_map<void const*, Registered> kernels;  // by the host's function
  std::vector<std::unique_ptr<FatBinary>> binaries;
  cudaError_t error = cudaSuccess;
  struct {
    dim3 grid, block;
    std::size_t shared = 0;
    cudaStream_t stream = nullptr;
  } configuration;
};
Runtime& runtime() {
  static Runtime runtime;
  return runtime;
}

cudaError_t noted(cudaError_t error) {
  if (error != cudaSuccess) runtime().error = error;
  return error;
}

std::string ptx_of(FatBinaryWrapper const& wrapper) {
  if (wrapper.magic != kWrapperMagic) throw ptxsim::Fault("a fat binary of an unknown form");
  FatBinaryHeader header;
  std::memcpy(&header, wrapper.data, sizeof(header));
  if (header.magic != kHeaderMagic) throw ptxsim::Fault("a fat binary of an unknown form");
  std::uint8_t const* at = wrapper.data + header.header_bytes;
  for (std::uint8_t const* const end = at + header.bytes; at < end;) {
    FatBinaryEntry entry;
    std::memcpy(&entry, at, sizeof(entry));
    at += entry.header_bytes;
    std::string const text(reinterpret_cast<char const*>(at), entry.bytes);
    if (entry.kind == kPtx && text.find(".version") != std::string::npos) return text.substr(0, text.find('\0'));
    at += entry.bytes;
  }
  throw ptxsim::Fault("a fat binary without readable PTX; compile for code=compute_XX with --no-compress");
}

// Decodes what is not decoded yet.
cudaError_t find(void const* function, ptxsim::Program*& program) {
  auto const found = runtime().kernels.find(function);
  if (found == runtime().kernels.end()) return noted(cudaErrorInvalidDeviceFunction);
  FatBinary& binary = *found->second.binary;
  try {
    if (!binary.error.empty()) throw ptxsim::Fault(binary.error);
    if (binary.module == nullptr) binary.module = &Device::get().load(binary.ptx);
    program = binary.module->find(found->second.name);
  } catch (ptxsim::Fault const& fault) {
    Device::get().report = fault.what();
    return noted(cudaErrorInvalidPtx);
  }
  return program != nullptr ? cudaSuccess : noted(cudaErrorInvalidDeviceFunction);
}

cudaError_t launch(void const* function, dim3 grid, dim3 block, void** arguments, std::size_t shared) {
  ptxsim::Program* program = nullptr;
  cudaError_t const error = find(function, program);
  if (error != cudaSuccess) return error;
  ptxsim::Launch const shape{{grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared};
  switch (Device::get().launch(*program, shape, arguments)) {
    case Outcome::kOk:
      return cudaSuccess;
    case Outcome::kBadShape:
      return noted(cudaErrorInvalidConfiguration);
    default:
      return noted(cudaErrorLaunchFailure);
  }
}

bool is_device(void const* pointer, std::size_t bytes) {
  return Device::get().memory.find(reinterpret_cast<std::uintptr_t>(pointer), bytes) != nullptr;
}

}  // namespace

// --- What nvcc's own host code calls ---------------------------------------------------------------------------------

PTXSIM_EXPORT void** __cudaRegisterFatBinary(void* wrapper) {
  auto binary = std::make_unique<FatBinary>();
  try {
    binary->ptx = ptx_of(*static_cast<FatBinaryWrapper const*>(wrapper));
  } catch (ptxsim::Fault const& fault) {
    binary->error = fault.what();  // reported when a kernel of it is launched
  }
  runtime().binaries.push_back(std::move(binary));
  return reinterpret_cast<void**>(runtime().binaries.back().get());
}
PTXSIM_EXPORT void __cudaRegisterFatBinaryEnd(void**) {}
PTXSIM_EXPORT void __cudaUnregisterFatBinary(void**) {}
PTXSIM_EXPORT void __cudaRegisterFunction(void** binary, char const* host, char*, char const* name, int, uint3*, uint3*,
                                          dim3*, dim3*, int*) {
  runtime().kernels[host] = {reinterpret_cast<FatBinary*>(binary), name};
}
PTXSIM_EXPORT cudaError_t __cudaGetKernel(cudaKernel_t* kernel, void const* function) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}
PTXSIM_EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, std::size_t shared, cudaStream_t stream) {
  runtime().configuration = {grid, block, shared, stream};
  return 0;
}
PTXSIM_EXPORT cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, std::size_t* shared, void* stream) {
  *grid = runtime().configuration.grid;
  *block = runtime().configuration.block;
  *shared = runtime().configuration.shared;
  std::memcpy(stream, &runtime().configuration.stream, sizeof(cudaStream_t));
  return cudaSuccess;
}
PTXSIM_EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                                             std::size_t shared, cudaStream_t) {
  return launch(kernel, grid, block, arguments, shared);
}
PTXSIM_EXPORT cudaError_t cudaLaunchKernel(void const* function, dim3 grid, dim3 block, void** arguments,
                                           std::size_t shared, cudaStream_t) {
  return launch(function, grid, block, arguments, shared);
}

// --- What the kernels' host code calls -------------------------------------------------------------------------------

PTXSIM_EXPORT cudaError_t cudaGetLastError() {
  cudaError_t const error = runtime().error;
  runtime().error = cudaSuccess;
  return error;
}
PTXSIM_EXPORT cudaError_t cudaPeekAtLastError() { return runtime().error; }
PTXSIM_EXPORT char const* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDeviceFunction:
      return "invalid device function";
    case cudaErrorInvalidPtx:
      return "a PTX JIT compilation failed";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    default:
      return "an error of CUDA";
  }
}
PTXSIM_EXPORT cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  *pointer = Device::get().memory.allocate(bytes);
  return *pointer != nullptr ? cudaSuccess : noted(cudaErrorMemoryAllocation);
}
PTXSIM_EXPORT cudaError_t cudaFree(void* pointer) {
  return Device::get().memory.release(pointer) ? cudaSuccess : noted(cudaErrorInvalidValue);
}
PTXSIM_EXPORT cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t) {
  if (!is_device(pointer, bytes)) return noted(cudaErrorInvalidValue);
  std::memset(pointer, value, bytes);
  return cudaSuccess;
}
PTXSIM_EXPORT cudaError_t cudaMemset(void* pointer, int value, std::size_t bytes) {
  return cudaMemsetAsync(pointer, value, bytes, nullptr);
}
PTXSIM_EXPORT cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind,
                                          cudaStream_t) {
  bool const to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  bool const from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if ((to_device && !is_device(to, bytes)) || (from_device && !is_device(from, bytes)))
    return noted(cudaErrorInvalidValue);
  std::memmove(to, from, bytes);
  return cudaSuccess;
}
PTXSIM_EXPORT cudaError_t cudaMemcpy(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
PTXSIM_EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t) { return runtime().error; }
PTXSIM_EXPORT cudaError_t cudaDeviceSynchronize() { return runtime().error; }

// One device, whose streams are all in order and which is never captured.
PTXSIM_EXPORT cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
PTXSIM_EXPORT cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
PTXSIM_EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  return cudaSuccess;
}
PTXSIM_EXPORT cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
PTXSIM_EXPORT cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  static thread_local cudaStreamCaptureMode current = cudaStreamCaptureModeGlobal;
  std::swap(*mode, current);
  return cudaSuccess;
}
PTXSIM_EXPORT cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void const* function) {
  ptxsim::Program* program = nullptr;
  cudaError_t const error = find(function, program);
  if (error != cudaSuccess) return error;
  *attributes = {};
  attributes->maxThreadsPerBlock = static_cast<int>(program->kernel.most_threads);
  attributes->sharedSizeBytes = program->shared_size;
  attributes->localSizeBytes = program->local_size;
  return cudaSuccess;
}
