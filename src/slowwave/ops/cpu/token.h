// One token of every stream through all blocks, in one call and without gradients: what a model does
// when it generates, where calling operators one by one would take longer than what they do.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "attend.h"
#include "delta_mix.h"
#include "int8.h"
#include "linear.h"
#include "norm.h"
#include "rotary.h"
#include "swiglu.h"

namespace slowwave {

using Slots = c10::List<std::optional<at::Tensor>>;

// Up to so many tokens torch's own kernel reads a cache, as in ../attention.py: what it gave stays
// the same to the bit.
constexpr int64_t SHORT_CACHE = 128;

// Sizes and constants that all blocks of a model share.
struct ModelSizes {
  int64_t heads, kv_heads, head_dim;
  std::optional<double> scale;
  int64_t local_window;
  bool gelu;
  double max_beta, norm_eps, out_norm_eps;
};

// Weights in the order in which the blocks' `weights` list them; a model lacks some.
class Cursor {
 public:
  explicit Cursor(const Slots& slots) : slots_(slots) {}
  std::optional<at::Tensor> next() { return slots_.get(place_++); }
  at::Tensor demand() {
    const auto tensor = next();
    TORCH_CHECK(tensor.has_value(), "a weight is missing at place ", place_ - 1);
    return *tensor;
  }

 private:
  const Slots& slots_;
  size_t place_ = 0;
};

// x times the next matrix, with its bias if it has one; nothing if the model has no such matrix.
inline std::optional<at::Tensor> multiply_if_there(Cursor& weights, const at::Tensor& x) {
  const auto weight = weights.next(), scales = weights.next(), bias = weights.next();
  if (!weight.has_value()) return std::nullopt;
  const at::Tensor product = scales.has_value()
                                 ? int8_linear(x, *weight, *scales)
                                 : slowwave::linear(x.to(weight->scalar_type()), *weight);
  return bias.has_value() ? product + bias->to(product.scalar_type()) : product;
}

inline at::Tensor multiply_by(Cursor& weights, const at::Tensor& x) {
  const auto product = multiply_if_there(weights, x);
  TORCH_CHECK(product.has_value(), "a matrix is missing");
  return *product;
}

// A norm of the model's width, or none.
inline at::Tensor norm_by(const ModelSizes& n, Cursor& weights, const at::Tensor& x) {
  const auto weight = weights.next();
  return weight.has_value() ? rms_norm(x, *weight, n.norm_eps) : x;
}

// Cosines and sines, (B or 1, 1, 1, turned / 2) each; none where positions turn nothing.
using Angles = std::vector<at::Tensor>;

inline at::Tensor turn_heads(const at::Tensor& heads, const Angles& angles) {
  if (angles.empty()) return heads;
  const int64_t turned = 2 * angles[0].size(-1), rest = heads.size(3) - turned;
  if (rest == 0) return rotate(heads, angles[0], angles[1]);
  const at::Tensor first = rotate(heads.narrow(3, 0, turned), angles[0], angles[1]);
  return at::cat({first, heads.narrow(3, turned, rest)}, 3);
}

// Queries or keys (B, 1, heads, Dh), each of them normed or all together, as the weight is long.
inline at::Tensor norm_heads(const ModelSizes& n, Cursor& weights, const at::Tensor& heads) {
  const auto weight = weights.next();
  if (!weight.has_value()) return heads;
  const at::Tensor rows = heads.reshape({heads.size(0), -1, weight->size(0)});
  return rms_norm(rows, *weight, n.norm_eps).to(heads.scalar_type()).reshape(heads.sizes());
}

inline at::Tensor read_cache(
    const ModelSizes& n, const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
    const std::vector<at::Tensor>& memory) {
  if (!memory.empty() || keys.size(1) > SHORT_CACHE) {
    const double scale = n.scale.value_or(1 / std::sqrt(static_cast<double>(n.head_dim)));
    return attend(q, keys, values, memory, scale);
  }
  const at::Tensor read = at::scaled_dot_product_attention(
      q.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), {}, 0.0, false, n.scale,
      n.heads != n.kv_heads);
  return read.transpose(1, 2);
}

// What a layer of attention holds: a cache of W + 1 tokens, of which the last is still to be written,
// and compact entries as `attend` takes them, or none.
struct Held {
  at::Tensor keys, values;
  std::vector<at::Tensor> memory;
  int64_t reach;
};

