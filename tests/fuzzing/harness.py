"""What hostile_input_test.py and benchmarks/fuzzing.py share: made-up input of every kind, and the watch over what it sets off."""

import copy
import functools
import gzip
import io
import json
import lzma
import os
import pathlib
import sys
import tempfile
import zipfile
from collections.abc import Callable
from typing import Any

import zstandard
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from model.command import UserError

# ---- the watch

# Python's own record of what a program does. Whatever a file holds, reading it must set off none of these.
_NEVER = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class", "socket.connect", "socket.bind")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.truncate", "shutil.rmtree")
_allowed: str | None = None  # folder that may be written to; None: nobody watches
_seen: list[str] = []


def _watch(event: str, arguments: tuple) -> None:
    if _allowed is None or not (event == "open" or event in _NEVER or event in _CHANGES):
        return
    is_write = event in _CHANGES or (event == "open" and _writes(*arguments))
    if event in _NEVER or (is_write and not _is_allowed(arguments[0])):
        _seen.append(f"{event} {arguments!r:.300}")


def _writes(path: Any, mode: Any, flags: int) -> bool:
    return not isinstance(path, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def _is_allowed(path: Any) -> bool:
    path = os.fsdecode(path)
    return path == os.devnull or "__pycache__" in path or f"{os.path.realpath(path)}{os.sep}".startswith(_allowed + os.sep)


sys.addaudithook(_watch)


def attempt(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What `function` returns, or None if it raised a UserError; whatever else it raises or does to the machine is a fault."""
    global _allowed
    _allowed, before = os.path.realpath(folder()), tempfile.tempdir
    tempfile.tempdir = _allowed  # where TensorFlow writes the code that it makes of functions
    try:
        return function(*arguments, **named)
    except UserError as error:
        assert str(error).strip(), "an error without a word"
        return None
    finally:
        _allowed, tempfile.tempdir = None, before
        done, _seen[:] = list(_seen), []
        assert not done, done


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="fuzzing-")


def folder(name: str = "") -> str:
    """A folder of this process, or one in it, which is gone in the end."""
    path = os.path.join(_temporary().name, name)
    if not os.path.isdir(path):
        os.makedirs(path)
    return path


def write(name: str, data: bytes) -> str:
    """Writes a file below `folder` and returns its path."""
    path = pathlib.Path(folder(), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def fuzz(max_examples: int) -> settings:
    """The same examples each time: CI shall not fail by chance. benchmarks/fuzzing.py looks for others."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    # No deadline: a busy machine is no fault. What takes too long, benchmarks/fuzzing.py finds.
    return settings(max_examples=max_examples, derandomize=True, deadline=None, database=None, suppress_health_check=quiet)


# ---- input

FRAGMENTS = (
    *(
        "그는",
        "심각합니다.",
        "한국어",
        "\x00",
        "\x1c",
        "\x85",
        "\ud800",
        "\udfff",
        "\ufffd",
        "\ufeff",
        "\u200d",
        "\u2028",
        "\u3000",
        "\r",
        "\t",
    ),
    *(
        "\u1100\u1161\u11a8",
        "\u1100",
        "\u11a8\u1161",
        "ㅋㅋ",
        "ㄱㅏ",
        "ꥠ",
        "가\u0301\u0316",
        "İ",
        "ǅ",
        "ﬃ",
        "ﷺ",
        "Å",
        "漢",
        "𠮷",
        "e\u0301" * 9,
    ),
    *("👨\u200d👩\u200d👧", "❤️", "[MASK]", "[UNK]", "##", "▁", "10,", "``", "''", "1e999", "\\ud800", "&lt;", "<a>", " ", "\n"),
)
TEXT = st.lists(st.sampled_from(FRAGMENTS) | st.text(st.characters(), max_size=8), max_size=12).map("".join)
LONG_TEXT = st.builds(lambda text, size: (text * (size // max(1, len(text)) + 1))[:size], TEXT, st.sampled_from((1_000, 100_000)))
CLEAN_TEXT = TEXT.map(lambda text: text.encode("utf-8", "ignore").decode())

_NUMBERS = st.sampled_from((0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, 5e-324, float("nan"), float("inf")))
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | _NUMBERS | TEXT
NAMES = st.sampled_from(
    ("../outside", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "a\x00b", "~", "$HOME", "%2e%2e", "CON", "gs://b/c", "x" * 300, "\ud800")
)
VALUES = st.recursive(
    _SCALARS | NAMES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | NAMES, inner, max_size=3), max_leaves=8
)


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """`data` with bytes written over, put in between and taken out, or cut off; sometimes something else altogether."""
    edits = st.lists(st.tuples(st.integers(0, len(data)), st.integers(0, 8), st.binary(max_size=8)), max_size=4)
    return st.one_of(st.tuples(edits, st.just(len(data)) | st.integers(0, len(data))).map(lambda drawn: _edit(data, *drawn)), st.binary())


def _edit(data: bytes, edits: list[tuple[int, int, bytes]], size: int) -> bytes:
    for place, removed, added in edits:
        data = data[:place] + added + data[place + removed :]
    return data[: size or None]


@st.composite
def altered(draw: Any, value: Any) -> Any:
    """JSON `value` with some of its parts replaced, renamed or taken away."""
    result = {"": copy.deepcopy(value)}
    for _ in range(draw(st.integers(0, 3))):
        places: list[tuple[Any, Any]] = [(result, "")]
        for holder, key in places:
            inner = holder[key]
            if isinstance(inner, dict):
                places += [(inner, name) for name in inner]
            elif isinstance(inner, list):
                places += [(inner, index) for index in range(len(inner))]
        holder, key = draw(st.sampled_from(places))
        what = draw(st.sampled_from(("replace", "remove", "rename")))
        if what == "replace" or holder is result or isinstance(holder, list):
            holder[key] = draw(VALUES)
        elif what == "remove":
            del holder[key]
        else:
            holder[draw(TEXT | NAMES)] = holder.pop(key)
    return result[""]


def json_bytes(value: Any) -> st.SearchStrategy[bytes]:
    """`value` as a JSON file: altered in its parts or in its bytes, with a key twice, or nested too deeply."""
    whole = json.dumps(value, ensure_ascii=False).encode()
    nested = st.sampled_from((b"[" * 20_000, b'{"a":' * 20_000, b"9" * 5_000, b'{"a": 1, "a": 2}', b"\xef\xbb\xbf{}", b""))
    return altered(value).map(lambda value: json.dumps(value).encode()) | damaged(whole) | nested


def pack(data: bytes, suffix: str, member: str = "a.txt") -> bytes:
    """`data` as a file whose name ends in `suffix` has it."""
    if suffix == ".zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(member or "a"), data)
            archive.writestr("inner/second.txt", data)
        return file.getvalue()
    return {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}.get(suffix, bytes)(data)
