"""The published heads for one answer per example, on the vector of [CLS]: a label, or a number."""

from collections.abc import Sequence

import tensorflow as tf

from finetune.task import Features
from model.layers import Dense, bias_gelu, dropout, glorot_uniform, truncated_normal
from model.modeling import BertConfig, BertOutput
from model.random import RandomState

LINEAR_DROPOUT = 0.1  # of google-research/electra's head, whatever the model's own rates are


class _Head(tf.Module):
    """From the vector of [CLS] to `outputs` numbers, by layers under `task_specific/TASK`.

    "linear" (google-research/electra): dropout, dense `classifier`, Glorot-uniform kernel.
    "two_layer" (ForSequenceClassification of the transformers library, which the published table was made with), its dropout and
    its kernels from a truncated normal, by the model_type:
        electra      dropout, dense `classifier/dense`, GELU, dropout, dense `classifier/out_proj`
        bert         the encoder's pooler, dropout, dense `classifier`
        distilbert   dense `pre_classifier`, ReLU, dropout, dense `classifier`

    `reads_pooler`: whether the encoder must have one.
    """

    def __init__(self, task_name: str, kind: str, outputs: int, bert_config: BertConfig, seed: int):
        super().__init__()
        self._site, size = f"task_specific/{task_name}", bert_config.hidden_size
        self._task_name, self._kind = task_name, bert_config.model_type if kind == "two_layer" else kind
        self._rate = LINEAR_DROPOUT if kind == "linear" else bert_config.classifier_dropout
        self.reads_pooler = self._kind == "bert"
        normal = truncated_normal(bert_config.initializer_range)
        hidden = {"electra": "classifier/dense", "distilbert": "pre_classifier"}.get(self._kind)
        self.hidden = Dense(f"{self._site}/{hidden}", size, size, normal, seed) if hidden else None
        name = "classifier/out_proj" if self._kind == "electra" else "classifier"
        self.classifier = Dense(f"{self._site}/{name}", size, outputs, glorot_uniform if kind == "linear" else normal, seed)

    def _logits(self, output: BertOutput, random: RandomState | None) -> tf.Tensor:
        """float32 [B, outputs]."""
        vectors = output.pooler_output if self.reads_pooler else output.get_pooled_output()  # [B, D]
        if self._kind != "distilbert":
            vectors = dropout(vectors, self._rate, random, f"{self._site}/input")
        if self.hidden is not None:
            hidden = self.hidden.matmul(vectors)
            bias = tf.convert_to_tensor(self.hidden.bias)
            vectors = bias_gelu(hidden, bias) if self._kind == "electra" else tf.nn.relu(hidden + bias)
            vectors = dropout(vectors, self._rate, random, f"{self._site}/hidden")
        return self.classifier(vectors)

    def count(self, features: Features) -> tf.Tensor:
        """One answer per example, float32 [B]."""
        return tf.ones_like(features["task_id"], tf.float32)


class ClassificationModule(_Head):
    """Scores per label and their cross-entropy, in training times the weight of the label, if there are `label_weights`."""

    def __init__(
        self,
        task_name: str,
        kind: str,
        num_labels: int,
        bert_config: BertConfig,
        seed: int,
        label_weights: Sequence[float] | None = None,
    ):
        super().__init__(task_name, kind, num_labels, bert_config, seed)
        self._label_weights = None if label_weights is None else tf.constant(label_weights, tf.float32)

    def __call__(self, output: BertOutput, features: Features, random: RandomState | None) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns (cross-entropy [B] in nats, outputs for the scorer, whose loss is never weighted)."""
        logits = self._logits(output, random)  # [B, labels]
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
        if self._label_weights is not None and random is not None:
            losses *= tf.gather(self._label_weights, labels)
        return losses, outputs


class RegressionModule(_Head):
    """A number per example and its squared error.

    "linear": as in google-research/electra, it learns (score - min_value) / range. Unlike there, where the divisor was max_value,
    the scores fill 0 to 1 whatever the minimum is.
    "two_layer": as Dialog-KoELECTRA did it, the score itself.
    Predictions and targets are given in the units of the scores, the loss in those of what is learned.
    """

    def __init__(self, task_name: str, kind: str, min_value: float, max_value: float, bert_config: BertConfig, seed: int):
        super().__init__(task_name, kind, 1, bert_config, seed)
        self._offset, self._scale = (min_value, max_value - min_value) if kind == "linear" else (0.0, 1.0)

    def __call__(self, output: BertOutput, features: Features, random: RandomState | None) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns (squared error [B], outputs for the scorer)."""
        values = self._logits(output, random)[:, 0]  # [B]
        targets = features[f"{self._task_name}_targets"]
        losses = tf.square(values - (targets - self._offset) / self._scale)
        outputs = {
            "loss": losses,
            "predictions": values * self._scale + self._offset,
            "targets": targets,
            "eid": features[f"{self._task_name}_eid"],
        }
        return losses, outputs
