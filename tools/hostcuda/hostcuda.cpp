// The scheduler behind hostcuda.h: a fiber for each CUDA thread, one block after another, on one thread of the host.
// fibers.cpp runs threads, meetings.cpp has barriers and warp operations, runtime.cpp the functions of CUDA's runtime.
// Compiled without ThreadSanitizer, also where kernels are compiled with it: it tells that tool itself who orders whom.
#include "hostcuda.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "simulation.h"

// Bounds of the section that holds static shared memory; absent where no kernel has any.
extern "C" {
__attribute__((weak, visibility("hidden"))) extern unsigned char __start_hc_shared[];
__attribute__((weak, visibility("hidden"))) extern unsigned char __stop_hc_shared[];
}

namespace hc {
namespace {

constexpr std::size_t kMaxSharedBytes = 48 * 1024;
constexpr unsigned char kSharedGarbage = 0xCB;

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

}  // namespace

Simulation& simulation() {
  static auto* const only = new Simulation;  // never destroyed: buffers may be freed as the process ends
  return *only;
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

Thread* lane_of(unsigned warp, unsigned lane) {
  Simulation& s = simulation();
  unsigned const index = warp * kLanes + lane;
  return index < s.thread_count ? &s.threads[index] : nullptr;
}

// --- Blocks ---------------------------------------------------------------------------------------------------------

namespace {

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

}  // namespace

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

namespace {

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

// --- Shared memory, launches ----------------------------------------------------------------------------------------

void* dynamic_shared() { return simulation().dynamic; }

Range static_shared() {
  return {reinterpret_cast<std::uintptr_t>(__start_hc_shared), reinterpret_cast<std::uintptr_t>(__stop_hc_shared)};
}

Range dynamic_shared_range() {
  Simulation const& s = simulation();
  auto const begin = reinterpret_cast<std::uintptr_t>(s.dynamic);
  return {begin, s.dynamic == nullptr ? begin : begin + s.launch->shared_bytes};
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
