import math

import numpy as np
import pytest
import tensorflow as tf

from configure_pretraining import PretrainingConfig
from model.random import RandomState
from pretrain import pretrain_helpers
from pretrain.pretrain_data import Inputs, SpecialTokens

SPECIAL = SpecialTokens(2, 3, 4)
LENGTH = 128


def create(**user):
    return PretrainingConfig.create("mini", "/data", {"max_seq_length": LENGTH, **user})


def state(step=0, seed=1, first=0):
    return RandomState(seed, tf.constant(step, tf.int64), tf.constant(first, tf.int64))


def make_inputs(sizes, length=LENGTH, seed=0):
    """Rows [CLS] tokens [SEP] padding, of `sizes` ids in all."""
    ids = np.zeros([len(sizes), length], np.int32)
    for row, size in zip(ids, sizes, strict=True):
        row[:size] = [SPECIAL.cls, *np.random.default_rng(seed).integers(5, 1000, size - 2), SPECIAL.sep]
    return Inputs(tf.constant(ids), tf.constant((ids > 0).astype(np.int32)), tf.zeros_like(ids))


def scatter_twin(sequence, updates, positions):
    """numpy: average of the updates of each position, position 0 never written."""
    result, written = sequence.copy(), np.zeros_like(sequence)
    for row in range(len(sequence)):
        for position in set(positions[row]) - {0}:
            hits = updates[row][positions[row] == position]
            result[row, position], written[row, position] = hits.sum() // len(hits), 1
    return result, written


def mask_twin(config, ids, input_mask, position_noise, keep_noise):
    """numpy: `mask` without replacement, with its random numbers given."""
    slots, masked_ids = config.max_predictions_per_seq, ids.copy()
    positions, targets, weights = (np.zeros([len(ids), slots], kind) for kind in (np.int32, np.int32, np.float32))
    for row in range(len(ids)):
        candidates = [i for i in range(ids.shape[1]) if input_mask[row, i] and ids[row, i] not in SPECIAL]
        number = min(max(round(input_mask[row].sum() * config.mask_prob), 1), slots, len(candidates))
        for slot, position in enumerate(sorted(candidates, key=lambda i: -position_noise[row, i])[:number]):
            positions[row, slot], targets[row, slot], weights[row, slot] = position, ids[row, position], 1.0
            if keep_noise[row, slot] >= 0.15:
                masked_ids[row, position] = SPECIAL.mask
    return masked_ids, positions, targets, weights


# --- gathering and scattering -------------------------------------------------------------------------------------------------


def test_gather_positions_equals_numpy():
    random = np.random.default_rng(0)
    vectors, ids = random.normal(size=[3, 10, 4]).astype(np.float32), random.integers(0, 99, [3, 10]).astype(np.int32)
    positions = random.integers(0, 10, [3, 5]).astype(np.int32)
    rows = np.arange(3)[:, None]
    np.testing.assert_array_equal(pretrain_helpers.gather_positions(tf.constant(vectors), positions), vectors[rows, positions])
    np.testing.assert_array_equal(pretrain_helpers.gather_positions(tf.constant(ids), positions), ids[rows, positions])


def test_scatter_update_equals_numpy():
    random = np.random.default_rng(0)
    sequence, updates, positions = (
        random.integers(0, high, shape).astype(np.int32) for high, shape in ((99, (6, 10)), (99, (6, 7)), (10, (6, 7)))
    )
    expected, written = scatter_twin(sequence, updates, positions)
    found = pretrain_helpers.scatter_update(tf.constant(sequence), tf.constant(updates), tf.constant(positions))
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], written)


def test_keep_duplicate_positions_get_the_average_of_their_updates():
    ids, written = pretrain_helpers.scatter_update(tf.constant([[10, 11, 12, 13]]), tf.constant([[20, 25, 7]]), tf.constant([[2, 2, 3]]))
    assert ids.numpy().tolist() == [[10, 11, 22, 7]]  # (20 + 25) / 2, cut to an integer
    assert written.numpy().tolist() == [[0, 0, 1, 1]]


