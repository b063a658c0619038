"""model/layers.py: every fused function against the plain composition it stands for, in value and gradient."""

import math
import platform

import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from model import layers
from model.random import RandomState, uniform

RATE = 0.25  # a multiple of 2^-16, so that the noise realizes it exactly
TIGHT = {"rtol": 1e-5, "atol": 1e-5}  # float32 against float64
LOOSE = {"rtol": 2**-7, "atol": 2**-7}  # bfloat16 has 8 bits; results are rounded once on the way in and once on the way out


def random_values(*shapes: tuple[int, ...], seed: int = 0) -> list[tf.Tensor]:
    generator = np.random.default_rng(seed)
    return [tf.constant(generator.normal(0.0, 1.0, shape).astype(np.float32)) for shape in shapes]


def noise(shape: tuple[int, ...], site: str = "site") -> tf.Tensor:
    bits = layers.dropout_bits(RandomState(1, tf.constant(0, tf.int64), tf.constant(0, tf.int64)), site, RATE, shape)
    assert bits is not None and bits.dtype == tf.uint16
    return bits


def plain_dropout(x: tf.Tensor, bits: tf.Tensor | None) -> tf.Tensor:
    return x if bits is None else x * tf.cast(tf.cast(bits, tf.int32) >= 2**14, x.dtype) / (1.0 - RATE)


def plain_layer_norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    return (x - mean) / tf.sqrt(variance + 1e-12) * gamma + beta


