// Kernels of the simulation's own tests, built for the host: name, parameter sizes (ending with 0) and body.
#include <cstddef>

#define KERNEL(NAME, ...)                                                                                             \
  extern "C" __attribute__((visibility("default"))) std::size_t const simcuda_parameters_##NAME[] = {__VA_ARGS__, 0}; \
  extern "C" __attribute__((visibility("default"))) void simcuda_kernel_##NAME(                                       \
      void** parameters, unsigned const* grid, unsigned const* block)

// out[i] = a * in[i], one element a thread.
KERNEL(scale, sizeof(float*), sizeof(float const*), sizeof(float)) {
  auto* const out = *static_cast<float**>(parameters[0]);
  auto const* const in = *static_cast<float const**>(parameters[1]);
  float const a = *static_cast<float*>(parameters[2]);
  for (unsigned i = 0; i < grid[0] * block[0]; ++i) out[i] = a * in[i];
}
