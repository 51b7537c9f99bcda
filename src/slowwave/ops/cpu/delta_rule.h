// The gated delta rule on a CPU, forward and backward: one head's chunk stays in cache from its
// first product to its last. The specification is `_recurrent` in ../delta_rule.py.
//
// The backward pass keeps nothing but the inputs and the states at the chunks' starts; it goes
// through the chunks from last to first, computes D, A, P and U of chunk.h again and applies the
// chain rule to its four lines.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <tuple>

#include "chunk.h"

namespace slowwave {

template <typename T, typename S>
void forward_head(
    const Sizes& n, Chunk<T, S>& chunk, Tile<T> out, int64_t b, int64_t g, const at::Tensor& q,
    const at::Tensor& k, const at::Tensor& v, const at::Tensor& log_decay, const at::Tensor& beta,
    const T* state, const at::Tensor& result, T* new_state, T* starts) {
  const int64_t h = g / n.repeats, numbers = n.K * n.V;
  load_state(state, n.K, n.V, chunk.state);
  for (int64_t c = 0; c < n.chunks; ++c) {
    const int64_t start = c * n.chunk;
    if (starts != nullptr && c > 0) store_state(chunk.state, n.K, n.V, starts + (c - 1) * numbers);
    chunk.read_inputs({q, b, h}, {k, b, h}, {v, b, g}, {log_decay, b, g}, {beta, b, g}, start);
    chunk.compute_decays();
    chunk.compute_overlap();
    chunk.compute_attention();
    chunk.compute_system();
    chunk.compute_writes();
    chunk.read_out(out);
    store(out, chunk.rows, Head<S>(result, b, g), start);
    if (n.keep_writes || c + 1 < n.chunks) chunk.advance_state();
  }
  if (n.keep_writes) store_state(chunk.state, n.K, n.V, new_state);
}

// Scratch and result of the backward pass of one head.
template <typename T>
struct Gradients {
  explicit Gradients(const Sizes& n)
      : space(
            n.chunk * (3 * padded<T>(n.chunk) + 5 * padded<T>(n.K) + 2 * padded<T>(n.V)) +
            n.K * padded<T>(n.V) + n.V * padded<T>(n.chunk) +
            n.V * padded<T>(n.K) + 4 * padded<T>(n.chunk)),
        out(space.tile(n.chunk, n.V)),
        writes(space.tile(n.chunk, n.V)),
        state(space.tile(n.K, n.V)),
        writes_across(space.tile(n.V, n.chunk)),
        state_across(space.tile(n.V, n.K)),
        weighed(space.tile(n.chunk, n.chunk)),
        attend(space.tile(n.chunk, n.chunk)),
        system(space.tile(n.chunk, n.chunk)),
        q(space.tile(n.chunk, n.K)),
        k(space.tile(n.chunk, n.K)),
        read_by_q(space.tile(n.chunk, n.K)),
        read_by_k(space.tile(n.chunk, n.K)),
        written_by_k(space.tile(n.chunk, n.K)),
        beta(space.tile(1, n.chunk)[0]),
        log_decay(space.tile(1, n.chunk)[0]),
        start_read(space.tile(1, n.chunk)[0]),
        later_pairs(space.tile(1, n.chunk)[0]) {}

