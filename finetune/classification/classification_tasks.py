"""Tasks with one answer per example: their files and what is right in them. The benchmark's are classes of a few lines.

Where a dev file is missing a share of train is held out; the published scores were selected on the test file, ours never are.
"""

import abc
import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from finetune.classification.classification_metrics import AccuracyScorer, F1Scorer, RegressionScorer, classification_report
from finetune.classification.classification_modules import ClassificationModule, RegressionModule
from finetune.feature_spec import FeatureSpec
from finetune.scorer import Scorer
from finetune.task import Encoder, Example, PredictionModule, Task
from finetune.task_files import Row, read_json_rows, read_tsv
from model.command import UserError
from model.modeling import BertConfig


@dataclasses.dataclass(frozen=True)
class LabeledExample(Example):
    """A text, or a pair of texts, with one of the task's labels."""

    label: str = ""


@dataclasses.dataclass(frozen=True)
class ScoredExample(Example):
    """A text, or a pair of texts, with a number."""

    score: float = 0.0


class SentenceTask(Task):
    """A text or a pair of texts and one answer, read from files with columns.

    Class attributes:
      columns: the header of the files.
      text_columns: one or two of them.
      label_column: another.
      is_symmetric: whether the two texts of a pair may change places.
    """

    columns: Sequence[str]
    label_column: str
    is_symmetric: bool = False

    def signature(self, split: str) -> dict[str, Any]:
        return super().signature(split) | {"text": list(self.text_columns), "label": self.label_column}

    def read_examples(self, path: str) -> list[Any]:
        rows = self.read_rows(path)
        examples = [self._example(f"{path}, {self.row_name} {number}", number, row) for number, row in rows if not self.is_missing(row)]
        if len(examples) < len(rows):
            logging.warning(
                "%s: %d of %d rows have no text or only a placeholder and are left out", path, len(rows) - len(examples), len(rows)
            )
        return examples

    def is_missing(self, row: Mapping[str, str]) -> bool:
        """Whether a row is known to hold no example, and is left out and counted rather than refused."""
        return False

    def read_rows(self, path: str) -> Sequence[Row]:
        """(line number, column -> field) for every row of a file."""
        return read_tsv(path, self.columns)

    def _texts(self, place: str, row: Mapping[str, str]) -> tuple[str, str | None]:
        texts = [row[column] for column in self.text_columns]
        self.check_texts(place, texts, self.files_flag)
        return _pair(texts)

    @abc.abstractmethod
    def _example(self, place: str, number: int, row: Mapping[str, str]) -> Example:
        """One row as an example; `place` says where it stands, for errors."""

    @abc.abstractmethod
    def _answer(self, example: Any) -> dict[str, Any]:
        """The feature that holds the right answer."""

    def featurize(self, example: Example, tokenizer: Encoder, is_training: bool) -> list[dict[str, Any]]:
        pieces_a = tokenizer.encode(example.text_a)
        pieces_b = None if example.text_b is None else tokenizer.encode(example.text_b)
        orders = [(pieces_a, pieces_b)]
        if is_training and self.is_symmetric and self.config.double_unordered and pieces_b is not None:
            orders.append((pieces_b, pieces_a))
        task_features = {f"{self.name}_eid": example.eid, **self._answer(example)}
        return [encode_pair(*order, tokenizer, self.config.max_seq_length) | task_features for order in orders]


