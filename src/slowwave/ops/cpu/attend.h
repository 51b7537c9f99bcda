// Attention of one query a head, without gradients: a matter of memory. Every key and value is read
// once, for all query heads that share it, by threads that take pieces of the cache; their results
// are merged by the logarithms of their sums. Compact entries of each head come beside the cache.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <limits>

#include "exponential.h"
#include "linear.h"

namespace slowwave {

constexpr int64_t PIECE_TOKENS = 256;  // a task's, however many threads there are: the same sums
constexpr int64_t BLOCK_TOKENS = 64;   // scores of so many are held
constexpr int HEADS_AT_ONCE = 4;
constexpr int64_t TOKENS_AHEAD = 16;  // asked for before they are needed: heads lie apart in memory

// Keys and values of one KV head; bias is null where scores have none.
template <typename T, typename S>
struct Run {
  const S *keys, *values;
  const T* bias;
  int64_t stride, count;

  Run from(int64_t start, int64_t stop) const {
    const int64_t skipped = start * stride;
    return {keys + skipped, values + skipped, bias ? bias + start : nullptr, stride, stop - start};
  }
};

// What one query head has read so far: sum of exp(score - highest), and of that times the values.
template <typename T>
struct Reading {
  T highest, sum;
  T* values;
};

template <typename S>
void fetch(const S* from, int64_t size) {
  constexpr int64_t LINE = 64 / sizeof(S);
  for (int64_t j = 0; j < size; j += LINE) __builtin_prefetch(from + j);
}

// Scores (HEADS, BLOCK_TOKENS) of queries (HEADS, size), which are scaled already.
template <int HEADS, typename T, typename S>
void score_run(const T* queries, int64_t size, const Run<T, S>& run, T* scores) {
  using vec = typename Simd<T>::vec;
  constexpr int64_t lanes = Simd<T>::lanes;
  const int64_t whole = size / lanes * lanes;
  for (int64_t t = 0; t < run.count; ++t) {
    const S* key = run.keys + t * run.stride;
    fetch(key + TOKENS_AHEAD * run.stride, size);
    vec sums[HEADS] = {};
    for (int64_t j = 0; j < whole; j += lanes) {
      const vec part = load_vector<T, S>(key + j);
#pragma GCC unroll 4
      for (int h = 0; h < HEADS; ++h) {
        sums[h] += part * *reinterpret_cast<const vec*>(queries + h * size + j);
      }
    }
    for (int h = 0; h < HEADS; ++h) {
      T score = sum_lanes<T>(sums[h]) + (run.bias ? run.bias[t] : T(0));
      for (int64_t j = whole; j < size; ++j) score += queries[h * size + j] * static_cast<T>(key[j]);
      scores[h * BLOCK_TOKENS + t] = score;
    }
  }
}

// Scores of one head become weights, exp(score - highest).
template <typename T>
T weigh_scores(T* scores, int64_t count, Reading<T>& reading) {
  using vec = typename Simd<T>::vec;
  constexpr int64_t lanes = Simd<T>::lanes;
  T highest = std::max(reading.highest, *std::max_element(scores, scores + count));
  if (highest == -std::numeric_limits<T>::infinity()) {  // nothing is seen, here or before
    std::fill_n(scores, count, T(0));
    return 1;
  }
  vec sums = {};
  for (int64_t t = 0; t < count; t += lanes) {
    vec& part = *reinterpret_cast<vec*>(scores + t);
    part = exponential<T>(part - highest);
    if (t + lanes <= count) sums += part;
  }
  const T kept = std::exp(reading.highest - highest);
  reading.sum = kept * reading.sum + sum_lanes<T>(sums);
  for (int64_t t = count / lanes * lanes; t < count; ++t) reading.sum += scores[t];
  reading.highest = highest;
  return kept;
}

// Columns first .. first + VECTORS of the values, weighted, for HEADS heads.
template <int HEADS, int VECTORS, typename T, typename S>
void sum_values(const T* weights, const T* kept, const Run<T, S>& run, int64_t first, Reading<T>* readings) {
  using vec = typename Simd<T>::vec;
  constexpr int64_t lanes = Simd<T>::lanes;
  vec sums[HEADS][VECTORS];
  for (int h = 0; h < HEADS; ++h) {
    for (int s = 0; s < VECTORS; ++s) {
      sums[h][s] = kept[h] * *reinterpret_cast<const vec*>(readings[h].values + first + s * lanes);
    }
  }
  for (int64_t t = 0; t < run.count; ++t) {
    const S* value = run.values + t * run.stride + first;
    fetch(value + TOKENS_AHEAD * run.stride, VECTORS * lanes);
#pragma GCC unroll 4
    for (int s = 0; s < VECTORS; ++s) {
      const vec part = load_vector<T, S>(value + s * lanes);
#pragma GCC unroll 4
      for (int h = 0; h < HEADS; ++h) sums[h][s] += weights[h * BLOCK_TOKENS + t] * part;
    }
  }
  for (int h = 0; h < HEADS; ++h) {
    for (int s = 0; s < VECTORS; ++s) {
      *reinterpret_cast<vec*>(readings[h].values + first + s * lanes) = sums[h][s];
    }
  }
}

template <int HEADS, typename T, typename S>
void read_block(const T* queries, int64_t size, const Run<T, S>& run, T* scores, Reading<T>* readings) {
  constexpr int64_t lanes = Simd<T>::lanes;
  score_run<HEADS, T, S>(queries, size, run, scores);
  T kept[HEADS];
  for (int h = 0; h < HEADS; ++h) {
    kept[h] = weigh_scores<T>(scores + h * BLOCK_TOKENS, run.count, readings[h]);
  }
  int64_t first = 0;
  for (; first + TILE_VECTORS * lanes <= size; first += TILE_VECTORS * lanes) {
    sum_values<HEADS, TILE_VECTORS, T, S>(scores, kept, run, first, readings);
  }
  for (; first + lanes <= size; first += lanes) {
    sum_values<HEADS, 1, T, S>(scores, kept, run, first, readings);
  }
  for (int h = 0; h < HEADS; ++h) {
    for (int64_t j = first; j < size; ++j) {
      T sum = kept[h] * readings[h].values[j];
      for (int64_t t = 0; t < run.count; ++t) {
        sum += scores[h * BLOCK_TOKENS + t] * static_cast<T>(run.values[t * run.stride + j]);
      }
      readings[h].values[j] = sum;
    }
  }
}

// All query heads of a group read BLOCK_TOKENS or fewer.
template <typename T, typename S>
void read_group(
    const T* queries, int64_t heads, int64_t size, const Run<T, S>& run, T* scores,
    Reading<T>* readings) {
  if (run.count == 0) return;
  for (int64_t h = 0; h < heads; h += HEADS_AT_ONCE) {
    const T* some = queries + h * size;
    switch (heads - h) {
      case 1: read_block<1, T, S>(some, size, run, scores, readings + h); break;
      case 2: read_block<2, T, S>(some, size, run, scores, readings + h); break;
      case 3: read_block<3, T, S>(some, size, run, scores, readings + h); break;
      default: read_block<HEADS_AT_ONCE, T, S>(some, size, run, scores, readings + h);
    }
  }
}

// Compact entries of the rows of a batch, those of all heads in a row; none if keys is empty.
struct Memory {
  at::Tensor keys, values, bias, lengths;
};

// One stream's cache and entries, as runs of each of its KV heads.
template <typename T, typename S>
struct Sources {
  std::vector<Run<T, S>> window;
  std::vector<Run<T, T>> memory;

