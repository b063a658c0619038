"""What leaves the project: one network with its head, its weights, its vocabulary, and where all of that came from.

A checkpoint of pre-training holds two networks, the parts "discriminator" and "generator"; a fine-tuned one is the part "finetuned".
Checkpoints may be ours, the original's (and those of KoELECTRA and Dialog-KoELECTRA), or folders of the transformers library.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from configure_finetuning import FinetuningConfig
from configure_pretraining import PretrainingConfig
from finetune.finetuning_model import FinetuningModel
from finetune.prediction import choose_task, find_model, read_config
from finetune.starting_point import StartingPoint, find_starting_point
from finetune.task import Task
from finetune.task_builder import get_tasks
from model import checkpoint, hparams, transformers_folder
from model.command import UserError, read_json, write_atomically, write_json
from model.layers import variable_name
from model.modeling import UNITS_PER_HEAD, BertConfig, BertModel
from model.tokenization import FullTokenizer
from pretrain.pretraining_model import DiscriminatorPredictions, GeneratorPredictions

WORDPIECE_TYPES = ("wordpiece", "mecab_wordpiece")
PARTS = ("discriminator", "generator", "finetuned")
HEADS = {"discriminator": "discriminator_predictions", "generator": "generator_predictions"}  # scope of each head's variables
# The settings, of pre-training or of fine-tuning, that say what the variables of a checkpoint mean.
_SHAPE_SETTINGS = ("model_size", "model_hparam_overrides", "embedding_size", "vocab_size")
_TEXT_SETTINGS = ("tokenizer_type", "analyzer", "do_lower_case", "strip_accents")
_SHORTEST = 5  # a max_seq_length that every model allows; nothing here depends on it


class ExportedModel(tf.Module):
    """The network and its head, loaded.

    encoder: under the scope `electra`, whatever it was called in the checkpoint.
    head: DiscriminatorPredictions, GeneratorPredictions or, of a fine-tuned model, the task's.
    stored_names: our name of each variable -> its name in the checkpoint.
    """

    def __init__(self, part: str, encoder: BertModel, head: Any, start: StartingPoint, stored_names: Mapping[str, str] | None = None):
        super().__init__()
        self.part, self.encoder, self.head, self.start = part, encoder, head, start
        self.task: Task | None = None
        self.settings: FinetuningConfig | None = None
        variables = [*encoder.trainable_variables, *head.trainable_variables]
        self.variables_by_name = {variable_name(variable): variable for variable in variables}
        self.stored_names = dict(stored_names or {name: name for name in self.variables_by_name})

    @property
    def tokenizer(self) -> FullTokenizer:
        return self.start.tokenizer

    @property
    def config(self) -> BertConfig:
        return self.encoder.config

    @property
    def embedding_size(self) -> int:
        return int(self.encoder.get_embedding_table().shape[1])

    @property
    def labels(self) -> list[str]:
        """What the numbers of a fine-tuned model's outputs stand for; [] where they stand for themselves."""
        return list(getattr(self.task, "labels", None) or getattr(self.task, "tags", None) or ())

    def write_companions(self, folder: str, with_config: bool = False) -> None:
        """What belongs beside weights: the vocabulary, labels.json where outputs are labels, and config.json, if it is to be ours."""
        vocab_file = copy_vocabulary(self.tokenizer, folder)
        if self.labels:
            write_json(os.path.join(folder, "labels.json"), self.labels)
        if with_config:
            write_json(os.path.join(folder, "config.json"), self._record(vocab_file))

    def _record(self, vocab_file: str) -> dict[str, Any]:
        """What starting_point.py and prediction.py need to know, and what of the model lies there."""
        assert self.start.prefix is not None
        splitter = self.tokenizer.splitter
        settings = (splitter.do_lower_case, self.tokenizer.tokenizer_type, splitter.analyzer.name, splitter.strip_accents)
        tokenizer = FullTokenizer(vocab_file, *settings).provenance()  # of the vocabulary as it lies there now
        own = {"tokenizer": tokenizer, "vocab_file": os.path.basename(vocab_file), "part": self.part}
        if self.task is not None:
            return _read_record(self.start.prefix) | own | {"task": self.task.name}
        width = self.start.embedding_size or self.start.bert_config.hidden_size
        shapes = {"bert_config": self.start.bert_config.to_dict(), "embedding_size": width}
        if self.part == "generator" and self.config != self.start.bert_config:
            shapes["generator_config"] = self.config.to_dict()
        return shapes | own

    @property
    def num_parameters(self) -> int:
        return sum(int(tf.size(variable)) for variable in self.variables_by_name.values())


