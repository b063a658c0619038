"""FinetuningModel: the pre-trained encoder with the layers of one or several tasks on top, as model.estimator trains it."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from configure_finetuning import FinetuningConfig
from finetune.task import Task
from model import checkpoint, transformers_folder
from model.command import UserError
from model.estimator import Features, ModeKeys, Sums
from model.layers import variable_name
from model.modeling import BertConfig, BertModel, BertOutput
from model.random import RandomState


class FinetuningModel(tf.Module):
    """A BertModel under the name `electra` and, for each task, its prediction module under `task_specific/TASK`.

    An example belongs to one task (its task_id, an index into `tasks`); the losses of the other tasks' layers on it count nothing.
    """

    def __init__(
        self,
        config: FinetuningConfig,
        tasks: Sequence[Task],
        bert_config: BertConfig,
        embedding_size: int | None,
        seed: int,
        dtype: tf.DType = tf.float32,
    ):
        super().__init__()
        self._tasks, self._seed, self._reduction = list(tasks), seed, config.loss_reduction
        self._reinit_top_layers = config.reinit_top_layers
        self.heads = [task.get_prediction_module(bert_config, seed) for task in tasks]
        has_pooler = any(getattr(head, "reads_pooler", False) for head in self.heads)
        self.encoder = BertModel(bert_config, embedding_size, "electra", seed=seed, dtype=dtype, has_pooler=has_pooler)

    @property
    def trainable_variables(self) -> list[tf.Variable]:
        return [*self.encoder.trainable_variables, *(variable for head in self.heads for variable in head.trainable_variables)]

    def load_encoder(self, prefix: str) -> None:
        """Takes the encoder's weights from a checkpoint, ours or the original's, or from a folder of the transformers library.

        Other weights there are not looked at: what is on top of the encoder starts anew, and so does a pooler that is not there.

        The top `reinit_top_layers` layers keep their start values (Zhang et al. 2021, "Revisiting few-sample BERT fine-tuning"):
        what they learned in pre-training serves its objective more than the task.

        Raises:
          UserError: an encoder variable is missing there or has another shape.
        """
        variables = {variable_name(variable): variable for variable in self.encoder.trainable_variables}
        pooler = {name for name in variables if "/pooler/" in name}
        if tf.io.gfile.isdir(prefix):
            values = transformers_folder.read_weights(prefix, self.encoder.config.model_type, set(variables) - pooler, pooler)
        else:
            values = _read_encoder(prefix, variables, pooler)
        for name in sorted(set(variables) - set(values)):
            logging.warning("Not in %s, starts from random values: %s", prefix, name)
        for layer in self.encoder.layers[len(self.encoder.layers) - self._reinit_top_layers :]:
            for variable in layer.trainable_variables:
                del values[variable_name(variable)]
        checkpoint.assign(prefix, {name: variables[name] for name in values}, values)

    def _encode(self, features: Features, random: RandomState | None) -> BertOutput:
        return self.encoder(features["input_ids"], features["input_mask"], features["segment_ids"], random)

    def denominators(self, features: Features) -> Sums:
        return {"answers": tf.reduce_sum(self._answers(features))}

    def _answers(self, features: Features) -> tf.Tensor:
        """How many answers count in each row: one for an example, for a sentence to be tagged one for each word. float32 [B]."""
        counts = tf.zeros_like(_weights(features))
        for index, head in enumerate(self.heads):
            counts += head.count(features) * _belongs_to(features, index)
        return counts * _weights(features)

    def loss(self, features: Features, denominators: Sums, step: tf.Tensor, mode: ModeKeys) -> tuple[tf.Tensor, Sums]:
        """Mean loss of the global batch's answers; as in google-research/electra their sum, with loss_reduction="sum"."""
        random = RandomState(self._seed, step, features["position"][0]) if mode == ModeKeys.TRAIN else None
        output = self._encode(features, random)
        losses = tf.zeros_like(_weights(features))
        for index, head in enumerate(self.heads):
            losses += head(output, features, random)[0] * _belongs_to(features, index)
        total = tf.reduce_sum(losses * _weights(features))
        sums = {"loss": total, "answers": tf.reduce_sum(self._answers(features))}
        return (total if self._reduction == "sum" else total / denominators["answers"]), sums

    def summarize(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The mean loss of an answer, whatever the reduction."""
        return {"loss": float(sums["loss"] / sums["answers"])}

    def predict(self, features: Features) -> dict[str, tf.Tensor]:
        """ "task_id" and every output of every task's layers as "TASK/OUTPUT", each [B, ...]."""
        output = self._encode(features, None)
        outputs = {"task_id": features["task_id"]}
        for task, head in zip(self._tasks, self.heads, strict=True):
            for name, value in head(output, features, None)[1].items():
                outputs[f"{task.name}/{name}"] = value
        return outputs


def _read_encoder(prefix: str, variables: Mapping[str, tf.Variable], optional: set[str]) -> dict[str, np.ndarray]:
    """What a checkpoint holds of `variables`; UserError for another shape, and for the first that is missing and not `optional`."""
    shapes = checkpoint.read_shapes(prefix)
    found = sorted(set(variables) & set(shapes))
    for name in found:  # before what is missing: an embedding size of its own adds variables, and the shapes say why
        checkpoint.check_shape(prefix, name, shapes[name], variables[name])
    missing = sorted(set(variables) - set(shapes) - optional)
    if missing:
        raise UserError(
            f"checkpoint {prefix} lacks {missing[0]!r} and {len(missing) - 1} other variables of this model's encoder: "
            "another architecture? (--init_checkpoint, --model_size, --model_hparam_overrides)"
        )
    return checkpoint.read(prefix, found)


def _weights(features: Features) -> tf.Tensor:
    """1 for every example and 0 for rows that only fill up a batch, float32 [B]."""
    return features["is_real"] if "is_real" in features else tf.ones_like(features["task_id"], tf.float32)


def _belongs_to(features: Features, task_index: int) -> tf.Tensor:
    """1 for the rows of one task, float32 [B]."""
    return tf.cast(tf.equal(features["task_id"], task_index), tf.float32)
