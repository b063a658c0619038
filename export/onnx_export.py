"""model.onnx, whose batch size and length are free, and model.int8.onnx, the same with int8 weights, a quarter of the size.

Both take input_ids, input_mask and segment_ids, int32 [B, L], and give the outputs of the part's function (served_model.py). The first is
checked with onnxruntime against the network; what the second costs in accuracy only a task's test split tells.
"""

import os
from typing import Any

import tensorflow as tf

from export import graph_check
from export.exported_model import ExportedModel
from export.served_model import IDS, ServedModel
from model.command import UserError
from model.layers import plain_operations

OPSET = 17
NAME, QUANTIZED = "model.onnx", "model.int8.onnx"


def write(model: ExportedModel, folder: str) -> None:
    """Writes both files, the vocabulary, and labels.json where the outputs are labels, into `folder`, which exists."""
    tf2onnx, quantization = _import_tools()
    served, path = ServedModel(model), os.path.join(folder, NAME)
    with plain_operations():
        function = tf.function(getattr(served, served.main), list(IDS.values()), autograph=False)
        tf2onnx.convert.from_function(function, list(IDS.values()), opset=OPSET, output_path=path)
    for shape in ({"batch": 2, "length": 12}, {"batch": 3, "length": 7}):
        graph_check.check(served, served.main, runner(path), NAME, **shape)
    quantization.quantize_dynamic(path, os.path.join(folder, QUANTIZED), weight_type=quantization.QuantType.QInt8)
    model.write_companions(folder)


def runner(path: str) -> graph_check.Run:
    """The file's function: outputs by name, of input_ids, input_mask and segment_ids."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda features: dict(zip(names, session.run(names, features), strict=True))


def _import_tools() -> tuple[Any, Any]:
    try:
        import tf2onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise UserError("--format=onnx needs `pip install .[export]`") from error
    return tf2onnx, quantization
