// Attention of many tokens, without gradients: causal, as far back as a reach, with compact entries
// beside the cache. A block of queries of all heads that share a KV head stays in cache while the
// keys pass. Scores stand with a row a key, so that softmax goes down columns, lane by lane.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <optional>

#include "attend.h"

namespace slowwave {

constexpr int64_t QUERY_TOKENS = 64, KEY_TOKENS = 64;

// A block of queries: column h * tokens + i is token i of head h.
template <typename T>
class QueryBlock {
 public:
  QueryBlock(int64_t group, int64_t tokens, int64_t size)
      : group_(group),
        tokens_(tokens),
        size_(size),
        columns_(padded<T>(group * tokens)),
        space_(
            (size + KEY_TOKENS + 3) * columns_ + (columns_ + 2 * KEY_TOKENS) * padded<T>(size)),
        queries_(space_.tile(size, columns_)),
        scores_(space_.tile(KEY_TOKENS, columns_)),
        highest_(space_.tile(1, columns_)),
        sums_(space_.tile(1, columns_)),
        kept_(space_.tile(1, columns_)),
        read_(space_.tile(columns_, size)),
        keys_(space_.tile(KEY_TOKENS, size)),
        values_(space_.tile(KEY_TOKENS, size)) {}

  int64_t tokens() const { return tokens_; }

  // token, head: strides of q, which is at the block's first token and the group's first head.
  template <typename S>
  void start(const S* q, int64_t token, int64_t head, T scale) {
    for (int64_t h = 0; h < group_; ++h) {
      for (int64_t i = 0; i < tokens_; ++i) {
        for (int64_t j = 0; j < size_; ++j) {
          queries_[j][h * tokens_ + i] = scale * static_cast<T>(q[i * token + h * head + j]);
        }
      }
    }
    std::fill_n(highest_[0], columns_, std::numeric_limits<T>::lowest());
    std::fill_n(sums_[0], columns_, T(0));
    std::fill_n(read_[0], columns_ * read_.columns, T(0));
  }

  // Keys and values of KEY_TOKENS or fewer, of which key t is seen by tokens t + first .. t + last.
  template <typename S>
  void read(const Run<T, S>& run, int64_t first, int64_t last) {
    const Left<T> keys{hold(run.keys, run, keys_), row(run), 1};
    multiply<T>(keys, queries_, scores_, run.count, size_);
    for (int64_t t = 0; t < run.count; ++t) {
      if (run.bias) {
        for (int64_t c = 0; c < columns_; ++c) scores_[t][c] += run.bias[t];
      }
      hide(t, std::clamp<int64_t>(t + first, 0, tokens_), std::clamp<int64_t>(t + last + 1, 0, tokens_));
    }
    weigh(run.count);
    for (int64_t c = 0; c < columns_; ++c) {
      if (kept_[0][c] == 1) continue;
      for (int64_t j = 0; j < read_.columns; ++j) read_[c][j] *= kept_[0][c];
    }
    const Tile<T> values{const_cast<T*>(hold(run.values, run, values_)), row(run)};
    multiply<T>(transposed(scores_), values, read_, columns_, run.count, 1);
  }

  // log_sums: (tokens, H), at the block's first token and the group's first head.
  template <typename S>
  void finish(S* out, int64_t token, int64_t head, T* log_sums, int64_t heads) const {
    for (int64_t c = 0; c < group_ * tokens_; ++c) {
      const int64_t i = c % tokens_, h = c / tokens_;
      log_sums[i * heads + h] = highest_[0][c] + std::log(sums_[0][c]);
      S* to = out + i * token + h * head;
      for (int64_t j = 0; j < size_; ++j) to[j] = static_cast<S>(read_[c][j] / sums_[0][c]);
    }
  }

 private:
  using vec = typename Simd<T>::vec;

  template <typename S>
  bool lies_ready() const {
    return std::is_same_v<T, S> && size_ % Simd<T>::lanes == 0;
  }

  template <typename S>
  int64_t row(const Run<T, S>& run) const {
    return lies_ready<S>() ? run.stride : keys_.columns;
  }

  // Rows of numbers where they lie, or in a tile if they are too narrow or no whole vectors.
  template <typename S>
  const T* hold(const S* from, const Run<T, S>& run, Tile<T> tile) const {
    if constexpr (std::is_same_v<T, S>) {
      if (lies_ready<S>()) return from;
    }
    for (int64_t t = 0; t < run.count; ++t) {
      for (int64_t j = 0; j < size_; ++j) tile[t][j] = static_cast<T>(from[t * run.stride + j]);
    }
    return tile.data;
  }

  // All tokens but start .. stop - 1 do not see key t.
  void hide(int64_t t, int64_t start, int64_t stop) {
    constexpr T UNSEEN = -std::numeric_limits<T>::infinity();
    if (start == 0 && stop == tokens_) return;
    for (int64_t h = 0; h < group_; ++h) {
      T* of_head = scores_[t] + h * tokens_;
      std::fill(of_head, of_head + start, UNSEEN);
      std::fill(of_head + std::max(start, stop), of_head + tokens_, UNSEEN);
    }
  }

