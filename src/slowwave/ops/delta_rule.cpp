// The gated delta rule on a CPU, forward and backward: one head's chunk stays in cache from its
// first product to its last. The specification is `_recurrent` in delta_rule.py; letters as there.
//
// With D_ij = exp(sum of log_decay over j+1..i), since_i the same from the chunk's start to i and
// to_end_j from j to its end, a chunk that starts from the state S does
//
//     A = strict_lower(beta_i D_ij k_i.k_j)      P = scale lower(D_ij q_i.k_j)
//     (I + A) U = beta (v - since k S)           the writes
//     out = scale since q S + P U                the reads
//     S <- since_C S + (to_end k)^T U            the state at its end
//
// The backward pass keeps nothing but the inputs and the states at the chunks' starts; it goes
// through the chunks from last to first, computes D, A, P and U again and applies the chain rule
// to the four lines above.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, TILE_VECTORS = 4;
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32, TILE_VECTORS = 2;
#else
constexpr int VECTOR_BYTES = 16, TILE_VECTORS = 4;
#endif
constexpr int TILE_ROWS = 6, SOLVE_ROWS = 8;

template <typename T>
struct Simd {
  static constexpr int64_t lanes = VECTOR_BYTES / sizeof(T);
  typedef T vec __attribute__((vector_size(VECTOR_BYTES), may_alias, aligned(sizeof(T))));
};

template <typename T>
int64_t padded(int64_t columns) {
  constexpr int64_t lanes = Simd<T>::lanes;
  return (columns + lanes - 1) / lanes * lanes;
}

// A matrix in the workspace, row-major; its rows are padded to whole vectors with zeros.
template <typename T>
struct Tile {
  T* data;
  int64_t columns;
  T* operator[](int64_t row) const { return data + row * columns; }
};

// The left factor of a product, read by element, so that a transpose costs nothing.
template <typename T>
struct Left {
  const T* data;
  int64_t row, inner;
};
template <typename T>
Left<T> plain(Tile<T> tile) {
  return {tile.data, tile.columns, 1};
}
template <typename T>
Left<T> transposed(Tile<T> tile) {
  return {tile.data, 1, tile.columns};
}

// Which part of a product matters: all of it, or one that knows triangular factors or results.
enum class Part { ALL, LOWER_LEFT, UPPER_LEFT, LOWER_RESULT };

template <typename T, int ROWS, int VECTORS>
void multiply_block(
    Left<T> a, const T* b, int64_t b_row, T* c, int64_t c_row, int64_t first, int64_t last, T keep, T sign) {
  using vec = typename Simd<T>::vec;
  vec sums[ROWS][VECTORS] = {};
  for (int64_t p = first; p < last; ++p) {
    const vec* right = reinterpret_cast<const vec*>(b + p * b_row);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      const T left = a.data[r * a.row + p * a.inner];
#pragma GCC unroll 8
      for (int s = 0; s < VECTORS; ++s) sums[r][s] += left * right[s];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r) {
    vec* result = reinterpret_cast<vec*>(c + r * c_row);
#pragma GCC unroll 8
    for (int s = 0; s < VECTORS; ++s) {
      result[s] = keep == 0 ? sign * sums[r][s] : keep * result[s] + sign * sums[r][s];
    }
  }
}

template <typename T, int ROWS>
void multiply_rows(
    Left<T> a, const T* b, int64_t b_row, T* c, int64_t c_row, int64_t first, int64_t last, T keep, T sign,
    int64_t vectors) {
  switch (vectors) {
    case 1: return multiply_block<T, ROWS, 1>(a, b, b_row, c, c_row, first, last, keep, sign);
    case 2: return multiply_block<T, ROWS, 2>(a, b, b_row, c, c_row, first, last, keep, sign);
    case 3: return multiply_block<T, ROWS, 3>(a, b, b_row, c, c_row, first, last, keep, sign);
    default: return multiply_block<T, ROWS, 4>(a, b, b_row, c, c_row, first, last, keep, sign);
  }
}

