"""Files that are not on this machine, gs://bucket/raw/a.txt for instance, by TensorFlow's file systems; no other room opens them."""

import posixpath
from typing import IO, Any

from model.command import UserError


def is_remote(path: str) -> bool:
    """Whether `path` names a file system: scheme://..."""
    return "://" in path


def list_remote(pattern: str, flag: str) -> list[str]:
    """Lists what a remote file, glob or folder stands for, as text_files.expand_files does. Raises UserError, quoting `flag`."""
    gfile, errors = _file_systems()
    try:
        if not gfile.exists(pattern):
            return sorted(gfile.glob(pattern))
        return _walk(gfile, pattern) if gfile.isdir(pattern) else [pattern]
    except errors as error:
        raise UserError(f"cannot read {pattern!r}: {error} (--{flag})") from error


def _walk(gfile: Any, folder: str) -> list[str]:
    files = []
    for name in sorted(name.rstrip("/") for name in gfile.listdir(folder)):
        path = posixpath.join(folder, name)
        if not name.startswith("."):
            files += _walk(gfile, path) if gfile.isdir(path) else [path]
    return files


def open_remote(path: str) -> IO[bytes]:
    """Opens a remote file to read bytes. Raises UserError when it cannot."""
    gfile, errors = _file_systems()
    try:
        file = gfile.GFile(path, "rb")
        file.size()  # opens it
        return file
    except errors as error:
        raise UserError(f"cannot read {path!r}: {error}") from error


def remote_size(path: str) -> int:
    """Bytes of a remote file. Raises UserError when there is none."""
    gfile, errors = _file_systems()
    try:
        return gfile.stat(path).length
    except errors as error:
        raise UserError(f"cannot read {path!r}: {error}") from error


def _file_systems() -> tuple[Any, tuple[type[Exception], ...]]:
    import tensorflow as tf  # here, because it takes seconds to import

    return tf.io.gfile, (tf.errors.OpError,)
