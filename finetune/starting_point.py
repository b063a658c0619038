"""Where fine-tuning starts: which weights, of which shape, reading text with which vocabulary.

Three kinds of places hold weights: our own (name-based checkpoints with our config.json beside, which says everything), checkpoints of the
original, KoELECTRA and Dialog-KoELECTRA (no config.json: the variables tell the shape), and folders of the transformers library.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from configure_finetuning import FinetuningConfig
from model import checkpoint, modeling, tokenization, transformers_folder
from model.command import UserError, read_json

DEFAULT_TOKENIZER = {"tokenizer_type": "mecab_wordpiece", "analyzer": "mecab", "do_lower_case": False, "strip_accents": False}
# Whoever released a checkpoint without our config.json had encoded its text without an analyser, Dialog-KoELECTRA's makers too.
RELEASED_TOKENIZER = {**DEFAULT_TOKENIZER, "tokenizer_type": "wordpiece"}


class StartingPoint(NamedTuple):
    """prefix: of the checkpoint to take the encoder from, or a folder of the transformers library, or None for random weights."""

    prefix: str | None
    bert_config: modeling.BertConfig
    embedding_size: int | None
    tokenizer: tokenization.FullTokenizer

    def weights_hash(self) -> str | None:
        """A hash that changes with the weights: of a checkpoint's index, which holds the check sum of every variable, else of the files."""
        if self.prefix is None:
            return None
        if tf.io.gfile.isdir(self.prefix):
            return transformers_folder.weights_hash(self.prefix)
        with tf.io.gfile.GFile(f"{self.prefix}.index", "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()


def find_starting_point(config: FinetuningConfig) -> StartingPoint:
    """Finds checkpoint, shape and vocabulary; where a config.json lies beside the checkpoint, it decides the last two.

    With random weights the config.json of data_dir/models/MODEL_NAME counts, if there is one: the same model, untrained.

    Raises:
      UserError: no checkpoint, no vocabulary, or a vocabulary, tokenizer, shape or length that does not fit the checkpoint.
    """
    place = config.pretrained_model_dir if config.random_weights else config.init_checkpoint
    record = _read_record(place if config.random_weights or tf.io.gfile.isdir(place) else os.path.dirname(place))
    if _is_transformers_folder(place, record):
        start = _start_from_transformers(config, place)
    else:
        prefix = None if config.random_weights else checkpoint.resolve(place)
        folder = place if prefix is None else os.path.dirname(prefix)
        if "bert_config" in record:
            start = _start_from_record(config, prefix, folder, record)
        elif prefix is not None:
            start = _start_from_variables(config, prefix, folder)
        else:
            start = _start_from_hparams(config, folder)
    _check_fit(config, start)
    return start


def _read_record(folder: str) -> dict[str, Any]:
    """The config.json of a folder; {} where there is none."""
    path = os.path.join(folder, "config.json")
    record = read_json(path, "init_checkpoint") if tf.io.gfile.exists(path) else {}
    if not isinstance(record, dict):
        raise UserError(f"{path} must hold a JSON object, not {type(record).__name__} (--init_checkpoint)")
    return record


def _is_transformers_folder(place: str, record: Mapping[str, Any]) -> bool:
    """Also one whose weights are missing, unless a checkpoint of TensorFlow lies there instead."""
    if not (tf.io.gfile.isdir(place) and transformers_folder.is_config(record)):
        return False
    return bool(transformers_folder.weight_files(place)) or checkpoint.latest(place) is None


# --- the four ways to begin ----------------------------------------------------------------------------------------------------------


def _start_from_transformers(config: FinetuningConfig, folder: str) -> StartingPoint:
    if "://" in folder:
        raise UserError(f"{folder} is a folder of the transformers library: copy it to this machine (--init_checkpoint)")
    bert_config, embedding_size = transformers_folder.read_config(folder, _free_overrides(config))
    known = bert_config.to_dict() | {"embedding_size": embedding_size or bert_config.hidden_size}
    _check_asked(config, known, os.path.join(folder, transformers_folder.CONFIG))
    if not (config.random_weights or transformers_folder.weight_files(folder)):
        raise UserError(f"no model.safetensors and no pytorch_model.bin in {folder!r} (--init_checkpoint)")
    own = transformers_folder.find_vocabulary(folder)
    vocab_file = _existing([config.vocab_file] if config.vocab_file else [own or os.path.join(folder, "vocab.txt")])
    tokenizer = _make_tokenizer(config, vocab_file, DEFAULT_TOKENIZER | transformers_folder.tokenizer_settings(folder, vocab_file))
    # Tables of the library often have more rows than the vocabulary that lies with them.
    if vocab_file != own:
        _check_vocabulary(config, tokenizer, bert_config.vocab_size, folder)
    return StartingPoint(None if config.random_weights else folder, bert_config, embedding_size, tokenizer)


def _start_from_record(config: FinetuningConfig, prefix: str | None, folder: str, record: Mapping[str, Any]) -> StartingPoint:
    """As run_pretraining.py and run_finetuning.py wrote it; the tokenizer must be the same, whatever the user asked for."""
    path, recorded = os.path.join(folder, "config.json"), record.get("tokenizer", {})
    if not (isinstance(record["bert_config"], dict) and isinstance(recorded, dict)):
        raise UserError(f"{path} is damaged: bert_config and tokenizer must be JSON objects (--init_checkpoint)")
    embedding_size = record.get("embedding_size")
    if embedding_size is not None and (type(embedding_size) is not int or embedding_size < 1):
        raise UserError(f"{path} is damaged: embedding_size must be a number of at least 1, got {embedding_size!r} (--init_checkpoint)")
    bert_config = modeling.BertConfig.from_dict({**record["bert_config"], **_free_overrides(config)})
    known = bert_config.to_dict() | {"embedding_size": embedding_size or bert_config.hidden_size}
    _check_asked(config, known, path)
    for name, value in modeling.shape_of(checkpoint.read_shapes(prefix)).items() if prefix is not None else ():
        if known[name] != value:
            raise UserError(f"{path} says {name} {known[name]}, but checkpoint {prefix} has {value} (--init_checkpoint)")
    own = os.path.join(folder, os.path.basename(f"{record.get('vocab_file', 'vocab.txt')}"))
    vocab_file = own if not config.vocab_file and tf.io.gfile.exists(own) else _vocab_file(config, folder)
    tokenizer = _make_tokenizer(config, vocab_file, DEFAULT_TOKENIZER | recorded)
    tokenization.check_provenance(recorded, tokenizer.provenance(), f"the checkpoint in {folder}")
    return StartingPoint(prefix, bert_config, embedding_size, tokenizer)


def _start_from_variables(config: FinetuningConfig, prefix: str, folder: str) -> StartingPoint:
    """A checkpoint of the original, KoELECTRA or Dialog-KoELECTRA: everything but the number of heads is in the variables' shapes."""
    shape = modeling.shape_of(checkpoint.read_shapes(prefix))
    if not shape:
        raise UserError(f"checkpoint {prefix} has no variable 'electra/embeddings/word_embeddings': it is no ELECTRA's (--init_checkpoint)")
    _check_asked(config, {**shape, "model_type": "electra"}, f"checkpoint {prefix}")
    tokenizer = _make_tokenizer(config, _vocab_file(config, folder), RELEASED_TOKENIZER)
    _check_vocabulary(config, tokenizer, shape["vocab_size"], f"checkpoint {prefix}")
    embedding_size = shape.pop("embedding_size")
    heads = {"num_attention_heads": _count_heads(config, shape["hidden_size"], prefix)}
    bert_config = modeling.BertConfig.from_dict({**shape, **heads, **_free_overrides(config)})
    logging.info("No config.json beside %s: its variables have the shape %s", prefix, bert_config)
    return StartingPoint(prefix, bert_config, embedding_size, tokenizer)


def _start_from_hparams(config: FinetuningConfig, folder: str) -> StartingPoint:
    """Random weights of the shape that the user asked for."""
    tokenizer = _make_tokenizer(config, _vocab_file(config, folder), DEFAULT_TOKENIZER)
    size, vocab_size = config.model_size or "small", config.vocab_size or tokenizer.vocab_size
    bert_config = modeling.get_bert_config(size, vocab_size, config.model_hparam_overrides)
    return StartingPoint(None, bert_config, config.embedding_size or modeling.EMBEDDING_SIZES[size], tokenizer)


# --- their parts ---------------------------------------------------------------------------------------------------------------------


def _make_tokenizer(config: FinetuningConfig, vocab_file: str, defaults: Mapping[str, Any]) -> tokenization.FullTokenizer:
    """With what the user asked for, else `defaults`."""
    options = {name: defaults[name] if getattr(config, name) is None else getattr(config, name) for name in DEFAULT_TOKENIZER}
    return tokenization.FullTokenizer(vocab_file, **options)


def _vocab_file(config: FinetuningConfig, folder: str) -> str:
    """As in google-research/electra: the model's own vocab.txt, else that of data_dir."""
    places = [os.path.join(place, "vocab.txt") for place in (folder, config.data_dir)]
    return _existing([config.vocab_file] if config.vocab_file else places)


def _existing(candidates: list[str]) -> str:
    for path in candidates:
        if tf.io.gfile.exists(path):
            return path
    raise UserError(f"no vocabulary at {' or '.join(candidates)} (--vocab_file)")


def _count_heads(config: FinetuningConfig, hidden_size: int, prefix: str) -> int:
    """As the user says, else one for 64 units, as all published sizes have it (Clark et al. 2020, Table 6)."""
    if "num_attention_heads" in config.model_hparam_overrides:
        return config.model_hparam_overrides["num_attention_heads"]
    if hidden_size % modeling.UNITS_PER_HEAD:
        raise UserError(
            f"checkpoint {prefix} does not tell how many attention heads it has, and hidden_size {hidden_size} is no multiple of "
            f"{modeling.UNITS_PER_HEAD}: give num_attention_heads (--model_hparam_overrides)"
        )
    return hidden_size // modeling.UNITS_PER_HEAD


# --- does it fit? --------------------------------------------------------------------------------------------------------------------


def _free_overrides(config: FinetuningConfig) -> dict[str, Any]:
    """Those of the user's overrides that change no shape: rates of dropout and the like."""
    return {name: value for name, value in config.model_hparam_overrides.items() if name not in _SHAPE}


_SHAPE = {
    *("vocab_size", "embedding_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size", "model_type"),
}


def _check_asked(config: FinetuningConfig, known: Mapping[str, Any], place: str) -> None:
    """What the user asked for, flag by flag, must be the shape that `place` has."""
    overrides = config.model_hparam_overrides
    size = modeling.SIZES[config.model_size] if config.model_size else {}
    asked = [("--model_size", {name: value for name, value in size.items() if name not in overrides})]
    asked += [("--embedding_size", {"embedding_size": config.embedding_size}), ("--vocab_size", {"vocab_size": config.vocab_size})]
    asked += [("--model_hparam_overrides", overrides)]
    for flag, values in asked:
        for name, value in values.items():
            if name in _SHAPE and value is not None and known.get(name, value) != value:
                raise UserError(f"{place} has {name} {known[name]}, but {flag} asks for {value} ({flag})")


def _check_vocabulary(config: FinetuningConfig, tokenizer: tokenization.FullTokenizer, rows: int, place: str) -> None:
    """A vocabulary of another size than the embedding table is another model's, unless the user says how many rows there are."""
    if tokenizer.vocab_size < rows and config.vocab_size is None:
        raise UserError(
            f"the vocabulary {tokenizer.vocab_file} has {tokenizer.vocab_size} entries, but {place} has word embeddings for {rows}: "
            f"name the one it was trained with (--vocab_file), or say --vocab_size={rows} if it has fewer"
        )


def _check_fit(config: FinetuningConfig, start: StartingPoint) -> None:
    tokenizer, bert_config = start.tokenizer, start.bert_config
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
