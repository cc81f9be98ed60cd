// What is done once, outside of any capture, before kernels are launched.
#pragma once

#include "panrt/cuda/status.h"

namespace panrt::cuda {

// Null where this library's host code computes as plugins/OPS.md asks, else what it does instead and the remedy.
char const* host_arithmetic_fault() noexcept;

// Asks the current device the same of its code, once in a process, and loads every kernel of the library into the
// current context. CUDA loads a kernel at its first launch otherwise, which cannot be captured. Nothing is captured,
// and nothing that is being captured is disturbed. Nothing is done where there is no device.
//
// An op's prepare_x(), beside its launch_x(), does so for its kernels alone.
Status prepare() noexcept;

}  // namespace panrt::cuda
