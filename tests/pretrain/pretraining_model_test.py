import functools
import json
import math

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from configure_pretraining import PretrainingConfig
from model import checkpoint
from model.estimator import ModeKeys
from model.layers import variable_name
from model.optimization import AdamWeightDecayOptimizer
from model.random import RandomState
from pretrain import pretrain_helpers, pretraining_model
from pretrain.pretrain_data import Inputs, SpecialTokens
from pretrain.pretraining_model import ClozeOutput, Outputs, PretrainingModel

SPECIAL = SpecialTokens(2, 3, 4)
BATCH, LENGTH, VOCAB = 4, 24, 60
LAYER = (
    *(f"attention/self/{name}/{part}" for name in ("query", "key", "value") for part in ("kernel", "bias")),
    *(f"{name}/{part}" for name in ("attention/output/dense", "intermediate/dense", "output/dense") for part in ("kernel", "bias")),
    *(f"{name}/LayerNorm/{part}" for name in ("attention/output", "output") for part in ("beta", "gamma")),
)


def make_model(vocab_size=VOCAB, **user):
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 32}
    defaults = {"model_hparam_overrides": shape, "embedding_size": 16, "generator_hidden_size": 0.5, "max_seq_length": LENGTH}
    return PretrainingModel(PretrainingConfig.create("mini", "/data", {**defaults, **user}), vocab_size, SPECIAL)