  void weigh(int64_t count) {
    constexpr T LOWEST = -87;  // below, a weight is nothing; so is that of a key that is not seen
    for (int64_t c = 0; c < columns_; c += Simd<T>::lanes) {
      vec highest = at(highest_, 0, c);
      for (int64_t t = 0; t < count; ++t) {
        const vec score = at(scores_, t, c);
        highest = score > highest ? score : highest;
      }
      const vec change = at(highest_, 0, c) - highest;
      at(kept_, 0, c) = change < LOWEST ? vec{} : exponential<T>(change);
      vec sum = at(kept_, 0, c) * at(sums_, 0, c);
      for (int64_t t = 0; t < count; ++t) {
        vec& score = at(scores_, t, c);
        const vec distance = score - highest;
        score = distance < LOWEST ? vec{} : exponential<T>(distance);
        sum += score;
      }
      at(sums_, 0, c) = sum;
      at(highest_, 0, c) = highest;
    }
  }

  static vec& at(const Tile<T>& tile, int64_t row, int64_t column) {
    return *reinterpret_cast<vec*>(tile[row] + column);
  }

  int64_t group_, tokens_, size_, columns_;
  Workspace<T> space_;
  Tile<T> queries_, scores_, highest_, sums_, kept_, read_, keys_, values_;
};

// One block of queries, from token `start` of the T that end the window.
template <typename T, typename S>
void read_for_block(
    QueryBlock<T>& block, const Run<T, S>& window, const Run<T, T>* memory, int64_t place,
    int64_t tokens, int64_t reach) {
  if (memory) {
    for (int64_t t = 0; t < memory->count; t += KEY_TOKENS) {
      block.read(memory->from(t, std::min(memory->count, t + KEY_TOKENS)), -KEY_TOKENS, tokens);
    }
  }
  const int64_t stop = place + tokens;
  for (int64_t t = std::max<int64_t>(0, place - reach + 1); t < stop; t += KEY_TOKENS) {
    const int64_t first = t - place;  // of key t is seen by the token at its place, and later ones
    block.read(window.from(t, std::min(stop, t + KEY_TOKENS)), first, first + reach - 1);
  }
}

template <typename T, typename S>
void read_window_all(
    const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values, const Memory& memory,
    double scale, int64_t reach, const at::Tensor& out, const at::Tensor& log_sums) {
  const int64_t B = q.size(0), T_ = q.size(1), W = keys.size(1), heads = keys.size(2);
  const int64_t size = q.size(3), group = q.size(2) / heads;
  const int64_t blocks = (T_ + QUERY_TOKENS - 1) / QUERY_TOKENS;
  std::vector<Sources<T, S>> sources;
  for (int64_t b = 0; b < B; ++b) sources.emplace_back(keys, values, memory, b);
  at::parallel_for(0, B * heads * blocks, 1, [&](int64_t begin, int64_t end) {
    std::optional<QueryBlock<T>> block;  // its memory serves all tasks of a thread
    for (int64_t task = begin; task < end; ++task) {
      // First and last blocks in turn: the last see most, and every thread gets some of both.
      const int64_t b = task / blocks / heads, g = task / blocks % heads, turn = task % blocks;
      const int64_t start = (turn % 2 ? blocks - 1 - turn / 2 : turn / 2) * QUERY_TOKENS;
      const int64_t tokens = std::min(QUERY_TOKENS, T_ - start);
      const int64_t place = b * q.stride(0) + start * q.stride(1) + g * group * q.stride(2);
      if (!block || block->tokens() != tokens) block.emplace(group, tokens, size);
      block->start(q.const_data_ptr<S>() + place, q.stride(1), q.stride(2), static_cast<T>(scale));
      const Run<T, T>* entries = memory.keys.defined() ? &sources[b].memory[g] : nullptr;
      read_for_block<T, S>(*block, sources[b].window[g], entries, W - T_ + start, tokens, reach);
      const int64_t target = b * out.stride(0) + start * out.stride(1) + g * group * out.stride(2);
      T* sums = log_sums.data_ptr<T>() + (b * T_ + start) * q.size(2) + g * group;
      block->finish(
          out.data_ptr<S>() + target, out.stride(1), out.stride(2), sums, q.size(2));
    }
  });
}

// q (B, T, H, Dh), the last T of the W tokens of keys and values (B, W, Hkv, Dh); each sees itself and
// reach - 1 tokens before it. memory: as `attend`. Returns (B, T, H, Dh), and the logarithms of what
// each softmax divides by, (B, T, H), wide.
inline std::tuple<at::Tensor, at::Tensor> read_window(
    const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
    const std::vector<at::Tensor>& memory, double scale, int64_t reach) {
  TORCH_CHECK(q.scalar_type() == keys.scalar_type(), "q and keys must have one dtype");
  TORCH_CHECK(q.size(1) <= keys.size(1), "the window ends with the queries' tokens");
  const at::ScalarType wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor out = at::empty(q.sizes(), q.options(), at::MemoryFormat::Contiguous);
  const at::Tensor log_sums = at::empty({q.size(0), q.size(1), q.size(2)}, q.options().dtype(wide));
  dispatch(wide, q, [&](auto wide_number, auto narrow_number) {
    read_window_all<decltype(wide_number), decltype(narrow_number)>(
        rows_of_numbers(q), rows_of_tokens(keys), rows_of_tokens(values), find_memory(memory, wide),
        scale, reach, out, log_sums);
  });
  return {out, log_sums};
}

}  // namespace slowwave
