// Modules, memory and launches of the simulated GPU: what the CUDA runtime's entry points and the tests' stand on.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "machine.h"

namespace ptxsim {

// PTX that was loaded, with its variables in device memory; kernels are decoded when they are first launched.
class LoadedModule {
 public:
  LoadedModule(std::string const& text, Memory& memory);
  Program* find(std::string const& name);  // null if there is no such kernel
  std::vector<Program*> decoded() const;

 private:
  Module module_;
  Globals globals_;
  std::unordered_map<std::string, std::unique_ptr<Program>> programs_;
};

enum class Outcome { kOk, kBadShape, kFault };

class Device {
 public:
  static Device& get();

  LoadedModule& load(std::string const& text);
  // Runs to its end; a fault is kept for `report`.
  Outcome launch(Program& program, Launch const& launch, void* const* arguments);

  Memory memory;
  Schedule schedule;
  std::string report;  // of the latest fault
  std::uint64_t launches = 0;

  // Warp instructions: {"kernel": {"launches": n, "warp_instructions": n, "lines": {"file:line": n}}}
  std::string counts() const;
  void reset_counts();

 private:
  Device();
  ~Device();  // writes the counts to $PTXSIM_COUNTS

  std::vector<std::unique_ptr<LoadedModule>> modules_;
};

}  // namespace ptxsim