def copy_vocabulary(tokenizer: FullTokenizer, folder: str) -> str:
    """Puts the vocabulary into `folder`, as vocab.txt whatever it was called, of sentencepiece the model, too; returns its file there."""
    if tokenizer.tokenizer_type in WORDPIECE_TYPES and not tokenizer.vocab_file.endswith(".txt"):  # it was read from a tokenizer.json
        path = os.path.join(folder, "vocab.txt")
        write_atomically(path, "".join(f"{tokenizer.inv_vocab[row]}\n" for row in range(tokenizer.vocab_size)))
        return path
    for path in tokenizer.files:
        name = "vocab.txt" if path.endswith(".txt") else os.path.basename(path)
        with tf.io.gfile.GFile(path, "rb") as file:
            write_atomically(os.path.join(folder, name), file.read())
    return os.path.join(folder, "vocab.txt" if tokenizer.vocab_file.endswith(".txt") else os.path.basename(tokenizer.vocab_file))


def load_model(place: str, part: str, asked: Mapping[str, Any], vocab_file: str = "", task_name: str | None = None) -> ExportedModel:
    """Reads `part` of the checkpoint at `place`, a prefix or a folder.

    Args:
      asked: settings of run_pretraining.py or run_finetuning.py, for what a checkpoint does not tell.
      vocab_file: the vocabulary, if it lies neither beside the checkpoint nor where it was in training.
      task_name: for a fine-tuned model of several tasks.

    Raises:
      UserError: a part that is not there, a vocabulary that does not fit, or `asked` contradicts the checkpoint.
    """
    pretraining = _check_settings(asked)
    if part == "finetuned":
        return _load_finetuned(place, asked, vocab_file, task_name)
    start = find_starting_point(_settings(place, asked, vocab_file))
    if start.bert_config.model_type != "electra":
        raise UserError(f"{place} is a {start.bert_config.model_type} model, which has no {part} (--part)")
    assert start.prefix is not None, "only random weights have none"
    if tf.io.gfile.isdir(start.prefix):
        return _load_from_transformers(start, part)
    shapes, record = checkpoint.read_shapes(start.prefix), _read_record(start.prefix)
    scope = _scope(start.prefix, part, shapes, record)
    config, width = start.bert_config, start.embedding_size or start.bert_config.hidden_size
    generator = _generator_config(start, shapes, record)
    if generator is not None:
        _check_generator(start, generator, pretraining)
    if scope == "generator":
        assert generator is not None
        config = generator
        own = "generator/embeddings/word_embeddings"
        width = shapes[own][1] if own in shapes else width
    model = _build(part, config, width, start)
    names = {name: _stored_name(name, scope, shapes) for name in model.variables_by_name}
    checkpoint.load(start.prefix, {names[name]: variable for name, variable in model.variables_by_name.items()})
    model.stored_names = names
    return model


def _build(part: str, config: BertConfig, embedding_size: int | None, start: StartingPoint) -> ExportedModel:
    encoder = BertModel(config, embedding_size)
    if part == "discriminator":
        return ExportedModel(part, encoder, DiscriminatorPredictions(config, 0, tf.float32), start)
    table = encoder.get_embedding_table()
    return ExportedModel(part, encoder, GeneratorPredictions(config.hidden_size, table, config.initializer_range, 0, tf.float32), start)


# --- settings ------------------------------------------------------------------------------------------------------------------------


