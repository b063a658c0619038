"""Folders of the transformers library: config.json, weights and tokenizer files of ELECTRA, BERT and DistilBERT, as ours.

Three things come out: the shape (read_config), the weights under our names (read_weights), and how text becomes ids
(tokenizer_settings). Nothing is downloaded, and no code in a file is run: safetensors holds none, and of pytorch_model.bin only tensors
are read.
"""

import hashlib
import os
import pickle
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import safetensors
from absl import logging

from model.command import DataError, UserError, read_json
from model.modeling import MODEL_TYPES, BertConfig
from model.tokenization import KOBERT

CONFIG = "config.json"
_SAFETENSORS, _PICKLED = "model.safetensors", "pytorch_model.bin"
_WEIGHTS = (_SAFETENSORS, f"{_SAFETENSORS}.index.json", _PICKLED, f"{_PICKLED}.index.json")  # in the order in which they are looked for
TEXT_SETTINGS = "text_settings.json"  # ours: what the library's own files have no words for, such as morphemes
_FLAG = "init_checkpoint"

# --- names ---------------------------------------------------------------------------------------------------------------------------

# Modules of a layer, ours -> theirs. Only DistilBERT has names of its own.
_LAYER = {
    name: name.replace("/", ".")
    for name in (
        "attention/self/query",
        "attention/self/key",
        "attention/self/value",
        "attention/output/dense",
        "attention/output/LayerNorm",
        "intermediate/dense",
        "output/dense",
        "output/LayerNorm",
    )
}
_DISTILBERT_LAYER = {
    "attention/self/query": "attention.q_lin",
    "attention/self/key": "attention.k_lin",
    "attention/self/value": "attention.v_lin",
    "attention/output/dense": "attention.out_lin",
    "attention/output/LayerNorm": "sa_layer_norm",
    "intermediate/dense": "ffn.lin1",
    "output/dense": "ffn.lin2",
    "output/LayerNorm": "output_layer_norm",
}


# Variables of ELECTRA's own heads whose names follow no rule.
_OF_HEADS = {
    "discriminator_predictions/dense_1/kernel": "discriminator_predictions.dense_prediction.weight",
    "discriminator_predictions/dense_1/bias": "discriminator_predictions.dense_prediction.bias",
    "generator_predictions/output_bias": "generator_lm_head.bias",
}


def to_theirs(name: str, model_type: str) -> str:
    """What the transformers library calls our variable `name` of the encoder (`electra/...`), of ELECTRA's heads or of a "two_layer" head.

    electra/encoder/layer_3/output/dense/kernel   ->  bert.encoder.layer.3.output.dense.weight, or
                                                      distilbert.transformer.layer.3.ffn.lin2.weight
    discriminator_predictions/dense/kernel        ->  discriminator_predictions.dense.weight
    task_specific/nsmc/classifier/out_proj/bias   ->  classifier.out_proj.bias

    One to one for a given task; kernels are transposed there (see `to_our_layout`).
    """
    if name in _OF_HEADS:
        return _OF_HEADS[name]
    module, _, part = re.sub(r"^task_specific/[^/]*/", "", name).rpartition("/")
    if part.endswith("_embeddings"):
        module, part = f"{module}/{part}", "kernel"
    layer = re.fullmatch(r"electra/encoder/layer_(\d+)/(.+)", module)
    if layer:
        stack, modules = ("transformer", _DISTILBERT_LAYER) if model_type == "distilbert" else ("encoder", _LAYER)
        module = f"electra.{stack}.layer.{layer[1]}.{modules[layer[2]]}"
    module = re.sub(r"^electra\b", model_type, module.replace("/", "."))
    return f"{module}.{'bias' if part in ('bias', 'beta') else 'weight'}"


def to_our_layout(name: str, value: np.ndarray) -> np.ndarray:
    """The value of their weight as our variable `name` holds it, or the other way round: linear layers are transposed there."""
    return np.ascontiguousarray(value.T) if name.endswith("/kernel") else value