def test_keep_unused_slots_point_at_index_0_which_is_never_updated():
    ids, written = pretrain_helpers.scatter_update(tf.constant([[10, 11, 12]]), tf.constant([[77, 8, 99]]), tf.constant([[0, 1, 0]]))
    assert ids.numpy().tolist() == [[10, 8, 12]] and written.numpy().tolist() == [[0, 1, 0]]
    masked = pretrain_helpers.mask(create(), make_inputs([10, 40, 128]), SPECIAL, state())
    weights = masked.masked_lm_weights.numpy()
    assert weights.sum(-1).tolist() == [2, 6, 19]
    for field in (masked.masked_lm_positions, masked.masked_lm_ids):
        assert np.all(field.numpy()[weights == 0] == 0) and np.all(field.numpy()[weights == 1] > 0)
    assert np.all(masked.input_ids.numpy()[:, 0] == SPECIAL.cls)


# --- masking ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tokens, slots",
    [(128, 19), (127, 19), (50, 8), (30, 4), (10, 2), (3, 1), (4, 1), (70, 10), (90, 14)],
    ids=lambda value: str(value),
)
def test_keep_masking_count_is_round_half_even_of_all_tokens_clamped_to_1_and_n(tokens, slots):
    """50 x .15 = 7.5 -> 8, 30 x .15 = 4.5 -> 4, 10 x .15 = 1.5 -> 2, 70 x .15 = 10.5 -> 10, 90 x .15 = 13.5 -> 14."""
    weights = pretrain_helpers.masked_lm_weights(create(), make_inputs([tokens]), SPECIAL).numpy()
    assert weights.shape == (1, 19) and weights.dtype == np.float32
    assert weights[0].tolist() == [1.0] * slots + [0.0] * (19 - slots)
    np.testing.assert_array_equal(pretrain_helpers.mask(create(), make_inputs([tokens]), SPECIAL, state()).masked_lm_weights, weights)


def test_masking_count_is_clamped_to_the_slots_there_are():
    """30 tokens x .25 = 7.5 would be 8, but int((.25 + .005) x 30) = 7 slots are there."""
    config = create(mask_prob=0.25, max_seq_length=30)
    assert pretrain_helpers.masked_lm_weights(config, make_inputs([30], 30), SPECIAL).numpy().tolist() == [[1.0] * 7]


def test_rows_without_candidates_have_no_weight():
    ids = np.zeros([3, LENGTH], np.int32)
    ids[1, :2], ids[2, :3] = [2, 3], [2, 9, 3]
    inputs = Inputs(tf.constant(ids), tf.constant((ids > 0).astype(np.int32)), tf.zeros_like(ids))
    for masking in ("unique", "original"):
        masked = pretrain_helpers.mask(create(masking=masking), inputs, SPECIAL, state())
        assert masked.masked_lm_weights.numpy().sum(-1).tolist() == [0, 0, 1]
        assert masked.masked_lm_positions.numpy().max(-1).tolist() == [0, 0, 1]
        np.testing.assert_array_equal(masked.input_ids.numpy()[:2], ids[:2])


def test_fixed_never_more_slots_than_candidates():
    """Two candidates, but 30 tokens x .15 = 4 slots: each candidate is masked once."""
    ids = np.zeros([1, LENGTH], np.int32)
    ids[0, :30] = [2, 7, 8, *[3] * 27]
    inputs = Inputs(tf.constant(ids), tf.constant((ids > 0).astype(np.int32)), tf.zeros_like(ids))
    masked = pretrain_helpers.mask(create(), inputs, SPECIAL, state())
    assert masked.masked_lm_weights.numpy().sum() == 2 and sorted(masked.masked_lm_positions.numpy()[0, :2]) == [1, 2]