def _check_settings(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `asked` that belong to pre-training, checked; UserError for names that neither pre-training nor fine-tuning has."""
    pretraining = {field.name for field in dataclasses.fields(PretrainingConfig)}
    hparams.check(FinetuningConfig, {name: value for name, value in asked.items() if name not in pretraining})
    return hparams.check(PretrainingConfig, {name: value for name, value in asked.items() if name in pretraining})


def _settings(place: str, asked: Mapping[str, Any], vocab_file: str) -> FinetuningConfig:
    """A configuration that starts from `place`, for find_starting_point."""
    values = {name: asked[name] for name in (*_SHAPE_SETTINGS, *_TEXT_SETTINGS) if asked.get(name) is not None}
    values |= {"init_checkpoint": place, "max_seq_length": _SHORTEST, "vocab_file": vocab_file or _recorded_vocabulary(place)}
    return FinetuningConfig.create("export", (place if tf.io.gfile.isdir(place) else os.path.dirname(place)) or ".", values)


def _recorded_vocabulary(place: str) -> str:
    """Where the vocabulary was in pre-training, if no vocab.txt lies beside the checkpoint; else ""."""
    folder = place if tf.io.gfile.isdir(place) else os.path.dirname(place)
    if tf.io.gfile.exists(os.path.join(folder, "vocab.txt")):
        return ""
    recorded = _pretraining(_read_record(os.path.join(folder, "model.ckpt"))).get("vocab_file")
    return recorded if isinstance(recorded, str) and recorded and tf.io.gfile.exists(recorded) else ""


def _read_record(prefix: str) -> dict[str, Any]:
    """config.json beside a checkpoint; {} where there is none."""
    path = os.path.join(os.path.dirname(prefix), "config.json")
    record = read_json(path, "checkpoint") if tf.io.gfile.exists(path) else {}
    return record if isinstance(record, dict) else {}


def _pretraining(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of pre-training in a config.json."""
    settings = record.get("pretraining")
    return settings if isinstance(settings, dict) else {}


# --- the parts of a TensorFlow checkpoint ----------------------------------------------------------------------------------------------


def _scope(prefix: str, part: str, shapes: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Where the part's network lies: a generator that is no network of its own is the encoder."""
    if part == "discriminator" and _pretraining(record).get("electric_objective"):
        raise UserError(f"{prefix} is an Electric model, whose scores need its generator too: no other tool computes them (--part)")
    if any(name.startswith("generator_ltr/") for name in shapes) and part == "generator":
        raise UserError(f"the generator in {prefix} has two towers, which no other tool knows (--part=discriminator)")
    if f"{HEADS[part]}/dense/kernel" not in shapes:
        raise UserError(f"no {HEADS[part]}/ variables in {prefix}: it holds no {part} (--part, --checkpoint)")
    return "generator" if part == "generator" and _has_generator(shapes, record) else "electra"


def _has_generator(shapes: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Whether the generator is a network of its own; one without layers has no variables, or only those of its projection."""
    return any(name.startswith("generator/") for name in shapes) or isinstance(record.get("generator_config"), dict)


def _stored_name(name: str, scope: str, shapes: Mapping[str, Any]) -> str:
    """Our variable `electra/...` in a checkpoint where the network lies under `scope`, whose embeddings may be those of `electra`."""
    stored = f"{scope}{name.removeprefix('electra')}" if name.startswith("electra/") else name
    return name if name.startswith("electra/embeddings/") and stored not in shapes else stored


def _generator_config(start: StartingPoint, shapes: Mapping[str, Any], record: Mapping[str, Any]) -> BertConfig | None:
    """The generator's shape: as recorded, else that of its variables, with one head for 64 units as in google-research/electra.

    None where it is no network of its own, or there is none.
    """
    if not _has_generator(shapes, record) or f"{HEADS['generator']}/dense/kernel" not in shapes:
        return None
    if isinstance(record.get("generator_config"), dict):
        return BertConfig.from_dict(record["generator_config"])
    layers = {name.split("/")[2] for name in shapes if name.startswith("generator/encoder/layer_")}
    hidden_size = shapes[f"{HEADS['generator']}/dense/kernel"][0]
    heads = max(1, hidden_size // UNITS_PER_HEAD)
    known = {"hidden_size": hidden_size, "intermediate_size": 4 * hidden_size, "num_hidden_layers": len(layers)}
    return dataclasses.replace(start.bert_config, num_attention_heads=heads, **known)


def _check_generator(start: StartingPoint, found: BertConfig, asked: Mapping[str, Any]) -> None:
    """UserError where the generator's fraction of the discriminator that was asked for is not that of the checkpoint."""
    for setting, field in (("generator_hidden_size", "hidden_size"), ("generator_layers", "num_hidden_layers")):
        if setting in asked:
            expected = int(round(getattr(start.bert_config, field) * asked[setting]))
            if expected != getattr(found, field):
                raise UserError(
                    f"the generator in {start.prefix} has {field} {getattr(found, field)}, but {setting} {asked[setting]:g} asks for "
                    f"{expected} (--hparams)"
                )


# --- other sources -------------------------------------------------------------------------------------------------------------------


def _load_from_transformers(start: StartingPoint, part: str) -> ExportedModel:
    model = _build(part, start.bert_config, start.embedding_size, start)
    assert start.prefix is not None
    if part == "generator" and _read_record(os.path.join(start.prefix, "")).get("tie_word_embeddings") is False:
        raise UserError(
            f"the generator in {start.prefix} has an output layer apart from its embeddings, which ELECTRA does not have (--part)"
        )
    try:
        values = transformers_folder.read_weights(start.prefix, "electra", model.variables_by_name)
    except UserError as error:
        raise type(error)(f"{error}; does the folder hold a {part}? (--part)") from error
    checkpoint.assign(start.prefix, model.variables_by_name, values)
    return model


def _load_finetuned(place: str, asked: Mapping[str, Any], vocab_file: str, task_name: str | None) -> ExportedModel:
    prefix = place if tf.io.gfile.exists(f"{place}.index") else None
    folder = find_model(os.path.dirname(place) if prefix else place, "checkpoint")
    settings = read_config(folder, vocab_file, task_module=asked.get("task_module", ""))
    tasks = get_tasks(settings)
    task, start = choose_task(tasks, task_name), find_starting_point(_settings(prefix or folder, asked, settings.vocab_file))
    network = FinetuningModel(settings, tasks, start.bert_config, start.embedding_size, settings.seed)
    model = ExportedModel("finetuned", network.encoder, network.heads[tasks.index(task)], start)
    assert start.prefix is not None
    checkpoint.load(start.prefix, model.variables_by_name)
    model.task, model.settings = task, settings
    return model
