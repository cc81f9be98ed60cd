// int32 ids to uint16 or uint8. Bound by memory bandwidth: a thread moves four ids, one vector in and one out.
#include <type_traits>

#include "checks.h"
#include "launch.h"
#include "panrt/cuda/narrow_map.h"
#include "panrt/limits.h"
#include "prepare.h"
#include "workspace.h"

namespace panrt::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
__device__ __forceinline__ T saturate(int id) {
  return static_cast<T>(min(max(id, 0), static_cast<int>(static_cast<T>(~T{0}))));
}

// Four ids per thread and step; threads of the first block move up to three remaining ones.
template <typename T>
__global__ void __launch_bounds__(kThreads) narrow_ids(int const* ids, T* narrow, std::int64_t count) {
  using Four = std::conditional_t<sizeof(T) == 2, ushort4, uchar4>;
  std::int64_t const first = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (std::int64_t i = first; i < count / 4; i += static_cast<std::int64_t>(gridDim.x) * kThreads) {
    int4 const from = __ldg(reinterpret_cast<int4 const*>(ids) + i);
    Four const to{saturate<T>(from.x), saturate<T>(from.y), saturate<T>(from.z), saturate<T>(from.w)};
    __stwb(reinterpret_cast<Four*>(narrow) + i, to);
  }
  std::int64_t const rest = count / 4 * 4 + first;
  if (rest < count) narrow[rest] = saturate<T>(ids[rest]);
}

template <typename T>
Status launch_as(NarrowMapArgs const& args, cudaStream_t stream) {
  LaunchShape const shape{blocks_for(args.count, 4 * kThreads), kThreads};
  return launch(narrow_ids<T>, shape, stream, args.ids, static_cast<T*>(args.narrow), args.count);
}

}  // namespace

Status launch_narrow_map(NarrowMapArgs const& args, cudaStream_t stream) noexcept {
  Checks checks("compact map");
  checks.range("count", args.count, 0, kMaxImages * kMaxSide * kMaxSide);
  checks.that(args.bytes_per_id == 1 || args.bytes_per_id == 2, "bytes_per_id must be 1 or 2");
  if (!checks.ok() || args.count == 0) return checks.status();
  checks.that(args.ids != nullptr && args.narrow != nullptr, "ids or narrow is null");
  checks.that(is_aligned(args.ids, 16) && is_aligned(args.narrow, 16), "ids and narrow must be aligned to 16 bytes");
  if (!checks.ok()) return checks.status();
  return args.bytes_per_id == 2 ? launch_as<std::uint16_t>(args, stream) : launch_as<std::uint8_t>(args, stream);
}

Status prepare_narrow_map() noexcept { return prepare(narrow_ids<std::uint16_t>, narrow_ids<std::uint8_t>); }

}  // namespace panrt::cuda
