"""The functions that a SavedModel offers, and those that ONNX and TFLite files hold: from ids, and from text with WordPiece in the graph.

Dimension key as in model/modeling.py; T labels or tags. Sizes of batches and texts are free.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from export.exported_model import ExportedModel
from finetune.classification.classification_tasks import RegressionTask
from finetune.tagging.tagging_tasks import EntityTask
from model.modeling import BertOutput

Outputs = dict[str, tf.Tensor]
IDS = {name: tf.TensorSpec((None, None), tf.int32, name=name) for name in ("input_ids", "input_mask", "segment_ids")}  # [B, L]


class ServedModel(tf.Module):
    """An ExportedModel with its functions. `main` is the name of the one that its part is for."""

    def __init__(self, model: ExportedModel):
        super().__init__()
        self.model = model
        self.main = _main_function(model)

    def functions(self) -> dict[str, Callable[..., Outputs]]:
        """Name -> function of (input_ids, input_mask, segment_ids), int32 [B, L], with outputs by name."""
        return {"encode": self.encode, self.main: getattr(self, self.main)}

    def _run(self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor) -> BertOutput:
        return self.model.encoder(input_ids, input_mask, segment_ids)

    def encode(self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor) -> Outputs:
        """sequence_output float32 [B, L, D]; pooled_output [B, D], as in google-research/electra the vector of [CLS]."""
        output = self._run(input_ids, input_mask, segment_ids)
        return {"sequence_output": output.get_sequence_output(), "pooled_output": output.get_pooled_output()}

    def discriminate(self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor) -> Outputs:
        """logits, and probabilities that a token was replaced, float32 [B, L]."""
        logits = self.model.head(self._run(input_ids, input_mask, segment_ids).get_sequence_output())
        return {"logits": logits, "probabilities": tf.sigmoid(logits)}

    def fill_mask(self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor) -> Outputs:
        """logits float32 [B, L, V] of the token at each position."""
        vectors = self._run(input_ids, input_mask, segment_ids).get_sequence_output()
        return {"logits": self.model.head(vectors, self.model.encoder.get_embedding_table())}

    def classify(self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor) -> Outputs:
        """logits and probabilities float32 [B, T]; of a regression, score float32 [B]."""
        output = self._head_output(input_ids, input_mask, segment_ids)
        if isinstance(self.model.task, RegressionTask):
            return {"score": output["predictions"]}
        return {"logits": output["logits"], "probabilities": output["probabilities"]}

    def tag(self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor) -> Outputs:
        """tags int32 [B, L], the likeliest for each piece, and its probability float32 [B, L]; of a word, the first piece counts."""
        output = self._head_output(input_ids, input_mask, segment_ids)
        return {"tags": output["predictions"], "probabilities": output["probabilities"]}

    def _head_output(self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """What the task's layers give, with answers of zero in place of those that it is trained on."""
        assert self.model.task is not None
        features: dict[str, Any] = {"task_id": tf.zeros_like(input_ids[:, 0])}
        for spec in self.model.task.get_feature_specs():
            like = input_ids if spec.per_token else input_ids[:, 0]
            features[spec.name] = tf.zeros_like(like, dtype=spec.dtype)
        return self.model.head(self._run(input_ids, input_mask, segment_ids), features, None)[1]


def _main_function(model: ExportedModel) -> str:
    if model.task is None:
        return {"discriminator": "discriminate", "generator": "fill_mask"}[model.part]
    return "tag" if isinstance(model.task, EntityTask) else "classify"
