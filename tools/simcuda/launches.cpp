// Modules, kernels and launches.

#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "driver.h"

namespace simcuda {
namespace {

// What CUDA_MODULE_LOADING says, else what the device does by itself.
bool loads_lazily() {
  char const* const mode = std::getenv("CUDA_MODULE_LOADING");
  if (mode != nullptr && std::strcmp(mode, "EAGER") == 0) return false;
  if (mode != nullptr && std::strcmp(mode, "LAZY") == 0) return true;
  return driver().facts.loads_lazily;
}

}  // namespace

// A kernel is loaded with its module where loading is eager. Else cuModuleGetFunction loads it, or whatever needs it
// first; a capture may forbid that, which then invalidates it.
CUresult load_kernel(bool& is_loaded, Stream* stream) {
  if (is_loaded || !loads_lazily()) return CUDA_SUCCESS;
  if (stream != nullptr && stream->capture && !driver().facts.captures_first_launch) {
    spoil(*stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  is_loaded = true;
  return CUDA_SUCCESS;
}

namespace {

// Images are not looked at: a kernel's name finds `simcuda_kernel_NAME` and `simcuda_parameters_NAME` in the library
// that SIMCUDA_KERNELS names.
Kernel* kernel_of(Module& module, char const* name) {
  auto& kernel = module.kernels[name];
  if (kernel) return kernel.get();
  static void* const library = [] {
    char const* const path = std::getenv("SIMCUDA_KERNELS");
    return path != nullptr ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
  }();
  if (library == nullptr) return nullptr;
  auto* const function = dlsym(library, (std::string("simcuda_kernel_") + name).c_str());
  auto* const sizes = dlsym(library, (std::string("simcuda_parameters_") + name).c_str());
  if (function == nullptr || sizes == nullptr) return nullptr;
  kernel = std::make_unique<Kernel>();
  kernel->name = name;
  kernel->function = reinterpret_cast<decltype(Kernel::function)>(function);
  kernel->parameter_bytes = static_cast<std::size_t const*>(sizes);
  return kernel.get();
}

template <typename Handle>
CUresult load(Handle* module, char const* name) {
  ENTER(name, kContext | unless(driver().facts.captures_module_load));
  auto made = std::make_unique<Module>();
  made->context = current_context();
  *module = reinterpret_cast<Handle>(driver().modules.add(std::move(made)));
  return CUDA_SUCCESS;
}

template <typename Handle>
CUresult unload(Handle module, char const* name) {
  ENTER(name, kRelease);
  if (!driver().modules.has(module))
    return call.misuse(std::string(name) + ": no such module", CUDA_ERROR_INVALID_HANDLE);
  driver().modules.remove(reinterpret_cast<Module*>(module));
  return call.error;
}

template <typename Handle, typename Out>
CUresult find_kernel(Out* out, Handle module, char const* kernel, char const* name) {
  bool const loads = std::is_same_v<Out, CUfunction>;
  ENTER(name, kContext | unless(!loads || !loads_lazily() || driver().facts.captures_first_launch));
  if (!driver().modules.has(module))
    return call.misuse(std::string(name) + ": no such module", CUDA_ERROR_INVALID_HANDLE);
  auto* const found = kernel_of(*reinterpret_cast<Module*>(module), kernel);
  *out = reinterpret_cast<Out>(found);
  if (found == nullptr) return CUDA_ERROR_NOT_FOUND;
  return loads ? load_kernel(found->is_loaded, nullptr) : CUDA_SUCCESS;
}

}  // namespace

CUresult module_load_data(CUmodule* module, void const*) { return load(module, "cuModuleLoadData"); }
CUresult module_load_data_ex(CUmodule* module, void const*, unsigned, CUjit_option*, void**) {
  return load(module, "cuModuleLoadDataEx");
}
CUresult module_unload(CUmodule module) { return unload(module, "cuModuleUnload"); }
CUresult module_get_function(CUfunction* out, CUmodule module, char const* kernel) {
  return find_kernel(out, module, kernel, "cuModuleGetFunction");
}
CUresult library_load_data(CUlibrary* library, void const*, CUjit_option*, void**, unsigned, CUlibraryOption*, void**,
                           unsigned) {
  return load(library, "cuLibraryLoadData");
}
CUresult library_unload(CUlibrary library) { return unload(library, "cuLibraryUnload"); }
CUresult library_get_kernel(CUkernel* out, CUlibrary library, char const* kernel) {
  return find_kernel(out, library, kernel, "cuLibraryGetKernel");
}
CUresult kernel_get_function(CUfunction* out, CUkernel kernel) {
  ENTER("cuKernelGetFunction", kContext);
  *out = reinterpret_cast<CUfunction>(kernel);
  return CUDA_SUCCESS;
}
CUresult module_get_loading_mode(CUmoduleLoadingMode* mode) {
  ENTER("cuModuleGetLoadingMode", kNothing);
  *mode = loads_lazily() ? CU_MODULE_LAZY_LOADING : CU_MODULE_EAGER_LOADING;
  return CUDA_SUCCESS;
}

// Deprecated: a launch names its shape itself.
CUresult func_set_block_shape(CUfunction, int, int, int) {
  ENTER("cuFuncSetBlockShape", kContext);
  return CUDA_SUCCESS;
}

namespace {

// The buffer that holds all parameters one after another, where a caller gives one in place of a pointer to each.
char const* packed_parameters(void** extra) {
  for (; extra != nullptr && *extra != CU_LAUNCH_PARAM_END; extra += 2)
    if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) return static_cast<char const*>(extra[1]);
  return nullptr;
}

}  // namespace

CUresult launch_kernel(CUfunction handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                       unsigned block_y, unsigned block_z, unsigned, CUstream stream_handle, void** parameters,
                       void** extra) {
  ENTER("cuLaunchKernel", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, stream_handle, "cuLaunchKernel", &error);
  if (stream == nullptr) return error;
  if (std::uint64_t{block_x} * block_y * block_z > 1024 || block_x * block_y * block_z == 0 ||
      std::uint64_t{grid_x} * grid_y * grid_z == 0)
    return CUDA_ERROR_INVALID_VALUE;
  auto* const kernel = reinterpret_cast<Kernel*>(handle);
  if (CUresult const result = load_kernel(kernel->is_loaded, stream); result != CUDA_SUCCESS) return result;
  auto values = std::make_shared<std::vector<std::vector<char>>>();
  char const* packed = packed_parameters(extra);
  std::size_t offset = 0;
  for (std::size_t i = 0; kernel->parameter_bytes[i] != 0; ++i) {
    std::size_t const size = kernel->parameter_bytes[i];
    offset = (offset + size - 1) / size * size;  // packed ones are aligned to their own size
    auto const* const bytes = packed != nullptr ? packed + offset : static_cast<char const*>(parameters[i]);
    values->emplace_back(bytes, bytes + size);
    offset += size;
  }
  std::array<unsigned, 3> const grid{grid_x, grid_y, grid_z}, block{block_x, block_y, block_z};
  return enqueue(call, stream, "kernel", [=] {
    std::vector<void*> pointers;
    for (auto& value : *values) pointers.push_back(value.data());
    auto const launch = [&] {
      kernel->function(pointers.data(), grid.data(), block.data());
      return 0;
    };
    return run_kernel(kernel->name.c_str(), launch, [] {});
  });
}

CUresult launch_kernel_ex(CUlaunchConfig const* config, CUfunction function, void** parameters, void** extra) {
  return launch_kernel(function, config->gridDimX, config->gridDimY, config->gridDimZ, config->blockDimX,
                       config->blockDimY, config->blockDimZ, config->sharedMemBytes, config->hStream, parameters,
                       extra);
}

CUresult launch_host_function(CUstream handle, CUhostFn function, void* argument) {
  ENTER("cuLaunchHostFunc", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuLaunchHostFunc", &error);
  if (stream == nullptr) return error;
  return enqueue(call, stream, "host function", [=] {
    function(argument);
    return CUDA_SUCCESS;
  });
}

}  // namespace simcuda