// c = keep * c + sign * a b, for a of (rows, inner) and all columns of b and c.
template <typename T>
void multiply(
    Left<T> a, Tile<T> b, Tile<T> c, int64_t rows, int64_t inner, T keep = 0, T sign = 1,
    Part part = Part::ALL) {
  constexpr int64_t lanes = Simd<T>::lanes;
  const int64_t vectors = c.columns / lanes;
  const int64_t strips = (vectors + TILE_VECTORS - 1) / TILE_VECTORS;
  for (int64_t strip = 0; strip < strips; ++strip) {
    const int64_t start = vectors * strip / strips, stop = vectors * (strip + 1) / strips;
    for (int64_t m = 0; m < rows; m += TILE_ROWS) {
      const int64_t count = std::min<int64_t>(TILE_ROWS, rows - m);
      if (part == Part::LOWER_RESULT && start * lanes >= m + count) continue;
      const int64_t first = part == Part::UPPER_LEFT ? m : 0;
      const int64_t last = part == Part::LOWER_LEFT ? std::min(inner, m + count) : inner;
      const Left<T> left{a.data + m * a.row, a.row, a.inner};
      const T* right = b.data + start * lanes;
      T* result = c[m] + start * lanes;
      const auto run = [&](auto block) {
        block(left, right, b.columns, result, c.columns, first, last, keep, sign, stop - start);
      };
      switch (count) {
        case 1: run(multiply_rows<T, 1>); break;
        case 2: run(multiply_rows<T, 2>); break;
        case 3: run(multiply_rows<T, 3>); break;
        case 4: run(multiply_rows<T, 4>); break;
        case 5: run(multiply_rows<T, 5>); break;
        default: run(multiply_rows<T, TILE_ROWS>);
      }
    }
  }
}

template <typename T>
T dot(const T* a, const T* b, int64_t count) {
  using vec = typename Simd<T>::vec;
  constexpr int64_t lanes = Simd<T>::lanes;
  vec sums = {};
  for (int64_t i = 0; i < count; i += lanes) {
    sums += *reinterpret_cast<const vec*>(a + i) * *reinterpret_cast<const vec*>(b + i);
  }
  T total = 0;
  for (int64_t i = 0; i < lanes; ++i) total += sums[i];
  return total;
}

// y += weight * x
template <typename T>
void accumulate(T* __restrict__ y, const T* __restrict__ x, T weight, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] += weight * x[i];
}

template <typename T>
void transpose(Tile<T> source, Tile<T> target, int64_t rows, int64_t columns) {
  constexpr int64_t BLOCK = 16;
  for (int64_t m = 0; m < rows; m += BLOCK) {
    for (int64_t n = 0; n < columns; ++n) {
      const int64_t stop = std::min(rows, m + BLOCK);
      for (int64_t i = m; i < stop; ++i) target[n][i] = source[i][n];
    }
  }
}

// x <- (I + strict_lower(a))^-1 x
template <typename T>
void solve_lower(Tile<T> a, Tile<T> x, int64_t rows) {
  for (int64_t m = 0; m < rows; m += SOLVE_ROWS) {
    const int64_t stop = std::min(rows, m + SOLVE_ROWS);
    const Tile<T> block{x[m], x.columns};
    multiply<T>({a[m], a.columns, 1}, x, block, stop - m, m, 1, -1);
    for (int64_t i = m; i < stop; ++i) {
      for (int64_t j = m; j < i; ++j) accumulate(x[i], x[j], -a[i][j], x.columns);
    }
  }
}

