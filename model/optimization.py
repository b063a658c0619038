"""Adam with decoupled weight decay, its learning-rate schedule, and gradient clipping, as google-research/electra trains with."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from model.command import UserError
from model.layers import variable_name

BETA_1, BETA_2 = 0.9, 0.999
NO_DECAY = ("LayerNorm", "layer_norm", "bias")  # parts of names that weight decay leaves alone


def learning_rate_at(step: tf.Tensor, learning_rate: float, num_train_steps: int, num_warmup_steps: int, power: float = 1.0) -> tf.Tensor:
    """The learning rate of `step` (counted from 0), float32 [].

    As in google-research/electra: polynomial decay to 0 over num_train_steps, times min(1, step / warm-up), so the decay runs
    during the warm-up and step 0 has rate 0. Unlike there, a warm-up of 0 steps is no division by zero.
    """
    progress = tf.minimum(tf.cast(step, tf.float32) / float(num_train_steps), 1.0)
    rate = learning_rate * tf.pow(1.0 - progress, power)
    if num_warmup_steps > 0:
        rate *= tf.minimum(1.0, tf.cast(step, tf.float32) / float(num_warmup_steps))
    return rate


class AdamUpdate(NamedTuple):
    """New values after one step, each of the parameter's shape."""

    parameter: tf.Tensor
    m: tf.Tensor
    v: tf.Tensor


def adam_update(
    parameter: tf.Tensor,
    gradient: tf.Tensor,
    m: tf.Tensor,
    v: tf.Tensor,
    learning_rate: tf.Tensor,
    weight_decay: float,
    epsilon: float,
    correction_1: tf.Tensor | float = 1.0,
    correction_2: tf.Tensor | float = 1.0,
) -> AdamUpdate:
    """Adam (Kingma and Ba 2015) with decoupled decay (Loshchilov and Hutter 2019); epsilon outside the root.

    `correction_1`, `correction_2` are 1 - beta^t where the bias of the moments is corrected, and 1 as in google-research/electra.
    """
    m = BETA_1 * m + (1.0 - BETA_1) * gradient
    v = BETA_2 * v + (1.0 - BETA_2) * gradient * gradient
    update = (m / correction_1) / (tf.sqrt(v / correction_2) + epsilon) + weight_decay * parameter
    return AdamUpdate(parameter - learning_rate * update, m, v)


@tf.function(jit_compile=True, autograph=False)
def _guarded_adam_update(
    parameter: tf.Tensor,
    gradient: tf.Tensor,
    m: tf.Tensor,
    v: tf.Tensor,
    learning_rate: tf.Tensor,
    weight_decay: float,
    epsilon: float,
    corrections: tuple[tf.Tensor, tf.Tensor],
    scale: tf.Tensor,
    apply: tf.Tensor,
) -> AdamUpdate:
    """adam_update of gradient * scale where `apply` holds, and the old values where it does not."""
    new = adam_update(parameter, gradient * scale, m, v, learning_rate, weight_decay, epsilon, *corrections)
    return AdamUpdate(*(tf.where(apply, after, before) for after, before in zip(new, (parameter, m, v), strict=True)))


class AdamWeightDecayOptimizer(tf.Module):
    """The optimizer's settings and its two slots per variable, `<name>/adam_m` and `<name>/adam_v`, as the original names them.

    `layer_factors` multiplies the learning rate of single variables (see `layerwise_factors`).
    """

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        learning_rate: float,
        num_train_steps: int,
        num_warmup_steps: int = 0,
        lr_decay_power: float = 1.0,
        weight_decay_rate: float = 0.01,
        epsilon: float = 1e-6,
        clip_norm: float = 1.0,
        bias_correction: bool = False,
        layer_factors: Mapping[str, float] | None = None,
    ):
        super().__init__()
        if num_train_steps < 1:
            raise UserError(f"num_train_steps must be at least 1, got {num_train_steps} (--num_train_steps)")
        self.variables_, self.clip_norm, self.epsilon, self.bias_correction = list(variables), clip_norm, epsilon, bias_correction
        self._schedule = (learning_rate, num_train_steps, num_warmup_steps, lr_decay_power)
        self._names = [variable_name(variable) for variable in variables]
        self._decay = [0.0 if any(part in name for part in NO_DECAY) else weight_decay_rate for name in self._names]
        self._factors = [(layer_factors or {}).get(name, 1.0) for name in self._names]
        self.m = [_slot(variable, "adam_m") for variable in variables]
        self.v = [_slot(variable, "adam_v") for variable in variables]

    @property
    def slots(self) -> list[tf.Variable]:
        return [*self.m, *self.v]

    def learning_rate(self, step: tf.Tensor) -> tf.Tensor:
        return learning_rate_at(step, *self._schedule)

    def apply_gradients(self, gradients: Sequence[tf.Tensor], step: tf.Tensor, apply: tf.Tensor | bool = True) -> tf.Tensor:
        """Clips `gradients` by their global norm and updates every variable; returns that norm, float32 [].

        Call in a replica context with gradients already summed over the replicas: each replica then makes the same update to
        its own copy. `step` counts applied updates from 0. `apply` False (a float16 overflow) leaves everything as it is.
        """
        norm = tf.linalg.global_norm(gradients)
        scale = tf.minimum(1.0, self.clip_norm / tf.maximum(norm, self.clip_norm)) if self.clip_norm else tf.ones([])
        rate, count = self.learning_rate(step), tf.cast(step, tf.float32) + 1.0
        corrections = (1.0 - BETA_1**count, 1.0 - BETA_2**count) if self.bias_correction else (tf.ones([]), tf.ones([]))
        columns = zip(self.variables_, gradients, self.m, self.v, self._factors, self._decay, strict=True)
        for variable, gradient, m, v, factor, decay in columns:
            values = [tf.convert_to_tensor(value) for value in (variable, gradient, m, v)]
            new = _guarded_adam_update(*values, rate * factor, decay, self.epsilon, corrections, scale, tf.convert_to_tensor(apply))
            variable.assign(new.parameter)
            m.assign(new.m)
            v.assign(new.v)
        return norm


def _slot(variable: tf.Variable, name: str) -> tf.Variable:
    return tf.Variable(tf.zeros(variable.shape), name=f"{variable_name(variable)}/{name}", trainable=False)


def layerwise_factors(names: Sequence[str], decay: float, num_layers: int, off_by_one: bool = False) -> dict[str, float]:
    """Learning-rate factors decay^(depth below the task head), one per variable name.

    Embeddings lie at depth 0, encoder layer i at i + 1, the task head one above the top layer, with factor 1. `off_by_one`
    puts the head two above it, so that the top layer gets decay^2: as google-research/electra does (its issues 51 and 64).
    """
    head = num_layers + (2 if off_by_one else 1)
    return {name: decay ** (head - _depth(name, head)) for name in names}


def _depth(name: str, head: int) -> int:
    layer = re.search(r"/encoder/layer_(\d+)/", name)
    if layer:
        return int(layer[1]) + 1
    return 0 if re.search(r"/embeddings(_project)?/", name) else head