# --- config.json ---------------------------------------------------------------------------------------------------------------------

# BertConfig's field -> DistilBERT's key; the others have BertConfig's names.
_DISTILBERT_KEYS = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "classifier_dropout": "seq_classif_dropout",
}
# What a key means that config.json lacks, where that is not BertConfig's default.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "electra": {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
    "bert": {},
    "distilbert": {"num_hidden_layers": 6, "classifier_dropout": 0.2},
}
_DEFAULT_EMBEDDING_SIZE = 128
_VOCAB_SIZE = 30522
# The only values that this network computes.
_REQUIRED = {
    "hidden_act": "gelu",
    "activation": "gelu",
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
}


def is_config(record: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of the transformers library, and not one of ours."""
    return "bert_config" not in record and any(key in record for key in ("model_type", "architectures", "hidden_size", "dim"))


def read_config(folder: str, overrides: Mapping[str, Any]) -> tuple[BertConfig, int | None]:
    """(shape, embedding size) that the folder's config.json describes, with the user's `overrides` on top.

    Raises:
      UserError: another kind of model, or one that computes something else than ours.
    """
    path = os.path.join(folder, CONFIG)
    record = _read_object(path)
    kind = _model_type(path, record)
    for key, allowed in _REQUIRED.items():
        if record.get(key) not in (None, allowed):
            raise UserError(f"{path}: {key} {record[key]!r} is not supported, only {allowed!r} (--{_FLAG})")
    keys = _DISTILBERT_KEYS if kind == "distilbert" else {}
    values: dict[str, Any] = {"vocab_size": _VOCAB_SIZE, **_DEFAULTS[kind]}
    for field in BertConfig.__dataclass_fields__:
        if record.get(keys.get(field, field)) is not None:
            values[field] = record[keys.get(field, field)]
    values["model_type"] = kind
    if kind == "distilbert":
        values["type_vocab_size"] = 0
    else:
        values.setdefault("classifier_dropout", values.get("hidden_dropout_prob", BertConfig.hidden_dropout_prob))
    embedding_size = record.get("embedding_size", _DEFAULT_EMBEDDING_SIZE) if kind == "electra" else None
    if embedding_size is not None and (type(embedding_size) is not int or embedding_size < 1):
        raise UserError(f"{path}: embedding_size must be a number of at least 1, got {embedding_size!r} (--{_FLAG})")
    try:
        return BertConfig.from_dict({**values, **overrides}), embedding_size
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def to_their_config(config: BertConfig, embedding_size: int) -> dict[str, Any]:
    """config.json of a network, without what it is used for: read_config reads the same shape from it."""
    kind = config.model_type
    keys = _DISTILBERT_KEYS if kind == "distilbert" else {}
    left_out = {"model_type", "type_vocab_size"} if kind == "distilbert" else {"model_type"}
    record = {keys.get(name, name): value for name, value in config.to_dict().items() if name not in left_out}
    if kind == "electra":
        record["embedding_size"] = embedding_size
    return {"model_type": kind, **record, "layer_norm_eps": _REQUIRED["layer_norm_eps"]}


def _read_object(path: str) -> dict[str, Any]:
    record = read_json(path, _FLAG)
    if not isinstance(record, dict):
        raise UserError(f"{path} must be a JSON object (--{_FLAG})")
    return record


def _model_type(path: str, record: Mapping[str, Any]) -> str:
    """model_type; configurations of the library's first year lack it, but not the name of the class or the keys."""
    kind = record.get("model_type")
    if kind is None:
        name = f"{(record.get('architectures') or [''])[0]}".lower()
        kind = next((kind for kind in MODEL_TYPES if name.startswith(kind)), "distilbert" if "n_layers" in record else None)
    if kind not in MODEL_TYPES:
        raise UserError(f"{path}: model_type {kind!r} is not supported, only {', '.join(MODEL_TYPES)} (--{_FLAG})")
    return kind


# --- weights -------------------------------------------------------------------------------------------------------------------------


def weight_files(folder: str) -> list[str]:
    """The files that hold the weights, shards in order of their names; [] if there is none. UserError for an index without its shards."""
    for name in _WEIGHTS:
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            continue
        if not name.endswith(".index.json"):
            return [path]
        listed = _read_object(path).get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(shard, str) for shard in listed.values()):
            raise DataError(f"{path} is damaged: weight_map must name a file for each weight (--{_FLAG})")
        shards = sorted({os.path.basename(shard) for shard in listed.values()})
        for shard in shards:
            if not os.path.exists(os.path.join(folder, shard)):
                raise UserError(f"{path} names {shard!r}, which is not beside it (--{_FLAG})")
        return [os.path.join(folder, shard) for shard in shards]
    return []


