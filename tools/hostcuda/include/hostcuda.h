// CUDA kernels on the CPU, unmodified: a test double for the device half of CUDA. Needs no CUDA toolkit.
//
// Each CUDA thread of a block is a fiber; blocks run one after another. A fiber runs until it meets a barrier or a warp
// operation, and continues when all threads that take part have arrived. What is reported instead of run, with block,
// thread and line: a barrier that some threads do not reach, two barriers at once, a warp operation whose mask lacks
// its own lane or names a lane that has left or waits elsewhere, a shuffle from a lane outside the mask, a thread that
// sleeps for ever (as it would for a block that comes after its own), a launch shape that no GPU takes. A launch that
// fails gives cudaErrorLaunchFailure; hc_report() has the text.
//
// How kernels are compiled:
//   g++ -std=c++17 -x c++ -I tools/hostcuda/include -I plugins/cuda -I plugins/cuda/include -I plugins/include ...
// together with the sources beside this folder, as tools/hostcuda/__init__.py does, in one of four flavours:
//   plain    -O2
//   asan     AddressSanitizer and UndefinedBehaviorSanitizer; device buffers and shared memory have redzones
//   tsan     a race check: ThreadSanitizer with a fiber of its own for each CUDA thread. Only barriers, __syncwarp and
//            the end of a block order memory, as in CUDA; shuffles and ballots do not. HC_RACE=grid leaves blocks
//            unordered too, for kernels without static shared memory
//   trace    counts memory requests: sectors, ideal sectors, bank conflicts (trace.cpp)
//
// HC_ORDER=forward|reverse|random with HC_SEED, or hc_set_order(), chooses the order of blocks, warps and threads.
// Uninitialised shared memory reads 0xCB bytes (static arrays neither under asan nor in templates, which GCC puts
// elsewhere), device memory 0xCD.
//
// What it does not show: timing, fused multiply-add, memory models weaker than that of x86, the limits of registers, a
// missing __launch_bounds__, and races that only appear while threads run at once in the plain flavour.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

// --- Words of the language -------------------------------------------------------------------------------------------

#define __host__
#define __device__
#define __global__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)
#ifdef HC_ASAN
#define __shared__ static  // AddressSanitizer guards no array in a section of its own
#else
#define __shared__ static __attribute__((section("hc_shared")))
#endif

// --- Types -----------------------------------------------------------------------------------------------------------

#define HC_VECTORS(T, name, align2, align4)                          \
  struct name##1 { T x; };                                           \
  struct alignas(align2) name##2 { T x, y; };                        \
  struct name##3 { T x, y, z; };                                     \
  struct alignas(align4) name##4 { T x, y, z, w; };                  \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
HC_VECTORS(signed char, char, 2, 4)
HC_VECTORS(unsigned char, uchar, 2, 4)
HC_VECTORS(short, short, 4, 8)
HC_VECTORS(unsigned short, ushort, 4, 8)
HC_VECTORS(int, int, 8, 16)
HC_VECTORS(unsigned, uint, 8, 16)
HC_VECTORS(float, float, 8, 16)
HC_VECTORS(double, double, 16, 16)
HC_VECTORS(long long, longlong, 16, 16)
HC_VECTORS(unsigned long long, ulonglong, 16, 16)
#undef HC_VECTORS

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

typedef struct CUstream_st* cudaStream_t;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900,
};
using cudaError = cudaError_t;

enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal = 0,
  cudaStreamCaptureModeThreadLocal = 1,
  cudaStreamCaptureModeRelaxed = 2,
};
constexpr unsigned cudaStreamNonBlocking = 1;

struct cudaFuncAttributes {
  int maxThreadsPerBlock;
};

enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };

// --- The simulation --------------------------------------------------------------------------------------------------

