// silu(gate) * value of a feed-forward layer, in one pass over memory and without gradients.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "chunk.h"
#include "exponential.h"

namespace slowwave {

constexpr int64_t SWIGLU_ROWS_A_THREAD = 16;

template <typename T, typename S>
void swiglu_rows(const S* up, S* out, int64_t rows, int64_t size) {
  Workspace<T> space(padded<T>(size));
  const Tile<T> gate = space.tile(1, size);
  for (int64_t i = 0; i < rows; ++i, up += 2 * size, out += size) {
    for (int64_t j = 0; j < size; ++j) gate[0][j] = static_cast<T>(up[j]);
    apply_silu(gate[0], gate.columns);
    for (int64_t j = 0; j < size; ++j) {
      out[j] = static_cast<S>(gate[0][j] * static_cast<T>(up[size + j]));
    }
  }
}

// up (..., 2 h), gates before values -> (..., h)
inline at::Tensor swiglu(const at::Tensor& up) {
  const int64_t size = up.size(-1) / 2, rows = up.numel() / std::max<int64_t>(1, 2 * size);
  const at::Tensor source = up.contiguous();
  auto shape = up.sizes().vec();
  shape.back() = size;
  const at::Tensor out = at::empty(shape, up.options());
  const auto work = [&](auto wide, auto narrow) {
    using T = decltype(wide);
    using S = decltype(narrow);
    const S* from = source.const_data_ptr<S>();
    S* to = out.data_ptr<S>();
    at::parallel_for(0, rows, SWIGLU_ROWS_A_THREAD, [&](int64_t begin, int64_t end) {
      swiglu_rows<T, S>(from + begin * 2 * size, to + begin * size, end - begin, size);
    });
  };
  dispatch(up.scalar_type() == at::kDouble ? at::kDouble : at::kFloat, up, work);
  return out;
}

}  // namespace slowwave
