"""Training cost and parameter counts of a pre-training configuration, without building or training it.

    python flops_computation.py --hparams=configs/dialog_koelectra_small.json

Counts operations as Clark et al. 2020 (appendix, "Counting FLOPs") do: mathematical operations, a product of [m, k] and [k, n]
as 2 m k n, one for an exp as for an addition. Two conventions are reported side by side (see Convention).
"""

from typing import NamedTuple

from absl import flags

from configure_pretraining import PretrainingConfig
from model import hparams
from model.command import run
from model.modeling import BertConfig
from pretrain.pretraining_model import get_generator_config, get_model_config

DEFAULT_VOCAB_SIZE = 40_000  # what build_vocab.py makes unless told otherwise
_SCRIPT_FLAGS = ("model_name", "data_dir")

# Operations per element.
_DROPOUT = 4  # draw, compare, multiply by the mask, scale
_LAYER_NORM = 5  # sum for the mean, square and sum for the variance, scale, shift
_GELU = 8
_SOFTMAX = 5  # maximum, subtract, exp, sum, divide


class Convention(NamedTuple):
    """What a training step is said to cost beyond its forward pass."""

    backward: int  # backward pass, in forward passes
    dense_lookup: bool  # embedding lookups count as products with one-hot vectors


# The published figures count the backward pass like the forward pass, and lookups as products.
PAPER = Convention(backward=1, dense_lookup=True)
# Every product has two in its gradient (one for the input, one for the weights), and a lookup only copies.
ACTUAL = Convention(backward=2, dense_lookup=False)


class Cost(NamedTuple):
    """Operations of one training run under one convention."""

    generator: float  # forward pass of one example
    discriminator: float  # the same
    step: float  # forward and backward pass of one batch
    training: float  # all steps


class Parameters(NamedTuple):
    """Trained weights by part. What the generator shares with the discriminator counts there."""

    encoder: int  # with the embeddings: what fine-tuning starts from
    discriminator_head: int
    generator: int
    generator_head: int

    @property
    def total(self) -> int:
        return sum(self)


# --- operations --------------------------------------------------------------------------------------------------------------


def layer_flops(config: BertConfig, length: int) -> float:
    """One transformer layer, forward, for one example of `length` tokens."""
    D, H, inner = config.hidden_size, config.num_attention_heads, config.intermediate_size
    per_token = {
        "query, key, value": 3 * (2 * D * D + D),
        "attention scores": 2 * D * length,
        "attention softmax": (1 + _SOFTMAX + _DROPOUT) * length * H,  # scaled first
        "weighted values": 2 * D * length,
        "attention output": 2 * D * D + D,
        "feed-forward in": 2 * D * inner + inner + _GELU * inner,
        "feed-forward out": 2 * D * inner + D,
        "dropout, residual, LayerNorm": 2 * (_DROPOUT + 1 + _LAYER_NORM) * D,
    }
    return float(sum(per_token.values()) * length)


def embedding_flops(config: BertConfig, embedding_size: int, length: int, convention: Convention) -> float:
    """Token, position and type embeddings with their projection to the hidden size, forward, for one example."""
    D, E = config.hidden_size, embedding_size
    rows = config.type_vocab_size + (config.vocab_size + length if convention.dense_lookup else 0)  # types: always one-hot products
    per_token = 2 * E * rows + 2 * E + (_LAYER_NORM + _DROPOUT) * E
    if E != D:
        per_token += 2 * D * E + D
    return float(per_token * length)


def generator_head_flops(inputs: int, embedding_size: int, vocab_size: int, positions: int) -> float:
    """Dense layer, GELU, LayerNorm, softmax over the vocabulary and loss, forward, at `positions` positions."""
    E, V = embedding_size, vocab_size
    return float(positions * (2 * inputs * E + E + (_GELU + _LAYER_NORM) * E + 2 * E * V + V + _SOFTMAX * V + 2 * V))


def discriminator_head_flops(config: BertConfig, length: int) -> float:
    """Dense layer, GELU and one logit per token, forward, for one example."""
    D = config.hidden_size
    return float(length * (2 * D * D + D + _GELU * D + 2 * D + 1))


def encoder_flops(config: BertConfig, embedding_size: int, length: int, convention: Convention) -> float:
    """A whole encoder, forward, for one example."""
    return embedding_flops(config, embedding_size, length, convention) + config.num_hidden_layers * layer_flops(config, length)


