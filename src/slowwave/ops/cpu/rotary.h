// Rotary positions, in one pass over memory and without gradients.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "chunk.h"

namespace slowwave {

constexpr int64_t TOKENS_A_THREAD = 32;

template <typename T, typename S>
void rotate_heads(
    const S* x, int64_t heads, int64_t head_stride, const T* cos, const T* sin, int64_t half, S* out) {
  for (int64_t h = 0; h < heads; ++h, x += head_stride, out += 2 * half) {
    for (int64_t j = 0; j < half; ++j) {
      const T first = static_cast<T>(x[j]), second = static_cast<T>(x[half + j]);
      out[j] = static_cast<S>(first * cos[j] - second * sin[j]);
      out[half + j] = static_cast<S>(second * cos[j] + first * sin[j]);
    }
  }
}

// x (B, T, H, Dh) with its last dimension contiguous; cos and sin (B or 1, T, 1, Dh / 2), wide
inline at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t B = x.size(0), T = x.size(1), H = x.size(2), size = x.size(3), half = size / 2;
  const at::Tensor source = rows_of_numbers(x), cosines = cos.contiguous(), sines = sin.contiguous();
  const at::Tensor out = at::empty(x.sizes(), x.options(), at::MemoryFormat::Contiguous);
  const int64_t angles_of_row = cos.size(0) == 1 ? 0 : T * half;
  dispatch(cos.scalar_type(), x, [&](auto wide_number, auto narrow_number) {
    using W = decltype(wide_number);
    using S = decltype(narrow_number);
    const S* from = source.const_data_ptr<S>();
    S* to = out.data_ptr<S>();
    at::parallel_for(0, B * T, TOKENS_A_THREAD, [&](int64_t begin, int64_t end) {
      for (int64_t token = begin; token < end; ++token) {
        const int64_t b = token / T, t = token % T, angle = b * angles_of_row + t * half;
        rotate_heads<W, S>(
            from + b * source.stride(0) + t * source.stride(1), H, source.stride(2),
            cosines.const_data_ptr<W>() + angle, sines.const_data_ptr<W>() + angle, half,
            to + token * H * size);
      }
    });
  });
  return out;
}

}  // namespace slowwave
