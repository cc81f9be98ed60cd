// The scheduler behind hostcuda.h: a fiber for each CUDA thread, one block after another, on one thread of the host.
// Compiled without ThreadSanitizer, also where kernels are compiled with it: it tells that tool itself who orders whom.
#include "hostcuda.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "internal.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#ifdef HC_ASAN
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, void const* bottom, std::size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, void const** bottom, std::size_t* size);
void __asan_unpoison_memory_region(void const volatile* address, std::size_t size);
}
#endif
#ifdef HC_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif

// Bounds of the section that holds static shared memory; absent where no kernel has any.
extern "C" {
__attribute__((weak, visibility("hidden"))) extern unsigned char __start_hc_shared[];
__attribute__((weak, visibility("hidden"))) extern unsigned char __stop_hc_shared[];
}

namespace hc {

View view;

namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr std::size_t kStackBytes = 256 * 1024;  // address space; touched pages alone cost memory
constexpr std::size_t kMaxSharedBytes = 48 * 1024;
constexpr unsigned char kSharedGarbage = 0xCB, kDeviceGarbage = 0xCD;

// --- Switching stacks ------------------------------------------------------------------------------------------------

#if defined(__x86_64__)
using Context = void*;  // a stack pointer
extern "C" void hc_switch(Context* from, Context to);
asm(R"(
.text
.globl hc_switch
.hidden hc_switch
.type hc_switch, @function
hc_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size hc_switch, .-hc_switch
)");
void switch_context(Context& from, Context& to) { hc_switch(&from, to); }
void make_context(Context& context, unsigned char* stack, void (*entry)()) {
  auto* const top = reinterpret_cast<void**>(stack + kStackBytes);
  top[-2] = reinterpret_cast<void*>(entry);  // a return address; the stack is aligned as after a call
  for (int i = 3; i <= 8; ++i) top[-i] = nullptr;
  context = top - 8;
}
#else
using Context = ucontext_t;
void switch_context(Context& from, Context& to) { swapcontext(&from, &to); }
void make_context(Context& context, unsigned char* stack, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
#endif

struct Fiber {
  unsigned char* stack = nullptr;
  Context context{};
  bool fresh = true;  // its stack holds nothing yet
};

Fiber make_fiber() {
  constexpr std::size_t kGuard = 4096;
  void* const memory =
      mmap(nullptr, kGuard + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuard, PROT_NONE);
  return {static_cast<unsigned char*>(memory) + kGuard, {}, true};
}

// --- State -----------------------------------------------------------------------------------------------------------

enum class State { kReady, kAtBarrier, kAtWarpOp, kExited };

struct Thread {
  State state = State::kReady;
  View view{};
  Fiber* fiber = nullptr;  // null before its first step
  Place place{};
  BlockOp block_op{};
  int predicate = 0;
  WarpOp warp_op{};
  unsigned mask = 0;
  int source = 0;
  std::uint64_t value = 0, result = 0;
#ifdef HC_TSAN
  void* tsan = nullptr;
#endif
};

enum class Order { kForward, kReverse, kRandom };

struct Simulation {
  std::mutex mutex;
  std::vector<std::unique_ptr<Fiber>> fibers;  // all there are
  std::vector<Fiber*> idle;
  std::vector<Thread> threads;
  unsigned thread_count = 0;
  Thread* current = nullptr;
  Context scheduler{};
  Launch const* launch = nullptr;
  unsigned char* dynamic = nullptr;
  bool failed = false;
  std::string report;
  cudaError_t error = cudaSuccess;
  long long launches = 0, sleeps = 0;  // sleeps since the launch began
  Order order = Order::kForward;
  std::mt19937 random;
  void (*enqueue)(cudaStream_t, int (*)(void*), void (*)(void*), void*) = nullptr;
  std::set<void const*> loaded;  // kernels
  bool must_be_loaded = false;
  int devices = 1;
  cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;
  int (*refuses_load)(cudaStream_t) = nullptr;
  std::map<std::uintptr_t, std::pair<std::uintptr_t, int>> buffers;  // begin: end, number
  int buffers_made = 0;
#ifdef HC_ASAN
  void const* host_stack = nullptr;
  std::size_t host_stack_bytes = 0;
#endif
#ifdef HC_TSAN
  void* host = nullptr;
  bool blocks_race = false;
  void* launch_start = nullptr;
  void* launch_end = nullptr;
#endif
};

Simulation& simulation() {
  static auto* const only = new Simulation;  // never destroyed: buffers may be freed as the process ends
  return *only;
}

char const* name_of(State state) {
  switch (state) {
    case State::kReady:
      return "ready";
    case State::kAtBarrier:
      return "waits at a barrier";
    case State::kAtWarpOp:
      return "waits at a warp operation";
    case State::kExited:
      return "has left the kernel";
  }
  return "";
}

std::string describe(Thread const& thread) {
  char text[512];
  View const& v = thread.view;
  char const* const slash = thread.place.file == nullptr ? nullptr : std::strrchr(thread.place.file, '/');
  std::snprintf(text, sizeof text, "block (%u,%u,%u) thread (%u,%u,%u) %s%s%s%s", v.block.x, v.block.y, v.block.z,
                v.thread.x, v.thread.y, v.thread.z, name_of(thread.state), thread.state == State::kExited ? "" : " at ",
                thread.state == State::kExited ? ""
                : slash != nullptr             ? slash + 1
                : thread.place.file != nullptr ? thread.place.file
                                               : "its start",
                thread.state == State::kExited ? "" : (":" + std::to_string(thread.place.line)).c_str());
  return text;
}

void fail(std::string const& what) {
  Simulation& s = simulation();
  if (s.failed) return;
  s.failed = true;
  s.report = what;
  std::fprintf(stderr, "hostcuda: %s\n", what.c_str());
}

// --- Happens-before, for the race check ------------------------------------------------------------------------------

#ifdef HC_TSAN
// A place for each event that orders threads, never used twice before a million others.
void* fresh_event() {
  constexpr std::size_t kEvents = 1U << 20;
  static auto* const events = static_cast<std::uint64_t*>(
      mmap(nullptr, kEvents * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  static std::size_t next = 0;
  return events + next++ % kEvents;
}

void as_fiber(void* fiber, void (*act)(void*), void* event) {
  __tsan_switch_to_fiber(fiber, 1);
  act(event);
  __tsan_switch_to_fiber(simulation().host, 1);
}

// Whatever these did until now happened before whatever they do from now on.
template <typename Threads>
void order_all(Threads const& threads) {
  void* const event = fresh_event();
  for (Thread* thread : threads) as_fiber(thread->tsan, __tsan_release, event);
  for (Thread* thread : threads) as_fiber(thread->tsan, __tsan_acquire, event);
}
#else
template <typename Threads>
void order_all(Threads const&) {}
#endif

// --- Running one thread ----------------------------------------------------------------------------------------------

void to_scheduler() {
  Simulation& s = simulation();
#ifdef HC_ASAN
  void* fake_stack;
  __sanitizer_start_switch_fiber(&fake_stack, s.host_stack, s.host_stack_bytes);
#endif
#ifdef HC_TSAN
  __tsan_switch_to_fiber(s.host, 1);
#endif
  switch_context(s.current->fiber->context, s.scheduler);
#ifdef HC_ASAN
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

void fiber_main() {
  Simulation& s = simulation();
#ifdef HC_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &s.host_stack, &s.host_stack_bytes);
#endif
  for (;;) {
    s.launch->run(s.launch->arguments);
    s.current->state = State::kExited;
    to_scheduler();  // comes back as another CUDA thread
  }
}

// Lets a ready thread run until it waits or leaves.
void step(Thread& thread) {
  Simulation& s = simulation();
  if (thread.fiber == nullptr) {
    if (s.idle.empty()) {
      s.fibers.push_back(std::make_unique<Fiber>(make_fiber()));
      s.idle.push_back(s.fibers.back().get());
    }
    thread.fiber = s.idle.back();
    s.idle.pop_back();
    if (thread.fiber->fresh) make_context(thread.fiber->context, thread.fiber->stack, fiber_main);
    thread.fiber->fresh = false;
  }
  s.current = &thread;
  view = thread.view;
#ifdef HC_TRACE
  trace_thread(static_cast<unsigned>(&thread - s.threads.data()));
#endif
#ifdef HC_ASAN
  void* fake_stack;
  __sanitizer_start_switch_fiber(&fake_stack, thread.fiber->stack, kStackBytes);
#endif
#ifdef HC_TSAN
  __tsan_switch_to_fiber(thread.tsan, 1);
#endif
  switch_context(s.scheduler, thread.fiber->context);
#ifdef HC_ASAN
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
#ifdef HC_TRACE
  trace_thread(kNoThread);
#endif
  s.current = nullptr;
  if (thread.state == State::kExited) {
#ifdef HC_TSAN
    if (s.blocks_race) {  // another thread's locals on this stack would look like a race
      thread.fiber = nullptr;
      return;
    }
#endif
    s.idle.push_back(thread.fiber);
    thread.fiber = nullptr;
  }
}

// --- Warp operations and barriers ------------------------------------------------------------------------------------

Thread* lane_of(unsigned warp, unsigned lane) {
  Simulation& s = simulation();
  unsigned const index = warp * kLanes + lane;
  return index < s.thread_count ? &s.threads[index] : nullptr;
}

std::uint64_t combine(WarpOp op, std::uint64_t a, std::uint64_t b) {
  auto const x = static_cast<std::uint32_t>(a), y = static_cast<std::uint32_t>(b);
  auto const i = static_cast<std::int32_t>(x), j = static_cast<std::int32_t>(y);
  switch (op) {
    case WarpOp::kAdd:
      return x + y;
    case WarpOp::kMin:
      return std::min(x, y);
    case WarpOp::kMax:
      return std::max(x, y);
    case WarpOp::kMinSigned:
      return static_cast<std::uint32_t>(std::min(i, j));
    case WarpOp::kMaxSigned:
      return static_cast<std::uint32_t>(std::max(i, j));
    case WarpOp::kAnd:
      return x & y;
    case WarpOp::kOr:
      return x | y;
    default:
      return x ^ y;
  }
}

void give_results(WarpOp op, std::vector<Thread*> const& lanes) {
  if (op == WarpOp::kSync) return;
  std::uint64_t ballot = 0;
  std::uint64_t reduced = lanes.front()->value;
  for (Thread* lane : lanes) ballot |= (lane->value & 1U) << lane->view.lane;
  for (std::size_t i = 1; i < lanes.size(); ++i) reduced = combine(op, reduced, lanes[i]->value);
  for (Thread* lane : lanes) {
    if (op == WarpOp::kShuffle) {
      for (Thread* other : lanes) {
        if (static_cast<int>(other->view.lane) == lane->source) lane->result = other->value;
      }
    } else if (op == WarpOp::kMatchAny) {
      lane->result = 0;
      for (Thread* other : lanes) {
        if (other->value == lane->value) lane->result |= std::uint64_t{1} << other->view.lane;
      }
    } else {
      lane->result = op == WarpOp::kBallot ? ballot : reduced;
    }
  }
}

// Completes the warp operations that all their lanes have come to; true if there was one.
bool resolve_warp(unsigned warp) {
  bool resolved = false;
  for (unsigned first = 0; first < kLanes; ++first) {
    Thread* const thread = lane_of(warp, first);
    if (thread == nullptr || thread->state != State::kAtWarpOp) continue;
    std::vector<Thread*> lanes;
    bool complete = true;
    for (unsigned i = 0; i < kLanes && complete; ++i) {
      if ((thread->mask >> i & 1U) == 0) continue;
      Thread* const lane = lane_of(warp, i);
      if (lane == nullptr || lane->state == State::kExited) {
        fail("bad mask " + std::to_string(thread->mask) + " of a warp operation: lane " + std::to_string(i) +
             (lane == nullptr ? " is no thread of the block; " : " has left the kernel; ") + describe(*thread));
        return false;
      }
      complete = lane->state == State::kAtWarpOp && lane->warp_op == thread->warp_op && lane->mask == thread->mask;
      lanes.push_back(lane);
    }
    if (!complete) continue;
    for (Thread* lane : lanes) {
      if (lane->warp_op == WarpOp::kShuffle && (lane->mask >> static_cast<unsigned>(lane->source) & 1U) == 0) {
        fail("bad shuffle: lane " + std::to_string(lane->source) + " is read but is not in the mask; " +
             describe(*lane));
        return false;
      }
    }
    give_results(thread->warp_op, lanes);
    if (thread->warp_op == WarpOp::kSync) order_all(lanes);
    for (Thread* lane : lanes) lane->state = State::kReady;
    resolved = true;
  }
  return resolved;
}

// Lets the block pass its barrier if all of it is there; true if it did.
bool resolve_barrier() {
  Simulation& s = simulation();
  std::vector<Thread*> threads;
  for (unsigned i = 0; i < s.thread_count; ++i) threads.push_back(&s.threads[i]);
  int count = 0;
  for (Thread* thread : threads) {
    Thread const& first = *threads.front();
    if (thread->state != State::kAtBarrier) return false;
    if (thread->place.line != first.place.line || std::strcmp(thread->place.file, first.place.file) != 0 ||
        thread->block_op != first.block_op) {
      fail("divergent barrier: " + describe(first) + ", but " + describe(*thread));
      return false;
    }
    count += thread->predicate != 0;
  }
  order_all(threads);
  int const all = static_cast<int>(threads.size());
  for (Thread* thread : threads) {
    thread->result = static_cast<std::uint64_t>(thread->block_op == BlockOp::kCount ? count
                                                : thread->block_op == BlockOp::kAnd ? count == all
                                                                                    : count != 0);
    thread->state = State::kReady;
  }
  return true;
}

void report_stuck() {
  Simulation& s = simulation();
  Thread const* waits = nullptr;
  Thread const* elsewhere = nullptr;
  for (unsigned i = 0; i < s.thread_count; ++i) {
    Thread const& thread = s.threads[i];
    if (thread.state != State::kExited && waits == nullptr) waits = &thread;
  }
  for (unsigned i = 0; i < s.thread_count; ++i) {
    Thread const& thread = s.threads[i];
    bool const in_mask =
        waits->state != State::kAtWarpOp || (i / kLanes == static_cast<unsigned>(waits - s.threads.data()) / kLanes &&
                                             (waits->mask >> thread.view.lane & 1U) != 0);
    bool const same =
        thread.state == waits->state &&
        (waits->state == State::kAtBarrier || (thread.warp_op == waits->warp_op && thread.mask == waits->mask));
    if (in_mask && !same && elsewhere == nullptr) elsewhere = &thread;
  }
  std::string const kind = waits->state == State::kAtBarrier ? "divergent barrier: " : "deadlock: ";
  fail(kind + describe(*waits) + (elsewhere == nullptr ? std::string() : ", but " + describe(*elsewhere)));
}

// --- Blocks ----------------------------------------------------------------------------------------------------------

template <typename T>
void put_in_order(std::vector<T>& items) {
  Simulation& s = simulation();
  if (s.order == Order::kReverse) std::reverse(items.begin(), items.end());
  if (s.order == Order::kRandom) std::shuffle(items.begin(), items.end(), s.random);
}

std::vector<unsigned> numbers(unsigned count) {
  std::vector<unsigned> result(count);
  std::iota(result.begin(), result.end(), 0U);
  return result;
}

// Every ready thread of a warp continues once; true if there was one.
bool step_warp(unsigned warp, std::vector<unsigned>& lanes) {
  Simulation& s = simulation();
  bool any = false;
  if (s.order == Order::kRandom) put_in_order(lanes);
  for (unsigned lane : lanes) {
    Thread* const thread = lane_of(warp, lane);
    if (thread == nullptr || thread->state != State::kReady) continue;
    step(*thread);
    any = true;
    if (s.failed) return false;
  }
  return any;
}

void run_block_threads() {
  Simulation& s = simulation();
  std::vector<unsigned> warps = numbers((s.thread_count + kLanes - 1) / kLanes), lanes = numbers(kLanes);
  if (s.order == Order::kReverse) {
    put_in_order(warps);
    put_in_order(lanes);
  }
  while (!s.failed) {
    bool progress = false;
    if (s.order == Order::kRandom) put_in_order(warps);
    for (unsigned warp : warps) {
      // In random order warps take turns at every warp operation; otherwise each goes as far as it can.
      do {
        bool const stepped = step_warp(warp, lanes);
        bool const resolved = !s.failed && resolve_warp(warp);
        if (s.failed) return;
        progress = progress || stepped || resolved;
        if (!resolved) break;
      } while (s.order != Order::kRandom);
    }
    progress = resolve_barrier() || progress;
    if (progress) continue;
    bool const done = std::all_of(s.threads.begin(), s.threads.begin() + s.thread_count,
                                  [](Thread const& thread) { return thread.state == State::kExited; });
    if (!done && !s.failed) report_stuck();
    return;
  }
}

void fill_shared() {
  Simulation& s = simulation();
  Range const fixed = static_shared();
  if (fixed.end > fixed.begin) {
    std::memset(reinterpret_cast<void*>(fixed.begin), kSharedGarbage, fixed.end - fixed.begin);
  }
  if (s.dynamic != nullptr) std::memset(s.dynamic, kSharedGarbage, s.launch->shared_bytes);
}

void run_block(uint3 block) {
  Simulation& s = simulation();
  dim3 const shape = s.launch->block;
#ifdef HC_TSAN
  // Another block's shared memory in the same place would look like a race; the last one is freed, these are not.
  if (s.blocks_race && s.dynamic != nullptr) {
    s.dynamic = static_cast<unsigned char*>(std::malloc(s.launch->shared_bytes));
  }
#endif
  fill_shared();
  unsigned index = 0;
  for (unsigned z = 0; z < shape.z; ++z) {
    for (unsigned y = 0; y < shape.y; ++y) {
      for (unsigned x = 0; x < shape.x; ++x, ++index) {
        Thread& thread = s.threads[index];
        thread = Thread{};
        thread.view = {{x, y, z}, block, shape, s.launch->grid, index % kLanes};
#ifdef HC_TSAN
        thread.tsan = __tsan_create_fiber(0);
#endif
      }
    }
  }
#ifdef HC_TSAN
  // The host happened before this block, and with it all blocks that it has waited for.
  void* const start = s.blocks_race ? s.launch_start : fresh_event();
  __tsan_release(start);
  for (unsigned i = 0; i < s.thread_count; ++i) as_fiber(s.threads[i].tsan, __tsan_acquire, start);
#endif
  run_block_threads();
#ifdef HC_TSAN
  for (unsigned i = 0; i < s.thread_count; ++i) {
    as_fiber(s.threads[i].tsan, __tsan_release, s.launch_end);
    __tsan_destroy_fiber(s.threads[i].tsan);
  }
  if (!s.blocks_race) __tsan_acquire(s.launch_end);
#endif
#ifdef HC_TRACE
  trace_block_end(s.thread_count);
#endif
}

bool is_launchable(Launch const& launch) {
  dim3 const b = launch.block, g = launch.grid;
  bool const block_fits = b.x >= 1 && b.y >= 1 && b.z >= 1 && b.x <= kMaxThreads && b.y <= kMaxThreads && b.z <= 64 &&
                          std::uint64_t{b.x} * b.y * b.z <= kMaxThreads;
  bool const grid_fits = g.x >= 1 && g.y >= 1 && g.z >= 1 && g.x <= 0x7FFFFFFFU && g.y <= 65535 && g.z <= 65535;
  return block_fits && grid_fits && launch.shared_bytes <= kMaxSharedBytes;
}

// What is left of threads that did not finish is left where it lies; their stacks start anew.
void abandon_threads() {
  Simulation& s = simulation();
  s.idle.clear();
  for (auto& fiber : s.fibers) {
#ifdef HC_ASAN
    __asan_unpoison_memory_region(fiber->stack, kStackBytes);
#endif
    fiber->fresh = true;
    s.idle.push_back(fiber.get());
  }
}

cudaError_t run_launch(Launch const& launch) {
  Simulation& s = simulation();
  std::lock_guard<std::mutex> const lock(s.mutex);
  s.launch = &launch;
  s.failed = false;
  s.sleeps = 0;
  s.thread_count = launch.block.x * launch.block.y * launch.block.z;
  if (s.threads.size() < s.thread_count) s.threads.resize(kMaxThreads);
  s.dynamic = launch.shared_bytes > 0 ? static_cast<unsigned char*>(std::malloc(launch.shared_bytes)) : nullptr;
#ifdef HC_TSAN
  s.host = __tsan_get_current_fiber();
  char const* const race = std::getenv("HC_RACE");
  s.blocks_race = race != nullptr && std::strcmp(race, "grid") == 0;
  s.launch_start = fresh_event();
  s.launch_end = fresh_event();
#endif
#ifdef HC_TRACE
  trace_launch(launch.kernel);
#endif
  std::uint64_t const blocks = std::uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  constexpr std::uint64_t kMostShuffled = 1U << 20;
  std::vector<unsigned> order;
  if (s.order == Order::kRandom && blocks <= kMostShuffled) {
    order = numbers(static_cast<unsigned>(blocks));
    put_in_order(order);
  }
  for (std::uint64_t i = 0; i < blocks && !s.failed; ++i) {
    std::uint64_t const block = !order.empty() ? order[i] : s.order == Order::kReverse ? blocks - 1 - i : i;
    dim3 const g = launch.grid;
    run_block({static_cast<unsigned>(block % g.x), static_cast<unsigned>(block / g.x % g.y),
               static_cast<unsigned>(block / g.x / g.y)});
  }
#ifdef HC_TSAN
  __tsan_acquire(s.launch_end);
#endif
  std::free(s.dynamic);
  s.dynamic = nullptr;
  if (!s.failed) return cudaSuccess;
  abandon_threads();
  return s.error = cudaErrorLaunchFailure;
}

// What `run_launch` does at its end, for one that was left by a jump.
void leave_launch() {
  Simulation& s = simulation();
  s.current = nullptr;
  std::free(s.dynamic);
  s.dynamic = nullptr;
  abandon_threads();
  s.mutex.unlock();
}

struct Work {
  Launch launch;
};

int run_work(void* work) {
  if (work != nullptr) return run_launch(static_cast<Work*>(work)->launch);
  leave_launch();
  return cudaSuccess;
}
void destroy_work(void* work) {
  auto* const owned = static_cast<Work*>(work);
  owned->launch.destroy(owned->launch.arguments);
  delete owned;
}

struct Copy {
  void* to;
  void const* from;  // null: fill with value
  std::size_t bytes;
  int value;
};

int run_copy(void* work) {
  if (work == nullptr) return cudaSuccess;  // it was left by a jump, and held nothing
  Copy const& copy = *static_cast<Copy*>(work);
  if (copy.from == nullptr) {
    std::memset(copy.to, copy.value, copy.bytes);
  } else {
    std::memmove(copy.to, copy.from, copy.bytes);
  }
  return cudaSuccess;
}
void destroy_copy(void* work) { delete static_cast<Copy*>(work); }

// The one that cudaStreamCreateWithFlags gives.
cudaStream_t own_stream() {
  static int place;
  return reinterpret_cast<cudaStream_t>(&place);
}

void enqueue(cudaStream_t stream, int (*run)(void*), void (*destroy)(void*), void* context) {
  Simulation& s = simulation();
  ++s.launches;
  if (s.enqueue != nullptr && stream != own_stream()) {
    s.enqueue(stream, run, destroy, context);
  } else {
    run(context);
    destroy(context);
  }
}

bool set_order(char const* order, unsigned seed) {
  Simulation& s = simulation();
  std::string const word = order;
  if (word != "forward" && word != "reverse" && word != "random") return false;
  s.order = word == "forward" ? Order::kForward : word == "reverse" ? Order::kReverse : Order::kRandom;
  s.random.seed(seed);
  return true;
}

// Taken from the environment once, as the library loads.
bool const order_from_environment = [] {
  char const* const order = std::getenv("HC_ORDER");
  char const* const seed = std::getenv("HC_SEED");
  if (order == nullptr) return false;
  if (set_order(order, seed == nullptr ? 0 : static_cast<unsigned>(std::atoi(seed)))) return true;
  std::fprintf(stderr, "hostcuda: HC_ORDER: expected forward, reverse or random, got '%s'\n", order);
  std::abort();
}();

}  // namespace

// --- What kernels call -----------------------------------------------------------------------------------------------

int block_op(BlockOp op, int predicate, Place place) {
  Thread& self = *simulation().current;
#ifdef HC_TRACE
  trace_meeting();
#endif
  self.block_op = op;
  self.predicate = predicate;
  self.place = place;
  self.state = State::kAtBarrier;
  to_scheduler();
  return static_cast<int>(self.result);
}

std::uint64_t warp_op(WarpOp op, unsigned mask, std::uint64_t value, int source, Place place) {
  Thread& self = *simulation().current;
#ifdef HC_TRACE
  trace_meeting();
#endif
  self.warp_op = op;
  self.mask = mask;
  self.value = value;
  self.source = source;
  self.place = place;
  self.state = State::kAtWarpOp;
  if ((mask >> self.view.lane & 1U) == 0) {
    fail("bad mask " + std::to_string(mask) + " of a warp operation: it lacks lane " + std::to_string(self.view.lane) +
         " that calls it; " + describe(self));
  }
  to_scheduler();
  return self.result;
}

void sleep(Place place) {
  constexpr long long kForever = 1 << 16;  // turns of all threads; blocks run one after another, so no wait is long
  Simulation& s = simulation();
  Thread& self = *s.current;
  self.place = place;
  if (++s.sleeps > kForever) fail("endless wait: " + describe(self) + " sleeps, and nothing else happens");
  to_scheduler();
}

void fence() {
#ifdef HC_TSAN
  static std::uint64_t event;
  __tsan_release(&event);
  __tsan_acquire(&event);
#endif
}

void* dynamic_shared() { return simulation().dynamic; }

Range static_shared() {
  return {reinterpret_cast<std::uintptr_t>(__start_hc_shared), reinterpret_cast<std::uintptr_t>(__stop_hc_shared)};
}

Range dynamic_shared_range() {
  Simulation const& s = simulation();
  auto const begin = reinterpret_cast<std::uintptr_t>(s.dynamic);
  return {begin, s.dynamic == nullptr ? begin : begin + s.launch->shared_bytes};
}

int buffer_of(std::uintptr_t address) {
  auto const& buffers = simulation().buffers;
  auto next = buffers.upper_bound(address);
  if (next == buffers.begin()) return -1;
  auto const& [begin, range] = *--next;
  return address < range.first ? range.second : -1;
}

void submit(cudaStream_t stream, Launch const& launch) {
  Simulation& s = simulation();
  if (!is_launchable(launch)) {
    char text[200];
    std::snprintf(text, sizeof text,
                  "bad launch: grid (%u,%u,%u), block (%u,%u,%u), %zu bytes of dynamic shared memory", launch.grid.x,
                  launch.grid.y, launch.grid.z, launch.block.x, launch.block.y, launch.block.z, launch.shared_bytes);
    s.report = text;
    s.error = cudaErrorInvalidConfiguration;
    launch.destroy(launch.arguments);
    return;
  }
  if (s.loaded.count(launch.kernel) == 0) {
    int error = cudaSuccess;
    if (s.must_be_loaded) {
      s.report = "a kernel is launched that was not loaded before: a capture forbids it";
      error = cudaErrorStreamCaptureUnsupported;
    } else if (s.refuses_load != nullptr) {
      error = s.refuses_load(stream);
    }
    if (error != cudaSuccess) {
      s.error = static_cast<cudaError_t>(error);
      launch.destroy(launch.arguments);
      return;
    }
  }
  s.loaded.insert(launch.kernel);
  enqueue(stream, run_work, destroy_work, new Work{launch});
}

}  // namespace hc

// --- Host functions --------------------------------------------------------------------------------------------------

cudaError_t cudaGetLastError() { return std::exchange(hc::simulation().error, cudaSuccess); }

char const* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorNoKernelImageForDevice:
      return "no kernel image is available for execution on the device";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
  }
  return "unrecognized error code";
}

cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (bytes > 0 && (to == nullptr || from == nullptr)) return hc::simulation().error = cudaErrorInvalidValue;
  hc::enqueue(stream, hc::run_copy, hc::destroy_copy, new hc::Copy{to, from, bytes, 0});
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  if (bytes > 0 && memory == nullptr) return hc::simulation().error = cudaErrorInvalidValue;
  hc::enqueue(stream, hc::run_copy, hc::destroy_copy, new hc::Copy{memory, nullptr, bytes, value});
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = hc::simulation().devices;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  *memory = hc_malloc(bytes);
  return *memory != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void* memory) {
  hc_free(memory);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = hc::own_stream();
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(hc::simulation().capture_mode, *mode);
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void const* kernel) {
  hc::simulation().loaded.insert(kernel);
  *attributes = {static_cast<int>(hc::kMaxThreads)};
  return cudaSuccess;
}

