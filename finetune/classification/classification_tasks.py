"""Tasks with one answer per example: their files, their labels, and the two published classification heads."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from finetune.classification.classification_metrics import AccuracyScorer
from finetune.feature_spec import FeatureSpec
from finetune.scorer import Scorer
from finetune.task import Encoder, Example, Features, PredictionModule, Task
from model.command import UserError, write_atomically
from model.layers import Dense, bias_gelu, dropout, glorot_uniform, truncated_normal
from model.modeling import BertConfig, BertOutput
from model.random import RandomState
from pretrain.text_files import read_lines

HEAD_DROPOUT = 0.1  # of both published heads


@dataclasses.dataclass(frozen=True)
class LabeledExample(Example):
    """A text, or a pair of texts, with one of the task's labels."""

    label: str = ""


def read_tsv(path: str, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Reads a tab-separated file whose first line is the header `columns`.

    'id\\tdocument\\tlabel\\n7\\t"good\\t1\\n' -> [(2, {"id": "7", "document": '"good', "label": "1"})]

    Quotes have no meaning: a reader that honours them silently merges the lines between two of them.

    Returns:
      (line number counting from 1, column -> field) for every row.

    Raises:
      UserError: another header, or a row with another number of fields.
    """
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split("\t")
        if len(fields) != len(columns):
            raise UserError(f"{path}, line {number}: {len(fields)} tab-separated fields instead of {len(columns)} ({', '.join(columns)})")
        if number == 1 and fields != list(columns):
            raise UserError(f"{path}, line 1: the header is {fields} instead of {list(columns)}; is this the file of another task?")
        if number > 1:
            rows.append((number, dict(zip(columns, fields, strict=True))))
    return rows


class ClassificationTask(Task):
    """One of several labels for a text or a pair of texts, read from tab-separated files.

    Class attributes:
      columns: the header of the files.
      text_columns: one or two of them.
      label_column: another.
      labels: the labels as they are written; their order gives the ids.
      is_symmetric: whether the two texts of a pair may change places.
    """

    columns: Sequence[str]
    text_columns: Sequence[str]
    label_column: str
    labels: Sequence[str]
    is_symmetric: bool = False

    def signature(self, split: str) -> dict[str, Any]:
        return super().signature(split) | {"text": list(self.text_columns), "label": self.label_column, "labels": list(self.labels)}

    def read_examples(self, path: str) -> list[LabeledExample]:
        return [self._example(path, number, row) for number, row in read_tsv(path, self.columns)]

    def _example(self, path: str, number: int, row: Mapping[str, str]) -> LabeledExample:
        label = row[self.label_column]
        if label not in self.labels:
            raise UserError(f"{path}, line {number}: label {label[:40]!r} of task {self.name}; allowed: {', '.join(self.labels)}")
        text_a, *rest = (row[column] for column in self.text_columns)
        return LabeledExample(number, text_a, rest[0] if rest else None, label=label)

    def featurize(self, example: LabeledExample, tokenizer: Encoder, is_training: bool) -> list[dict[str, Any]]:
        pieces_a = tokenizer.encode(example.text_a)
        pieces_b = None if example.text_b is None else tokenizer.encode(example.text_b)
        orders = [(pieces_a, pieces_b)]
        if is_training and self.is_symmetric and self.config.double_unordered and pieces_b is not None:
            orders.append((pieces_b, pieces_a))
        task_features = {f"{self.name}_eid": example.eid, f"{self.name}_label_ids": self.labels.index(example.label)}
        return [encode_pair(*order, tokenizer, self.config.max_seq_length) | task_features for order in orders]

    def get_feature_specs(self) -> Sequence[FeatureSpec]:
        return (FeatureSpec(f"{self.name}_eid"), FeatureSpec(f"{self.name}_label_ids"))

    def get_prediction_module(self, bert_config: BertConfig, seed: int) -> PredictionModule:
        return ClassificationModule(self.name, self.config.classifier_head, len(self.labels), bert_config, seed)

    def get_scorer(self) -> Scorer:
        return AccuracyScorer()

    def write_predictions(self, path: str, results: Sequence[Mapping[str, Any]]) -> None:
        """Columns: line of the example in its file, its label, the predicted one, and the probability of each label."""
        lines = ["\t".join(["line", "label", "prediction", *(f"p({label})" for label in self.labels)])]
        for result in sorted(results, key=lambda result: int(result["eid"])):
            names = (self.labels[int(result["label_ids"])], self.labels[int(result["predictions"])])
            lines.append("\t".join([str(int(result["eid"])), *names, *(f"{value:.6f}" for value in result["probabilities"])]))
        write_atomically(path, "\n".join(lines) + "\n")


class NSMC(ClassificationTask):
    """Naver sentiment movie corpus (e9t/nsmc): is a review good (1) or bad (0)? Official split; it has no dev file."""

    name = "nsmc"
    files = {"train": "ratings_train.txt", "test": "ratings_test.txt"}
    columns = ("id", "document", "label")
    text_columns = ("document",)
    label_column = "label"
    labels = ("0", "1")


def encode_pair(pieces_a: Sequence[int], pieces_b: Sequence[int] | None, tokenizer: Encoder, max_seq_length: int) -> dict[str, list[int]]:
    """[CLS] a [SEP] or [CLS] a [SEP] b [SEP], segments 0 and 1; cut to `max_seq_length`, of a pair always the longer text.

    [5, 6, 7, 8, 9], [6, 7], length 8 -> [CLS] 5 6 7 [SEP] 6 7 [SEP], segments 0 0 0 0 0 1 1 1
    """
    if pieces_b is None:
        input_ids = [tokenizer.cls_id, *pieces_a[: max_seq_length - 2], tokenizer.sep_id]
        return {"input_ids": input_ids, "segment_ids": [0] * len(input_ids)}
    room = max_seq_length - 3
    # Where dropping a piece of the longer one, of two equals of the second, again and again ends:
    first = [tokenizer.cls_id, *pieces_a[: max(room - room // 2, room - len(pieces_b))], tokenizer.sep_id]
    second = [*pieces_b[: max(room // 2, room - len(pieces_a))], tokenizer.sep_id]
    return {"input_ids": first + second, "segment_ids": [0] * len(first) + [1] * len(second)}


class ClassificationModule(tf.Module):
    """Scores per label from the vector of [CLS], and their cross-entropy.

    "linear" (google-research/electra): dropout, dense `task_specific/TASK/classifier`, Glorot-uniform kernel.
    "two_layer" (ElectraClassificationHead of the transformers library, which Dialog-KoELECTRA used): dropout, dense, GELU,
    dropout, dense; `task_specific/TASK/classifier/dense` and `.../out_proj`, kernels from a truncated normal.
    """

    def __init__(self, task_name: str, kind: str, num_labels: int, bert_config: BertConfig, seed: int):
        super().__init__()
        self._task_name, self._num_labels, self._rate = task_name, num_labels, HEAD_DROPOUT
        scope, size = f"task_specific/{task_name}/classifier", bert_config.hidden_size
        normal = truncated_normal(bert_config.initializer_range)
        self.hidden = Dense(f"{scope}/dense", size, size, normal, seed) if kind == "two_layer" else None
        self.classifier = (
            Dense(f"{scope}/out_proj", size, num_labels, normal, seed)
            if kind == "two_layer"
            else Dense(scope, size, num_labels, glorot_uniform, seed)
        )

    def __call__(self, output: BertOutput, features: Features, random: RandomState | None) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns (cross-entropy [B] in nats, outputs for the scorer)."""
        site = f"task_specific/{self._task_name}"
        vectors = dropout(output.get_pooled_output(), self._rate, random, f"{site}/input")  # [B, D]
        if self.hidden is not None:
            vectors = bias_gelu(self.hidden.matmul(vectors), tf.convert_to_tensor(self.hidden.bias))
            vectors = dropout(vectors, self._rate, random, f"{site}/hidden")
        logits = self.classifier(vectors)  # [B, labels]
        labels = features[f"{self._task_name}_label_ids"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        outputs = {
            "loss": losses,
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "predictions": tf.argmax(logits, -1, output_type=tf.int32),
            "label_ids": labels,
            "eid": features[f"{self._task_name}_eid"],
        }
        return losses, outputs