  Workspace<T> space;
  Tile<T> out, writes, state, writes_across, state_across, weighed, attend, system;
  Tile<T> q, k, read_by_q, read_by_k, written_by_k;
  T *beta, *log_decay, *start_read, *later_pairs;
};

// The chain rule for one chunk whose D, A, P and U are in `chunk` (P in grad.weighed). On entry
// grad.out and grad.state hold the gradients of the chunk's output and end state; on return
// grad.state is that of its start state, and grad.writes that of beta (v - since k S).
template <typename T, typename S>
void backward_chunk(const Sizes& n, Chunk<T, S>& chunk, Gradients<T>& grad) {
  const int64_t rows = chunk.rows;
  const T scale = n.scale, all = chunk.since[rows - 1];
  const T *since = chunk.since, *to_end = chunk.to_end, *beta = chunk.beta;

  multiply(transposed(grad.weighed), grad.out, grad.writes, rows, rows, T(0), T(1), Part::UPPER_LEFT);
  chunk.weigh_rows(chunk.k, to_end);
  multiply(plain(chunk.weighted), grad.state, grad.writes, rows, n.K, T(1));
  solve_upper(chunk.system, grad.writes, rows);

  transpose(chunk.writes, grad.writes_across, rows, n.V);
  multiply(plain(grad.out), grad.writes_across, grad.attend, rows, n.V, T(0), T(1), Part::LOWER_RESULT);
  multiply(plain(grad.writes), grad.writes_across, grad.system, rows, n.V, T(0), T(-1), Part::LOWER_RESULT);
  transpose(grad.state, grad.state_across, n.K, n.V);
  multiply(plain(chunk.writes), grad.state_across, grad.written_by_k, rows, n.V);
  transpose(chunk.state, grad.state_across, n.K, n.V);
  multiply(plain(grad.out), grad.state_across, grad.read_by_q, rows, n.V);
  multiply(plain(grad.writes), grad.state_across, grad.read_by_k, rows, n.V);

  // The gradient of one log_decay sums over all that decays past its token t: pairs j < t <= i,
  // the start's state read at i >= t, keys j < t on their way to the end, and the state itself.
  // Sums of those alone: differences of larger ones would cancel when single tokens decay hard.
  T earlier = 0;
  for (int64_t i = 0; i < rows; ++i) {
    T through_system = 0;
    T* pairs = chunk.attend[i];
    for (int64_t j = 0; j < i; ++j) {
      const T by_overlap = grad.system[i][j] * chunk.between[i][j];
      through_system += by_overlap * chunk.overlap[i][j];
      pairs[j] = grad.attend[i][j] * grad.weighed[i][j] + grad.system[i][j] * chunk.system[i][j];
      grad.system[i][j] = beta[i] * by_overlap;
      grad.attend[i][j] *= scale * chunk.between[i][j];
    }
    grad.attend[i][i] *= scale;
    std::fill(grad.attend[i] + i + 1, grad.attend[i] + grad.attend.columns, T(0));
    std::fill(grad.system[i] + i, grad.system[i] + grad.system.columns, T(0));
    const T from_start = since[i] * dot(chunk.k[i], grad.read_by_k[i], chunk.k.columns);
    grad.beta[i] = dot(grad.writes[i], chunk.v[i], chunk.v.columns) - from_start + through_system;
    grad.start_read[i] = scale * since[i] * dot(chunk.q[i], grad.read_by_q[i], chunk.q.columns) -
                         beta[i] * from_start;
    grad.log_decay[i] = earlier;
    earlier += to_end[i] * dot(chunk.k[i], grad.written_by_k[i], chunk.k.columns);
  }
  T later = all * dot(grad.state.data, chunk.state.data, n.K * grad.state.columns);
  std::fill_n(grad.later_pairs, rows, T(0));
  for (int64_t i = rows - 1; i >= 0; --i) {
    later += grad.start_read[i];
    accumulate(grad.later_pairs, chunk.attend[i], T(1), i);
    T across = 0;
    for (int64_t j = 0; j < i; ++j) across += grad.later_pairs[j];
    grad.log_decay[i] += across + later;
  }

  multiply(plain(grad.attend), chunk.k, grad.q, rows, rows, T(0), T(1), Part::LOWER_LEFT);
  multiply(transposed(grad.attend), chunk.q, grad.k, rows, rows, T(0), T(1), Part::UPPER_LEFT);
  multiply(plain(grad.system), chunk.k, grad.k, rows, rows, T(1), T(1), Part::LOWER_LEFT);
  multiply(transposed(grad.system), chunk.k, grad.k, rows, rows, T(1), T(1), Part::UPPER_LEFT);
  for (int64_t i = 0; i < rows; ++i) {
    accumulate(grad.q[i], grad.read_by_q[i], scale * since[i], grad.q.columns);
    accumulate(grad.k[i], grad.read_by_k[i], -beta[i] * since[i], grad.k.columns);
    accumulate(grad.k[i], grad.written_by_k[i], to_end[i], grad.k.columns);
  }

  chunk.weigh_rows(chunk.q, since, scale);
  multiply(transposed(chunk.weighted), grad.out, grad.state, n.K, rows, all);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < chunk.k.columns; ++j) {
      chunk.weighted[i][j] = beta[i] * since[i] * chunk.k[i][j];
    }
  }
  multiply(transposed(chunk.weighted), grad.writes, grad.state, n.K, rows, T(1), T(-1));
}

