"""Masking, gathering, scattering and sampling: the steps between the two networks of replaced-token detection.

Names and behaviour as in google-research/electra pretrain/pretrain_helpers.py, unless a comment says otherwise.
Dimension key as in model/modeling.py.
"""

from typing import NamedTuple

import tensorflow as tf

from configure_pretraining import PretrainingConfig
from model.layers import sample, sizes_of
from model.random import RandomState, gumbel, uniform
from pretrain.pretrain_data import Inputs, SpecialTokens, get_updated_inputs

KEEP_PROBABILITY = 0.15  # of the masked positions, this share keeps its token; none gets a random one


def gather_positions(sequence: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Picks positions from every row. sequence [B, L, D] or [B, L], positions int32 [B, N] -> [B, N, D] or [B, N]."""
    length = sequence.shape[1]
    shift = tf.expand_dims(length * tf.range(tf.shape(positions)[0]), -1)
    flat = tf.reshape(sequence, [-1, *sequence.shape[2:]])  # [B * L, ...]: one flat gather has the cheaper gradient
    return tf.gather(flat, positions + shift)


def scatter_update(sequence: tf.Tensor, updates: tf.Tensor, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Writes `updates` at `positions` of every row; position 0 is never written, so unused slots can point there.

    As in google-research/electra, a position that occurs several times gets the average of its updates (for ids: an
    arbitrary token); only masking="original" draws such positions.

    Args:
      sequence: int32 [B, L]. updates, positions: int32 [B, N].
    Returns:
      (updated sequence, 1 where it was written and 0 elsewhere), int32 [B, L] both.
    """
    length = sequence.shape[1]
    slots = tf.one_hot(positions, length, dtype=tf.int32)  # [B, N, L]
    hits = tf.reduce_sum(slots, 1) * (1 - tf.one_hot(0, length, dtype=tf.int32))  # [B, L]
    averages = tf.reduce_sum(slots * updates[:, :, None], 1) // tf.maximum(hits, 1)
    written = tf.minimum(hits, 1)
    return (1 - written) * sequence + written * averages, written


def get_candidates_mask(inputs: Inputs, special: SpecialTokens) -> tf.Tensor:
    """True where a token may be masked: everything but [CLS], [SEP], [MASK] and padding. bool [B, L]."""
    candidates = tf.cast(inputs.input_mask, tf.bool)
    for token in special:
        candidates &= inputs.input_ids != token
    return candidates


def masked_lm_weights(config: PretrainingConfig, inputs: Inputs, special: SpecialTokens) -> tf.Tensor:
    """1.0 for the slots in use, float32 [B, N]: round-half-even(tokens x mask_prob) of them, clamped to [1, N].

    As in google-research/electra, [CLS] and [SEP] count as tokens. Unlike there, never more slots than candidates, so that
    no position has to be used twice and a row without candidates has none.
    """
    slots = config.max_predictions_per_seq
    tokens = tf.cast(tf.reduce_sum(inputs.input_mask, -1), tf.float32)
    number = tf.clip_by_value(tf.cast(tf.round(tokens * config.mask_prob), tf.int32), 1, slots)
    candidates = tf.reduce_sum(tf.cast(get_candidates_mask(inputs, special), tf.int32), -1)
    if config.masking == "original":
        number *= tf.minimum(candidates, 1)
    return tf.sequence_mask(tf.minimum(number, candidates) if config.masking == "unique" else number, slots, tf.float32)


def mask(config: PretrainingConfig, inputs: Inputs, special: SpecialTokens, random: RandomState) -> Inputs:
    """Chooses positions and puts [MASK] there (85 %) or leaves the token (15 %); returns inputs with the masked_lm_* fields.

    Unlike google-research/electra, which draws with replacement (on average 17.7 distinct of 19), positions are drawn without:
    the N largest of Gumbel noise over the candidates. masking="original" reproduces the original.
    """
    candidates = get_candidates_mask(inputs, special)
    weights = masked_lm_weights(config, inputs, special)
    used = tf.cast(weights, tf.int32)
    positions = _draw_positions(config, candidates, random) * used
    ids = gather_positions(inputs.input_ids, positions) * used
    shown_as_mask = tf.cast(uniform(random, "mask/keep", sizes_of(positions)) >= KEEP_PROBABILITY, tf.int32)
    masked_ids, _ = scatter_update(inputs.input_ids, tf.fill(tf.shape(positions), special.mask), positions * shown_as_mask)
    return get_updated_inputs(inputs, input_ids=masked_ids, masked_lm_positions=positions, masked_lm_ids=ids, masked_lm_weights=weights)


def _draw_positions(config: PretrainingConfig, candidates: tf.Tensor, random: RandomState) -> tf.Tensor:
    """int32 [B, N] positions among the candidates bool [B, L]."""
    slots, length = config.max_predictions_per_seq, candidates.shape[1]
    batch_size = tf.shape(candidates)[0]
    if config.masking == "original":
        noise = gumbel(random, "mask/positions", [batch_size, slots, length])
        return tf.argmax(tf.where(candidates[:, None, :], noise, -1e9), -1, tf.int32)
    noise = gumbel(random, "mask/positions", [batch_size, length])
    return tf.math.top_k(tf.where(candidates, noise, -1e9), slots).indices


def unmask(inputs: Inputs) -> Inputs:
    """Puts the original tokens back at the masked positions."""
    ids, _ = scatter_update(inputs.input_ids, inputs.masked_lm_ids, inputs.masked_lm_positions)
    return get_updated_inputs(inputs, input_ids=ids)


def sample_from_softmax(logits: tf.Tensor, random: RandomState, disallow: tf.Tensor | None = None) -> tf.Tensor:
    """One sample from softmax(logits) per row. logits [B, N, V] in any float type -> int32 [B, N].

    `disallow` int32 [B, N] names one id per row that must not be drawn. Unlike google-research/electra this gives ids, not
    one-hot rows, and inverts the cumulative distribution instead of adding Gumbel noise to every logit: the same distribution.
    """
    if disallow is not None:
        logits = tf.cast(logits, tf.float32) - 1000.0 * tf.one_hot(disallow, logits.shape[-1])
    slots = sizes_of(logits)[:2]
    drawn = uniform(random, "generator/sample", slots)
    return tf.reshape(sample(tf.reshape(logits, [-1, logits.shape[-1]]), tf.reshape(drawn, [-1])), slots)


class FakeData(NamedTuple):
    """The discriminator's input and what it should say."""

    inputs: Inputs
    is_fake_tokens: tf.Tensor  # int32 [B, L]
    sampled_ids: tf.Tensor  # int32 [B, N]


def get_fake_data(config: PretrainingConfig, inputs: Inputs, mlm_logits: tf.Tensor, random: RandomState) -> FakeData:
    """Replaces the masked tokens by samples of the generator.

    As in google-research/electra a token that was sampled correctly counts as real; Electric calls every sampled position fake.
    """
    inputs = unmask(inputs)
    disallow = inputs.masked_lm_ids if config.disallow_correct else None
    scaled = mlm_logits if config.temperature == 1.0 else tf.cast(mlm_logits, tf.float32) / config.temperature
    sampled_ids = tf.stop_gradient(sample_from_softmax(scaled, random, disallow))
    updated_ids, written = scatter_update(inputs.input_ids, sampled_ids, inputs.masked_lm_positions)
    changed = tf.cast(updated_ids != inputs.input_ids, tf.int32)
    labels = written if config.electric_objective else written * changed
    return FakeData(get_updated_inputs(inputs, input_ids=updated_ids), labels, sampled_ids)
