import numpy as np
import pytest
import tensorflow as tf

from finetune.tagging.tagging_module import NO_TAG, TaggingModule
from model.modeling import BertConfig, BertOutput
from model.random import RandomState

SHAPE = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
# Two words and one, on the first pieces of five.
TAG_IDS = np.array([[NO_TAG, 2, NO_TAG, 0, NO_TAG], [NO_TAG, 1, NO_TAG, NO_TAG, NO_TAG]], np.int32)
FEATURES = {"ner_tag_ids": tf.constant(TAG_IDS), "ner_eid": tf.constant([5, 6])}


def encoder_output():
    values = tf.constant(np.random.default_rng(1).normal(size=(2, 5, 8)), tf.float32)
    return BertOutput(values, [values], values)


@pytest.mark.parametrize("kind", ["linear", "two_layer"])
def test_the_loss_is_the_sum_over_first_pieces(kind):
    module, output = TaggingModule("ner", kind, 3, SHAPE, seed=1), encoder_output()
    losses, outputs = module(output, FEATURES, None)
    logits = output.sequence_output.numpy() @ module.classifier.kernel.numpy()
    nll = -np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(losses, [nll[0, 1, 2] + nll[0, 3, 0], nll[1, 1, 1]], rtol=1e-5)
    np.testing.assert_array_equal(outputs["predictions"], logits.argmax(-1))
    np.testing.assert_array_equal(outputs["tag_ids"], TAG_IDS)
    np.testing.assert_array_equal(module.count(FEATURES), [2, 1])
    assert {variable.name.partition(":")[0]: variable.shape.as_list() for variable in module.trainable_variables} == {
        "task_specific/ner/classifier/kernel": [8, 3],
        "task_specific/ner/classifier/bias": [3],
    }


def test_only_the_dialog_recipe_has_dropout_and_the_google_recipe_a_glorot_kernel():
    random = RandomState(1, tf.constant(1, tf.int64), tf.constant(0, tf.int64))
    for kind, same in (("linear", True), ("two_layer", False)):
        module = TaggingModule("ner", kind, 3, SHAPE, seed=1)
        losses = [module(encoder_output(), FEATURES, state)[0].numpy() for state in (None, random)]
        assert np.array_equal(*losses) == same
        assert (np.abs(module.classifier.kernel.numpy()).max() > 0.05) == same
