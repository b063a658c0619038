"""model/optimization.py: the original's trajectories, and each formula against numbers worked by hand."""

import numpy as np
import pytest
import tensorflow as tf

from model.command import UserError
from model.optimization import AdamWeightDecayOptimizer, adam_update, layerwise_factors, learning_rate_at


def step_of(number: int) -> tf.Tensor:
    return tf.constant(number, tf.int64)


# --- golden -----------------------------------------------------------------------------------------------------------------------


def read_trajectory(path) -> dict[str, dict[str, np.ndarray]]:
    """ "var0", "grad0", ... -> name -> values."""
    trajectory: dict[str, dict[str, np.ndarray]] = {}
    for key, value in np.load(path).items():
        kind, name = key.replace("|", "/").split("/", 1)
        trajectory.setdefault(kind, {})[name] = value
    return trajectory


def largest_difference(trajectory: dict[str, dict[str, np.ndarray]], num_warmup_steps: int, factors: dict[str, float]) -> dict[str, float]:
    """Feeds the golden gradients and returns, per variable, the largest difference over the recorded steps.

    Differences are relative to 1 + |value|: the values grow to 3, where float32 itself is 2.4e-7 wide.

    The original counts its step up without waiting for the update that reads it, and in the golden runs the count came first:
    the gradient of step t was applied at the rate of step t + 1. So `step` starts from 1 here; in a run of ours it starts from
    0, as the original's graph has it, and the first update has rate 0.
    """
    variables = {name: tf.Variable(value, name=name) for name, value in trajectory["var0"].items()}
    optimizer = AdamWeightDecayOptimizer(
        list(variables.values()), 5e-2, 60, num_warmup_steps, weight_decay_rate=0.01, clip_norm=1.0, layer_factors=factors
    )
    differences = dict.fromkeys(variables, 0.0)
    for number in range(25):
        optimizer.apply_gradients([tf.constant(trajectory[f"grad{number}"][name]) for name in variables], step_of(number + 1))
        for name, expected in trajectory.get(f"var{number + 1}", {}).items():
            difference = np.abs(variables[name].numpy() - expected) / (1.0 + np.abs(expected))
            differences[name] = max(differences[name], float(difference.max()))
    return differences


def test_the_pretraining_trajectory_is_the_originals(golden):
    trajectory = read_trajectory(golden / "optimizer" / "pretrain.npz")
    assert sorted(key for key in trajectory if key.startswith("var")) == ["var0", "var1", "var10", "var2", "var25", "var5"]
    differences = largest_difference(trajectory, num_warmup_steps=10, factors={})
    assert len(differences) == 11 and max(differences.values()) < 1e-6, differences


def test_the_layerwise_trajectory_is_the_originals_with_its_off_by_one(golden):
    trajectory = read_trajectory(golden / "optimizer" / "finetune_layerwise.npz")
    factors = layerwise_factors(list(trajectory["var0"]), 0.8, 3, off_by_one=True)
    differences = largest_difference(trajectory, num_warmup_steps=6, factors=factors)
    assert len(differences) == 11 and max(differences.values()) < 1e-6, differences


def test_without_the_off_by_one_every_layer_below_the_head_differs(golden):
    trajectory = read_trajectory(golden / "optimizer" / "finetune_layerwise.npz")
    factors = layerwise_factors(list(trajectory["var0"]), 0.8, 3)
    differences = largest_difference(trajectory, num_warmup_steps=6, factors=factors)
    for name, difference in differences.items():
        assert (difference < 1e-6) == name.startswith("task_specific"), (name, difference)


# --- layer-wise rates ---------------------------------------------------------------------------------------------------------------

NAMES = [
    "electra/embeddings/word_embeddings",
    "electra/embeddings/LayerNorm/gamma",
    "electra/embeddings_project/kernel",
    "electra/encoder/layer_0/output/dense/kernel",
    "electra/encoder/layer_11/attention/self/query/bias",
    "task_specific/nsmc/classifier/kernel",
]


def test_the_rate_decays_once_for_each_layer_below_the_head():
    factors = layerwise_factors(NAMES, 0.8, 12)
    assert [factors[name] for name in NAMES] == pytest.approx([0.8**13] * 3 + [0.8**12, 0.8, 1.0])


def test_layerwise_lr_decay_off_by_one_gives_the_top_layer_the_square():
    factors = layerwise_factors(NAMES, 0.8, 12, off_by_one=True)
    assert [factors[name] for name in NAMES] == pytest.approx([0.8**14] * 3 + [0.8**13, 0.64, 1.0])


def test_a_factor_multiplies_the_learning_rate_of_its_variable():
    variables = [tf.Variable([1.0, 2.0], name="a/kernel"), tf.Variable([1.0, 2.0], name="b/kernel")]
    optimizer = AdamWeightDecayOptimizer(variables, 0.1, 10, layer_factors={"b/kernel": 0.5})
    optimizer.apply_gradients([tf.constant([0.1, -0.2])] * 2, step_of(0))
    full, half = (variable.numpy() - [1.0, 2.0] for variable in variables)
    np.testing.assert_allclose(half, full / 2, rtol=1e-5)


# --- schedule -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number, expected", [(0, 0.0), (1, 0.2 * 0.99), (4, 0.8 * 0.96), (5, 0.95), (50, 0.5), (100, 0.0), (150, 0.0)])
def test_decay_runs_during_the_warmup_and_step_0_has_rate_0(number, expected):
    assert learning_rate_at(step_of(number), 1.0, 100, 5).numpy() == pytest.approx(expected, abs=1e-7)


