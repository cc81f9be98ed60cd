// For prepare_x() of each op: loads its kernels, on a device whose arithmetic is correct.
#pragma once

#include "launch.h"
#include "panrt/cuda/status.h"

namespace panrt::cuda {

// The steps around loading; prepare.cu.
class Preparation {
 public:
  Preparation() noexcept;
  ~Preparation();
  Preparation(Preparation const&) = delete;
  Preparation& operator=(Preparation const&) = delete;

  // False if there is no device, or if its code computes incorrectly.
  bool ready() const noexcept { return ready_; }
  Status const& status() const noexcept { return status_; }
  bool load(void const* kernel) noexcept;

 private:
  Status status_;
  bool ready_ = false;
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;  // of this thread, outside
};

template <typename... Kernels>
Status prepare(Kernels*... kernels) noexcept {
  Preparation preparation;
  if (preparation.ready()) (void)(preparation.load(reinterpret_cast<void const*>(kernels)) && ...);
  return preparation.status();
}

}  // namespace panrt::cuda
