// One chunk of one head: its tokens in cache, and the steps of the delta rule on them.
//
// With D_ij = exp(sum of log_decay over j+1..i), since_i the same from the chunk's start to i and
// to_end_j from j to its end, a chunk that starts from the state S does
//
//     A = strict_lower(beta_i D_ij k_i.k_j)      P = scale lower(D_ij q_i.k_j)
//     (I + A) U = beta (v - since k S)           the writes
//     out = scale since q S + P U                the reads
//     S <- since_C S + (to_end k)^T U            the state at its end
#pragma once

#include <ATen/ATen.h>

#include <cmath>

#include "tiles.h"

namespace slowwave {

// The rows of one head in a (B, T, heads, size) tensor.
template <typename S>
struct Head {
  S* data;
  int64_t token, size;
  Head(const at::Tensor& tensor, int64_t b, int64_t head)
      : data(tensor.data_ptr<std::remove_const_t<S>>() + b * tensor.stride(0) + head * tensor.stride(2)),
        token(tensor.stride(1)),
        size(tensor.dim() == 4 ? tensor.size(3) : 1) {}
  S* operator[](int64_t t) const { return data + t * token; }
};

template <typename T, typename S>
void load(Head<const S> head, int64_t start, int64_t rows, Tile<T> tile) {
  for (int64_t i = 0; i < rows; ++i) {
    const S* source = head[start + i];
    for (int64_t j = 0; j < head.size; ++j) tile[i][j] = static_cast<T>(source[j]);
  }
}

template <typename T, typename S>
void store(Tile<T> tile, int64_t rows, Head<S> head, int64_t start) {
  for (int64_t i = 0; i < rows; ++i) {
    S* target = head[start + i];
    for (int64_t j = 0; j < head.size; ++j) target[j] = static_cast<S>(tile[i][j]);
  }
}

template <typename T>
void load_state(const T* state, int64_t rows, int64_t columns, Tile<T> tile) {
  for (int64_t i = 0; i < rows; ++i) {
    std::copy_n(state + i * columns, columns, tile[i]);
    std::fill(tile[i] + columns, tile[i] + tile.columns, T(0));
  }
}

template <typename T>
void store_state(Tile<T> tile, int64_t rows, int64_t columns, T* state) {
  for (int64_t i = 0; i < rows; ++i) std::copy_n(tile[i], columns, state + i * columns);
}

struct Sizes {
  int64_t B, T, H, G, K, V, chunk, chunks, shared, repeats;
  double scale;
  bool keep_writes;
};

inline Sizes measure(
    const at::Tensor& q, const at::Tensor& v, const at::Tensor& state, double scale, int64_t chunk,
    bool keep_writes) {
  const int64_t T = q.size(1);
  TORCH_CHECK(T > 0 && state.size(0) > 0, "there must be a stream and a token");
  chunk = std::min(chunk, T);
  return {q.size(0), T, q.size(2), v.size(2), q.size(3), v.size(3), chunk, (T + chunk - 1) / chunk,
          q.size(0) / state.size(0), v.size(2) / q.size(2), scale, keep_writes};
}

// What both directions compute of a chunk: its decays, products, and writes.
template <typename T, typename S>
class Chunk {
 public:
  explicit Chunk(const Sizes& n)
      : n_(n),
        space_(
            n.chunk * (4 * padded<T>(n.chunk) + 3 * padded<T>(n.K) + 2 * padded<T>(n.V)) +
            n.K * (padded<T>(n.V) + padded<T>(n.chunk)) + 4 * padded<T>(n.chunk)),
        q(space_.tile(n.chunk, n.K)),
        k(space_.tile(n.chunk, n.K)),
        weighted(space_.tile(n.chunk, n.K)),
        v(space_.tile(n.chunk, n.V)),
        writes(space_.tile(n.chunk, n.V)),
        state(space_.tile(n.K, n.V)),
        keys_across(space_.tile(n.K, n.chunk)),
        between(space_.tile(n.chunk, n.chunk)),
        overlap(space_.tile(n.chunk, n.chunk)),
        system(space_.tile(n.chunk, n.chunk)),
        attend(space_.tile(n.chunk, n.chunk)),
        beta(space_.tile(1, n.chunk)[0]),
        decay(space_.tile(1, n.chunk)[0]),
        since(space_.tile(1, n.chunk)[0]),
        to_end(space_.tile(1, n.chunk)[0]) {}

