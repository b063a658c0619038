"""The few operations a transformer spends its time in, and their variables.

Matrix products run in the compute type (float32, bfloat16 or float16); everything between them is one fused element-wise
function with its own gradient, takes and gives the compute type where its neighbour is a matrix product, and works in float32
inside. On CPUs XLA compiles these functions one by one, because its own matrix products are slower there than oneDNN's; inside
a step compiled whole (GPU, TPU) they are simply inlined.

Dimension key as in model/modeling.py.
"""

import contextlib
import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from model.random import RandomState, Size, random_bits16

LAYER_NORM_EPSILON = 1e-12  # as in google-research/electra
Initializer = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
Bits: TypeAlias = tf.Tensor | None
_SAMPLING_BLOCK = 256
_is_plain = _is_tflite = False


def _fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: `function` is compiled by XLA, or inside `plain_operations` simply called."""
    # Two, as TensorFlow would take a trace for any shape for one that is known too, and what comes after would not know its shape.
    for_known_shapes, for_any_shape = (tf.function(function, jit_compile=True, autograph=False) for _ in range(2))

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        if _is_plain:
            return function(*arguments)
        is_known = all(each.shape.is_fully_defined() for each in tf.nest.flatten(arguments) if tf.is_tensor(each))
        return (for_known_shapes if is_known else for_any_shape)(*arguments)

    return call


@contextlib.contextmanager
def plain_operations(for_tflite: bool = False) -> Iterator[None]:
    """Within it, what is traced holds TensorFlow's plain operations alone, which other programs can read."""
    global _is_plain, _is_tflite
    _is_plain, _is_tflite = True, for_tflite
    try:
        yield
    finally:
        _is_plain = _is_tflite = False


def truncated_normal(stddev: float) -> Initializer:
    """Normal with mean 0, redrawn beyond two standard deviations (tf.truncated_normal_initializer)."""

    def initialize(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        values = generator.standard_normal(shape)
        while (outside := np.abs(values) > 2).any():
            values[outside] = generator.standard_normal(int(outside.sum()))
        return values * stddev

    return initialize


def glorot_uniform(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)), what tf.layers.dense starts a kernel from."""
    limit = math.sqrt(6.0 / (shape[0] + shape[1]))
    return generator.uniform(-limit, limit, shape)


def zeros(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape)


def ones(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape)


def create_variable(name: str, shape: tuple[int, ...], initializer: Initializer, seed: int) -> tf.Variable:
    """A float32 variable under its checkpoint name, whose start value depends on (seed, name) alone, not on creation order."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "little")
    generator = np.random.Generator(np.random.Philox(key=key))
    return tf.Variable(initializer(generator, shape).astype(np.float32), name=name)


def variable_name(variable: tf.Variable) -> str:
    """The checkpoint name of `variable`: its own without the ':0' that TensorFlow appends."""
    return variable.name.partition(":")[0]


class Dense(tf.Module):
    """y = x kernel + bias. Variables `scope`/kernel [inputs, outputs] and `scope`/bias [outputs]."""

    def __init__(self, scope: str, inputs: int, outputs: int, initializer: Initializer, seed: int, dtype: tf.DType = tf.float32):
        super().__init__()
        self.dtype = dtype
        self._frozen_kernel: tf.Tensor | None = None
        self.kernel = create_variable(f"{scope}/kernel", (inputs, outputs), initializer, seed)
        self.bias = create_variable(f"{scope}/bias", (outputs,), zeros, seed)

    def matmul(self, x: tf.Tensor) -> tf.Tensor:
        """x [..., inputs] -> x kernel [..., outputs] in the compute type, for a fused function that adds the bias itself."""
        return matmul(x, self.kernel if self._frozen_kernel is None else self._frozen_kernel, self.dtype)

    def gelu(self, x: tf.Tensor) -> tf.Tensor:
        """x [..., inputs] -> GELU(x kernel + bias) [..., outputs] in the compute type."""
        if self._frozen_kernel is None:
            return bias_gelu(self.matmul(x), tf.convert_to_tensor(self.bias))
        return matmul_gelu(tf.cast(x, self.dtype), self._frozen_kernel, tf.cast(self.bias, self.dtype))

    def freeze(self) -> None:
        """Keeps the kernel in the compute type: for a model on a CPU whose weights will not change any more, before it is traced."""
        self._frozen_kernel = tf.cast(self.kernel, self.dtype)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """x [..., inputs] -> float32 [..., outputs]."""
        return tf.cast(self.matmul(x), tf.float32) + self.bias


