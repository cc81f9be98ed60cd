// Work: who waits for whom, and what runs it.

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "driver.h"

namespace simcuda {
namespace {

using Clock = std::chrono::steady_clock;

thread_local sigjmp_buf* way_out = nullptr;

// The pages of mapped memory that a kernel has not touched yet, where that is watched.
struct Watch {
  std::vector<std::pair<char*, char*>> memory;
  std::size_t touched = 0;
};
Watch watch;  // of the one kernel that runs

bool is_watched(char* address) {
  for (auto const& [begin, end] : watch.memory)
    if (address >= begin && address < end) return true;
  return false;
}

void watch_mapped_memory() {
  auto& d = driver();
  Lock const lock(d.mutex);
  if (!d.watches_mapped) return;
  for (auto const& [base, allocation] : d.host_memory) {
    if (allocation.is_registered) continue;
    watch.memory.emplace_back(allocation.pages, allocation.pages + allocation.page_bytes);
    mprotect(allocation.pages, allocation.page_bytes, PROT_NONE);
  }
}

void unwatch_mapped_memory() {
  auto& d = driver();
  Lock const lock(d.mutex);
  for (auto const& [begin, end] : watch.memory)
    mprotect(begin, static_cast<std::size_t>(end - begin), PROT_READ | PROT_WRITE);
  watch.memory.clear();
  std::size_t const bytes = std::exchange(watch.touched, 0) * kPage;
  d.mapped_accesses += bytes;
  d.clock += static_cast<double>(bytes) / d.facts.mapped;
}

void on_stray_access(int, siginfo_t* info, void*) {
  auto* const address = static_cast<char*>(info->si_addr);
  if (is_watched(address)) {  // by the kernel, or by the host meanwhile, which does not count
    mprotect(address - reinterpret_cast<std::uintptr_t>(address) % kPage, kPage, PROT_READ | PROT_WRITE);
    if (way_out != nullptr) ++watch.touched;
    return;
  }
  if (way_out != nullptr) siglongjmp(*way_out, 1);
  signal(SIGSEGV, SIG_DFL);  // not ours
}

}  // namespace

// A kernel built for the host, whose stray accesses are the device's error and not this process's end: it is left by a
// jump, which skips destructors, so that `clean_up` has to let go of what it held.
CUresult run_kernel(char const* name, std::function<int()> const& kernel, std::function<void()> const& clean_up) {
  static std::mutex one_at_a_time;
  std::lock_guard<std::mutex> const turn(one_at_a_time);
  struct sigaction ours{}, before{};
  ours.sa_sigaction = on_stray_access;
  ours.sa_flags = SA_NODEFER | SA_SIGINFO;
  sigjmp_buf here;
  sigaction(SIGSEGV, &ours, &before);
  watch_mapped_memory();
  bool const strayed = sigsetjmp(here, 1) != 0;
  int result = CUDA_SUCCESS;
  if (!strayed) {
    way_out = &here;
    result = kernel();
  }
  way_out = nullptr;
  unwatch_mapped_memory();
  sigaction(SIGSEGV, &before, nullptr);
  if (!strayed) return static_cast<CUresult>(result);
  clean_up();
  Lock const lock(driver().mutex);
  driver().find(std::string(name) + ": touches memory that is not its own");
  return CUDA_ERROR_ILLEGAL_ADDRESS;
}

void run(Lock& lock, OpRef const& op) {
  auto& d = driver();
  std::vector<OpRef> stack{op};
  while (!stack.empty()) {
    OpRef const top = stack.back();
    if (top->progress == Progress::kRunning) {
      d.done.wait(lock, [&] { return top->progress == Progress::kDone; });
    }
    if (top->progress == Progress::kDone) {
      stack.pop_back();
      continue;
    }
    bool ready = true;
    for (auto const& earlier : top->after)
      if (earlier->progress != Progress::kDone) {
        stack.push_back(earlier);
        ready = false;
        break;
      }
    if (!ready) continue;
    top->progress = Progress::kRunning;
    CUresult result = CUDA_SUCCESS;
    if (top->work && d.sticky == CUDA_SUCCESS) {
      if (d.is_guarded) protect_all(PROT_READ | PROT_WRITE);
      auto const begin = Clock::now();
      lock.unlock();  // work may be Python, which another thread that waits for us may hold the lock of
      result = top->work();
      lock.lock();
      d.busy += std::chrono::duration<double>(Clock::now() - begin).count();
      d.clock += d.facts.work_seconds;
      if (d.is_guarded) protect_all(PROT_NONE);
    }
    if (result != CUDA_SUCCESS && d.sticky == CUDA_SUCCESS) d.sticky = result;
    top->progress = Progress::kDone;
    top->done_at = d.clock;
    top->after.clear();
    top->work = nullptr;
    d.done.notify_all();
    stack.pop_back();
  }
}

// One step of the oldest work that `op` waits for: time passes while a caller polls.
void step(Lock& lock, OpRef op) {
  for (bool deeper = true; deeper;) {
    deeper = false;
    for (auto const& earlier : op->after)
      if (earlier->progress != Progress::kDone) {
        op = earlier;
        deeper = true;
        break;
      }
  }
  run(lock, op);
}

bool is_done(OpRef const& op) { return !op || op->progress == Progress::kDone; }

void run_all(Lock& lock, Context const* context) {
  auto& d = driver();
  std::vector<OpRef> last;
  for (auto const& [owner, op] : d.orphans)
    if (owner == context) last.push_back(op);
  for (auto* stream : d.streams.live())
    if (stream->context == context && stream->last) last.push_back(stream->last);
  for (auto const& [owner, stream] : d.default_streams)
    if (owner == context && stream->last) last.push_back(stream->last);
  for (auto const& op : last) run(lock, op);
}

CUresult enqueue(Call& call, Stream* stream, char const* name, Work work, OpRef* out) {
  auto& d = driver();
  if (stream->capture) {
    if (stream->capture->spoilt) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    auto& nodes = stream->capture->graph->nodes;
    nodes.push_back({name, std::move(work), stream->tail});
    stream->tail = {nodes.size() - 1};
    return CUDA_SUCCESS;
  }
  auto op = std::make_shared<Op>();
  op->name = name;
  op->work = std::move(work);
  if (!is_done(stream->last)) op->after.push_back(stream->last);
  if (is_default(stream)) {
    for (auto* other : d.streams.live())
      if (other->context == stream->context && other->is_blocking()) {
        if (other->capture) {
          spoil(*other->capture);
          return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
        }
        if (!is_done(other->last)) op->after.push_back(other->last);
      }
  } else if (stream->is_blocking()) {
    auto const& first = default_stream(stream->context)->last;
    if (!is_done(first)) op->after.push_back(first);
  }
  stream->last = op;
  if (out != nullptr) *out = op;
  if (d.schedule == SIMCUDA_EAGER) run(call.lock, op);
  return d.sticky;
}

CUresult enqueue_and_wait(Call& call, Stream* stream, char const* name, Work work) {
  if (stream->capture) {
    spoil(*stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  OpRef op;
  CUresult const result = enqueue(call, stream, name, std::move(work), &op);
  if (result != CUDA_SUCCESS) return result;
  run(call.lock, op);
  return driver().sticky;
}

}  // namespace simcuda
