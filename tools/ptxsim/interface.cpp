// What the tests call: the interface that tools/hostcuda/worker.py asks of a library of simulated kernels, and
// PTX that a test has written itself.

#include <cstring>

#include "device.h"

#define PTXSIM_EXPORT extern "C" __attribute__((visibility("default")))

using ptxsim::Device;

// --- Libraries of kernels --------------------------------------------------------------------------------------------

PTXSIM_EXPORT void* hc_malloc(std::size_t bytes) { return Device::get().memory.allocate(bytes); }
PTXSIM_EXPORT void hc_free(void* pointer) { Device::get().memory.release(pointer); }
PTXSIM_EXPORT long long hc_launches() { return static_cast<long long>(Device::get().launches); }

// The report of the latest fault, once.
PTXSIM_EXPORT char const* hc_report() {
  static std::string given;
  given = std::move(Device::get().report);
  Device::get().report.clear();
  return given.c_str();
}

PTXSIM_EXPORT bool hc_set_order(char const* name, unsigned seed) {
  using Choice = ptxsim::Schedule::Choice;
  ptxsim::Schedule& schedule = Device::get().schedule;
  schedule.seed = seed;
  if (std::strcmp(name, "forward") == 0) {
    schedule.choice = Choice::kForward;
  } else if (std::strcmp(name, "reverse") == 0) {
    schedule.choice = Choice::kReverse;
  } else {
    schedule.choice = Choice::kRandom;
  }
  return schedule.choice != Choice::kRandom || std::strcmp(name, "random") == 0;
}

// --- PTX by hand -----------------------------------------------------------------------------------------------------

// A module, null if it is rejected; hc_report says why.
PTXSIM_EXPORT void* px_load(char const* text) {
  try {
    return &Device::get().load(text);
  } catch (ptxsim::Fault const& fault) {
    Device::get().report = fault.what();
    return nullptr;
  }
}

// `arguments` are pointers to the values of the kernel's parameters. 0: it ran.
PTXSIM_EXPORT int px_launch(void* module, char const* kernel, unsigned blocks, unsigned threads, unsigned shared,
                            void* const* arguments) {
  Device& device = Device::get();
  try {
    ptxsim::Program* const program = static_cast<ptxsim::LoadedModule*>(module)->find(kernel);
    if (program == nullptr) throw ptxsim::Fault(std::string("there is no kernel ") + kernel);
    return static_cast<int>(device.launch(*program, {{blocks, 1, 1}, {threads, 1, 1}, shared}, arguments));
  } catch (ptxsim::Fault const& fault) {
    device.report = fault.what();
    return -1;
  }
}

// 0 blocks: as many as the order chooses. weak and races: 0 or 1, weak -1: as the order chooses.
PTXSIM_EXPORT void px_set_machine(unsigned resident, int weak, int races, unsigned long long patience) {
  ptxsim::Schedule& schedule = Device::get().schedule;
  schedule.resident = resident;
  schedule.weak = weak;
  schedule.races = races != 0;
  schedule.patience = patience;
}

PTXSIM_EXPORT char const* px_counts() {
  static std::string text;
  text = Device::get().counts();
  return text.c_str();
}
PTXSIM_EXPORT void px_reset_counts() { Device::get().reset_counts(); }