  Sources(const at::Tensor& keys, const at::Tensor& values, const Memory& entries, int64_t b) {
    const int64_t heads = keys.size(2), size = keys.size(3);
    for (int64_t g = 0; g < heads; ++g) {
      window.push_back(
          {keys.const_data_ptr<S>() + b * keys.stride(0) + g * size,
           values.const_data_ptr<S>() + b * values.stride(0) + g * size, nullptr, heads * size,
           keys.size(1)});
    }
    if (!entries.keys.defined()) return;
    const int64_t* lengths = entries.lengths.const_data_ptr<int64_t>() + b * heads;
    int64_t start = b * entries.keys.size(1);
    for (int64_t g = 0; g < heads; start += lengths[g], ++g) {
      memory.push_back(
          {entries.keys.const_data_ptr<T>() + start * size,
           entries.values.const_data_ptr<T>() + start * size,
           entries.bias.const_data_ptr<T>() + start, size, lengths[g]});
    }
  }
};

// A piece of every head's run, in blocks that go from head to head: as they lie in memory.
template <typename T, typename S>
void read_piece(
    const std::vector<Run<T, S>>& runs, int64_t piece, int64_t pieces, const T* queries,
    int64_t group, int64_t size, T* scores, Reading<T>* readings) {
  const auto bound = [&](const Run<T, S>& run, int64_t i) { return run.count * i / pieces; };
  int64_t longest = 0;
  for (const auto& run : runs) longest = std::max(longest, bound(run, piece + 1) - bound(run, piece));
  for (int64_t block = 0; block < longest; block += BLOCK_TOKENS) {
    for (size_t g = 0; g < runs.size(); ++g) {
      const int64_t start = bound(runs[g], piece) + block, stop = bound(runs[g], piece + 1);
      if (start >= stop) continue;
      const Run<T, S> part = runs[g].from(start, std::min(stop, start + BLOCK_TOKENS));
      read_group<T, S>(
          queries + g * group * size, group, size, part, scores, readings + g * group);
    }
  }
}

// out (heads, size) from the readings of all pieces.
template <typename T, typename S>
void merge_readings(const Reading<T>* readings, int64_t pieces, int64_t heads, int64_t size, S* out) {
  for (int64_t h = 0; h < heads; ++h, out += size) {
    T highest = -std::numeric_limits<T>::infinity(), sum = 0;
    for (int64_t p = 0; p < pieces; ++p) highest = std::max(highest, readings[p * heads + h].highest);
    std::vector<T> total(size, T(0));
    for (int64_t p = 0; p < pieces; ++p) {
      const Reading<T>& reading = readings[p * heads + h];
      if (reading.sum == 0) continue;
      const T share = std::exp(reading.highest - highest);
      sum += share * reading.sum;
      accumulate(total.data(), reading.values, share, size);
    }
    for (int64_t j = 0; j < size; ++j) out[j] = static_cast<S>(total[j] / sum);
  }
}

template <typename T, typename S>
void attend_all(
    const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values, const Memory& memory,
    double scale, const at::Tensor& out) {
  const int64_t B = q.size(0), H = q.size(2), size = q.size(3), group = H / keys.size(2);
  const auto count_pieces = [](int64_t tokens) { return (tokens + PIECE_TOKENS - 1) / PIECE_TOKENS; };
  const int64_t of_window = count_pieces(keys.size(1));
  const int64_t entries = memory.keys.defined() ? memory.keys.size(1) : 0;
  const int64_t of_memory = count_pieces((entries + keys.size(2) - 1) / keys.size(2));
  const int64_t pieces = of_window + of_memory;
  const at::Tensor queries = (q.to(c10::CppTypeToScalarType<T>::value) * scale).contiguous();
  std::vector<T> read(B * pieces * H * size, T(0));
  std::vector<Reading<T>> readings(B * pieces * H);
  for (size_t i = 0; i < readings.size(); ++i) {
    readings[i] = {-std::numeric_limits<T>::infinity(), T(0), read.data() + i * size};
  }
  std::vector<Sources<T, S>> sources;
  for (int64_t b = 0; b < B; ++b) sources.emplace_back(keys, values, memory, b);
  at::parallel_for(0, B * pieces, 1, [&](int64_t begin, int64_t end) {
    Workspace<T> space(HEADS_AT_ONCE * BLOCK_TOKENS);
    T* scores = space.tile(HEADS_AT_ONCE, BLOCK_TOKENS)[0];
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / pieces, piece = task % pieces;
      const T* own = queries.const_data_ptr<T>() + b * H * size;
      Reading<T>* to = readings.data() + task * H;
      if (piece < of_window) {
        read_piece<T, S>(sources[b].window, piece, of_window, own, group, size, scores, to);
      } else {
        const int64_t place = piece - of_window;
        read_piece<T, T>(sources[b].memory, place, of_memory, own, group, size, scores, to);
      }
    }
  });
  for (int64_t b = 0; b < B; ++b) {
    merge_readings<T, S>(
        readings.data() + b * pieces * H, pieces, H, size, out.data_ptr<S>() + b * H * size);
  }
}

