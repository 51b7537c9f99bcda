// Few rows times the transpose of a weight matrix, without gradients: a matter of memory, so every
// weight is read once, by all threads, and meets all rows while it is in cache.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "chunk.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace slowwave {

constexpr int64_t WEIGHTS_A_THREAD = 32768;  // fewer are read before another thread has started

template <typename T, typename S>
typename Simd<T>::vec load_vector(const S* from) {
  using vec = typename Simd<T>::vec;
  if constexpr (std::is_same_v<T, S>) {
    return *reinterpret_cast<const vec*>(from);
  } else {  // a bfloat16 is the upper half of a float
#if defined(__AVX512F__)
    const auto halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
#elif defined(__AVX2__)
    const auto halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return (vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
#else
    vec loaded;
    for (int64_t i = 0; i < Simd<T>::lanes; ++i) loaded[i] = static_cast<T>(from[i]);
    return loaded;
#endif
  }
}

template <typename T>
T sum_lanes(typename Simd<T>::vec x) {
  T total = 0;
  for (int64_t i = 0; i < Simd<T>::lanes; ++i) total += x[i];
  return total;
}

template <>
inline float sum_lanes<float>(Simd<float>::vec x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)x);
#elif defined(__AVX2__)
  const __m256 y = (__m256)x;
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
#else
  return x[0] + x[1] + x[2] + x[3];
#endif
}

// ROWS outputs of every row of x, for as many rows of the weight.
template <int ROWS, typename T, typename S>
void dot_weights(const S* weight, int64_t D, const T* x, int64_t B, S* out, int64_t N) {
  using vec = typename Simd<T>::vec;
  constexpr int64_t lanes = Simd<T>::lanes;
  const int64_t whole = D / lanes * lanes;
  for (int64_t b = 0; b < B; ++b) {
    const T* row = x + b * D;
    vec sums[ROWS] = {};
    for (int64_t j = 0; j < whole; j += lanes) {
      const vec input = *reinterpret_cast<const vec*>(row + j);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) sums[r] += input * load_vector<T, S>(weight + r * D + j);
    }
    for (int r = 0; r < ROWS; ++r) {
      T total = 0;
      for (int64_t i = 0; i < lanes; ++i) total += sums[r][i];
      for (int64_t j = whole; j < D; ++j) total += row[j] * static_cast<T>(weight[r * D + j]);
      out[b * N + r] = static_cast<S>(total);
    }
  }
}

// x (..., D), weight (N, D), of one dtype -> (..., N), summed wide.
inline at::Tensor linear(const at::Tensor& x, const at::Tensor& weight) {
  constexpr int ROWS = 8;
  const int64_t N = weight.size(0), D = weight.size(1), B = D == 0 ? 0 : x.numel() / D;
  TORCH_CHECK(x.scalar_type() == weight.scalar_type(), "x and weight must have one dtype");
  TORCH_CHECK(x.size(-1) == D, "x must have as many columns as weight");
  auto shape = x.sizes().vec();
  shape.back() = N;
  const at::Tensor out = at::empty(shape, x.options());
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor inputs = x.to(wide).contiguous(), weights = weight.contiguous();
  const int64_t grain = std::max<int64_t>(1, WEIGHTS_A_THREAD / std::max<int64_t>(1, ROWS * D));
  dispatch(wide, x, [&](auto wide_number, auto narrow_number) {
    using T = decltype(wide_number);
    using S = decltype(narrow_number);
    const T* from = inputs.const_data_ptr<T>();
    at::parallel_for(0, (N + ROWS - 1) / ROWS, grain, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin * ROWS; n < std::min(N, end * ROWS); n += ROWS) {
        const S* rows = weights.const_data_ptr<S>() + n * D;
        S* to = out.data_ptr<S>() + n;
        if (N - n >= ROWS) {
          dot_weights<ROWS, T, S>(rows, D, from, B, to, N);
        } else {
          for (int64_t r = 0; r < N - n; ++r) dot_weights<1, T, S>(rows + r * D, D, from, B, to + r, N);
        }
      }
    });
  });
  return out;
}

}  // namespace slowwave
