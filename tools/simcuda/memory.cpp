// Memory: where it lies, what it holds before anyone has written to it, and who may use it.

#include <sys/mman.h>

#include <cstring>
#include <map>
#include <random>
#include <string>
#include <utility>

#include "driver.h"

namespace simcuda {

Allocation const* holding(std::map<std::uint64_t, Allocation> const& memory, std::uint64_t address, std::size_t bytes) {
  auto next = memory.upper_bound(address);
  if (next == memory.begin()) return nullptr;
  auto const& [base, allocation] = *std::prev(next);
  return address + bytes <= base + allocation.bytes ? &allocation : nullptr;
}

namespace {

bool is_mapped(std::uint64_t address) { return holding(driver().host_memory, address, 1) != nullptr; }

}  // namespace

// Device memory or host memory that the device can see.
CUresult check_device(char const* what, std::uint64_t address, std::size_t bytes) {
  auto& d = driver();
  if (holding(d.device_memory, address, bytes) || holding(d.host_memory, address, bytes)) return CUDA_SUCCESS;
  auto next = d.freed.upper_bound(address);
  bool const was_freed = next != d.freed.begin() && address < std::prev(next)->first + std::prev(next)->second;
  d.find(std::string(what) + (was_freed ? ": uses freed memory " : ": uses memory that is not allocated ") +
         hex(address) + " + " + std::to_string(bytes));
  return CUDA_ERROR_ILLEGAL_ADDRESS;
}

CUresult check_host(char const* what, std::uint64_t address, std::size_t bytes) {
  auto& d = driver();
  auto next = d.freed.upper_bound(address);
  if (next == d.freed.begin() || address >= std::prev(next)->first + std::prev(next)->second) return CUDA_SUCCESS;
  d.find(std::string(what) + ": uses freed host memory " + hex(address) + " + " + std::to_string(bytes));
  return CUDA_ERROR_ILLEGAL_ADDRESS;
}

void protect_all(int protection) {
  for (auto const& [base, allocation] : driver().device_memory)
    mprotect(allocation.pages, allocation.page_bytes, protection);
}

// The device has copied or filled, or a kernel has read or written.
void spend_copy(std::uint64_t to, std::uint64_t from, std::size_t bytes) {
  auto& d = driver();
  bool const stays_inside = holding(d.device_memory, to, 1) && holding(d.device_memory, from, 1);  // read and written
  d.clock += static_cast<double>(bytes) / (stays_inside ? d.facts.cached / 2 : d.facts.copied);
}
void spend_fill(std::size_t bytes) { driver().clock += static_cast<double>(bytes) / driver().facts.cached; }
void spend_access(std::uint64_t address, std::size_t bytes) {
  auto& d = driver();
  bool const mapped = is_mapped(address);
  if (mapped) d.mapped_accesses += bytes;
  d.clock += static_cast<double>(bytes) / (mapped ? d.facts.mapped : d.facts.cached);
}

CUresult release(std::uint64_t address, std::map<std::uint64_t, Allocation>& memory) {
  auto& d = driver();
  auto const found = memory.find(address);
  if (found == memory.end()) {
    d.find("free: " + hex(address) + " is not allocated");
    return CUDA_ERROR_INVALID_VALUE;
  }
  auto const [base, allocation] = *found;
  memory.erase(found);
  if (allocation.is_registered) return CUDA_SUCCESS;
  if (&memory == &d.device_memory) d.used -= allocation.bytes;
  d.freed[base] = allocation.bytes;
  madvise(allocation.pages, allocation.page_bytes, MADV_DONTNEED);
  mprotect(allocation.pages, allocation.page_bytes, PROT_NONE);
  return CUDA_SUCCESS;
}

namespace {

constexpr std::size_t kArena = std::size_t{1} << 38;  // addresses, not memory: never handed out twice

// What nobody has written: other bytes in every block of memory and with every seed.
void fill_fresh(char* memory, std::size_t bytes, Fresh kind) {
  if (kind == Fresh::kZeros) return;  // as the pages come
  auto& d = driver();
  std::mt19937_64 dice(d.seed++);
  for (std::size_t at = 0; at < bytes; at += sizeof(std::uint64_t)) {
    std::uint64_t const word = dice();
    std::memcpy(memory + at, &word, sizeof word);
  }
}

std::size_t rounded_up(std::size_t size, std::size_t step) { return (size + step - 1) / step * step; }

// As near to the end of its last page as may be, so that little can be written beyond it, and aligned as the facts have
// it and no better.
CUresult allocate(std::uint64_t* out, std::size_t bytes, std::map<std::uint64_t, Allocation>& memory, unsigned flags) {
  auto& d = driver();
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  bool const on_device = &memory == &d.device_memory;
  std::size_t const alignment = on_device ? d.facts.device_alignment : d.facts.host_alignment;
  std::size_t const page_bytes = rounded_up(bytes + 2 * alignment, kPage);
  if (on_device && (bytes > d.facts.memory || d.used > d.facts.memory - bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  if (d.arena == nullptr)
    d.arena = static_cast<char*>(mmap(nullptr, kArena, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (d.arena_used + page_bytes + kPage > kArena) return CUDA_ERROR_OUT_OF_MEMORY;
  char* const pages = d.arena + d.arena_used;
  d.arena_used += page_bytes + kPage;  // a page that nobody may touch between any two
  if (mprotect(pages, page_bytes, PROT_READ | PROT_WRITE) != 0) return CUDA_ERROR_OUT_OF_MEMORY;
  bool const is_mapped = (flags & CU_MEMHOSTALLOC_DEVICEMAP) != 0;
  fill_fresh(pages, page_bytes,
             on_device   ? d.facts.device_memory
             : is_mapped ? d.facts.mapped_memory
                         : d.facts.host_memory);
  if (on_device) {
    d.used += bytes;
    if (d.is_guarded) mprotect(pages, page_bytes, PROT_NONE);
  }
  *out = reinterpret_cast<std::uint64_t>(pages + page_bytes - bytes) / alignment * alignment;
  if (*out % (2 * alignment) == 0) *out -= alignment;
  memory[*out] = {bytes, pages, page_bytes, flags};
  if (!current.empty()) memory[*out].context = current.back();
  return CUDA_SUCCESS;
}

}  // namespace

CUresult mem_alloc(CUdeviceptr* address, std::size_t bytes) {
  ENTER("cuMemAlloc", kContext | unless(driver().facts.captures_allocation));
  std::uint64_t base = 0;
  CUresult const result = allocate(&base, bytes, driver().device_memory, 0);
  if (result == CUDA_SUCCESS) *address = base;
  return result;
}

CUresult mem_alloc_pitch(CUdeviceptr* address, std::size_t* pitch, std::size_t width, std::size_t height, unsigned) {
  ENTER("cuMemAllocPitch", kContext | unless(driver().facts.captures_allocation));
  *pitch = rounded_up(width, driver().facts.pitch_alignment);
  std::uint64_t base = 0;
  CUresult const result = allocate(&base, *pitch * height, driver().device_memory, 0);
  if (result == CUDA_SUCCESS) *address = base;
  return result;
}

CUresult mem_free(CUdeviceptr address) {
  ENTER("cuMemFree", kRelease);
  if (address == 0) return call.error;
  CUresult const result = release(address, driver().device_memory);
  return call.error != CUDA_SUCCESS ? call.error : result;
}

CUresult mem_alloc_async(CUdeviceptr* address, std::size_t bytes, CUstream) {
  ENTER("cuMemAllocAsync", kContext);
  std::uint64_t base = 0;
  CUresult const result = allocate(&base, bytes, driver().device_memory, 0);
  if (result == CUDA_SUCCESS) *address = base;
  return result;
}

CUresult mem_free_async(CUdeviceptr address, CUstream stream_handle) {
  ENTER("cuMemFreeAsync", kContext);
  CUresult error = CUDA_SUCCESS;
  auto* const stream = stream_of(call, stream_handle, "cuMemFreeAsync", &error);
  if (stream == nullptr) return error;
  return enqueue(call, stream, "free", [address] {
    Lock const lock(driver().mutex);
    return release(address, driver().device_memory);
  });
}

CUresult mem_get_info(std::size_t* free_bytes, std::size_t* total) {
  ENTER("cuMemGetInfo", kContext);
  *free_bytes = driver().facts.memory - driver().used;
  *total = driver().facts.memory;
  return CUDA_SUCCESS;
}

CUresult mem_host_alloc(void** memory, std::size_t bytes, unsigned flags) {
  ENTER("cuMemHostAlloc", kContext | unless(driver().facts.captures_allocation));
  std::uint64_t base = 0;
  CUresult const result = allocate(&base, bytes, driver().host_memory, flags);
  if (result == CUDA_SUCCESS) *memory = reinterpret_cast<void*>(base);
  return result;
}

CUresult mem_alloc_host(void** memory, std::size_t bytes) { return mem_host_alloc(memory, bytes, 0); }

CUresult mem_free_host(void* memory) {
  ENTER("cuMemFreeHost", kRelease);
  CUresult const result = release(reinterpret_cast<std::uint64_t>(memory), driver().host_memory);
  return call.error != CUDA_SUCCESS ? call.error : result;
}

CUresult mem_host_register(void* memory, std::size_t bytes, unsigned flags) {
  ENTER("cuMemHostRegister", kContext | kSafe);
  if (holding(driver().host_memory, reinterpret_cast<std::uint64_t>(memory), 1))
    return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
  driver().host_memory[reinterpret_cast<std::uint64_t>(memory)] = {bytes, nullptr, 0, flags, true};
  return CUDA_SUCCESS;
}

CUresult mem_host_unregister(void* memory) {
  ENTER("cuMemHostUnregister", kRelease);
  CUresult const result = release(reinterpret_cast<std::uint64_t>(memory), driver().host_memory);
  return call.error != CUDA_SUCCESS ? call.error : result;
}

CUresult mem_host_get_device_pointer(CUdeviceptr* address, void* memory, unsigned) {
  ENTER("cuMemHostGetDevicePointer", kContext);
  auto const* const allocation = holding(driver().host_memory, reinterpret_cast<std::uint64_t>(memory), 1);
  if (allocation == nullptr || (allocation->flags & CU_MEMHOSTALLOC_DEVICEMAP) == 0)
    return call.misuse("cuMemHostGetDevicePointer: the memory is not mapped", CUDA_ERROR_INVALID_VALUE);
  *address = reinterpret_cast<CUdeviceptr>(memory);
  return CUDA_SUCCESS;
}

namespace {

CUresult pointer_attribute(void* data, CUpointer_attribute attribute, CUdeviceptr address) {
  auto& d = driver();
  auto const* const device_memory = holding(d.device_memory, address, 1);
  auto const* const allocation = device_memory ? device_memory : holding(d.host_memory, address, 1);
  if (allocation == nullptr) return CUDA_ERROR_INVALID_VALUE;
  bool const on_device = device_memory != nullptr;
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      *static_cast<unsigned*>(data) = on_device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      *static_cast<int*>(data) = 0;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      *static_cast<unsigned*>(data) = 0;
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      *static_cast<CUcontext*>(data) = reinterpret_cast<CUcontext>(allocation->context);
      return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:  // for the current context; host memory can be read in all of them
      if (on_device && (current.empty() || allocation->context != current.back())) return CUDA_ERROR_INVALID_VALUE;
      *static_cast<CUdeviceptr*>(data) = address;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}

}  // namespace

CUresult pointer_get_attribute(void* data, CUpointer_attribute attribute, CUdeviceptr address) {
  ENTER("cuPointerGetAttribute", kContext);
  return pointer_attribute(data, attribute, address);
}

CUresult pointer_get_attributes(unsigned count, CUpointer_attribute* attributes, void** data, CUdeviceptr address) {
  ENTER("cuPointerGetAttributes", kNothing);
  for (unsigned i = 0; i < count; ++i)
    if (pointer_attribute(data[i], attributes[i], address) != CUDA_SUCCESS)
      std::memset(data[i], 0, sizeof(int));  // as the manual has it for unknown memory
  return CUDA_SUCCESS;
}

}  // namespace simcuda
