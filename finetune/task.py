"""Task: where a task's examples lie, how they become features, what is put on the encoder, and how it is scored."""

import abc
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf
from absl import logging

from configure_finetuning import FinetuningConfig
from finetune.feature_spec import FeatureSpec
from finetune.scorer import Scorer
from model.command import UserError, write_atomically
from model.estimator import Features
from model.modeling import BertConfig, BertOutput
from model.random import RandomState
from model.tokenization import Piece


class Encoder(Protocol):
    """The part of model.tokenization.FullTokenizer that a task needs."""

    cls_id: int
    sep_id: int
    unk_id: int

    def encode(self, text: str) -> list[int]: ...

    def tokenize_with_offsets(self, text: str) -> list[Piece]: ...

    def convert_tokens_to_ids(self, tokens: Sequence[str]) -> list[int]: ...


@dataclasses.dataclass(frozen=True)
class Example:
    """One example of a task. `eid`: its line (in JSON, row) in the file, counting from 1, which is unique within a split."""

    eid: int
    text_a: str
    text_b: str | None = None

    def key(self) -> str:
        """What makes two examples the same text; decides whether an example is held out as dev."""
        return self.text_a if self.text_b is None else f"{self.text_a}\t{self.text_b}"


class PredictionModule(Protocol):
    """A task's layers on top of the encoder: a tf.Module whose variables are named task_specific/TASK/..."""

    trainable_variables: Sequence[tf.Variable]

    def __call__(self, output: BertOutput, features: Features, random: RandomState | None) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns (loss of each example [B] float32, outputs for the scorer, each [B, ...]); `random` is None without dropout."""
        ...

    def count(self, features: Features) -> tf.Tensor:
        """How many answers each example asks for, float32 [B]: the loss of an example is the sum over them."""
        ...


class Task(abc.ABC):
    """A task on files of examples.

    Class attributes:
      name: the task's name, which is also the name of its folder in raw_data_dir.
      files: split -> file name. Without "dev" a share of train, chosen by the text, is held out as dev.
      standins: split -> name of a file of another origin that is read where the official one is absent.
      text_columns: what the one or two texts of an example are called, in files with columns or keys.
      allows_empty_text: whether a text may be empty; else it is an error that names the line.
      row_name: what a row of a file is called, in errors and in written predictions.
      files_flag: the flag that says where the files lie, for errors.
      code: for a task of the user's own, a hash of its module, on which its results depend.
    """

    name: str
    files: Mapping[str, str]
    standins: Mapping[str, str] = {}
    text_columns: Sequence[str]
    allows_empty_text: bool = False
    row_name: str = "line"
    files_flag: str = "raw_data_dir"
    code: str = ""

    def __init__(self, config: FinetuningConfig):
        self.config = config

    def path(self, split: str) -> str:
        """The file that holds `split`: the official one, else its stand-in; UserError if there is neither."""
        folder, split = os.path.join(self.config.raw_data_dir, self.name), self._file_split(split)
        names = [files[split] for files in (self.files, self.standins) if split in files]
        for path in (os.path.join(folder, name) for name in names):
            if os.path.isfile(path):
                return path
        raise UserError(f"no file {os.path.join(folder, names[0])!r}: raw_data_dir must hold one folder per task (--raw_data_dir)")

    def _file_split(self, split: str) -> str:
        return split if split in self.files else "train"

    def standin_for(self, split: str) -> str | None:
        """The name of the official file, where `split` is read from another one."""
        official = self.files[self._file_split(split)]
        return None if os.path.basename(self.path(split)) == official else official

    def signature(self, split: str) -> dict[str, Any]:
        """What a result depends on beside the configuration: the contents of the split's file, and how the task reads it."""
        try:
            with open(self.path(split), "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
        except OSError as error:
            raise UserError(f"cannot read {error.filename!r}: {error.strerror} (--{self.files_flag})") from error
        code = {"code": self.code} if self.code else {}
        return {"task": self.name, "file": os.path.basename(self.path(split)), "sha256": digest, **code}

    def describe_files(self) -> dict[str, dict[str, Any]]:
        """split -> file, standin_for (the official file's name or null), and for a dev cut out of train its share."""
        files: dict[str, dict[str, Any]] = {}
        for split in ("train", "dev", *self.get_test_splits()):
            files[split] = {"file": os.path.basename(self.path(split)), "standin_for": self.standin_for(split)}
        if "dev" not in self.files:
            files["dev"]["share_of_train"] = self.config.dev_fraction
        return files

    def get_examples(self, split: str) -> Sequence[Example]:
        """The examples of "train", "dev" or "test" in the order of the file.

        Raises:
          UserError: a missing, empty or malformed file.
        """
        examples = self.read_examples(self.path(split))
        if "dev" not in self.files and split in ("train", "dev"):
            examples = [example for example in examples if self._is_held_out(example) == (split == "dev")]
        if not examples and split == "dev":
            raise UserError(f"{self.path(split)} gives no dev examples with dev_fraction={self.config.dev_fraction} (--dev_fraction)")
        if not examples:
            raise UserError(f"{self.path(split)} holds no examples (--{self.files_flag})")
        return examples

    def _is_held_out(self, example: Example) -> bool:
        """By a hash of the text alone: independent of the rows' order, and copies of a text stay on one side."""
        digest = hashlib.blake2b(f"{self.config.dev_seed}\t{example.key()}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.config.dev_fraction * 2**64

    def get_test_splits(self) -> Sequence[str]:
        return ("test",)

    @abc.abstractmethod
    def read_examples(self, path: str) -> list[Any]:
        """All examples of one file. Raises UserError with file and line for a row that is not as it should be."""

    def check_texts(self, place: str, texts: Sequence[str], flag: str = "") -> None:
        """Raises UserError if no example can be made of `texts`, one for each of text_columns. Errors begin with `place`."""
        for column, text in zip(self.text_columns, texts, strict=True):
            if not text.strip() and not self.allows_empty_text:
                raise UserError(f"{place}: the {column} is empty, but task {self.name} needs a text" + (f" (--{flag})" if flag else ""))

    @abc.abstractmethod
    def make_example(self, number: int, texts: Sequence[str]) -> Example:
        """An example whose answer is not known, of texts that check_texts accepts; its answer is any that the task allows."""

    @abc.abstractmethod
    def describe(self, texts: Sequence[str], output: Mapping[str, Any]) -> dict[str, Any]:
        """What was predicted for the example made of `texts`, for people and JSON. `output`: of the prediction module, for this example."""

    @abc.abstractmethod
    def featurize(self, example: Any, tokenizer: Encoder, is_training: bool) -> list[dict[str, Any]]:
        """The features of one example, by the names of COMMON_SPECS (but task_id) and get_feature_specs; one dict per input made of it."""

    @abc.abstractmethod
    def get_feature_specs(self) -> Sequence[FeatureSpec]:
        """The task's own features; their names start with the task's name. TASK_eid, the example's eid, is among them."""

    @abc.abstractmethod
    def get_prediction_module(self, bert_config: BertConfig, seed: int) -> PredictionModule:
        """New layers for this task."""

    def warn_of_class_weights(self) -> None:
        """For tasks without labels to be weighted."""
        if self.config.class_weights:
            logging.warning("Task %s is no classification: --class_weights has no effect on it", self.name)

    @abc.abstractmethod
    def get_scorer(self) -> Scorer:
        """A new, empty scorer."""

    def complete(self, split: str, output: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs for one example of `split` with what scoring needs and the network never saw: here nothing."""
        return dict(output)

    def get_report(self, results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """Scores label by label for all examples of a split, as finetune.results shows them; None where there are no labels."""
        return None

    @abc.abstractmethod
    def prediction_rows(self, results: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
        """The outputs of examples as rows to be written, in the order of `results`: column -> text or number."""

    def write_predictions(self, path: str, results: Sequence[Mapping[str, Any]]) -> None:
        """Writes the outputs of all examples of a split, sorted by eid, as TSV and beside it as JSON lines (.jsonl)."""
        rows = list(self.prediction_rows(sorted(results, key=lambda result: int(result["eid"]))))
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        write_atomically(f"{path.removesuffix('.tsv')}.jsonl", "\n".join(lines) + "\n")
        lines = ["\t".join(map(str, row)) for row in ([*rows[0]], *(row.values() for row in rows))]
        write_atomically(path, "\n".join(lines) + "\n")
