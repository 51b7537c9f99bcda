// All that a Gated DeltaNet layer does between its projections, in one go and without gradients:
// short convolution, SiLU, l2 norms, decays and strengths, the delta rule, gated norm; or the same
// without what only reads. The specifications are `_compose` and `_compose_write` in ../delta_mix.py.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <optional>
#include <tuple>

#include "chunk.h"
#include "delta_inputs.h"
#include "exponential.h"

namespace slowwave {

template <typename T>
T softplus(T x) {
  return x > 20 ? x : std::log1p(std::exp(x));
}

struct Weights {
  at::Tensor kernel, A_log, dt_bias, norm;
  double max_beta, norm_eps;
};

// Where one stream's reads come from and go to; none when it only writes.
template <typename S>
struct Reads {
  const S* out_gate;
  S* mixed;
};

// out, normed and gated, to its place in `reads.mixed`.
template <typename T, typename S>
void gate_reads(
    const Sizes& n, Tile<T> out, T* gate, int64_t gate_columns, int64_t rows, int64_t first,
    const Weights& weights, Reads<S> reads) {
  const T* norm = weights.norm.const_data_ptr<T>();
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t place = first + i * n.G * n.V;
    for (int64_t j = 0; j < n.V; ++j) gate[j] = static_cast<T>(reads.out_gate[place + j]);
    apply_silu(gate, gate_columns);
    const T squares = dot(out[i], out[i], out.columns);
    const T factor = 1 / std::sqrt(squares / n.V + T(weights.norm_eps));
    for (int64_t j = 0; j < n.V; ++j) {
      reads.mixed[place + j] = static_cast<S>(out[i][j] * factor * norm[j] * gate[j]);
    }
  }
}

template <typename T, typename S>
void mix_head(
    const Sizes& n, Chunk<T, S>& chunk, Tile<T> out, Tile<T> gate, Rows<const S> tokens, int64_t g,
    const S* gates, const Weights& weights, Reads<S> reads) {
  const bool has_reads = reads.mixed != nullptr;
  const int64_t h = g / n.repeats;
  const int64_t first_key = has_reads ? n.H * n.K : 0, first_value = first_key + n.H * n.K;
  const T* kernel = weights.kernel.const_data_ptr<T>();
  const T speed = -std::exp(weights.A_log.const_data_ptr<T>()[g]);
  const T bias = weights.dt_bias.const_data_ptr<T>()[g];
  for (int64_t c = 0; c < n.chunks; ++c) {
    const int64_t start = c * n.chunk, rows = std::min(n.chunk, n.T - start);
    convolve<T, S>(tokens, kernel, first_key + h * n.K, n.K, start, rows, chunk.k);
    convolve<T, S>(tokens, kernel, first_value + g * n.V, n.V, start, rows, chunk.v);
    normalise(chunk.k, rows);
    chunk.start_rows(rows, [&](int64_t i, T& log_decay, T& strength) {
      const S* token = gates + (start + i) * 2 * n.G;
      log_decay = speed * softplus(static_cast<T>(token[g]) + bias);
      strength = T(weights.max_beta) / (1 + std::exp(-static_cast<T>(token[n.G + g])));
    });
    chunk.compute_decays();
    chunk.compute_overlap();
    chunk.compute_system();
    chunk.compute_writes();
    if (has_reads) {
      convolve<T, S>(tokens, kernel, h * n.K, n.K, start, rows, chunk.q);
      normalise(chunk.q, rows);
      chunk.compute_attention();
      chunk.read_out(out);
      const int64_t first = start * n.G * n.V + g * n.V;
      gate_reads(n, out, gate[0], gate.columns, rows, first, weights, reads);
    }
    if (n.keep_writes || c + 1 < n.chunks) chunk.advance_state();
  }
}