// Rows of heads that lie one after the other, tokens too; rows of the batch may have room between.
inline at::Tensor rows_of_tokens(const at::Tensor& x) {
  const bool is_dense =
      x.stride(3) == 1 && x.stride(2) == x.size(3) && x.stride(1) == x.size(2) * x.size(3);
  return is_dense || x.numel() == 0 ? x : x.contiguous();
}

inline Memory find_memory(const std::vector<at::Tensor>& parts, at::ScalarType wide) {
  if (parts.empty()) return {};
  return {parts.at(0).to(wide).contiguous(), parts.at(1).to(wide).contiguous(),
          parts.at(2).to(wide).contiguous(), parts.at(3).contiguous()};
}

// q (B, 1, H, Dh); keys, values (B, W, Hkv, Dh), all of which are seen. memory: none, or keys and
// values (B, E, Dh) and bias (B, E), wide, and lengths (B, Hkv), entries of every head in a row.
// Returns (B, 1, H, Dh).
inline at::Tensor attend(
    const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
    const std::vector<at::Tensor>& memory, double scale) {
  TORCH_CHECK(q.size(1) == 1, "one query a head");
  TORCH_CHECK(q.scalar_type() == keys.scalar_type(), "q and keys must have one dtype");
  const at::ScalarType wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor out = at::empty(q.sizes(), q.options(), at::MemoryFormat::Contiguous);
  dispatch(wide, q, [&](auto wide_number, auto narrow_number) {
    attend_all<decltype(wide_number), decltype(narrow_number)>(
        q, rows_of_tokens(keys), rows_of_tokens(values), find_memory(memory, wide),
        scale, out);
  });
  return out;
}

}  // namespace slowwave
