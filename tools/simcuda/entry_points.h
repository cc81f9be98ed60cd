// Every entry point of the simulated driver.
#pragma once

#include <cuda.h>

// ENTRY(name, declared, since, function) or BARE(name, since, function) for each: its name, the declaration in cuda.h
// that it has to agree with, and the CUDA version of that signature. BARE: cuda.h declares another one, depending on
// its version.
#define SIMCUDA_ENTRY_POINTS(ENTRY, BARE)                                                                   \
  ENTRY("cuInit", cuInit, 2000, init)                                                                       \
  ENTRY("cuDriverGetVersion", cuDriverGetVersion, 2020, driver_get_version)                                 \
  ENTRY("cuGetErrorName", cuGetErrorName, 6000, get_error_name)                                             \
  ENTRY("cuGetErrorString", cuGetErrorString, 6000, get_error_string)                                       \
  ENTRY("cuDeviceGetCount", cuDeviceGetCount, 2000, device_get_count)                                       \
  ENTRY("cuDeviceGet", cuDeviceGet, 2000, device_get)                                                       \
  ENTRY("cuDeviceGetName", cuDeviceGetName, 2000, device_get_name)                                          \
  ENTRY("cuDeviceGetUuid", cuDeviceGetUuid_v2, 9020, device_get_uuid)                                       \
  ENTRY("cuDeviceTotalMem", cuDeviceTotalMem_v2, 2000, device_total_mem)                                    \
  ENTRY("cuDeviceGetAttribute", cuDeviceGetAttribute, 2000, device_get_attribute)                           \
  BARE("cuDeviceComputeCapability", 2000, device_compute_capability)                                        \
  ENTRY("cuDevicePrimaryCtxRetain", cuDevicePrimaryCtxRetain, 7000, primary_retain)                         \
  ENTRY("cuDevicePrimaryCtxRelease", cuDevicePrimaryCtxRelease_v2, 7000, primary_release)                   \
  ENTRY("cuDevicePrimaryCtxGetState", cuDevicePrimaryCtxGetState, 7000, primary_get_state)                  \
  BARE("cuCtxCreate", 2000, ctx_create)                                                                     \
  BARE("cuCtxCreate", 12050, ctx_create_v4)                                                                 \
  ENTRY("cuCtxDestroy", cuCtxDestroy_v2, 4000, ctx_destroy)                                                 \
  BARE("cuCtxDetach", 2000, ctx_detach)                                                                     \
  ENTRY("cuCtxGetCurrent", cuCtxGetCurrent, 4000, ctx_get_current)                                          \
  ENTRY("cuCtxSetCurrent", cuCtxSetCurrent, 4000, ctx_set_current)                                          \
  ENTRY("cuCtxPushCurrent", cuCtxPushCurrent_v2, 4000, ctx_push_current)                                    \
  ENTRY("cuCtxPopCurrent", cuCtxPopCurrent_v2, 4000, ctx_pop_current)                                       \
  BARE("cuCtxGetDevice", 2000, ctx_get_device)                                                              \
  BARE("cuCtxGetDevice", 13000, ctx_get_device_v2)                                                          \
  ENTRY("cuCtxGetId", cuCtxGetId, 12000, ctx_get_id)                                                        \
  ENTRY("cuCtxGetStreamPriorityRange", cuCtxGetStreamPriorityRange, 5050, ctx_get_priority_range)           \
  BARE("cuCtxSynchronize", 2000, ctx_synchronize)                                                           \
  BARE("cuCtxSynchronize", 13000, ctx_synchronize_v2)                                                       \
  ENTRY("cuStreamCreate", cuStreamCreate, 2000, stream_create)                                              \
  ENTRY("cuStreamCreateWithPriority", cuStreamCreateWithPriority, 5050, stream_create_with_priority)        \
  ENTRY("cuStreamDestroy", cuStreamDestroy_v2, 4000, stream_destroy)                                        \
  ENTRY("cuStreamSynchronize", cuStreamSynchronize, 2000, stream_synchronize)                               \
  ENTRY("cuStreamQuery", cuStreamQuery, 2000, stream_query)                                                 \
  ENTRY("cuStreamGetFlags", cuStreamGetFlags, 5050, stream_get_flags)                                       \
  ENTRY("cuStreamGetPriority", cuStreamGetPriority, 5050, stream_get_priority)                              \
  BARE("cuStreamGetCtx", 9020, stream_get_context)                                                          \
  BARE("cuStreamGetCtx", 12050, stream_get_context_v2)                                                      \
  ENTRY("cuStreamWaitEvent", cuStreamWaitEvent, 3020, stream_wait_event)                                    \
  BARE("cuStreamBeginCapture", 10010, stream_begin_capture)                                                 \
  ENTRY("cuStreamEndCapture", cuStreamEndCapture, 10000, stream_end_capture)                                \
  ENTRY("cuStreamIsCapturing", cuStreamIsCapturing, 10000, stream_is_capturing)                             \
  BARE("cuStreamGetCaptureInfo", 11030, stream_get_capture_info_v2)                                         \
  BARE("cuStreamGetCaptureInfo", 12030, stream_get_capture_info)                                            \
  ENTRY("cuEventCreate", cuEventCreate, 2000, event_create)                                                 \
  ENTRY("cuEventDestroy", cuEventDestroy_v2, 4000, event_destroy)                                           \
  ENTRY("cuEventRecord", cuEventRecord, 2000, event_record)                                                 \
  ENTRY("cuEventRecordWithFlags", cuEventRecordWithFlags, 11010, event_record_with_flags)                   \
  ENTRY("cuEventSynchronize", cuEventSynchronize, 2000, event_synchronize)                                  \
  ENTRY("cuEventQuery", cuEventQuery, 2000, event_query)                                                    \
  BARE("cuEventElapsedTime", 2000, event_elapsed_time)                                                      \
  ENTRY("cuGraphCreate", cuGraphCreate, 10000, graph_create)                                                \
  ENTRY("cuGraphDestroy", cuGraphDestroy, 10000, graph_destroy)                                             \
  ENTRY("cuGraphGetNodes", cuGraphGetNodes, 10000, graph_get_nodes)                                         \
  BARE("cuGraphInstantiate", 12000, graph_instantiate_with_flags)                                           \
  ENTRY("cuGraphInstantiateWithFlags", cuGraphInstantiateWithFlags, 11040, graph_instantiate_with_flags)    \
  ENTRY("cuGraphInstantiateWithParams", cuGraphInstantiateWithParams, 12000, graph_instantiate_with_params) \
  ENTRY("cuGraphExecDestroy", cuGraphExecDestroy, 10000, graph_exec_destroy)                                \
  ENTRY("cuGraphUpload", cuGraphUpload, 11010, graph_upload)                                                \
  ENTRY("cuUserObjectCreate", cuUserObjectCreate, 11030, user_object_create)                                \
  ENTRY("cuUserObjectRelease", cuUserObjectRelease, 11030, user_object_release)                             \
  ENTRY("cuGraphRetainUserObject", cuGraphRetainUserObject, 11030, graph_retain_user_object)                \
  ENTRY("cuGraphReleaseUserObject", cuGraphReleaseUserObject, 11030, graph_release_user_object)             \
  ENTRY("cuGraphLaunch", cuGraphLaunch, 10000, graph_launch)                                                \
  ENTRY("cuMemAlloc", cuMemAlloc_v2, 3020, mem_alloc)                                                       \
  ENTRY("cuMemAllocPitch", cuMemAllocPitch_v2, 3020, mem_alloc_pitch)                                       \
  ENTRY("cuMemFree", cuMemFree_v2, 3020, mem_free)                                                          \
  ENTRY("cuMemAllocAsync", cuMemAllocAsync, 11020, mem_alloc_async)                                         \
  ENTRY("cuMemFreeAsync", cuMemFreeAsync, 11020, mem_free_async)                                            \
  ENTRY("cuMemGetInfo", cuMemGetInfo_v2, 3020, mem_get_info)                                                \
  ENTRY("cuMemHostAlloc", cuMemHostAlloc, 2020, mem_host_alloc)                                             \
  ENTRY("cuMemAllocHost", cuMemAllocHost_v2, 3020, mem_alloc_host)                                          \
  ENTRY("cuMemFreeHost", cuMemFreeHost, 2000, mem_free_host)                                                \
  ENTRY("cuMemHostRegister", cuMemHostRegister_v2, 6050, mem_host_register)                                 \
  ENTRY("cuMemHostUnregister", cuMemHostUnregister, 4000, mem_host_unregister)                              \
  ENTRY("cuMemHostGetDevicePointer", cuMemHostGetDevicePointer_v2, 3020, mem_host_get_device_pointer)       \
  ENTRY("cuPointerGetAttribute", cuPointerGetAttribute, 4000, pointer_get_attribute)                        \
  ENTRY("cuPointerGetAttributes", cuPointerGetAttributes, 7000, pointer_get_attributes)                     \
  ENTRY("cuMemcpyHtoD", cuMemcpyHtoD_v2, 3020, memcpy_htod)                                                 \
  ENTRY("cuMemcpyDtoH", cuMemcpyDtoH_v2, 3020, memcpy_dtoh)                                                 \
  ENTRY("cuMemcpyDtoD", cuMemcpyDtoD_v2, 3020, memcpy_dtod)                                                 \
  ENTRY("cuMemcpy", cuMemcpy, 4000, memcpy_any)                                                             \
  ENTRY("cuMemcpyHtoDAsync", cuMemcpyHtoDAsync_v2, 3020, memcpy_htod_async)                                 \
  ENTRY("cuMemcpyDtoHAsync", cuMemcpyDtoHAsync_v2, 3020, memcpy_dtoh_async)                                 \
  ENTRY("cuMemcpyDtoDAsync", cuMemcpyDtoDAsync_v2, 3020, memcpy_dtod_async)                                 \
  ENTRY("cuMemcpyAsync", cuMemcpyAsync, 4000, memcpy_any_async)                                             \
  ENTRY("cuMemcpy2DAsync", cuMemcpy2DAsync_v2, 3020, memcpy_2d_async)                                       \
  ENTRY("cuMemsetD8", cuMemsetD8_v2, 3020, memset_d8)                                                       \
  ENTRY("cuMemsetD8Async", cuMemsetD8Async, 3020, memset_d8_async)                                          \
  ENTRY("cuMemsetD32Async", cuMemsetD32Async, 3020, memset_d32_async)                                       \
  ENTRY("cuModuleLoadData", cuModuleLoadData, 2000, module_load_data)                                       \
  ENTRY("cuModuleLoadDataEx", cuModuleLoadDataEx, 2010, module_load_data_ex)                                \
  ENTRY("cuModuleUnload", cuModuleUnload, 2000, module_unload)                                              \
  ENTRY("cuModuleGetFunction", cuModuleGetFunction, 2000, module_get_function)                              \
  ENTRY("cuModuleGetLoadingMode", cuModuleGetLoadingMode, 11070, module_get_loading_mode)                   \
  ENTRY("cuLibraryLoadData", cuLibraryLoadData, 12000, library_load_data)                                   \
  ENTRY("cuLibraryUnload", cuLibraryUnload, 12000, library_unload)                                          \
  ENTRY("cuLibraryGetKernel", cuLibraryGetKernel, 12000, library_get_kernel)                                \
  ENTRY("cuKernelGetFunction", cuKernelGetFunction, 12000, kernel_get_function)                             \
  BARE("cuFuncSetBlockShape", 2000, func_set_block_shape)                                                   \
  ENTRY("cuLaunchKernel", cuLaunchKernel, 4000, launch_kernel)                                              \
  ENTRY("cuLaunchKernelEx", cuLaunchKernelEx, 11060, launch_kernel_ex)                                      \
  ENTRY("cuLaunchHostFunc", cuLaunchHostFunc, 10000, launch_host_function)