def test_keep_candidates_are_all_but_cls_sep_mask_and_padding():
    ids = tf.constant([[2, 5, 1, 4, 9, 3, 0, 7, 0]])
    input_mask = tf.constant([[1, 1, 1, 1, 1, 1, 1, 0, 0]])
    candidates = pretrain_helpers.get_candidates_mask(Inputs(ids, input_mask, tf.zeros_like(ids)), SPECIAL)
    # [UNK] (1) is a candidate, and so is an id 0 that the mask calls a token: only the mask says what padding is
    assert candidates.numpy().tolist() == [[False, True, True, False, True, False, True, False, False]]


@pytest.mark.parametrize("masking", ["unique", "original"])
def test_only_candidates_are_masked(masking):
    inputs = make_inputs([40, 77, 128, 5])
    masked = pretrain_helpers.mask(create(masking=masking), inputs, SPECIAL, state())
    candidates = pretrain_helpers.get_candidates_mask(inputs, SPECIAL).numpy()
    for row in range(4):
        used = masked.masked_lm_weights.numpy()[row] > 0
        assert candidates[row, masked.masked_lm_positions.numpy()[row][used]].all()
    changed = masked.input_ids.numpy() != inputs.input_ids.numpy()
    assert np.all(masked.input_ids.numpy()[changed] == SPECIAL.mask) and not (changed & ~candidates).any()


def test_mask_equals_numpy_with_forced_random_numbers(monkeypatch):
    config, inputs, random = create(), make_inputs([128, 64, 31, 9, 3]), np.random.default_rng(3)
    positions, keep = random.normal(size=[5, LENGTH]).astype(np.float32), random.uniform(size=[5, 19]).astype(np.float32)
    monkeypatch.setattr(pretrain_helpers, "gumbel", lambda *_: tf.constant(positions))
    monkeypatch.setattr(pretrain_helpers, "uniform", lambda *_: tf.constant(keep))
    masked = pretrain_helpers.mask(config, inputs, SPECIAL, state())
    expected = mask_twin(config, inputs.input_ids.numpy(), inputs.input_mask.numpy(), positions, keep)
    found = (masked.input_ids, masked.masked_lm_positions, masked.masked_lm_ids, masked.masked_lm_weights)
    for value, twin in zip(found, expected, strict=True):
        np.testing.assert_array_equal(value, twin)
    np.testing.assert_array_equal(masked.input_mask, inputs.input_mask)


def test_keep_masking_symbols_are_85_percent_mask_15_percent_unchanged_and_never_random():
    inputs = make_inputs([LENGTH] * 2000, seed=5)
    masked = pretrain_helpers.mask(create(), inputs, SPECIAL, state())
    shown = np.take_along_axis(masked.input_ids.numpy(), masked.masked_lm_positions.numpy(), 1)
    as_mask, kept = shown == SPECIAL.mask, shown == masked.masked_lm_ids.numpy()
    assert np.all(as_mask ^ kept)
    assert abs(as_mask.mean() - 0.85) < 4 * math.sqrt(0.85 * 0.15 / as_mask.size)  # four standard deviations of 38,000 draws


def test_fixed_positions_are_drawn_without_replacement():
    masked = pretrain_helpers.mask(create(), make_inputs([LENGTH] * 500), SPECIAL, state())
    assert all(len(set(row)) == 19 for row in masked.masked_lm_positions.numpy())


def test_original_masking_draws_positions_with_replacement():
    """19 draws among 126 candidates: 126 (1 - (1 - 1/126)^19) = 17.7 distinct ones on average."""
    masked = pretrain_helpers.mask(create(masking="original"), make_inputs([LENGTH] * 1000), SPECIAL, state())
    distinct = np.array([len(set(row)) for row in masked.masked_lm_positions.numpy()])
    assert abs(distinct.mean() - 126 * (1 - (1 - 1 / 126) ** 19)) < 0.15 and 17.5 < distinct.mean() < 17.9


