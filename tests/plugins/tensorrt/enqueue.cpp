// Runs a plugin as TensorRT does: made from a node's attributes, asked for its workspace, serialised, made again,
// attached, told its shapes, enqueued. Linked with the plugin classes and with kernels that run on the CPU.
#include <NvInferRuntime.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

using namespace nvinfer1;

extern "C" IPluginCreatorInterface* const* getCreators(std::int32_t& count);

namespace {

IPluginCreatorV3One* creator_of(std::string const& op) {
  std::int32_t count = 0;
  IPluginCreatorInterface* const* const creators = getCreators(count);
  for (std::int32_t i = 0; i < count; ++i) {
    auto* const creator = static_cast<IPluginCreatorV3One*>(creators[i]);
    if (creator->getPluginName() == op) return creator;
  }
  return nullptr;
}

template <typename Capability>
Capability* capability(IPluginV3* plugin, PluginCapabilityType type) {
  return static_cast<Capability*>(plugin->getCapabilityInterface(type));
}

}  // namespace

// Of the tensors, inputs first: type, format and rank one after the other, dims 8 each. Gives 0, or the step that
// failed.
extern "C" __attribute__((visibility("default"))) int panrt_test_enqueue(
    char const* op, PluginField const* fields, std::int32_t field_count, std::int32_t inputs, std::int32_t outputs,
    std::int32_t const* types, std::int32_t const* formats, std::int32_t const* ranks, std::int64_t const* dims,
    void const* const* input_data, void* const* output_data) {
  std::vector<DynamicPluginTensorDesc> descs(static_cast<std::size_t>(inputs + outputs));
  std::vector<PluginTensorDesc> now;
  for (std::size_t i = 0; i < descs.size(); ++i) {
    PluginTensorDesc& desc = descs[i].desc;
    desc.type = static_cast<DataType>(types[i]);
    desc.format = static_cast<TensorFormat>(formats[i]);
    desc.dims.nbDims = ranks[i];
    std::copy(dims + 8 * i, dims + 8 * (i + 1), desc.dims.d);
    descs[i].min = descs[i].opt = descs[i].max = desc.dims;
    now.push_back(desc);
  }
  IPluginCreatorV3One* const creator = creator_of(op);
  PluginFieldCollection const collection{field_count, fields};
  std::unique_ptr<IPluginV3> const built(creator->createPlugin("node", &collection, TensorRTPhase::kBUILD));
  if (!built) return 1;
  auto* const build = capability<IPluginV3OneBuild>(built.get(), PluginCapabilityType::kBUILD);
  for (std::int32_t i = 0; i < inputs + outputs; ++i) {
    if (!build->supportsFormatCombination(i, descs.data(), inputs, outputs)) return 2;
  }
  if (build->configurePlugin(descs.data(), inputs, descs.data() + inputs, outputs) != 0) return 3;
  std::size_t const bytes = build->getWorkspaceSize(descs.data(), inputs, descs.data() + inputs, outputs);

  auto* const kept = capability<IPluginV3OneRuntime>(built.get(), PluginCapabilityType::kRUNTIME);
  std::unique_ptr<IPluginV3> const loaded(
      creator->createPlugin("node", kept->getFieldsToSerialize(), TensorRTPhase::kRUNTIME));
  if (!loaded) return 4;
  std::unique_ptr<IPluginV3> const attached(
      capability<IPluginV3OneRuntime>(loaded.get(), PluginCapabilityType::kRUNTIME)->attachToContext(nullptr));
  if (!attached) return 5;
  auto* const runtime = capability<IPluginV3OneRuntime>(attached.get(), PluginCapabilityType::kRUNTIME);
  if (runtime->onShapeChange(now.data(), inputs, now.data() + inputs, outputs) != 0) return 6;

  std::vector<unsigned char> workspace(bytes + 1, 0xCD);  // TensorRT promises no alignment
  std::int32_t const status = runtime->enqueue(now.data(), now.data() + inputs, input_data, output_data,
                                               bytes > 0 ? workspace.data() + 1 : nullptr, nullptr);
  return status == 0 ? 0 : 7;
}
