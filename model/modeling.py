"""The transformer of ELECTRA (Clark et al. 2020; google-research/electra model/modeling.py) as plain tf.Module and tf.Variable.

Dimension key, used in the whole project:
    B batch   L length   D hidden   E embedding   V vocabulary   H heads   K head size   N masked positions

Every variable carries the name the original gave it, so that checkpoints of google-research/electra, KoELECTRA and
Dialog-KoELECTRA load as they are.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from model.command import UserError
from model.devices import device_kind
from model.layers import (
    Activations,
    Dense,
    LayerNorm,
    attention_probabilities,
    bias_add,
    create_variable,
    dropout,
    dropout_bits,
    glorot_uniform,
    residual_layer_norm,
    size_of,
    sizes_of,
    truncated_normal,
)
from model.random import RandomState

# Clark et al. 2020, Table 6; "embedding" is the default of the size, None meaning the hidden size.
SIZES: dict[str, dict[str, Any]] = {
    "small": {"num_hidden_layers": 12, "hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4},
    "base": {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    "large": {"num_hidden_layers": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16},
}
UNITS_PER_HEAD = 64  # of every size, the generators' too
EMBEDDING_SIZES: dict[str, int | None] = {"small": 128, "base": None, "large": None}
# Whose architecture a model is: what its layers are called elsewhere, and what its published heads look like. The layers compute the same.
MODEL_TYPES = ("electra", "bert", "distilbert")
MASK_ADDER = -10000.0  # as in google-research/electra; added in float32, so it is safe with half-precision products


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The shape of one transformer, with the original's field names and defaults.

    The last two are ours: `model_type` is one of MODEL_TYPES, `classifier_dropout` the rate in the heads of the transformers library.
    `type_vocab_size` 0: no token types, as in DistilBERT.
    """

    vocab_size: int
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    model_type: str = "electra"
    classifier_dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)} (--model_hparam_overrides)")
        for name in ("num_hidden_layers", "type_vocab_size"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must not be negative, got {getattr(self, name)} (--model_hparam_overrides)")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads} "
                "(--model_hparam_overrides)"
            )
        if self.hidden_act != "gelu":
            raise UserError(f"hidden_act must be 'gelu', got {self.hidden_act!r} (--model_hparam_overrides)")
        if self.model_type not in MODEL_TYPES:
            raise UserError(f"model_type must be one of {', '.join(MODEL_TYPES)}, got {self.model_type!r} (--model_hparam_overrides)")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"{name} must be in [0, 1), got {getattr(self, name)} (--model_hparam_overrides)")

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BertConfig":
        """Raises UserError on a name that is not a field; integers stand for floats where floats are due."""
        fields = {field.name: field.type for field in dataclasses.fields(cls)}
        for name, value in values.items():
            if name not in fields:
                raise UserError(f"unknown model hparam {name!r}; allowed: {', '.join(fields)} (--model_hparam_overrides)")
            kind = {int: (int,), float: (int, float), str: (str,)}[fields[name]]  # type: ignore[index]
            if isinstance(value, bool) or not isinstance(value, kind):
                raise UserError(f"model hparam {name!r} must be {fields[name].__name__}, got {value!r} (--model_hparam_overrides)")  # type: ignore[union-attr]
        if "vocab_size" not in values:
            raise UserError("a model's shape lacks vocab_size (--model_hparam_overrides)")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def get_bert_config(model_size: str, vocab_size: int, overrides: Mapping[str, Any]) -> BertConfig:
    """The published shape of `model_size` (small, base, large) with the user's `model_hparam_overrides` on top."""
    config = BertConfig.from_dict({**SIZES[model_size], "vocab_size": vocab_size, **overrides})
    if config.vocab_size < vocab_size:
        raise UserError(f"vocab_size {config.vocab_size} is less than the vocabulary's {vocab_size} (--model_hparam_overrides)")
    return config


