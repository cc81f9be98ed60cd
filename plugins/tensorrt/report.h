// Errors of an op, and how they reach the user: by TensorRT's logger.
#pragma once

#include <NvInferRuntime.h>

#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

namespace panrt::tensorrt {

// An input or attribute that an op does not accept; the message names it, what was found and what is expected.
class OpError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Where messages go from now on. TensorRT gives a finder only to libraries that are stored in a plan.
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

// Without a logger messages go to stderr or, if they are kept, wait for take_errors.
void keep_errors(bool keep) noexcept;

// What has been kept since the last call, a line each; valid until the next call.
char const* take_errors() noexcept;

// Logs "PanRT <op>: <text>" as an error.
void report(std::string const& op, char const* text) noexcept;

// No exception may leave a plugin: TensorRT's interfaces are noexcept, and one would end the process.
template <typename Result, typename Body>
Result guarded(std::string const& op, Result failed, Body&& body) noexcept {
  try {
    return std::forward<Body>(body)();
  } catch (std::exception const& error) {
    report(op, error.what());
  } catch (...) {
    report(op, "an exception of unknown type");
  }
  return failed;
}

}  // namespace panrt::tensorrt