bool hc_set_order(char const* order, unsigned seed) { return hc::set_order(order, seed); }

char const* hc_report() {
  static std::string last;
  last = std::exchange(hc::simulation().report, std::string());
  return last.c_str();
}

long long hc_launches() { return hc::simulation().launches; }

void hc_set_stream_hook(void (*enqueue)(cudaStream_t, int (*)(void*), void (*)(void*), void*)) {
  hc::simulation().enqueue = enqueue;
}

int hc_require_loaded(int required) {
  hc::simulation().must_be_loaded = required != 0;
  return 0;
}

int hc_loaded(int* kernels, int* capture_mode) {
  *kernels = static_cast<int>(hc::simulation().loaded.size());
  *capture_mode = hc::simulation().capture_mode;
  return 0;
}

int hc_set_devices(int count) {
  hc::simulation().devices = count;
  return 0;
}

void hc_set_load_hook(int (*refuses)(cudaStream_t)) {
  hc::simulation().refuses_load = refuses;
  hc::simulation().loaded.clear();
}

void* hc_malloc(std::size_t bytes) {
  hc::Simulation& s = hc::simulation();
  void* memory = nullptr;
  constexpr std::size_t kAlignment = 256;  // of cudaMalloc
  if (posix_memalign(&memory, kAlignment, bytes == 0 ? 1 : bytes) != 0) return nullptr;
  std::memset(memory, hc::kDeviceGarbage, bytes);
  auto const begin = reinterpret_cast<std::uintptr_t>(memory);
  s.buffers[begin] = {begin + bytes, s.buffers_made++};
  return memory;
}

void hc_free(void* memory) {
  hc::Simulation& s = hc::simulation();
  s.buffers.erase(reinterpret_cast<std::uintptr_t>(memory));
  if (s.buffers.empty()) s.buffers_made = 0;
  std::free(memory);
}