class LayerNorm(tf.Module):
    """Variables `scope`/gamma and `scope`/beta [size]; used through `layer_norm` and `residual_layer_norm`."""

    def __init__(self, scope: str, size: int, seed: int):
        super().__init__()
        self.beta = create_variable(f"{scope}/beta", (size,), zeros, seed)
        self.gamma = create_variable(f"{scope}/gamma", (size,), ones, seed)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """x [..., size] float32 -> float32 [..., size]."""
        return layer_norm(x, tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta))


def matmul(x: tf.Tensor, kernel: tf.Tensor, dtype: tf.DType, transpose_kernel: bool = False) -> tf.Tensor:
    """x [..., M] times kernel [M, N] (or the transpose of [N, M]) -> [..., N] in `dtype`, as one two-dimensional product."""
    flat = tf.reshape(tf.cast(x, dtype), [-1, x.shape[-1]])
    product = tf.matmul(flat, tf.cast(kernel, dtype), transpose_b=transpose_kernel)
    return tf.reshape(product, [-1, *(size_of(x, axis) for axis in range(1, x.shape.rank - 1)), product.shape[1]])


def size_of(x: tf.Tensor, axis: int) -> Size:
    """The size of one axis: a number where it is known, else a scalar tensor."""
    size = x.shape[axis]
    return tf.shape(x)[axis] if size is None else size


def sizes_of(x: tf.Tensor) -> list[Size]:
    return [size_of(x, axis) for axis in range(x.shape.rank)]


# --- dropout -----------------------------------------------------------------------------------------------------------------


def dropout_bits(random: RandomState | None, site: str, rate: float, shape: Sequence[Size]) -> Bits:
    """uint16 noise [B, ...] for one dropout, or None where nothing is dropped (evaluation, or rate 0)."""
    return None if random is None or rate == 0.0 else random_bits16(random, site, shape)


def apply_dropout(x: tf.Tensor, bits: Bits, rate: float) -> tf.Tensor:
    """x with elements dropped where bits < rate * 2^16 and the rest scaled up. Its own transpose: also maps gradients."""
    if bits is None:
        return x
    threshold = round(rate * 2**16)
    kept = tf.cast(bits, tf.int32) >= threshold
    return tf.where(kept, x * (1.0 / (1.0 - threshold * 2.0**-16)), tf.zeros_like(x))


def dropout(x: tf.Tensor, rate: float, random: RandomState | None, site: str) -> tf.Tensor:
    """Plain dropout of float32 x [B, ...]; the noise is 16 bits wide, so the rate is rounded to a multiple of 2^-16."""
    return apply_dropout(x, dropout_bits(random, site, rate, sizes_of(x)), rate)


# --- fused element-wise functions, each with its gradient ---------------------------------------------------------------------