def make_features(lengths=(24, 15, 9, 24), vocab_size=VOCAB, evaluation=False):
    """Rows [CLS] tokens [SEP] tokens [SEP] padding."""
    random, ids, segments = np.random.default_rng(1), np.zeros([len(lengths), LENGTH], np.int32), np.zeros([len(lengths), LENGTH], np.int32)
    for row, length in enumerate(lengths):
        ids[row, :length] = [2, *random.integers(5, vocab_size, length - 2), 3]
        ids[row, length // 2], segments[row, length // 2 + 1 : length] = 3, 1
    features = {"input_ids": ids, "input_mask": (ids > 0).astype(np.int32), "segment_ids": segments}
    features["position"] = np.arange(len(lengths))
    if evaluation:
        features["is_real"] = np.ones(len(lengths), np.float32)
    return {name: tf.constant(value) for name, value in features.items()}


def state(step=0):
    return RandomState(1, tf.constant(step, tf.int64), tf.constant(0, tf.int64))


def names_of(model):
    return {variable_name(variable) for variable in model.trainable_variables}


def network(scope, projected=True, embeddings=True):
    """Names of a one-layer transformer."""
    parts = [f"encoder/layer_0/{name}" for name in LAYER]
    if projected:
        parts += ["embeddings_project/kernel", "embeddings_project/bias"]
    if embeddings:
        parts += [f"embeddings/{kind}_embeddings" for kind in ("word", "position", "token_type")]
        parts += ["embeddings/LayerNorm/beta", "embeddings/LayerNorm/gamma"]
    return {f"{scope}/{part}" for part in parts}


GENERATOR_PARTS = ("dense/kernel", "dense/bias", "LayerNorm/beta", "LayerNorm/gamma", "output_bias")
GENERATOR_HEAD = {f"generator_predictions/{part}" for part in GENERATOR_PARTS}
DISCRIMINATOR_HEAD = {f"discriminator_predictions/{name}/{part}" for name in ("dense", "dense_1") for part in ("kernel", "bias")}
BOTH = GENERATOR_HEAD | DISCRIMINATOR_HEAD
ENCODER = network("electra")
# A generator of half the width, 16, needs no projection from embeddings of 16.
GENERATOR = network("generator", projected=False, embeddings=False)
TOWERS = network("generator_ltr", False, False) | network("generator_rtl", False, False)
OWN_EMBEDDINGS = {"untied_generator_embeddings": True, "embedding_size": None}
ELECTRIC = {"electric_objective": True, "electra_objective": False}
OBJECTIVES = {
    "electra": ({}, ENCODER | GENERATOR | BOTH),
    "projected generator": (
        {"generator_hidden_size": 0.25},
        ENCODER | GENERATOR | BOTH | network("generator", True, False),
    ),
    "masked language modelling": ({"electra_objective": False}, ENCODER | GENERATOR_HEAD),
    "electric": (ELECTRIC, ENCODER | TOWERS | BOTH),
    "electra with two towers": ({"two_tower_generator": True}, ENCODER | TOWERS | BOTH),
    "uniform generator": ({"uniform_generator": True}, ENCODER | DISCRIMINATOR_HEAD),
    "tied weights": ({"untied_generator": False}, ENCODER | BOTH),
    "untied embeddings": (OWN_EMBEDDINGS, network("electra", False) | network("generator", False) | BOTH),
    "electric with untied embeddings": (
        {**ELECTRIC, **OWN_EMBEDDINGS},
        network("electra", False) | network("generator_ltr", False) | network("generator_rtl", False) | BOTH,
    ),
    "disallow correct": ({"disallow_correct": True}, ENCODER | GENERATOR | BOTH),
    "temperature": ({"temperature": 0.5}, ENCODER | GENERATOR | BOTH),
    "original masking": ({"masking": "original"}, ENCODER | GENERATOR | BOTH),
}


def changed_by_one_step(model, features):
    """(loss, names of the variables that one update without weight decay changes)."""
    variables = list(model.trainable_variables)
    before = [variable.numpy() for variable in variables]
    with tf.GradientTape() as tape:
        loss, _ = model.loss(features, model.denominators(features), tf.constant(0, tf.int64), ModeKeys.TRAIN)
    gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    optimizer = AdamWeightDecayOptimizer(variables, 1e-2, 10, weight_decay_rate=0.0)
    optimizer.apply_gradients([tf.convert_to_tensor(gradient) for gradient in gradients], tf.constant(0, tf.int64))
    changed = {variable_name(variable) for variable, old in zip(variables, before, strict=True) if np.any(variable.numpy() != old)}
    return float(loss), changed


@pytest.fixture(autouse=True)
def uncompiled(request):
    """All but the golden tests run operation by operation: compiling anew for every shape would take most of the time."""
    tf.config.run_functions_eagerly("golden" not in request.node.name)
    yield
    tf.config.run_functions_eagerly(False)


# --- every objective -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_has_the_originals_variables_and_one_step_changes_them_all(objective):
    user, names = OBJECTIVES[objective]
    model = make_model(**user)
    assert names_of(model) == names and len(model.trainable_variables) == len(names)
    loss, changed = changed_by_one_step(model, make_features())
    assert math.isfinite(loss) and loss > 0
    assert changed == names


def test_the_discriminators_loss_does_not_reach_the_generator():
    _, changed = changed_by_one_step(make_model(gen_weight=0.0), make_features())
    assert changed == ENCODER | DISCRIMINATOR_HEAD


def test_the_generators_loss_reaches_the_shared_embeddings_but_not_the_encoder():
    _, changed = changed_by_one_step(make_model(disc_weight=0.0), make_features())
    shared = {name for name in ENCODER if name.startswith("electra/embeddings/")}
    assert changed == shared | GENERATOR | GENERATOR_HEAD and len(shared) == 5


def test_untied_embeddings_are_as_wide_as_the_generator():
    model = make_model(**OWN_EMBEDDINGS)
    shapes = {variable_name(variable): variable.shape.as_list() for variable in model.trainable_variables}
    assert shapes["generator/embeddings/word_embeddings"] == [VOCAB, 16] and shapes["electra/embeddings/word_embeddings"] == [VOCAB, 32]
    assert shapes["generator_predictions/dense/kernel"] == [16, 16]


def test_keep_the_head_of_two_towers_reads_both_and_turns_them_into_embeddings():
    model = make_model(**ELECTRIC)
    assert model.generator_predictions.dense.kernel.shape == [32, 16]


# --- numbers of the original -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def original(golden):
    """(model with the original's weights, its numbers for one batch)."""
    hparams = json.loads((golden / "small" / "hparams.json").read_text())
    config = PretrainingConfig.create("golden", "/data", {**hparams, "masking": "original"})
    model = PretrainingModel(config, 1000, SPECIAL)
    checkpoint.restore(str(golden / "small" / "model.ckpt-30"), model.trainable_variables)
    with np.load(golden / "small" / "outputs.npz") as numbers:
        return model, dict(numbers)


def golden_inputs(numbers, ids="input_ids", masked=False):
    slots = [tf.constant(numbers[f"masked_lm_{name}"]) for name in ("positions", "ids", "weights")] if masked else []
    return Inputs(tf.constant(numbers[ids]), tf.constant(numbers["input_mask"]), tf.constant(numbers["segment_ids"]), *slots)


def test_golden_every_variable_of_the_originals_checkpoint_is_ours(original, golden):
    found = {name for name in checkpoint.read_shapes(str(golden / "small" / "model.ckpt-30")) if not name.endswith(("adam_m", "adam_v"))}
    assert found == names_of(original[0]) | {"global_step"}


def test_golden_generator_and_its_loss(original):
    model, numbers = original
    mlm, cloze = model._generate(golden_inputs(numbers), golden_inputs(numbers, "masked_input_ids", masked=True), None)
    np.testing.assert_allclose(mlm.logits, numbers["mlm_logits"], atol=1e-4)
    loss = tf.reduce_sum(mlm.losses * mlm.weights) / (tf.reduce_sum(mlm.weights) + 1e-6)
    np.testing.assert_allclose(loss, numbers["mlm_loss"], atol=1e-5)
    assert cloze is None


def test_golden_discriminator(original):
    model, numbers = original
    vectors, logits = model.discriminate(golden_inputs(numbers, "fake_input_ids"))
    np.testing.assert_allclose(vectors, numbers["disc_sequence_output"], atol=1e-4)
    np.testing.assert_allclose(tf.sigmoid(logits), numbers["disc_probs"], atol=1e-4)


def test_golden_losses_as_loss_and_summarize_add_them_up(original, monkeypatch):
    """The original's fakes in place of our samples: mlm_loss, disc_loss and total_loss to 1e-5, in one go and in two parts."""
    model, numbers = original
    masked = golden_inputs(numbers, "masked_input_ids", masked=True)
    fake = golden_inputs(numbers, "fake_input_ids")
    everything = {"masked": masked, "fake": fake, "is_fake": tf.constant(numbers["is_fake"])}

    def rows(random, name):
        first = int(random.first_example)
        return tf.nest.map_structure(lambda value: value if value is None else value[first : first + size], everything[name])

    monkeypatch.setattr(pretrain_helpers, "mask", lambda config, inputs, special, random: rows(random, "masked"))

    def get_fake_data(config, inputs, logits, random):
        return pretrain_helpers.FakeData(rows(random, "fake"), rows(random, "is_fake"), inputs.masked_lm_ids)

    monkeypatch.setattr(pretrain_helpers, "get_fake_data", get_fake_data)
    features = {name: tf.constant(numbers[name]) for name in ("input_ids", "input_mask", "segment_ids")}
    features |= {"position": tf.range(8, dtype=tf.int64), "is_real": tf.ones([8])}
    denominators = model.denominators(features)
    for size in (8, 4):
        parts = [{name: value[start : start + size] for name, value in features.items()} for start in range(0, 8, size)]
        results = [model.loss(part, denominators, tf.constant(0, tf.int64), ModeKeys.EVAL) for part in parts]
        sums = {name: sum(result[1][name].numpy().astype(np.float64) for result in results) for name in results[0][1]}
        metrics = model.summarize(sums)
        np.testing.assert_allclose(metrics["masked_lm_loss"], numbers["mlm_loss"], atol=1e-5)
        np.testing.assert_allclose(metrics["disc_loss"], numbers["disc_loss"], atol=1e-5)
        np.testing.assert_allclose(metrics["loss"], numbers["total_loss"], atol=1e-5)
        np.testing.assert_allclose(sum(float(loss) for loss, _ in results), numbers["total_loss"], atol=1e-5)


def test_golden_losses_and_gradients_of_bfloat16_stay_near_float32(original, golden):
    """Losses to 1 %, and every gradient in the same direction: what --mixed_precision is held to."""
    exact, numbers = original
    low = PretrainingModel(exact.config, 1000, SPECIAL, tf.bfloat16)
    checkpoint.restore(str(golden / "small" / "model.ckpt-30"), low.trainable_variables)
    masked, fake = golden_inputs(numbers, "masked_input_ids", masked=True), golden_inputs(numbers, "fake_input_ids")
    labels = tf.constant(numbers["is_fake"])

    def losses_and_gradients(model):
        with tf.GradientTape() as tape:
            mlm, _ = model._generate(golden_inputs(numbers), masked, None)
            _, logits = model.discriminate(fake)
            sums = pretraining_model.discriminator_sums(
                logits, pretrain_helpers.FakeData(fake, labels, masked.masked_lm_ids), with_histograms=False
            )
            losses = (
                tf.reduce_sum(mlm.losses * mlm.weights) / tf.reduce_sum(mlm.weights),
                sums["disc_loss"] / tf.reduce_sum(tf.cast(fake.input_mask, tf.float32)),
            )
            total = losses[0] + 50.0 * losses[1]
        gradients = tape.gradient(total, list(model.trainable_variables), unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [float(loss) for loss in losses], [tf.convert_to_tensor(gradient).numpy().ravel() for gradient in gradients]

    (expected, gradients), (found, rounded) = losses_and_gradients(exact), losses_and_gradients(low)
    np.testing.assert_allclose(found, expected, rtol=0.01)
    assert found != expected

    def cosine(first, second):
        return first @ second / (np.linalg.norm(first) * np.linalg.norm(second))

    for variable, gradient, other in zip(exact.trainable_variables, gradients, rounded, strict=True):
        if not variable.name.endswith("key/bias:0"):  # its gradient is 0: a softmax does not see what all scores share
            assert cosine(gradient, other) > 0.999, variable.name


def test_golden_masks(original):
    """From the original's positions, our functions make its targets, weights and masked ids, duplicates and all."""
    model, numbers = original
    inputs, masked = golden_inputs(numbers), golden_inputs(numbers, "masked_input_ids", masked=True)
    positions, weights = masked.masked_lm_positions, masked.masked_lm_weights
    np.testing.assert_array_equal(pretrain_helpers.masked_lm_weights(model.config, inputs, SPECIAL), weights)
    used = tf.cast(weights, tf.int32)
    np.testing.assert_array_equal(pretrain_helpers.gather_positions(inputs.input_ids, positions) * used, masked.masked_lm_ids)
    candidates = pretrain_helpers.get_candidates_mask(inputs, SPECIAL).numpy()
    assert all(candidates[row, at] for row in range(8) for at, weight in zip(positions[row], weights[row], strict=True) if weight)
    shown = tf.cast(pretrain_helpers.gather_positions(masked.input_ids, positions) == SPECIAL.mask, tf.int32)
    symbols = tf.fill(tf.shape(positions), SPECIAL.mask)
    np.testing.assert_array_equal(pretrain_helpers.scatter_update(inputs.input_ids, symbols, positions * shown)[0], masked.input_ids)
    assert any(len(set(at[at > 0])) < (at > 0).sum() for at in positions.numpy())  # the original draws with replacement
    np.testing.assert_array_equal(pretrain_helpers.unmask(masked).input_ids, inputs.input_ids)


def test_golden_labels(original):
    _, numbers = original
    np.testing.assert_array_equal(numbers["is_fake"], numbers["fake_input_ids"] != numbers["input_ids"])


# --- losses and metrics ----------------------------------------------------------------------------------------------------------


def softplus(x):
    return np.logaddexp(0.0, x)


def evaluate(model, features):
    _, sums = model.loss(features, model.denominators(features), tf.constant(0, tf.int64), ModeKeys.EVAL)
    return model.summarize({name: value.numpy() for name, value in sums.items()})


@functools.cache
def pass_through(**user):
    """(model, features, outputs, loss, sums) of an evaluation pass."""
    model, features = make_model(**user), make_features(evaluation=True)
    out = model.forward(features, RandomState(model.config.seed + 2**32, tf.constant(0, tf.int64), tf.constant(0, tf.int64)), False)
    loss, sums = model.loss(features, model.denominators(features), tf.constant(0, tf.int64), ModeKeys.EVAL)
    return model, features, out, float(loss), {name: value.numpy().astype(np.float64) for name, value in sums.items()}


def test_keep_generator_loss_is_the_weighted_mean_over_masked_slots():
    """sum(w nll) / (sum w + 1e-6)"""
    model, _, out, _, sums = pass_through()
    logits, targets, weights = out.mlm.logits.numpy().astype(np.float64), out.masked_inputs.masked_lm_ids.numpy(), out.mlm.weights.numpy()
    normalized = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(normalized, targets[:, :, None], 2)[:, :, 0]
    metrics = model.summarize(sums)
    np.testing.assert_allclose(metrics["masked_lm_loss"], (losses * weights).sum() / (weights.sum() + 1e-6), rtol=1e-6)
    hits = (logits.argmax(-1) == targets) * weights
    np.testing.assert_allclose(metrics["masked_lm_accuracy"], hits.sum() / weights.sum(), rtol=1e-6)
    sampled = (out.fake.sampled_ids.numpy() == targets) * weights
    np.testing.assert_allclose(metrics["sampled_masked_lm_accuracy"], sampled.sum() / weights.sum(), rtol=1e-6)
    assert weights.sum() == 3 + 2 + 1 + 3


def test_keep_discriminator_loss_is_over_all_tokens_but_padding_specials_included():
    model, features, out, loss, sums = pass_through()
    logits, labels, real = out.disc_logits.numpy(), out.fake.is_fake_tokens.numpy(), features["input_mask"].numpy()
    losses = softplus(logits) - labels * logits
    metrics = model.summarize(sums)
    np.testing.assert_allclose(metrics["disc_loss"], (losses * real).sum() / (real.sum() + 1e-6), rtol=1e-6)
    assert metrics["tokens"] == real.sum() == 24 + 15 + 9 + 24
    np.testing.assert_allclose(loss, metrics["masked_lm_loss"] + 50 * metrics["disc_loss"], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)


def test_discriminator_accuracy_precision_and_recall_equal_numpy():
    model, features, out, _, sums = pass_through()
    real = features["input_mask"].numpy() == 1
    flagged, fake = out.disc_logits.numpy()[real] > 0, out.fake.is_fake_tokens.numpy()[real] == 1
    metrics = model.summarize(sums)
    np.testing.assert_allclose(metrics["disc_accuracy"], (flagged == fake).mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["disc_precision"], (flagged & fake).sum() / flagged.sum(), rtol=1e-6)
    np.testing.assert_allclose(metrics["disc_recall"], (flagged & fake).sum() / fake.sum(), rtol=1e-6)
    assert 0 < fake.sum() and 0 < flagged.sum() < flagged.size
    assert metrics["examples"] == 4.0 and set(metrics) >= {"disc_auc", "loss", "tokens"}


def test_the_two_weights_weigh():
    _, _, _, loss, sums = pass_through(gen_weight=3.0, disc_weight=7.0)
    np.testing.assert_allclose(loss, 3 * sums["mlm_loss"] / sums["total_masked"] + 7 * sums["disc_loss"] / sums["total_tokens"], rtol=1e-6)


@pytest.mark.parametrize("user", [{}, ELECTRIC])
def test_fixed_normalizers_are_global(user):
    """Losses of the parts of a batch, over the normalizers of the whole, add up to the loss of the whole; dropout is on."""
    model, features = make_model(**user), make_features()
    denominators = model.denominators(features)
    halves = [{name: value[start : start + 2] for name, value in features.items()} for start in (0, 2)]
    of_halves = [model.denominators(half) for half in halves]
    for name, value in denominators.items():
        assert float(value) == sum(float(half[name]) for half in of_halves) > 0
    step = tf.constant(5, tf.int64)
    whole, _ = model.loss(features, denominators, step, ModeKeys.TRAIN)
    parts = [model.loss(half, denominators, step, ModeKeys.TRAIN)[0] for half in halves]
    np.testing.assert_allclose(float(whole), sum(float(part) for part in parts), rtol=1e-6)


def test_rows_that_fill_up_a_batch_count_nowhere():
    model, features = make_model(), make_features(evaluation=True)
    filled = {name: tf.concat([value, value[:2]], 0) for name, value in features.items()}
    filled |= {"is_real": tf.constant([1.0] * 4 + [0.0] * 2), "position": tf.range(6, dtype=tf.int64)}
    expected, found = evaluate(model, features), evaluate(model, filled)
    assert found["examples"] == 4.0 and found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def sums_of(logits, labels, input_mask):
    inputs = Inputs(tf.zeros_like(labels), tf.constant(input_mask), tf.zeros_like(labels))
    fake = pretrain_helpers.FakeData(inputs, tf.constant(labels), tf.zeros([1, 1], tf.int32))
    sums = pretraining_model.discriminator_sums(tf.constant(logits, tf.float32), fake, with_histograms=True)
    return {name: value.numpy() for name, value in sums.items()}


def test_fixed_disc_auc_equals_sklearn_and_ignores_padding():
    random = np.random.default_rng(0)
    labels, input_mask = (random.uniform(size=[40, 50]) < share for share in (0.15, 0.7))
    logits = random.normal(size=[40, 50]) + labels - 1.5
    logits[~input_mask] = -20.0  # what padding looks like to a trained discriminator: easily told negatives
    labels &= input_mask
    sums = sums_of(logits, labels.astype(np.int32), input_mask.astype(np.int32))
    assert sums["disc_fake_histogram"].sum() == labels.sum() and sums["disc_real_histogram"].sum() == (input_mask & ~labels).sum()
    found = pretraining_model.auc(sums["disc_fake_histogram"], sums["disc_real_histogram"])
    assert abs(found - roc_auc_score(labels[input_mask], logits[input_mask])) < 1e-3
    inflated = roc_auc_score(labels.ravel(), logits.ravel())  # what google-research/electra reports
    assert inflated > found + 0.05


@pytest.mark.parametrize(
    "positives, negatives, area",
    [([0, 0, 5], [3, 3, 0], 1.0), ([5, 0, 0], [0, 3, 3], 0.0), ([2, 2], [2, 2], 0.5), ([4], [4], 0.5), ([1, 1, 2], [2, 1, 1], 10.5 / 16)],
)
def test_auc_by_hand(positives, negatives, area):
    """Last case: of 4 x 4 pairs, 1 x 0 + 1 x 2 + 2 x 3 = 8 are won and 1 x 2 + 1 x 1 + 2 x 1 = 5 are ties, which count half."""
    assert pretraining_model.auc(np.array(positives, float), np.array(negatives, float)) == pytest.approx(area)


def test_auc_without_both_classes_is_no_number():
    assert math.isnan(pretraining_model.auc(np.zeros(3), np.ones(3))) and math.isnan(pretraining_model.auc(np.ones(3), np.zeros(3)))


def test_scores_at_both_ends_fall_into_the_outer_bins():
    sums = sums_of([[-200.0, 200.0, 0.0]], np.array([[0, 1, 1]], np.int32), np.ones([1, 3], np.int32))
    assert sums["disc_real_histogram"].nonzero()[0].tolist() == [0] and sums["disc_fake_histogram"].nonzero()[0].tolist() == [500, 999]


def test_an_untrained_model_starts_at_ln_v_plus_50_ln_2():
    """45.25 at V = 40,000; what start values leave of a preference weighs more in a network as small as this one."""
    model, features = make_model(vocab_size=40000), make_features(vocab_size=40000)
    loss, sums = model.loss(features, model.denominators(features), tf.constant(0, tf.int64), ModeKeys.TRAIN)
    metrics = model.summarize({name: value.numpy() for name, value in sums.items()})
    assert abs(metrics["masked_lm_loss"] - math.log(40000)) < 0.05
    assert abs(metrics["disc_loss"] - math.log(2)) < 0.02
    assert abs(float(loss) - 45.25) < 1.0 and abs(math.log(40000) + 50 * math.log(2) - 45.25) < 0.01


# --- variants ----------------------------------------------------------------------------------------------------------------------


def cloze_logits(model, features):
    inputs = Inputs(*(features[name] for name in ("input_ids", "input_mask", "segment_ids")))
    masked = pretrain_helpers.mask(model.config, inputs, SPECIAL, state())
    mlm, cloze = model._generate(inputs, masked, None)
    return mlm, cloze, masked


def test_two_towers_predict_a_token_from_all_others_but_never_from_itself():
    model = make_model(**ELECTRIC)
    features = make_features((24, 15))
    _, before, _ = cloze_logits(model, features)
    for row, place in ((0, 5), (0, 22), (1, 1), (1, 13)):
        ids = features["input_ids"].numpy()
        ids[row, place] = 5 if ids[row, place] != 5 else 6
        _, after, _ = cloze_logits(model, {**features, "input_ids": tf.constant(ids)})
        differences = np.abs(after.logits.numpy() - before.logits.numpy()).max(-1)
        length = int(features["input_mask"].numpy()[row].sum())
        assert differences[row, place] == 0.0
        others = [at for at in range(1, length - 1) if at != place]
        assert np.all(differences[row, others] > 0) and not differences[1 - row].any()


def test_two_towers_cloze_loss_is_over_all_candidates_and_what_the_generator_is_trained_on():
    model, features, out, loss, sums = pass_through(**ELECTRIC)
    assert out.cloze.logits.shape == (BATCH, LENGTH, VOCAB)
    ids = features["input_ids"].numpy()
    candidates = (features["input_mask"].numpy() == 1) & ~np.isin(ids, SPECIAL)
    np.testing.assert_array_equal(out.cloze.weights, candidates)
    logits = out.cloze.logits.numpy().astype(np.float64)
    losses = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, ids[:, :, None], 2)[:, :, 0]
    metrics = model.summarize(sums)
    np.testing.assert_allclose(metrics["cloze_loss"], losses[candidates].sum() / (candidates.sum() + 1e-6), rtol=1e-6)
    np.testing.assert_allclose(loss, metrics["cloze_loss"] + 50 * metrics["disc_loss"], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)


def test_two_towers_predict_masked_slots_from_the_unmasked_text():
    model, features = make_model(**ELECTRIC), make_features()
    mlm, cloze, masked = cloze_logits(model, features)
    positions = masked.masked_lm_positions.numpy()
    np.testing.assert_array_equal(mlm.logits, cloze.logits.numpy()[np.arange(BATCH)[:, None], positions])


def test_keep_electric_logits_are_energy_plus_log_q_plus_prior():
    """Clark et al. 2020b: logit = energy + log q(token | context) + log(k / (1 - k)) with the share k of masked tokens."""
    model, features = make_model(**ELECTRIC), make_features()
    inputs = Inputs(*(features[name] for name in ("input_ids", "input_mask", "segment_ids")))
    _, cloze, _ = cloze_logits(model, features)
    (vectors, energy), (same, logits) = model.discriminate(inputs), model.discriminate(inputs, None, cloze)
    q = tf.nn.softmax(cloze.logits).numpy()
    log_q = np.log(np.take_along_axis(q, inputs.input_ids.numpy()[:, :, None], 2)[:, :, 0])
    np.testing.assert_allclose(logits, energy.numpy() + log_q + math.log(0.15 / 0.85), atol=1e-5)
    np.testing.assert_array_equal(vectors, same)
    # ELECTRA with two towers takes no part of that.
    electra = make_model(two_tower_generator=True)
    np.testing.assert_array_equal(electra.discriminate(inputs, None, cloze)[1], electra.discriminate(inputs)[1])


def test_log_q_does_not_train_the_generator():
    model, features = make_model(gen_weight=0.0, **ELECTRIC), make_features()
    _, changed = changed_by_one_step(model, features)
    assert changed == ENCODER | DISCRIMINATOR_HEAD


def test_a_uniform_generator_draws_every_token_alike_and_costs_ln_v():
    model, features, out, _, sums = pass_through(uniform_generator=True)
    assert not out.mlm.logits.numpy().any()
    assert model.summarize(sums)["masked_lm_loss"] == pytest.approx(math.log(VOCAB), rel=1e-6)
    features = make_features([LENGTH] * 200)
    sampled = [model.forward(features, state(step), False).fake.sampled_ids.numpy() for step in range(3)]
    counts = np.bincount(np.ravel(sampled), minlength=VOCAB)
    expected = 3 * 200 * 3 / VOCAB
    assert ((counts - expected) ** 2 / expected).sum() < 110  # 59 degrees of freedom: exceeded once in 20,000


def test_tied_weights_run_one_network_twice_with_noise_of_its_own():
    model, features = make_model(untied_generator=False), make_features()
    assert model.generators == [model.encoder]
    inputs = Inputs(*(features[name] for name in ("input_ids", "input_mask", "segment_ids")))

    def vectors(noise, site):
        return pretraining_model.run(model.encoder, inputs, noise, site=site).get_sequence_output().numpy()

    assert np.abs(vectors(state(), "generator") - vectors(state(), "electra")).max() > 0.1
    np.testing.assert_array_equal(vectors(None, "generator"), vectors(None, "electra"))


def test_masked_language_modelling_reads_the_masks_with_the_encoder():
    model, features, out, loss, sums = pass_through(electra_objective=False)
    assert out.disc_logits is None and model.discriminator_predictions is None
    metrics = model.summarize(sums)
    assert loss == pytest.approx(metrics["masked_lm_loss"], rel=1e-6) and not any(name.startswith("disc") for name in metrics)
    vectors = pretraining_model.run(model.encoder, out.masked_inputs, None).get_sequence_output()
    picked = pretrain_helpers.gather_positions(vectors, out.masked_inputs.masked_lm_positions)
    np.testing.assert_array_equal(model.generator_predictions(picked, model.encoder.get_embedding_table()), out.mlm.logits)


def test_keep_samples_come_from_logits_under_dropout():
    """As in the original, the generator that is sampled from is the one that is trained: dropout is on."""
    model, features = make_model(), make_features()
    trained, evaluated = (model.forward(features, state(), training).mlm.logits.numpy() for training in (True, False))
    assert np.abs(trained - evaluated).max() > 1e-3
    again = model.forward(features, state(), True)
    np.testing.assert_array_equal(again.mlm.logits, trained)
    expected = pretrain_helpers.sample_from_softmax(again.mlm.logits, state())
    np.testing.assert_array_equal(again.fake.sampled_ids, expected)


def test_the_discriminator_reads_the_fakes_and_the_generator_the_masks():
    model, features, out, _, _ = pass_through()
    _, logits = model.discriminate(out.fake.inputs)
    np.testing.assert_array_equal(logits, out.disc_logits)
    mlm, _ = model._generate(None, out.masked_inputs, None)
    np.testing.assert_array_equal(mlm.logits, out.mlm.logits)


def test_predict_gives_the_probability_of_being_replaced():
    model, features = make_model(), make_features(evaluation=True)
    found = model.predict(features)["is_fake"].numpy()
    inputs = Inputs(*(features[name] for name in ("input_ids", "input_mask", "segment_ids")))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-model.discriminate(inputs)[1].numpy())), rtol=1e-5)
    assert found.shape == (BATCH, LENGTH)


