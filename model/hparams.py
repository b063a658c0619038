"""Typed, frozen configurations: from dataclass fields to absl flags, and from --hparams JSON to checked values.

A configuration class is a frozen dataclass whose fields are made by `option(default, help)`. One rule of precedence holds
everywhere: defaults < sizes and presets < --hparams < single flags; the caller applies the presets, this module the rest.
"""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any

from absl import flags

from model.command import UserError, read_json

flags.disclaim_key_flags()  # flags belong to the script that calls define_flags, so that its --help lists them


def option(default: Any, help: str, choices: Collection[str] = ()) -> Any:
    """A configuration field with its help text (which becomes the flag's) and, for strings, the values it allows."""
    metadata = {"help": help, "choices": tuple(choices)}
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def define_flags(config_class: type, skip: Collection[str] = ()) -> None:
    """Defines one absl flag per field of `config_class`, all defaulting to None = not given."""
    for field in dataclasses.fields(config_class):
        if field.name in skip:
            continue
        help_text = f"{field.metadata['help']} (default: {_default_of(field)})"
        kind, _ = _kind(config_class, field)
        if kind is bool:
            flags.DEFINE_boolean(field.name, None, help_text)
        elif kind is int:
            flags.DEFINE_integer(field.name, None, help_text)
        elif kind is float:
            flags.DEFINE_float(field.name, None, help_text)
        elif field.metadata["choices"]:
            flags.DEFINE_enum(field.name, None, list(field.metadata["choices"]), help_text)
        else:
            flags.DEFINE_string(field.name, None, help_text)


def collect(config_class: type, hparams: str | None, skip: Collection[str] = ()) -> dict[str, Any]:
    """Returns what the user asked for: the --hparams JSON (text or a file's path), overridden by single flags."""
    values = read_hparams(hparams) if hparams else {}
    for field in dataclasses.fields(config_class):
        if field.name in skip or field.name not in flags.FLAGS:
            continue
        value = flags.FLAGS[field.name].value
        if value is not None:
            kind, _ = _kind(config_class, field)
            values[field.name] = _parse_json(value, field.name) if kind in (dict, list) else value
    return values


def read_hparams(hparams: str, flag: str = "hparams") -> dict[str, Any]:
    """The value of --hparams as a dict. `hparams`: a JSON object, or the path of a file that holds one; `flag`: its name, for errors."""
    text = hparams.strip()
    values = _parse_json(text, flag) if text.startswith("{") else read_json(text, flag)
    if not isinstance(values, dict):
        raise UserError(f"--{flag} must be a JSON object such as '{{\"name\": value}}', or a file with one, got {text[:80]!r}")
    return values


def _parse_json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also nested too deeply, or a number of too many digits
        raise UserError(f"--{name} is not JSON ({error}): {text[:80]!r}") from error


def check(config_class: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Checks names and types of `values` against the fields of `config_class` and returns them (int where float is due, as float).

    Unlike google-research/electra, where "False" and "4" passed as strings, a mistyped value is an error.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    checked = {}
    for name, value in values.items():
        if name not in fields:
            close = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(fields))}"
            raise UserError(f"unknown hparam {name!r} (--hparams): {hint}")
        checked[name] = _check_value(config_class, fields[name], value)
    return checked


def _check_value(config_class: type, field: dataclasses.Field, value: Any) -> Any:
    kind, optional = _kind(config_class, field)
    if value is None and optional:
        return None
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UserError(f"hparam {field.name!r} must be a number of at most 64 bits, got one of {value.bit_length()} (--{field.name})")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        allowed = f"{kind.__name__}{' or null' if optional else ''}"
        raise UserError(f"hparam {field.name!r} must be {allowed}, got {type(value).__name__} {value!r} (--{field.name})")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"hparam {field.name!r} must be a finite number, got {value!r} (--{field.name})")
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise UserError(f"hparam {field.name!r} must be one of {', '.join(choices)}, got {value!r} (--{field.name})")
    return value


def _kind(config_class: type, field: dataclasses.Field) -> tuple[type, bool]:
    """(type without Optional and type arguments, whether None is allowed)."""
    annotation = typing.get_type_hints(config_class)[field.name]
    members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    kinds = [member for member in members if member is not type(None)]
    return typing.get_origin(kinds[0]) or kinds[0], len(kinds) < len(members)


def _default_of(field: dataclasses.Field) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default