@tf.custom_gradient
def bias_gelu(x: tf.Tensor, bias: tf.Tensor) -> Any:
    """GELU(x + bias) with the exact Gaussian error function (Hendrycks and Gimpel 2016). x [..., N]; returns x's type."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        change = _bias_gelu_gradient(x, bias, upstream)
        return change, sum_to_last(change)

    return _bias_gelu(x, bias), gradient


@_fused
def _bias_gelu(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    z = tf.cast(x, tf.float32) + bias
    activated = tf.nn.gelu(z) if _is_tflite else z * _gaussian_cdf(z)  # there the first is one operation, and erf is none
    return tf.cast(activated, x.dtype)


@_fused
def _bias_gelu_gradient(x: tf.Tensor, bias: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    z = tf.cast(x, tf.float32) + bias
    density = tf.exp(-0.5 * z * z) * (1.0 / math.sqrt(2.0 * math.pi))
    return tf.cast(tf.cast(upstream, tf.float32) * (_gaussian_cdf(z) + z * density), x.dtype)


def matmul_gelu(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """GELU(x kernel + bias): x [..., M], kernel [M, N] and bias [N] of one type, in which [..., N] comes back. For prediction on CPUs.

    There TensorFlow makes one operation of oneDNN's of just these in float32 and bfloat16, which computes in float32 inside. Their gradient
    would be slow.
    """
    z = tf.nn.bias_add(tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel), bias)
    activated = 0.5 * z * (1.0 + tf.math.erf(z * tf.constant(math.sqrt(0.5), z.dtype)))
    return tf.reshape(activated, [*sizes_of(x)[:-1], kernel.shape[1]])


def _gaussian_cdf(z: tf.Tensor) -> tf.Tensor:
    return 0.5 * (1.0 + tf.math.erf(z * math.sqrt(0.5)))


def sum_to_last(x: tf.Tensor) -> tf.Tensor:
    """Sums over all axes but the last, added up in float32; float32 [N]. Not in a fused function: XLA is several times slower on CPUs."""
    if x.dtype != tf.bfloat16:
        return tf.cast(tf.raw_ops.BiasAddGrad(out_backprop=x), tf.float32)
    # On CPUs that one adds bfloat16 numbers up in bfloat16, where 256 + 1 is 256; a matrix product adds up in float32.
    flat = tf.reshape(x, [-1, x.shape[-1]])
    return tf.cast(tf.matmul(tf.ones([1, tf.shape(flat)[0]], x.dtype), flat), tf.float32)[0]


@tf.custom_gradient
def bias_add(x: tf.Tensor, bias: tf.Tensor) -> Any:
    """x [..., N] + bias float32 [N] in x's type, which a matrix product before it takes in; the gradient of the bias is float32."""
    return tf.nn.bias_add(x, tf.cast(bias, x.dtype)), lambda upstream: (upstream, sum_to_last(upstream))


@tf.custom_gradient
def layer_norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
    """Layer normalization over the last axis (Ba et al. 2016). x [..., N] float32, gamma and beta [N]; returns float32 [..., N]."""
    outputs, normalized, inverse_stddev = _layer_norm(x, gamma, beta)

    def gradient(upstream: tf.Tensor) -> Any:
        change, gamma_part = _layer_norm_gradient(upstream, normalized, inverse_stddev, gamma)
        return change, sum_to_last(gamma_part), sum_to_last(upstream)

    return outputs, gradient


class Activations(NamedTuple):
    """One tensor in the two forms that a layer reads it in. Made together, they save a pass over memory, and their gradients another."""

    exact: tf.Tensor  # float32: for residual connections and whatever is no matrix product
    rounded: tf.Tensor  # in the compute type: for matrix products; the same tensor where that is float32