def shape_of(variables: Mapping[str, Sequence[int]], scope: str = "electra") -> dict[str, int]:
    """The BertConfig values, and embedding_size, that the shapes of a checkpoint's variables (name -> shape) tell; {} if it has no `scope`.

    How many heads there are is not among them: the products of all heads lie in one matrix.
    """
    table = variables.get(f"{scope}/embeddings/word_embeddings")
    if table is None:
        return {}
    layers = [name for name in variables if re.fullmatch(rf"{scope}/encoder/layer_\d+/intermediate/dense/kernel", name)]
    shape = {"vocab_size": table[0], "embedding_size": table[1], "num_hidden_layers": len(layers)}
    for key, name, axis in (
        ("max_position_embeddings", "embeddings/position_embeddings", 0),
        ("type_vocab_size", "embeddings/token_type_embeddings", 0),
        ("intermediate_size", "encoder/layer_0/intermediate/dense/kernel", 1),
    ):
        if f"{scope}/{name}" in variables:
            shape[key] = variables[f"{scope}/{name}"][axis]
    shape["hidden_size"] = variables.get(f"{scope}/embeddings_project/kernel", table)[1]
    return shape


class BertOutput(NamedTuple):
    """What one pass through a BertModel gives; all tensors float32."""

    sequence_output: tf.Tensor  # [B, L, D]
    all_encoder_layers: list[tf.Tensor]  # the output of each layer, [B, L, D]
    embedding_output: tf.Tensor  # what the first layer reads, [B, L, D]
    pooler_output: tf.Tensor | None = None  # BERT's, [B, D]; None where the model has no pooler

    def get_sequence_output(self) -> tf.Tensor:
        return self.sequence_output

    def get_all_encoder_layers(self) -> list[tf.Tensor]:
        return self.all_encoder_layers

    def get_embedding_output(self) -> tf.Tensor:
        return self.embedding_output

    def get_pooled_output(self) -> tf.Tensor:
        """The vector of the first token, [B, D]. As in google-research/electra, whatever pooler the model may have."""
        return self.sequence_output[:, 0]


class Embeddings(tf.Module):
    """Word, position and token-type embeddings with their LayerNorm, under `scope`/embeddings."""

    def __init__(self, config: BertConfig, embedding_size: int, scope: str, seed: int):
        super().__init__()
        self.scope, self.config = f"{scope}/embeddings", config
        normal = truncated_normal(config.initializer_range)
        self.word_embeddings = create_variable(f"{self.scope}/word_embeddings", (config.vocab_size, embedding_size), normal, seed)
        self.token_type_embeddings = None
        if config.type_vocab_size:
            self.token_type_embeddings = create_variable(
                f"{self.scope}/token_type_embeddings", (config.type_vocab_size, embedding_size), normal, seed
            )
        self.position_embeddings = create_variable(
            f"{self.scope}/position_embeddings", (config.max_position_embeddings, embedding_size), normal, seed
        )
        self.layer_norm = LayerNorm(f"{self.scope}/LayerNorm", embedding_size, seed)

    def __call__(self, input_ids: tf.Tensor, token_type_ids: tf.Tensor, random: RandomState | None, site: str) -> tf.Tensor:
        """input_ids, token_type_ids int32 [B, L] -> float32 [B, L, E]."""
        length = size_of(input_ids, 1)
        if not tf.is_tensor(length) and length > self.config.max_position_embeddings:
            raise UserError(
                f"max_seq_length {length} is beyond max_position_embeddings {self.config.max_position_embeddings}: lower "
                "--max_seq_length or raise max_position_embeddings in --model_hparam_overrides"
            )
        outputs = tf.gather(self.word_embeddings, input_ids)  # [B, L, E]
        if self.token_type_embeddings is not None:
            # A product with the one-hot types instead of a gather: with two rows, its gradient is a small matrix product.
            types = tf.one_hot(token_type_ids, self.config.type_vocab_size)  # [B, L, type_vocab_size]
            outputs += tf.matmul(types, self.token_type_embeddings)
        outputs += self.position_embeddings[:length]
        return dropout(self.layer_norm(outputs), self.config.hidden_dropout_prob, random, site)


