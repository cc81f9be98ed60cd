// A stand-in for libcuda.so.1: the CUDA driver API on host memory, made to be used by the real cuda-python in tests.
//
// It is stricter than a GPU. Work that was queued runs as late as it may - when somebody synchronises - or by the dice,
// so that a missing synchronise reads what the memory held before. Fresh memory holds what the facts say of it: by
// default dice, others in every block. Freed memory is never handed out again and queued work that touches it fails.
// Nothing that frees waits for work by itself. A call that CUDA forbids while a stream captures is rejected and
// invalidates the capture, per thread or for all, depending on the capture's mode.
//
// What a device does otherwise than another one - attributes, alignment, fresh memory, what a capture forbids, how fast
// memory is - stands in the file of facts that SIMCUDA_FACTS names, see facts.py. Its clock counts work and bytes, so
// that what events measure is the same in every run.
//
// What it says about calls it says about OUR calls: order, lifetimes, errors, counts. It says nothing about NVIDIA's
// code.
//
// How it is built: every entry point opens with a `Call`, which locks, logs, and fails if an error was requested
// or sticks. Work is an `Op` with the ops that it must come after; to wait is to run an op after those. A captured
// stream collects nodes in place of ops. cuGetProcAddress gives an entry point of entry_points.h, or a stub that says
// CUDA_ERROR_NOT_SUPPORTED under its own name.
//
// driver.h has what there is; driver.cpp begins a call, and work.cpp runs work. Entry points are in contexts.cpp,
// streams.cpp, graphs.cpp, memory.cpp, copies.cpp and launches.cpp. Here are their table, and what tests ask for.

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "driver.h"

namespace simcuda {
namespace {

// ---- errors by name ------------------------------------------------------------------------------------------------

struct ErrorText {
  CUresult error;
  char const *name, *text;
};
constexpr ErrorText kErrors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
     "operation would make the legacy stream depend on a capturing blocking stream"},
};

ErrorText const* error_text(CUresult error) {
  for (auto const& known : kErrors)
    if (known.error == error) return &known;
  return nullptr;
}

}  // namespace

CUresult get_error_name(CUresult error, char const** name) {
  auto const* const known = error_text(error);
  *name = known != nullptr ? known->name : "CUDA_ERROR_OTHER";
  return CUDA_SUCCESS;
}

CUresult get_error_string(CUresult error, char const** text) {
  auto const* const known = error_text(error);
  *text = known != nullptr ? known->text : "another error";
  return CUDA_SUCCESS;
}

