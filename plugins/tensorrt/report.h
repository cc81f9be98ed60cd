// Refusals, and the way they take to the user: TensorRT's logger.
#pragma once

#include <NvInferRuntime.h>

#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

namespace panrt::tensorrt {

// Something that an op cannot do; the message names the input or attribute, what was found and what is expected.
class Refusal : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Where messages go from now on. TensorRT gives a finder to libraries that travel inside a plan, and to no others.
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

// Without a logger messages go to stderr or, once this is asked for, wait for take_refusals.
void keep_refusals(bool keep) noexcept;

// What has been kept since the last call, a line each; valid until the next call.
char const* take_refusals() noexcept;

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