// The first to add to a sum begins it, so that nobody has to clear it.
template <typename T>
void add(T* sum, const T* term, int64_t count, bool is_first) {
  if (is_first) {
    std::copy_n(term, count, sum);
  } else {
    accumulate(sum, term, T(1), count);
  }
}

struct GradientTensors {
  at::Tensor q, k, v, log_decay, beta, state;
};

template <typename T, typename S>
void backward_head(
    const Sizes& n, Chunk<T, S>& chunk, Gradients<T>& grad, int64_t b, int64_t g,
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& log_decay,
    const at::Tensor& beta, const T* state, const T* starts, const at::Tensor& grad_out,
    const T* grad_state, const GradientTensors& result) {
  const int64_t h = g / n.repeats, numbers = n.K * n.V;
  const bool is_first_value_head = g % n.repeats == 0;
  std::fill_n(grad.state.data, n.K * grad.state.columns, T(0));
  if (grad_state != nullptr) load_state(grad_state, n.K, n.V, grad.state);
  for (int64_t c = n.chunks - 1; c >= 0; --c) {
    const int64_t start = c * n.chunk;
    load_state(c > 0 ? starts + (c - 1) * numbers : state, n.K, n.V, chunk.state);
    chunk.read_inputs({q, b, h}, {k, b, h}, {v, b, g}, {log_decay, b, g}, {beta, b, g}, start);
    load(Head<const S>(grad_out, b, g), start, chunk.rows, grad.out);
    chunk.compute_decays();
    chunk.compute_overlap();
    chunk.compute_attention();
    chunk.compute_system();
    chunk.compute_writes();
    chunk.weigh_attention(grad.weighed);
    backward_chunk(n, chunk, grad);

    const Head<T> q_result(result.q, b, h), k_result(result.k, b, h);
    const Head<T> decay_result(result.log_decay, b, g), beta_result(result.beta, b, g);
    const Head<S> v_result(result.v, b, g);
    for (int64_t i = 0; i < chunk.rows; ++i) {
      add(q_result[start + i], grad.q[i], n.K, is_first_value_head);
      add(k_result[start + i], grad.k[i], n.K, is_first_value_head);
      for (int64_t j = 0; j < n.V; ++j) {
        v_result[start + i][j] = static_cast<S>(chunk.beta[i] * grad.writes[i][j]);
      }
      *decay_result[start + i] = grad.log_decay[i];
      *beta_result[start + i] = grad.beta[i];
    }
  }
}

template <typename T, typename S>
void forward_all(
    const Sizes& n, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const at::Tensor& log_decay, const at::Tensor& beta, const at::Tensor& state,
    const at::Tensor& out, const at::Tensor& new_state, const at::Tensor& starts) {
  const int64_t numbers = n.K * n.V;
  at::parallel_for(0, n.B * n.G, 1, [&](int64_t begin, int64_t end) {
    Chunk<T, S> chunk(n);
    Workspace<T> space(n.chunk * padded<T>(n.V));
    const Tile<T> read = space.tile(n.chunk, n.V);
    for (int64_t head = begin; head < end; ++head) {
      const int64_t b = head / n.G, g = head % n.G;
      const T* from = state.const_data_ptr<T>() + (b / n.shared * n.G + g) * numbers;
      T* kept = n.keep_writes ? new_state.data_ptr<T>() + head * numbers : nullptr;
      T* between =
          starts.numel() ? starts.data_ptr<T>() + head * (n.chunks - 1) * numbers : nullptr;
      forward_head<T, S>(
          n, chunk, read, b, g, q, k, v, log_decay, beta, from, out, kept, between);
    }
  });
}

