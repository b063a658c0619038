"""model/random.py: every bit is a function of seed, site, step and the example's place in the global batch."""

import numpy as np
import pytest
import tensorflow as tf

from model import random
from model.random import RandomState

BITS = [[3999730031, 2169458404], [4103895853, 2934055793]]  # of state(), site "site", shape [2, 2]
SHAPE = (5, 3)  # not a multiple of the four words that one counter value gives


def state(seed: int = 5, step: int = 3, first_example: int = 0) -> RandomState:
    return RandomState(seed, tf.constant(step, tf.int64), tf.constant(first_example, tf.int64))


def in_parts(draw, sizes: tuple[int, ...]) -> np.ndarray:
    starts = np.cumsum((0, *sizes[:-1]))
    return np.concatenate([draw(state(first_example=start), "site", [size, *SHAPE]) for start, size in zip(starts, sizes, strict=True)])


@pytest.mark.parametrize("draw", [random.random_bits, random.random_bits16, random.uniform])
@pytest.mark.parametrize("sizes", [(4, 4), (1, 2, 5)])
def test_a_slice_of_the_batch_draws_the_slice_of_the_noise(draw, sizes):
    np.testing.assert_array_equal(in_parts(draw, sizes), draw(state(), "site", [8, *SHAPE]).numpy())


def test_gumbel_noise_of_a_slice_differs_in_the_last_bit_of_the_logarithm_at_most():
    """TensorFlow's vectorized logarithm and the one for what is left over at the end of an array round differently."""
    whole = random.gumbel(state(), "site", [8, *SHAPE]).numpy()
    np.testing.assert_allclose(in_parts(random.gumbel, (1, 2, 5)), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("draw", [random.random_bits, random.random_bits16])
def test_seed_site_step_and_example_all_change_the_bits(draw):
    def bits(site: str = "site", **changes: int) -> np.ndarray:
        return draw(state(**changes), site, [2, 64]).numpy()

    drawn = [bits(), bits(seed=6), bits(site="other"), bits(step=4), bits(step=2**33), bits(first_example=2)]
    flat = np.stack(drawn).reshape(-1, 64)
    assert len({row.tobytes() for row in flat}) == 12
    np.testing.assert_array_equal(bits(), bits())
    equal = np.mean(flat[:, None] == flat[None]) - 1 / 12  # the diagonal is equal to itself
    assert equal < 0.01


def test_no_two_words_of_a_batch_share_their_counter():
    bits = random.random_bits(state(), "site", [64, 37]).numpy()
    assert len(np.unique(bits)) == bits.size  # of 2368 words, two would be equal by chance in 1 of 1500 seeds


@pytest.mark.parametrize("draw", [random.random_bits, random.random_bits16])
def test_the_same_bits_under_xla_and_without_a_static_batch_size(draw):
    expected = draw(state(first_example=2), "site", [6, *SHAPE]).numpy()

    def function(step: tf.Tensor, first_example: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        return draw(RandomState(5, step, first_example), "site", [tf.shape(rows)[0], *SHAPE])

    arguments = (tf.constant(3, tf.int64), tf.constant(2, tf.int64))
    compiled = tf.function(function, jit_compile=True, autograph=False)
    np.testing.assert_array_equal(compiled(*arguments, tf.zeros([6])), expected)
    scalar, rows = tf.TensorSpec([], tf.int64), tf.TensorSpec([None])
    dynamic = tf.function(function, input_signature=[scalar, scalar, rows], autograph=False)
    np.testing.assert_array_equal(dynamic(*arguments, tf.zeros([6])), expected)


def test_the_bits_stay_what_they_are():
    """A change here would make every resumed run differ from the one it goes on with."""
    assert random.random_bits(state(), "site", [2, 2]).numpy().tolist() == BITS
    assert random.random_bits16(state(), "site", [1, 2]).numpy().tolist() == [[BITS[0][0] % 2**16, BITS[0][0] // 2**16]]


def test_every_bit_is_set_half_the_time():
    words = random.random_bits(state(), "site", [64, 256]).numpy()
    shares = np.unpackbits(words.view(np.uint8).reshape(-1, 4), axis=1).mean(0)
    assert shares.shape == (32,)
    np.testing.assert_allclose(shares, 0.5, atol=4 * 0.5 / 128)  # four standard deviations of 16384 coins


def test_uniform_has_the_moments_of_the_uniform_distribution():
    values = random.uniform(state(), "site", [64, 1024]).numpy().astype(np.float64)
    assert values.min() > 0.0 and values.max() < 1.0
    assert abs(values.mean() - 1 / 2) < 4 * np.sqrt(1 / 12 / values.size)
    assert abs(values.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / values.size)
    counts = np.histogram(values, 16, (0, 1))[0]
    assert ((counts - 4096) ** 2 / 4096).sum() < 37.7  # chi-square with 15 degrees of freedom: 1 in 1000


@pytest.mark.parametrize("word, value", [(0, 2.0**-24), (2**32 - 1, 1.0 - 2.0**-24)])
def test_the_ends_of_the_interval_are_never_reached(monkeypatch, word, value):
    monkeypatch.setattr(random, "random_bits", lambda *arguments: tf.constant([[word]], tf.uint32))
    assert random.uniform(state(), "site", [1, 1]).numpy().item() == value
    assert np.isfinite(random.gumbel(state(), "site", [1, 1]).numpy()).all()


def test_gumbel_has_the_moments_of_the_gumbel_distribution():
    values = random.gumbel(state(), "site", [64, 1024]).numpy().astype(np.float64)
    assert abs(values.mean() - np.euler_gamma) < 4 * np.sqrt(np.pi**2 / 6 / values.size)
    assert abs(values.var() - np.pi**2 / 6) < 0.04


def test_the_largest_of_logits_plus_gumbel_noise_is_a_sample_from_their_softmax():
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    noise = random.gumbel(state(), "site", [16384, 4]).numpy()
    counts = np.bincount(np.argmax(np.log(probabilities) + noise, -1), minlength=4)
    expected = probabilities * 16384
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # chi-square with 3 degrees of freedom: 1 in 1000
