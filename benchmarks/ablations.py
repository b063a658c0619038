"""What each optimisation of the pre-training step is worth: the step without it against the step as it is, in turns.

    python benchmarks/ablations.py --output_dir=work/ablations

Flags as for benchmarks/pretraining_step.py. Every variant computes the same up to rounding and random draws. Writes ablations.json, and
prints a table.
"""

import contextlib
import json
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from absl import flags

from benchmarks import contest
from benchmarks.pretraining_step import make_config, our_steps
from configure_pretraining import PretrainingConfig
from model import command, hparams, layers, modeling, optimization
from model.command import write_json
from model.layers import Activations, Bits
from model.random import RandomState, Size, gumbel, random_bits
from pretrain import pretrain_helpers, pretraining_model

AS_IT_IS = "as it is"
_SCRIPT_FLAGS = ("model_name", "data_dir", "precision", "jit_compile")
_GROUP = 3  # variants that are raced at a time, for the sake of memory


def gelu_by_autodiff() -> None:
    def bias_gelu(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.nn.gelu(tf.cast(x, tf.float32) + bias), x.dtype)

    layers.bias_gelu = pretraining_model.bias_gelu = bias_gelu


def layer_norm_by_autodiff() -> None:
    def residual_layer_norm(x: tf.Tensor, bias: tf.Tensor, residual: tf.Tensor, norm: Any, bits: Bits, rate: float) -> Activations:
        z = layers.apply_dropout(tf.cast(x, tf.float32) + bias, bits, rate) + residual
        mean, variance = tf.nn.moments(z, -1, keepdims=True)
        outputs = (z - mean) * tf.math.rsqrt(variance + layers.LAYER_NORM_EPSILON) * norm.gamma + norm.beta
        return Activations(outputs, tf.cast(outputs, x.dtype))

    modeling.residual_layer_norm = residual_layer_norm


def attention_by_autodiff() -> None:
    def attention_probabilities(scores: tf.Tensor, adder: tf.Tensor, scale: float, bits: Bits, rate: float) -> tf.Tensor:
        probabilities = tf.nn.softmax(tf.cast(scores, tf.float32) * scale + adder)
        return tf.cast(layers.apply_dropout(probabilities, bits, rate), scores.dtype)

    modeling.attention_probabilities = attention_probabilities


def cross_entropy_by_autodiff() -> None:
    def cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(targets, tf.cast(logits, tf.float32))

    pretraining_model.cross_entropy = cross_entropy


def column_sums_by_xla() -> None:
    layers.sum_to_last = tf.function(  # type: ignore[assignment]
        lambda x: tf.reduce_sum(tf.cast(x, tf.float32), list(range(x.shape.rank - 1))), jit_compile=True, autograph=False
    )


def gumbel_noise() -> None:
    def sample_from_softmax(logits: tf.Tensor, random: RandomState, disallow: tf.Tensor | None = None) -> tf.Tensor:
        shape = [tf.shape(logits)[0], *logits.shape[1:]]
        return layers.argmax(tf.cast(logits, tf.float32) + gumbel(random, "generator/sample", shape))

    pretrain_helpers.sample_from_softmax = sample_from_softmax


def casts_apart() -> None:
    fused = layers.residual_layer_norm

    def residual_layer_norm(x: tf.Tensor, *others: Any) -> Activations:
        outputs = fused(tf.cast(x, tf.float32), *others).exact
        return Activations(outputs, tf.cast(outputs, x.dtype))

    modeling.residual_layer_norm = residual_layer_norm  # type: ignore[assignment]


def noise_of_32_bits() -> None:
    def dropout_bits(random: RandomState | None, site: str, rate: float, shape: Sequence[Size]) -> Bits:
        if random is None or rate == 0.0:
            return None
        return tf.cast(tf.bitwise.right_shift(random_bits(random, site, shape), tf.constant(16, tf.uint32)), tf.uint16)

    layers.dropout_bits = modeling.dropout_bits = dropout_bits


def three_products() -> None:
    def attend(self: modeling.TransformerLayer, x: tf.Tensor, adder: tf.Tensor, random: RandomState | None, site: str) -> tf.Tensor:
        heads, size, length = self.config.num_attention_heads, self.config.head_size, layers.size_of(x, 1)

        def project(layer: layers.Dense) -> tf.Tensor:
            flat = modeling.matmul_bias(x, tf.cast(layer.kernel, self.dtype), tf.convert_to_tensor(layer.bias))
            return tf.transpose(tf.reshape(flat, [-1, length, heads, size]), [0, 2, 1, 3])

        query, key, value = map(project, (self.query, self.key, self.value))
        rate = self.config.attention_probs_dropout_prob
        bits = layers.dropout_bits(random, f"{site}/attention/self", rate, (tf.shape(x)[0], heads, length, length))
        scores = tf.matmul(query, key, transpose_b=True)
        probabilities = layers.attention_probabilities(scores, adder, 1.0 / math.sqrt(size), bits, rate)
        return tf.reshape(tf.transpose(tf.matmul(probabilities, value), [0, 2, 1, 3]), [-1, length, heads * size])

    modeling.TransformerLayer.attend = attend  # type: ignore[method-assign]


