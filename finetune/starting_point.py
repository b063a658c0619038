"""Where fine-tuning starts: which weights, of which shape, reading text with which vocabulary."""

import os
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from configure_finetuning import FinetuningConfig
from model import checkpoint, modeling, tokenization
from model.command import UserError, read_json


class StartingPoint(NamedTuple):
    """prefix: of the checkpoint to take the encoder from, or None for random weights."""

    prefix: str | None
    bert_config: modeling.BertConfig
    embedding_size: int | None
    tokenizer: tokenization.FullTokenizer


def find_starting_point(config: FinetuningConfig) -> StartingPoint:
    """Finds checkpoint, shape and vocabulary; where a config.json lies beside the checkpoint, it decides the last two.

    With random weights the config.json of data_dir/models/MODEL_NAME counts, if there is one: the same model, untrained.

    Raises:
      UserError: no checkpoint, no vocabulary, or a vocabulary, tokenizer or length that does not fit the checkpoint.
    """
    prefix = None if config.random_weights else checkpoint.resolve(config.init_checkpoint)
    folder = config.pretrained_model_dir if prefix is None else os.path.dirname(prefix)
    recorded = _read_record(os.path.join(folder, "config.json"))
    tokenizer = _make_tokenizer(config, recorded.get("tokenizer", {}), folder)
    if "bert_config" in recorded:
        bert_config = modeling.BertConfig.from_dict({**recorded["bert_config"], **config.model_hparam_overrides})
        embedding_size = recorded.get("embedding_size")
    else:
        vocab_size = config.vocab_size or tokenizer.vocab_size
        bert_config = modeling.get_bert_config(config.model_size, vocab_size, config.model_hparam_overrides)
        embedding_size = config.embedding_size
    _check_fit(config, bert_config, tokenizer)
    return StartingPoint(prefix, bert_config, embedding_size, tokenizer)


def _read_record(path: str) -> dict[str, Any]:
    """What pre-training wrote beside its checkpoints; {} for the checkpoints of other projects."""
    if not tf.io.gfile.exists(path):
        logging.log_first_n(logging.INFO, "No %s: the shape comes from model_size and model_hparam_overrides", 1, path)
        return {}
    return read_json(path, "init_checkpoint")


def _make_tokenizer(config: FinetuningConfig, recorded: dict[str, Any], folder: str) -> tokenization.FullTokenizer:
    """The checkpoint's own tokenizer; what the user asked for must be the same."""
    defaults = {"tokenizer_type": "mecab_wordpiece", "analyzer": "mecab", "do_lower_case": False, "strip_accents": False}
    options = {
        name: getattr(config, name) if getattr(config, name) is not None else recorded.get(name, default)
        for name, default in defaults.items()
    }
    tokenizer = tokenization.FullTokenizer(_vocab_file(config, folder), **options)
    tokenization.check_provenance(recorded, tokenizer.provenance(), f"the checkpoint in {folder}")
    return tokenizer


def _vocab_file(config: FinetuningConfig, folder: str) -> str:
    """As in google-research/electra: the model's own vocab.txt, else that of data_dir."""
    candidates = [config.vocab_file] if config.vocab_file else [os.path.join(place, "vocab.txt") for place in (folder, config.data_dir)]
    for path in candidates:
        if tf.io.gfile.exists(path):
            return path
    raise UserError(f"no vocabulary at {' or '.join(candidates)} (--vocab_file)")


def _check_fit(config: FinetuningConfig, bert_config: modeling.BertConfig, tokenizer: tokenization.FullTokenizer) -> None:
    if tokenizer.vocab_size > bert_config.vocab_size:
        raise UserError(
            f"the vocabulary {tokenizer.vocab_file} has {tokenizer.vocab_size} entries, but the model only {bert_config.vocab_size} "
            "(--vocab_file, --vocab_size)"
        )
    if config.reinit_top_layers > bert_config.num_hidden_layers:
        raise UserError(
            f"reinit_top_layers must be at most the model's number of layers, {bert_config.num_hidden_layers}, "
            f"got {config.reinit_top_layers} (--reinit_top_layers)"
        )
    if config.max_seq_length > bert_config.max_position_embeddings:
        raise UserError(
            f"max_seq_length {config.max_seq_length} is beyond the model's max_position_embeddings "
            f"{bert_config.max_position_embeddings} (--max_seq_length)"
        )