// x <- (I + strict_lower(a))^-T x
template <typename T>
void solve_upper(Tile<T> a, Tile<T> x, int64_t rows) {
  for (int64_t m = (rows - 1) / SOLVE_ROWS * SOLVE_ROWS; m >= 0; m -= SOLVE_ROWS) {
    const int64_t stop = std::min(rows, m + SOLVE_ROWS);
    const Tile<T> block{x[m], x.columns}, below{x[stop], x.columns};
    multiply<T>({a[stop] + m, 1, a.columns}, below, block, stop - m, rows - stop, 1, -1);
    for (int64_t i = stop - 1; i >= m; --i) {
      for (int64_t j = i + 1; j < stop; ++j) accumulate(x[i], x[j], -a[j][i], x.columns);
    }
  }
}

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
  for (int64_t i = 0; i < rows; ++i) std::copy_n(state + i * columns, columns, tile[i]);
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

Sizes measure(
    const at::Tensor& q, const at::Tensor& v, const at::Tensor& state, double scale, int64_t chunk,
    bool keep_writes) {
  const int64_t T = q.size(1);
  chunk = std::min(chunk, T);
  return {q.size(0), T, q.size(2), v.size(2), q.size(3), v.size(3), chunk, (T + chunk - 1) / chunk,
          q.size(0) / state.size(0), v.size(2) / q.size(2), scale, keep_writes};
}

// Scratch of one thread: the tiles of a chunk, zeroed once so that padding is zero.
template <typename T>
class Workspace {
 public:
  explicit Workspace(int64_t numbers) : memory_(numbers + Simd<T>::lanes) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    next_ = memory_.data() + (VECTOR_BYTES - address % VECTOR_BYTES) % VECTOR_BYTES / sizeof(T);
  }
  Tile<T> tile(int64_t rows, int64_t columns) {
    const Tile<T> made{next_, padded<T>(columns)};
    next_ += rows * made.columns;
    return made;
  }

 private:
  std::vector<T> memory_;
  T* next_;
};

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
    rows = std::min(n_.chunk, n_.T - start);
    load(queries, start, rows, q);
    load(keys, start, rows, k);
    load(values, start, rows, v);
    T product = 1;
    for (int64_t i = 0; i < rows; ++i) {
      beta[i] = *strength[start + i];
      decay[i] = std::exp(*log_decay[start + i]);
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

  // k k^T and q k^T, undecayed, into `overlap` and `attend`; only their lower triangles.
  void compute_products() {
    transpose(k, keys_across, rows, n_.K);
    multiply(plain(k), keys_across, overlap, rows, n_.K, T(0), T(1), Part::LOWER_RESULT);
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
    chunk.compute_products();
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
  std::fill_n(grad.state.data, n.K * grad.state.columns, T(0));
  if (grad_state != nullptr) load_state(grad_state, n.K, n.V, grad.state);
  for (int64_t c = n.chunks - 1; c >= 0; --c) {
    const int64_t start = c * n.chunk;
    load_state(c > 0 ? starts + (c - 1) * numbers : state, n.K, n.V, chunk.state);
    chunk.read_inputs({q, b, h}, {k, b, h}, {v, b, g}, {log_decay, b, g}, {beta, b, g}, start);
    load(Head<const S>(grad_out, b, g), start, chunk.rows, grad.out);
    chunk.compute_decays();
    chunk.compute_products();
    chunk.compute_system();
    chunk.compute_writes();
    chunk.weigh_attention(grad.weighed);
    backward_chunk(n, chunk, grad);

    const Head<T> q_result(result.q, b, h), k_result(result.k, b, h);
    const Head<T> decay_result(result.log_decay, b, g), beta_result(result.beta, b, g);
    const Head<S> v_result(result.v, b, g);
    for (int64_t i = 0; i < chunk.rows; ++i) {
      accumulate(q_result[start + i], grad.q[i], T(1), n.K);
      accumulate(k_result[start + i], grad.k[i], T(1), n.K);
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
          accumulate(start_gradient + i * n.V, grad.state[i], T(1), n.V);
        }
      }
    }
  });
}

