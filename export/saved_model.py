"""A SavedModel that TensorFlow Serving runs as it is. Its signatures, all with free batch size and length:

    encode                          input_ids, input_mask, segment_ids int32 [B, L] -> sequence_output [B, L, D], pooled_output [B, D]
    discriminate, fill_mask,        the same -> what the part is for: see served_model.py
    classify or tag
    serving_default                 texts string [B] (tasks on pairs: text_a, text_b) -> the same, and input_ids, input_mask, segment_ids
    from_morphemes                  the same with morphemes between spaces, the later ones of a word marked: "심각 ##합니다"

serving_default cuts text by WordPiece alone: where the vocabulary was made with morphemes, from_morphemes gives the ids of training.
A sentencepiece vocabulary has no signatures for text.
"""

import os
from collections.abc import Callable

import tensorflow as tf

from export import graph_check
from export.exported_model import WORDPIECE_TYPES, ExportedModel
from export.graph_tokenizer import GraphTokenizer
from export.served_model import IDS, Outputs, ServedModel
from model.layers import plain_operations


class _WithText(tf.Module):
    """A ServedModel with the functions that take text."""

    def __init__(self, served: ServedModel):
        super().__init__()
        model = served.model
        length = model.settings.max_seq_length if model.settings is not None else model.config.max_position_embeddings
        self.served, self.tokenizer = served, GraphTokenizer(model.tokenizer, length)
        self.names = ("text_a", "text_b") if model.task is not None and len(model.task.text_columns) == 2 else ("texts",)

    def function(self, ids_of: Callable[[tf.Tensor], tf.RaggedTensor]) -> tf.types.experimental.PolymorphicFunction:
        """From texts, or what `ids_of` takes, to the outputs of the part's function and the ids that it was given."""

        def run(*texts: tf.Tensor) -> Outputs:
            features = self.tokenizer.pack(*map(ids_of, texts))
            return {**getattr(self.served, self.served.main)(**features), **features}

        return tf.function(run, [tf.TensorSpec((None,), tf.string, name=name) for name in self.names], autograph=False)


def runner(signature: Callable[..., Outputs]) -> graph_check.Run:
    """A signature with arrays for tensors."""
    return lambda features: {
        name: value.numpy() for name, value in signature(**{name: tf.constant(value) for name, value in features.items()}).items()
    }


def write(model: ExportedModel, folder: str) -> None:
    """Writes the SavedModel into `folder`, which exists, vocabulary, labels and config.json in its assets.extra."""
    served = ServedModel(model)
    with plain_operations():
        signatures = {
            name: tf.function(function, list(IDS.values()), autograph=False).get_concrete_function()
            for name, function in served.functions().items()
        }
        root: tf.Module = served
        if model.tokenizer.tokenizer_type in WORDPIECE_TYPES:
            root = with_text = _WithText(served)
            tokenizer = with_text.tokenizer
            signatures["serving_default"] = with_text.function(tokenizer.ids_of_texts).get_concrete_function()
            signatures["from_morphemes"] = with_text.function(tokenizer.ids_of_morphemes).get_concrete_function()
        else:
            signatures["serving_default"] = signatures[served.main]
        tf.saved_model.save(root, folder, signatures)
    signatures = tf.saved_model.load(folder).signatures
    for name in served.functions():
        graph_check.check(served, name, runner(signatures[name]), "the SavedModel")
    extra = os.path.join(folder, "assets.extra")
    os.makedirs(extra)
    model.write_companions(extra, with_config=True)
