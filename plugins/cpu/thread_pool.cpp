#include "thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <deque>
#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>

namespace panrt {
namespace {

// One parallel_for; lives on its caller's stack.
struct Job {
  ChunkFunction const& body;
  std::int64_t const chunks;
  int const most_helpers;
  std::atomic<std::int64_t> next_chunk{0};
  // The pool's mutex guards the rest.
  int helpers_joined = 0;
  std::atomic<int> helpers_running{0};  // read without the mutex too
  std::exception_ptr failure{};
  std::condition_variable last_helper_left{};
};

// The steps of an op follow one another within microseconds, and waking a thread takes the system some tens of them:
// so a thread spins for a moment before it sleeps.
constexpr std::chrono::microseconds kMoment{50};

template <typename Condition>
void look_out(Condition const& there) {
  auto const end = std::chrono::steady_clock::now() + kMoment;
  while (!there() && std::chrono::steady_clock::now() < end) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
}

class Pool {
 public:
  void run(Job& job) {
    {
      std::lock_guard lock(mutex_);
      grow(job.most_helpers);
      open_jobs_.push_back(&job);
      has_open_jobs_.store(true, std::memory_order_relaxed);
    }
    for (int i = 0; i < job.most_helpers; ++i) work_to_do_.notify_one();
    run_chunks(job, 0);
    std::unique_lock lock(mutex_);
    close(job);
    if (job.helpers_running > 0) {
      lock.unlock();
      look_out([&] { return job.helpers_running == 0; });
      lock.lock();
    }
    job.last_helper_left.wait(lock, [&] { return job.helpers_running == 0; });
  }

  void run_chunks(Job& job, int worker) noexcept {
    try {
      for (std::int64_t chunk; (chunk = job.next_chunk.fetch_add(1, std::memory_order_relaxed)) < job.chunks;) {
        job.body(chunk, worker);
      }
    } catch (...) {
      job.next_chunk.store(job.chunks, std::memory_order_relaxed);
      std::lock_guard lock(mutex_);
      if (!job.failure) job.failure = std::current_exception();
    }
  }

 private:
  // Workers are never joined: they sleep on this pool, which is never destroyed, until the process ends.
  void grow(int wanted) {
    if (workers_ >= wanted) return;
    sigset_t all, before;  // signals are for the threads that Python knows
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      for (; workers_ < wanted; ++workers_) {
        std::thread worker(&Pool::serve, this);
#ifdef __linux__
        pthread_setname_np(worker.native_handle(), ("panrt-" + std::to_string(workers_ + 1)).c_str());
#endif
        worker.detach();
      }
    } catch (std::system_error const&) {
      // The system gives no more threads. The result does not depend on them: the caller works through every chunk.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  [[noreturn]] void serve() {
    for (;;) {
      look_out([&] { return has_open_jobs_.load(std::memory_order_relaxed); });
      std::unique_lock lock(mutex_);
      work_to_do_.wait(lock, [&] { return !open_jobs_.empty(); });
      Job& job = *open_jobs_.front();
      int const worker = ++job.helpers_joined;
      ++job.helpers_running;
      if (job.helpers_joined == job.most_helpers) close(job);
      lock.unlock();
      run_chunks(job, worker);
      lock.lock();
      close(job);  // no chunk is left for a helper that joins now
      if (--job.helpers_running == 0) job.last_helper_left.notify_one();
    }
  }

  void close(Job& job) {
    open_jobs_.erase(std::remove(open_jobs_.begin(), open_jobs_.end(), &job), open_jobs_.end());
    has_open_jobs_.store(!open_jobs_.empty(), std::memory_order_relaxed);
  }

  std::mutex mutex_;
  std::condition_variable work_to_do_;
  std::deque<Job*> open_jobs_;  // those that another helper may join, oldest first
  std::atomic<bool> has_open_jobs_{false};
  int workers_ = 0;  // as many as the largest call asked for; calls at the same time share them
};

// Never destroyed, so that workers may outlive every static destructor.
alignas(Pool) std::byte storage[sizeof(Pool)];

Pool& pool() {
  static Pool* const first = [] {
    // Threads do not survive a fork and a mutex may be held across it: the child forgets the old pool and starts anew.
    pthread_atfork(nullptr, nullptr, [] { new (storage) Pool; });
    return new (storage) Pool;
  }();
  return *std::launder(first);
}

}  // namespace

void parallel_for(int threads, std::int64_t chunks, ChunkFunction body) {
  int const helpers = static_cast<int>(std::min<std::int64_t>(threads, chunks)) - 1;
  if (helpers < 1) {
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) body(chunk, 0);
    return;
  }
  Job job{body, chunks, helpers};
  pool().run(job);
  if (job.failure) std::rethrow_exception(job.failure);
}

}  // namespace panrt