  void read_inputs(
      Head<const T> queries, Head<const T> keys, Head<const S> values, Head<const T> log_decay,
      Head<const T> strength, int64_t start) {
    const int64_t count = std::min(n_.chunk, n_.T - start);
    load(queries, start, count, q);
    load(keys, start, count, k);
    load(values, start, count, v);
    start_rows(count, [&](int64_t i, T& one_decay, T& one_strength) {
      one_decay = *log_decay[start + i];
      one_strength = *strength[start + i];
    });
  }

  // Takes `count` tokens whose q, k and v are in their tiles; `read` gives decay and strength.
  template <typename Read>
  void start_rows(int64_t count, Read read) {
    rows = count;
    T product = 1;
    for (int64_t i = 0; i < rows; ++i) {
      read(i, decay[i], beta[i]);
      decay[i] = std::exp(decay[i]);
      since[i] = product *= decay[i];
    }
  }

  // D row by row as running products: no difference of sums that could cancel, and few exp.
  void compute_decays() {
    for (int64_t i = 0; i < rows; ++i) {
      T* row = between[i];
      for (int64_t j = 0; j < i; ++j) row[j] = decay[i] * between[i - 1][j];
      row[i] = 1;
      std::fill(row + i + 1, row + between.columns, T(0));
    }
    std::copy_n(between[rows - 1], rows, to_end);
  }

  // k k^T, undecayed, into `overlap`; only its lower triangle.
  void compute_overlap() {
    transpose(k, keys_across, rows, n_.K);
    multiply(plain(k), keys_across, overlap, rows, n_.K, T(0), T(1), Part::LOWER_RESULT);
  }

  // q k^T, undecayed, into `attend`; only its lower triangle. Follows `compute_overlap`.
  void compute_attention() {
    multiply(plain(q), keys_across, attend, rows, n_.K, T(0), T(1), Part::LOWER_RESULT);
  }

  void compute_system() {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < i; ++j) system[i][j] = beta[i] * between[i][j] * overlap[i][j];
      std::fill(system[i] + i, system[i] + system.columns, T(0));
    }
  }

  void weigh_attention(Tile<T> weighed) {
    const T scale = n_.scale;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j <= i; ++j) weighed[i][j] = scale * between[i][j] * attend[i][j];
      std::fill(weighed[i] + i + 1, weighed[i] + weighed.columns, T(0));
    }
  }

  // Leaves U in `writes`.
  void compute_writes() {
    multiply(plain(k), state, writes, rows, n_.K);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < writes.columns; ++j) {
        writes[i][j] = beta[i] * (v[i][j] - since[i] * writes[i][j]);
      }
    }
    solve_lower(system, writes, rows);
  }

  // weighted <- source, row i times weights[i] * factor
  void weigh_rows(Tile<T> source, const T* weights, T factor = 1) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < source.columns; ++j) {
        weighted[i][j] = factor * weights[i] * source[i][j];
      }
    }
  }

  void advance_state() {
    weigh_rows(k, to_end);
    multiply(transposed(weighted), writes, state, n_.K, rows, since[rows - 1]);
  }

  // The reads of the chunk into `out`; the state must be the one at the chunk's start.
  void read_out(Tile<T> out) {
    weigh_rows(q, since, T(n_.scale));
    multiply(plain(weighted), state, out, rows, n_.K);
    weigh_attention(attend);
    multiply(plain(attend), writes, out, rows, rows, T(1), T(1), Part::LOWER_LEFT);
  }

  int64_t rows = 0;

 private:
  const Sizes& n_;
  Workspace<T> space_;

 public:
  Tile<T> q, k, weighted, v, writes, state, keys_across, between, overlap, system, attend;
  T *beta, *decay, *since, *to_end;
};

// Calls work with the wide dtype (T) and that of v (S); the two differ for bfloat16 only.
template <typename Work>
void dispatch(at::ScalarType wide, const at::Tensor& v, Work work) {
  if (wide == at::kDouble) {
    TORCH_CHECK(v.scalar_type() == at::kDouble, "float64 and other dtypes do not mix");
    work(double(), double());
  } else if (v.scalar_type() == at::kBFloat16) {
    work(float(), at::BFloat16());
  } else {
    TORCH_CHECK(v.scalar_type() == at::kFloat, "tensors must be float32, float64 or bfloat16");
    work(float(), float());
  }
}

inline at::Tensor rows_of_numbers(const at::Tensor& tensor) {
  return tensor.stride(-1) == 1 || tensor.size(-1) == 1 ? tensor : tensor.contiguous();
}

}  // namespace slowwave
