// One token of every stream through all blocks, in one call and without gradients: what a model does
// when it generates, where calling operators one by one would take longer than what they do.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <tuple>
#include <vector>

#include "delta_mix.h"
#include "linear.h"
#include "norm.h"
#include "rotary.h"
#include "swiglu.h"

namespace slowwave {

// Sizes and constants that all blocks of a model share.
struct ModelSizes {
  int64_t heads, kv_heads, head_dim;
  double max_beta, norm_eps, out_norm_eps;
};

// Weights in the order in which the blocks' `weights` list them.
class Cursor {
 public:
  explicit Cursor(const std::vector<at::Tensor>& tensors) : tensors_(tensors) {}
  const at::Tensor& next() { return tensors_.at(place_++); }

 private:
  const std::vector<at::Tensor>& tensors_;
  size_t place_ = 0;
};

inline at::Tensor multiply_by(const at::Tensor& weight, const at::Tensor& x) {
  return slowwave::linear(x.to(weight.scalar_type()), weight);
}

// The cache holds W + 1 tokens, of which the last is still to be written.
inline at::Tensor attend(
    const ModelSizes& n, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
    Cursor& weights, const at::Tensor& keys, const at::Tensor& values) {
  const at::Tensor normed = rms_norm(x, weights.next(), n.norm_eps);
  const at::Tensor qkv = multiply_by(weights.next(), normed).unflatten(-1, {-1, n.head_dim});
  const at::Tensor q = rotate(qkv.narrow(2, 0, n.heads), cos, sin);
  const int64_t last = keys.size(1) - 1;
  keys.narrow(1, last, 1).copy_(rotate(qkv.narrow(2, n.heads, n.kv_heads), cos, sin));
  values.narrow(1, last, 1).copy_(qkv.narrow(2, n.heads + n.kv_heads, n.kv_heads));
  const at::Tensor read = at::scaled_dot_product_attention(
      q.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), {}, 0.0, false, {},
      n.heads != n.kv_heads);
  return multiply_by(weights.next(), read.transpose(1, 2).flatten(2));
}

struct Recurrence {
  at::Tensor fast_weights, tail;
};

inline at::Tensor remember(
    const ModelSizes& n, const at::Tensor& x, Cursor& weights, const Recurrence& before,
    Recurrence& after) {
  const at::Tensor normed = rms_norm(x, weights.next(), n.norm_eps);
  const at::Tensor qkv = multiply_by(weights.next(), normed);
  const at::Tensor gates = multiply_by(weights.next(), normed);
  const at::Tensor out_gate = multiply_by(weights.next(), normed);
  const at::Tensor &kernel = weights.next(), &A_log = weights.next(), &dt_bias = weights.next();
  const at::Tensor& norm = weights.next();
  const auto [mixed, written] = delta_mix(
      qkv, gates, out_gate, kernel, before.tail, A_log, dt_bias, norm, before.fast_weights,
      n.max_beta, n.out_norm_eps, 1, true);
  after = {written, at::cat({before.tail.narrow(1, 1, before.tail.size(1) - 1), qkv}, 1)};
  return multiply_by(weights.next(), mixed);
}

// hidden (B, 1, D), wide; kinds has an 'a' for every attention block and a 'g' for every other.
// caches: keys and values of the attention blocks, (B, W + 1, Hkv, Dh) each, whose last token is
// written. Returns (hidden, fast weights and convolution tails of the recurrent blocks).
inline std::tuple<at::Tensor, std::vector<at::Tensor>> read_token(
    const at::Tensor& hidden, const at::Tensor& cos, const at::Tensor& sin, c10::string_view kinds,
    const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& caches,
    const std::vector<at::Tensor>& recurrences, int64_t heads, int64_t kv_heads, int64_t head_dim,
    double max_beta, double norm_eps, double out_norm_eps) {
  const ModelSizes n{heads, kv_heads, head_dim, max_beta, norm_eps, out_norm_eps};
  Cursor weight(weights), cache(caches), recurrence(recurrences);
  std::vector<at::Tensor> written;
  at::Tensor x = hidden;
  for (const char kind : kinds) {
    if (kind == 'a') {
      const at::Tensor &keys = cache.next(), &values = cache.next();
      x = x + attend(n, x, cos, sin, weight, keys, values);
    } else {
      const Recurrence before{recurrence.next(), recurrence.next()};
      Recurrence after;
      x = x + remember(n, x, weight, before, after);
      written.push_back(after.fast_weights);
      written.push_back(after.tail);
    }
    const at::Tensor normed = rms_norm(x, weight.next(), n.norm_eps);
    const at::Tensor activated = swiglu(multiply_by(weight.next(), normed));
    x = x + multiply_by(weight.next(), activated);
  }
  return {x, written};
}

}  // namespace slowwave