namespace simcuda {

#define SIMCUDA_ENTRY(NAME, DECLARED, SINCE, FUNCTION) decltype(::DECLARED) FUNCTION;
#define SIMCUDA_BARE(NAME, SINCE, FUNCTION)
SIMCUDA_ENTRY_POINTS(SIMCUDA_ENTRY, SIMCUDA_BARE)
#undef SIMCUDA_ENTRY
#undef SIMCUDA_BARE

CUresult device_compute_capability(int* major, int* minor, CUdevice device);
CUresult ctx_create(CUcontext* context, unsigned flags, CUdevice device);
CUresult ctx_create_v4(CUcontext* context, CUctxCreateParams*, unsigned flags, CUdevice device);
CUresult ctx_detach(CUcontext handle);
CUresult ctx_get_device(CUdevice* device);
CUresult ctx_get_device_v2(CUdevice* device, CUcontext);
CUresult ctx_synchronize();
CUresult ctx_synchronize_v2(CUcontext);
CUresult stream_get_context(CUstream handle, CUcontext* context);
CUresult stream_get_context_v2(CUstream handle, CUcontext* context, CUgreenCtx* green);
CUresult stream_begin_capture(CUstream handle, CUstreamCaptureMode mode);
CUresult stream_get_capture_info_v2(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                                    CUgraphNode const** dependencies, std::size_t* count);
CUresult stream_get_capture_info(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                                 CUgraphNode const** dependencies, CUgraphEdgeData const** edges, std::size_t* count);
CUresult event_elapsed_time(float* milliseconds, CUevent from_handle, CUevent to_handle);
CUresult graph_instantiate_with_flags(CUgraphExec* exec, CUgraph handle, unsigned long long);
CUresult func_set_block_shape(CUfunction, int, int, int);

}  // namespace simcuda
