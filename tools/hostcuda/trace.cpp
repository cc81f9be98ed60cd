// Memory requests of kernels: the "trace" flavour compiles kernels with -fsanitize=thread and links these callbacks
// instead of that tool's library.
//
// The k-th visit of an instruction by each lane of a warp, counted from the last barrier or warp operation, is taken as
// one request, as if lanes ran in step. A request
// to device memory costs the 32-byte sectors that it touches; ideal are as many as its bytes would fill. A request to
// shared memory costs as many passes as distinct 4-byte words meet in one of 32 banks; 8- and 16-byte accesses go by
// halves and quarters of a warp. Caches are not modelled: a sector counts each time that it is asked for. Beside that
// the sectors that are different within a block, and within a launch, are counted.
//
// A request is coalesced where its bytes lie side by side, in whatever order of lanes, or fill whole sectors, or where
// lane after lane has the next element, whether each takes part or not.
#include <algorithm>
#include <array>
#include <cstdint>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "hostcuda.h"
#include "internal.h"

// This library's own. GCC puts static arrays of templates into the second, whatever section they ask for.
extern "C" __attribute__((visibility("hidden"))) char __ehdr_start[], __bss_start[], _end[];

namespace hc {
namespace {

constexpr std::uintptr_t kSectorBytes = 32, kBankBytes = 4, kBanks = 32;
constexpr int kMaxBuffers = 64;

struct Access {
  void* instruction;
  std::uintptr_t address;
  std::uint32_t bytes;
  std::uint32_t lane;
  std::uint32_t meeting;  // how many barriers and warp operations the thread had met
  bool is_write;
};

// Mirrored by tools/hostcuda/__init__.py.
struct Traffic {
  long long requests, bytes, sectors, ideal_sectors, block_sectors, launch_sectors, uncoalesced;
};
struct Totals {
  Traffic reads[kMaxBuffers], writes[kMaxBuffers];
  long long shared_requests, shared_passes, shared_ideal_passes, atomics;
  std::uint64_t kernel;  // of a launch: where its code lies in this library
};

constexpr int kMaxLaunches = 64;

Totals totals{};
std::array<Totals, kMaxLaunches> launches{};  // the same, launch by launch since the last reset
long long launches_before = 0;
std::array<std::vector<Access>, 1024> accesses;
std::array<std::unordered_set<std::uintptr_t>, 2 * kMaxBuffers> launch_sectors;
std::array<std::uint32_t, 1024> meetings{};
unsigned current = kNoThread;

struct Request {
  std::vector<Access> lanes;
};

Totals& this_launch() {
  long long const number = hc_launches() - launches_before - 1;
  return launches[static_cast<std::size_t>(number < 0 ? 0 : number < kMaxLaunches ? number : kMaxLaunches - 1)];
}

void add(Traffic& to, Traffic const& more) {
  to.requests += more.requests;
  to.bytes += more.bytes;
  to.sectors += more.sectors;
  to.ideal_sectors += more.ideal_sectors;
  to.block_sectors += more.block_sectors;
  to.launch_sectors += more.launch_sectors;
  to.uncoalesced += more.uncoalesced;
}

// A misaligned run of bytes touches one sector more than its bytes fill and is side by side all the same.
bool is_coalesced(Request const& request, std::size_t bytes, std::size_t sectors) {
  std::uintptr_t first = request.lanes.front().address;
  for (Access const& access : request.lanes) first = std::min(first, access.address);
  if (sectors <= (first % kSectorBytes + bytes + kSectorBytes - 1) / kSectorBytes) return true;
  Access const& one = request.lanes.front();
  for (Access const& other : request.lanes) {
    if (other.bytes != one.bytes || other.address - one.address != std::uintptr_t{other.lane - one.lane} * one.bytes) {
      return false;
    }
  }
  return true;
}

void count_device(Request const& request, int buffer,
                  std::array<std::unordered_set<std::uintptr_t>, 2 * kMaxBuffers>& block_sectors) {
  bool const is_write = request.lanes.front().is_write;
  std::unordered_set<std::uintptr_t> sectors, bytes;
  for (Access const& access : request.lanes) {
    for (std::uintptr_t i = 0; i < access.bytes; ++i) {
      bytes.insert(access.address + i);
      sectors.insert((access.address + i) / kSectorBytes);
    }
  }
  Traffic more{1,
               static_cast<long long>(bytes.size()),
               static_cast<long long>(sectors.size()),
               static_cast<long long>((bytes.size() + kSectorBytes - 1) / kSectorBytes),
               0,
               0,
               is_coalesced(request, bytes.size(), sectors.size()) ? 0 : 1};
  auto const set = static_cast<std::size_t>(2 * buffer + (is_write ? 1 : 0));
  for (std::uintptr_t sector : sectors) {
    if (block_sectors[set].insert(sector).second) ++more.block_sectors;
    if (launch_sectors[set].insert(sector).second) ++more.launch_sectors;
  }
  for (Totals* to : {&totals, &this_launch()}) add((is_write ? to->writes : to->reads)[buffer], more);
}

void count_shared(std::array<Access const*, kLanes> const& lanes, std::uint32_t bytes) {
  unsigned const phases = bytes <= 4 ? 1 : bytes <= 8 ? 2 : 4;
  long long passes = 0, ideal_passes = 0;
  for (unsigned phase = 0; phase < phases; ++phase) {
    std::array<std::unordered_set<std::uintptr_t>, kBanks> words;
    bool any = false;
    for (unsigned lane = phase * kLanes / phases; lane < (phase + 1) * kLanes / phases; ++lane) {
      if (lanes[lane] == nullptr) continue;
      any = true;
      for (std::uintptr_t at = 0; at < lanes[lane]->bytes; at += kBankBytes) {
        std::uintptr_t const word = (lanes[lane]->address + at) / kBankBytes;
        words[word % kBanks].insert(word);
      }
    }
    std::size_t most = 0;
    for (auto const& bank : words) most = bank.size() > most ? bank.size() : most;
    passes += static_cast<long long>(most);
    ideal_passes += any ? 1 : 0;
  }
  for (Totals* to : {&totals, &this_launch()}) {
    ++to->shared_requests;
    to->shared_passes += passes;
    to->shared_ideal_passes += ideal_passes;
  }
}

__attribute__((noinline)) void record(void* instruction, std::uintptr_t address, std::size_t bytes, bool is_write) {
  if (current != kNoThread)
    accesses[current].push_back(
        {instruction, address, static_cast<std::uint32_t>(bytes), current % kLanes, meetings[current], is_write});
}

}  // namespace

void trace_thread(unsigned thread) { current = thread; }

void trace_launch(void const* kernel) {
  this_launch().kernel = reinterpret_cast<std::uintptr_t>(kernel) - reinterpret_cast<std::uintptr_t>(__ehdr_start);
}

void trace_meeting() { ++meetings[current]; }

void trace_block_end(unsigned threads) {
  std::array<std::unordered_set<std::uintptr_t>, 2 * kMaxBuffers> block_sectors;
  Range const fixed = static_shared(), dynamic = dynamic_shared_range();
  Range const of_templates{reinterpret_cast<std::uintptr_t>(__bss_start), reinterpret_cast<std::uintptr_t>(_end)};
  auto const indices = reinterpret_cast<std::uintptr_t>(&view);  // threadIdx and its like lie there too
  Range const own{indices, indices + sizeof view};
  for (unsigned warp = 0; warp * kLanes < threads; ++warp) {
    struct Key {
      void* instruction;
      std::uint32_t meeting, visit;
      bool operator==(Key const& other) const {
        return instruction == other.instruction && meeting == other.meeting && visit == other.visit;
      }
    };
    struct Hash {
      std::size_t operator()(Key const& key) const {
        return (std::hash<void*>()(key.instruction) * 1000003U + key.meeting) * 1000003U + key.visit;
      }
    };
    std::unordered_map<Key, std::array<Access const*, kLanes>, Hash> requests;
    for (unsigned lane = 0; lane < kLanes && warp * kLanes + lane < threads; ++lane) {
      std::unordered_map<void*, std::uint32_t> visits;
      std::uint32_t meeting = 0;
      for (Access const& access : accesses[warp * kLanes + lane]) {
        if (access.meeting != meeting) visits.clear();
        meeting = access.meeting;
        auto const [found, is_new] = requests.try_emplace({access.instruction, meeting, visits[access.instruction]++});
        if (is_new) found->second.fill(nullptr);
        found->second[lane] = &access;
      }
    }
    for (auto const& [key, lanes] : requests) {
      std::unordered_map<int, Request> by_buffer;
      std::array<Access const*, kLanes> shared{};
      std::uint32_t shared_bytes = 0;
      for (unsigned lane = 0; lane < kLanes; ++lane) {
        Access const* const access = lanes[lane];
        if (access == nullptr) continue;
        if (fixed.contains(access->address) || dynamic.contains(access->address) ||
            (of_templates.contains(access->address) && !own.contains(access->address))) {
          shared[lane] = access;
          shared_bytes = access->bytes;
          continue;
        }
        int const buffer = buffer_of(access->address);
        if (buffer >= 0 && buffer < kMaxBuffers) by_buffer[buffer].lanes.push_back(*access);
      }
      for (auto const& [buffer, request] : by_buffer) count_device(request, buffer, block_sectors);
      if (shared_bytes > 0) count_shared(shared, shared_bytes);
    }
  }
  for (unsigned i = 0; i < threads; ++i) accesses[i].clear();
  meetings.fill(0);
}

}  // namespace hc