@pytest.mark.parametrize("masking", ["unique", "original"])
def test_every_candidate_is_equally_likely(masking):
    inputs = make_inputs([22] * 3000)  # 20 candidates, 3 slots
    masked = pretrain_helpers.mask(create(masking=masking), inputs, SPECIAL, state())
    used = masked.masked_lm_positions.numpy()[masked.masked_lm_weights.numpy() > 0]
    counts = np.bincount(used, minlength=LENGTH)
    assert counts[0] == 0 and np.all(counts[21:] == 0)
    chi_square = ((counts[1:21] - 450.0) ** 2 / 450.0).sum()
    assert chi_square < 50.0  # 19 degrees of freedom: exceeded once in 7,000


def test_masks_depend_on_seed_step_and_position_in_the_batch_alone():
    config, inputs = create(), make_inputs([100] * 6)
    first = pretrain_helpers.mask(config, inputs, SPECIAL, state())
    again = pretrain_helpers.mask(config, inputs, SPECIAL, state())
    part = Inputs(*(value[2:4] for value in inputs[:3]))
    of_part = pretrain_helpers.mask(config, part, SPECIAL, state(first=2))
    np.testing.assert_array_equal(first.masked_lm_positions, again.masked_lm_positions)
    np.testing.assert_array_equal(first.masked_lm_positions[2:4], of_part.masked_lm_positions)
    np.testing.assert_array_equal(first.input_ids[2:4], of_part.input_ids)
    for other in (state(step=1), state(seed=2)):
        different = pretrain_helpers.mask(config, inputs, SPECIAL, other)
        assert np.any(first.masked_lm_positions.numpy() != different.masked_lm_positions.numpy())
    assert len({tuple(row) for row in first.masked_lm_positions.numpy()}) == 6


@pytest.mark.parametrize("masking", ["unique", "original"])
def test_unmask_undoes_mask(masking):
    inputs = make_inputs([128, 40, 9])
    masked = pretrain_helpers.mask(create(masking=masking), inputs, SPECIAL, state())
    np.testing.assert_array_equal(pretrain_helpers.unmask(masked).input_ids, inputs.input_ids)


# --- sampling -----------------------------------------------------------------------------------------------------------------


def sample(logits, count, **arguments):
    """Frequencies of `count` x 100 samples from softmax(logits)."""
    tiled = tf.tile(tf.constant(logits, tf.float32)[None, None], [count, 100, 1])
    disallow = arguments.get("disallow")
    disallow = None if disallow is None else tf.fill([count, 100], disallow)
    ids = pretrain_helpers.sample_from_softmax(tiled, state(), disallow)
    assert ids.dtype == tf.int32 and ids.shape == (count, 100)
    return np.bincount(ids.numpy().ravel(), minlength=len(logits)) / ids.numpy().size


def test_sampling_follows_the_softmax():
    logits = np.array([2.0, 1.0, 0.0, -1.0, -3.0])
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_array_less(np.abs(sample(logits, 1000) - expected), 4 * np.sqrt(expected * (1 - expected) / 1e5))


def test_a_disallowed_token_is_never_sampled_and_the_others_keep_their_proportions():
    logits = np.array([9.0, 1.0, 0.0, 0.0])
    frequencies = sample(logits, 1000, disallow=0)
    expected = np.exp(logits[1:]) / np.exp(logits[1:]).sum()
    assert frequencies[0] == 0.0
    np.testing.assert_allclose(frequencies[1:], expected, atol=0.01)


