"""Checkpoints in the original's format: name-based TensorFlow V2 files `model.ckpt-N` and the `checkpoint` state file.

A checkpoint appears whole or not at all: it is written under a temporary name, its data file is renamed first and its index
last, then the state file is replaced; older ones are removed only after that.
"""

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf import text_format

from model import checkpoint_index
from model.command import DataError, UserError, reason_of, write_atomically
from model.layers import variable_name

PREFIX = "model.ckpt"
_TEMPORARY = "saving-"
_DATA, _INDEX = ".data-00000-of-00001", ".index"
_UNREADABLE = (tf.errors.OpError, ValueError, RuntimeError, IndexError)  # what TensorFlow raises on damaged files


def save(folder: str, step: int, variables: Sequence[tf.Variable], keep_max: int) -> str:
    """Writes `variables` under their names as FOLDER/model.ckpt-STEP and returns that prefix; keeps the newest `keep_max`."""
    prefix, temporary = tf.io.gfile.join(folder, f"{PREFIX}-{step}"), tf.io.gfile.join(folder, f"{_TEMPORARY}{step}")
    values = [variable.read_value() for variable in variables]
    names = [variable_name(variable) for variable in variables]
    try:
        tf.io.gfile.makedirs(folder)
        remove_leftovers(folder)
        tf.raw_ops.SaveV2(prefix=temporary, tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)
        remove(prefix)  # one of the same step, of a run that was rolled back: its index must never meet the new data
        for suffix in (_DATA, _INDEX):
            tf.io.gfile.rename(temporary + suffix, prefix + suffix, overwrite=True)
    except tf.errors.OpError as error:
        remove_leftovers(folder)
        raise DataError(f"could not write a checkpoint to {folder!r}: {reason_of(error)} (--model_dir)") from error
    kept = [path for path in checkpoints(folder) if _step_of(path) <= step]  # later ones belong to a run that was rolled back
    _write_state(folder, kept[-keep_max:] if keep_max else kept)
    for path in kept[:-keep_max] if keep_max else []:
        remove(path)
    return prefix


def checkpoints(folder: str) -> list[str]:
    """The prefixes of all complete checkpoints in `folder`, oldest first."""
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    prefixes = [name[: -len(_INDEX)] for name in names if re.fullmatch(rf"{re.escape(PREFIX)}-\d+{re.escape(_INDEX)}", name)]
    return [tf.io.gfile.join(folder, prefix) for prefix in sorted(prefixes, key=_step_of)]


def latest(folder: str) -> str | None:
    """The prefix that the state file names, else the newest complete checkpoint, else None.

    State files of TensorFlow 1 may hold absolute paths; where the folder was moved or copied since, the files beside count.
    """
    for path in _named_by_state(folder):
        if tf.io.gfile.exists(path + _INDEX):
            return path
    found = checkpoints(folder)
    return found[-1] if found else None


def _named_by_state(folder: str) -> list[str]:
    """Where the newest checkpoint may lie according to the state file; [] where there is none that can be read."""
    try:
        state = tf.train.get_checkpoint_state(folder) if tf.io.gfile.isdir(folder) else None
    except ValueError:  # an empty file, or bytes that are no text
        logging.warning("The state file in %s is damaged: taking the newest checkpoint", folder)
        return []
    if state is None:
        return []
    return [tf.io.gfile.join(folder, posixpath.basename(state.model_checkpoint_path)), state.model_checkpoint_path]


def remove(prefix: str) -> None:
    """Deletes one checkpoint, its index first, so that what is left is never taken for complete."""
    for path in (prefix + _INDEX, prefix + _DATA):
        if tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)


def remove_leftovers(folder: str) -> None:
    """Deletes the files of a save that was interrupted. Only for the process that writes to `folder`."""
    for name in tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []:
        orphan = re.fullmatch(rf"({re.escape(PREFIX)}-\d+){re.escape(_DATA)}", name)
        temporary = name.startswith(_TEMPORARY) or re.search(r"\.tmp-[0-9a-f]{8}$", name)
        if temporary or (orphan and not tf.io.gfile.exists(tf.io.gfile.join(folder, orphan[1] + _INDEX))):
            tf.io.gfile.remove(tf.io.gfile.join(folder, name))


def resolve(path: str, flag: str = "init_checkpoint") -> str:
    """A folder or prefix given by the user -> the prefix of a checkpoint that exists; UserError if there is none."""
    prefix = latest(path) if tf.io.gfile.isdir(path) else re.sub(r"(\.index|\.data-\d+-of-\d+)$", "", path)
    if not prefix or not tf.io.gfile.exists(prefix + _INDEX):
        raise UserError(f"no checkpoint at {path!r}: give a folder with one or a prefix such as DIR/model.ckpt-1000 (--{flag})")
    return prefix