extern "C" {

void const* hc_trace_totals() { return &hc::totals; }
// Of the launch with this number since the last reset; fills and copies have numbers too.
void const* hc_trace_launch(int number) { return &hc::launches[static_cast<std::size_t>(number)]; }
void hc_trace_reset() {
  hc::totals = {};
  hc::launches = {};
  hc::launches_before = hc_launches();
  for (auto& set : hc::launch_sectors) set.clear();
}

#define HC_RECORD(address, bytes, is_write) \
  hc::record(__builtin_return_address(0), reinterpret_cast<std::uintptr_t>(address), bytes, is_write)
#define HC_ACCESS(bytes)                                                                 \
  void __tsan_read##bytes(void* address) { HC_RECORD(address, bytes, false); }           \
  void __tsan_write##bytes(void* address) { HC_RECORD(address, bytes, true); }           \
  void __tsan_unaligned_read##bytes(void* address) { HC_RECORD(address, bytes, false); } \
  void __tsan_unaligned_write##bytes(void* address) { HC_RECORD(address, bytes, true); } \
  void __tsan_volatile_read##bytes(void* address) { HC_RECORD(address, bytes, false); }  \
  void __tsan_volatile_write##bytes(void* address) { HC_RECORD(address, bytes, true); }
HC_ACCESS(1)
HC_ACCESS(2)
HC_ACCESS(4)
HC_ACCESS(8)
HC_ACCESS(16)
void __tsan_read_range(void* address, std::size_t bytes) { HC_RECORD(address, bytes, false); }
void __tsan_write_range(void* address, std::size_t bytes) { HC_RECORD(address, bytes, true); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_atomic_thread_fence(int) {}

// Atomics count by number alone, but for loads and stores, which are requests like any.
#define HC_FETCH(bits, name, builtin)                                                                             \
  std::uint##bits##_t __tsan_atomic##bits##_##name(std::uint##bits##_t volatile* a, std::uint##bits##_t v, int) { \
    hc::totals.atomics += hc::current != hc::kNoThread;                                                           \
    return builtin(a, v, __ATOMIC_SEQ_CST);                                                                       \
  }
#define HC_ATOMICS(bits)                                                                                     \
  HC_FETCH(bits, exchange, __atomic_exchange_n)                                                              \
  HC_FETCH(bits, fetch_add, __atomic_fetch_add)                                                              \
  HC_FETCH(bits, fetch_sub, __atomic_fetch_sub)                                                              \
  HC_FETCH(bits, fetch_and, __atomic_fetch_and)                                                              \
  HC_FETCH(bits, fetch_or, __atomic_fetch_or)                                                                \
  HC_FETCH(bits, fetch_xor, __atomic_fetch_xor)                                                              \
  std::uint##bits##_t __tsan_atomic##bits##_load(std::uint##bits##_t const volatile* a, int) {               \
    HC_RECORD(a, bits / 8, false);                                                                           \
    return __atomic_load_n(a, __ATOMIC_SEQ_CST);                                                             \
  }                                                                                                          \
  void __tsan_atomic##bits##_store(std::uint##bits##_t volatile* a, std::uint##bits##_t v, int) {            \
    HC_RECORD(a, bits / 8, true);                                                                            \
    __atomic_store_n(a, v, __ATOMIC_SEQ_CST);                                                                \
  }                                                                                                          \
  int __tsan_atomic##bits##_compare_exchange_strong(std::uint##bits##_t volatile* a, std::uint##bits##_t* e, \
                                                    std::uint##bits##_t v, int, int) {                       \
    hc::totals.atomics += hc::current != hc::kNoThread;                                                      \
    return __atomic_compare_exchange_n(a, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                  \
  }                                                                                                          \
  int __tsan_atomic##bits##_compare_exchange_weak(std::uint##bits##_t volatile* a, std::uint##bits##_t* e,   \
                                                  std::uint##bits##_t v, int order, int failure) {           \
    return __tsan_atomic##bits##_compare_exchange_strong(a, e, v, order, failure);                           \
  }
HC_ATOMICS(8)
HC_ATOMICS(16)
HC_ATOMICS(32)
HC_ATOMICS(64)
}