def weights_hash(folder: str) -> str:
    """SHA-256 of the files that hold the weights."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        with open(path, "rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


def read_weights(folder: str, model_type: str, names: Iterable[str], optional: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """The weights for our variables `names`, and for those of `optional` that the folder holds, float32 in our layout.

    Accepts names with and without the model's prefix, and the gamma and beta that old files have in LayerNorm.

    Raises:
      UserError: a weight is missing, or the encoder has one more than `names` (another architecture), or a file holds code.
      DataError: a damaged file.
    """
    weights = _with_prefix(_read_files(weight_files(folder)), model_type)
    wanted = {name: to_theirs(name, model_type) for name in (*names, *optional)}
    missing = sorted(wanted[name] for name in names if wanted[name] not in weights)
    if missing:
        raise UserError(
            f"{folder} lacks {missing[0]!r} and {len(missing) - 1} other weights of the {model_type} model that its config.json describes, "
            f"and holds {min(weights, default='nothing')!r}: another architecture? (--{_FLAG})"
        )
    left = sorted(set(weights) - set(wanted.values()))
    for name in left:
        if name.startswith(f"{model_type}.") and not re.search(r"\.(position_ids|token_type_ids)$|^bert\.pooler\.", name):
            raise UserError(
                f"{folder} holds {name!r}, shape {list(weights[name].shape)}, which the {model_type} model that its config.json describes "
                f"does not have: another architecture? (--{_FLAG})"
            )
    logging.info("Weights from %s; left there: %s", folder, ", ".join(left) or "nothing")
    return {
        name: to_our_layout(name, weights[theirs]).astype(np.float32, copy=False) for name, theirs in wanted.items() if theirs in weights
    }


def _with_prefix(weights: Mapping[str, np.ndarray], model_type: str) -> dict[str, np.ndarray]:
    """Names as a model with a head on top has them today: electra.embeddings.LayerNorm.weight."""
    bare = not any(name.startswith(f"{model_type}.") for name in weights)
    named = {}
    for name, value in weights.items():
        name = re.sub(r"(LayerNorm|layer_norm)\.gamma$", r"\1.weight", re.sub(r"(LayerNorm|layer_norm)\.beta$", r"\1.bias", name))
        inner = bare and re.match(r"(embeddings|embeddings_project|encoder|transformer|pooler)\.", name)
        named[f"{model_type}.{name}" if inner else name] = value
    return named


def _read_files(paths: Iterable[str]) -> dict[str, np.ndarray]:
    weights: dict[str, np.ndarray] = {}
    for path in paths:
        weights |= _read_pickled(path) if path.endswith(".bin") else _read_safetensors(path)
    return weights


def _read_safetensors(path: str) -> dict[str, np.ndarray]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, OSError) as error:
        raise DataError(f"{path} is damaged or not a safetensors file: {error} (--{_FLAG})") from error


def _read_pickled(path: str) -> dict[str, np.ndarray]:
    """pytorch_model.bin is a pickle, which can hold any code: weights_only reads tensors and refuses everything else."""
    torch = _import_torch(path)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds something else than tensors, which might be code and was not run: ask for model.safetensors (--{_FLAG})"
        ) from error
    except Exception as error:  # torch's reader raises what its parts do: struct.error, TypeError, ...
        raise DataError(f"{path} is damaged or not a file of torch.save ({type(error).__name__}) (--{_FLAG})") from error
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f"{path} is not a table of names and tensors: save the model with save_pretrained (--{_FLAG})")
    return {name: (value.float() if value.is_floating_point() else value).numpy() for name, value in weights.items()}


def _import_torch(path: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise UserError(f"to read {path}, `pip install 'torch>=2.10'`, or use a folder with {_SAFETENSORS} (--{_FLAG})") from error
    if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < (2, 10):  # CVE-2026-24747: before, weights_only could be tricked
        raise UserError(
            f"to read {path} safely takes torch 2.10 or newer, not {torch.__version__}: `pip install 'torch>=2.10'` (--{_FLAG})"
        )
    return torch


# --- tokenizer -----------------------------------------------------------------------------------------------------------------------


def find_vocabulary(folder: str) -> str | None:
    """vocab.txt; where there is none tokenizer.json, which newer releases write instead, or a sentencepiece model.

    Raises:
      UserError: KoBERT's model without vocab.txt, which numbers the pieces otherwise.
    """
    names = ["vocab.txt", "tokenizer.json", *_sentencepiece_models(folder)]
    found = next((path for path in (os.path.join(folder, name) for name in names) if os.path.exists(path)), None)
    if found is not None and os.path.basename(found) == _KOBERT_MODEL:
        raise UserError(f"{found} needs the vocab.txt that was published with it: copy it there (--{_FLAG})")
    return found


_KOBERT_MODEL = "tokenizer_78b3253a26.model"  # as monologg/kobert and monologg/distilkobert have it


def _sentencepiece_models(folder: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(".model"))


def tokenizer_settings(folder: str, vocab_file: str) -> dict[str, Any]:
    """Arguments of FullTokenizer: what the library's tokenizer would do, by tokenizer_config.json.

    Where nothing says so, text keeps its case, as all published Korean models expect (the library would lower-case it). Unlike there,
    where lower-casing takes Hangul apart unless strip_accents is false, Hangul stays whole.

    Raises:
      UserError: a setting that ours does not have.
    """
    own = os.path.join(folder, TEXT_SETTINGS)
    if os.path.exists(own):  # export_checkpoint.py wrote the folder
        return {name: value for name, value in _read_object(own).items() if name != "analyzer_version"}
    path = os.path.join(folder, "tokenizer_config.json")
    record = _normalizer(folder) | (_read_object(path) if os.path.exists(path) else {})
    for key, allowed in (("do_basic_tokenize", True), ("tokenize_chinese_chars", True)):
        if record.get(key, allowed) not in (None, allowed):
            raise UserError(f"{path}: {key} {record[key]!r} is not supported, only {allowed!r} (--{_FLAG})")
    lower = bool(record.get("do_lower_case", False))
    if "do_lower_case" not in record:
        logging.warning("No do_lower_case in %s: text keeps its case (--do_lower_case)", path)
    if vocab_file.endswith(".model") or _sentencepiece_models(os.path.dirname(vocab_file) or "."):
        return {"tokenizer_type": KOBERT, "do_lower_case": lower, "strip_accents": not record.get("keep_accents", False)}
    strip = record.get("strip_accents")
    return {"tokenizer_type": "wordpiece", "do_lower_case": lower, "strip_accents": lower if strip is None else bool(strip)}


def _normalizer(folder: str) -> dict[str, Any]:
    """What tokenizer.json, where there is one, says about the text, in the words of tokenizer_config.json."""
    path = os.path.join(folder, "tokenizer.json")
    normalizer = _read_object(path).get("normalizer") if os.path.exists(path) else None
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        return {}
    keys = {"do_lower_case": "lowercase", "strip_accents": "strip_accents", "tokenize_chinese_chars": "handle_chinese_chars"}
    return {name: normalizer[key] for name, key in keys.items() if key in normalizer}
