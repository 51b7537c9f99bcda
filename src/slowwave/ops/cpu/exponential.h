// exp of a vector, to a unit or two in the last place of float32, and SiLU.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "tiles.h"

namespace slowwave {

// Cody and Waite: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial in r (coefficients as in
// Cephes' expf), and n added to the exponent's bits. Below e^-87 the result is e^-87, not zero.
inline Simd<float>::vec exponential_of_floats(Simd<float>::vec x) {
  typedef int32_t bits __attribute__((vector_size(VECTOR_BYTES)));
  using vec = Simd<float>::vec;
  constexpr float LOWEST = -87.0f, HIGHEST = 88.0f, ROUNDING = 12582912.0f;  // 1.5 * 2^23
  const vec zero = {};
  x = x < LOWEST ? zero + LOWEST : x;
  x = x > HIGHEST ? zero + HIGHEST : x;
  const vec shifted = x * 1.44269504088896341f + ROUNDING;
  const vec n = shifted - ROUNDING;
  const vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  vec p = zero + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const vec power = p * r * r + r + 1.0f;
  const bits exponent = __builtin_convertvector(n, bits) << 23;
  return (vec)((bits)power + exponent);
}

template <typename T>
typename Simd<T>::vec exponential(typename Simd<T>::vec x) {
  if constexpr (std::is_same_v<T, float>) {
    return exponential_of_floats(x);
  } else {
    for (int64_t i = 0; i < Simd<T>::lanes; ++i) x[i] = std::exp(x[i]);
    return x;
  }
}

// count is a multiple of the vector's length. Below LOWEST, where e^-x would overflow, the result is
// as good as zero.
template <typename T>
void apply_silu(T* x, int64_t count) {
  using vec = typename Simd<T>::vec;
  constexpr T LOWEST = std::is_same_v<T, float> ? -87 : -700;
  for (int64_t i = 0; i < count; i += Simd<T>::lanes) {
    vec& lane = *reinterpret_cast<vec*>(x + i);
    const vec x = lane < LOWEST ? vec{} + LOWEST : lane;  // NaN stays NaN
    lane = x / (T(1) + exponential<T>(-x));
  }
}

}  // namespace slowwave