def residual_layer_norm(x: tf.Tensor, bias: tf.Tensor, residual: tf.Tensor, norm: "LayerNorm", bits: Bits, rate: float) -> Activations:
    """LayerNorm(dropout(x + bias) + residual): how every transformer sub-layer ends.

    x [..., N] in the compute type, bias [N] and residual [..., N] float32; returns [..., N].
    """
    is_exact = x.dtype == tf.float32

    @tf.custom_gradient
    def function(x: tf.Tensor, bias: tf.Tensor, residual: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
        outputs, normalized, inverse_stddev = _residual_layer_norm(x, bias, residual, gamma, beta, bits, rate)

        def gradient(*upstreams: tf.Tensor) -> Any:
            change, residual_change, gamma_part, *total = _residual_layer_norm_gradient(
                upstreams, normalized, inverse_stddev, gamma, bits, rate, x.dtype
            )
            beta_part = total[0] if total else upstreams[0]
            return change, sum_to_last(change), residual_change, sum_to_last(gamma_part), sum_to_last(beta_part)

        return outputs[0] if is_exact else tuple(outputs), gradient

    outputs = function(x, *(tf.convert_to_tensor(value) for value in (bias, residual, norm.gamma, norm.beta)))
    return Activations(outputs, outputs) if is_exact else Activations(*outputs)


def _normalize(z: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    centered = z - tf.reduce_mean(z, -1, keepdims=True)
    inverse_stddev = tf.math.rsqrt(tf.reduce_mean(centered * centered, -1, keepdims=True) + LAYER_NORM_EPSILON)
    normalized = centered * inverse_stddev
    return normalized * gamma + beta, normalized, inverse_stddev


def _normalize_gradient(upstream: tf.Tensor, normalized: tf.Tensor, inverse_stddev: tf.Tensor, gamma: tf.Tensor) -> tf.Tensor:
    scaled = upstream * gamma
    mean = tf.reduce_mean(scaled, -1, keepdims=True)
    projection = tf.reduce_mean(scaled * normalized, -1, keepdims=True)
    return inverse_stddev * (scaled - mean - normalized * projection)


@_fused
def _layer_norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
    return _normalize(x, gamma, beta)


@_fused
def _layer_norm_gradient(upstream: tf.Tensor, normalized: tf.Tensor, inverse_stddev: tf.Tensor, gamma: tf.Tensor) -> Any:
    return _normalize_gradient(upstream, normalized, inverse_stddev, gamma), upstream * normalized


@_fused
def _residual_layer_norm(
    x: tf.Tensor, bias: tf.Tensor, residual: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, bits: Bits, rate: float
) -> Any:
    outputs, *statistics = _normalize(apply_dropout(tf.cast(x, tf.float32) + bias, bits, rate) + residual, gamma, beta)
    return [outputs] if x.dtype == tf.float32 else [outputs, tf.cast(outputs, x.dtype)], *statistics


@_fused
def _residual_layer_norm_gradient(
    upstreams: Sequence[tf.Tensor],
    normalized: tf.Tensor,
    inverse_stddev: tf.Tensor,
    gamma: tf.Tensor,
    bits: Bits,
    rate: float,
    dtype: tf.DType,
) -> Any:
    """Ends with the sum of the upstream gradients, where there are two of them."""
    upstream = sum(tf.cast(each, tf.float32) for each in upstreams)
    residual_change = _normalize_gradient(upstream, normalized, inverse_stddev, gamma)
    change = tf.cast(apply_dropout(residual_change, bits, rate), dtype)
    return change, residual_change, upstream * normalized, *([upstream] if len(upstreams) > 1 else [])


def attention_probabilities(scores: tf.Tensor, adder: tf.Tensor, scale: float, bits: Bits, rate: float) -> tf.Tensor:
    """dropout(softmax(scale * scores + adder)) in float32 inside; scores [B, H, L, L], adder [B, 1, 1 or L, L]; returns scores' type."""

    @tf.custom_gradient
    def function(scores: tf.Tensor) -> Any:
        outputs, probabilities = _attention_probabilities(scores, adder, scale, bits, rate)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return _attention_gradient(upstream, probabilities, scale, bits, rate, scores.dtype)

        return outputs, gradient

    return function(scores)


@_fused
def _attention_probabilities(scores: tf.Tensor, adder: tf.Tensor, scale: float, bits: Bits, rate: float) -> Any:
    probabilities = tf.nn.softmax(tf.cast(scores, tf.float32) * scale + adder)
    return tf.cast(apply_dropout(probabilities, bits, rate), scores.dtype), probabilities


@_fused
def _attention_gradient(upstream: tf.Tensor, probabilities: tf.Tensor, scale: float, bits: Bits, rate: float, dtype: tf.DType) -> tf.Tensor:
    change = apply_dropout(tf.cast(upstream, tf.float32), bits, rate)
    projection = tf.reduce_sum(change * probabilities, -1, keepdims=True)
    return tf.cast(probabilities * (change - projection) * scale, dtype)


@tf.custom_gradient
def cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> Any:
    """-log softmax(logits)[target], in float32 inside. logits [..., V], targets int32 [...]; returns float32 [...]."""
    losses, log_normalizer = _cross_entropy(logits, targets)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return _cross_entropy_gradient(upstream, logits, targets, log_normalizer), None

    return losses, gradient


@_fused
def _cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    values = tf.cast(logits, tf.float32)
    largest = tf.reduce_max(values, -1, keepdims=True)
    log_normalizer = largest + tf.math.log(tf.reduce_sum(tf.exp(values - largest), -1, keepdims=True))
    chosen = tf.gather(values, targets[..., None], batch_dims=targets.shape.rank)
    return (log_normalizer - chosen)[..., 0], log_normalizer


@_fused
def _cross_entropy_gradient(upstream: tf.Tensor, logits: tf.Tensor, targets: tf.Tensor, log_normalizer: tf.Tensor) -> tf.Tensor:
    probabilities = tf.exp(tf.cast(logits, tf.float32) - log_normalizer)
    is_target = tf.range(logits.shape[-1], dtype=tf.int32) == targets[..., None]
    return tf.cast(upstream[..., None] * (probabilities - tf.cast(is_target, tf.float32)), logits.dtype)


@_fused
def argmax(values: tf.Tensor) -> tf.Tensor:
    """The first index of the largest value. [..., V] -> int32 [...]. Two plain reductions, which XLA makes loops of SIMD
    instructions of; its own arg-max on a CPU is several times slower."""
    values = tf.cast(values, tf.float32)
    last = values.shape[-1] - 1  # also the answer where nothing equals the largest value, which then is NaN: an index it must be
    largest = tf.reduce_max(values, -1, keepdims=True)
    return tf.reduce_min(tf.where(values == largest, tf.range(last + 1, dtype=tf.int32), last), -1)


@_fused
def sample(logits: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """An index drawn from softmax(logits): the first whose cumulative probability is beyond `uniform`.

    logits [N, V] in any float type, uniform float32 [N] in (0, 1); returns int32 [N]. The cumulative sum is first taken over blocks and
    then within one of them, which is several times faster than noise for every logit (Gumbel-max) and rounds less than one long sum.
    """
    size = logits.shape[-1]
    block = min(_SAMPLING_BLOCK, size)
    whole = size // block * block
    values = tf.cast(logits, tf.float32)
    largest = tf.reduce_max(values, -1, keepdims=True)
    weights = tf.exp(values - largest)
    sums = tf.reduce_sum(tf.reshape(weights[:, :whole], [-1, whole // block, block]), -1)
    sums = tf.concat([sums, tf.reduce_sum(weights[:, whole:], -1, keepdims=True)], -1)  # [N, blocks], the last may be a short one
    totals = tf.cumsum(sums, -1)
    # Strictly below the sum of all weights, however it is rounded: so there is a block, and in it a weight that is not 0.
    target = uniform[:, None] * totals[:, -1:] * (1.0 - 2.0**-22)
    is_before = totals <= target
    first = tf.reduce_sum(tf.cast(is_before, tf.int32), -1, keepdims=True) * block
    indices = first + tf.range(block)  # [N, block]
    inside = tf.exp(tf.gather(values, tf.minimum(indices, size - 1), batch_dims=1) - largest)
    inside = tf.where(indices < size, inside, 0.0)
    rest = target - tf.reduce_sum(tf.where(is_before, sums, 0.0), -1, keepdims=True)
    is_beyond = (tf.cumsum(inside, -1) > rest) & (inside > 0.0)
    # Where rounding leaves nothing beyond, the last weight that is not 0 is meant; where nothing is a number, any index.
    last = tf.reduce_max(tf.where(inside > 0.0, indices, first), -1)
    chosen = tf.reduce_min(tf.where(is_beyond, indices, size), -1)
    return tf.minimum(tf.where(chosen < size, chosen, last), size - 1)