template <typename T, typename S>
void mix_all(
    const Sizes& n, const at::Tensor& qkv, const at::Tensor& gates,
    const std::optional<at::Tensor>& out_gate, const at::Tensor& tail, const Weights& weights,
    const at::Tensor& state, const at::Tensor& mixed, const at::Tensor& new_state) {
  const int64_t channels = qkv.size(2), numbers = n.K * n.V, taps = tail.size(1);
  at::parallel_for(0, n.B * n.G, 1, [&](int64_t begin, int64_t end) {
    Chunk<T, S> chunk(n);
    Workspace<T> space((n.chunk + 1) * padded<T>(n.V));
    const Tile<T> out = space.tile(n.chunk, n.V), gate = space.tile(1, n.V);
    for (int64_t head = begin; head < end; ++head) {
      const int64_t b = head / n.G, g = head % n.G, source = b / n.shared;
      const Rows<const S> tokens{
          qkv.const_data_ptr<S>() + b * n.T * channels,
          tail.const_data_ptr<S>() + source * taps * channels, channels, taps};
      load_state(
          state.const_data_ptr<T>() + (source * n.G + g) * numbers, n.K, n.V, chunk.state);
      Reads<S> reads{nullptr, nullptr};
      if (out_gate.has_value()) {
        const int64_t first = b * n.T * n.G * n.V;
        reads = {out_gate->const_data_ptr<S>() + first, mixed.data_ptr<S>() + first};
      }
      const S* stream_gates = gates.const_data_ptr<S>() + b * n.T * 2 * n.G;
      mix_head<T, S>(n, chunk, out, gate, tokens, g, stream_gates, weights, reads);
      if (n.keep_writes) {
        store_state(chunk.state, n.K, n.V, new_state.data_ptr<T>() + head * numbers);
      }
    }
  });
}

// qkv (B, T, C) with C = 2 H K + G V, gates (B, T, 2 G), out_gate (B, T, G V) as projected; kernel
// (C, taps), tail (B / F, taps - 1, C), state (B / F, G, K, V). Returns (mixed (B, T, G V), state).
// Without out_gate nothing is read: qkv holds keys and values alone, and mixed is empty.
inline std::tuple<at::Tensor, at::Tensor> delta_mix(
    const at::Tensor& qkv, const at::Tensor& gates, const std::optional<at::Tensor>& out_gate,
    const at::Tensor& kernel, const at::Tensor& tail, const at::Tensor& A_log,
    const at::Tensor& dt_bias, const at::Tensor& norm, const at::Tensor& state, double max_beta,
    double norm_eps, int64_t chunk_size, bool keep_writes) {
  const int64_t B = qkv.size(0), T = qkv.size(1);
  TORCH_CHECK(B > 0 && T > 0 && state.size(0) > 0, "there must be a stream and a token");
  const int64_t G = state.size(1), K = state.size(2), V = state.size(3);
  const int64_t H = (qkv.size(2) - G * V) / ((out_gate.has_value() ? 2 : 1) * K);
  const int64_t chunk = std::min(chunk_size, T);
  const double scale = 1 / std::sqrt(static_cast<double>(K));
  const Sizes n{B, T, H, G, K, V, chunk, (T + chunk - 1) / chunk, B / state.size(0), G / H, scale,
                keep_writes};
  const auto wide = [&](const at::Tensor& weight) {
    return weight.to(state.scalar_type()).contiguous();
  };
  const Weights weights{wide(kernel.t()), wide(A_log), wide(dt_bias), wide(norm), max_beta, norm_eps};
  const at::Tensor mixed = at::empty({out_gate.has_value() ? B : 0, T, G * V}, qkv.options());
  std::optional<at::Tensor> gate;
  if (out_gate.has_value()) gate = out_gate->contiguous();
  const at::Tensor new_state = at::empty({keep_writes ? B : 0, G, K, V}, state.options());
  dispatch(state.scalar_type(), qkv, [&](auto wide_number, auto narrow_number) {
    mix_all<decltype(wide_number), decltype(narrow_number)>(
        n, qkv.contiguous(), gates.contiguous(), gate, tail.contiguous(), weights,
        state.contiguous(), mixed, new_state);
  });
  return {mixed, new_state};
}

}  // namespace slowwave