namespace hc {

struct Place {
  char const* file;
  int line;
};

// What the running CUDA thread sees of itself.
struct View {
  uint3 thread, block;
  dim3 block_dim, grid_dim;
  unsigned lane;
};
extern View view;

enum class BlockOp { kBarrier, kCount, kAnd, kOr };
enum class WarpOp { kSync, kShuffle, kBallot, kAdd, kMin, kMax, kMinSigned, kMaxSigned, kAnd, kOr, kXor, kMatchAny };

int block_op(BlockOp op, int predicate, Place place);
// `source` is a lane, for shuffles only.
std::uint64_t warp_op(WarpOp op, unsigned mask, std::uint64_t value, int source, Place place);
void fence();
void sleep(Place place);
void* dynamic_shared();

struct Launch {
  dim3 grid, block;
  std::size_t shared_bytes;
  void const* kernel;      // its code, by which its name is found
  void (*run)(void*);      // one thread of the kernel
  void (*destroy)(void*);  // of the arguments
  void* arguments;
};
void submit(cudaStream_t stream, Launch const& launch);

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream,
            Arguments&&... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<std::decay_t<Parameters>...> arguments;
  };
  submit(stream, {grid, block, shared_bytes, reinterpret_cast<void const*>(kernel),
                  [](void* call) { std::apply(static_cast<Call*>(call)->kernel, static_cast<Call*>(call)->arguments); },
                  [](void* call) { delete static_cast<Call*>(call); },
                  new Call{kernel, {std::forward<Arguments>(arguments)...}}});
}

template <typename To, typename From>
To bits_as(From from) {
  static_assert(sizeof(From) <= sizeof(To) && std::is_trivially_copyable_v<From>);
  To to{};
  std::memcpy(&to, &from, sizeof from);
  return to;
}
template <typename T>
T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace hc

#define threadIdx (::hc::view.thread)
#define blockIdx (::hc::view.block)
#define blockDim (::hc::view.block_dim)
#define gridDim (::hc::view.grid_dim)
constexpr int warpSize = 32;

// --- Barriers and warp operations ------------------------------------------------------------------------------------

// Where an operation stands in the source; return addresses would not do, compilers clone calls.
#define HC_PLACE char const *hc_file = __builtin_FILE(), int hc_line = __builtin_LINE()
#define HC_HERE \
  ::hc::Place { hc_file, hc_line }

inline void __syncthreads(HC_PLACE) { hc::block_op(hc::BlockOp::kBarrier, 0, HC_HERE); }
inline int __syncthreads_count(int p, HC_PLACE) { return hc::block_op(hc::BlockOp::kCount, p, HC_HERE); }
inline int __syncthreads_and(int p, HC_PLACE) { return hc::block_op(hc::BlockOp::kAnd, p, HC_HERE); }
inline int __syncthreads_or(int p, HC_PLACE) { return hc::block_op(hc::BlockOp::kOr, p, HC_HERE); }
inline void __syncwarp(unsigned mask = 0xFFFFFFFFU, HC_PLACE) { hc::warp_op(hc::WarpOp::kSync, mask, 0, 0, HC_HERE); }
inline void __nanosleep(unsigned, HC_PLACE) { hc::sleep(HC_HERE); }
inline void __threadfence() { hc::fence(); }
inline void __threadfence_block() { hc::fence(); }

