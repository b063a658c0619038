"""The output folder of a builder: whose it is, what of it is finished, and nothing in it half-written.

output_dir/pretrain_data.tfrecord-00000-of-01000 ...   shards, each renamed into place when complete
output_dir/manifest.json                               last of all: with it the build is finished
output_dir/unfinished_build/                           until then: parameters.json, unit-*.npz, units.json, one
                                                       JSON entry per finished shard, a lock
"""

import contextlib
import itertools
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from model.command import DataError, UserError, locked

MANIFEST = "manifest.json"
WORK = "unfinished_build"
_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]+$")
_FLAGS = {"vocab_sha256": "vocab_file", "vocab_size": "vocab_file", "analyzer_version": "analyzer"}
_FLAGS |= {"corpus": "corpus_dir", "reader": "corpora", "files": "corpora"}


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; mend that, then give the same command again to go on") from error


@contextlib.contextmanager
def _whole_files(folder: str, paths: Sequence[str]) -> Iterator[list[str]]:
    """Gives temporary names in `folder` to write to, which become `paths` when all went well and vanish otherwise."""
    temporary = [os.path.join(folder, f"{os.path.basename(path)}.tmp-{os.getpid()}") for path in paths]
    try:
        with _writing(paths[0]):
            yield temporary
            for old, new in zip(temporary, paths, strict=True):
                os.replace(old, new)
    finally:
        for path in temporary:
            _unlink(path)


