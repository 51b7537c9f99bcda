// What torch sees: the operators of the other files, for tensors on a CPU. One translation unit, as
// reading torch's headers takes longer than compiling what is here.

#include <torch/library.h>

#include "attend.h"
#include "delta_inputs.h"
#include "delta_mix.h"
#include "delta_rule.h"
#include "int8.h"
#include "linear.h"
#include "log_sum.h"
#include "norm.h"
#include "read_window.h"
#include "rotary.h"
#include "swiglu.h"
#include "token.h"

TORCH_LIBRARY(slowwave, library) {
  library.def(
      "delta_rule(Tensor q, Tensor k, Tensor v, Tensor log_decay, Tensor beta, Tensor state, "
      "float scale, int chunk_size, bool keep_writes, bool keep_starts) "
      "-> (Tensor, Tensor, Tensor)");
  library.def(
      "delta_rule_backward(Tensor q, Tensor k, Tensor v, Tensor log_decay, Tensor beta, "
      "Tensor state, Tensor starts, Tensor grad_out, Tensor grad_state, float scale, "
      "int chunk_size, bool keep_writes) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "delta_mix(Tensor qkv, Tensor gates, Tensor? out_gate, Tensor kernel, Tensor tail, "
      "Tensor A_log, Tensor dt_bias, Tensor norm, Tensor state, float max_beta, float norm_eps, "
      "int chunk_size, bool keep_writes) -> (Tensor, Tensor)");
  library.def(
      "read_token(Tensor hidden, Tensor[] angles, Tensor[] local_angles, str kinds, "
      "Tensor?[] weights, Tensor(a!)[] caches, Tensor[] recurrences, Tensor?[] memories, "
      "int heads, int kv_heads, int head_dim, float? scale, int local_window, bool gelu, "
      "float max_beta, float norm_eps, float out_norm_eps) -> (Tensor, Tensor[])");
  library.def(
      "attend(Tensor q, Tensor keys, Tensor values, Tensor[] memory, float scale) -> Tensor");
  library.def(
      "read_window(Tensor q, Tensor keys, Tensor values, Tensor[] memory, float scale, int reach) "
      "-> (Tensor, Tensor)");
  library.def("log_sum(Tensor x) -> Tensor");
  library.def(
      "delta_inputs(Tensor x, Tensor kernel, Tensor tail, int keys, int K) -> (Tensor, Tensor)");
  library.def(
      "delta_inputs_backward(Tensor x, Tensor kernel, Tensor tail, Tensor grad_keys, "
      "Tensor grad_values, int K) -> (Tensor, Tensor, Tensor)");
  library.def("linear(Tensor x, Tensor weight) -> Tensor");
  library.def("int8_linear(Tensor x, Tensor numbers, Tensor scales) -> Tensor");
  library.def("int8_expand(Tensor numbers, Tensor scales, int D) -> Tensor");
  library.def("rms_norm(Tensor x, Tensor weight, float eps) -> Tensor");
  library.def("rotate(Tensor x, Tensor cos, Tensor sin) -> Tensor");
  library.def("swiglu(Tensor up) -> Tensor");
}

TORCH_LIBRARY_IMPL(slowwave, CPU, library) {
  library.impl("delta_rule", slowwave::delta_rule);
  library.impl("delta_rule_backward", slowwave::delta_rule_backward);
  library.impl("delta_mix", slowwave::delta_mix);
  library.impl("delta_inputs", slowwave::delta_inputs);
  library.impl("delta_inputs_backward", slowwave::delta_inputs_backward);
  library.impl("read_token", slowwave::read_token);
  library.impl("attend", slowwave::attend);
  library.impl("read_window", slowwave::read_window);
  library.impl("log_sum", slowwave::log_sum);
  library.impl("linear", slowwave::linear);
  library.impl("int8_linear", slowwave::int8_linear);
  library.impl("int8_expand", slowwave::int8_expand);
  library.impl("rms_norm", slowwave::rms_norm);
  library.impl("rotate", slowwave::rotate);
  library.impl("swiglu", slowwave::swiglu);
}