class ClassificationTask(SentenceTask):
    """One of several labels.

    Class attributes:
      labels: the labels as they are written; their order gives the ids.
    """

    labels: Sequence[str]

    def signature(self, split: str) -> dict[str, Any]:
        return super().signature(split) | {"labels": list(self.labels)}

    def _example(self, place: str, number: int, row: Mapping[str, str]) -> LabeledExample:
        label = row[self.label_column]
        if label not in self.labels:
            allowed = ", ".join(self.labels)
            raise UserError(f"{place}: label {label[:40]!r} of task {self.name}; allowed: {allowed} (--{self.files_flag})")
        return LabeledExample(number, *self._texts(place, row), label=label)

    def make_example(self, number: int, texts: Sequence[str]) -> LabeledExample:
        return LabeledExample(number, *_pair(texts), label=self.labels[0])

    def describe(self, texts: Sequence[str], output: Mapping[str, Any]) -> dict[str, Any]:
        """{"label": "1", "probability": 0.98, "probabilities": {"0": 0.02, "1": 0.98}}"""
        probabilities = {label: round(float(value), 6) for label, value in zip(self.labels, output["probabilities"], strict=True)}
        label = self.labels[int(output["predictions"])]
        return {"label": label, "probability": probabilities[label], "probabilities": probabilities}

    def _answer(self, example: LabeledExample) -> dict[str, Any]:
        return {f"{self.name}_label_ids": self.labels.index(example.label)}

    def get_feature_specs(self) -> Sequence[FeatureSpec]:
        return (FeatureSpec(f"{self.name}_eid"), FeatureSpec(f"{self.name}_label_ids"))

    def get_prediction_module(self, bert_config: BertConfig, seed: int) -> PredictionModule:
        weights = self.label_weights() if self.config.class_weights else None
        return ClassificationModule(self.name, self.config.classifier_head, len(self.labels), bert_config, seed, weights)

    def label_weights(self) -> list[float]:
        """What makes each label count the same in all: rows / (labels * rows with the label), 1 on average over train."""
        examples: Sequence[Any] = self.get_examples("train")
        counts = collections.Counter(example.label for example in examples)
        return [counts.total() / (len(self.labels) * max(1, counts[label])) for label in self.labels]

    def get_scorer(self) -> Scorer:
        return AccuracyScorer()

    def get_report(self, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        right, predicted = ([int(result[name]) for result in results] for name in ("label_ids", "predictions"))
        return classification_report(self.labels, right, predicted)

    def prediction_rows(self, results: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
        """Columns: line of the example in its file, its label, the predicted one, and the probability of each label."""
        for result in results:
            label, prediction = (self.labels[int(result[name])] for name in ("label_ids", "predictions"))
            probabilities = {f"p({name})": round(float(p), 6) for name, p in zip(self.labels, result["probabilities"], strict=True)}
            yield {self.row_name: int(result["eid"]), "label": label, "prediction": prediction, **probabilities}


class RegressionTask(SentenceTask):
    """A number between `min_value` and `max_value`."""

    min_value: float
    max_value: float
    main_metric = "spearman"

    def signature(self, split: str) -> dict[str, Any]:
        return super().signature(split) | {"range": [self.min_value, self.max_value]}

    def _example(self, place: str, number: int, row: Mapping[str, str]) -> ScoredExample:
        text = row[self.label_column]
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not self.min_value <= score <= self.max_value:
            allowed = f"a number from {self.min_value:g} to {self.max_value:g}"
            raise UserError(f"{place}: score {text[:40]!r} of task {self.name}; allowed: {allowed} (--{self.files_flag})")
        return ScoredExample(number, *self._texts(place, row), score=score)

    def make_example(self, number: int, texts: Sequence[str]) -> ScoredExample:
        return ScoredExample(number, *_pair(texts), score=self.min_value)

    def describe(self, texts: Sequence[str], output: Mapping[str, Any]) -> dict[str, Any]:
        """{"score": 3.71}, which a model may put a little outside of the range."""
        return {"score": round(float(output["predictions"]), 6)}

    def _answer(self, example: ScoredExample) -> dict[str, Any]:
        return {f"{self.name}_targets": example.score}

    def get_feature_specs(self) -> Sequence[FeatureSpec]:
        return (FeatureSpec(f"{self.name}_eid"), FeatureSpec(f"{self.name}_targets", dtype=np.float32))

    def get_prediction_module(self, bert_config: BertConfig, seed: int) -> PredictionModule:
        self.warn_of_class_weights()
        return RegressionModule(self.name, self.config.classifier_head, self.min_value, self.max_value, bert_config, seed)

    def get_scorer(self) -> Scorer:
        return RegressionScorer(self.main_metric)

    def prediction_rows(self, results: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
        """Columns: line of the example in its file, its score, and the predicted one."""
        for result in results:
            score, prediction = (round(float(result[name]), 6) for name in ("targets", "predictions"))
            yield {self.row_name: int(result["eid"]), "score": score, "prediction": prediction}


class NSMC(ClassificationTask):
    """Naver sentiment movie corpus (e9t/nsmc): is a review good (1) or bad (0)? Official split; it has no dev file."""

    name = "nsmc"
    files = {"train": "ratings_train.txt", "test": "ratings_test.txt"}
    columns = ("id", "document", "label")
    text_columns = ("document",)
    label_column = "label"
    labels = ("0", "1")
    allows_empty_text = True  # eight reviews of the official files are


class QuestionPair(ClassificationTask):
    """songys/Question_pair: do two questions ask the same? In the data is_duplicate is inverted: 0 means the same, 1 different."""

    name = "question-pair"
    files = {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"}
    columns = ("question1", "question2", "is_duplicate")
    text_columns = ("question1", "question2")
    label_column = "is_duplicate"
    labels = ("0", "1")
    is_symmetric = True


class HateSpeech(ClassificationTask):
    """kocohub/korean-hate-speech: how hateful is a news comment? From the comment alone, as the published scores are.

    The official test labels are not public, so that val.tsv is what the published table reports; dev is cut out of train.
    """

    name = "hate-speech"
    files = {"train": "train.tsv", "test": "val.tsv"}
    columns = ("title", "comment", "bias", "hate")
    text_columns = ("comment",)
    label_column = "hate"
    labels = ("none", "offensive", "hate")

    def get_scorer(self) -> Scorer:
        return F1Scorer(range(len(self.labels)))


class KorNLI(ClassificationTask):
    """kakaobrain/KorNLUDatasets KorNLI: does the second sentence follow from the first? Trained on MultiNLI alone, as published."""

    name = "kornli"
    files = {"train": "multinli.train.ko.tsv", "dev": "xnli.dev.ko.tsv", "test": "xnli.test.ko.tsv"}
    standins = {"train": "standin.klue-nli-dev.train.ko.tsv"}
    columns = ("sentence1", "sentence2", "gold_label")
    text_columns = ("sentence1", "sentence2")
    label_column = "gold_label"
    labels = ("entailment", "neutral", "contradiction")


class KorSTS(RegressionTask):
    """kakaobrain/KorNLUDatasets KorSTS: how similar in meaning are two sentences, from 0 to 5?"""

    name = "korsts"
    files = {"train": "sts-train.tsv", "dev": "sts-dev.tsv", "test": "sts-test.tsv"}
    columns = ("genre", "filename", "year", "id", "score", "sentence1", "sentence2")
    text_columns = ("sentence1", "sentence2")
    label_column = "score"
    min_value, max_value = 0.0, 5.0
    is_symmetric = True


class PawsX(ClassificationTask):
    """PAWS-X in Korean (google-research-datasets/paws, the files of x-final/ko): do two alike sentences mean the same (1)?

    Where a translation is missing the files hold nothing, or "NS"; such rows are left out.
    """

    name = "paws-x"
    files = {"train": "translated_train.tsv", "dev": "dev_2k.tsv", "test": "test_2k.tsv"}
    columns = ("id", "sentence1", "sentence2", "label")
    text_columns = ("sentence1", "sentence2")
    label_column = "label"
    labels = ("0", "1")
    is_symmetric = True

    def is_missing(self, row: Mapping[str, str]) -> bool:
        return any(row[column].strip() in ("", "NS") for column in self.text_columns)


class KlueNLI(ClassificationTask):
    """KLUE-NLI 1.1 (JSON). Its test labels are not public, so that its dev file is the test here; dev is cut out of train."""

    name = "klue-nli"
    files = {"train": "klue-nli-v1.1_train.json", "test": "klue-nli-v1.1_dev.json"}
    text_columns = ("premise", "hypothesis")
    label_column = "gold_label"
    labels = ("entailment", "neutral", "contradiction")
    row_name = "row"

    def read_rows(self, path: str) -> Sequence[Row]:
        return read_json_rows(path, (*self.text_columns, self.label_column))


class KlueSTS(RegressionTask):
    """KLUE-STS 1.1 (JSON), by Pearson's correlation with the exact mean of the votes; dev and test as in KLUE-NLI."""

    name = "klue-sts"
    files = {"train": "klue-sts-v1.1_train.json", "test": "klue-sts-v1.1_dev.json"}
    text_columns = ("sentence1", "sentence2")
    label_column = "labels/real-label"
    min_value, max_value = 0.0, 5.0
    main_metric = "pearson"
    is_symmetric = True
    row_name = "row"

    def read_rows(self, path: str) -> Sequence[Row]:
        return read_json_rows(path, (*self.text_columns, self.label_column))


def _pair(texts: Sequence[str]) -> tuple[str, str | None]:
    """One or two texts as text_a and text_b."""
    return texts[0], texts[1] if len(texts) > 1 else None


def encode_pair(
    pieces_a: Sequence[int], pieces_b: Sequence[int] | None, tokenizer: Encoder, max_seq_length: int
) -> dict[str, list[int] | int]:
    """[CLS] a [SEP] or [CLS] a [SEP] b [SEP], segments 0 and 1; cut to `max_seq_length`, of a pair always the longer text.

    [5, 6, 7, 8, 9], [6, 7], length 8 -> [CLS] 5 6 7 [SEP] 6 7 [SEP], segments 0 0 0 0 0 1 1 1, num_cut 2
    """
    if pieces_b is None:
        input_ids = [tokenizer.cls_id, *pieces_a[: max_seq_length - 2], tokenizer.sep_id]
        return {"input_ids": input_ids, "segment_ids": [0] * len(input_ids), "num_cut": max(0, len(pieces_a) - (max_seq_length - 2))}
    room = max_seq_length - 3
    first = [tokenizer.cls_id, *pieces_a[: max(room - room // 2, room - len(pieces_b))], tokenizer.sep_id]
    second = [*pieces_b[: max(room // 2, room - len(pieces_a))], tokenizer.sep_id]
    num_cut = max(0, len(pieces_a) + len(pieces_b) - room)
    return {"input_ids": first + second, "segment_ids": [0] * len(first) + [1] * len(second), "num_cut": num_cut}
