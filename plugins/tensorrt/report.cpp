#include "report.h"

#include <atomic>
#include <cstdio>
#include <mutex>

namespace panrt::tensorrt {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

constexpr std::size_t kMostKept = 64 * 1024;  // bytes; an engine that fails every frame does not fill the memory
std::mutex kept_mutex;
bool keeping = false;
std::string kept, taken;

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept { logger_finder.store(finder); }

void keep_errors(bool keep) noexcept {
  std::lock_guard const lock(kept_mutex);
  keeping = keep;
}

char const* take_errors() noexcept {
  std::lock_guard const lock(kept_mutex);
  taken.swap(kept);
  kept.clear();
  return taken.c_str();
}

void report(std::string const& op, char const* text) noexcept {
  try {
    std::string const line = "PanRT " + op + ": " + text;
    nvinfer1::ILoggerFinder* const finder = logger_finder.load();
    nvinfer1::ILogger* const logger = finder != nullptr ? finder->findLogger() : nullptr;
    if (logger != nullptr) {
      logger->log(nvinfer1::ILogger::Severity::kERROR, line.c_str());
      return;
    }
    std::lock_guard const lock(kept_mutex);
    if (!keeping) {
      std::fprintf(stderr, "%s\n", line.c_str());
    } else if (kept.size() + line.size() < kMostKept) {
      kept += line + '\n';
    }
  } catch (...) {  // no memory for the line: what is left is the text itself
    std::fprintf(stderr, "PanRT: %s\n", text);
  }
}

}  // namespace panrt::tensorrt
