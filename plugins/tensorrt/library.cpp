// The symbols that TensorRT looks for in a plugin library, and the library's description of itself.
#include <NvInferRuntime.h>
#include <NvInferVersion.h>

#include <iterator>

#include "op_plugin.h"
#include "panrt/cuda/prepare.h"
#include "panrt/ops.h"
#include "report.h"

#define PANRT_EXPORT extern "C" __attribute__((visibility("default")))

PANRT_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& count) {
  using namespace panrt::tensorrt;
#define PANRT_CREATOR(Name, function) static OpCreator<panrt::ops::Name> function;
  PANRT_FOR_EACH_PLUGIN(PANRT_CREATOR)
#define PANRT_ADDRESS(Name, function) &function,
  static nvinfer1::IPluginCreatorInterface* const creators[] = {PANRT_FOR_EACH_PLUGIN(PANRT_ADDRESS)};
  count = static_cast<std::int32_t>(std::size(creators));
  return creators;
}

PANRT_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { panrt::tensorrt::set_logger_finder(finder); }

// Why an op was rejected; report.h.
PANRT_EXPORT void panrt_plugins_keep_refusals(int keep) { panrt::tensorrt::keep_errors(keep != 0); }
PANRT_EXPORT char const* panrt_plugins_take_refusals() { return panrt::tensorrt::take_errors(); }

// Empty if this library's host code computes as plugins/OPS.md requires, else the fault.
PANRT_EXPORT char const* panrt_plugins_arithmetic_fault() {
  char const* const fault = panrt::cuda::host_arithmetic_fault();
  return fault == nullptr ? "" : fault;
}

#define PANRT_TEXT_OF(macro) PANRT_TEXT(macro)
#define PANRT_TEXT(text) #text

// JSON. PANRT_CUDA_ARCHITECTURES is empty if the library has no kernels.
PANRT_EXPORT char const* panrt_plugins_info() {
  return "{\"plugin_version\": \"2\", \"tensorrt_headers\": \"" PANRT_TEXT_OF(NV_TENSORRT_MAJOR) "." PANRT_TEXT_OF(
      NV_TENSORRT_MINOR) "." PANRT_TEXT_OF(NV_TENSORRT_PATCH) "\", \"cuda_architectures\": \"" PANRT_CUDA_ARCHITECTURES
                                                              "\", \"sources_sha256\": \"" PANRT_SOURCES_SHA256 "\"}";
}