def test_no_warmup_is_no_division_by_zero():
    assert learning_rate_at(step_of(0), 0.5, 100, 0).numpy() == 0.5
    assert learning_rate_at(step_of(10), 0.5, 100, 0).numpy() == pytest.approx(0.45)


def test_the_power_of_the_decay():
    assert learning_rate_at(step_of(75), 1.0, 100, 0, power=2.0).numpy() == pytest.approx(1 / 16)
    assert learning_rate_at(step_of(100), 1.0, 100, 0, power=0.5).numpy() == 0.0
    assert learning_rate_at(step_of(3), 0.5, 100, 0, power=0.0).numpy() == 0.5


# --- Adam ---------------------------------------------------------------------------------------------------------------------------


def test_adam_update_of_a_worked_example():
    """m = .1 * 2 = .2, v = .001 * 4 = .004; update = .2 / (sqrt(.004) + 1e-6) + .01 * 3."""
    new = adam_update(*(tf.constant(value) for value in (3.0, 2.0, 0.0, 0.0)), tf.constant(0.1), 0.01, 1e-6)
    assert new.m.numpy() == pytest.approx(0.2) and new.v.numpy() == pytest.approx(0.004)
    assert new.parameter.numpy() == pytest.approx(3.0 - 0.1 * (0.2 / (0.004**0.5 + 1e-6) + 0.03), rel=1e-6)


@pytest.mark.parametrize("bias_correction", [False, True])
def test_ten_steps_are_those_of_the_numpy_twin(bias_correction):
    generator = np.random.default_rng(0)
    start, gradients = generator.normal(size=(4, 3)), generator.normal(size=(10, 4, 3)) * 0.1
    variable = tf.Variable(start.astype(np.float32), name="a/kernel")
    optimizer = AdamWeightDecayOptimizer([variable], 1e-2, 20, 4, epsilon=1e-8, clip_norm=0.0, bias_correction=bias_correction)
    expected, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for number, gradient in enumerate(gradients):
        rate = 1e-2 * (1 - number / 20) * min(1, number / 4)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        corrections = (1 - 0.9 ** (number + 1), 1 - 0.999 ** (number + 1)) if bias_correction else (1, 1)
        expected -= rate * (m / corrections[0] / (np.sqrt(v / corrections[1]) + 1e-8) + 0.01 * expected)
        optimizer.apply_gradients([tf.constant(gradient, tf.float32)], step_of(number))
    np.testing.assert_allclose(variable.numpy(), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(optimizer.m[0].numpy(), m, rtol=0, atol=1e-6)


def test_layer_norms_and_biases_are_not_decayed():
    names = ["a/dense/kernel", "a/dense/bias", "a/LayerNorm/gamma", "a/layer_norm/beta", "a/embeddings/word_embeddings", "a/output_bias"]
    variables = [tf.Variable([1.0, 2.0], name=name) for name in names]
    optimizer = AdamWeightDecayOptimizer(variables, 0.1, 10, weight_decay_rate=0.5)
    optimizer.apply_gradients([tf.zeros([2])] * 6, step_of(0))
    decayed = [name for name, variable in zip(names, variables, strict=True) if variable.numpy()[0] < 1.0]
    assert decayed == ["a/dense/kernel", "a/embeddings/word_embeddings"]
    np.testing.assert_allclose(variables[0].numpy(), [0.95, 1.9], rtol=1e-6)


@pytest.mark.parametrize("clip_norm, factor", [(1.0, 0.2), (5.0, 1.0), (10.0, 1.0), (0.0, 1.0)])
def test_gradients_are_clipped_by_their_global_norm_which_is_returned(clip_norm, factor):
    variables = [tf.Variable([0.0, 0.0], name="a/kernel"), tf.Variable([0.0, 0.0], name="b/kernel")]
    optimizer = AdamWeightDecayOptimizer(variables, 0.1, 10, clip_norm=clip_norm)
    norm = optimizer.apply_gradients([tf.constant([3.0, 0.0]), tf.constant([0.0, 4.0])], step_of(0))
    assert norm.numpy() == 5.0
    np.testing.assert_allclose(optimizer.m[0].numpy(), [0.3 * factor, 0.0], rtol=1e-6)
    np.testing.assert_allclose(optimizer.m[1].numpy(), [0.0, 0.4 * factor], rtol=1e-6)
    np.testing.assert_allclose(optimizer.v[1].numpy(), [0.0, 0.016 * factor**2], rtol=1e-5)


def test_an_update_that_is_not_applied_leaves_every_bit():
    variable = tf.Variable([1.0, 2.0], name="a/kernel")
    optimizer = AdamWeightDecayOptimizer([variable], 0.1, 10)
    optimizer.apply_gradients([tf.constant([0.5, -0.5])], step_of(0))
    before = [value.numpy().tobytes() for value in (variable, *optimizer.slots)]
    for bad in (float("inf"), float("nan")):
        optimizer.apply_gradients([tf.constant([bad, 1.0])], step_of(1), apply=tf.constant(False))
    assert [value.numpy().tobytes() for value in (variable, *optimizer.slots)] == before


def test_slots_carry_the_originals_names_and_start_at_zero():
    optimizer = AdamWeightDecayOptimizer([tf.Variable([1.0, 2.0], name="electra/a/kernel")], 0.1, 10)
    assert [slot.name for slot in optimizer.slots] == ["electra/a/kernel/adam_m:0", "electra/a/kernel/adam_v:0"]
    assert not any(slot.numpy().any() or slot.trainable for slot in optimizer.slots)


def test_no_steps_to_train_is_a_user_error():
    with pytest.raises(UserError, match="num_train_steps must be at least 1, got 0 .*--num_train_steps"):
        AdamWeightDecayOptimizer([], 0.1, 0)
