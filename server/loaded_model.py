"""A SavedModel as TensorFlow Serving's REST interface shows it: JSON in, JSON out, by the name of a signature.

{"inputs": {"texts": ["정말 재미있다"]}}      -> {"outputs": {"probabilities": [[0.02, 0.98]], ...}}
{"instances": [{"text_a": "가", "text_b": "나"}]} -> {"predictions": [{"score": 3.7, ...}]}
"""

import dataclasses
import itertools
import math
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from model.command import DataError, UserError, read_json
from model.words import has_half_pair

DEFAULT_SIGNATURE = "serving_default"
# Operations of a graph that read or write files it names, reach for the network, or call back into Python. No export of ours has them;
# docs/security.md says what is left.
_REFUSED = re.compile(
    r"(Read|Write)File|MatchingFiles|RecordInput|\w*PyFunc\w*|Save|SaveSlices|DistributedSave|Restore|RestoreSlice|LoadAndRemapMatrix"
    r"|GenerateVocabRemapping|(De|En)codeProto(V2)?|ImportEvent|\w*Dataset(V\d)?|DatasetToTFRecord|\w*Reader(V2)?|\w*Summary(File|Db)Writer"
    r"|Rpc\w+|PrintV2|Debug\w+"
)
Columns = dict[str, np.ndarray]


class BadRequest(ValueError):
    """A request that cannot be answered, whatever the load: the message says what is wrong and what is allowed."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a single request may ask for."""

    max_rows: int = 64
    max_characters: int = 10_000
    max_pieces: int = 4_096
    max_values: int = 8_000_000  # numbers in an answer, and in a batch: for each piece a generator gives one for each of the vocabulary


@dataclasses.dataclass(frozen=True)
class Request:
    """A parsed request.

    columns: every input of the signature, the same number of rows each.
    by_row: how it was asked.
    values: how many numbers the outputs may hold.
    """

    signature: str
    columns: Columns
    by_row: bool
    values: int

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values())))

    def key(self) -> tuple[Any, ...]:
        """Equal for requests that may be computed as one batch."""
        return (self.signature, *((name, values.shape[1:]) for name, values in sorted(self.columns.items())))


