// What the delta rule takes from a projection: short convolution and SiLU, and for queries and keys
// the l2 norm of every head; forward and backward. The specification is `_compose` in
// ../delta_inputs.py.
//
// The backward pass keeps the inputs alone. It goes over each stream's tokens once: the gradient of
// an input is complete when the last token that its convolution reaches has been seen, so a ring of
// as many rows as the convolution has taps holds all that is under way.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <tuple>

#include "chunk.h"
#include "exponential.h"

namespace slowwave {

constexpr double L2_EPS = 1e-6;

// One stream's tokens, a row each, and the convolution's tail before them.
template <typename S>
struct Rows {
  S *tokens, *tail;
  int64_t channels, tail_rows;
  S* operator[](int64_t t) const {
    return t >= 0 ? tokens + t * channels : tail + (t + tail_rows) * channels;
  }
};

// SiLU of the convolved channels first .. first + size of `rows` tokens; kernel is (taps, channels).
template <typename T, typename S>
void convolve(
    Rows<const S> source, const T* kernel, int64_t first, int64_t size, int64_t start, int64_t rows,
    Tile<T> target) {
  for (int64_t i = 0; i < rows; ++i) {
    T* row = target[i];
    std::fill_n(row, target.columns, T(0));  // the padding too: NaN times 0 would stay there
    for (int64_t tap = 0; tap <= source.tail_rows; ++tap) {
      const S* from = source[start + i + tap - source.tail_rows] + first;
      const T* weights = kernel + tap * source.channels + first;
      for (int64_t j = 0; j < size; ++j) row[j] += weights[j] * static_cast<T>(from[j]);
    }
    apply_silu(row, target.columns);
  }
}

template <typename T>
void normalise(Tile<T> tile, int64_t rows) {
  for (int64_t i = 0; i < rows; ++i) {
    const T factor = 1 / std::sqrt(dot(tile[i], tile[i], tile.columns) + T(L2_EPS));
    for (int64_t j = 0; j < tile.columns; ++j) tile[i][j] *= factor;
  }
}

// What is read, and how its channels are cut: `keys` of them in normalised heads of K, then values.
struct InputSizes {
  int64_t B, T, channels, keys, K, taps;
  int64_t size_at(int64_t channel) const { return channel < keys ? K : channels - keys; }
};

template <typename T, typename S>
void store_numbers(const T* from, S* to, int64_t size) {
  for (int64_t j = 0; j < size; ++j) to[j] = static_cast<S>(from[j]);
}

template <typename T, typename S>
void load_numbers(const S* from, T* to, int64_t size) {
  for (int64_t j = 0; j < size; ++j) to[j] = static_cast<T>(from[j]);
}

template <typename T, typename S>
void delta_inputs_of_stream(
    const InputSizes& n, Rows<const S> source, const T* kernel, Workspace<T>& space, T* keys, S* values) {
  const Tile<T> row = space.tile(1, std::max(n.K, n.channels - n.keys));
  for (int64_t t = 0; t < n.T; ++t) {
    for (int64_t first = 0; first < n.channels; first += n.size_at(first)) {
      const int64_t size = n.size_at(first);
      const Tile<T> head{row.data, padded<T>(size)};
      convolve<T, S>(source, kernel, first, size, t, 1, head);
      if (first < n.keys) {
        normalise(head, 1);
        store_numbers(row[0], keys + t * n.keys + first, size);
      } else {
        store_numbers(row[0], values + t * size, size);
      }
    }
  }
}

// x (B, T, C), kernel (C, taps), tail (B, taps - 1, C) -> normalised queries and keys (B, T, keys),
// wide, and values (B, T, C - keys).
inline std::tuple<at::Tensor, at::Tensor> delta_inputs(
    const at::Tensor& x, const at::Tensor& kernel, const at::Tensor& tail, int64_t keys, int64_t K) {
  const InputSizes n{x.size(0), x.size(1), x.size(2), keys, K, kernel.size(1)};
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor source = x.contiguous(), before = tail.contiguous();
  const at::Tensor weights = kernel.t().to(wide).contiguous();
  const at::Tensor keys_out = at::empty({n.B, n.T, keys}, x.options().dtype(wide));
  const at::Tensor values_out = at::empty({n.B, n.T, n.channels - keys}, x.options());
  dispatch(wide, x, [&](auto wide_number, auto narrow_number) {
    using T = decltype(wide_number);
    using S = decltype(narrow_number);
    at::parallel_for(0, n.B, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        Workspace<T> space(padded<T>(std::max(n.K, n.channels - n.keys)));
        const Rows<const S> rows{
            source.const_data_ptr<S>() + b * n.T * n.channels,
            before.const_data_ptr<S>() + b * (n.taps - 1) * n.channels, n.channels, n.taps - 1};
        delta_inputs_of_stream<T, S>(
            n, rows, weights.const_data_ptr<T>(), space, keys_out.data_ptr<T>() + b * n.T * keys,
            values_out.data_ptr<S>() + b * n.T * (n.channels - keys));
      }
    });
  });
  return {keys_out, values_out};
}

