// Inside the simulation: its state, and what its files share. hostcuda.h says what is simulated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "hostcuda.h"
#include "internal.h"

#if !defined(__x86_64__)
#include <ucontext.h>
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

#pragma GCC visibility push(hidden)  // libraries of kernels share a process
namespace hc {

constexpr unsigned kMaxThreads = 1024;
constexpr std::size_t kStackBytes = 256 * 1024;  // address space; touched pages alone cost memory

#if defined(__x86_64__)
using Context = void*;  // a stack pointer
#else
using Context = ucontext_t;
#endif

struct Fiber {
  unsigned char* stack = nullptr;
  Context context{};
  bool fresh = true;  // its stack holds nothing yet
};

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

Simulation& simulation();
std::string describe(Thread const& thread);
// Ends the launch with a report.
void fail(std::string const& what);
Thread* lane_of(unsigned warp, unsigned lane);

// --- Running threads: fibers.cpp -------------------------------------------------------------------------------------

// Lets a ready thread run until it waits or leaves.
void step(Thread& thread);
// The thread that runs waits, for `step` to continue with it.
void to_scheduler();
// What is left of threads that did not finish is left where it lies; their stacks start anew.
void abandon_threads();

// --- Where threads meet: meetings.cpp --------------------------------------------------------------------------------

// Completes the warp operations that all their lanes have come to; true if there was one.
bool resolve_warp(unsigned warp);
// Lets the block pass its barrier if all of it is there; true if it did.
bool resolve_barrier();
void report_stuck();

// --- Launches: hostcuda.cpp ------------------------------------------------------------------------------------------

bool set_order(char const* order, unsigned seed);
// The one that cudaStreamCreateWithFlags gives.
cudaStream_t own_stream();
// Runs work at once, or hands it to the hook of its stream.
void enqueue(cudaStream_t stream, int (*run)(void*), void (*destroy)(void*), void* context);

// --- Happens-before, for the race check ------------------------------------------------------------------------------

#ifdef HC_TSAN
// A place for each event that orders threads, never used twice before a million others.
void* fresh_event();
void as_fiber(void* fiber, void (*act)(void*), void* event);

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

}  // namespace hc
#pragma GCC visibility pop
