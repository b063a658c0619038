import numpy as np
import pytest
import tensorflow as tf

from finetune.classification.classification_modules import ClassificationModule, RegressionModule
from model.modeling import BertConfig, BertOutput
from model.random import RandomState

SHAPE = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)


def encoder_output(batch=3):
    values = tf.constant(np.random.default_rng(1).normal(size=(batch, 5, 8)), tf.float32)
    return BertOutput(values, [values], values)


FEATURES = {"sts_targets": tf.constant([1.0, 3.0, 6.0]), "sts_eid": tf.constant([5, 6, 7]), "task_id": tf.constant([0, 0, 0])}


def test_regression_learns_the_share_of_the_range_not_of_the_maximum():
    # Scores from 1 to 6: 1 -> 0, 3 -> 2/5, 6 -> 1. The original divided by 6.
    module = RegressionModule("sts", "linear", 1.0, 6.0, SHAPE, seed=1)
    module.classifier.kernel.assign(tf.zeros([8, 1]))
    module.classifier.bias.assign([0.5])
    losses, outputs = module(encoder_output(), FEATURES, None)
    np.testing.assert_allclose(losses, [0.5**2, 0.1**2, 0.5**2], rtol=1e-5)
    np.testing.assert_allclose(outputs["predictions"], [3.5, 3.5, 3.5])
    np.testing.assert_array_equal(outputs["targets"], [1.0, 3.0, 6.0])
    assert {variable.name.partition(":")[0] for variable in module.trainable_variables} == {
        "task_specific/sts/classifier/kernel",
        "task_specific/sts/classifier/bias",
    }


def test_regression_of_the_dialog_recipe_learns_the_score_itself():
    module = RegressionModule("sts", "two_layer", 1.0, 6.0, SHAPE, seed=1)
    module.classifier.kernel.assign(tf.zeros([8, 1]))
    module.classifier.bias.assign([2.5])
    losses, outputs = module(encoder_output(), FEATURES, None)
    np.testing.assert_allclose(losses, [1.5**2, 0.5**2, 3.5**2], rtol=1e-5)
    np.testing.assert_allclose(outputs["predictions"], [2.5, 2.5, 2.5])
    np.testing.assert_array_equal(module.count(FEATURES), [1, 1, 1])


def test_label_weights_count_in_training_and_not_in_the_reported_loss():
    features = {"x_label_ids": tf.constant([0, 1, 1]), "x_eid": tf.constant([1, 2, 3]), "task_id": tf.constant([0, 0, 0])}
    module = ClassificationModule("x", "linear", 2, SHAPE, seed=1, label_weights=[0.5, 3.0])
    losses, outputs = module(encoder_output(), features, None)
    np.testing.assert_array_equal(losses, outputs["loss"])
    random = RandomState(1, tf.constant(1, tf.int64), tf.constant(0, tf.int64))
    losses, outputs = module(encoder_output(), features, random)
    np.testing.assert_allclose(losses, outputs["loss"] * [0.5, 3.0, 3.0], rtol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "two_layer"])
def test_heads_change_with_every_variable(kind):
    module = RegressionModule("sts", kind, 0.0, 5.0, SHAPE, seed=1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(module(encoder_output(), FEATURES, None)[0])
    assert all(np.abs(gradient).sum() > 0 for gradient in tape.gradient(loss, module.trainable_variables))
