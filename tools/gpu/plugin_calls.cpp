// Holds TensorRT plugins as TensorRT does, for tests on a GPU: made from a node's attributes, asked for their
// workspace, serialised, made again, attached, given their shapes; then enqueued on a stream with device pointers, any
// number of times. The plugin library is opened by its path, so this one links neither TensorRT nor CUDA.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

using namespace nvinfer1;

namespace {

using GetCreators = IPluginCreatorInterface* const* (*)(std::int32_t&);

template <typename Capability>
Capability* capability(IPluginV3* plugin, PluginCapabilityType type) {
  return static_cast<Capability*>(plugin->getCapabilityInterface(type));
}

IPluginCreatorV3One* creator_of(char const* library, std::string const& op) {
  void* const handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return nullptr;
  auto const get = reinterpret_cast<GetCreators>(dlsym(handle, "getCreators"));
  if (get == nullptr) return nullptr;
  std::int32_t count = 0;
  IPluginCreatorInterface* const* const creators = get(count);
  for (std::int32_t i = 0; i < count; ++i) {
    auto* const creator = static_cast<IPluginCreatorV3One*>(creators[i]);
    if (creator->getPluginName() == op) return creator;
  }
  return nullptr;
}

// A plugin that is ready to be enqueued, and the tensor descriptions that it was given.
struct Ready {
  std::unique_ptr<IPluginV3> built, loaded, attached;
  std::vector<PluginTensorDesc> tensors;
  std::size_t inputs = 0, workspace = 0;
};

}  // namespace

#define TEST_API extern "C" __attribute__((visibility("default")))

// Of the tensors, inputs first: type, format and rank one after the other, dims 8 each. Null, with the step that failed
// in `step`, or a plugin for the functions below.
TEST_API void* plugin_open(char const* library, char const* op, PluginField const* fields, std::int32_t field_count,
                           std::int32_t inputs, std::int32_t outputs, std::int32_t const* types,
                           std::int32_t const* formats, std::int32_t const* ranks, std::int64_t const* dims,
                           char const** step) {
  std::vector<DynamicPluginTensorDesc> descs(static_cast<std::size_t>(inputs + outputs));
  auto ready = std::make_unique<Ready>();
  ready->inputs = static_cast<std::size_t>(inputs);
  for (std::size_t i = 0; i < descs.size(); ++i) {
    PluginTensorDesc& desc = descs[i].desc;
    desc.type = static_cast<DataType>(types[i]);
    desc.format = static_cast<TensorFormat>(formats[i]);
    desc.dims.nbDims = ranks[i];
    std::copy(dims + 8 * i, dims + 8 * (i + 1), desc.dims.d);
    descs[i].min = descs[i].opt = descs[i].max = desc.dims;
    ready->tensors.push_back(desc);
  }
  auto const fails = [&](char const* where) {
    *step = where;
    return nullptr;
  };
  IPluginCreatorV3One* const creator = creator_of(library, op);
  if (creator == nullptr) return fails("getCreators");
  PluginFieldCollection const collection{field_count, fields};
  ready->built.reset(creator->createPlugin("node", &collection, TensorRTPhase::kBUILD));
  if (!ready->built) return fails("createPlugin");
  auto* const build = capability<IPluginV3OneBuild>(ready->built.get(), PluginCapabilityType::kBUILD);
  for (std::int32_t i = 0; i < inputs + outputs; ++i) {
    if (!build->supportsFormatCombination(i, descs.data(), inputs, outputs)) return fails("supportsFormatCombination");
  }
  DynamicPluginTensorDesc const* const out = descs.data() + inputs;
  if (build->configurePlugin(descs.data(), inputs, out, outputs) != 0) return fails("configurePlugin");
  ready->workspace = build->getWorkspaceSize(descs.data(), inputs, out, outputs);
  auto* const kept = capability<IPluginV3OneRuntime>(ready->built.get(), PluginCapabilityType::kRUNTIME);
  ready->loaded.reset(creator->createPlugin("node", kept->getFieldsToSerialize(), TensorRTPhase::kRUNTIME));
  if (!ready->loaded) return fails("createPlugin at run time");
  auto* const loaded = capability<IPluginV3OneRuntime>(ready->loaded.get(), PluginCapabilityType::kRUNTIME);
  ready->attached.reset(loaded->attachToContext(nullptr));
  if (!ready->attached) return fails("attachToContext");
  auto* const runtime = capability<IPluginV3OneRuntime>(ready->attached.get(), PluginCapabilityType::kRUNTIME);
  PluginTensorDesc const* const tensors = ready->tensors.data();
  if (runtime->onShapeChange(tensors, inputs, tensors + inputs, outputs) != 0) return fails("onShapeChange");
  return ready.release();
}

TEST_API std::size_t plugin_workspace_bytes(void const* plugin) { return static_cast<Ready const*>(plugin)->workspace; }

// What enqueue gives: 0, or an error.
TEST_API int plugin_enqueue(void* plugin, void const* const* inputs, void* const* outputs, void* workspace,
                            void* stream) {
  auto* const ready = static_cast<Ready*>(plugin);
  auto* const runtime = capability<IPluginV3OneRuntime>(ready->attached.get(), PluginCapabilityType::kRUNTIME);
  PluginTensorDesc const* const tensors = ready->tensors.data();
  return runtime->enqueue(tensors, tensors + ready->inputs, inputs, outputs, workspace,
                          static_cast<cudaStream_t>(stream));
}

TEST_API void plugin_close(void* plugin) { delete static_cast<Ready*>(plugin); }
