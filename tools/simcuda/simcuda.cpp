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
// stream collects nodes in place of ops. cuGetProcAddress gives an entry point of the table at the end, or a stub that
// says CUDA_ERROR_NOT_SUPPORTED under its own name.

#include "simcuda.h"

#include <cuda.h>
#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "facts.h"

namespace {

using simcuda::Facts;
using simcuda::Fresh;
using Clock = std::chrono::steady_clock;
using Lock = std::unique_lock<std::mutex>;
using Work = std::function<CUresult()>;

constexpr std::size_t kPage = 4096;
constexpr std::size_t kArena = std::size_t{1} << 38;  // addresses, not memory: never handed out twice

// ---- what there is -------------------------------------------------------------------------------------------------

enum class Progress { kPending, kRunning, kDone };

struct Op {
  char const* name;
  Work work;
  std::vector<std::shared_ptr<Op>> after;
  Progress progress = Progress::kPending;
  double done_at = 0;  // on the device's clock
};
using OpRef = std::shared_ptr<Op>;

struct Context {
  bool is_primary = false;
  int retained = 0;
  unsigned flags = 0;
};

struct Node {
  char const* name;
  Work work;
  std::vector<std::size_t> after;  // indices of earlier nodes
};

struct UserObject {
  std::shared_ptr<void> object;
  unsigned count = 0;
};
using Kept = std::vector<std::pair<UserObject*, std::shared_ptr<void>>>;  // what a graph keeps alive

struct Graph {
  std::vector<Node> nodes;
  Kept kept;
};

struct Exec {
  std::vector<Node> nodes;
  Kept kept;
  OpRef last;  // launches of one executable graph run one after another
};

struct Stream;

struct Capture {
  Stream* origin;
  std::unique_ptr<Graph> graph = std::make_unique<Graph>();
  CUstreamCaptureMode mode;
  unsigned long thread;
  bool spoilt = false;
};

struct Stream {
  Context* context;
  unsigned flags;
  int priority = 0;
  OpRef last;
  std::shared_ptr<Capture> capture;
  std::vector<std::size_t> tail;  // of the capture: what the next node comes after

  bool is_blocking() const { return (flags & CU_STREAM_NON_BLOCKING) == 0; }
};

struct Event {
  Context* context;
  unsigned flags;
  OpRef recorded;
  std::shared_ptr<Capture> capture;  // recorded in a capture: it marks nodes, not work
  std::vector<std::size_t> tail;
};

struct Kernel {
  std::string name;
  void (*function)(void** parameters, unsigned const* grid, unsigned const* block);
  std::size_t const* parameter_bytes;  // ends with 0
  bool is_loaded = false;
};

struct Module {
  Context* context = nullptr;
  std::map<std::string, std::unique_ptr<Kernel>> kernels;
};

struct Allocation {
  std::size_t bytes;
  char* pages;  // that hold it
  std::size_t page_bytes;
  unsigned flags = 0;
  bool is_registered = false;  // the user's own memory, pinned afterwards
  Context* context = nullptr;  // that it was allocated in, and goes with
};

// Handles are addresses of objects that are kept after their release, so that a stale handle is known for one.
template <typename T>
class Handles {
 public:
  explicit Handles(char const* kind) : kind(kind) {}
  T* add(std::unique_ptr<T> object) {
    live_.insert(object.get());
    all_.push_back(std::move(object));
    return all_.back().get();
  }
  bool has(void const* handle) const { return live_.count(static_cast<T*>(const_cast<void*>(handle))) != 0; }
  void remove(T* object) { live_.erase(object); }
  template <typename Condition>
  void remove_if(Condition condition) {
    for (auto found = live_.begin(); found != live_.end();) found = condition(*found) ? live_.erase(found) : ++found;
  }
  std::unordered_set<T*> const& live() const { return live_; }

  char const* const kind;

 private:
  std::unordered_set<T*> live_;
  std::vector<std::unique_ptr<T>> all_;
};

Facts chosen_facts() {
  char const* const path = std::getenv("SIMCUDA_FACTS");
  return Facts(simcuda::FactsReader(path != nullptr ? path : SIMCUDA_USUAL_FACTS).read());
}

struct Driver {
  std::mutex mutex;
  std::condition_variable done;

  Handles<Context> contexts{"context"};
  Handles<Stream> streams{"stream"};
  Handles<Event> events{"event"};
  Handles<Graph> graphs{"graph"};
  Handles<Exec> execs{"executable graph"};
  Handles<Module> modules{"module"};
  Handles<UserObject> user_objects{"user object"};
  std::map<std::uint64_t, Allocation> device_memory, host_memory;
  std::map<std::uint64_t, std::size_t> freed;  // to tell freed from never allocated
  Context primary{true, 0, 0};
  std::unordered_map<void*, std::unique_ptr<Stream>> default_streams;  // of each context
  std::vector<std::shared_ptr<Capture>> captures;
  std::vector<std::pair<Context*, OpRef>> orphans;  // last work of streams that are gone

  bool is_initialised = false;
  CUresult sticky = CUDA_SUCCESS;
  std::string failing;
  int failing_in = 0;
  bool failing_sticks = false;
  CUresult failing_with = CUDA_SUCCESS;
  int schedule = SIMCUDA_LAZY;
  std::mt19937 dice;
  bool is_guarded = false;
  Facts facts = chosen_facts();
  std::uint64_t used = 0;
  std::uint64_t seed = 0;  // of what fresh memory holds
  std::vector<std::string> log, findings;
  double busy = 0;   // seconds of the host's time that work took
  double clock = 0;  // the device's, in seconds
  std::uint64_t mapped_accesses = 0;
  bool watches_mapped = false;

  char* arena = nullptr;
  std::size_t arena_used = 0;

