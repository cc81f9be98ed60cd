// The result of a launch: whether its arguments are valid and the GPU took it. No exception leaves this library.
#pragma once

#include <cstdint>

namespace panrt::cuda {

enum class Code : std::int32_t {
  kOk = 0,
  kInvalidArgument = 1,    // an argument is outside the op's contract
  kUnsupported = 2,        // within the contract, but beyond what the kernel supports
  kWorkspaceTooSmall = 3,  // less than x_workspace_bytes
  kLaunchFailed = 4,       // CUDA failed; see cuda_error
};

struct [[nodiscard]] Status {
  Code code = Code::kOk;
  std::int32_t cuda_error = 0;  // a cudaError_t, 0 unless code is kLaunchFailed
  char const* message = "";     // names the op and the argument; never null; valid until this thread's next call

  constexpr bool ok() const noexcept { return code == Code::kOk; }
};

constexpr Status invalid(char const* message) noexcept { return {Code::kInvalidArgument, 0, message}; }
constexpr Status unsupported(char const* message) noexcept { return {Code::kUnsupported, 0, message}; }
constexpr Status workspace_too_small(char const* message) noexcept { return {Code::kWorkspaceTooSmall, 0, message}; }

}  // namespace panrt::cuda