class LoadedModel:
    """The newest version of the model in `path`: PATH/N/saved_model.pb with the highest number N, or PATH/saved_model.pb.

    Raises:
      UserError: no SavedModel there.
      DataError: one that cannot be loaded, or whose operations would read or write other files.
    """

    def __init__(self, name: str, path: str, limits: Limits):
        self.name, self.limits = name, limits
        self.version, self.folder = _newest(path)
        try:
            import tensorflow_text  # noqa: F401  the operations of tokenizers
        except ImportError:
            pass  # a model without text does without
        _refuse_file_operations(self.folder)
        try:
            self._model = tf.saved_model.load(self.folder)  # kept: its variables live as long as it does
        except (tf.errors.OpError, OSError, ValueError) as error:
            hint = ": `pip install '.[serve]'` brings tensorflow-text" if "not registered" in f"{error}" else ""
            raise DataError(f"{self.folder} cannot be loaded: {f'{error}'.splitlines()[0][:200]}{hint} (--models)") from error
        self.signatures = dict(self._model.signatures)
        self.max_length = _max_length(self.folder)

    def inputs(self, signature: str) -> dict[str, tf.TensorSpec]:
        """Name -> type and shape of each input, in the order of the names."""
        return dict(sorted(self.signatures[signature].structured_input_signature[1].items()))

    @property
    def main_signature(self) -> str:
        """The function of ids that the model is for."""
        return next((name for name in ("discriminate", "fill_mask", "classify", "tag") if name in self.signatures), DEFAULT_SIGNATURE)

    def per_piece(self, signature: str) -> list[str]:
        """The outputs that have a value for each piece, [B, L, ...]."""
        outputs = self.signatures[signature].structured_outputs
        return [name for name, spec in outputs.items() if spec.shape.rank > 1 and spec.shape[1] is None]

    def parse(self, body: Any) -> Request:
        """A JSON value as a request; BadRequest if it is none of this model."""
        if not isinstance(body, dict):
            raise BadRequest(f"the body must be a JSON object, got {_kind(body)}")
        signature = body.get("signature_name", DEFAULT_SIGNATURE)
        if not isinstance(signature, str) or signature not in self.signatures:
            raise BadRequest(f"model {self.name} has no signature {signature!r:.100}, only {', '.join(sorted(self.signatures))}")
        if ("instances" in body) == ("inputs" in body):
            raise BadRequest('the body must have either "instances" (rows) or "inputs" (columns)')
        specs = self.inputs(signature)
        given = _columns(body["instances"], specs) if "instances" in body else _named(body["inputs"], specs)
        if unknown := sorted(set(given) ^ set(specs)):
            raise BadRequest(f"signature {signature} takes {', '.join(specs)}, and {unknown[0]!r:.100} is missing or not among them")
        columns = {name: self._array(name, given[name], spec) for name, spec in specs.items()}
        sizes = {name: values.shape[: 1 if values.dtype == object else 2] for name, values in columns.items()}
        if len(set(sizes.values())) > 1:
            raise BadRequest(f"the inputs differ in size: {', '.join(f'{name} {list(size)}' for name, size in sizes.items())}")
        return self.make_request(signature, columns, "instances" in body)

    def make_request(self, signature: str, columns: Columns, by_row: bool = False) -> Request:
        """BadRequest for one whose answer would be too large."""
        first = next(iter(columns.values()))
        length = self.max_length if first.dtype == object else first.shape[1]
        outputs = self.signatures[signature].structured_outputs.values()
        per_row = sum(math.prod(length if size is None else size for size in spec.shape[1:]) for spec in outputs)
        values, limit = len(first) * per_row, self.limits.max_values
        if values > limit:
            raise BadRequest(f"the answer could hold {values:,} numbers, at most {limit:,} are allowed: ask for fewer rows or shorter ones")
        return Request(signature, columns, by_row, values)

    def _array(self, name: str, values: Any, spec: tf.TensorSpec) -> np.ndarray:
        limits = self.limits
        if not isinstance(values, list) or not 1 <= len(values) <= limits.max_rows:
            got = f"{len(values)}" if isinstance(values, list) else _kind(values)
            raise BadRequest(f"{name} must be a list of 1 to {limits.max_rows} rows, got {got}")
        if spec.dtype == tf.string:
            return np.array([self._text(name, value).encode("utf-8") for value in values], object)
        lengths = {len(row) if isinstance(row, list) else -1 for row in values}
        if len(lengths) > 1 or not 1 <= min(lengths) <= limits.max_pieces:
            raise BadRequest(f"{name} must be rows of 1 to {limits.max_pieces} whole numbers, all of one length")
        if any(type(number) is not int or not 0 <= number < 2**31 for row in values for number in row):
            raise BadRequest(f"{name} must hold whole numbers from 0 to 2147483647")
        return np.array(values, np.int32)

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise BadRequest(f"{name} must hold texts, got {_kind(value)}")
        return self.check_text(name, value)

    def check_text(self, name: str, text: str) -> str:
        """Returns `text`; BadRequest for one that is too long or holds what is no character."""
        if len(text) > self.limits.max_characters:
            raise BadRequest(f"{name} holds a text of {len(text):,} characters, at most {self.limits.max_characters:,} are allowed")
        if has_half_pair(text):
            raise BadRequest(f"{name} holds half of a surrogate pair, which is no character")
        return text

    def run(self, signature: str, columns: Mapping[str, np.ndarray]) -> Columns:
        """The outputs by name. Raises BadRequest for ids that the model does not have, and for rows that are too long for it."""
        try:
            outputs = self.signatures[signature](**{name: tf.constant(values) for name, values in columns.items()})
        except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as error:
            raise BadRequest(f"the model does not take these inputs: {_reason(error.message)}") from error
        return {name: value.numpy() for name, value in outputs.items()}


