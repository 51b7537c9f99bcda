// Small row-major matrices that stay in cache, and the products and solves between them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace slowwave {

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

}  // namespace slowwave