inline at::Tensor mix_by_attention(
    const ModelSizes& n, const at::Tensor& x, const Angles& angles, Cursor& weights,
    const Held& held) {
  const at::Tensor qkv = multiply_by(weights, x).unflatten(-1, {-1, n.head_dim});
  const at::Tensor q = norm_heads(n, weights, qkv.narrow(2, 0, n.heads));
  const at::Tensor key = norm_heads(n, weights, qkv.narrow(2, n.heads, n.kv_heads));
  const int64_t cached = held.keys.size(1), seen = std::min(cached, held.reach);
  held.keys.narrow(1, cached - 1, 1).copy_(turn_heads(key, angles));
  held.values.narrow(1, cached - 1, 1).copy_(qkv.narrow(2, n.heads + n.kv_heads, n.kv_heads));
  at::Tensor read = read_cache(
      n, turn_heads(q, angles), held.keys.narrow(1, cached - seen, seen),
      held.values.narrow(1, cached - seen, seen), held.memory);
  read = read.flatten(2);
  const auto gate = multiply_if_there(weights, x);
  if (gate.has_value()) read = read * at::sigmoid(*gate);
  return multiply_by(weights, read);
}

struct Recurrence {
  at::Tensor fast_weights, tail;
};

inline at::Tensor mix_by_recurrence(
    const ModelSizes& n, const at::Tensor& x, Cursor& weights, const Recurrence& before,
    Recurrence& after) {
  const at::Tensor qkv = multiply_by(weights, x), gates = multiply_by(weights, x);
  const at::Tensor out_gate = multiply_by(weights, x);
  const at::Tensor kernel = weights.demand(), A_log = weights.demand(), dt_bias = weights.demand();
  const at::Tensor norm = weights.demand();
  const auto [mixed, written] = delta_mix(
      qkv, gates, out_gate, kernel, before.tail, A_log, dt_bias, norm, before.fast_weights,
      n.max_beta, n.out_norm_eps, 1, true);
  after = {written, at::cat({before.tail.narrow(1, 1, before.tail.size(1) - 1), qkv}, 1)};
  return multiply_by(weights, mixed);
}

inline at::Tensor activate(const ModelSizes& n, const at::Tensor& up) {
  if (!n.gelu) return swiglu(up);
  const auto halves = up.chunk(2, -1);
  return at::gelu(halves[0], "tanh") * halves[1];
}

// hidden (B, 1, D), wide; kinds has an 'a' for every block of attention, an 'l' for those that see
// the nearest tokens alone, and a 'g' for every other. angles, local_angles: of 'a' and 'l'.
// caches: keys and values of the attention blocks, (B, W + 1, Hkv, Dh) each, whose last token is
// written. memories: of each of them what `attend` takes, or four times nothing; empty if none has
// any. Returns (hidden, fast weights and convolution tails of the recurrent blocks).
inline std::tuple<at::Tensor, std::vector<at::Tensor>> read_token(
    const at::Tensor& hidden, const std::vector<at::Tensor>& angles,
    const std::vector<at::Tensor>& local_angles, c10::string_view kinds, const Slots& weights,
    const std::vector<at::Tensor>& caches, const std::vector<at::Tensor>& recurrences,
    const Slots& memories, int64_t heads, int64_t kv_heads, int64_t head_dim,
    std::optional<double> scale, int64_t local_window, bool gelu, double max_beta, double norm_eps,
    double out_norm_eps) {
  const ModelSizes n{heads, kv_heads, head_dim, scale, local_window, gelu, max_beta, norm_eps,
                     out_norm_eps};
  Cursor weight(weights), memory(memories);
  auto cache = caches.begin(), recurrence = recurrences.begin();
  std::vector<at::Tensor> written;
  at::Tensor x = hidden;
  for (const char kind : kinds) {
    const at::Tensor normed = norm_by(n, weight, x);
    at::Tensor mixed;
    if (kind == 'g') {
      const Recurrence before{recurrence[0], recurrence[1]};
      Recurrence after;
      mixed = mix_by_recurrence(n, normed, weight, before, after);
      written.push_back(after.fast_weights);
      written.push_back(after.tail);
      recurrence += 2;
    } else {
      const bool is_local = kind == 'l';
      Held held{cache[0], cache[1], {}, is_local ? local_window : cache[0].size(1)};
      for (int i = 0; i < 4 && !memories.empty(); ++i) {
        if (const auto part = memory.next()) held.memory.push_back(*part);
      }
      mixed = mix_by_attention(n, normed, is_local ? local_angles : angles, weight, held);
      cache += 2;
    }
    x = x + norm_by(n, weight, mixed);
    const at::Tensor up = multiply_by(weight, norm_by(n, weight, x));
    const at::Tensor fed = multiply_by(weight, activate(n, up));
    x = x + norm_by(n, weight, fed);
  }
  return {x, written};
}

}  // namespace slowwave