namespace {

// ---- the table -----------------------------------------------------------------------------------------------------

struct EntryPoint {
  char const* name;
  int since;  // the CUDA version of this signature
  void* function;
};

// The declaration of cuda.h must agree, or this does not compile.
#define SIMCUDA_ENTRY(NAME, DECLARED, SINCE, FUNCTION) \
  {NAME, SINCE, reinterpret_cast<void*>(static_cast<decltype(&::DECLARED)>(&FUNCTION))},
#define SIMCUDA_BARE(NAME, SINCE, FUNCTION) {NAME, SINCE, reinterpret_cast<void*>(&FUNCTION)},
EntryPoint const kEntryPoints[] = {SIMCUDA_ENTRY_POINTS(SIMCUDA_ENTRY, SIMCUDA_BARE)};

// Whatever else is asked for gets an address of its own, so that the log can name what was called.
constexpr std::size_t kStubs = 1024;
std::array<std::string, kStubs> stub_names;

template <std::size_t I>
CUresult stub() {
  Call call(stub_names[I].c_str(), kAnytime);
  return CUDA_ERROR_NOT_SUPPORTED;
}

template <std::size_t... I>
constexpr std::array<CUresult (*)(), sizeof...(I)> make_stubs(std::index_sequence<I...>) {
  return {&stub<I>...};
}

void* stub_for(char const* name) {
  static constexpr auto stubs = make_stubs(std::make_index_sequence<kStubs>{});
  for (std::size_t i = 0; i < kStubs; ++i) {
    if (stub_names[i].empty()) stub_names[i] = name;
    if (stub_names[i] == name) return reinterpret_cast<void*>(stubs[i]);
  }
  std::abort();  // more names than stubs: raise kStubs
}

CUresult get_proc_address(char const* name, void** function, int version, cuuint64_t,
                          CUdriverProcAddressQueryResult* status) {
  EntryPoint const* best = nullptr;
  for (auto const& entry : kEntryPoints)
    if (std::strcmp(entry.name, name) == 0 && entry.since <= version && (best == nullptr || entry.since > best->since))
      best = &entry;
  Lock const lock(driver().mutex);
  *function = best != nullptr                              ? best->function
              : std::strcmp(name, "cuGetProcAddress") == 0 ? reinterpret_cast<void*>(&get_proc_address)
                                                           : stub_for(name);
  if (status != nullptr) *status = CU_GET_PROC_ADDRESS_SUCCESS;
  return CUDA_SUCCESS;
}

std::size_t give(std::string const& text, char* buffer, std::size_t size) {
  if (size > 0) {
    std::size_t const length = std::min(text.size(), size - 1);
    std::memcpy(buffer, text.data(), length);
    buffer[length] = 0;
  }
  return text.size();
}

std::string joined(std::vector<std::string> const& lines) {
  std::string text;
  for (auto const& line : lines) text += line + "\n";
  return text;
}

}  // namespace
}  // namespace simcuda

// ---- what the outside sees -----------------------------------------------------------------------------------------

using namespace simcuda;

extern "C" __attribute__((visibility("default"))) CUresult cuGetProcAddress_v2(char const* name, void** function,
                                                                               int version, cuuint64_t flags,
                                                                               CUdriverProcAddressQueryResult* status) {
  return get_proc_address(name, function, version, flags, status);
}

void simcuda_reset() {
  Lock const lock(driver().mutex);
  auto& d = driver();
  d.sticky = CUDA_SUCCESS;
  d.failing_in = 0;
  d.schedule = SIMCUDA_LAZY;
  if (d.is_guarded) protect_all(PROT_READ | PROT_WRITE);
  d.is_guarded = false;
  d.facts = chosen_facts();
  d.seed = 0;
  d.watches_mapped = false;
  d.mapped_accesses = 0;
  d.log.clear();
  d.findings.clear();
  d.orphans.clear();
  d.busy = 0;
}

void simcuda_schedule(int schedule, unsigned seed) {
  Lock const lock(driver().mutex);
  driver().schedule = schedule;
  driver().dice.seed(seed);
}

void simcuda_fail(char const* entry_point, int nth, int error, int sticks) {
  Lock const lock(driver().mutex);
  driver().failing = entry_point;
  driver().failing_in = nth;
  driver().failing_sticks = sticks != 0;
  driver().failing_with = static_cast<CUresult>(error);
}

int simcuda_failed() {
  Lock const lock(driver().mutex);
  return driver().failing_in == 0;
}

void simcuda_kill(int error) {
  Lock const lock(driver().mutex);
  driver().sticky = static_cast<CUresult>(error);
}

void simcuda_use_facts(char const* path) {
  Lock const lock(driver().mutex);
  driver().facts = Facts(simcuda::FactsReader(path).read());
}

void simcuda_set_fact(char const* name, char const* value) {
  Lock const lock(driver().mutex);
  auto facts = driver().facts.flat;
  if (facts.count(name) == 0) simcuda::refuse(std::string(name) + ": there is no such fact");
  facts[name] = value;
  driver().facts = Facts(std::move(facts));
}

std::size_t simcuda_fact(char const* name, char* buffer, std::size_t size) {
  Lock const lock(driver().mutex);
  return give(driver().facts.text(name), buffer, size);
}