// Scratch of the way back through one head, or through all values: rings of rows by time, and the
// gradient of their part of the kernel.
template <typename T>
struct InputGradients {
  InputGradients(int64_t size, int64_t taps)
      : space((4 * taps + 4) * padded<T>(size)),
        size(size),
        taps(taps),
        kernel(space.tile(taps, size)),
        grad_kernel(space.tile(taps, size)),
        inputs(space.tile(taps, size)),
        grad_inputs(space.tile(taps, size)),
        sigmoid(space.tile(1, size)),
        out(space.tile(1, size)),
        grad_out(space.tile(1, size)),
        grad_convolved(space.tile(1, size)) {}
  Workspace<T> space;
  int64_t size, taps;
  Tile<T> kernel, grad_kernel, inputs, grad_inputs, sigmoid, out, grad_out, grad_convolved;

  int64_t slot(int64_t time) const { return (time + taps) % taps; }

  void activate(int64_t t) {
    using vec = typename Simd<T>::vec;
    std::fill_n(out[0], out.columns, T(0));
    for (int64_t tap = 0; tap < taps; ++tap) {
      const T *weights = kernel[tap], *input = inputs[slot(t + 1 + tap)];
      for (int64_t j = 0; j < out.columns; ++j) out[0][j] += weights[j] * input[j];
    }
    for (int64_t j = 0; j < out.columns; j += Simd<T>::lanes) {
      const vec denominator = T(1) + exponential<T>(-at(out[0] + j));
      at(sigmoid[0] + j) = T(1) / denominator;
      at(out[0] + j) /= denominator;
    }
  }

  void unnormalise() {
    const T factor = 1 / std::sqrt(dot(out[0], out[0], out.columns) + T(L2_EPS));
    const T along = dot(out[0], grad_out[0], out.columns) * factor * factor;
    for (int64_t j = 0; j < out.columns; ++j) {
      grad_out[0][j] = factor * (grad_out[0][j] - along * out[0][j]);
    }
  }

  void spread(int64_t t) {
    using vec = typename Simd<T>::vec;
    for (int64_t j = 0; j < out.columns; j += Simd<T>::lanes) {
      const vec gate = at(sigmoid[0] + j);
      at(grad_convolved[0] + j) = at(grad_out[0] + j) * (gate + at(out[0] + j) * (T(1) - gate));
    }
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t place = slot(t + 1 + tap);
      for (int64_t j = 0; j < out.columns; j += Simd<T>::lanes) {
        const vec grad = at(grad_convolved[0] + j);
        at(grad_inputs[place] + j) += grad * at(kernel[tap] + j);
        at(grad_kernel[tap] + j) += grad * at(inputs[place] + j);
      }
    }
  }

 private:
  static typename Simd<T>::vec& at(T* x) { return *reinterpret_cast<typename Simd<T>::vec*>(x); }
  static const typename Simd<T>::vec& at(const T* x) {
    return *reinterpret_cast<const typename Simd<T>::vec*>(x);
  }
};