def adam_by_tensorflow() -> None:
    def apply_gradients(self: Any, gradients: Sequence[tf.Tensor], step: tf.Tensor, apply: Any = True) -> tf.Tensor:
        norm = tf.linalg.global_norm(gradients)
        scale = tf.minimum(1.0, self.clip_norm / tf.maximum(norm, self.clip_norm))
        rate = self.learning_rate(step)
        for variable, gradient, m, v, decay in zip(self.variables_, gradients, self.m, self.v, self._decay, strict=True):
            if decay:
                variable.assign_sub(rate * decay * variable)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=m.handle,
                v=v.handle,
                beta1_power=0.0,
                beta2_power=0.0,
                lr=rate,
                beta1=optimization.BETA_1,
                beta2=optimization.BETA_2,
                epsilon=self.epsilon,
                grad=gradient * scale,
            )
        return norm

    optimization.AdamWeightDecayOptimizer.apply_gradients = apply_gradients  # type: ignore[method-assign]


# name -> (what to change in the code, settings to change)
VARIANTS: dict[str, tuple[Callable[[], None] | None, dict[str, Any]]] = {
    AS_IT_IS: (None, {}),
    "products in float32": (None, {"precision": "float32"}),
    "no function of the network compiled by XLA": (None, {}),
    "the whole step compiled by XLA": (None, {"jit_compile": True}),
    "GELU by automatic differentiation": (gelu_by_autodiff, {}),
    "LayerNorm by automatic differentiation": (layer_norm_by_autodiff, {}),
    "attention by automatic differentiation": (attention_by_autodiff, {}),
    "cross-entropy by automatic differentiation": (cross_entropy_by_autodiff, {}),
    "column sums by XLA": (column_sums_by_xla, {}),
    "Gumbel noise for every logit": (gumbel_noise, {}),
    "casts apart from LayerNorm": (casts_apart, {}),
    "dropout from 32 random bits": (noise_of_32_bits, {}),
    "three products for query and key and value": (three_products, {}),
    "TensorFlow's Adam": (adam_by_tensorflow, {}),
    "no dropout at all": (None, {"model_hparam_overrides": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}}),
}


def make_rival(spec: dict[str, Any]) -> Callable[[int], Any]:
    change, settings = VARIANTS[spec["variant"]]
    if change:
        change()
    is_plain = spec["variant"] == "no function of the network compiled by XLA"
    repeat = our_steps(make_config({"precision": "bfloat16", **spec["settings"], **settings}))
    with layers.plain_operations() if is_plain else contextlib.nullcontext():
        repeat(1)  # traced here
    return repeat


def main() -> None:
    if flags.FLAGS.rival:
        contest.answer(make_rival(json.loads(flags.FLAGS.rival)))
        return
    output_dir = command.required("output_dir")
    settings = hparams.collect(PretrainingConfig, flags.FLAGS.hparams, skip=_SCRIPT_FLAGS)
    variants = [name for name in contest.chosen("variants", VARIANTS) if name != AS_IT_IS]
    results: list[dict[str, Any]] = []
    for start in range(0, len(variants), _GROUP):
        names = [AS_IT_IS, *variants[start : start + _GROUP]]
        specs = {name: {"variant": name, "settings": settings} for name in names}
        base, *rows = contest.race(__file__, specs, flags.FLAGS.rounds, flags.FLAGS.steps, warm_up=2)
        for row in rows:
            results.append({**row, "slower": row["seconds"] / base["seconds"], "more_cpu": row["cpu_seconds"] / base["cpu_seconds"]})
    lines = [(row["name"], f"{row['slower']:.2f}", f"{row['more_cpu']:.2f}") for row in results]
    print(contest.table([("without it", "times the seconds", "times the CPU seconds"), *lines]))
    os.makedirs(output_dir, exist_ok=True)
    write_json(os.path.join(output_dir, "ablations.json"), {"settings": settings, "variants": results})


def define_flags() -> None:
    flags.DEFINE_list("variants", list(VARIANTS), "which to time")
    flags.DEFINE_integer("steps", 2, "steps in each round", lower_bound=1)
    contest.define_flags(PretrainingConfig, _SCRIPT_FLAGS, rounds=7)


if __name__ == "__main__":
    define_flags()
    command.run(main)
