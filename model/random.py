"""Randomness without state: every random bit is a function of (seed, site, step, position of the example in the global batch).

An example therefore sees the same dropout, masks and samples whether its batch is computed at once, over several replicas or
in accumulated parts, and a resumed run draws what the interrupted one would have drawn.
"""

import functools
import hashlib
import operator
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import tensorflow as tf

Size: TypeAlias = int | tf.Tensor  # a number where it is known when a step is traced, else an int32 []
_PHILOX = 1  # tf.random.Algorithm.PHILOX: the one counter-based generator that CPUs, GPUs and XLA all have
_WORDS_PER_BLOCK = 4  # Philox 4x32 makes four 32-bit words for each value of its counter


class RandomState(NamedTuple):
    """Where in the run a batch stands. `step`: int64 []. `first_example`: int64 [], the global-batch position of its first row."""

    seed: int
    step: tf.Tensor
    first_example: tf.Tensor


def random_bits(random: RandomState, site: str, shape: Sequence[Size]) -> tf.Tensor:
    """Uniform uint32 words of `shape` = [B, ...]; `site` names the place that draws, once per network pass.

    Example e owns the counter range [e * blocks, (e + 1) * blocks), so a slice of the batch draws the slice of the bits.
    """
    batch_size, *dimensions = shape
    words = _product(dimensions)
    blocks = -(-words // _WORDS_PER_BLOCK)
    key = hashlib.sha256(f"{random.seed}/{site}".encode()).digest()[:8]
    bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[batch_size, blocks * _WORDS_PER_BLOCK],
        key=tf.constant([int.from_bytes(key, "little")], tf.uint64),
        counter=tf.cast(tf.stack([random.first_example * tf.cast(blocks, tf.int64), random.step]), tf.uint64),
        alg=_PHILOX,
        dtype=tf.uint32,
    )
    return tf.reshape(bits[:, :words], [batch_size, *dimensions])


def _product(sizes: Sequence[Size]) -> Size:
    return functools.reduce(operator.mul, sizes, 1)


def random_bits16(random: RandomState, site: str, shape: Sequence[Size]) -> tf.Tensor:
    """Uniform uint16 words of `shape`: half the work of 32 bits, and enough for a dropout mask."""
    batch_size, *dimensions = shape
    size = _product(dimensions)
    pairs = tf.bitcast(random_bits(random, site, [batch_size, -(-size // 2)]), tf.uint16)  # [B, pairs, 2]
    return tf.reshape(tf.reshape(pairs, [batch_size, -1])[:, :size], [batch_size, *dimensions])


def uniform(random: RandomState, site: str, shape: Sequence[Size]) -> tf.Tensor:
    """float32 of `shape` = [B, ...] in (0, 1): odd multiples of 2^-24, so neither log(u) nor log(1 - u) is infinite."""
    high = tf.bitcast(tf.bitwise.right_shift(random_bits(random, site, shape), tf.constant(9, tf.uint32)), tf.int32)
    return (tf.cast(high, tf.float32) + 0.5) * 2.0**-23


def gumbel(random: RandomState, site: str, shape: Sequence[Size]) -> tf.Tensor:
    """Standard Gumbel noise, float32 of `shape` = [B, ...]: argmax(logits + noise) is a sample from softmax(logits)."""
    return -tf.math.log(-tf.math.log(uniform(random, site, shape)))
