// Few rows times a matrix of int8 numbers, which have a scale a row and BLOCK columns: numbers become
// floats in registers, so that a weight costs a byte of memory and the inputs lose nothing.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "linear.h"

namespace slowwave {

constexpr int64_t BLOCK = 32;

// The next vector of numbers as floats.
inline Simd<float>::vec load_int8(const int8_t* from) {
#if defined(__AVX512F__)
  const __m128i numbers = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (Simd<float>::vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(numbers));
#elif defined(__AVX2__)
  const __m128i numbers = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return (Simd<float>::vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(numbers));
#else
  Simd<float>::vec loaded;
  for (int64_t i = 0; i < Simd<float>::lanes; ++i) loaded[i] = from[i];
  return loaded;
#endif
}

// ROWS outputs of every row of x (B, BLOCK * blocks), for as many rows of the matrix.
template <int ROWS>
void dot_int8(
    const int8_t* numbers, const float* scales, int64_t blocks, const float* x, int64_t B, float* out,
    int64_t N) {
  using vec = Simd<float>::vec;
  constexpr int64_t lanes = Simd<float>::lanes;
  const int64_t D = blocks * BLOCK;
  for (int64_t b = 0; b < B; ++b) {
    vec sums[ROWS] = {};
    for (int64_t k = 0; k < blocks; ++k) {
      const float* inputs = x + b * D + k * BLOCK;
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; ++r) {
        const int8_t* from = numbers + r * D + k * BLOCK;
        __builtin_prefetch(from + ROWS * D);  // rows are short: no hardware sees them coming
        vec sum = {};
#pragma GCC unroll 8
        for (int64_t j = 0; j < BLOCK; j += lanes) {
          sum += *reinterpret_cast<const vec*>(inputs + j) * load_int8(from + j);
        }
        sums[r] += scales[r * blocks + k] * sum;
      }
    }
    for (int r = 0; r < ROWS; ++r) out[b * N + r] = sum_lanes<float>(sums[r]);
  }
}

inline void check_int8(const at::Tensor& numbers, const at::Tensor& scales) {
  TORCH_CHECK(numbers.scalar_type() == at::kChar, "numbers must be int8");
  TORCH_CHECK(scales.scalar_type() == at::kFloat, "scales must be float32");
  TORCH_CHECK(
      numbers.is_contiguous() && scales.is_contiguous() && numbers.size(0) == scales.size(0) &&
          numbers.size(1) == BLOCK * scales.size(1),
      "there must be a scale a row and ", BLOCK, " columns");
}

// x (..., D) float32, numbers (N, columns), scales (N, columns / BLOCK) -> (..., N). Columns from D
// on are zero.
inline at::Tensor int8_linear(
    const at::Tensor& x, const at::Tensor& numbers, const at::Tensor& scales) {
  constexpr int ROWS = 4;
  check_int8(numbers, scales);
  const int64_t N = numbers.size(0), columns = numbers.size(1), blocks = columns / BLOCK;
  TORCH_CHECK(x.scalar_type() == at::kFloat, "x must be float32");
  TORCH_CHECK(x.size(-1) <= columns && columns < x.size(-1) + BLOCK, "x has another size");
  auto shape = x.sizes().vec();
  shape.back() = N;
  const at::Tensor out = at::empty(shape, x.options());
  const at::Tensor inputs = at::constant_pad_nd(x, {0, columns - x.size(-1)}).contiguous();
  const int64_t B = columns == 0 ? 0 : inputs.numel() / columns;
  const float *from = inputs.const_data_ptr<float>(), *factors = scales.const_data_ptr<float>();
  const int8_t* matrix = numbers.const_data_ptr<int8_t>();
  float* to = out.data_ptr<float>();
  const int64_t grain = std::max<int64_t>(1, WEIGHTS_A_THREAD / std::max<int64_t>(1, ROWS * columns));
  at::parallel_for(0, (N + ROWS - 1) / ROWS, grain, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin * ROWS; n < std::min(N, end * ROWS); n += ROWS) {
      const int8_t* rows = matrix + n * columns;
      const float* of_rows = factors + n * blocks;
      if (N - n >= ROWS) {
        dot_int8<ROWS>(rows, of_rows, blocks, from, B, to + n, N);
        continue;
      }
      for (int64_t r = 0; r < N - n; ++r) {
        dot_int8<1>(rows + r * columns, of_rows + r * blocks, blocks, from, B, to + n + r, N);
      }
    }
  });
  return out;
}

// The matrix (N, D) in float32.
inline at::Tensor int8_expand(const at::Tensor& numbers, const at::Tensor& scales, int64_t D) {
  check_int8(numbers, scales);
  constexpr int64_t lanes = Simd<float>::lanes;
  const int64_t N = numbers.size(0), columns = numbers.size(1), blocks = columns / BLOCK;
  const at::Tensor out = at::empty({N, columns}, scales.options());
  const float* factors = scales.const_data_ptr<float>();
  const int8_t* from = numbers.const_data_ptr<int8_t>();
  float* to = out.data_ptr<float>();
  const int64_t grain = std::max<int64_t>(1, WEIGHTS_A_THREAD / std::max<int64_t>(1, BLOCK));
  at::parallel_for(0, N * blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      for (int64_t j = k * BLOCK; j < (k + 1) * BLOCK; j += lanes) {
        *reinterpret_cast<Simd<float>::vec*>(to + j) = factors[k] * load_int8(from + j);
      }
    }
  });
  return out.narrow(1, 0, D);
}

}  // namespace slowwave
