// What a test asks of the simulated driver beside the CUDA driver API. Plain C, for ctypes and for kernels built for
// the host. See simcuda.cpp for what is simulated.
#pragma once

#include <cstddef>
#include <cstdint>

#define SIMCUDA_API extern "C" __attribute__((visibility("default")))

// Memory that a piece of work reads or writes, checked when it runs.
struct SimcudaRange {
  std::uint64_t address;
  std::uint64_t bytes;
};

// When work runs: as late as it may, at once, or by a seeded dice between the two.
enum SimcudaSchedule { SIMCUDA_LAZY = 0, SIMCUDA_EAGER = 1, SIMCUDA_RANDOM = 2 };

// Everything but live resources back to how it was when the library was loaded.
SIMCUDA_API void simcuda_reset();
SIMCUDA_API void simcuda_schedule(int schedule, unsigned seed);
// The `nth` call from now (1 is the next) of that entry point, "*" for any, returns `error` and does nothing; an entry
// point that releases something does so all the same, as the CUDA manual has it. Where it sticks, so does every later
// call.
SIMCUDA_API void simcuda_fail(char const* entry_point, int nth, int error, int sticks);
// Whether the failure that was asked for has happened.
SIMCUDA_API int simcuda_failed();
// The device is lost: from now on every call returns `error`.
SIMCUDA_API void simcuda_kill(int error);
// What the device does: all of a file, or one of its facts by its name, "alignment.device". Live objects
// are unchanged.
SIMCUDA_API void simcuda_use_facts(char const* path);
SIMCUDA_API void simcuda_set_fact(char const* name, char const* value);
// Of what memory holds that nobody has written; every block of it moves on by one.
SIMCUDA_API void simcuda_seed(std::uint64_t seed);
// Device memory can be read by kernels and copies alone; a host that follows a device pointer crashes.
SIMCUDA_API void simcuda_guard(int on);

// From now on, mapped memory that kernels of simcuda_enqueue touch is counted, by the page.
SIMCUDA_API void simcuda_watch_mapped();
// Bytes of host memory that kernels have read or written since the last reset.
SIMCUDA_API std::uint64_t simcuda_mapped_accesses();

// Text into `buffer`, cut to `size` with its ending zero; the return value is how long it would be.
// The names of all calls since the log was last taken, one a line, marked "name!pageable" where a copy had to wait.
SIMCUDA_API std::size_t simcuda_take_log(char* buffer, std::size_t size);
// "kind count" of whatever is alive, one a line; empty where nothing is.
SIMCUDA_API std::size_t simcuda_alive(char* buffer, std::size_t size);
// What was misused since the last reset, one a line.
SIMCUDA_API std::size_t simcuda_findings(char* buffer, std::size_t size);
SIMCUDA_API std::size_t simcuda_fact(char const* name, char* buffer, std::size_t size);

// The calling thread's stack of contexts, the current one first, one a line.
SIMCUDA_API std::size_t simcuda_contexts(char* buffer, std::size_t size);

// How long work has run on the device, in seconds.
SIMCUDA_API double simcuda_busy_seconds();

// A kernel: runs `function(argument)` when its turn comes on the stream, or at each replay of the graph that captures
// it. A result other than 0 is an error of the device that sticks. Returns a CUresult.
SIMCUDA_API int simcuda_launch(void* stream, char const* name, int (*function)(void*), void* argument,
                               SimcudaRange const* ranges, std::size_t range_count);

// The same for kernels that `tools/hostcuda` runs, in the form of its stream hook: run(context) any number of times,
// destroy(context) when it cannot come to that again, run(nullptr) after a run that a stray access ended. Its memory is
// checked by the page; one kernel runs at a time.
SIMCUDA_API void simcuda_enqueue(void* stream, int (*run)(void*), void (*destroy)(void*), void* context);
// Whether a kernel can be loaded that is about to be launched on a stream, for their hook: a CUresult, an error where
// the stream captures and the device then loads none.
SIMCUDA_API int simcuda_refuses_load(void* stream);