namespace hc {
template <typename T>
T shuffle(unsigned mask, T value, int source, int first, int end, Place place) {
  int const lane = static_cast<int>(view.lane);
  int const from = source < first || source >= end ? lane : source;
  return from_bits<T>(warp_op(WarpOp::kShuffle, mask, bits_as<std::uint64_t>(value), from, place));
}
inline int segment(int width) { return static_cast<int>(view.lane) & ~(width - 1); }
}  // namespace hc

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, HC_PLACE) {
  int const first = hc::segment(width);
  return hc::shuffle(mask, value, first | (source & (width - 1)), first, first + width, HC_HERE);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, HC_PLACE) {
  return hc::shuffle(mask, value, static_cast<int>(hc::view.lane) - static_cast<int>(delta), hc::segment(width), 32,
                     HC_HERE);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, HC_PLACE) {
  return hc::shuffle(mask, value, static_cast<int>(hc::view.lane + delta), 0, hc::segment(width) + width, HC_HERE);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, HC_PLACE) {
  return hc::shuffle(mask, value, static_cast<int>(hc::view.lane) ^ lanes, 0, hc::segment(width) + width, HC_HERE);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, HC_PLACE) {
  return static_cast<unsigned>(hc::warp_op(hc::WarpOp::kBallot, mask, predicate != 0, 0, HC_HERE));
}
inline int __any_sync(unsigned mask, int predicate, HC_PLACE) {
  return hc::warp_op(hc::WarpOp::kBallot, mask, predicate != 0, 0, HC_HERE) != 0;
}
inline int __all_sync(unsigned mask, int predicate, HC_PLACE) {
  return hc::warp_op(hc::WarpOp::kBallot, mask, predicate == 0, 0, HC_HERE) == 0;
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value, HC_PLACE) {
  return static_cast<unsigned>(hc::warp_op(hc::WarpOp::kMatchAny, mask, hc::bits_as<std::uint64_t>(value), 0, HC_HERE));
}
// Of architecture 80 and later, as on the GPU; kernels for 75 do without.
#define HC_REDUCE(T, name, op)                                                                          \
  inline T __reduce_##name##_sync(unsigned mask, T value, HC_PLACE) {                                   \
    return static_cast<T>(hc::warp_op(hc::WarpOp::op, mask, static_cast<unsigned>(value), 0, HC_HERE)); \
  }
HC_REDUCE(unsigned, add, kAdd)
HC_REDUCE(int, add, kAdd)
HC_REDUCE(unsigned, min, kMin)
HC_REDUCE(int, min, kMinSigned)
HC_REDUCE(unsigned, max, kMax)
HC_REDUCE(int, max, kMaxSigned)
HC_REDUCE(unsigned, and, kAnd)
HC_REDUCE(unsigned, or, kOr)
HC_REDUCE(unsigned, xor, kXor)
#undef HC_REDUCE
#undef HC_PLACE
#undef HC_HERE

// --- Atomics: they order nothing -------------------------------------------------------------------------------------

#define HC_ATOMIC(name, builtin)                      \
  template <typename T>                               \
  T name(T* address, std::common_type_t<T> value) {   \
    return builtin(address, value, __ATOMIC_RELAXED); \
  }
HC_ATOMIC(atomicExch, __atomic_exchange_n)
HC_ATOMIC(atomicAnd, __atomic_fetch_and)
HC_ATOMIC(atomicOr, __atomic_fetch_or)
HC_ATOMIC(atomicXor, __atomic_fetch_xor)
#undef HC_ATOMIC

template <typename T>
T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> desired) {
  __atomic_compare_exchange_n(address, &expected, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}

namespace hc {
template <typename T, typename Change>
T atomic_change(T* address, Change change) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  static_assert(sizeof(T) == sizeof(Bits));
  auto* const bits = reinterpret_cast<Bits*>(address);
  Bits old = __atomic_load_n(bits, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(bits, &old, bits_as<Bits>(change(from_bits<T>(old))), false, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED)) {
  }
  return from_bits<T>(old);
}
}  // namespace hc

