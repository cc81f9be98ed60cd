// What the simulated device does, read from a file of facts; facts.py says what each means.
//
// Objects are flattened, {"alignment": {"device": 256}} is "alignment.device". A file that cannot be read, or a fact
// that is missing or unknown, ends the process: no test may pass on a device that nobody described.
#pragma once

#include <cuda.h>

#include <cctype>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <utility>

namespace simcuda {

using Flat = std::map<std::string, std::string>;

[[noreturn]] inline void refuse(std::string const& what) {
  std::fprintf(stderr, "simcuda: facts: %s\n", what.c_str());
  std::exit(70);
}

// The part of JSON that files of facts are written in: objects, strings without escapes, numbers, true and false.
class FactsReader {
 public:
  explicit FactsReader(std::string path) : path_(std::move(path)) {
    std::ifstream file(path_);
    if (!file) refuse(path_ + ": cannot be read");
    text_.assign(std::istreambuf_iterator<char>(file), {});
  }

  Flat read() {
    object("");
    if (peek() != 0) fail("the end");
    return std::move(facts_);
  }

 private:
  char peek() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  void expect(char wanted) {
    if (peek() != wanted) fail(std::string(1, wanted));
    ++at_;
  }

  [[noreturn]] void fail(std::string const& wanted) {
    refuse(path_ + ": expected " + wanted + " at byte " + std::to_string(at_));
  }

  std::string string() {
    expect('"');
    auto const end = text_.find_first_of("\"\\", at_);
    if (end == std::string::npos || text_[end] == '\\') fail("a string without escapes");
    auto const begin = std::exchange(at_, end + 1);
    return text_.substr(begin, end - begin);
  }

  void object(std::string const& prefix) {
    expect('{');
    while (peek() != '}') {
      auto const name = prefix + string();
      expect(':');
      if (peek() == '{') {
        object(name + ".");
      } else if (peek() == '"') {
        facts_[name] = string();
      } else {
        auto const end = text_.find_first_of(",} \n", at_);
        if (end == at_ || end == std::string::npos) fail("a value");
        facts_[name] = text_.substr(at_, end - at_);
        at_ = end;
      }
      if (peek() != '}') expect(',');
    }
    ++at_;
  }

  std::string path_, text_;
  std::size_t at_ = 0;
  Flat facts_;
};

#define ATTRIBUTE(NAME) {#NAME, CU_DEVICE_ATTRIBUTE_##NAME}
inline std::map<std::string, int> const kAttributes = {
    ATTRIBUTE(ASYNC_ENGINE_COUNT),
    ATTRIBUTE(CAN_MAP_HOST_MEMORY),
    ATTRIBUTE(CLOCK_RATE),
    ATTRIBUTE(COMPUTE_CAPABILITY_MAJOR),
    ATTRIBUTE(COMPUTE_CAPABILITY_MINOR),
    ATTRIBUTE(COMPUTE_MODE),
    ATTRIBUTE(CONCURRENT_KERNELS),
    ATTRIBUTE(CONCURRENT_MANAGED_ACCESS),
    ATTRIBUTE(COOPERATIVE_LAUNCH),
    ATTRIBUTE(GLOBAL_MEMORY_BUS_WIDTH),
    ATTRIBUTE(HOST_REGISTER_SUPPORTED),
    ATTRIBUTE(INTEGRATED),
    ATTRIBUTE(L2_CACHE_SIZE),
    ATTRIBUTE(MANAGED_MEMORY),
    ATTRIBUTE(MAX_BLOCKS_PER_MULTIPROCESSOR),
    ATTRIBUTE(MAX_BLOCK_DIM_X),
    ATTRIBUTE(MAX_BLOCK_DIM_Y),
    ATTRIBUTE(MAX_BLOCK_DIM_Z),
    ATTRIBUTE(MAX_GRID_DIM_X),
    ATTRIBUTE(MAX_GRID_DIM_Y),
    ATTRIBUTE(MAX_GRID_DIM_Z),
    ATTRIBUTE(MAX_REGISTERS_PER_BLOCK),
    ATTRIBUTE(MAX_REGISTERS_PER_MULTIPROCESSOR),
    ATTRIBUTE(MAX_SHARED_MEMORY_PER_BLOCK),
    ATTRIBUTE(MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
    ATTRIBUTE(MAX_SHARED_MEMORY_PER_MULTIPROCESSOR),
    ATTRIBUTE(MAX_THREADS_PER_BLOCK),
    ATTRIBUTE(MAX_THREADS_PER_MULTIPROCESSOR),
    ATTRIBUTE(MEMORY_CLOCK_RATE),
    ATTRIBUTE(MEMORY_POOLS_SUPPORTED),
    ATTRIBUTE(MULTIPROCESSOR_COUNT),
    ATTRIBUTE(PAGEABLE_MEMORY_ACCESS),
    ATTRIBUTE(STREAM_PRIORITIES_SUPPORTED),
    ATTRIBUTE(TEXTURE_ALIGNMENT),
    ATTRIBUTE(TEXTURE_PITCH_ALIGNMENT),
    ATTRIBUTE(TOTAL_CONSTANT_MEMORY),
    ATTRIBUTE(UNIFIED_ADDRESSING),
    ATTRIBUTE(WARP_SIZE),
};
#undef ATTRIBUTE

enum class Fresh { kUndefined, kZeros };

struct Facts {
  explicit Facts(Flat facts) : flat(std::move(facts)) {
    for (auto const& [name, value] : flat) {
      if (name.rfind("attributes.", 0) != 0) continue;
      auto const known = kAttributes.find(name.substr(name.find('.') + 1));
      if (known == kAttributes.end()) refuse(name + ": simcuda does not know it");
      attributes[known->second] = std::atoi(value.c_str());
    }
  }

  std::string const& text(std::string const& name) const {
    auto const found = flat.find(name);
    if (found == flat.end()) refuse(name + ": is missing");
    return found->second;
  }
  double number(std::string const& name) const { return std::strtod(text(name).c_str(), nullptr); }
  std::uint64_t whole(std::string const& name) const { return std::strtoull(text(name).c_str(), nullptr, 10); }
  bool says(std::string const& name, std::string const& yes, std::string const& no) const {
    if (text(name) != yes && text(name) != no) refuse(name + ": got " + text(name) + ", expected " + yes + " or " + no);
    return text(name) == yes;
  }
  Fresh fresh(std::string const& name) const {
    return says(name, "zeros", "undefined") ? Fresh::kZeros : Fresh::kUndefined;
  }

  Flat flat;
  std::map<int, int> attributes;
  std::string name = text("name");
  int driver_version = static_cast<int>(whole("driver_version"));
  std::uint64_t memory = whole("memory_bytes");
  std::size_t device_alignment = whole("alignment.device"), host_alignment = whole("alignment.pinned");
  std::size_t pitch_alignment = whole("alignment.pitch");
  Fresh device_memory = fresh("fresh_memory.device"), host_memory = fresh("fresh_memory.pinned"),
        mapped_memory = fresh("fresh_memory.mapped");
  double work_seconds = number("seconds_per_work");
  double copied = number("bytes_per_second.copy"), cached = number("bytes_per_second.device"),
         mapped = number("bytes_per_second.mapped");
  bool loads_lazily = says("module_loading", "LAZY", "EAGER");
  bool captures_allocation = says("capture.allocation", "allowed", "refused");
  bool captures_module_load = says("capture.module_load", "allowed", "refused");
  bool captures_first_launch = says("capture.first_launch", "allowed", "refused");
};

}  // namespace simcuda