// Calls work with the dtypes of the state (T) and of v (S); the two differ for bfloat16 only.
template <typename Work>
void dispatch(const at::Tensor& state, const at::Tensor& v, Work work) {
  if (state.scalar_type() == at::kDouble) {
    TORCH_CHECK(v.scalar_type() == at::kDouble, "v must be float64 when the state is");
    work(double(), double());
  } else if (v.scalar_type() == at::kBFloat16) {
    work(float(), at::BFloat16());
  } else {
    TORCH_CHECK(v.scalar_type() == at::kFloat, "v must be float32, float64 or bfloat16");
    work(float(), float());
  }
}

at::Tensor rows_of_numbers(const at::Tensor& tensor) {
  return tensor.stride(-1) == 1 || tensor.size(-1) == 1 ? tensor : tensor.contiguous();
}

// Returns out (B, T, G, V), the new state (empty unless keep_writes), and with keep_starts the
// states at the starts of all chunks but the first, (B, G, chunks - 1, K, V), for the way back.
std::tuple<at::Tensor, at::Tensor, at::Tensor> forward(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& log_decay,
    const at::Tensor& beta, const at::Tensor& state, double scale, int64_t chunk_size,
    bool keep_writes, bool keep_starts) {
  const Sizes n = measure(q, v, state, scale, chunk_size, keep_writes);
  const int64_t num_starts = keep_starts ? n.chunks - 1 : 0;
  const at::Tensor out = at::empty(v.sizes(), v.options());
  const at::Tensor new_state = at::empty({keep_writes ? n.B : 0, n.G, n.K, n.V}, state.options());
  const at::Tensor starts = at::empty({n.B, n.G, num_starts, n.K, n.V}, state.options());
  dispatch(state, v, [&](auto wide, auto narrow) {
    forward_all<decltype(wide), decltype(narrow)>(
        n, rows_of_numbers(q), rows_of_numbers(k), rows_of_numbers(v), log_decay, beta,
        state.contiguous(), out, new_state, starts);
  });
  return {out, new_state, starts};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> backward(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& log_decay,
    const at::Tensor& beta, const at::Tensor& state, const at::Tensor& starts,
    const at::Tensor& grad_out, const at::Tensor& grad_state, double scale, int64_t chunk_size,
    bool keep_writes) {
  const Sizes n = measure(q, v, state, scale, chunk_size, keep_writes);
  const GradientTensors result{
      at::zeros(q.sizes(), q.options()),
      at::zeros(k.sizes(), k.options()),
      at::empty(v.sizes(), v.options()),
      at::empty(log_decay.sizes(), log_decay.options()),
      at::empty(beta.sizes(), beta.options()),
      at::zeros(state.sizes(), state.options())};
  dispatch(state, v, [&](auto wide, auto narrow) {
    backward_all<decltype(wide), decltype(narrow)>(
        n, rows_of_numbers(q), rows_of_numbers(k), rows_of_numbers(v), log_decay, beta,
        state.contiguous(), starts.contiguous(), rows_of_numbers(grad_out),
        grad_state.contiguous(), result);
  });
  return {result.q, result.k, result.v, result.log_decay, result.beta, result.state};
}

}  // namespace

TORCH_LIBRARY(slowwave, library) {
  library.def(
      "delta_rule(Tensor q, Tensor k, Tensor v, Tensor log_decay, Tensor beta, Tensor state, "
      "float scale, int chunk_size, bool keep_writes, bool keep_starts) "
      "-> (Tensor, Tensor, Tensor)");
  library.def(
      "delta_rule_backward(Tensor q, Tensor k, Tensor v, Tensor log_decay, Tensor beta, "
      "Tensor state, Tensor starts, Tensor grad_out, Tensor grad_state, float scale, "
      "int chunk_size, bool keep_writes) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(slowwave, CPU, library) {
  library.impl("delta_rule", forward);
  library.impl("delta_rule_backward", backward);
}
