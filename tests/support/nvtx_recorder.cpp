// Stands in for Nsight Systems: NVTX loads the library that NVTX_INJECTION64_PATH names, and asks it for callbacks.
//
// Records where ranges of all domains begin and end. The declarations are those of NVTX 3's C interface, whose headers
// (nvtx3/nvtxDetail/nvtxTypes.h) promise that they stay.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>

namespace {

struct EventAttributes {
  uint16_t version, size;
  uint32_t category;
  int32_t color_type;
  uint32_t color;
  int32_t payload_type, reserved;
  uint64_t payload;
  int32_t message_type;  // 3: a string that was registered
  void const* message;
};

struct ExportTableCallbacks {
  size_t struct_size;
  int (*get_module_function_table)(int module, void**** table, unsigned* size);
};

enum { kExportCallbacks = 1, kModuleCore2 = 5, kRegistered = 3 };
enum { kRangePush = 4, kRangePop = 5, kRegisterString = 10, kDomainCreate = 12 };

std::mutex mutex;
std::string recorded;  // "thread + domain name" or "thread - domain", a line each

void add(char sign, void const* domain, char const* name) {
  static int threads = 0;
  thread_local int thread = -1;
  std::lock_guard<std::mutex> const lock(mutex);
  if (thread < 0) thread = threads++;
  recorded += std::to_string(thread) + " " + sign + " " + static_cast<char const*>(domain) + " " + name + "\n";
}

int push(void* domain, EventAttributes const* event) {
  add('+', domain, event->message_type == kRegistered ? static_cast<char const*>(event->message) : "?");
  return 0;
}

int pop(void* domain) {
  add('-', domain, "");
  return 0;
}

// Handles are the names themselves; they live as long as the process.
void* register_string(void*, char const* text) { return strdup(text); }
void* create_domain(char const* name) { return strdup(name); }

}  // namespace

extern "C" __attribute__((visibility("default"))) int InitializeInjectionNvtx2(void const* (*get_table)(uint32_t)) {
  auto const* callbacks = static_cast<ExportTableCallbacks const*>(get_table(kExportCallbacks));
  void*** table = nullptr;
  unsigned size = 0;
  if (callbacks == nullptr || !callbacks->get_module_function_table(kModuleCore2, &table, &size)) return 0;
  *table[kRangePush] = reinterpret_cast<void*>(push);
  *table[kRangePop] = reinterpret_cast<void*>(pop);
  *table[kRegisterString] = reinterpret_cast<void*>(register_string);
  *table[kDomainCreate] = reinterpret_cast<void*>(create_domain);
  return 1;
}

// What was recorded since the last time, cut off where `size` bytes do not hold it; its length in any case.
extern "C" __attribute__((visibility("default"))) size_t nvtx_recorder_take(char* text, size_t size) {
  std::lock_guard<std::mutex> const lock(mutex);
  size_t const length = recorded.size();
  if (length < size) {
    memcpy(text, recorded.c_str(), length + 1);
    recorded.clear();
  }
  return length;
}
