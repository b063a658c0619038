"""From a checkpoint to a folder in one of the formats: all of it, or nothing."""

import contextlib
import dataclasses
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from export import onnx_export, saved_model, tf1_export, tflite_export, transformers_export
from export.exported_model import PARTS, ExportedModel, load_model
from model import hparams
from model.command import DataError, UserError
from model.hparams import option

FORMATS = ("transformers", "tf1", "saved_model", "onnx", "tflite")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """What to export; every field is a flag of export_checkpoint.py."""

    checkpoint: str = option("", "checkpoint: a folder, a prefix such as DIR/model.ckpt-1000, or a folder of the transformers library")
    part: str = option("discriminator", "discriminator or generator of pre-training, or a fine-tuned model", PARTS)
    format: str = option("transformers", "what to write", FORMATS)
    output_dir: str = option("", "folder to write, which must not exist yet")
    hparams: str = option("", "JSON object or file with settings of training, for what the checkpoint does not tell, such as the heads")
    vocab_file: str = option("", "vocabulary; empty: beside the checkpoint, else where it was in pre-training")
    task_name: str | None = option(None, "task to export, of a model fine-tuned on several")
    everything: bool = option(False, "tf1: all networks of the checkpoint, not the part alone")
    with_optimizer: bool = option(False, "tf1: Adam's moments and global_step, too, to go on training")

    @classmethod
    def create(cls, values: Mapping[str, Any]) -> "ExportConfig":
        """Raises UserError on anything unknown, mistyped, missing or without a meaning."""
        config = cls(**hparams.check(cls, values))
        for name in ("checkpoint", "output_dir"):
            if not getattr(config, name):
                raise UserError(f"--{name} is required: {cls.__dataclass_fields__[name].metadata['help']}")
        for name in ("everything", "with_optimizer"):
            if getattr(config, name) and config.format != "tf1":
                raise UserError(f"--{name} has a meaning with --format=tf1 only, not with {config.format!r}")
        if config.task_name and config.part != "finetuned":
            raise UserError(f"--task_name has no meaning for the {config.part} (--part=finetuned)")
        if "://" in config.output_dir:
            raise UserError(f"{config.output_dir!r} is no folder of this machine: export to one, and copy it (--output_dir)")
        if os.path.exists(config.output_dir):
            raise UserError(f"{config.output_dir!r} exists: nothing is written over, remove it or choose another folder (--output_dir)")
        return config


def export(config: ExportConfig) -> ExportedModel:
    """Writes config.output_dir and returns the model that it holds.

    Raises:
      UserError: a part that is not there, settings that contradict the checkpoint, a format that does not hold the model.
      DataError: a damaged checkpoint, or a folder that cannot be written; then there is none.
    """
    asked = hparams.read_hparams(config.hparams) if config.hparams else {}
    try:
        model = load_model(config.checkpoint, config.part, asked, config.vocab_file, config.task_name)
    except UserError as error:
        raise type(error)(_FLAGS_OF_OTHERS.sub(lambda found: "--checkpoint" if found[1] in _PLACES else "--hparams", f"{error}")) from error
    except tf.errors.OpError as error:
        raise UserError(f"cannot read {config.checkpoint!r}: {error.message} (--checkpoint)") from error
    with _whole_folder(config.output_dir) as folder:
        if config.format == "tf1":
            tf1_export.write(model, folder, config.everything, config.with_optimizer)
        else:
            _WRITERS[config.format](model, folder)
    names = ", ".join(sorted(os.listdir(config.output_dir)))
    logging.info(
        "%s of %s (%s parameters) in %s: %s", model.part, model.start.prefix, f"{model.num_parameters:,}", config.output_dir, names
    )
    return model


_WRITERS: dict[str, Callable[[ExportedModel, str], None]] = {
    "transformers": transformers_export.write,
    "saved_model": saved_model.write,
    "onnx": onnx_export.write,
    "tflite": tflite_export.write,
}


# What other scripts call the checkpoint and the settings, in errors that they share with this one.
_PLACES = ("init_checkpoint", "model", "model_dir")
_FLAGS_OF_OTHERS = re.compile(
    rf"--({'|'.join(_PLACES)}|model_size|model_hparam_overrides|embedding_size|vocab_size|tokenizer_type|analyzer|do_lower_case|strip_accents|task_module)\b"
)


@contextlib.contextmanager
def _whole_folder(path: str) -> Iterator[str]:
    """A folder to write to, which becomes `path` when the context ends, and is gone if it ends with an error."""
    temporary = f"{os.path.abspath(path)}.tmp-{uuid.uuid4().hex[:8]}"
    try:
        os.makedirs(temporary)
        yield temporary
        os.rename(temporary, path)
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        raise DataError(f"cannot write {path!r}: {reason} (--output_dir)") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
