"""Files in: from files, globs, folders and archives to lines of text.

Everything that reads a corpus does so through this room, so that all agree on what a line is (what "\\n" ends; a "\\r" before it
is dropped, and U+2028 and its like separate nothing), on the encoding (UTF-8; a leading byte order mark is no text) and on what
is unpacked on the way: names ending in .gz, .xz or .zst, and the members of a .zip, which go by names like
"a.zip!inner/name.json".

Memory stays flat whatever a file's size, its compression and the length of its lines.
"""

import codecs
import functools
import glob
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Literal

import zstandard

from model.command import DataError, UserError
from pretrain.remote_files import is_remote, list_remote, open_remote, remote_size

BYTE_ORDER_MARK = "\ufeff"
REPLACEMENT = "\ufffd"
MAX_LINE_BYTES = 1 << 24  # longer than any book: this is no text with line ends
MEMBER = "!"  # between a .zip and the name of its member
READ_BYTES = 1 << 18
# What goes into the zstandard decoder at once: at worst every 4 bytes of it become 128 KiB.
ZST_BYTES = 1 << 10

InvalidUtf8 = Literal["error", "replace"]


# ---- which files


def expand_files(patterns: Sequence[str], flag: str = "corpus") -> list[str]:
    """Lists the files that `patterns` name: files, globs and folders, each string one of them or several separated by commas.

    ["a.txt,more/"] -> ["a.txt", "more/b.txt", "more/deep/c.txt.gz", "more/d.zip!inner/e.txt", "more/d.zip!inner/f.txt"]

    Folders are walked to the bottom in sorted order, hidden files and folders left out; a .zip stands for its members, with the
    same order and exceptions. A file named twice is listed once. Raises UserError, quoting `flag`, for a name that matches
    nothing, for a file or folder that cannot be read and when no file is left, and DataError for a .zip that is none.
    """
    files: dict[str, str] = {}
    for pattern in _split(patterns):
        for name in _matches(pattern, flag):
            found = _walk(name, flag) if os.path.isdir(name) else [name]
            files.update((_identity(file), file) for file in found if _identity(file) not in files)
    for file in files.values():
        _check_readable(file, flag)
    expanded = [member for file in files.values() for member in (_members(file) if _is_zip(file) else [file])]
    if not expanded:
        names = ", ".join(map(repr, patterns)) or "an empty list"
        raise UserError(f"no files in {names}: name text files or a folder that holds some (--{flag})")
    return expanded


def _split(patterns: Sequence[str]) -> list[str]:
    """Cuts at commas, except in a name that exists as it stands."""
    parts = [[pattern] if os.path.exists(pattern) else pattern.split(",") for pattern in patterns]
    return [part.strip() for group in parts for part in group if part.strip()]


def _identity(path: str) -> str:
    return path if is_remote(path) else os.path.realpath(path)


def _matches(pattern: str, flag: str) -> list[str]:
    if is_remote(pattern):
        names = list_remote(pattern, flag)
    else:
        names = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
    if not names:
        raise UserError(f"no file or folder {pattern!r} (--{flag})")
    return names


def _walk(folder: str, flag: str) -> list[str]:
    def refuse(error: OSError) -> None:  # os.walk itself would pass over the folder
        raise UserError(f"cannot read {error.filename!r}: {error.strerror} (--{flag})") from error

    files = []
    seen = set()
    for path, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(path)) in seen:  # a link to a folder above itself, for instance
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [os.path.join(path, name) for name in sorted(names) if not name.startswith(".")]
    return files


def _check_readable(path: str, flag: str) -> None:
    """Now, and not when the corpora before it have been read for hours."""
    if is_remote(path):
        if _is_zip(path):
            raise UserError(f"{path!r} cannot be unpacked where it is: copy it to this machine or unpack it there (--{flag})")
        return
    if not os.access(path, os.R_OK):
        reason = "Permission denied" if os.path.exists(path) else "it is a link to nowhere"
        raise UserError(f"cannot read {path!r}: {reason} (--{flag})")
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"the name of {os.fsencode(path)!r} is not UTF-8: give the file another (--{flag})") from error


def _members(path: str) -> list[str]:
    """Lists "a.zip" as ["a.zip!inner/b.txt"]: no folders, hidden files and what macOS adds."""
    names = [info.filename for info in _archive(path).infolist() if not info.is_dir()]
    kept = [name for name in names if not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))]
    return [f"{path}{MEMBER}{name}" for name in sorted(set(kept))]


def _is_zip(path: str) -> bool:
    return path.lower().endswith(".zip")