// One stream's channels first .. first + grad.size. G: of the gradient that comes in.
template <typename T, typename S, typename G>
void delta_inputs_backward_of_channels(
    const InputSizes& n, InputGradients<T>& grad, int64_t first, Rows<const S> source,
    const T* kernel, const G* grad_out, int64_t grad_row, Rows<S> result, T* grad_kernel) {
  const auto start_row = [&](int64_t time) {
    load_numbers(source[time] + first, grad.inputs[grad.slot(time)], grad.size);
    std::fill_n(grad.grad_inputs[grad.slot(time)], grad.size, T(0));
  };
  const auto end_row = [&](int64_t time) {
    store_numbers(grad.grad_inputs[grad.slot(time)], result[time] + first, grad.size);
  };
  for (int64_t tap = 0; tap < n.taps; ++tap) {
    load_numbers(kernel + tap * n.channels + first, grad.kernel[tap], grad.size);
    std::fill_n(grad.grad_kernel[tap], grad.size, T(0));
  }
  for (int64_t time = 1 - n.taps; time < 0; ++time) start_row(time);
  for (int64_t t = 0; t < n.T; ++t) {
    start_row(t);
    load_numbers(grad_out + t * grad_row, grad.grad_out[0], grad.size);
    grad.activate(t);
    if (first < n.keys) grad.unnormalise();
    grad.spread(t);
    end_row(t + 1 - n.taps);
  }
  for (int64_t time = n.T + 1 - n.taps; time < n.T; ++time) end_row(time);
  for (int64_t tap = 0; tap < n.taps; ++tap) {
    accumulate(grad_kernel + tap * n.channels + first, grad.grad_kernel[tap], T(1), grad.size);
  }
}

// The gradients of x, kernel and tail. The kernel's is summed over groups of streams whose number
// does not depend on that of the threads.
inline std::tuple<at::Tensor, at::Tensor, at::Tensor> delta_inputs_backward(
    const at::Tensor& x, const at::Tensor& kernel, const at::Tensor& tail,
    const at::Tensor& grad_keys, const at::Tensor& grad_values, int64_t K) {
  constexpr int64_t GROUP = 8;
  const int64_t keys = grad_keys.size(2);
  const InputSizes n{x.size(0), x.size(1), x.size(2), keys, K, kernel.size(1)};
  const int64_t num_values = n.channels - keys, num_groups = (n.B + GROUP - 1) / GROUP;
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor source = x.contiguous(), before = tail.contiguous();
  const at::Tensor weights = kernel.t().to(wide).contiguous();
  const at::Tensor from_keys = grad_keys.contiguous(), from_values = grad_values.contiguous();
  const at::Tensor grad_x = at::empty(x.sizes(), x.options());
  const at::Tensor grad_tail = at::empty(tail.sizes(), tail.options());
  const at::Tensor grad_kernels = at::zeros({num_groups, n.taps, n.channels}, weights.options());
  dispatch(wide, x, [&](auto wide_number, auto narrow_number) {
    using T = decltype(wide_number);
    using S = decltype(narrow_number);
    at::parallel_for(0, num_groups, 1, [&](int64_t begin, int64_t end) {
      InputGradients<T> of_head(n.K, n.taps), of_values(num_values, n.taps);
      const T* taps = weights.const_data_ptr<T>();
      for (int64_t b = begin * GROUP; b < std::min(n.B, end * GROUP); ++b) {
        const int64_t tokens = b * n.T * n.channels, rows = b * (n.taps - 1) * n.channels;
        const Rows<const S> inputs{
            source.const_data_ptr<S>() + tokens, before.const_data_ptr<S>() + rows, n.channels,
            n.taps - 1};
        const Rows<S> result{
            grad_x.data_ptr<S>() + tokens, grad_tail.data_ptr<S>() + rows, n.channels, n.taps - 1};
        T* sums = grad_kernels.data_ptr<T>() + b / GROUP * n.taps * n.channels;
        const T* grads = from_keys.const_data_ptr<T>() + b * n.T * keys;
        for (int64_t first = 0; first < keys; first += n.K) {
          delta_inputs_backward_of_channels<T, S>(
              n, of_head, first, inputs, taps, grads + first, keys, result, sums);
        }
        delta_inputs_backward_of_channels<T, S>(
            n, of_values, keys, inputs, taps,
            from_values.const_data_ptr<S>() + b * n.T * num_values, num_values, result, sums);
      }
    });
  });
  return {grad_x, grad_kernels.sum(0).t().contiguous(), grad_tail};
}

}  // namespace slowwave
