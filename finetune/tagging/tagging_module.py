"""The published heads for one tag per word, on the vector of the word's first piece."""

import tensorflow as tf

from finetune.task import Features
from model.layers import Dense, dropout, glorot_uniform, truncated_normal
from model.modeling import BertConfig, BertOutput
from model.random import RandomState

NO_TAG = -1  # of [CLS], [SEP], padding, and every piece of a word but its first


class TaggingModule(tf.Module):
    """Scores per tag and their cross-entropy; dense `task_specific/TASK/classifier`.

    "linear" (google-research/electra): a Glorot-uniform kernel, and no dropout before it.
    "two_layer" (ForTokenClassification of the transformers library, which the published table was made with; its head for tags has one
    layer too, of every model_type): dropout, and a kernel from a truncated normal.
    """

    def __init__(self, task_name: str, kind: str, num_tags: int, bert_config: BertConfig, seed: int):
        super().__init__()
        # DistilBERT's classifier_dropout is that of sentences alone.
        rate = bert_config.hidden_dropout_prob if bert_config.model_type == "distilbert" else bert_config.classifier_dropout
        self._task_name, self._rate = task_name, rate if kind == "two_layer" else 0.0
        initializer = truncated_normal(bert_config.initializer_range) if kind == "two_layer" else glorot_uniform
        self.classifier = Dense(f"task_specific/{task_name}/classifier", bert_config.hidden_size, num_tags, initializer, seed)

    def count(self, features: Features) -> tf.Tensor:
        """How many words of each sentence have a tag, float32 [B]."""
        return tf.reduce_sum(self._is_first(features), -1)

    def _is_first(self, features: Features) -> tf.Tensor:
        return tf.cast(features[f"{self._task_name}_tag_ids"] != NO_TAG, tf.float32)  # [B, L]

    def __call__(self, output: BertOutput, features: Features, random: RandomState | None) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns (cross-entropy in nats, summed over the words [B]; outputs [B, L]: tag_ids, predictions int32, probabilities float32)."""
        vectors = dropout(output.get_sequence_output(), self._rate, random, f"task_specific/{self._task_name}/input")  # [B, L, D]
        logits = self.classifier(vectors)  # [B, L, tags]
        tag_ids = features[f"{self._task_name}_tag_ids"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(tag_ids, 0), logits)
        losses = tf.reduce_sum(losses * self._is_first(features), -1)  # [B]
        outputs = {
            "loss": losses,
            "predictions": tf.argmax(logits, -1, output_type=tf.int32),
            "probabilities": tf.reduce_max(tf.nn.softmax(logits), -1),
            "tag_ids": tag_ids,
            "eid": features[f"{self._task_name}_eid"],
        }
        return losses, outputs