def _split_member(path: str) -> tuple[str, str]:
    """Splits "a.zip!b.txt" into ("a.zip", "b.txt"); the member is "" for a file that lies in no .zip."""
    start = path.lower().find(f".zip{MEMBER}")
    return (path, "") if start < 0 or os.path.exists(path) else (path[: start + 4], path[start + 4 + len(MEMBER) :])


def _archive(path: str) -> zipfile.ZipFile:
    """The .zip `path`, with its directory read. Raises UserError when it cannot be opened, DataError when it is no .zip."""
    try:
        state = os.stat(path)
        return _cached_archive(path, os.getpid(), state.st_size, state.st_mtime_ns)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: damaged or truncated .zip ({error})") from error
    except OSError as error:
        raise UserError(f"cannot read {path!r}: {error.strerror}") from error


@functools.lru_cache(maxsize=4)
def _cached_archive(path: str, process: int, size: int, modified: int) -> zipfile.ZipFile:
    """Kept open: a corpus of 25,000 members would have its directory read as often. `process`: a fork shares the file's position."""
    return zipfile.ZipFile(path)


def stored_size(path: str) -> int:
    """Bytes of a file on the disk; of a member of a .zip, unpacked."""
    if is_remote(path):
        return remote_size(path)
    archive, member = _split_member(path)
    return _archive(archive).getinfo(member).file_size if member else os.path.getsize(path)


def unpacked_size(path: str) -> int:
    """Bytes of text in a file, for a progress bar.

    Of a .gz, what its last four bytes say, which is modulo 4 GiB; of a .xz and a .zst, what their last stream and first frame
    say; where they say nothing, and of a compressed member of a .zip, the packed size.
    """
    packed = stored_size(path)
    measure = {".gz": _gz_size, ".xz": _xz_size, ".zst": _zst_size}.get(os.path.splitext(path)[1].lower())
    if measure is None or is_remote(path) or _split_member(path)[1]:
        return packed
    with open(path, "rb") as file:
        try:
            return measure(file)
        except (OSError, ValueError, IndexError, zstandard.ZstdError):
            return packed  # cut off or not what its name says: reading it will tell


def _gz_size(file: IO[bytes]) -> int:
    file.seek(-4, os.SEEK_END)
    return int.from_bytes(file.read(), "little")


def _zst_size(file: IO[bytes]) -> int:
    size = zstandard.frame_content_size(file.read(18))  # the longest header
    if size < 0:
        raise ValueError("the writer did not know the size")
    return size


def _xz_size(file: IO[bytes]) -> int:
    """Adds up the blocks in the index (The .xz File Format, sections 2.1.2 and 4)."""
    file.seek(-12, os.SEEK_END)
    footer = file.read()
    if footer[-2:] != b"YZ":
        raise ValueError("no .xz footer")
    index_size = 4 * (int.from_bytes(footer[4:8], "little") + 1)
    file.seek(-12 - index_size, os.SEEK_END)
    numbers = _variable_length_numbers(file.read(index_size)[1:])
    return sum(size for _ in range(next(numbers)) for _, size in [(next(numbers), next(numbers))])


def _variable_length_numbers(data: bytes) -> Iterator[int]:
    """b"\\x05\\x80\\x01" -> 5, 128: seven bits a byte, the lowest first, the eighth says that more follow."""
    position = 0
    while True:
        number = shift = 0
        while data[position] & 0x80:
            number |= (data[position] & 0x7F) << shift
            shift, position = shift + 7, position + 1
        yield number | data[position] << shift
        position += 1


# ---- what is in them


