// The logarithm of the sum of exponentials of rows, in two passes over memory and without gradients.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "exponential.h"
#include "linear.h"

namespace slowwave {

template <typename T>
T log_sum_of_row(const T* x, int64_t size) {
  using vec = typename Simd<T>::vec;
  constexpr int64_t lanes = Simd<T>::lanes;
  const int64_t whole = size / lanes * lanes;
  vec greatest = vec{} - std::numeric_limits<T>::infinity(), sums = {};
  for (int64_t j = 0; j < whole; j += lanes) {
    const vec part = load_vector<T, T>(x + j);
    greatest = part > greatest ? part : greatest;
  }
  T highest = -std::numeric_limits<T>::infinity();
  for (int64_t i = 0; i < lanes; ++i) highest = std::max(highest, greatest[i]);
  for (int64_t j = whole; j < size; ++j) highest = std::max(highest, x[j]);
  for (int64_t j = 0; j < whole; j += lanes) {
    sums += exponential<T>(load_vector<T, T>(x + j) - highest);
  }
  T total = sum_lanes<T>(sums);
  for (int64_t j = whole; j < size; ++j) total += std::exp(x[j] - highest);
  return highest + std::log(total);
}

// x (..., N), wide and finite, N of 1 or more -> (...)
inline at::Tensor log_sum(const at::Tensor& x) {
  const int64_t size = x.size(-1), rows = x.numel() / std::max<int64_t>(1, size);
  TORCH_CHECK(size > 0, "there must be a column");
  const at::Tensor source = x.contiguous();
  const at::Tensor out = at::empty(x.sizes().slice(0, x.dim() - 1), x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "log_sum", [&] {
    const scalar_t* from = source.const_data_ptr<scalar_t>();
    scalar_t* to = out.data_ptr<scalar_t>();
    at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) to[i] = log_sum_of_row(from + i * size, size);
    });
  });
  return out;
}

}  // namespace slowwave
