// What every entry point begins with: the state of the driver, the call, its stream.

#include "driver.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace simcuda {

Facts chosen_facts() {
  char const* const path = std::getenv("SIMCUDA_FACTS");
  return Facts(simcuda::FactsReader(path != nullptr ? path : SIMCUDA_USUAL_FACTS).read());
}

Driver& driver() {
  static auto* const it = new Driver;  // outlives whatever an interpreter does on its way out
  return *it;
}

thread_local std::vector<Context*> current;

unsigned long this_thread() { return reinterpret_cast<unsigned long>(&current); }

std::string hex(std::uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

Stream* default_stream(Context* context) {
  auto& stream = driver().default_streams[context];
  if (!stream) {
    stream = std::make_unique<Stream>();
    stream->context = context;
    stream->flags = CU_STREAM_DEFAULT;
  }
  return stream.get();
}

void spoil(Capture& capture) { capture.spoilt = true; }

Call::Call(char const* name, unsigned needs) : lock(driver().mutex), needs_(needs) {
  driver().log.emplace_back(name);
  if ((needs & kAnytime) == 0) error = check(name);
}

CUresult Call::misuse(std::string text, CUresult result) {
  driver().find(std::move(text));
  return error != CUDA_SUCCESS ? error : result;
}

CUresult Call::check(char const* name) {
  auto& d = driver();
  if (!d.is_initialised && std::strcmp(name, "cuInit") != 0) return CUDA_ERROR_NOT_INITIALIZED;
  if (d.failing_in > 0 && (d.failing == "*" || d.failing == name) && --d.failing_in == 0) {
    if (d.failing_sticks) d.sticky = d.failing_with;
    return d.failing_with;
  }
  if (d.sticky != CUDA_SUCCESS) return d.sticky;
  if (d.schedule == SIMCUDA_RANDOM && (needs_ & kRelease) == 0) progress();
  if ((needs_ & kContext) != 0 && current.empty()) return CUDA_ERROR_INVALID_CONTEXT;
  if ((needs_ & kSafe) != 0)
    for (auto const& capture : d.captures) {
      bool const forbidden = capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL ||
                             (capture->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && capture->thread == this_thread());
      if (!forbidden) continue;
      spoil(*capture);
      return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
  return CUDA_SUCCESS;
}

void Call::progress() {
  auto& d = driver();
  std::vector<OpRef> pending;
  for (auto* stream : d.streams.live())
    if (!is_done(stream->last)) pending.push_back(stream->last);
  while (!pending.empty() && d.dice() % 2 == 0) {
    OpRef const op = pending[d.dice() % pending.size()];
    if (op->progress == Progress::kPending) step(lock, op);
    if (d.dice() % 2 == 0) break;
  }
}

Context* current_context() { return current.back(); }

// The stream of a handle; null with `error` set if none exists, or it is another context's.
Stream* stream_of(Call& call, CUstream handle, char const* name, CUresult* error) {
  auto& d = driver();
  auto const number = reinterpret_cast<std::uintptr_t>(handle);
  if (current.empty()) {
    *error = CUDA_ERROR_INVALID_CONTEXT;
    return nullptr;
  }
  if (number <= 2) return default_stream(current_context());  // legacy and per-thread, as one
  if (!d.streams.has(handle)) {
    *error = call.misuse(std::string(name) + ": the stream does not exist (any more)", CUDA_ERROR_INVALID_HANDLE);
    return nullptr;
  }
  auto* const stream = reinterpret_cast<Stream*>(handle);
  if (stream->context != current_context()) {
    *error = call.misuse(std::string(name) + ": the stream is of another context than the current one",
                         CUDA_ERROR_INVALID_CONTEXT);
    return nullptr;
  }
  return stream;
}

bool is_default(Stream const* stream) {
  auto const found = driver().default_streams.find(stream->context);
  return found != driver().default_streams.end() && found->second.get() == stream;
}

}  // namespace simcuda