template <typename T>
T atomicAdd(T* address, std::common_type_t<T> value) {
  if constexpr (std::is_integral_v<T>) return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
  return hc::atomic_change(address, [&](T old) { return static_cast<T>(old + value); });
}
template <typename T>
T atomicSub(T* address, std::common_type_t<T> value) {
  return __atomic_fetch_sub(address, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicMin(T* address, std::common_type_t<T> value) {
  return hc::atomic_change(address, [&](T old) { return value < old ? value : old; });
}
template <typename T>
T atomicMax(T* address, std::common_type_t<T> value) {
  return hc::atomic_change(address, [&](T old) { return value > old ? value : old; });
}

// --- Arithmetic ------------------------------------------------------------------------------------------------------

inline unsigned __float_as_uint(float x) { return hc::bits_as<unsigned>(x); }
inline int __float_as_int(float x) { return hc::bits_as<int>(x); }
inline float __uint_as_float(unsigned x) { return hc::bits_as<float>(x); }
inline float __int_as_float(int x) { return hc::bits_as<float>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float rsqrtf(float a) { return 1.0F / std::sqrt(a); }
// Conversions saturate and NaN is 0, as on the GPU.
inline int __float2int_rz(float x) {
  return x != x ? 0 : x >= 2147483648.0F ? 2147483647 : x <= -2147483648.0F ? -2147483647 - 1 : static_cast<int>(x);
}
inline int __float2int_rd(float x) { return __float2int_rz(std::floor(x)); }
inline int __float2int_ru(float x) { return __float2int_rz(std::ceil(x)); }
inline int __float2int_rn(float x) { return __float2int_rz(std::nearbyint(x)); }
inline float __saturatef(float x) { return !(x > 0.0F) ? 0.0F : x < 1.0F ? x : 1.0F; }

#define HC_MIN_MAX(T)                              \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
HC_MIN_MAX(int)
HC_MIN_MAX(unsigned)
HC_MIN_MAX(long)
HC_MIN_MAX(unsigned long)
HC_MIN_MAX(long long)
HC_MIN_MAX(unsigned long long)
#undef HC_MIN_MAX
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }

// Vectors are read and written as the one request that they are; a plain copy may be taken apart by the compiler.
namespace hc {
typedef std::uint32_t Word4 __attribute__((vector_size(16)));
// An integer of the vector's size, or a vector of them.
template <typename T>
using Words = std::conditional_t<
    std::is_arithmetic_v<T>, T,
    std::conditional_t<sizeof(T) == 16, Word4,
                       std::conditional_t<sizeof(T) == 8, std::uint64_t,
                                          std::conditional_t<sizeof(T) == 4, std::uint32_t,
                                                             std::conditional_t<sizeof(T) == 2, std::uint16_t, T>>>>>;
}  // namespace hc

template <typename T>
T __ldg(T const* address) {
  hc::Words<T> const request = *reinterpret_cast<hc::Words<T> const*>(address);
  T value;
  std::memcpy(&value, &request, sizeof value);
  return value;
}
template <typename T>
void __stwb(T* address, T value) {
  hc::Words<T> request;
  std::memcpy(&request, &value, sizeof value);
  *reinterpret_cast<hc::Words<T>*>(address) = request;
}

// --- Host functions: what a launch may call while a graph is captured ------------------------------------------------

cudaError_t cudaGetLastError();
char const* cudaGetErrorString(cudaError_t error);
cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream);

// --- Host functions: what comes before -------------------------------------------------------------------------------

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaMalloc(void** memory, std::size_t bytes);
cudaError_t cudaFree(void* memory);
// A stream on which work runs at once, whatever hc_set_stream_hook says.
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void const* kernel);  // loads it, as on the GPU

// For tests, by ctypes.
extern "C" {
// "forward", "reverse" or "random"; false for another word.
bool hc_set_order(char const* order, unsigned seed);
// What the last launch that failed did wrong; empty when none did since the last call.
char const* hc_report();
// Kernels, copies and fills launched so far.
long long hc_launches();
// From now on work of a stream goes to `enqueue`, which may call run(context) any number of times, as a graph does that
// is replayed, and at last destroy(context). run gives a cudaError_t. After a jump out of it, as from a handler of
// signals, run(nullptr) must follow on the same thread: it lets go of what the launch held. Null: work runs at once.
void hc_set_stream_hook(void (*enqueue)(cudaStream_t stream, int (*run)(void*), void (*destroy)(void*), void* context));
// From now on launching a kernel that is not loaded yet fails, as in a capture: neither cudaFuncGetAttributes has had
// it nor a launch before.
int hc_require_loaded(int required);
// How many kernels are loaded, and the mode that cudaThreadExchangeStreamCaptureMode last set.
int hc_loaded(int* kernels, int* capture_mode);
// Devices that cudaGetDeviceCount finds; 1 at first.
int hc_set_devices(int count);
// Asked before a kernel is launched on a stream for the first time; a cudaError_t rejects it, as a capture may where
// kernels are loaded lazily. All count as never launched from now on.
void hc_set_load_hook(int (*refuses)(cudaStream_t stream));
void* hc_malloc(std::size_t bytes);
void hc_free(void* memory);
}