def value_and_gradients(function, inputs: list[tf.Tensor], upstream: tf.Tensor) -> tuple[np.ndarray, list[np.ndarray]]:
    """The function's value and the gradients of sum(value * upstream), as float64."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
    gradients = tape.gradient(value, inputs, tf.cast(upstream, value.dtype))
    return tf.cast(value, tf.float64).numpy(), [tf.cast(gradient, tf.float64).numpy() for gradient in gradients]


def assert_same(fused, plain, inputs: list[tf.Tensor], upstream: tf.Tensor, tolerance: dict[str, float]) -> None:
    """`fused` on `inputs` as they are against `plain` on the same numbers in float64."""
    value, gradients = value_and_gradients(fused, inputs, upstream)
    exact, exact_gradients = value_and_gradients(plain, [tf.cast(x, tf.float64) for x in inputs], tf.cast(upstream, tf.float64))
    np.testing.assert_allclose(value, exact, **tolerance)
    for index, (gradient, exact_gradient) in enumerate(zip(gradients, exact_gradients, strict=True)):
        scale = max(1.0, np.abs(exact_gradient).max())  # sums over the batch grow with it, and so does their rounding
        np.testing.assert_allclose(gradient / scale, exact_gradient / scale, err_msg=f"gradient {index}", **tolerance)


# --- fused functions --------------------------------------------------------------------------------------------------------------


def test_gelu_is_x_times_the_gaussian_distribution_function():
    x = np.linspace(-6, 6, 49).astype(np.float32)
    bias = np.float32([0.5])
    value = layers.bias_gelu(tf.constant(x[:, None] - 0.5), tf.constant(bias)).numpy()[:, 0]
    np.testing.assert_allclose(value, x * special.ndtr(x), rtol=1e-5, atol=1e-6)
    assert layers.bias_gelu(tf.constant([[1.0]]), tf.constant([0.0])).numpy() == pytest.approx(0.8413447)  # not the tanh approximation


@pytest.mark.parametrize("dtype, tolerance", [(tf.float32, TIGHT), (tf.bfloat16, LOOSE)])
def test_bias_gelu(dtype, tolerance):
    x, bias, upstream = random_values((4, 6, 16), (16,), (4, 6, 16))
    x, upstream = tf.cast(x, dtype), tf.cast(upstream, dtype)

    def plain(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        return tf.nn.gelu(x + bias, approximate=False)

    assert layers.bias_gelu(x, bias).dtype == dtype
    assert_same(layers.bias_gelu, plain, [x, bias], upstream, tolerance)


@pytest.mark.parametrize("dtype, tolerance", [(tf.float32, TIGHT), (tf.bfloat16, LOOSE)])
def test_gelu_of_frozen_weights(dtype, tolerance):
    """In a traced function, where one operation is made of the product and all that follows."""
    dense, (x,) = layers.Dense("dense", 24, 16, layers.truncated_normal(0.3), 0, dtype), random_values((4, 6, 24))
    dense.bias.assign(random_values((16,))[0])
    exact = tf.nn.gelu(tf.cast(dense.matmul(x), tf.float64) + tf.cast(dense.bias, tf.float64), approximate=False)
    dense.freeze()
    value = tf.function(dense.gelu, input_signature=[tf.TensorSpec([None, None, 24])])(x)
    assert value.dtype == dtype
    np.testing.assert_allclose(tf.cast(value, tf.float64), exact, **tolerance)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN makes it one operation on x86 only")
def test_gelu_of_frozen_weights_is_one_operation_with_the_product():
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x, kernel, bias = (tf.compat.v1.placeholder(tf.float32, shape) for shape in ([None, None, 8], [8, 16], [16]))
        values = {x: np.ones((2, 3, 8)), kernel: np.ones((8, 16)), bias: np.ones(16)}
        options, metadata = tf.compat.v1.RunOptions(output_partition_graphs=True), tf.compat.v1.RunMetadata()
        session.run(layers.matmul_gelu(x, kernel, bias), values, options, metadata)
    nodes = [node for graph in metadata.partition_graphs for node in graph.node if "fused_ops" in node.attr]
    assert [list(node.attr["fused_ops"].list.s) for node in nodes] == [[b"BiasAdd", b"GeluExact"]]


def test_layer_norm():
    x, gamma, beta, upstream = random_values((4, 6, 16), (16,), (16,), (4, 6, 16))
    assert_same(layers.layer_norm, plain_layer_norm, [x * 3.0 + 5.0, gamma, beta], upstream, TIGHT)


def test_layer_norm_of_a_worked_example_and_of_a_constant_row():
    norm = layers.LayerNorm("scope/LayerNorm", 4, 0)
    assert [variable.name for variable in (norm.gamma, norm.beta)] == ["scope/LayerNorm/gamma:0", "scope/LayerNorm/beta:0"]
    value = norm(tf.constant([[1.0, 1.0, 3.0, 3.0], [7.0, 7.0, 7.0, 7.0]])).numpy()
    np.testing.assert_allclose(value, [[-1, -1, 1, 1], [0, 0, 0, 0]], atol=1e-6)
    norm.gamma.assign([1.0, 2.0, 3.0, 4.0])
    norm.beta.assign([0.0, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(norm(tf.constant([[1.0, 1.0, 3.0, 3.0]])).numpy(), [[-1, -2, 3, 5]], atol=1e-6)


@pytest.mark.parametrize("dtype, tolerance", [(tf.float32, 1e-5), (tf.bfloat16, 0.005), (tf.float16, 0.001)])
def test_sums_of_many_rows_are_added_up_in_float32(dtype, tolerance):
    """8,192 rows: added up in bfloat16, such sums are off by a third."""
    x = tf.cast(np.random.default_rng(0).normal(0.3, 1.0, (64, 128, 32)), dtype)
    expected = x.numpy().astype(np.float64).sum((0, 1))
    np.testing.assert_allclose(layers.sum_to_last(x), expected, rtol=tolerance)
    bias = tf.zeros([32])
    with tf.GradientTape() as tape:
        tape.watch(bias)
        value = layers.bias_add(x, bias)
    assert value.dtype == dtype
    np.testing.assert_allclose(tape.gradient(value, bias, x), expected, rtol=tolerance)


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [(tf.float32, TIGHT), (tf.bfloat16, LOOSE)])
def test_residual_layer_norm(dropped, dtype, tolerance):
    x, bias, residual, gamma, beta, upstream = random_values((4, 6, 16), (16,), (4, 6, 16), (16,), (16,), (4, 6, 16))
    bits = noise((4, 6, 16)) if dropped else None

    def fused(x: tf.Tensor, bias: tf.Tensor, residual: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
        norm = layers.LayerNorm("norm", 16, 0)
        norm.gamma, norm.beta = gamma, beta
        outputs = layers.residual_layer_norm(x, bias, residual, norm, bits, RATE)
        assert (outputs.exact.dtype, outputs.rounded.dtype) == (tf.float32, dtype)
        # Both forms are used, as in a layer: the gradient of their mean is that of one of them.
        return 0.5 * (outputs.exact + tf.cast(outputs.rounded, tf.float32))

    def plain(x: tf.Tensor, bias: tf.Tensor, residual: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
        return plain_layer_norm(plain_dropout(x + bias, bits) + residual, gamma, beta)

    inputs = [tf.cast(x, dtype), bias, residual, gamma, beta]
    assert_same(fused, plain, inputs, upstream, tolerance)


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [(tf.float32, TIGHT), (tf.bfloat16, LOOSE)])
def test_attention_probabilities(dropped, dtype, tolerance):
    scores, upstream = random_values((2, 2, 6, 6), (2, 2, 6, 6))
    scores, upstream = tf.cast(scores * 3.0, dtype), tf.cast(upstream, dtype)
    adder = tf.constant([[0.0] * 6, [0.0] * 4 + [-10000.0] * 2])[:, None, None, :]
    bits = noise((2, 2, 6, 6)) if dropped else None

    def fused(scores: tf.Tensor) -> tf.Tensor:
        return layers.attention_probabilities(scores, adder, 0.5, bits, RATE)

    def plain(scores: tf.Tensor) -> tf.Tensor:
        return plain_dropout(tf.nn.softmax(scores * 0.5 + tf.cast(adder, scores.dtype)), bits)

    assert fused(scores).dtype == dtype
    assert_same(fused, plain, [scores], upstream, tolerance)
    assert not fused(scores).numpy()[1, :, :, 4:].any()


def test_attention_on_nothing_but_padding_is_even_and_finite_in_float16():
    scores = tf.constant(np.random.default_rng(0).normal(size=(2, 2, 6, 6)), tf.float16) * 0
    value = layers.attention_probabilities(scores, tf.fill([2, 1, 1, 6], -10000.0), 0.5, None, 0.0)
    np.testing.assert_allclose(value.numpy(), np.full((2, 2, 6, 6), 1 / 6), rtol=1e-3)


def test_cross_entropy():
    logits, upstream = random_values((4, 3, 11), (4, 3))
    targets = tf.constant(np.random.default_rng(0).integers(0, 11, (4, 3)), tf.int32)

    def plain(logits: tf.Tensor) -> tf.Tensor:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)

    assert_same(lambda logits: layers.cross_entropy(logits, targets), plain, [logits * 3.0], upstream, TIGHT)


def test_cross_entropy_of_worked_examples_and_of_large_logits():
    logits = tf.constant([[0.0, 0.0, 0.0, 0.0], [1e4, 0.0, 0.0, 0.0], [1e4, 0.0, 0.0, 0.0], [-1e4, -1e4, -1e4, -1e4]])
    losses = layers.cross_entropy(logits, tf.constant([2, 0, 3, 1])).numpy()
    np.testing.assert_allclose(losses, [np.log(4), 0.0, 1e4, np.log(4)], rtol=1e-3)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.reduce_sum(layers.cross_entropy(logits, tf.constant([2, 0, 3, 1])))
    gradient = tape.gradient(loss, logits).numpy()
    np.testing.assert_allclose(gradient[:3], [[0.25, 0.25, -0.75, 0.25], [0, 0, 0, 0], [1, 0, 0, -1]], atol=1e-6)


def test_argmax_is_the_first_of_the_largest_and_an_index_even_of_nan():
    nan = float("nan")
    values = tf.constant([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0], [-2.0, -1.0, -1.0], [nan, nan, nan], [-np.inf, -np.inf, 0.0]])
    found = layers.argmax(values)
    assert found.dtype == tf.int32 and found.numpy()[[0, 1, 2, 4]].tolist() == [1, 0, 1, 2]
    assert 0 <= found.numpy()[3] < 3


def test_samples_follow_the_softmax():
    state = RandomState(3, tf.constant(7, tf.int64), tf.constant(0, tf.int64))
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    logits = tf.constant(np.broadcast_to(np.log(probabilities), (16384, 4)), tf.float32)
    samples = layers.sample(logits, uniform(state, "site", [16384])).numpy()
    counts, expected = np.bincount(samples, minlength=4), probabilities * 16384
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # chi-square with 3 degrees of freedom: 1 in 1000


@pytest.mark.parametrize("size", [4, 255, 256, 257, 1000, 1024])
def test_a_sample_is_the_first_id_whose_cumulative_probability_is_beyond_the_draw(size):
    generator = np.random.default_rng(size)
    logits = generator.normal(0.0, 3.0, (64, size)).astype(np.float32)
    logits[:, generator.integers(0, size, size // 3)] = -np.inf  # such as ids that must not be drawn
    logits[:, generator.integers(0, size)] = 1.0
    draws = generator.uniform(size=64).astype(np.float32)
    draws[:2] = 2.0**-24, 1.0 - 2.0**-24  # the smallest and the largest that there are
    weights = np.exp(logits.astype(np.float64))
    cumulative = np.cumsum(weights, -1) / weights.sum(-1, keepdims=True)
    samples = layers.sample(tf.constant(logits), tf.constant(draws)).numpy()
    rows = np.arange(64)
    assert samples.dtype == np.int32 and (weights[rows, samples] > 0.0).all()
    before = np.where(samples > 0, cumulative[rows, samples - 1], 0.0)
    assert (before <= draws + 2e-6).all() and (cumulative[rows, samples] >= draws - 2e-6).all()


def test_a_sample_of_what_is_no_number_is_an_index():
    samples = layers.sample(tf.fill([2, 300], float("nan")), tf.constant([0.1, 0.9])).numpy()
    assert ((samples >= 0) & (samples < 300)).all()


def test_fused_functions_give_the_same_inside_a_graph_and_a_while_loop():
    """Accumulation differentiates them inside tf.while_loop."""
    x, bias, upstream = random_values((4, 6, 16), (16,), (4, 6, 16))

    def gradient(part: tf.Tensor, part_upstream: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(bias)
            value = layers.bias_gelu(part, bias)
        return tape.gradient(value, bias, part_upstream)

    @tf.function(autograph=False)
    def accumulated() -> tf.Tensor:
        def body(index: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return index + 1, total + gradient(x[index], upstream[index])

        return tf.while_loop(lambda index, _: index < 4, body, (tf.constant(0), tf.zeros([16])))[1]

    np.testing.assert_allclose(accumulated(), gradient(x, upstream), **TIGHT)


# --- dropout ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_its_rate_and_keeps_the_mean(rate):
    state = RandomState(3, tf.constant(7, tf.int64), tf.constant(0, tf.int64))
    value = layers.dropout(tf.ones([64, 1024]), rate, state, "site").numpy()
    dropped = value == 0.0
    assert abs(dropped.mean() - rate) < 4 * math.sqrt(rate * (1 - rate) / value.size)
    exact_rate = round(rate * 2**16) / 2**16
    np.testing.assert_allclose(value[~dropped], 1 / (1 - exact_rate), rtol=1e-6)
    columns = dropped.mean(0)
    assert columns.min() > 0.0 and columns.max() < 1.0  # no place is always dropped or never


def test_the_gradient_of_dropout_passes_the_same_mask():
    (x,) = random_values((4, 6, 16))
    state = RandomState(3, tf.constant(7, tf.int64), tf.constant(0, tf.int64))
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = layers.dropout(x, RATE, state, "site")
    gradient = tape.gradient(value, x).numpy()
    np.testing.assert_allclose(gradient, np.where(value == 0.0, 0.0, 4 / 3), rtol=1e-6)


def test_dropout_does_nothing_in_evaluation_and_at_rate_0():
    (x,) = random_values((4, 6, 16))
    state = RandomState(3, tf.constant(7, tf.int64), tf.constant(0, tf.int64))
    assert layers.dropout(x, RATE, None, "site") is x
    assert layers.dropout(x, 0.0, state, "site") is x


def test_dropout_takes_a_batch_of_unknown_size():
    state = RandomState(3, tf.constant(7, tf.int64), tf.constant(0, tf.int64))
    signature = [tf.TensorSpec([None, 6, 16])]
    dynamic = tf.function(lambda x: layers.dropout(x, RATE, state, "site"), input_signature=signature, autograph=False)
    (x,) = random_values((4, 6, 16))
    np.testing.assert_array_equal(dynamic(x), layers.dropout(x, RATE, state, "site"))


def test_matmul_takes_kernels_that_lie_across():
    x, kernel = random_values((2, 3, 5), (5, 4))
    expected = x.numpy() @ kernel.numpy()
    for value in (layers.matmul(x, kernel, tf.float32), layers.matmul(x, tf.transpose(kernel), tf.float32, transpose_kernel=True)):
        np.testing.assert_allclose(value, expected, **TIGHT)
    assert layers.matmul(x, kernel, tf.bfloat16).dtype == tf.bfloat16


# --- variables --------------------------------------------------------------------------------------------------------------------


def test_a_start_value_depends_on_seed_and_name_only():
    normal = layers.truncated_normal(0.02)
    first = layers.create_variable("a/kernel", (8, 8), normal, 1)
    layers.create_variable("b/kernel", (8, 8), normal, 1)
    again, other_seed = layers.create_variable("a/kernel", (8, 8), normal, 1), layers.create_variable("a/kernel", (8, 8), normal, 2)
    other_name = layers.create_variable("c/kernel", (8, 8), normal, 1)
    np.testing.assert_array_equal(first, again)
    for other in (other_seed, other_name):
        assert not np.isclose(first, other).any()
    assert first.dtype == tf.float32 and layers.variable_name(first) == "a/kernel"


def test_the_truncated_normal_ends_at_two_standard_deviations():
    values = layers.create_variable("a/kernel", (256, 128), layers.truncated_normal(0.02), 1).numpy().astype(np.float64) / 0.02
    assert np.abs(values).max() <= 2.0 + 1e-6 and np.abs(values).max() > 1.99
    assert abs(values.mean()) < 0.02
    assert values.std() == pytest.approx(0.8796, abs=0.01)  # of a standard normal cut at 2
    inside = np.mean(np.abs(values) < 1.0)
    assert inside == pytest.approx((special.ndtr(1) - special.ndtr(-1)) / (special.ndtr(2) - special.ndtr(-2)), abs=0.01)


def test_glorot_uniform_fills_its_limits():
    values = layers.create_variable("a/kernel", (96, 54), layers.glorot_uniform, 1).numpy().astype(np.float64)
    limit = math.sqrt(6 / 150)
    assert np.abs(values).max() <= limit and np.abs(values).max() > 0.99 * limit
    assert values.std() == pytest.approx(limit / math.sqrt(3), rel=0.02)


def test_dense_multiplies_adds_its_bias_and_gives_float32():
    for dtype, tolerance in ((tf.float32, 1e-6), (tf.bfloat16, 2**-7)):
        dense = layers.Dense("scope/dense", 3, 2, layers.truncated_normal(1.0), 5, dtype)
        assert [variable.name for variable in (dense.kernel, dense.bias)] == ["scope/dense/kernel:0", "scope/dense/bias:0"]
        dense.bias.assign([1.0, -1.0])
        x = tf.constant(np.random.default_rng(0).normal(size=(4, 5, 3)), tf.float32)
        value = dense(x)
        assert value.dtype == tf.float32 and dense.matmul(x).dtype == dtype
        np.testing.assert_allclose(value, x.numpy() @ dense.kernel.numpy() + [1.0, -1.0], rtol=tolerance, atol=4 * tolerance)