void simcuda_seed(std::uint64_t seed) {
  Lock const lock(driver().mutex);
  driver().seed = seed;
}

void simcuda_watch_mapped() {
  Lock const lock(driver().mutex);
  driver().watches_mapped = true;
}

std::uint64_t simcuda_mapped_accesses() {
  Lock const lock(driver().mutex);
  return driver().mapped_accesses;
}

void simcuda_guard(int on) {
  Lock const lock(driver().mutex);
  driver().is_guarded = on != 0;
  protect_all(on != 0 ? PROT_NONE : PROT_READ | PROT_WRITE);
}

std::size_t simcuda_take_log(char* buffer, std::size_t size) {
  Lock const lock(driver().mutex);
  std::size_t const length = give(joined(driver().log), buffer, size);
  if (length < size) driver().log.clear();
  return length;
}

std::size_t simcuda_findings(char* buffer, std::size_t size) {
  Lock const lock(driver().mutex);
  return give(joined(driver().findings), buffer, size);
}

std::size_t simcuda_alive(char* buffer, std::size_t size) {
  Lock const lock(driver().mutex);
  auto& d = driver();
  std::vector<std::string> lines;
  auto const say = [&](char const* kind, std::size_t count) {
    if (count > 0) lines.push_back(std::string(kind) + " " + std::to_string(count));
  };
  say(d.contexts.kind, d.contexts.live().size());
  say("primary context", static_cast<std::size_t>(d.primary.retained));
  say(d.streams.kind, d.streams.live().size());
  say(d.events.kind, d.events.live().size());
  say(d.graphs.kind, d.graphs.live().size());
  say(d.execs.kind, d.execs.live().size());
  say(d.modules.kind, d.modules.live().size());
  say("device memory", d.device_memory.size());
  say("host memory", d.host_memory.size());
  say("capture", d.captures.size());
  return give(joined(lines), buffer, size);
}

std::size_t simcuda_contexts(char* buffer, std::size_t size) {
  std::vector<std::string> lines;
  for (auto context = current.rbegin(); context != current.rend(); ++context)
    lines.push_back(hex(reinterpret_cast<std::uint64_t>(*context)));
  return give(joined(lines), buffer, size);
}

double simcuda_busy_seconds() {
  Lock const lock(driver().mutex);
  return driver().busy;
}

int simcuda_launch(void* stream_handle, char const* name, int (*function)(void*), void* argument,
                   SimcudaRange const* ranges, std::size_t range_count) {
  ENTER("kernel launch", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, static_cast<CUstream>(stream_handle), name, &error);
  if (stream == nullptr) return error;
  std::vector<SimcudaRange> const touched(ranges, ranges + range_count);
  std::string const what = name;
  return enqueue(call, stream, "launch", [=] {
    {
      Lock const lock(driver().mutex);
      for (auto const& range : touched)
        if (CUresult const result = check_device(what.c_str(), range.address, range.bytes); result != CUDA_SUCCESS)
          return result;
      for (auto const& range : touched) spend_access(range.address, range.bytes);
    }
    return static_cast<CUresult>(function(argument));
  });
}

void simcuda_enqueue(void* stream_handle, int (*run)(void*), void (*destroy)(void*), void* context) {
  std::shared_ptr<void> const owned(context, destroy);
  Call call("kernel launch", kContext);
  if (call.refused()) return;
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, static_cast<CUstream>(stream_handle), "kernel launch", &error);
  if (stream == nullptr) return;
  enqueue(call, stream, "kernel",
          [run, owned] { return run_kernel("kernel", [&] { return run(owned.get()); }, [&] { run(nullptr); }); });
}

int simcuda_refuses_load(void* stream_handle) {
  Lock const lock(driver().mutex);
  bool is_loaded = false;
  bool const is_stream = driver().streams.has(stream_handle);
  return load_kernel(is_loaded, is_stream ? static_cast<Stream*>(stream_handle) : nullptr);
}
