// A small pool of worker threads that sleep when there is nothing to do.
//
// Why not OpenMP: libgomp's threads spin after each loop, which on a shared or small machine made two threads four
// times slower than one; PyTorch and ONNX Runtime have thread pools of their own in the same process; and
// ThreadSanitizer cannot see through libgomp's barriers.
#pragma once

#include <cstdint>

namespace panrt {

// What parallel_for calls: a reference to a callable `void(std::int64_t chunk, int worker)`, which must outlive the
// call.
class ChunkFunction {
 public:
  template <typename Callable>
  ChunkFunction(Callable const& callable)  // NOLINT(google-explicit-constructor): lambdas are passed directly
      : callable_(&callable), call_([](void const* object, std::int64_t chunk, int worker) {
          (*static_cast<Callable const*>(object))(chunk, worker);
        }) {}
  void operator()(std::int64_t chunk, int worker) const { call_(callable_, chunk, worker); }

 private:
  void const* callable_;
  void (*call_)(void const*, std::int64_t, int);
};

// Calls body(chunk, worker) once for every chunk in [0, chunks), on the calling thread and at most `threads` - 1
// others. Chunks are handed out one by one in ascending order. `worker` is in [0, threads) and belongs to one thread at
// a time during this call, so body may keep scratch by it; the caller is worker 0. Returns when every chunk that was
// started has ended. The first exception stops the handing out and is rethrown here. May be called from several threads
// at once, from within body, and in a process forked from one that used it.
void parallel_for(int threads, std::int64_t chunks, ChunkFunction body);

}  // namespace panrt