class BuildFolder:
    """The build under `path`. shard: what its shards are called; shard_folder: where in `path` they lie; others: further files."""

    def __init__(self, path: str, shard: str, shard_folder: str = "", others: Sequence[str] = ()) -> None:
        self.path = path
        self._work = os.path.join(path, WORK)
        self._shard_folder = os.path.join(path, shard_folder)
        self._shard = re.compile(shard)
        self._others = tuple(others)
        names = "|".join(map(re.escape, ("lock", "fates", *others)))
        self._ours = re.compile(rf"(parameters|units|manifest)\.json|{names}|keys-\d+|unit-\d+-[0-9a-f]+\.npz|{shard}(\.json)?")

    def claim(self, parameters: dict[str, Any], overwrite: bool, inputs: Collection[str] = ()) -> dict[str, Any] | None:
        """Makes the folder ready for a build with `parameters`; returns the manifest when that build is finished already.

        inputs: parameters that say what is read. They may change until the build is finished, for a broken file to be mended: units
        are named after their text, so that those of unchanged text stay.
        With `overwrite`, an earlier build is removed, its own files only. Raises UserError, with nothing changed, for a folder
        that holds anything else or a build with other parameters.
        """
        manifest = self._read(os.path.join(self.path, MANIFEST))
        finished = isinstance(manifest, dict) and "format_version" in manifest and bool(shards_of(manifest))
        started = self._read(self._file("parameters.json"))
        if overwrite:
            self._remove(manifest if finished else None, others=finished or started is not None)
        elif finished:
            self._require_equal(manifest, parameters, "a finished build")
            self._require_complete(manifest)
            self._remove_work()
            return manifest
        elif started is not None:
            self._require_equal(started, {key: value for key, value in parameters.items() if key not in inputs}, "an unfinished build")
            if any(started.get(key) != parameters[key] for key in inputs):
                self._remove_shards([])
                _unlink(self._file("units.json"))
        elif not self._is_free():
            raise UserError(f"{self.path} is in use and holds no build of this tool: choose another --output_dir, or give --overwrite")
        try:
            os.makedirs(self._work, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {self.path}: {error.strerror} (--output_dir)") from error
        self.write_json("parameters", parameters)
        return None

    def _file(self, name: str) -> str:
        return os.path.join(self._work, name)

    @staticmethod
    def _read(path: str) -> Any:
        try:
            with open(path, encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError, RecursionError):
            return None

    def _is_free(self) -> bool:
        """Whether the folder is missing, empty, or was left by a build killed before it had written anything."""
        if not os.path.lexists(self.path):
            return True
        if not os.path.isdir(self.path):
            return False
        others = [name for name in os.listdir(self.path) if name != WORK]
        return not others and (not os.path.isdir(self._work) or all(map(self._is_ours, os.listdir(self._work))))

    def _is_ours(self, name: str) -> bool:
        return self._ours.fullmatch(_TEMPORARY.sub("", name)) is not None

    def _require_equal(self, found: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
        for key, value in wanted.items():
            old, new = found.get(key), value
            if isinstance(old, dict) and isinstance(new, dict):
                if list(old) == list(new):
                    self._require_equal(old, new, what)
                    continue
                old, new = ", ".join(old), ", ".join(new)  # one is missing, or stands elsewhere, which matters to duplicates
            if old != new:
                if isinstance(old, list):
                    old, new = next(pair for pair in itertools.zip_longest(old, new) if pair[0] != pair[1])
                raise UserError(
                    f"{self.path} holds {what} with {key} = {old}, not {new}: "
                    f"change --{_FLAGS.get(key, key)} or --output_dir, or give --overwrite to start afresh"
                )

    def _require_complete(self, manifest: Mapping[str, Any]) -> None:
        for shard in shards_of(manifest):
            path = self.shard_path(shard["file"])
            if not os.path.exists(path) or os.path.getsize(path) != shard["bytes"]:
                raise UserError(f"{path} is missing or not {shard['bytes']} bytes long: give --overwrite to build anew")

    def _remove(self, manifest: Mapping[str, Any] | None, others: bool) -> None:
        """Removes a build, in such an order that a kill in between leaves the rest recognisable as ours."""
        self._remove_shards([shard["file"] for shard in shards_of(manifest)] if manifest else [])
        for name in self._others if others else ():
            _unlink(os.path.join(self.path, name))
        self._remove_work()
        if manifest:
            _unlink(os.path.join(self.path, MANIFEST))

    def _remove_shards(self, listed: Sequence[str]) -> None:
        """Removes the shards `listed` and those that an unfinished build has written."""
        if os.path.isdir(self._work):
            with self.locked():
                pass
        entries = [name for name in self._work_files() if name.endswith(".json")]
        moved = [name.removesuffix(".json") for name in entries]
        for name in filter(self._shard.fullmatch, moved + list(listed)):
            _unlink(self.shard_path(name))
            _unlink(self._file(f"{name}.json"))

    def _work_files(self) -> list[str]:
        return sorted(filter(self._is_ours, os.listdir(self._work))) if os.path.isdir(self._work) else []

    def _remove_work(self) -> None:
        for name in sorted(self._work_files(), key="parameters.json".__eq__):
            _unlink(self._file(name))
        with contextlib.suppress(OSError):  # not there, or holds a file that somebody else put there
            os.rmdir(self._work)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keeps a second build out of the folder."""
        return locked(self._file("lock"), f"another build is at work in {self.path} (--output_dir)")

    def finish(self, manifest: dict[str, Any]) -> None:
        """Moves the other files and the manifest into place, and removes what only an unfinished build needs."""
        self.write_json("manifest", manifest)
        for name in (*self._others, MANIFEST):
            os.replace(self._file(name), os.path.join(self.path, name))
        self._remove_work()

    # ---- inside the build

    def work_path(self, name: str) -> str:
        """Where a file lies that only an unfinished build needs."""
        return self._file(name)

    def writing(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Within it, a full disk is reported as work file `name` that cannot be written."""
        return _writing(self._file(name))

    def shard_path(self, name: str) -> str:
        return os.path.join(self._shard_folder, name)

    def has_json(self, name: str) -> bool:
        return os.path.exists(self._file(f"{name}.json"))

    def read_json(self, name: str) -> Any:
        with open(self._file(f"{name}.json"), encoding="utf-8") as file:
            return json.load(file)

    def write_json(self, name: str, value: Any) -> None:
        with _whole_files(self._work, [self._file(f"{name}.json")]) as (temporary,), open(temporary, "w", encoding="utf-8") as file:
            file.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")

    def write_unit(self, name: str, **arrays: np.ndarray) -> None:
        """Keeps what came of a unit of work."""
        with _whole_files(self._work, [self._file(f"{name}.npz")]) as (temporary,), open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def read_unit(self, name: str, *keys: str) -> list[np.ndarray]:
        """These arrays of a finished unit."""
        path = self._file(f"{name}.npz")
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return [arrays[key] for key in keys]
        except Exception as error:
            raise DataError(f"{path} is damaged ({error}): remove it and run again") from error

    def has_unit(self, name: str) -> bool:
        return os.path.exists(self._file(f"{name}.npz"))

    def new_shards(self, names: Sequence[str]) -> contextlib.AbstractContextManager[list[str]]:
        """Gives temporary paths for shards `names`; at the end they move into the output folder."""
        os.makedirs(self._shard_folder, exist_ok=True)
        return _whole_files(self._work, [self.shard_path(name) for name in names])

    def write_entries(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Notes what the manifest will say of shards; done before they move, so that a shard in place has its entry."""
        for name, entry in entries.items():
            self.write_json(name, {"file": name} | dict(entry))

    def entry(self, name: str) -> dict[str, Any] | None:
        """The entry of shard `name` when it is finished, else None."""
        entry = self._read(self._file(f"{name}.json"))
        path = self.shard_path(name)
        return entry if entry and os.path.exists(path) and os.path.getsize(path) == entry["bytes"] else None


def shards_of(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a manifest's shards, less what is none or lies elsewhere: by these names shards are removed."""
    parts = [part for part in (manifest, manifest.get("train"), manifest.get("eval")) if isinstance(part, dict)]
    return [shard for part in parts if isinstance(part.get("shards"), list) for shard in part["shards"] if _is_shard(shard)]


def _is_shard(entry: Any) -> bool:
    if not isinstance(entry, dict) or not all(type(entry.get(key, 0)) is int for key in ("bytes", "records")):
        return False
    name = entry.get("file")
    return (
        isinstance(name, str) and "bytes" in entry and name == os.path.basename(name) and name not in ("", ".", "..") and "\0" not in name
    )


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