def training_cost(config: PretrainingConfig, vocab_size: int, convention: Convention) -> Cost:
    """What pre-training as `config` says takes."""
    encoder, length = get_model_config(config, vocab_size), config.max_seq_length
    shape, count, width = _generator(config, encoder)
    # Two towers predict every token, the other generators only the masked ones.
    positions = length if config.two_tower_generator else config.max_predictions_per_seq
    generator = count * encoder_flops(shape, width, length, convention)
    if count:
        generator += generator_head_flops(count * shape.hidden_size, width, vocab_size, positions)
    discriminator = 0.0
    if _has_discriminator(config):
        discriminator = encoder_flops(encoder, _embedding_size(config, encoder), length, convention)
        discriminator += discriminator_head_flops(encoder, length)
    step = (1 + convention.backward) * config.train_batch_size * (generator + discriminator)
    return Cost(generator, discriminator, step, step * config.num_train_steps)


# --- parameters --------------------------------------------------------------------------------------------------------------


def embedding_parameters(config: BertConfig, embedding_size: int) -> int:
    """The three tables and their LayerNorm."""
    return embedding_size * (config.vocab_size + config.max_position_embeddings + config.type_vocab_size + 2)


def layers_parameters(config: BertConfig, embedding_size: int) -> int:
    """The projection of the embeddings, where there is one, and all transformer layers."""
    D, inner = config.hidden_size, config.intermediate_size
    projection = embedding_size * D + D if embedding_size != D else 0
    layer = 4 * (D * D + D) + 2 * D * inner + inner + D + 2 * 2 * D
    return projection + config.num_hidden_layers * layer


def count_parameters(config: PretrainingConfig, vocab_size: int) -> Parameters:
    """Trained weights of pre-training as `config` says."""
    encoder = get_model_config(config, vocab_size)
    own_width, D = _embedding_size(config, encoder), encoder.hidden_size
    shape, count, width = _generator(config, encoder)
    generator = 0
    if count and _has_discriminator(config) and config.untied_generator:
        generator = count * layers_parameters(shape, width)
        if config.untied_generator_embeddings:
            generator += count * embedding_parameters(shape, width)
    return Parameters(
        encoder=embedding_parameters(encoder, own_width) + layers_parameters(encoder, own_width),
        discriminator_head=D * D + D + D + 1 if _has_discriminator(config) else 0,
        generator=generator,
        generator_head=count * shape.hidden_size * width + width + 2 * width + vocab_size if count else 0,
    )


# --- what kind of generator --------------------------------------------------------------------------------------------------


def _generator(config: PretrainingConfig, encoder: BertConfig) -> tuple[BertConfig, int, int]:
    """(shape, number of networks, embedding size) of what predicts masked tokens; it may be the encoder itself."""
    own_width = _embedding_size(config, encoder)
    if config.uniform_generator:
        return encoder, 0, own_width
    if not (_has_discriminator(config) and config.untied_generator):
        return encoder, 1, own_width
    shape = get_generator_config(config, encoder)
    return shape, 2 if config.two_tower_generator else 1, shape.hidden_size if config.untied_generator_embeddings else own_width


def _embedding_size(config: PretrainingConfig, encoder: BertConfig) -> int:
    return config.embedding_size or encoder.hidden_size


def _has_discriminator(config: PretrainingConfig) -> bool:
    return config.electra_objective or config.electric_objective


# --- the script --------------------------------------------------------------------------------------------------------------


def report(config: PretrainingConfig, vocab_size: int) -> str:
    """The table that the script prints."""
    parameters = count_parameters(config, vocab_size)
    counts = {**parameters._asdict(), "total": parameters.total}
    rows = [("parameters", "", ""), *((f"  {name.replace('_', ' ')}", f"{count:,}", "") for name, count in counts.items())]
    paper, actual = (training_cost(config, vocab_size, convention) for convention in (PAPER, ACTUAL))
    names = ("generator, forward, one example", "discriminator, forward, one example", "one training step", "the whole training")
    rows += [("", "", ""), ("FLOPs", "as in the paper", "actual")]
    rows += [(f"  {name}", f"{first:.2e}", f"{second:.2e}") for name, first, second in zip(names, paper, actual, strict=True)]
    heading = (
        f"vocabulary {vocab_size:,}, length {config.max_seq_length}, {config.max_predictions_per_seq} masked, "
        f"batch {config.train_batch_size}, {config.num_train_steps:,} steps"
    )
    return "\n".join([heading, "", *(f"{name:<38}{first:>16}{second:>12}".rstrip() for name, first, second in rows)])


def define_flags() -> None:
    flags.DEFINE_string("hparams", None, "JSON object or JSON file with settings, as for run_pretraining.py")
    hparams.define_flags(PretrainingConfig, skip=_SCRIPT_FLAGS)


def main() -> None:
    config = PretrainingConfig.create("", "", hparams.collect(PretrainingConfig, flags.FLAGS.hparams, skip=_SCRIPT_FLAGS))
    print(report(config, config.vocab_size or DEFAULT_VOCAB_SIZE))


if __name__ == "__main__":
    define_flags()
    run(main)