def test_get_softmax_output_by_hand():
    logits = tf.math.log(tf.constant([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]]))
    found = pretraining_model.get_softmax_output(logits, tf.constant([[1, 2]]), tf.constant([[1.0, 0.0]]))
    assert isinstance(found, ClozeOutput) and Outputs._fields[:2] == ("masked_inputs", "mlm")
    np.testing.assert_allclose(found.losses, [[math.log(4), -math.log(0.7)]], rtol=1e-6)
    np.testing.assert_array_equal(found.weights, [[1.0, 0.0]])


# --- sizes -------------------------------------------------------------------------------------------------------------------------


def test_dialog_koelectra_small_has_14_65_million_parameters_and_66049_in_its_head():
    config = PretrainingConfig.create(
        "dialog", "/data", {"generator_hidden_size": 1.0, "model_hparam_overrides": {"max_position_embeddings": 128}}
    )
    model = PretrainingModel(config, 40000, SPECIAL)
    sizes: dict[str, int] = {}
    for variable in model.trainable_variables:
        scope = variable_name(variable).split("/")[0]
        sizes[scope] = sizes.get(scope, 0) + math.prod(variable.shape.as_list())
    assert sizes["discriminator_predictions"] == 66049 == 256 * 256 + 256 + 256 + 1
    # embeddings 40,000 + 128 + 2 rows of 128 with a LayerNorm, their projection to 256, and 12 layers of 789,760
    assert sizes["electra"] == 40130 * 128 + 256 + 128 * 256 + 256 + 12 * 789760 and round(sizes["electra"] / 1e6, 2) == 14.65
    assert sizes["generator"] == 128 * 256 + 256 + 12 * 789760  # as wide as the discriminator, on its embeddings
