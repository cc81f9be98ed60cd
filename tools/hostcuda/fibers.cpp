// Fibers: a stack for each CUDA thread that runs, and the switches between them.
// Compiled without ThreadSanitizer, also where kernels are compiled with it: it tells that tool itself who orders whom.
#include <sys/mman.h>

#include <memory>
#include <new>

#include "simulation.h"

#ifdef HC_ASAN
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, void const* bottom, std::size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, void const** bottom, std::size_t* size);
void __asan_unpoison_memory_region(void const volatile* address, std::size_t size);
}
#endif

namespace hc {

View view;

namespace {

#if defined(__x86_64__)
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
void switch_context(Context& from, Context& to) { swapcontext(&from, &to); }
void make_context(Context& context, unsigned char* stack, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
#endif

Fiber make_fiber() {
  constexpr std::size_t kGuard = 4096;
  void* const memory =
      mmap(nullptr, kGuard + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuard, PROT_NONE);
  return {static_cast<unsigned char*>(memory) + kGuard, {}, true};
}

}  // namespace

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
#endif

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

namespace {

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

}  // namespace

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

}  // namespace hc
