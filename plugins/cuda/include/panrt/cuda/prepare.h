// What is done once, outside of any capture, before kernels are launched.
#pragma once

#include "panrt/cuda/status.h"

namespace panrt::cuda {

// Null if this library's host code computes as plugins/OPS.md requires, else the fault and the remedy.
char const* host_arithmetic_fault() noexcept;

// Checks the same of the current device's code, once in a process, and loads every kernel of the library into the
// current context. CUDA loads a kernel at its first launch otherwise, which cannot be captured. Nothing is captured,
// and no capture in progress is disturbed. Does nothing if there is no device.
//
// An op's prepare_x(), beside its launch_x(), does so for its kernels alone.
Status prepare() noexcept;

}  // namespace panrt::cuda
