// Inside the simulated driver: what there is, and what its files share. simcuda.cpp says how it is built.
#pragma once

#include <cuda.h>

#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "entry_points.h"
#include "facts.h"
#include "simcuda.h"

namespace simcuda {

using Lock = std::unique_lock<std::mutex>;
using Work = std::function<CUresult()>;

constexpr std::size_t kPage = 4096;

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

Facts chosen_facts();  // those that SIMCUDA_FACTS names

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

Driver& driver();
extern thread_local std::vector<Context*> current;  // the thread's stack of them
unsigned long this_thread();
std::string hex(std::uint64_t value);

// ---- entering a call: driver.cpp -----------------------------------------------------------------------------------

enum Needs : unsigned {
  kNothing = 0,
  kContext = 1,  // one is current
  kSafe = 2,     // forbidden while a stream captures, unless the capture is relaxed
  kRelease = 4,  // what was asked to go goes, whatever is returned
  kAnytime = 8,  // before cuInit, and after the device is lost
};

// Of a call that the device may allow while a stream captures.
constexpr unsigned unless(bool is_allowed) { return is_allowed ? kNothing : kSafe; }

class Call {
 public:
  Call(char const* name, unsigned needs);

  // What to return at once; a call that releases continues and returns `error` at its end.
  bool refused() const { return error != CUDA_SUCCESS && (needs_ & kRelease) == 0; }

  // Notes what was misused, and returns what the call returns then.
  CUresult misuse(std::string text, CUresult result);

  Lock lock;
  CUresult error = CUDA_SUCCESS;

 private:
  CUresult check(char const* name);
  void progress();

  unsigned needs_;
};

#define ENTER(name, needs) \
  Call call(name, needs);  \
  if (call.refused()) return call.error

Context* current_context();
Stream* default_stream(Context* context);
bool is_default(Stream const* stream);
// The stream of a handle; null with `error` set if none exists, or it is another context's.
Stream* stream_of(Call& call, CUstream handle, char const* name, CUresult* error);
void spoil(Capture& capture);

// ---- work: work.cpp ------------------------------------------------------------------------------------------------

void run(Lock& lock, OpRef const& op);
// One step of the oldest work that `op` waits for: time passes while a caller polls.
void step(Lock& lock, OpRef op);
bool is_done(OpRef const& op);
void run_all(Lock& lock, Context const* context);
CUresult run_kernel(char const* name, std::function<int()> const& kernel, std::function<void()> const& clean_up);
CUresult enqueue(Call& call, Stream* stream, char const* name, Work work, OpRef* out = nullptr);
CUresult enqueue_and_wait(Call& call, Stream* stream, char const* name, Work work);

// ---- memory: memory.cpp --------------------------------------------------------------------------------------------

Allocation const* holding(std::map<std::uint64_t, Allocation> const& memory, std::uint64_t address, std::size_t bytes);
// Device memory or host memory that the device can see.
CUresult check_device(char const* what, std::uint64_t address, std::size_t bytes);
CUresult check_host(char const* what, std::uint64_t address, std::size_t bytes);
void protect_all(int protection);
// The device has copied or filled, or a kernel has read or written.
void spend_copy(std::uint64_t to, std::uint64_t from, std::size_t bytes);
void spend_fill(std::size_t bytes);
void spend_access(std::uint64_t address, std::size_t bytes);
CUresult release(std::uint64_t address, std::map<std::uint64_t, Allocation>& memory);

// ---- kernels: launches.cpp -----------------------------------------------------------------------------------------

CUresult load_kernel(bool& is_loaded, Stream* stream);

}  // namespace simcuda