class TransformerLayer(tf.Module):
    """Self-attention and feed-forward sub-layers, each followed by dropout, residual and LayerNorm (Vaswani et al. 2017)."""

    def __init__(self, config: BertConfig, scope: str, seed: int, dtype: tf.DType):
        super().__init__()
        self.scope, self.config, self.dtype = scope, config, dtype
        width, normal = config.hidden_size, truncated_normal(config.initializer_range)

        def dense(name: str, inputs: int, outputs: int) -> Dense:
            return Dense(f"{scope}/{name}", inputs, outputs, normal, seed, dtype)

        self.query = dense("attention/self/query", width, width)
        self.key = dense("attention/self/key", width, width)
        self.value = dense("attention/self/value", width, width)
        self.attention_output = dense("attention/output/dense", width, width)
        self.attention_norm = LayerNorm(f"{scope}/attention/output/LayerNorm", width, seed)
        self.intermediate = dense("intermediate/dense", width, config.intermediate_size)
        self.output = dense("output/dense", config.intermediate_size, width)
        self.output_norm = LayerNorm(f"{scope}/output/LayerNorm", width, seed)
        self._frozen_merged: tuple[tf.Tensor, tf.Tensor] | None = None

    def __call__(self, x: Activations, adder: tf.Tensor, random: RandomState | None, site: str) -> Activations:
        """x [B, L, D], adder float32 [B, 1, 1 or L, L] -> [B, L, D]."""
        rate, shape = self.config.hidden_dropout_prob, sizes_of(x.exact)
        context = self.attend(x.rounded, adder, random, site)  # [B, L, D]
        projected = self.attention_output.matmul(context)
        bits = dropout_bits(random, f"{site}/attention/output", rate, shape)
        x = residual_layer_norm(projected, self.attention_output.bias, x.exact, self.attention_norm, bits, rate)
        expanded = self.intermediate.gelu(x.rounded)  # [B, L, intermediate]
        bits = dropout_bits(random, f"{site}/output", rate, shape)
        return residual_layer_norm(self.output.matmul(expanded), self.output.bias, x.exact, self.output_norm, bits, rate)

    def attend(self, x: tf.Tensor, adder: tf.Tensor, random: RandomState | None, site: str) -> tf.Tensor:
        """Multi-head scaled dot-product attention. x [B, L, D] -> [B, L, D], both in the compute type."""
        heads, size, length = self.config.num_attention_heads, self.config.head_size, size_of(x, 1)
        kernel, bias = self._frozen_merged or self._merge()
        merged = matmul_bias(x, kernel, bias)
        merged = tf.transpose(tf.reshape(merged, [-1, length, 3, heads, size]), [2, 0, 3, 1, 4])  # [3, B, H, L, K]
        query, key, value = tf.unstack(merged)
        scores = tf.matmul(query, key, transpose_b=True)  # [B, H, L, L]
        rate = self.config.attention_probs_dropout_prob
        bits = dropout_bits(random, f"{site}/attention/self", rate, (tf.shape(x)[0], heads, length, length))
        probabilities = attention_probabilities(scores, adder, 1.0 / math.sqrt(size), bits, rate)
        context = tf.transpose(tf.matmul(probabilities, value), [0, 2, 1, 3])  # [B, L, H, K]
        return tf.reshape(context, [-1, length, heads * size])

    def _merge(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Query, key and value as one product instead of three: kernel [D, 3 D] in the compute type, bias float32 [3 D]."""
        layers = (self.query, self.key, self.value)
        kernel = tf.concat([tf.cast(layer.kernel, self.dtype) for layer in layers], 1)
        return kernel, tf.concat([layer.bias for layer in layers], 0)

    def freeze(self) -> None:
        """Keeps what is made of the weights alone: see Dense.freeze."""
        self._frozen_merged = self._merge()
        for dense in (self.attention_output, self.intermediate, self.output):
            dense.freeze()


class BertModel(tf.Module):
    """A transformer encoder under `scope`, on embeddings of its own or on those of another model.

    `embedding_size` None means the hidden size; where they differ, a projection `scope`/embeddings_project lies between.
    `embeddings` shares another model's tables (ELECTRA's generator shares the discriminator's). `has_pooler` puts BERT's pooler, a dense
    layer with tanh on the vector of the first token, under `scope`/pooler.
    """

    def __init__(
        self,
        config: BertConfig,
        embedding_size: int | None = None,
        scope: str = "electra",
        embeddings: Embeddings | None = None,
        seed: int = 0,
        dtype: tf.DType = tf.float32,
        has_pooler: bool = False,
    ):
        super().__init__()
        self.config, self.scope, self.dtype = config, scope, dtype
        self.embeddings = embeddings or Embeddings(config, embedding_size or config.hidden_size, scope, seed)
        width = self.embeddings.word_embeddings.shape[1]
        self.projection = None
        if width != config.hidden_size:
            self.projection = Dense(f"{scope}/embeddings_project", width, config.hidden_size, glorot_uniform, seed, dtype)
        self.layers = [TransformerLayer(config, f"{scope}/encoder/layer_{index}", seed, dtype) for index in range(config.num_hidden_layers)]
        self.pooler = None
        if has_pooler:
            normal = truncated_normal(config.initializer_range)
            self.pooler = Dense(f"{scope}/pooler/dense", config.hidden_size, config.hidden_size, normal, seed)

    def get_embedding_table(self) -> tf.Variable:
        """The word embeddings, [V, E]."""
        return self.embeddings.word_embeddings

    def freeze(self) -> None:
        """Makes passes on a CPU cheaper where weights will not change any more: before the first is traced. Elsewhere it does nothing."""
        if device_kind(use_tpu=False) != "CPU":
            return
        for part in (self.projection, *self.layers):
            if part is not None:
                part.freeze()

    def __call__(
        self,
        input_ids: tf.Tensor,
        input_mask: tf.Tensor,
        token_type_ids: tf.Tensor,
        random: RandomState | None = None,
        ltr: bool = False,
        rtl: bool = False,
        site: str | None = None,
    ) -> BertOutput:
        """Runs the encoder.

        Args:
          input_ids, input_mask, token_type_ids: int32 [B, L]; mask 1 for real tokens.
          random: where dropout takes its noise from; None = no dropout (evaluation).
          ltr, rtl: attend only to positions up to (from) each one, for Electric's two-tower generator.
          site: names this pass for its noise; give one where the same model runs twice in a step.
        """
        site = site or self.scope
        x = self.embeddings(input_ids, token_type_ids, random, f"{site}/embeddings")
        if self.projection is not None:
            x = self.projection(x)  # [B, L, D]
        embedding_output = x
        adder = attention_adder(input_mask, ltr, rtl)
        activations, outputs = Activations(x, tf.cast(x, self.dtype)), []
        for index, layer in enumerate(self.layers):
            activations = layer(activations, adder, random, f"{site}/layer_{index}")
            outputs.append(activations.exact)
        x = activations.exact
        pooler_output = tf.tanh(self.pooler(x[:, 0])) if self.pooler is not None else None  # [B, D]
        return BertOutput(x, outputs, embedding_output, pooler_output)


def matmul_bias(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """x [B, L, M] times kernel [M, N] of its type, plus bias float32 [N] -> [B * L, N]."""
    return bias_add(tf.matmul(tf.reshape(x, [-1, kernel.shape[0]]), kernel), bias)


def attention_adder(input_mask: tf.Tensor, ltr: bool = False, rtl: bool = False) -> tf.Tensor:
    """0 where a position may be attended to and MASK_ADDER elsewhere, float32 [B, 1, 1, L] or, with a direction, [B, 1, L, L]."""
    # Indexing with None would do the same, but TFLite has no operation for it.
    mask = tf.expand_dims(tf.expand_dims(tf.cast(input_mask, tf.float32), 1), 1)  # [B, 1, 1, L]
    if ltr or rtl:
        length = size_of(input_mask, 1)
        triangle = tf.linalg.band_part(tf.ones([length, length]), -1 if ltr else 0, 0 if ltr else -1)
        mask *= triangle[None, None]
    return (1.0 - mask) * MASK_ADDER
