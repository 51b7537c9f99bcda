// Root-mean-square norm of rows, in one pass over memory and without gradients.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "chunk.h"

namespace slowwave {

constexpr int64_t NORM_ROWS_A_THREAD = 64;

template <typename T, typename S>
void norm_rows(const S* x, const T* weight, T* out, int64_t rows, int64_t size, T eps) {
  Workspace<T> space(padded<T>(size));
  const Tile<T> row = space.tile(1, size);
  for (int64_t i = 0; i < rows; ++i, x += size, out += size) {
    for (int64_t j = 0; j < size; ++j) row[0][j] = static_cast<T>(x[j]);
    const T factor = 1 / std::sqrt(dot(row[0], row[0], row.columns) / size + eps);
    for (int64_t j = 0; j < size; ++j) out[j] = row[0][j] * factor * weight[j];
  }
}

// x (..., D), weight (D,) -> x over its root mean square, times weight, wide
inline at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t size = x.size(-1), rows = x.numel() / std::max<int64_t>(1, size);
  const at::Tensor source = x.contiguous(), scale = weight.to(wide).contiguous();
  const at::Tensor out = at::empty(x.sizes(), x.options().dtype(wide));
  dispatch(wide, x, [&](auto wide_number, auto narrow_number) {
    using T = decltype(wide_number);
    using S = decltype(narrow_number);
    const S* from = source.const_data_ptr<S>();
    T* to = out.data_ptr<T>();
    at::parallel_for(0, rows, NORM_ROWS_A_THREAD, [&](int64_t begin, int64_t end) {
      norm_rows<T, S>(
          from + begin * size, scale.const_data_ptr<T>(), to + begin * size, end - begin, size,
          static_cast<T>(eps));
    });
  });
  return out;
}

}  // namespace slowwave