def fakes(config, inputs, logits):
    """(masked inputs, fake data) with the same logits in every slot."""
    masked = pretrain_helpers.mask(config, inputs, SPECIAL, state())
    tiled = tf.tile(tf.constant(logits, tf.float32)[None, None], [*masked.masked_lm_ids.shape, 1])
    return masked, pretrain_helpers.get_fake_data(config, masked, tiled, state())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_divides_the_logits(temperature):
    logits = np.array([-99.0, 2.0, 0.0, 1.0])
    masked, fake = fakes(create(temperature=temperature), make_inputs([LENGTH] * 2000), logits)
    frequencies = np.bincount(fake.sampled_ids.numpy().ravel(), minlength=4) / fake.sampled_ids.numpy().size
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    np.testing.assert_array_less(np.abs(frequencies - expected), 4 * np.sqrt(expected * (1 - expected) / 38000) + 1e-9)


def test_keep_a_token_that_was_sampled_correctly_counts_as_real():
    inputs = make_inputs([LENGTH, 20])
    ids = np.where(inputs.input_ids.numpy() > 4, 6, inputs.input_ids.numpy())
    ids[:, 5:9] = 7  # most tokens are 6, a few are 7, and every sample is 6
    inputs = inputs._replace(input_ids=tf.constant(ids))
    masked, fake = fakes(create(), inputs, 1000.0 * np.eye(10)[6])
    assert np.all(fake.sampled_ids.numpy() == 6)
    expected, at = np.zeros_like(ids), masked.masked_lm_positions.numpy()
    for row in range(2):
        expected[row, [i for i in at[row] if i and ids[row, i] != 6]] = 1
    assert 0 < expected.sum() < (at > 0).sum()
    np.testing.assert_array_equal(fake.is_fake_tokens, expected)
    np.testing.assert_array_equal(fake.inputs.input_ids, np.where(expected, 6, ids))


def test_keep_electric_labels_every_sampled_position_fake():
    inputs = make_inputs([LENGTH, 20])
    inputs = inputs._replace(input_ids=tf.where(inputs.input_ids > 4, 6, inputs.input_ids))
    masked, fake = fakes(create(electric_objective=True), inputs, 1000.0 * np.eye(10)[6])
    expected = np.zeros([2, LENGTH])
    for row, positions in enumerate(masked.masked_lm_positions.numpy()):
        expected[row, positions[positions > 0]] = 1
    np.testing.assert_array_equal(fake.is_fake_tokens, expected)
    np.testing.assert_array_equal(fake.inputs.input_ids, inputs.input_ids)


def test_original_masking_gives_a_position_hit_twice_the_average_of_its_samples():
    config = create(masking="original")
    inputs = make_inputs([LENGTH] * 20)
    masked, fake = fakes(config, inputs, np.zeros(1000))
    expected, written = scatter_twin(inputs.input_ids.numpy(), fake.sampled_ids.numpy(), masked.masked_lm_positions.numpy())
    np.testing.assert_array_equal(fake.inputs.input_ids, expected)
    np.testing.assert_array_equal(fake.is_fake_tokens, written * (expected != inputs.input_ids.numpy()))
    assert any(len(set(row)) < 19 for row in masked.masked_lm_positions.numpy())


def test_disallow_correct_never_samples_the_original():
    config, inputs = create(disallow_correct=True), make_inputs([LENGTH] * 20)
    inputs = inputs._replace(input_ids=tf.where(inputs.input_ids > 4, 6, inputs.input_ids))
    masked, fake = fakes(config, inputs, 5.0 * np.eye(10)[6])
    used = masked.masked_lm_weights.numpy() > 0
    assert not np.any(fake.sampled_ids.numpy()[used] == 6) and fake.is_fake_tokens.numpy().sum() == used.sum() == 20 * 19


def test_no_gradient_flows_through_the_samples():
    config, inputs = create(), make_inputs([20])
    masked = pretrain_helpers.mask(config, inputs, SPECIAL, state())
    logits = tf.Variable(tf.zeros([1, 19, 10]))
    with tf.GradientTape() as tape:
        fake = pretrain_helpers.get_fake_data(config, masked, logits, state())
        total = tf.reduce_sum(tf.cast(fake.inputs.input_ids, tf.float32))
    assert tape.gradient(total, logits) is None
