#include "device.h"

#include <cxxabi.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>

namespace ptxsim {
namespace {

std::string readable(std::string const& name) {
  int status = 0;
  std::unique_ptr<char, void (*)(void*)> const text(abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status),
                                                    std::free);
  return status == 0 ? text.get() : name;
}

std::string quoted(std::string const& text) {
  std::string result = "\"";
  for (char const c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + '"';
}

std::string shape(Dim const& dim) {
  return "(" + std::to_string(dim.x) + "," + std::to_string(dim.y) + "," + std::to_string(dim.z) + ")";
}

int setting(char const* name, int otherwise) {
  char const* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

}  // namespace

LoadedModule::LoadedModule(std::string const& text, Memory& memory) : module_(parse(text)) {
  for (Variable const& variable : module_.variables) {
    if (variable.space != Space::kGlobal && variable.space != Space::kConst) continue;
    void* const place = memory.allocate(variable.bytes);
    std::memset(place, 0, variable.bytes);
    if (!variable.initial.empty()) std::memcpy(place, variable.initial.data(), variable.initial.size());
    globals_[variable.name] = reinterpret_cast<std::uintptr_t>(place);
  }
}

Program* LoadedModule::find(std::string const& name) {
  auto const found = programs_.find(name);
  if (found != programs_.end()) return found->second.get();
  for (Kernel const& kernel : module_.kernels) {
    if (kernel.name == name) {
      return programs_.emplace(name, std::make_unique<Program>(decode(kernel, module_, globals_))).first->second.get();
    }
  }
  return nullptr;
}

std::vector<Program*> LoadedModule::decoded() const {
  std::vector<Program*> programs;
  for (auto const& [name, program] : programs_) programs.push_back(program.get());
  return programs;
}

Device& Device::get() {
  static Device device;
  return device;
}

Device::Device() {
  schedule.resident = static_cast<unsigned>(setting("PTXSIM_RESIDENT", 0));
  schedule.weak = setting("PTXSIM_WEAK", -1);
  schedule.races = setting("PTXSIM_RACES", 1) != 0;
}

Device::~Device() {
  char const* const path = std::getenv("PTXSIM_COUNTS");
  if (path != nullptr) std::ofstream(path) << counts() << "\n";
}

LoadedModule& Device::load(std::string const& text) {
  modules_.push_back(std::make_unique<LoadedModule>(text, memory));
  return *modules_.back();
}

Outcome Device::launch(Program& program, Launch const& launch, void* const* arguments) {
  ++launches;
  constexpr std::uint64_t kMostShared = 48 * 1024;
  Dim const &grid = launch.grid, &block = launch.block;
  std::uint64_t const threads = block.count(), shared = program.dynamic_shared + launch.dynamic_shared;
  bool const is_small = grid.x <= 0x7FFFFFFF && grid.y <= 65535 && grid.z <= 65535 && block.z <= 64 && threads <= 1024;
  if (grid.count() == 0 || threads == 0 || !is_small || threads > program.kernel.most_threads || shared > kMostShared) {
    report = "bad launch: grid " + shape(grid) + ", block " + shape(block) + ", " + std::to_string(shared) +
             " bytes of shared memory; the kernel is for " + std::to_string(program.kernel.most_threads) + " threads";
    return Outcome::kBadShape;
  }
  std::vector<std::uint8_t> parameters(program.parameters_size);
  for (std::size_t i = 0; i < program.parameter_offsets.size(); ++i) {
    std::memcpy(parameters.data() + program.parameter_offsets[i], arguments[i], program.parameter_bytes[i]);
  }
  try {
    Machine(memory, program, launch, schedule, std::move(parameters)).run();
  } catch (Fault const& fault) {
    report = readable(program.kernel.name) + ": " + fault.what();
    return Outcome::kFault;
  }
  return Outcome::kOk;
}

std::string Device::counts() const {
  std::string text;
  for (auto const& loaded : modules_) {
    for (Program const* program : loaded->decoded()) {
      std::map<std::string, std::uint64_t> lines;
      std::uint64_t total = 0;
      for (std::uint32_t pc = 0; pc < program->executed.size(); ++pc) {
        if (program->executed[pc] == 0) continue;
        lines[program->place(pc)] += program->executed[pc];
        total += program->executed[pc];
      }
      if (total == 0) continue;
      text += (text.empty() ? "{" : ",\n ") + quoted(readable(program->kernel.name)) +
              ": {\"launches\": " + std::to_string(program->launches) +
              ", \"warp_instructions\": " + std::to_string(total) + ", \"lines\": ";
      char const* before = "{";
      for (auto const& [line, count] : lines) {
        text += before + quoted(line) + ": " + std::to_string(count);
        before = ", ";
      }
      text += "}}";
    }
  }
  return text.empty() ? "{}" : text + "}";
}

void Device::reset_counts() {
  for (auto const& loaded : modules_) {
    for (Program* program : loaded->decoded()) {
      std::fill(program->executed.begin(), program->executed.end(), 0);
      program->launches = 0;
    }
  }
}

}  // namespace ptxsim
