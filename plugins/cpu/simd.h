// Vector code without intrinsics, for x86-64 and AArch64, and how it is compiled for several sets of vector
// instructions.
#pragma once

#include <cstring>
#include <type_traits>
#include <vector>

// For the bodies of hot loops and their helpers: a call would leave the variant that it is made from.
#define PANRT_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__) && defined(__GNUC__)
#define PANRT_X86_64
#define PANRT_AVX2 __attribute__((target("avx2,bmi,bmi2,fma")))
#define PANRT_AVX512 __attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,bmi,bmi2,fma")))
#endif

namespace panrt {

// Sixteen floats: one AVX-512 register.
using Float16 = float __attribute__((vector_size(64)));

// Eight floats: one AVX register, or two of SSE or NEON.
using Float8 = float __attribute__((vector_size(32)));

// Four floats: one register of SSE or NEON. For shuffles: GCC splits those of wider vectors into single lanes.
using Float4 = float __attribute__((vector_size(16)));

#ifdef PANRT_X86_64
inline bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("fma");
}
inline bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

// A function, compiled for one set of vector instructions.
template <typename Function>
struct Variant {
  char const* instructions;
  Function function;
};

// One loop, compiled for several sets of vector instructions; called, it runs the fastest that this processor has.
// `any`, `avx2` and `avx512` are PANRT_INLINE functions, the loop's body for each set: equal, unless the body names the
// width of its vectors. For small hot loops only, because all that is inlined into them is compiled once per set.
// Results are equal, because contraction to fused multiply-add is off; conv3x3.cpp, where it is on, lets its user
// choose.
template <auto any, auto avx2 = any, auto avx512 = nullptr, typename Function = std::decay_t<decltype(any)>>
class Variants;

template <auto any, auto avx2, auto avx512, typename Result, typename... Parameters>
class Variants<any, avx2, avx512, Result (*)(Parameters...)> {
 public:
  using Function = Result (*)(Parameters...);

  // What this processor can run, the fastest first.
  static std::vector<Variant<Function>> all() {
    std::vector<Variant<Function>> found;
#ifdef PANRT_X86_64
    if constexpr (!std::is_null_pointer_v<decltype(avx512)>) {
      if (has_avx512()) found.push_back({"avx512", run_avx512});
    }
    if (has_avx2()) found.push_back({"avx2", run_avx2});
#endif
    found.push_back({"any", run_any});
    return found;
  }

  Result operator()(Parameters... parameters) const { return fastest_(parameters...); }

 private:
  static Result run_any(Parameters... parameters) { return any(parameters...); }
#ifdef PANRT_X86_64
  PANRT_AVX2 static Result run_avx2(Parameters... parameters) { return avx2(parameters...); }
  PANRT_AVX512 static Result run_avx512(Parameters... parameters) { return avx512(parameters...); }
#endif

  inline static Function const fastest_ = all().front().function;
};

template <typename Vector>
PANRT_INLINE void load(float const* from, Vector& to) {
  std::memcpy(&to, from, sizeof to);
}

template <typename Vector>
PANRT_INLINE void store(Vector const& from, float* to) {
  std::memcpy(to, &from, sizeof from);
}

// Lanes of a (0 to 3) and b (4 to 7), picked by number.
template <int... lanes>
PANRT_INLINE void shuffle(Float4 const& a, Float4 const& b, Float4& result) {
#ifdef __clang__
  result = __builtin_shufflevector(a, b, lanes...);
#else
  using Int4 = int __attribute__((vector_size(16)));
  result = __builtin_shuffle(a, b, Int4{lanes...});
#endif
}

// Transposes 4 x 4 floats.
PANRT_INLINE void transpose_lanes(Float4 (&square)[4]) {
  Float4 halves[4];
  shuffle<0, 4, 1, 5>(square[0], square[1], halves[0]);
  shuffle<2, 6, 3, 7>(square[0], square[1], halves[1]);
  shuffle<0, 4, 1, 5>(square[2], square[3], halves[2]);
  shuffle<2, 6, 3, 7>(square[2], square[3], halves[3]);
  shuffle<0, 1, 4, 5>(halves[0], halves[2], square[0]);
  shuffle<2, 3, 6, 7>(halves[0], halves[2], square[1]);
  shuffle<0, 1, 4, 5>(halves[1], halves[3], square[2]);
  shuffle<2, 3, 6, 7>(halves[1], halves[3], square[3]);
}

}  // namespace panrt