class TextFile:
    """A text file, unpacked on the way. It is opened anew by every `stream` and `lines`.

    path: as `expand_files` lists it.
    invalid_utf8: "error" raises DataError for what is not UTF-8; "replace" puts U+FFFD in its place and counts.
    replaced: invalid sequences that were replaced so far.
    read: bytes of the unpacked text that were read so far.
    mark_bytes: length of the byte order mark, once the beginning was read.
    """

    def __init__(self, path: str, invalid_utf8: InvalidUtf8 = "error") -> None:
        self.path = path
        self.replaced = 0
        self.read = 0
        self.mark_bytes = 0
        self._invalid_utf8 = invalid_utf8

    def stream(self) -> IO[bytes]:
        """Returns the text as a binary file to read from: unpacked, valid UTF-8, without byte order mark.

        Opening raises UserError when the file cannot be read, reading raises DataError for a damaged archive and for what is
        not UTF-8, with the line and the byte counted from the start of the unpacked text.
        """
        return io.BufferedReader(_Stream(self._texts()), READ_BYTES)  # type: ignore[return-value]

    def lines(self) -> Iterator[str]:
        """Yields the lines without their ends: "가\\r\\n\\n나" -> "가", "", "나".

        Raises what `stream` does, and DataError for a line longer than MAX_LINE_BYTES.
        """
        number = 1
        rest = ""  # the beginning of line `number`
        for text in self._texts():
            lines = text.split("\n")
            has_returns = "\r" in text or rest.endswith("\r")
            if rest:
                lines[0] = rest + lines[0]
                self._check_length(lines[0], number)
            rest = lines.pop()
            number += len(lines)
            yield from [line.removesuffix("\r") for line in lines] if has_returns else lines
        if rest:
            yield rest.removesuffix("\r")

    def _check_length(self, line: str, number: int) -> None:
        if 4 * len(line) > MAX_LINE_BYTES and len(line.encode("utf-8")) > MAX_LINE_BYTES:
            raise DataError(f"{self.path}, line {number}: longer than {MAX_LINE_BYTES:,} bytes; is this text with line ends?")

    def _texts(self) -> Iterator[str]:
        """Yields the text in runs that end between two characters."""
        offset = 0  # bytes of the file before `data`
        line = 1
        data = b""
        for chunk in self._chunks():
            data += chunk
            try:
                text, used = codecs.utf_8_decode(data, "strict", not chunk)
            except UnicodeDecodeError as error:
                if self._invalid_utf8 == "error":
                    bad_line = line + data.count(b"\n", 0, error.start)
                    place = f"{self.path}, line {bad_line}, byte {offset + error.start}"
                    hint = "convert the file to UTF-8, or let U+FFFD stand for what is invalid (--invalid_utf8=replace)"
                    raise DataError(f"{place}: not UTF-8 ({error.reason}); {hint}") from error
                text, used = codecs.utf_8_decode(data, "replace", not chunk)
                self.replaced += text.count(REPLACEMENT) - data[:used].count(REPLACEMENT.encode("utf-8"))
            if not offset and text.startswith(BYTE_ORDER_MARK):
                self.mark_bytes = len(BYTE_ORDER_MARK.encode("utf-8"))
                text = text[1:]
            if text:
                yield text
            line += data.count(b"\n", 0, used)
            offset += used
            data = data[used:]

    def _chunks(self) -> Iterator[bytes]:
        """Yields the unpacked bytes; b"" is the last."""
        self.read = 0
        try:
            with _open(self.path) as packed, _unpacked(packed, self.path) as file:
                while data := file.read(READ_BYTES):
                    self.read += len(data)
                    yield data
        except _DAMAGED as error:
            raise DataError(f"{self.path}, after byte {self.read} of the text: damaged or truncated archive ({error})") from error
        except OSError as error:
            raise UserError(f"cannot read {self.path!r}: {error.strerror or error}") from error
        yield b""


def read_lines(path: str) -> Iterator[str]:
    """Yields the lines of a text file without their ends; see TextFile, with invalid UTF-8 an error."""
    return TextFile(path).lines()


_DAMAGED = (
    *(EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zstandard.ZstdError, zipfile.BadZipFile),
    # What zipfile raises for a member that is gone, a compression it does not know and a password.
    *(KeyError, NotImplementedError, RuntimeError),
)


def _open(path: str) -> IO[bytes]:
    if is_remote(path):
        return open_remote(path)
    archive, member = _split_member(path)
    return _archive(archive).open(member) if member else open(path, "rb")


def _unpacked(packed: IO[bytes], path: str) -> IO[bytes]:
    kind = os.path.splitext(path)[1].lower()
    if kind == ".gz":
        return gzip.GzipFile(fileobj=packed)  # type: ignore[return-value]
    if kind == ".xz":
        return lzma.LZMAFile(packed)  # type: ignore[return-value]
    if kind == ".zst":
        return io.BufferedReader(_Stream(_unpack_zst(packed)), READ_BYTES)  # type: ignore[return-value]
    return packed


def _unpack_zst(raw: IO[bytes]) -> Iterator[bytes]:
    """Yields what the frames in `raw` hold. The library's own file object takes a truncated file for a whole one."""
    decoder = None
    while data := raw.read(ZST_BYTES):
        while data:
            decoder = decoder or zstandard.ZstdDecompressor().decompressobj()
            yield decoder.decompress(data)
            data = decoder.unused_data
            if decoder.eof:
                decoder = None
    if decoder:
        raise EOFError("the file ends within a frame")


class _Stream(io.RawIOBase):
    """A file to read from, made of parts."""

    def __init__(self, parts: Iterator[bytes] | Iterator[str]) -> None:
        self._parts = parts
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._rest = memoryview(part.encode("utf-8") if isinstance(part, str) else part)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
