"""Generator and discriminator trained together by replaced-token detection (Clark et al. 2020), and the variants of the original.

Follows PretrainingModel of google-research/electra run_pretraining.py. Dimension key as in model/modeling.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from configure_pretraining import PretrainingConfig
from model.command import UserError
from model.estimator import Features, ModeKeys, Sums
from model.layers import (
    Dense,
    LayerNorm,
    argmax,
    bias_add,
    bias_gelu,
    create_variable,
    cross_entropy,
    glorot_uniform,
    matmul,
    truncated_normal,
    zeros,
)
from model.modeling import BertConfig, BertModel, BertOutput, get_bert_config
from model.random import RandomState
from pretrain import pretrain_helpers
from pretrain.pretrain_data import Inputs, SpecialTokens, features_to_inputs

EPSILON = 1e-6  # in every normalizer, as in google-research/electra
_AUC_BINS = 1000


def get_model_config(config: PretrainingConfig, vocab_size: int) -> BertConfig:
    """The discriminator's shape."""
    return get_bert_config(config.model_size, vocab_size, config.model_hparam_overrides)


def get_generator_config(config: PretrainingConfig, bert_config: BertConfig) -> BertConfig:
    """The generator's shape: a fraction of the discriminator's width and depth, heads of 64; UserError if the two do not fit."""
    hidden_size = int(round(bert_config.hidden_size * config.generator_hidden_size))
    heads = max(1, hidden_size // 64)
    if hidden_size < 1 or hidden_size % heads:
        raise UserError(
            f"generator_hidden_size {config.generator_hidden_size} of {bert_config.hidden_size} makes a generator {hidden_size} wide, "
            f"which must be a positive multiple of its {heads} attention heads (--generator_hidden_size)"
        )
    return dataclasses.replace(
        bert_config,
        hidden_size=hidden_size,
        num_hidden_layers=int(round(bert_config.num_hidden_layers * config.generator_layers)),
        intermediate_size=4 * hidden_size,
        num_attention_heads=heads,
    )


class GeneratorPredictions(tf.Module):
    """Vectors -> logits over the vocabulary: dense, GELU, LayerNorm, then the embedding table and a bias."""

    def __init__(self, inputs: int, table: tf.Variable, initializer_range: float, seed: int, dtype: tf.DType):
        super().__init__()
        vocab_size, width = table.shape
        self.dtype = dtype
        self.dense = Dense("generator_predictions/dense", inputs, width, truncated_normal(initializer_range), seed, dtype)
        self.layer_norm = LayerNorm("generator_predictions/LayerNorm", width, seed)
        self.output_bias = create_variable("generator_predictions/output_bias", (vocab_size,), zeros, seed)

    def __call__(self, vectors: tf.Tensor, table: tf.Variable) -> tf.Tensor:
        """vectors [B, N, D], table [V, E] -> logits [B, N, V] in the compute type: what is made of them is float32 again."""
        hidden = bias_gelu(self.dense.matmul(vectors), tf.convert_to_tensor(self.dense.bias))
        hidden = self.layer_norm(tf.cast(hidden, tf.float32))  # [B, N, E]
        logits = matmul(hidden, table, self.dtype, transpose_kernel=True)
        return bias_add(logits, tf.convert_to_tensor(self.output_bias))


class DiscriminatorPredictions(tf.Module):
    """Vectors -> one logit per token: positive means replaced."""

    def __init__(self, config: BertConfig, seed: int, dtype: tf.DType):
        super().__init__()
        scope, width = "discriminator_predictions", config.hidden_size
        self.dense = Dense(f"{scope}/dense", width, width, truncated_normal(config.initializer_range), seed, dtype)
        self.output = Dense(f"{scope}/dense_1", width, 1, glorot_uniform, seed)

    def __call__(self, vectors: tf.Tensor) -> tf.Tensor:
        """vectors float32 [B, L, D] -> logits float32 [B, L]."""
        hidden = bias_gelu(self.dense.matmul(vectors), tf.convert_to_tensor(self.dense.bias))
        return tf.squeeze(self.output(tf.cast(hidden, tf.float32)), -1)


class ClozeOutput(NamedTuple):
    """A softmax over the vocabulary at some positions, against the tokens that belong there."""

    logits: tf.Tensor  # [B, N, V] in the compute type (two-tower generator: [B, L, V])
    losses: tf.Tensor  # negative log-likelihood of the right token, float32 [B, N]
    weights: tf.Tensor  # float32 [B, N]


def get_softmax_output(logits: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> ClozeOutput:
    """logits [B, N, V], targets int32 [B, N], weights float32 [B, N]."""
    return ClozeOutput(logits, cross_entropy(logits, targets), weights)


class Outputs(NamedTuple):
    """Everything one pass computes. `fake` and below are None without a discriminator, `cloze` without a two-tower generator."""

    masked_inputs: Inputs
    mlm: ClozeOutput
    fake: pretrain_helpers.FakeData
    cloze: ClozeOutput | None
    disc_logits: tf.Tensor | None  # float32 [B, L]
    disc_sequence_output: tf.Tensor | None  # float32 [B, L, D]


class PretrainingModel(tf.Module):
    """The whole pre-training network; what an Estimator trains.

    Args:
      config: the run's configuration.
      vocab_size: V.
      special: ids that are never masked.
      dtype: type of the matrix products.
    """

    def __init__(self, config: PretrainingConfig, vocab_size: int, special: SpecialTokens, dtype: tf.DType = tf.float32):
        super().__init__()
        self.config, self.special = config, special
        self.bert_config = get_model_config(config, vocab_size)
        seed, shape = config.seed, self.bert_config
        self.encoder = BertModel(shape, config.embedding_size, "electra", None, seed, dtype)
        self.generators = self._make_generators(dtype)
        self.generator_predictions = None
        if not config.uniform_generator:
            inputs = sum(generator.config.hidden_size for generator in self.generators)
            table = self.generators[0].get_embedding_table()
            self.generator_predictions = GeneratorPredictions(inputs, table, shape.initializer_range, seed, dtype)
        self.discriminator_predictions = DiscriminatorPredictions(shape, seed, dtype) if config.has_discriminator else None

    def _make_generators(self, dtype: tf.DType) -> list[BertModel]:
        """None, one, or two (left-to-right and right-to-left) generator networks; the encoder itself where it is tied."""
        config = self.config
        if config.uniform_generator:
            return []
        if not config.has_own_generator:
            return [self.encoder]
        shape = get_generator_config(config, self.bert_config)
        shared = None if config.untied_generator_embeddings else self.encoder.embeddings
        scopes = ["generator_ltr", "generator_rtl"] if config.two_tower_generator else ["generator"]
        return [BertModel(shape, None, scope, shared, config.seed, dtype) for scope in scopes]

    # --- the forward pass ----------------------------------------------------------------------------------------------------

    def forward(self, features: Features, random: RandomState, training: bool) -> Outputs:
        """Masks a batch, fills it in with the generator, and shows it to the discriminator; dropout only if `training`."""
        inputs = features_to_inputs(features)
        masked = pretrain_helpers.mask(self.config, inputs, self.special, random)
        return self.forward_masked(inputs, masked, random, training)

    def forward_masked(self, inputs: Inputs, masked: Inputs, random: RandomState, training: bool) -> Outputs:
        """As `forward`, on positions that were already chosen."""
        noise = random if training else None
        mlm, cloze = self._generate(inputs, masked, noise)
        fake = pretrain_helpers.get_fake_data(self.config, masked, mlm.logits, random)
        if self.discriminator_predictions is None:
            return Outputs(masked, mlm, fake, cloze, None, None)
        sequence_output, logits = self.discriminate(fake.inputs, noise, cloze)
        return Outputs(masked, mlm, fake, cloze, logits, sequence_output)

    def _generate(self, inputs: Inputs, masked: Inputs, noise: RandomState | None) -> tuple[ClozeOutput, ClozeOutput | None]:
        """The generator's predictions at the masked positions and, with two towers, at every position."""
        if self.generator_predictions is None:
            logits = tf.zeros([*tf.unstack(tf.shape(masked.masked_lm_ids)), self.bert_config.vocab_size])
            logits = tf.ensure_shape(logits, [None, self.config.max_predictions_per_seq, self.bert_config.vocab_size])
            return get_softmax_output(logits, masked.masked_lm_ids, masked.masked_lm_weights), None
        table = self.generators[0].get_embedding_table()
        if self.config.two_tower_generator:
            vectors = self._two_tower_vectors(inputs, noise)
            logits = self.generator_predictions(vectors, table)  # [B, L, V]
            candidates = pretrain_helpers.get_candidates_mask(inputs, self.special)
            cloze = get_softmax_output(logits, inputs.input_ids, tf.cast(candidates, tf.float32))
            logits = pretrain_helpers.gather_positions(logits, masked.masked_lm_positions)
            return get_softmax_output(logits, masked.masked_lm_ids, masked.masked_lm_weights), cloze
        sequence_output = run(self.generators[0], masked, noise, site="generator").get_sequence_output()
        vectors = pretrain_helpers.gather_positions(sequence_output, masked.masked_lm_positions)  # [B, N, D]
        logits = self.generator_predictions(vectors, table)
        return get_softmax_output(logits, masked.masked_lm_ids, masked.masked_lm_weights), None

    def _two_tower_vectors(self, inputs: Inputs, noise: RandomState | None) -> tf.Tensor:
        """For every position, what the left-to-right tower knows before it and the other one after it. float32 [B, L, 2 D]."""
        ltr, rtl = self.generators
        before = run(ltr, inputs, noise, ltr=True).get_sequence_output()
        after = run(rtl, inputs, noise, rtl=True).get_sequence_output()
        return tf.concat([tf.roll(before, 1, 1), tf.roll(after, -1, 1)], -1)

    def discriminate(
        self, inputs: Inputs, noise: RandomState | None = None, cloze: ClozeOutput | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """(vectors float32 [B, L, D], logits float32 [B, L]) of the discriminator on corrupted `inputs`."""
        assert self.discriminator_predictions is not None, "only called with a discriminator"
        sequence_output = run(self.encoder, inputs, noise, site="electra").get_sequence_output()
        logits = self.discriminator_predictions(sequence_output)
        if self.config.electric_objective and cloze is not None:  # Clark et al. 2020b, eq. 5: noise-contrastive estimation
            log_q = -cross_entropy(cloze.logits, inputs.input_ids)
            logits += tf.stop_gradient(log_q) + float(np.log(self.config.mask_prob / (1.0 - self.config.mask_prob)))
        return sequence_output, logits

    # --- what the estimator asks ---------------------------------------------------------------------------------------------

    def denominators(self, features: Features) -> Sums:
        """Numbers of masked slots, of tokens and of candidates in this part of the batch."""
        inputs = features_to_inputs(features)
        candidates = pretrain_helpers.get_candidates_mask(inputs, self.special)
        return {
            "masked": tf.reduce_sum(pretrain_helpers.masked_lm_weights(self.config, inputs, self.special)),
            "tokens": tf.cast(tf.reduce_sum(inputs.input_mask), tf.float32),
            "candidates": tf.reduce_sum(tf.cast(candidates, tf.float32)),
        }

    def loss(self, features: Features, denominators: Sums, step: tf.Tensor, mode: ModeKeys) -> tuple[tf.Tensor, Sums]:
        """gen_weight x generator loss + disc_weight x discriminator loss (Clark et al. 2020, section 2.1)."""
        training = mode == ModeKeys.TRAIN
        # Evaluation draws its masks from a stream of its own, by the example's place in the data set.
        seed = self.config.seed if training else self.config.seed + 2**32
        out = self.forward(features, RandomState(seed, step, features["position"][0]), training)
        sums = generator_sums(out) | {f"total_{name}": value for name, value in self.denominators(features).items()}
        generator_loss, generator_total = sums["mlm_loss"], denominators["masked"]
        if out.cloze is not None:
            sums["cloze_loss"] = tf.reduce_sum(out.cloze.losses * out.cloze.weights)
            generator_loss, generator_total = sums["cloze_loss"], denominators["candidates"]
        loss = self.config.gen_weight * generator_loss / (generator_total + EPSILON)
        if out.disc_logits is not None:
            sums |= discriminator_sums(out.disc_logits, out.fake, with_histograms=not training)
            loss += self.config.disc_weight * sums["disc_loss"] / (denominators["tokens"] + EPSILON)
        sums["examples"] = (
            tf.reduce_sum(features["is_real"]) if "is_real" in features else tf.cast(tf.size(features["position"]), tf.float32)
        )
        return loss, sums

    def summarize(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The original's metrics from added-up sums; disc_auc only where histograms were kept (evaluation)."""
        masked, tokens = sums["total_masked"] + EPSILON, sums["total_tokens"] + EPSILON
        metrics: dict[str, Any] = {
            "masked_lm_loss": sums["mlm_loss"] / masked,
            "masked_lm_accuracy": sums["mlm_correct"] / masked,
            "sampled_masked_lm_accuracy": sums["sampled_correct"] / masked,
        }
        generator_loss = metrics["masked_lm_loss"]
        if "cloze_loss" in sums:
            generator_loss = metrics["cloze_loss"] = sums["cloze_loss"] / (sums["total_candidates"] + EPSILON)
        loss = self.config.gen_weight * generator_loss
        if "disc_loss" in sums:
            metrics["disc_loss"] = sums["disc_loss"] / tokens
            metrics["disc_accuracy"] = sums["disc_correct"] / tokens
            metrics["disc_precision"] = sums["disc_found"] / max(sums["disc_flagged"], 1.0)
            metrics["disc_recall"] = sums["disc_found"] / max(sums["disc_fake"], 1.0)
            metrics["disc_flagged_share"] = sums["disc_flagged"] / tokens
            metrics["disc_fake_share"] = sums["disc_fake"] / tokens
            loss += self.config.disc_weight * metrics["disc_loss"]
        if "disc_fake_histogram" in sums:
            metrics["disc_auc"] = auc(sums["disc_fake_histogram"], sums["disc_real_histogram"])
        metrics |= {"loss": loss, "examples": sums["examples"], "tokens": sums["total_tokens"]}
        return {name: float(value) for name, value in metrics.items()}

    def predict(self, features: Features) -> dict[str, tf.Tensor]:
        """The discriminator's view of unmasked text: "is_fake" probabilities float32 [B, L]."""
        _, logits = self.discriminate(features_to_inputs(features))
        return {"is_fake": tf.sigmoid(logits)}


def run(
    model: BertModel, inputs: Inputs, noise: RandomState | None, site: str | None = None, ltr: bool = False, rtl: bool = False
) -> BertOutput:
    return model(inputs.input_ids, inputs.input_mask, inputs.segment_ids, noise, ltr, rtl, site)


def generator_sums(out: Outputs) -> Sums:
    """Sums over the masked slots."""
    weights, targets = out.mlm.weights, out.masked_inputs.masked_lm_ids
    predictions = argmax(out.mlm.logits)
    return {
        "mlm_loss": tf.reduce_sum(out.mlm.losses * weights),
        "mlm_correct": tf.reduce_sum(tf.cast(predictions == targets, tf.float32) * weights),
        "sampled_correct": tf.reduce_sum(tf.cast(out.fake.sampled_ids == targets, tf.float32) * weights),
    }


def discriminator_sums(logits: tf.Tensor, fake: pretrain_helpers.FakeData, with_histograms: bool) -> Sums:
    """Sums over all tokens that are not padding, special tokens included. logits float32 [B, L]."""
    weights, labels = tf.cast(fake.inputs.input_mask, tf.float32), tf.cast(fake.is_fake_tokens, tf.float32)
    flagged = tf.cast(logits > 0.0, tf.float32)
    sums = {
        "disc_loss": tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits) * weights),
        "disc_correct": tf.reduce_sum(tf.cast(flagged == labels, tf.float32) * weights),
        "disc_flagged": tf.reduce_sum(flagged * weights),
        "disc_fake": tf.reduce_sum(labels * weights),
        "disc_found": tf.reduce_sum(flagged * labels * weights),
    }
    if with_histograms:
        # Unlike google-research/electra, padding has no part in the AUC: there it counts as easily told real tokens.
        bins = tf.cast(tf.minimum(tf.sigmoid(logits) * _AUC_BINS, _AUC_BINS - 1.0), tf.int32)
        flat = tf.reshape(bins, [-1])
        for name, share in (("disc_fake_histogram", labels), ("disc_real_histogram", 1.0 - labels)):
            sums[name] = tf.math.unsorted_segment_sum(tf.reshape(share * weights, [-1]), flat, _AUC_BINS)
    return sums


def auc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Area under the ROC curve from histograms of the scores (rising), ties within a bin counted half; nan without both classes."""
    below = np.concatenate([[0.0], np.cumsum(negatives)[:-1]])
    pairs = positives.sum() * negatives.sum()
    return float((positives * (below + 0.5 * negatives)).sum() / pairs) if pairs else float("nan")
