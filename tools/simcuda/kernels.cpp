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

// The kernel of examples/pycuda_frames.py: darkens the pixels of a frame that are not of a thing.
KERNEL(keep_things, sizeof(unsigned char*), sizeof(int), sizeof(int), sizeof(int const*), sizeof(int), sizeof(int),
       sizeof(int), sizeof(unsigned char const*)) {
  auto* const frame = *static_cast<unsigned char**>(parameters[0]);
  int const height = *static_cast<int*>(parameters[1]), width = *static_cast<int*>(parameters[2]);
  auto const* const panoptic = *static_cast<int const**>(parameters[3]);
  int const map_height = *static_cast<int*>(parameters[4]), map_width = *static_cast<int*>(parameters[5]);
  int const map_pitch = *static_cast<int*>(parameters[6]);
  auto const* const is_thing = *static_cast<unsigned char const**>(parameters[7]);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      int const id = panoptic[y * map_height / height * map_pitch + x * map_width / width];
      for (int c = 0; c < 3 && !is_thing[id]; ++c) frame[3 * (y * width + x) + c] /= 4;
    }
  if (grid[0] * block[0] < unsigned(width) || grid[1] * block[1] < unsigned(height)) frame[0] = 255;  // too few threads
}
