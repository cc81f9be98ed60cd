// The device and its contexts.

#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "driver.h"

namespace simcuda {

CUresult init(unsigned flags) {
  ENTER("cuInit", kNothing);
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  driver().is_initialised = true;
  return CUDA_SUCCESS;
}

CUresult driver_get_version(int* version) {
  ENTER("cuDriverGetVersion", kAnytime);
  *version = driver().facts.driver_version;
  return CUDA_SUCCESS;
}

CUresult device_get_count(int* count) {
  ENTER("cuDeviceGetCount", kNothing);
  *count = 1;
  return CUDA_SUCCESS;
}

CUresult device_get(CUdevice* device, int ordinal) {
  ENTER("cuDeviceGet", kNothing);
  if (ordinal != 0) return CUDA_ERROR_INVALID_DEVICE;
  *device = 0;
  return CUDA_SUCCESS;
}

CUresult device_get_name(char* name, int length, CUdevice device) {
  ENTER("cuDeviceGetName", kNothing);
  if (device != 0 || length <= 0) return CUDA_ERROR_INVALID_DEVICE;
  std::snprintf(name, static_cast<std::size_t>(length), "%s", driver().facts.name.c_str());
  return CUDA_SUCCESS;
}

CUresult device_get_uuid(CUuuid* uuid, CUdevice device) {
  ENTER("cuDeviceGetUuid", kNothing);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  std::memcpy(uuid->bytes, "simulated device", 16);
  return CUDA_SUCCESS;
}

CUresult device_total_mem(std::size_t* bytes, CUdevice device) {
  ENTER("cuDeviceTotalMem", kNothing);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  *bytes = driver().facts.memory;
  return CUDA_SUCCESS;
}

CUresult device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  ENTER("cuDeviceGetAttribute", kNothing);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  auto const& known = driver().facts.attributes;
  auto const found = known.find(attribute);
  // There are no pools of memory here, whatever the device has.
  *value = found != known.end() && attribute != CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED ? found->second : 0;
  return CUDA_SUCCESS;
}

CUresult device_compute_capability(int* major, int* minor, CUdevice device) {
  CUresult const result = device_get_attribute(major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
  if (result != CUDA_SUCCESS) return result;
  return device_get_attribute(minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
}

CUresult primary_retain(CUcontext* context, CUdevice device) {
  ENTER("cuDevicePrimaryCtxRetain", kNothing);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  ++driver().primary.retained;
  *context = reinterpret_cast<CUcontext>(&driver().primary);
  return CUDA_SUCCESS;
}

CUresult primary_release(CUdevice device) {
  ENTER("cuDevicePrimaryCtxRelease", kRelease);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  if (driver().primary.retained == 0)
    return call.misuse("cuDevicePrimaryCtxRelease: it is not retained", CUDA_ERROR_INVALID_CONTEXT);
  --driver().primary.retained;
  return call.error;
}

CUresult primary_get_state(CUdevice, unsigned* flags, int* active) {
  ENTER("cuDevicePrimaryCtxGetState", kNothing);
  *flags = driver().primary.flags;
  *active = driver().primary.retained > 0;
  return CUDA_SUCCESS;
}

namespace {

bool is_context(CUcontext handle) {
  auto& d = driver();
  return (reinterpret_cast<Context*>(handle) == &d.primary && d.primary.retained > 0) || d.contexts.has(handle);
}

}  // namespace

CUresult ctx_create(CUcontext* context, unsigned flags, CUdevice device) {
  ENTER("cuCtxCreate", kNothing);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  auto made = std::make_unique<Context>();
  made->flags = flags;
  current.push_back(driver().contexts.add(std::move(made)));
  *context = reinterpret_cast<CUcontext>(current.back());
  return CUDA_SUCCESS;
}

CUresult ctx_create_v4(CUcontext* context, CUctxCreateParams*, unsigned flags, CUdevice device) {
  return ctx_create(context, flags, device);
}

CUresult ctx_destroy(CUcontext handle) {
  ENTER("cuCtxDestroy", kRelease);
  auto& d = driver();
  if (!d.contexts.has(handle)) return call.misuse("cuCtxDestroy: no such context", CUDA_ERROR_INVALID_CONTEXT);
  auto* const context = reinterpret_cast<Context*>(handle);
  run_all(call.lock, context);
  for (auto* memory : {&d.device_memory, &d.host_memory}) {  // all that was made in it goes with it
    std::vector<std::uint64_t> addresses;
    for (auto const& [address, allocation] : *memory)
      if (allocation.context == context) addresses.push_back(address);
    for (auto const address : addresses) release(address, *memory);
  }
  d.streams.remove_if([&](Stream const* stream) { return stream->context == context; });
  d.modules.remove_if([&](Module const* module) { return module->context == context; });
  d.events.remove_if([&](Event const* event) { return event->context == context; });
  d.contexts.remove(context);
  if (!current.empty() && current.back() == context) current.pop_back();
  return call.error;
}

CUresult ctx_detach(CUcontext handle) { return ctx_destroy(handle); }  // nobody here attaches to one

CUresult ctx_get_current(CUcontext* context) {
  ENTER("cuCtxGetCurrent", kNothing);
  *context = current.empty() ? nullptr : reinterpret_cast<CUcontext>(current.back());
  return CUDA_SUCCESS;
}

CUresult ctx_set_current(CUcontext context) {
  ENTER("cuCtxSetCurrent", kNothing);
  if (context != nullptr && !is_context(context))
    return call.misuse("cuCtxSetCurrent: no such context", CUDA_ERROR_INVALID_CONTEXT);
  if (!current.empty()) current.pop_back();
  if (context != nullptr) current.push_back(reinterpret_cast<Context*>(context));
  return CUDA_SUCCESS;
}

CUresult ctx_push_current(CUcontext context) {
  ENTER("cuCtxPushCurrent", kNothing);
  if (!is_context(context)) return call.misuse("cuCtxPushCurrent: no such context", CUDA_ERROR_INVALID_CONTEXT);
  current.push_back(reinterpret_cast<Context*>(context));
  return CUDA_SUCCESS;
}

CUresult ctx_pop_current(CUcontext* context) {
  ENTER("cuCtxPopCurrent", kRelease);  // it may return errors of earlier work, and pops all the same
  if (current.empty()) return CUDA_ERROR_INVALID_CONTEXT;
  if (context != nullptr) *context = reinterpret_cast<CUcontext>(current.back());
  current.pop_back();
  return call.error;
}

CUresult ctx_get_device(CUdevice* device) {
  ENTER("cuCtxGetDevice", kContext);
  if (!is_context(reinterpret_cast<CUcontext>(current.back()))) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  *device = 0;
  return CUDA_SUCCESS;
}

CUresult ctx_get_device_v2(CUdevice* device, CUcontext) { return ctx_get_device(device); }

CUresult ctx_get_id(CUcontext context, unsigned long long* id) {
  ENTER("cuCtxGetId", kContext);
  *id =
      reinterpret_cast<unsigned long long>(context != nullptr ? context : reinterpret_cast<CUcontext>(current.back()));
  return CUDA_SUCCESS;
}

CUresult ctx_get_priority_range(int* least, int* greatest) {
  ENTER("cuCtxGetStreamPriorityRange", kContext);
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = -5;
  return CUDA_SUCCESS;
}

CUresult ctx_synchronize() {
  ENTER("cuCtxSynchronize", kContext | kSafe);
  run_all(call.lock, current_context());
  return driver().sticky;
}

CUresult ctx_synchronize_v2(CUcontext) { return ctx_synchronize(); }

}  // namespace simcuda