def read_shapes(prefix: str) -> dict[str, list[int]]:
    """Name -> shape of everything in a checkpoint; DataError if its index cannot be read."""
    try:
        return dict(_open(prefix).get_variable_to_shape_map())
    except _UNREADABLE as error:
        raise DataError(f"checkpoint {prefix} cannot be read: {error}") from error


def _open(prefix: str) -> Any:
    with tf.io.gfile.GFile(prefix + _INDEX, "rb") as file:
        checkpoint_index.check(file.read())
    return tf.compat.v1.train.NewCheckpointReader(prefix)


def read(prefix: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The values of `names`; DataError if the files are damaged."""
    try:
        reader = _open(prefix)
        return {name: reader.get_tensor(name) for name in names}
    except _UNREADABLE as error:
        raise DataError(f"checkpoint {prefix} cannot be read: {error}") from error


def restore(prefix: str, variables: Sequence[tf.Variable]) -> None:
    """Loads every variable by its name; UserError names the first one that is missing or has another shape."""
    load(prefix, {variable_name(variable): variable for variable in variables})


def restore_newest(folder: str, variables: Sequence[tf.Variable]) -> str | None:
    """Loads the newest checkpoint of `folder` that is sound and returns its prefix; None if there is no checkpoint at all.

    A damaged one is passed over with a warning, as the one before it leads to the same weights; DataError if none is sound.
    """
    newest, found = latest(folder), checkpoints(folder)
    if newest is None:
        return None
    older = found[: found.index(newest)] if newest in found else found
    for prefix in (newest, *reversed(older)):
        try:
            restore(prefix, variables)
            return prefix
        except DataError as error:
            logging.warning("%s: trying the one before it", error)
    raise DataError(f"none of the {1 + len(older)} checkpoint(s) in {folder!r} can be read: remove them to start anew (--model_dir)")


def warm_start(prefix: str, variables: Sequence[tf.Variable], scope: str = "") -> list[str]:
    """Loads those variables under `scope` that the checkpoint holds and returns the names of the others, which keep their start values.

    Optimizer slots are not asked for (released checkpoints of the original have none). Raises UserError when a shape differs or
    nothing at all matches.
    """
    named, shapes = {variable_name(variable): variable for variable in variables}, read_shapes(prefix)
    found = {name: variable for name, variable in named.items() if name in shapes and name.startswith(scope)}
    if not found:
        raise UserError(f"checkpoint {prefix} holds none of this model's variables, such as {next(iter(named))!r} (--init_checkpoint)")
    load(prefix, found)
    missing = sorted(set(named) - set(found))
    logging.info("Warm start from %s: %d variables loaded, %d not in it", prefix, len(found), len(missing))
    for name in missing:
        logging.warning("Not in the checkpoint, starts from random values: %s", name)
    return missing


def load(prefix: str, variables: Mapping[str, tf.Variable]) -> None:
    """Loads checkpoint entry `name` into `variables[name]`, all or nothing."""
    shapes = read_shapes(prefix)
    for name, variable in variables.items():
        if name not in shapes:
            raise UserError(f"checkpoint {prefix} has no variable {name!r}: it was made by another configuration (--model_dir)")
        check_shape(prefix, name, shapes[name], variable)
    assign(prefix, variables, read(prefix, list(variables)))


def assign(place: str, variables: Mapping[str, tf.Variable], values: Mapping[str, np.ndarray]) -> None:
    """Gives each variable the value of its name, all or nothing. `place` is where the values come from, for the error about a shape."""
    for name, variable in variables.items():
        check_shape(place, name, list(values[name].shape), variable)
    for name, variable in variables.items():
        variable.assign(tf.cast(values[name], variable.dtype))


def check_shape(place: str, name: str, shape: list[int], variable: tf.Variable) -> None:
    """Raises UserError where the value of `variable` at `place` has another `shape`."""
    if shape != variable.shape.as_list():
        raise UserError(
            f"variable {name!r} has shape {shape} in checkpoint {place} but {variable.shape.as_list()} in this model: "
            "use the checkpoint's vocabulary and shape (--vocab_file, --model_size, --model_hparam_overrides)"
        )


def _step_of(path: str) -> int:
    return int(path.rpartition("-")[2])


def _write_state(folder: str, paths: Sequence[str]) -> None:
    """The `checkpoint` state file, with paths relative to it, so that the folder may be moved."""
    names = [path.rpartition("/")[2] for path in paths]
    state = tf.compat.v1.train.generate_checkpoint_state_proto("", names[-1], all_model_checkpoint_paths=names)
    write_atomically(tf.io.gfile.join(folder, "checkpoint"), text_format.MessageToString(state))
