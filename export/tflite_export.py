"""model.tflite, whose batch size and length are free, and model.int8.tflite, the same with int8 weights, a quarter of the size.

Both hold operations of TFLite alone. They take input_ids, input_mask and segment_ids, int32 [B, L], by the signature serving_default and
give the outputs of the part's function (served_model.py). The first is checked with TFLite's interpreter against the network.
"""

import os

import tensorflow as tf

from export import graph_check
from export.exported_model import ExportedModel
from export.served_model import IDS, ServedModel
from model.layers import plain_operations

NAME, QUANTIZED = "model.tflite", "model.int8.tflite"


def write(model: ExportedModel, folder: str) -> None:
    """Writes both files, the vocabulary, and labels.json where the outputs are labels, into `folder`, which exists."""
    served = ServedModel(model)
    with plain_operations(for_tflite=True):
        function = tf.function(getattr(served, served.main), list(IDS.values()), autograph=False).get_concrete_function()
    for name in (NAME, QUANTIZED):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], served)
        if name == QUANTIZED:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        with open(os.path.join(folder, name), "wb") as file:
            file.write(converter.convert())
    run = runner(os.path.join(folder, NAME))
    for shape in ({"batch": 2, "length": 12}, {"batch": 3, "length": 7}):
        graph_check.check(served, served.main, run, NAME, **shape)
    model.write_companions(folder)


def runner(path: str, num_threads: int | None = None) -> graph_check.Run:
    """The file's function: outputs by name, of input_ids, input_mask and segment_ids."""
    run = tf.lite.Interpreter(path, num_threads=num_threads).get_signature_runner()
    return lambda features: run(**features)