template <typename T, typename S>
void backward_all(
    const Sizes& n, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const at::Tensor& log_decay, const at::Tensor& beta, const at::Tensor& state,
    const at::Tensor& starts, const at::Tensor& grad_out, const at::Tensor& grad_state,
    const GradientTensors& result) {
  const int64_t numbers = n.K * n.V;
  // A thread takes whole query heads of whole groups of rows, so that no two write to one place.
  at::parallel_for(0, n.B / n.shared * n.H, 1, [&](int64_t begin, int64_t end) {
    Chunk<T, S> chunk(n);
    Gradients<T> grad(n);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t group = task / n.H, h = task % n.H;
      for (int64_t member = 0; member < n.shared * n.repeats; ++member) {
        const int64_t b = group * n.shared + member / n.repeats;
        const int64_t g = h * n.repeats + member % n.repeats, head = b * n.G + g;
        const int64_t shared_head = (group * n.G + g) * numbers;
        const T* end_gradient =
            grad_state.numel() ? grad_state.const_data_ptr<T>() + head * numbers : nullptr;
        backward_head<T, S>(
            n, chunk, grad, b, g, q, k, v, log_decay, beta,
            state.const_data_ptr<T>() + shared_head,
            starts.const_data_ptr<T>() + head * (n.chunks - 1) * numbers, grad_out, end_gradient,
            result);
        T* start_gradient = result.state.data_ptr<T>() + shared_head;
        for (int64_t i = 0; i < n.K; ++i) {
          add(start_gradient + i * n.V, grad.state[i], n.V, member < n.repeats);
        }
      }
    }
  });
}

// Returns out (B, T, G, V), the new state (empty unless keep_writes), and with keep_starts the
// states at the starts of all chunks but the first, (B, G, chunks - 1, K, V), for the way back.
inline std::tuple<at::Tensor, at::Tensor, at::Tensor> delta_rule(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& log_decay,
    const at::Tensor& beta, const at::Tensor& state, double scale, int64_t chunk_size,
    bool keep_writes, bool keep_starts) {
  const Sizes n = measure(q, v, state, scale, chunk_size, keep_writes);
  const int64_t num_starts = keep_starts ? n.chunks - 1 : 0;
  const at::Tensor out = at::empty(v.sizes(), v.options());
  const at::Tensor new_state = at::empty({keep_writes ? n.B : 0, n.G, n.K, n.V}, state.options());
  const at::Tensor starts = at::empty({n.B, n.G, num_starts, n.K, n.V}, state.options());
  dispatch(state.scalar_type(), v, [&](auto wide, auto narrow) {
    forward_all<decltype(wide), decltype(narrow)>(
        n, rows_of_numbers(q), rows_of_numbers(k), rows_of_numbers(v), log_decay, beta,
        state.contiguous(), out, new_state, starts);
  });
  return {out, new_state, starts};
}

inline std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> delta_rule_backward(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& log_decay,
    const at::Tensor& beta, const at::Tensor& state, const at::Tensor& starts,
    const at::Tensor& grad_out, const at::Tensor& grad_state, double scale, int64_t chunk_size,
    bool keep_writes) {
  const Sizes n = measure(q, v, state, scale, chunk_size, keep_writes);
  TORCH_CHECK(starts.size(2) == n.chunks - 1, "the states at the chunks' starts were not kept");
  const GradientTensors result{
      at::empty(q.sizes(), q.options()),
      at::empty(k.sizes(), k.options()),
      at::empty(v.sizes(), v.options()),
      at::empty(log_decay.sizes(), log_decay.options()),
      at::empty(beta.sizes(), beta.options()),
      at::empty(state.sizes(), state.options())};
  dispatch(state.scalar_type(), v, [&](auto wide, auto narrow) {
    backward_all<decltype(wide), decltype(narrow)>(
        n, rows_of_numbers(q), rows_of_numbers(k), rows_of_numbers(v), log_decay, beta,
        state.contiguous(), starts.contiguous(), rows_of_numbers(grad_out),
        grad_state.contiguous(), result);
  });
  return {result.q, result.k, result.v, result.log_decay, result.beta, result.state};
}

}  // namespace slowwave