def _reason(message: str) -> str:
    """The line of TensorFlow's message that says what is wrong: the last that is no place in the graph or the program."""
    lines = [re.sub(r"^\{\{.*?\}\}\s*", "", line).strip() for line in message.splitlines()]
    return [line for line in lines if line and not line.startswith(("[[", "File ", "Detected at", "Stack trace"))][-1][:200]


def answer(request: Request, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The response's JSON, in rows or in columns as the request was; a single output has no name, as in TensorFlow Serving."""
    values = {name: _builtin(value) for name, value in outputs.items()}
    if not request.by_row:
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return {"predictions": rows if len(values) > 1 else [next(iter(row.values())) for row in rows]}


def _builtin(value: np.ndarray) -> Any:
    return [text.decode("utf-8", "replace") for text in value.tolist()] if value.dtype == object else value.tolist()


def _columns(instances: Any, specs: Mapping[str, Any]) -> dict[str, Any]:
    """Rows to columns; a signature with one input takes its bare values."""
    if not isinstance(instances, list):
        raise BadRequest(f'"instances" must be a list, got {_kind(instances)}')
    if len(specs) == 1 and not any(isinstance(row, dict) for row in instances):
        return {next(iter(specs)): instances}
    if not all(isinstance(row, dict) and row.keys() == instances[0].keys() for row in instances):
        raise BadRequest(f'"instances" must be objects with {", ".join(specs)}')
    return {name: [row[name] for row in instances] for name in instances[0]} if instances else dict.fromkeys(specs, [])


def _named(inputs: Any, specs: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(inputs, dict):
        return inputs
    if len(specs) == 1:
        return {next(iter(specs)): inputs}
    raise BadRequest(f'"inputs" must be an object with {", ".join(specs)}, got {_kind(inputs)}')


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _newest(path: str) -> tuple[int, str]:
    """(version, folder of the SavedModel)."""
    if os.path.isfile(os.path.join(path, "saved_model.pb")):
        return 1, path
    names = os.listdir(path) if os.path.isdir(path) else []
    versions = [name for name in names if name.isdecimal() and os.path.isfile(os.path.join(path, name, "saved_model.pb"))]
    if not versions:
        raise UserError(f"no SavedModel in {path!r}: neither saved_model.pb nor N/saved_model.pb (--models)")
    newest = max(versions, key=int)
    return int(newest), os.path.join(path, newest)


def _refuse_file_operations(folder: str) -> None:
    """DataError for a graph with operations of _REFUSED, before any of them can run; some run while a model is loaded."""
    model = saved_model_pb2.SavedModel()
    try:
        with open(os.path.join(folder, "saved_model.pb"), "rb") as file:
            model.ParseFromString(file.read())
    except (OSError, DecodeError) as error:
        raise DataError(f"{folder} cannot be loaded: {error} (--models)") from error
    for graph in (meta.graph_def for meta in model.meta_graphs):
        for node in itertools.chain(graph.node, *(function.node_def for function in graph.library.function)):
            if _REFUSED.fullmatch(node.op):
                raise DataError(
                    f"{folder} holds the operation {node.op}, which no model needs that answers requests: do not trust it (--models)"
                )


def _max_length(folder: str) -> int:
    """Pieces that the model takes, as export_checkpoint.py recorded it; else the usual number."""
    path = os.path.join(folder, "assets.extra", "config.json")
    record = read_json(path, "models") if os.path.isfile(path) else {}
    try:
        return int(record["finetuning"]["max_seq_length"] if "finetuning" in record else record["bert_config"]["max_position_embeddings"])
    except (KeyError, TypeError, ValueError):
        return 512