  void find(std::string text) { findings.push_back(std::move(text)); }
};

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

// ---- memory --------------------------------------------------------------------------------------------------------

Allocation const* holding(std::map<std::uint64_t, Allocation> const& memory, std::uint64_t address, std::size_t bytes) {
  auto next = memory.upper_bound(address);
  if (next == memory.begin()) return nullptr;
  auto const& [base, allocation] = *std::prev(next);
  return address + bytes <= base + allocation.bytes ? &allocation : nullptr;
}

// Device memory or host memory that the device can see.
CUresult check_device(char const* what, std::uint64_t address, std::size_t bytes) {
  auto& d = driver();
  if (holding(d.device_memory, address, bytes) || holding(d.host_memory, address, bytes)) return CUDA_SUCCESS;
  auto next = d.freed.upper_bound(address);
  bool const was_freed = next != d.freed.begin() && address < std::prev(next)->first + std::prev(next)->second;
  d.find(std::string(what) + (was_freed ? ": uses freed memory " : ": uses memory that is not allocated ") +
         hex(address) + " + " + std::to_string(bytes));
  return CUDA_ERROR_ILLEGAL_ADDRESS;
}

CUresult check_host(char const* what, std::uint64_t address, std::size_t bytes) {
  auto& d = driver();
  auto next = d.freed.upper_bound(address);
  if (next == d.freed.begin() || address >= std::prev(next)->first + std::prev(next)->second) return CUDA_SUCCESS;
  d.find(std::string(what) + ": uses freed host memory " + hex(address) + " + " + std::to_string(bytes));
  return CUDA_ERROR_ILLEGAL_ADDRESS;
}

void protect_all(int protection) {
  for (auto const& [base, allocation] : driver().device_memory)
    mprotect(allocation.pages, allocation.page_bytes, protection);
}

bool is_mapped(std::uint64_t address) { return holding(driver().host_memory, address, 1) != nullptr; }

// The device has copied or filled, or a kernel has read or written.
void spend_copy(std::uint64_t to, std::uint64_t from, std::size_t bytes) {
  auto& d = driver();
  bool const stays_inside = holding(d.device_memory, to, 1) && holding(d.device_memory, from, 1);  // read and written
  d.clock += static_cast<double>(bytes) / (stays_inside ? d.facts.cached / 2 : d.facts.copied);
}
void spend_fill(std::size_t bytes) { driver().clock += static_cast<double>(bytes) / driver().facts.cached; }
void spend_access(std::uint64_t address, std::size_t bytes) {
  auto& d = driver();
  bool const mapped = is_mapped(address);
  if (mapped) d.mapped_accesses += bytes;
  d.clock += static_cast<double>(bytes) / (mapped ? d.facts.mapped : d.facts.cached);
}

// What nobody has written: other bytes in every block of memory and with every seed.
void fill_fresh(char* memory, std::size_t bytes, Fresh kind) {
  if (kind == Fresh::kZeros) return;  // as the pages come
  auto& d = driver();
  std::mt19937_64 dice(d.seed++);
  for (std::size_t at = 0; at < bytes; at += sizeof(std::uint64_t)) {
    std::uint64_t const word = dice();
    std::memcpy(memory + at, &word, sizeof word);
  }
}

std::size_t rounded_up(std::size_t size, std::size_t step) { return (size + step - 1) / step * step; }

// As near to the end of its last page as may be, so that little can be written beyond it, and aligned as the facts have
// it and no better.
CUresult allocate(std::uint64_t* out, std::size_t bytes, std::map<std::uint64_t, Allocation>& memory, unsigned flags) {
  auto& d = driver();
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  bool const on_device = &memory == &d.device_memory;
  std::size_t const alignment = on_device ? d.facts.device_alignment : d.facts.host_alignment;
  std::size_t const page_bytes = rounded_up(bytes + 2 * alignment, kPage);
  if (on_device && (bytes > d.facts.memory || d.used > d.facts.memory - bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  if (d.arena == nullptr)
    d.arena = static_cast<char*>(mmap(nullptr, kArena, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (d.arena_used + page_bytes + kPage > kArena) return CUDA_ERROR_OUT_OF_MEMORY;
  char* const pages = d.arena + d.arena_used;
  d.arena_used += page_bytes + kPage;  // a page that nobody may touch between any two
  if (mprotect(pages, page_bytes, PROT_READ | PROT_WRITE) != 0) return CUDA_ERROR_OUT_OF_MEMORY;
  bool const is_mapped = (flags & CU_MEMHOSTALLOC_DEVICEMAP) != 0;
  fill_fresh(pages, page_bytes,
             on_device   ? d.facts.device_memory
             : is_mapped ? d.facts.mapped_memory
                         : d.facts.host_memory);
  if (on_device) {
    d.used += bytes;
    if (d.is_guarded) mprotect(pages, page_bytes, PROT_NONE);
  }
  *out = reinterpret_cast<std::uint64_t>(pages + page_bytes - bytes) / alignment * alignment;
  if (*out % (2 * alignment) == 0) *out -= alignment;
  memory[*out] = {bytes, pages, page_bytes, flags};
  if (!current.empty()) memory[*out].context = current.back();
  return CUDA_SUCCESS;
}

CUresult release(std::uint64_t address, std::map<std::uint64_t, Allocation>& memory) {
  auto& d = driver();
  auto const found = memory.find(address);
  if (found == memory.end()) {
    d.find("free: " + hex(address) + " is not allocated");
    return CUDA_ERROR_INVALID_VALUE;
  }
  auto const [base, allocation] = *found;
  memory.erase(found);
  if (allocation.is_registered) return CUDA_SUCCESS;
  if (&memory == &d.device_memory) d.used -= allocation.bytes;
  d.freed[base] = allocation.bytes;
  madvise(allocation.pages, allocation.page_bytes, MADV_DONTNEED);
  mprotect(allocation.pages, allocation.page_bytes, PROT_NONE);
  return CUDA_SUCCESS;
}

// ---- running work --------------------------------------------------------------------------------------------------

thread_local sigjmp_buf* way_out = nullptr;

// The pages of mapped memory that a kernel has not touched yet, if they are watched.
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

// ---- entering a call -----------------------------------------------------------------------------------------------

enum Needs : unsigned {
  kNothing = 0,
  kContext = 1,  // one is current
  kSafe = 2,     // forbidden while a stream captures, unless the capture is relaxed
  kRelease = 4,  // what was asked to go goes, whatever is returned
  kAnytime = 8,  // before cuInit, and after the device is lost
};

class Call {
 public:
  Call(char const* name, unsigned needs) : lock(driver().mutex), needs_(needs) {
    driver().log.emplace_back(name);
    if ((needs & kAnytime) == 0) error = check(name);
  }

  // What to return at once; a call that releases continues and returns `error` at its end.
  bool refused() const { return error != CUDA_SUCCESS && (needs_ & kRelease) == 0; }

  CUresult misuse(std::string text, CUresult result) {
    driver().find(std::move(text));
    return error != CUDA_SUCCESS ? error : result;
  }

  Lock lock;
  CUresult error = CUDA_SUCCESS;

 private:
  CUresult check(char const* name) {
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
        bool const forbidden =
            capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL ||
            (capture->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && capture->thread == this_thread());
        if (!forbidden) continue;
        spoil(*capture);
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
      }
    return CUDA_SUCCESS;
  }

  void progress() {
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

  unsigned needs_;
};

#define ENTER(name, needs) \
  Call call(name, needs);  \
  if (call.refused()) return call.error

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

CUresult enqueue(Call& call, Stream* stream, char const* name, Work work, OpRef* out = nullptr) {
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

// ---- device, context -----------------------------------------------------------------------------------------------

CUresult init(unsigned flags) {
  ENTER("cuInit", kNothing);
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  driver().is_initialised = true;
  return CUDA_SUCCESS;
}

CUresult driver_get_version(int* version) {
  ENTER("cuDriverGetVersion", kAnytime);
  *version = driver().facts.driver_version;
  return CUDA_SUCCESS;
}

CUresult get_error_name(CUresult error, char const** name);
CUresult get_error_string(CUresult error, char const** text);

CUresult device_get_count(int* count) {
  ENTER("cuDeviceGetCount", kNothing);
  *count = 1;
  return CUDA_SUCCESS;
}

CUresult device_get(CUdevice* device, int ordinal) {
  ENTER("cuDeviceGet", kNothing);
  if (ordinal != 0) return CUDA_ERROR_INVALID_DEVICE;
  *device = 0;
  return CUDA_SUCCESS;
}

CUresult device_get_name(char* name, int length, CUdevice device) {
  ENTER("cuDeviceGetName", kNothing);
  if (device != 0 || length <= 0) return CUDA_ERROR_INVALID_DEVICE;
  std::snprintf(name, static_cast<std::size_t>(length), "%s", driver().facts.name.c_str());
  return CUDA_SUCCESS;
}

CUresult device_get_uuid(CUuuid* uuid, CUdevice device) {
  ENTER("cuDeviceGetUuid", kNothing);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  std::memcpy(uuid->bytes, "simulated device", 16);
  return CUDA_SUCCESS;
}

CUresult device_total_mem(std::size_t* bytes, CUdevice device) {
  ENTER("cuDeviceTotalMem", kNothing);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  *bytes = driver().facts.memory;
  return CUDA_SUCCESS;
}

CUresult device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  ENTER("cuDeviceGetAttribute", kNothing);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  auto const& known = driver().facts.attributes;
  auto const found = known.find(attribute);
  // There are no pools of memory here, whatever the device has.
  *value = found != known.end() && attribute != CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED ? found->second : 0;
  return CUDA_SUCCESS;
}

CUresult device_compute_capability(int* major, int* minor, CUdevice device) {
  CUresult const result = device_get_attribute(major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
  if (result != CUDA_SUCCESS) return result;
  return device_get_attribute(minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
}

CUresult primary_retain(CUcontext* context, CUdevice device) {
  ENTER("cuDevicePrimaryCtxRetain", kNothing);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  ++driver().primary.retained;
  *context = reinterpret_cast<CUcontext>(&driver().primary);
  return CUDA_SUCCESS;
}

CUresult primary_release(CUdevice device) {
  ENTER("cuDevicePrimaryCtxRelease", kRelease);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  if (driver().primary.retained == 0)
    return call.misuse("cuDevicePrimaryCtxRelease: it is not retained", CUDA_ERROR_INVALID_CONTEXT);
  --driver().primary.retained;
  return call.error;
}

CUresult primary_get_state(CUdevice, unsigned* flags, int* active) {
  ENTER("cuDevicePrimaryCtxGetState", kNothing);
  *flags = driver().primary.flags;
  *active = driver().primary.retained > 0;
  return CUDA_SUCCESS;
}

bool is_context(CUcontext handle) {
  auto& d = driver();
  return (reinterpret_cast<Context*>(handle) == &d.primary && d.primary.retained > 0) || d.contexts.has(handle);
}

CUresult ctx_create(CUcontext* context, unsigned flags, CUdevice device) {
  ENTER("cuCtxCreate", kNothing);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  auto made = std::make_unique<Context>();
  made->flags = flags;
  current.push_back(driver().contexts.add(std::move(made)));
  *context = reinterpret_cast<CUcontext>(current.back());
  return CUDA_SUCCESS;
}

CUresult ctx_create_v4(CUcontext* context, CUctxCreateParams*, unsigned flags, CUdevice device) {
  return ctx_create(context, flags, device);
}

CUresult ctx_destroy(CUcontext handle) {
  ENTER("cuCtxDestroy", kRelease);
  auto& d = driver();
  if (!d.contexts.has(handle)) return call.misuse("cuCtxDestroy: no such context", CUDA_ERROR_INVALID_CONTEXT);
  auto* const context = reinterpret_cast<Context*>(handle);
  run_all(call.lock, context);
  for (auto* memory : {&d.device_memory, &d.host_memory}) {  // all that was made in it goes with it
    std::vector<std::uint64_t> addresses;
    for (auto const& [address, allocation] : *memory)
      if (allocation.context == context) addresses.push_back(address);
    for (auto const address : addresses) release(address, *memory);
  }
  d.streams.remove_if([&](Stream const* stream) { return stream->context == context; });
  d.modules.remove_if([&](Module const* module) { return module->context == context; });
  d.events.remove_if([&](Event const* event) { return event->context == context; });
  d.contexts.remove(context);
  if (!current.empty() && current.back() == context) current.pop_back();
  return call.error;
}

CUresult ctx_detach(CUcontext handle) { return ctx_destroy(handle); }  // nobody here attaches to one

CUresult ctx_get_current(CUcontext* context) {
  ENTER("cuCtxGetCurrent", kNothing);
  *context = current.empty() ? nullptr : reinterpret_cast<CUcontext>(current.back());
  return CUDA_SUCCESS;
}

CUresult ctx_set_current(CUcontext context) {
  ENTER("cuCtxSetCurrent", kNothing);
  if (context != nullptr && !is_context(context))
    return call.misuse("cuCtxSetCurrent: no such context", CUDA_ERROR_INVALID_CONTEXT);
  if (!current.empty()) current.pop_back();
  if (context != nullptr) current.push_back(reinterpret_cast<Context*>(context));
  return CUDA_SUCCESS;
}

CUresult ctx_push_current(CUcontext context) {
  ENTER("cuCtxPushCurrent", kNothing);
  if (!is_context(context)) return call.misuse("cuCtxPushCurrent: no such context", CUDA_ERROR_INVALID_CONTEXT);
  current.push_back(reinterpret_cast<Context*>(context));
  return CUDA_SUCCESS;
}

CUresult ctx_pop_current(CUcontext* context) {
  ENTER("cuCtxPopCurrent", kRelease);  // it may return errors of earlier work, and pops all the same
  if (current.empty()) return CUDA_ERROR_INVALID_CONTEXT;
  if (context != nullptr) *context = reinterpret_cast<CUcontext>(current.back());
  current.pop_back();
  return call.error;
}

CUresult ctx_get_device(CUdevice* device) {
  ENTER("cuCtxGetDevice", kContext);
  if (!is_context(reinterpret_cast<CUcontext>(current.back()))) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  *device = 0;
  return CUDA_SUCCESS;
}

CUresult ctx_get_device_v2(CUdevice* device, CUcontext) { return ctx_get_device(device); }

CUresult ctx_get_id(CUcontext context, unsigned long long* id) {
  ENTER("cuCtxGetId", kContext);
  *id =
      reinterpret_cast<unsigned long long>(context != nullptr ? context : reinterpret_cast<CUcontext>(current.back()));
  return CUDA_SUCCESS;
}

CUresult ctx_get_priority_range(int* least, int* greatest) {
  ENTER("cuCtxGetStreamPriorityRange", kContext);
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = -5;
  return CUDA_SUCCESS;
}

CUresult ctx_synchronize() {
  ENTER("cuCtxSynchronize", kContext | kSafe);
  run_all(call.lock, current_context());
  return driver().sticky;
}

CUresult ctx_synchronize_v2(CUcontext) { return ctx_synchronize(); }

// ---- streams and events --------------------------------------------------------------------------------------------

CUresult stream_create_with_priority(CUstream* stream, unsigned flags, int priority) {
  ENTER("cuStreamCreate", kContext);
  auto made = std::make_unique<Stream>();
  made->context = current_context();
  made->flags = flags;
  made->priority = priority;
  *stream = reinterpret_cast<CUstream>(driver().streams.add(std::move(made)));
  return CUDA_SUCCESS;
}

CUresult stream_create(CUstream* stream, unsigned flags) { return stream_create_with_priority(stream, flags, 0); }

CUresult stream_destroy(CUstream handle) {
  ENTER("cuStreamDestroy", kRelease);
  auto& d = driver();
  if (!d.streams.has(handle))
    return call.misuse("cuStreamDestroy: the stream does not exist (any more)", CUDA_ERROR_INVALID_HANDLE);
  auto* const stream = reinterpret_cast<Stream*>(handle);
  if (!is_done(stream->last)) d.orphans.emplace_back(stream->context, stream->last);
  if (stream->capture) {
    spoil(*stream->capture);
    for (auto found = d.captures.begin(); found != d.captures.end(); ++found)
      if (*found == stream->capture && (*found)->origin == stream) {
        d.captures.erase(found);
        break;
      }
  }
  d.streams.remove(stream);
  return call.error;
}

CUresult stream_synchronize(CUstream handle) {
  ENTER("cuStreamSynchronize", kContext | kSafe);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamSynchronize", &error);
  if (stream == nullptr) return error;
  if (stream->capture) {
    spoil(*stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  if (stream->last) run(call.lock, OpRef(stream->last));
  return driver().sticky;
}

CUresult stream_query(CUstream handle) {
  ENTER("cuStreamQuery", kContext | kSafe);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamQuery", &error);
  if (stream == nullptr) return error;
  if (is_done(stream->last)) return driver().sticky;
  step(call.lock, stream->last);
  return driver().sticky != CUDA_SUCCESS ? driver().sticky : CUDA_ERROR_NOT_READY;
}

CUresult stream_get_flags(CUstream handle, unsigned* flags) {
  ENTER("cuStreamGetFlags", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamGetFlags", &error);
  if (stream == nullptr) return error;
  *flags = stream->flags;
  return CUDA_SUCCESS;
}

CUresult stream_get_priority(CUstream handle, int* priority) {
  ENTER("cuStreamGetPriority", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamGetPriority", &error);
  if (stream == nullptr) return error;
  *priority = stream->priority;
  return CUDA_SUCCESS;
}

CUresult stream_get_context(CUstream handle, CUcontext* context) {
  ENTER("cuStreamGetCtx", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamGetCtx", &error);
  if (stream == nullptr) return error;
  *context = reinterpret_cast<CUcontext>(stream->context);
  return CUDA_SUCCESS;
}

CUresult stream_get_context_v2(CUstream handle, CUcontext* context, CUgreenCtx* green) {
  if (green != nullptr) *green = nullptr;
  return stream_get_context(handle, context);
}

CUresult event_create(CUevent* event, unsigned flags) {
  ENTER("cuEventCreate", kContext);
  auto made = std::make_unique<Event>();
  made->context = current_context();
  made->flags = flags;
  *event = reinterpret_cast<CUevent>(driver().events.add(std::move(made)));
  return CUDA_SUCCESS;
}

CUresult event_destroy(CUevent handle) {
  ENTER("cuEventDestroy", kRelease);
  if (!driver().events.has(handle))
    return call.misuse("cuEventDestroy: the event does not exist (any more)", CUDA_ERROR_INVALID_HANDLE);
  driver().events.remove(reinterpret_cast<Event*>(handle));
  return call.error;
}

Event* event_of(Call& call, CUevent handle, char const* name, CUresult* error) {
  if (driver().events.has(handle)) return reinterpret_cast<Event*>(handle);
  *error = call.misuse(std::string(name) + ": the event does not exist (any more)", CUDA_ERROR_INVALID_HANDLE);
  return nullptr;
}

CUresult event_record(CUevent event_handle, CUstream stream_handle) {
  ENTER("cuEventRecord", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const event = event_of(call, event_handle, "cuEventRecord", &error);
  auto* const stream = event ? stream_of(call, stream_handle, "cuEventRecord", &error) : nullptr;
  if (stream == nullptr) return error;
  if (stream->context != event->context)
    return call.misuse("cuEventRecord: event and stream are of different contexts", CUDA_ERROR_INVALID_HANDLE);
  event->capture = stream->capture;
  event->tail = stream->tail;
  if (stream->capture) return stream->capture->spoilt ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
  return enqueue(call, stream, "event", nullptr, &event->recorded);
}

CUresult event_record_with_flags(CUevent event, CUstream stream, unsigned flags) {
  if (flags != CU_EVENT_RECORD_DEFAULT) return CUDA_ERROR_NOT_SUPPORTED;
  return event_record(event, stream);
}

CUresult event_synchronize(CUevent handle) {
  ENTER("cuEventSynchronize", kContext | kSafe);
  CUresult error = CUDA_SUCCESS;
  auto* const event = event_of(call, handle, "cuEventSynchronize", &error);
  if (event == nullptr) return error;
  if (event->capture) return CUDA_ERROR_CAPTURED_EVENT;
  if (event->recorded) run(call.lock, OpRef(event->recorded));
  return driver().sticky;
}

CUresult event_query(CUevent handle) {
  ENTER("cuEventQuery", kContext | kSafe);
  CUresult error = CUDA_SUCCESS;
  auto* const event = event_of(call, handle, "cuEventQuery", &error);
  if (event == nullptr) return error;
  if (event->capture) return CUDA_ERROR_CAPTURED_EVENT;
  if (is_done(event->recorded)) return driver().sticky;
  step(call.lock, event->recorded);
  return driver().sticky != CUDA_SUCCESS ? driver().sticky : CUDA_ERROR_NOT_READY;
}

CUresult event_elapsed_time(float* milliseconds, CUevent from_handle, CUevent to_handle) {
  ENTER("cuEventElapsedTime", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const from = event_of(call, from_handle, "cuEventElapsedTime", &error);
  auto* const to = from ? event_of(call, to_handle, "cuEventElapsedTime", &error) : nullptr;
  if (to == nullptr) return error;
  if (((from->flags | to->flags) & CU_EVENT_DISABLE_TIMING) != 0 || !from->recorded || !to->recorded)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!is_done(from->recorded) || !is_done(to->recorded)) return CUDA_ERROR_NOT_READY;
  *milliseconds = static_cast<float>(1e3 * (to->recorded->done_at - from->recorded->done_at));
  return CUDA_SUCCESS;
}

CUresult stream_wait_event(CUstream stream_handle, CUevent event_handle, unsigned) {
  ENTER("cuStreamWaitEvent", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const event = event_of(call, event_handle, "cuStreamWaitEvent", &error);
  auto* const stream = event ? stream_of(call, stream_handle, "cuStreamWaitEvent", &error) : nullptr;
  if (stream == nullptr) return error;
  if (event->capture) {  // the stream joins the capture
    if (stream->capture && stream->capture != event->capture) {
      spoil(*stream->capture);
      spoil(*event->capture);
      return CUDA_ERROR_STREAM_CAPTURE_MERGE;
    }
    stream->capture = event->capture;
    stream->tail.insert(stream->tail.end(), event->tail.begin(), event->tail.end());
    return CUDA_SUCCESS;
  }
  if (stream->capture) {
    if (!event->recorded) return CUDA_SUCCESS;
    spoil(*stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
  }
  if (is_done(event->recorded)) return CUDA_SUCCESS;
  OpRef op;
  OpRef const awaited = event->recorded;
  CUresult const result = enqueue(call, stream, "wait", nullptr, &op);
  if (op->progress == Progress::kPending) op->after.push_back(awaited);
  return result;
}

// ---- graphs --------------------------------------------------------------------------------------------------------

CUresult stream_begin_capture(CUstream handle, CUstreamCaptureMode mode) {
  ENTER("cuStreamBeginCapture", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamBeginCapture", &error);
  if (stream == nullptr) return error;
  if (is_default(stream)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream;
  stream->capture->mode = mode;
  stream->capture->thread = this_thread();
  stream->tail.clear();
  driver().captures.push_back(stream->capture);
  return CUDA_SUCCESS;
}

CUresult stream_end_capture(CUstream handle, CUgraph* graph) {
  ENTER("cuStreamEndCapture", kContext | kRelease);  // whatever goes wrong, it has ended
  auto& d = driver();
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamEndCapture", &error);
  if (stream == nullptr) return error;
  *graph = nullptr;
  auto const capture = stream->capture;
  if (!capture) return CUDA_ERROR_ILLEGAL_STATE;
  if (capture->origin != stream) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != this_thread())
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  bool joined = true;
  for (auto* other : d.streams.live())
    if (other->capture == capture && other != stream) {
      for (auto const node : other->tail) {  // joined where what it did last comes before what the origin did last
        std::vector<bool> reached(capture->graph->nodes.size());
        for (auto const last : stream->tail) reached[last] = true;
        for (std::size_t n = reached.size(); n-- > 0;)
          if (reached[n])
            for (auto const earlier : capture->graph->nodes[n].after) reached[earlier] = true;
        joined = joined && reached[node];
      }
      other->capture = nullptr;
      other->tail.clear();
    }
  stream->capture = nullptr;
  stream->tail.clear();
  for (auto found = d.captures.begin(); found != d.captures.end(); ++found)
    if (*found == capture) {
      d.captures.erase(found);
      break;
    }
  if (capture->spoilt) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (!joined) return CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  if (call.error != CUDA_SUCCESS) return call.error;
  *graph = reinterpret_cast<CUgraph>(d.graphs.add(std::move(capture->graph)));
  return CUDA_SUCCESS;
}

CUresult graph_release_user_object(CUgraph graph, CUuserObject handle, unsigned) {
  ENTER("cuGraphReleaseUserObject", kRelease);
  Kept gone;
  auto& kept = reinterpret_cast<Graph*>(graph)->kept;
  for (auto found = kept.begin(); found != kept.end(); ++found)
    if (found->first == reinterpret_cast<UserObject*>(handle)) {
      gone.push_back(*found);
      kept.erase(found);
      break;
    }
  call.lock.unlock();
  return call.error;
}

CUresult stream_is_capturing(CUstream handle, CUstreamCaptureStatus* status) {
  ENTER("cuStreamIsCapturing", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuStreamIsCapturing", &error);
  if (stream == nullptr) return error;
  *status = !stream->capture          ? CU_STREAM_CAPTURE_STATUS_NONE
            : stream->capture->spoilt ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                      : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  return CUDA_SUCCESS;
}

CUresult stream_get_capture_info(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                                 CUgraphNode const** dependencies, CUgraphEdgeData const** edges, std::size_t* count) {
  CUresult const result = stream_is_capturing(handle, status);
  bool const captures = result == CUDA_SUCCESS && *status != CU_STREAM_CAPTURE_STATUS_NONE;
  auto const* const stream = captures ? reinterpret_cast<Stream*>(handle) : nullptr;
  if (id != nullptr) *id = captures ? reinterpret_cast<cuuint64_t>(stream->capture.get()) : 0;
  if (graph != nullptr) *graph = captures ? reinterpret_cast<CUgraph>(stream->capture->graph.get()) : nullptr;
  if (dependencies != nullptr) *dependencies = nullptr;
  if (edges != nullptr) *edges = nullptr;
  if (count != nullptr) *count = 0;
  return result;
}
// As cuda-bindings 12 calls it.
CUresult stream_get_capture_info_v2(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                                    CUgraphNode const** dependencies, std::size_t* count) {
  return stream_get_capture_info(handle, status, id, graph, dependencies, nullptr, count);
}

CUresult graph_create(CUgraph* graph, unsigned) {
  ENTER("cuGraphCreate", kNothing);
  *graph = reinterpret_cast<CUgraph>(driver().graphs.add(std::make_unique<Graph>()));
  return CUDA_SUCCESS;
}

CUresult graph_destroy(CUgraph handle) {
  ENTER("cuGraphDestroy", kRelease);
  if (!driver().graphs.has(handle))
    return call.misuse("cuGraphDestroy: the graph does not exist (any more)", CUDA_ERROR_INVALID_VALUE);
  driver().graphs.remove(reinterpret_cast<Graph*>(handle));
  Kept const kept = std::move(reinterpret_cast<Graph*>(handle)->kept);
  call.lock.unlock();  // what destroys a user's object may call the driver
  return call.error;
}

CUresult user_object_create(CUuserObject* out, void* object, CUhostFn destroy, unsigned count, unsigned) {
  ENTER("cuUserObjectCreate", kNothing);
  auto made = std::make_unique<UserObject>();
  made->object = std::shared_ptr<void>(object, destroy);
  made->count = count;
  *out = reinterpret_cast<CUuserObject>(driver().user_objects.add(std::move(made)));
  return CUDA_SUCCESS;
}

CUresult user_object_release(CUuserObject handle, unsigned count) {
  ENTER("cuUserObjectRelease", kRelease);
  if (!driver().user_objects.has(handle)) return call.misuse("cuUserObjectRelease: no such", CUDA_ERROR_INVALID_VALUE);
  auto* const object = reinterpret_cast<UserObject*>(handle);
  std::shared_ptr<void> last;
  if (object->count <= count) {
    driver().user_objects.remove(object);
    last = std::move(object->object);
  }
  object->count -= count;
  call.lock.unlock();
  return call.error;
}

CUresult graph_retain_user_object(CUgraph graph, CUuserObject handle, unsigned count, unsigned flags) {
  ENTER("cuGraphRetainUserObject", kNothing);
  auto* const object = reinterpret_cast<UserObject*>(handle);
  reinterpret_cast<Graph*>(graph)->kept.emplace_back(object, object->object);
  if ((flags & CU_GRAPH_USER_OBJECT_MOVE) == 0) return CUDA_SUCCESS;
  call.lock.unlock();
  return user_object_release(handle, count);
}

CUresult graph_get_nodes(CUgraph handle, CUgraphNode*, std::size_t* count) {
  ENTER("cuGraphGetNodes", kNothing);
  if (!driver().graphs.has(handle)) return CUDA_ERROR_INVALID_VALUE;
  *count = reinterpret_cast<Graph*>(handle)->nodes.size();
  return CUDA_SUCCESS;
}

CUresult graph_instantiate_with_flags(CUgraphExec* exec, CUgraph handle, unsigned long long) {
  ENTER("cuGraphInstantiate", kContext);
  if (!driver().graphs.has(handle))
    return call.misuse("cuGraphInstantiate: the graph does not exist (any more)", CUDA_ERROR_INVALID_VALUE);
  auto made = std::make_unique<Exec>();
  made->nodes = reinterpret_cast<Graph*>(handle)->nodes;
  made->kept = reinterpret_cast<Graph*>(handle)->kept;
  *exec = reinterpret_cast<CUgraphExec>(driver().execs.add(std::move(made)));
  return CUDA_SUCCESS;
}

CUresult graph_instantiate_with_params(CUgraphExec* exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS* parameters) {
  CUresult const result = graph_instantiate_with_flags(exec, graph, parameters->flags);
  parameters->result_out = result == CUDA_SUCCESS ? CUDA_GRAPH_INSTANTIATE_SUCCESS : CUDA_GRAPH_INSTANTIATE_ERROR;
  return result;
}

CUresult graph_exec_destroy(CUgraphExec handle) {
  ENTER("cuGraphExecDestroy", kRelease);
  if (!driver().execs.has(handle))
    return call.misuse("cuGraphExecDestroy: it does not exist (any more)", CUDA_ERROR_INVALID_VALUE);
  driver().execs.remove(reinterpret_cast<Exec*>(handle));
  Kept const kept = std::move(reinterpret_cast<Exec*>(handle)->kept);
  call.lock.unlock();
  return call.error;
}

CUresult graph_upload(CUgraphExec handle, CUstream) {
  ENTER("cuGraphUpload", kContext);
  return driver().execs.has(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// Nodes run in the order of their capture, which is one that their edges allow.
CUresult graph_launch(CUgraphExec handle, CUstream stream_handle) {
  ENTER("cuGraphLaunch", kContext);
  CUresult error = CUDA_SUCCESS;
  if (!driver().execs.has(handle))
    return call.misuse("cuGraphLaunch: the graph does not exist (any more)", CUDA_ERROR_INVALID_VALUE);
  auto* const stream = stream_of(call, stream_handle, "cuGraphLaunch", &error);
  if (stream == nullptr) return error;
  auto* const exec = reinterpret_cast<Exec*>(handle);
  auto const previous = exec->last;
  auto const work = [exec] {
    for (auto const& node : exec->nodes)
      if (CUresult const result = node.work ? node.work() : CUDA_SUCCESS; result != CUDA_SUCCESS) return result;
    return CUDA_SUCCESS;
  };
  if (!is_done(previous) && !stream->capture && driver().schedule == SIMCUDA_EAGER) run(call.lock, previous);
  CUresult const result = enqueue(call, stream, "graph", work, &exec->last);
  if (exec->last && exec->last->progress == Progress::kPending && !is_done(previous))
    exec->last->after.push_back(previous);
  return result;
}

// ---- memory --------------------------------------------------------------------------------------------------------

// Of a call that the device may allow while a stream captures.
constexpr unsigned unless(bool is_allowed) { return is_allowed ? kNothing : kSafe; }

CUresult mem_alloc(CUdeviceptr* address, std::size_t bytes) {
  ENTER("cuMemAlloc", kContext | unless(driver().facts.captures_allocation));
  std::uint64_t base = 0;
  CUresult const result = allocate(&base, bytes, driver().device_memory, 0);
  if (result == CUDA_SUCCESS) *address = base;
  return result;
}

CUresult mem_alloc_pitch(CUdeviceptr* address, std::size_t* pitch, std::size_t width, std::size_t height, unsigned) {
  ENTER("cuMemAllocPitch", kContext | unless(driver().facts.captures_allocation));
  *pitch = rounded_up(width, driver().facts.pitch_alignment);
  std::uint64_t base = 0;
  CUresult const result = allocate(&base, *pitch * height, driver().device_memory, 0);
  if (result == CUDA_SUCCESS) *address = base;
  return result;
}

CUresult mem_free(CUdeviceptr address) {
  ENTER("cuMemFree", kRelease);
  if (address == 0) return call.error;
  CUresult const result = release(address, driver().device_memory);
  return call.error != CUDA_SUCCESS ? call.error : result;
}

CUresult mem_alloc_async(CUdeviceptr* address, std::size_t bytes, CUstream) {
  ENTER("cuMemAllocAsync", kContext);
  std::uint64_t base = 0;
  CUresult const result = allocate(&base, bytes, driver().device_memory, 0);
  if (result == CUDA_SUCCESS) *address = base;
  return result;
}

CUresult mem_free_async(CUdeviceptr address, CUstream stream_handle) {
  ENTER("cuMemFreeAsync", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, stream_handle, "cuMemFreeAsync", &error);
  if (stream == nullptr) return error;
  return enqueue(call, stream, "free", [address] {
    Lock const lock(driver().mutex);
    return release(address, driver().device_memory);
  });
}

CUresult mem_get_info(std::size_t* free_bytes, std::size_t* total) {
  ENTER("cuMemGetInfo", kContext);
  *free_bytes = driver().facts.memory - driver().used;
  *total = driver().facts.memory;
  return CUDA_SUCCESS;
}

CUresult mem_host_alloc(void** memory, std::size_t bytes, unsigned flags) {
  ENTER("cuMemHostAlloc", kContext | unless(driver().facts.captures_allocation));
  std::uint64_t base = 0;
  CUresult const result = allocate(&base, bytes, driver().host_memory, flags);
  if (result == CUDA_SUCCESS) *memory = reinterpret_cast<void*>(base);
  return result;
}

CUresult mem_alloc_host(void** memory, std::size_t bytes) { return mem_host_alloc(memory, bytes, 0); }

CUresult mem_free_host(void* memory) {
  ENTER("cuMemFreeHost", kRelease);
  CUresult const result = release(reinterpret_cast<std::uint64_t>(memory), driver().host_memory);
  return call.error != CUDA_SUCCESS ? call.error : result;
}

CUresult mem_host_register(void* memory, std::size_t bytes, unsigned flags) {
  ENTER("cuMemHostRegister", kContext | kSafe);
  if (holding(driver().host_memory, reinterpret_cast<std::uint64_t>(memory), 1))
    return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
  driver().host_memory[reinterpret_cast<std::uint64_t>(memory)] = {bytes, nullptr, 0, flags, true};
  return CUDA_SUCCESS;
}

CUresult mem_host_unregister(void* memory) {
  ENTER("cuMemHostUnregister", kRelease);
  CUresult const result = release(reinterpret_cast<std::uint64_t>(memory), driver().host_memory);
  return call.error != CUDA_SUCCESS ? call.error : result;
}

CUresult mem_host_get_device_pointer(CUdeviceptr* address, void* memory, unsigned) {
  ENTER("cuMemHostGetDevicePointer", kContext);
  auto const* const allocation = holding(driver().host_memory, reinterpret_cast<std::uint64_t>(memory), 1);
  if (allocation == nullptr || (allocation->flags & CU_MEMHOSTALLOC_DEVICEMAP) == 0)
    return call.misuse("cuMemHostGetDevicePointer: the memory is not mapped", CUDA_ERROR_INVALID_VALUE);
  *address = reinterpret_cast<CUdeviceptr>(memory);
  return CUDA_SUCCESS;
}

CUresult pointer_attribute(void* data, CUpointer_attribute attribute, CUdeviceptr address) {
  auto& d = driver();
  auto const* const device_memory = holding(d.device_memory, address, 1);
  auto const* const allocation = device_memory ? device_memory : holding(d.host_memory, address, 1);
  if (allocation == nullptr) return CUDA_ERROR_INVALID_VALUE;
  bool const on_device = device_memory != nullptr;
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      *static_cast<unsigned*>(data) = on_device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      *static_cast<int*>(data) = 0;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      *static_cast<unsigned*>(data) = 0;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      *static_cast<CUcontext*>(data) = reinterpret_cast<CUcontext>(allocation->context);
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:  // for the current context; host memory can be read in all of them
      if (on_device && (current.empty() || allocation->context != current.back())) return CUDA_ERROR_INVALID_VALUE;
      *static_cast<CUdeviceptr*>(data) = address;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}

CUresult pointer_get_attribute(void* data, CUpointer_attribute attribute, CUdeviceptr address) {
  ENTER("cuPointerGetAttribute", kContext);
  return pointer_attribute(data, attribute, address);
}

CUresult pointer_get_attributes(unsigned count, CUpointer_attribute* attributes, void** data, CUdeviceptr address) {
  ENTER("cuPointerGetAttributes", kNothing);
  for (unsigned i = 0; i < count; ++i)
    if (pointer_attribute(data[i], attributes[i], address) != CUDA_SUCCESS)
      std::memset(data[i], 0, sizeof(int));  // as the manual has it for unknown memory
  return CUDA_SUCCESS;
}

bool is_device_address(std::uint64_t address) { return holding(driver().device_memory, address, 1) != nullptr; }

// A copy as work. Each end is checked when it runs, which is when a GPU would fault.
Work copy_work(char const* name, std::uint64_t to, std::uint64_t from, std::size_t bytes, bool to_device,
               bool from_device) {
  return [=] {
    {
      Lock const lock(driver().mutex);
      CUresult const result = to_device ? check_device(name, to, bytes) : check_host(name, to, bytes);
      CUresult const other = from_device ? check_device(name, from, bytes) : check_host(name, from, bytes);
      if (result != CUDA_SUCCESS || other != CUDA_SUCCESS) return CUDA_ERROR_ILLEGAL_ADDRESS;
      spend_copy(to, from, bytes);
    }
    std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<void const*>(from), bytes);
    return CUDA_SUCCESS;
  };
}

CUresult copy(Call& call, char const* name, std::uint64_t to, std::uint64_t from, std::size_t bytes, bool to_device,
              bool from_device, Stream* stream, bool waits) {
  auto& d = driver();
  if (to_device && !holding(d.device_memory, to, bytes) && !holding(d.host_memory, to, bytes))
    return call.misuse(std::string(name) + ": the destination " + hex(to) + " + " + std::to_string(bytes) +
                           " is not allocated on the device",
                       CUDA_ERROR_INVALID_VALUE);
  if (from_device && !holding(d.device_memory, from, bytes) && !holding(d.host_memory, from, bytes))
    return call.misuse(std::string(name) + ": the source " + hex(from) + " + " + std::to_string(bytes) +
                           " is not allocated on the device",
                       CUDA_ERROR_INVALID_VALUE);
  auto work = copy_work(name, to, from, bytes, to_device, from_device);
  if (waits) return enqueue_and_wait(call, stream, name, std::move(work));
  bool const is_pageable =
      (!to_device && !holding(d.host_memory, to, bytes)) || (!from_device && !holding(d.host_memory, from, bytes));
  if (!is_pageable) return enqueue(call, stream, name, std::move(work));
  d.log.back() += "!pageable";  // the driver goes through memory of its own, and makes the caller wait
  return enqueue_and_wait(call, stream, name, std::move(work));
}

#define COPY(NAME, FUNCTION, TO_TYPE, FROM_TYPE, TO_DEVICE, FROM_DEVICE)                                           \
  CUresult FUNCTION(TO_TYPE to, FROM_TYPE from, std::size_t bytes) {                                               \
    ENTER(NAME, kContext | kSafe);                                                                                 \
    return copy(call, NAME, (std::uint64_t)to, (std::uint64_t)from, bytes, TO_DEVICE, FROM_DEVICE,                 \
                default_stream(current_context()), true);                                                          \
  }                                                                                                                \
  CUresult FUNCTION##_async(TO_TYPE to, FROM_TYPE from, std::size_t bytes, CUstream handle) {                      \
    ENTER(NAME "Async", kContext);                                                                                 \
    CUresult error = CUDA_SUCCESS;                                                                                 \
    auto* const stream = stream_of(call, handle, NAME "Async", &error);                                            \
    if (stream == nullptr) return error;                                                                           \
    return copy(call, NAME "Async", (std::uint64_t)to, (std::uint64_t)from, bytes, TO_DEVICE, FROM_DEVICE, stream, \
                false);                                                                                            \
  }
COPY("cuMemcpyHtoD", memcpy_htod, CUdeviceptr, void const*, true, false)
COPY("cuMemcpyDtoH", memcpy_dtoh, void*, CUdeviceptr, false, true)
COPY("cuMemcpyDtoD", memcpy_dtod, CUdeviceptr, CUdeviceptr, true, true)
COPY("cuMemcpy", memcpy_any, CUdeviceptr, CUdeviceptr, is_device_address(to), is_device_address(from))
#undef COPY

CUresult memcpy_2d_async(CUDA_MEMCPY2D const* copy_of, CUstream handle) {
  ENTER("cuMemcpy2DAsync", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuMemcpy2DAsync", &error);
  if (stream == nullptr) return error;
  auto const& c = *copy_of;
  bool const from_device = c.srcMemoryType != CU_MEMORYTYPE_HOST, to_device = c.dstMemoryType != CU_MEMORYTYPE_HOST;
  auto const from = (from_device ? c.srcDevice : (std::uint64_t)c.srcHost) + c.srcY * c.srcPitch + c.srcXInBytes;
  auto const to = (to_device ? c.dstDevice : (std::uint64_t)c.dstHost) + c.dstY * c.dstPitch + c.dstXInBytes;
  std::vector<Work> rows;
  for (std::size_t row = 0; row < c.Height; ++row)
    rows.push_back(copy_work("cuMemcpy2DAsync", to + row * c.dstPitch, from + row * c.srcPitch, c.WidthInBytes,
                             to_device, from_device));
  Work work = [rows] {
    for (auto const& row : rows)
      if (CUresult const result = row(); result != CUDA_SUCCESS) return result;
    return CUDA_SUCCESS;
  };
  bool const is_pageable = (!from_device && !holding(driver().host_memory, from, c.WidthInBytes)) ||
                           (!to_device && !holding(driver().host_memory, to, c.WidthInBytes));
  if (!is_pageable) return enqueue(call, stream, "cuMemcpy2DAsync", std::move(work));
  driver().log.back() += "!pageable";
  return enqueue_and_wait(call, stream, "cuMemcpy2DAsync", std::move(work));
}

template <typename T>
CUresult fill_async(char const* name, CUdeviceptr to, T value, std::size_t count, CUstream handle, bool waits) {
  ENTER(name, waits ? kContext | kSafe : kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, name, &error);
  if (stream == nullptr) return error;
  Work work = [=] {
    {
      Lock const lock(driver().mutex);
      if (CUresult const result = check_device(name, to, count * sizeof(T)); result != CUDA_SUCCESS) return result;
      spend_fill(count * sizeof(T));
    }
    for (std::size_t i = 0; i < count; ++i) reinterpret_cast<T*>(to)[i] = value;
    return CUDA_SUCCESS;
  };
  return waits ? enqueue_and_wait(call, stream, name, std::move(work)) : enqueue(call, stream, name, std::move(work));
}

CUresult memset_d8(CUdeviceptr to, unsigned char value, std::size_t count) {
  return fill_async("cuMemsetD8", to, value, count, nullptr, true);
}
CUresult memset_d8_async(CUdeviceptr to, unsigned char value, std::size_t count, CUstream stream) {
  return fill_async("cuMemsetD8Async", to, value, count, stream, false);
}
CUresult memset_d32_async(CUdeviceptr to, unsigned value, std::size_t count, CUstream stream) {
  return fill_async("cuMemsetD32Async", to, value, count, stream, false);
}

// ---- kernels -------------------------------------------------------------------------------------------------------

// What CUDA_MODULE_LOADING says, else what the device does by itself.
bool loads_lazily() {
  char const* const mode = std::getenv("CUDA_MODULE_LOADING");
  if (mode != nullptr && std::strcmp(mode, "EAGER") == 0) return false;
  if (mode != nullptr && std::strcmp(mode, "LAZY") == 0) return true;
  return driver().facts.loads_lazily;
}

// A kernel is loaded with its module where loading is eager. Else cuModuleGetFunction loads it, or whatever needs it
// first; a capture may forbid that, which then invalidates it.
CUresult load_kernel(bool& is_loaded, Stream* stream) {
  if (is_loaded || !loads_lazily()) return CUDA_SUCCESS;
  if (stream != nullptr && stream->capture && !driver().facts.captures_first_launch) {
    spoil(*stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  is_loaded = true;
  return CUDA_SUCCESS;
}

// Images are not read: a kernel's name finds `simcuda_kernel_NAME` and `simcuda_parameters_NAME` in the library
// that SIMCUDA_KERNELS names.
Kernel* kernel_of(Module& module, char const* name) {
  auto& kernel = module.kernels[name];
  if (kernel) return kernel.get();
  static void* const library = [] {
    char const* const path = std::getenv("SIMCUDA_KERNELS");
    return path != nullptr ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
  }();
  if (library == nullptr) return nullptr;
  auto* const function = dlsym(library, (std::string("simcuda_kernel_") + name).c_str());
  auto* const sizes = dlsym(library, (std::string("simcuda_parameters_") + name).c_str());
  if (function == nullptr || sizes == nullptr) return nullptr;
  kernel = std::make_unique<Kernel>();
  kernel->name = name;
  kernel->function = reinterpret_cast<decltype(Kernel::function)>(function);
  kernel->parameter_bytes = static_cast<std::size_t const*>(sizes);
  return kernel.get();
}

template <typename Handle>
CUresult load(Handle* module, char const* name) {
  ENTER(name, kContext | unless(driver().facts.captures_module_load));
  auto made = std::make_unique<Module>();
  made->context = current_context();
  *module = reinterpret_cast<Handle>(driver().modules.add(std::move(made)));
  return CUDA_SUCCESS;
}

template <typename Handle>
CUresult unload(Handle module, char const* name) {
  ENTER(name, kRelease);
  if (!driver().modules.has(module))
    return call.misuse(std::string(name) + ": no such module", CUDA_ERROR_INVALID_HANDLE);
  driver().modules.remove(reinterpret_cast<Module*>(module));
  return call.error;
}

template <typename Handle, typename Out>
CUresult find_kernel(Out* out, Handle module, char const* kernel, char const* name) {
  bool const loads = std::is_same_v<Out, CUfunction>;
  ENTER(name, kContext | unless(!loads || !loads_lazily() || driver().facts.captures_first_launch));
  if (!driver().modules.has(module))
    return call.misuse(std::string(name) + ": no such module", CUDA_ERROR_INVALID_HANDLE);
  auto* const found = kernel_of(*reinterpret_cast<Module*>(module), kernel);
  *out = reinterpret_cast<Out>(found);
  if (found == nullptr) return CUDA_ERROR_NOT_FOUND;
  return loads ? load_kernel(found->is_loaded, nullptr) : CUDA_SUCCESS;
}

CUresult module_load_data(CUmodule* module, void const*) { return load(module, "cuModuleLoadData"); }
CUresult module_load_data_ex(CUmodule* module, void const*, unsigned, CUjit_option*, void**) {
  return load(module, "cuModuleLoadDataEx");
}
CUresult module_unload(CUmodule module) { return unload(module, "cuModuleUnload"); }
CUresult module_get_function(CUfunction* out, CUmodule module, char const* kernel) {
  return find_kernel(out, module, kernel, "cuModuleGetFunction");
}
CUresult library_load_data(CUlibrary* library, void const*, CUjit_option*, void**, unsigned, CUlibraryOption*, void**,
                           unsigned) {
  return load(library, "cuLibraryLoadData");
}
CUresult library_unload(CUlibrary library) { return unload(library, "cuLibraryUnload"); }
CUresult library_get_kernel(CUkernel* out, CUlibrary library, char const* kernel) {
  return find_kernel(out, library, kernel, "cuLibraryGetKernel");
}
CUresult kernel_get_function(CUfunction* out, CUkernel kernel) {
  ENTER("cuKernelGetFunction", kContext);
  *out = reinterpret_cast<CUfunction>(kernel);
  return CUDA_SUCCESS;
}
CUresult module_get_loading_mode(CUmoduleLoadingMode* mode) {
  ENTER("cuModuleGetLoadingMode", kNothing);
  *mode = loads_lazily() ? CU_MODULE_LAZY_LOADING : CU_MODULE_EAGER_LOADING;
  return CUDA_SUCCESS;
}

// Deprecated: a launch names its shape itself.
CUresult func_set_block_shape(CUfunction, int, int, int) {
  ENTER("cuFuncSetBlockShape", kContext);
  return CUDA_SUCCESS;
}

// The buffer that holds all parameters one after another, where a caller gives one in place of a pointer to each.
char const* packed_parameters(void** extra) {
  for (; extra != nullptr && *extra != CU_LAUNCH_PARAM_END; extra += 2)
    if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) return static_cast<char const*>(extra[1]);
  return nullptr;
}

CUresult launch_kernel(CUfunction handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                       unsigned block_y, unsigned block_z, unsigned, CUstream stream_handle, void** parameters,
                       void** extra) {
  ENTER("cuLaunchKernel", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, stream_handle, "cuLaunchKernel", &error);
  if (stream == nullptr) return error;
  if (std::uint64_t{block_x} * block_y * block_z > 1024 || block_x * block_y * block_z == 0 ||
      std::uint64_t{grid_x} * grid_y * grid_z == 0)
    return CUDA_ERROR_INVALID_VALUE;
  auto* const kernel = reinterpret_cast<Kernel*>(handle);
  if (CUresult const result = load_kernel(kernel->is_loaded, stream); result != CUDA_SUCCESS) return result;
  auto values = std::make_shared<std::vector<std::vector<char>>>();
  char const* packed = packed_parameters(extra);
  std::size_t offset = 0;
  for (std::size_t i = 0; kernel->parameter_bytes[i] != 0; ++i) {
    std::size_t const size = kernel->parameter_bytes[i];
    offset = (offset + size - 1) / size * size;  // packed ones are aligned to their own size
    auto const* const bytes = packed != nullptr ? packed + offset : static_cast<char const*>(parameters[i]);
    values->emplace_back(bytes, bytes + size);
    offset += size;
  }
  std::array<unsigned, 3> const grid{grid_x, grid_y, grid_z}, block{block_x, block_y, block_z};
  return enqueue(call, stream, "kernel", [=] {
    std::vector<void*> pointers;
    for (auto& value : *values) pointers.push_back(value.data());
    auto const launch = [&] {
      kernel->function(pointers.data(), grid.data(), block.data());
      return 0;
    };
    return run_kernel(kernel->name.c_str(), launch, [] {});
  });
}

CUresult launch_kernel_ex(CUlaunchConfig const* config, CUfunction function, void** parameters, void** extra) {
  return launch_kernel(function, config->gridDimX, config->gridDimY, config->gridDimZ, config->blockDimX,
                       config->blockDimY, config->blockDimZ, config->sharedMemBytes, config->hStream, parameters,
                       extra);
}

CUresult launch_host_function(CUstream handle, CUhostFn function, void* argument) {
  ENTER("cuLaunchHostFunc", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, handle, "cuLaunchHostFunc", &error);
  if (stream == nullptr) return error;
  return enqueue(call, stream, "host function", [=] {
    function(argument);
    return CUDA_SUCCESS;
  });
}

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

// ---- the table -----------------------------------------------------------------------------------------------------

struct EntryPoint {
  char const* name;
  int since;  // the CUDA version of this signature
  void* function;
};

// The declaration of cuda.h must agree, or this does not compile.
#define ENTRY(NAME, DECLARED, SINCE, FUNCTION) \
  EntryPoint { NAME, SINCE, reinterpret_cast<void*>(static_cast<decltype(&::DECLARED)>(&FUNCTION)) }
#define SAME(DECLARED, SINCE, FUNCTION) ENTRY(#DECLARED, DECLARED, SINCE, FUNCTION)
#define BARE(NAME, SINCE, FUNCTION) \
  EntryPoint { NAME, SINCE, reinterpret_cast<void*>(&FUNCTION) }

EntryPoint const kEntryPoints[] = {
    SAME(cuInit, 2000, init),
    SAME(cuDriverGetVersion, 2020, driver_get_version),
    SAME(cuGetErrorName, 6000, get_error_name),
    SAME(cuGetErrorString, 6000, get_error_string),
    SAME(cuDeviceGetCount, 2000, device_get_count),
    SAME(cuDeviceGet, 2000, device_get),
    SAME(cuDeviceGetName, 2000, device_get_name),
    ENTRY("cuDeviceGetUuid", cuDeviceGetUuid_v2, 9020, device_get_uuid),
    ENTRY("cuDeviceTotalMem", cuDeviceTotalMem_v2, 2000, device_total_mem),
    SAME(cuDeviceGetAttribute, 2000, device_get_attribute),
    BARE("cuDeviceComputeCapability", 2000, device_compute_capability),
    SAME(cuDevicePrimaryCtxRetain, 7000, primary_retain),
    ENTRY("cuDevicePrimaryCtxRelease", cuDevicePrimaryCtxRelease_v2, 7000, primary_release),
    SAME(cuDevicePrimaryCtxGetState, 7000, primary_get_state),
    BARE("cuCtxCreate", 2000, ctx_create),
    BARE("cuCtxCreate", 12050, ctx_create_v4),
    ENTRY("cuCtxDestroy", cuCtxDestroy_v2, 4000, ctx_destroy),
    BARE("cuCtxDetach", 2000, ctx_detach),
    SAME(cuCtxGetCurrent, 4000, ctx_get_current),
    SAME(cuCtxSetCurrent, 4000, ctx_set_current),
    ENTRY("cuCtxPushCurrent", cuCtxPushCurrent_v2, 4000, ctx_push_current),
    ENTRY("cuCtxPopCurrent", cuCtxPopCurrent_v2, 4000, ctx_pop_current),
    BARE("cuCtxGetDevice", 2000, ctx_get_device),
    BARE("cuCtxGetDevice", 13000, ctx_get_device_v2),
    SAME(cuCtxGetId, 12000, ctx_get_id),
    SAME(cuCtxGetStreamPriorityRange, 5050, ctx_get_priority_range),
    BARE("cuCtxSynchronize", 2000, ctx_synchronize),
    BARE("cuCtxSynchronize", 13000, ctx_synchronize_v2),
    SAME(cuStreamCreate, 2000, stream_create),
    SAME(cuStreamCreateWithPriority, 5050, stream_create_with_priority),
    ENTRY("cuStreamDestroy", cuStreamDestroy_v2, 4000, stream_destroy),
    SAME(cuStreamSynchronize, 2000, stream_synchronize),
    SAME(cuStreamQuery, 2000, stream_query),
    SAME(cuStreamGetFlags, 5050, stream_get_flags),
    SAME(cuStreamGetPriority, 5050, stream_get_priority),
    BARE("cuStreamGetCtx", 9020, stream_get_context),
    BARE("cuStreamGetCtx", 12050, stream_get_context_v2),
    SAME(cuStreamWaitEvent, 3020, stream_wait_event),
    BARE("cuStreamBeginCapture", 10010, stream_begin_capture),
    SAME(cuStreamEndCapture, 10000, stream_end_capture),
    SAME(cuStreamIsCapturing, 10000, stream_is_capturing),
    BARE("cuStreamGetCaptureInfo", 11030, stream_get_capture_info_v2),
    BARE("cuStreamGetCaptureInfo", 12030, stream_get_capture_info),
    SAME(cuEventCreate, 2000, event_create),
    ENTRY("cuEventDestroy", cuEventDestroy_v2, 4000, event_destroy),
    SAME(cuEventRecord, 2000, event_record),
    SAME(cuEventRecordWithFlags, 11010, event_record_with_flags),
    SAME(cuEventSynchronize, 2000, event_synchronize),
    SAME(cuEventQuery, 2000, event_query),
    BARE("cuEventElapsedTime", 2000, event_elapsed_time),
    SAME(cuGraphCreate, 10000, graph_create),
    SAME(cuGraphDestroy, 10000, graph_destroy),
    SAME(cuGraphGetNodes, 10000, graph_get_nodes),
    BARE("cuGraphInstantiate", 12000, graph_instantiate_with_flags),
    SAME(cuGraphInstantiateWithFlags, 11040, graph_instantiate_with_flags),
    SAME(cuGraphInstantiateWithParams, 12000, graph_instantiate_with_params),
    SAME(cuGraphExecDestroy, 10000, graph_exec_destroy),
    SAME(cuGraphUpload, 11010, graph_upload),
    SAME(cuUserObjectCreate, 11030, user_object_create),
    SAME(cuUserObjectRelease, 11030, user_object_release),
    SAME(cuGraphRetainUserObject, 11030, graph_retain_user_object),
    SAME(cuGraphReleaseUserObject, 11030, graph_release_user_object),
    SAME(cuGraphLaunch, 10000, graph_launch),
    ENTRY("cuMemAlloc", cuMemAlloc_v2, 3020, mem_alloc),
    ENTRY("cuMemAllocPitch", cuMemAllocPitch_v2, 3020, mem_alloc_pitch),
    ENTRY("cuMemFree", cuMemFree_v2, 3020, mem_free),
    SAME(cuMemAllocAsync, 11020, mem_alloc_async),
    SAME(cuMemFreeAsync, 11020, mem_free_async),
    ENTRY("cuMemGetInfo", cuMemGetInfo_v2, 3020, mem_get_info),
    SAME(cuMemHostAlloc, 2020, mem_host_alloc),
    ENTRY("cuMemAllocHost", cuMemAllocHost_v2, 3020, mem_alloc_host),
    SAME(cuMemFreeHost, 2000, mem_free_host),
    ENTRY("cuMemHostRegister", cuMemHostRegister_v2, 6050, mem_host_register),
    SAME(cuMemHostUnregister, 4000, mem_host_unregister),
    ENTRY("cuMemHostGetDevicePointer", cuMemHostGetDevicePointer_v2, 3020, mem_host_get_device_pointer),
    SAME(cuPointerGetAttribute, 4000, pointer_get_attribute),
    SAME(cuPointerGetAttributes, 7000, pointer_get_attributes),
    ENTRY("cuMemcpyHtoD", cuMemcpyHtoD_v2, 3020, memcpy_htod),
    ENTRY("cuMemcpyDtoH", cuMemcpyDtoH_v2, 3020, memcpy_dtoh),
    ENTRY("cuMemcpyDtoD", cuMemcpyDtoD_v2, 3020, memcpy_dtod),
    SAME(cuMemcpy, 4000, memcpy_any),
    ENTRY("cuMemcpyHtoDAsync", cuMemcpyHtoDAsync_v2, 3020, memcpy_htod_async),
    ENTRY("cuMemcpyDtoHAsync", cuMemcpyDtoHAsync_v2, 3020, memcpy_dtoh_async),
    ENTRY("cuMemcpyDtoDAsync", cuMemcpyDtoDAsync_v2, 3020, memcpy_dtod_async),
    SAME(cuMemcpyAsync, 4000, memcpy_any_async),
    ENTRY("cuMemcpy2DAsync", cuMemcpy2DAsync_v2, 3020, memcpy_2d_async),
    ENTRY("cuMemsetD8", cuMemsetD8_v2, 3020, memset_d8),
    SAME(cuMemsetD8Async, 3020, memset_d8_async),
    SAME(cuMemsetD32Async, 3020, memset_d32_async),
    SAME(cuModuleLoadData, 2000, module_load_data),
    SAME(cuModuleLoadDataEx, 2010, module_load_data_ex),
    SAME(cuModuleUnload, 2000, module_unload),
    SAME(cuModuleGetFunction, 2000, module_get_function),
    SAME(cuModuleGetLoadingMode, 11070, module_get_loading_mode),
    SAME(cuLibraryLoadData, 12000, library_load_data),
    SAME(cuLibraryUnload, 12000, library_unload),
    SAME(cuLibraryGetKernel, 12000, library_get_kernel),
    SAME(cuKernelGetFunction, 12000, kernel_get_function),
    BARE("cuFuncSetBlockShape", 2000, func_set_block_shape),
    SAME(cuLaunchKernel, 4000, launch_kernel),
    SAME(cuLaunchKernelEx, 11060, launch_kernel_ex),
    SAME(cuLaunchHostFunc, 10000, launch_host_function),
};

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

// ---- what the outside sees -----------------------------------------------------------------------------------------

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
