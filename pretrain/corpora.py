"""Raw text in: from files, globs and folders to lines, from lines to documents, from documents to units of work.

Every builder reads its corpus through this room, so that they agree on what a line is (what "\\n" ends; a "\\r" before it is
dropped, and U+2028 and its like separate nothing), on the encoding (UTF-8, strictly) and on what a document is.
"""

import glob
import gzip
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, NamedTuple

from model.command import DataError, UserError

BYTE_ORDER_MARK = "\ufeff"
BLOCK_BYTES = 1 << 13  # keeps an article or a conversation whole, and still lets a one-document corpus give up a small part
UNIT_BYTES = 1 << 19  # about a second of tokenizing: what a kill loses; and enough of them for every process


def expand_files(patterns: Sequence[str], flag: str = "corpus") -> list[str]:
    """Lists the files that `patterns` name: files, globs and folders, each string one of them or several separated by commas.

    ["a.txt,more/"] -> ["a.txt", "more/b.txt", "more/deep/c.txt.gz"]

    Folders are walked to the bottom in sorted order, hidden files and folders left out. A file named twice is listed once.
    Raises UserError, quoting `flag`, for a name that matches nothing and when no file is left.
    """
    files: dict[str, str] = {}
    for pattern in _split(patterns):
        for name in _matches(pattern, flag):
            found = _walk(name) if os.path.isdir(name) else [name]
            files.update((os.path.realpath(file), file) for file in found if os.path.realpath(file) not in files)
    if not files:
        names = ", ".join(map(repr, patterns)) or "an empty list"
        raise UserError(f"no files in {names}: name text files or a folder that holds some (--{flag})")
    return list(files.values())


def _split(patterns: Sequence[str]) -> list[str]:
    """Cuts at commas, except in a name that exists as it stands."""
    parts = [[pattern] if os.path.exists(pattern) else pattern.split(",") for pattern in patterns]
    return [part.strip() for group in parts for part in group if part.strip()]


def _matches(pattern: str, flag: str) -> list[str]:
    names = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
    if not names:
        raise UserError(f"no file or folder {pattern!r} (--{flag})")
    return names


def _walk(folder: str) -> list[str]:
    files = []
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [os.path.join(path, name) for name in sorted(names) if not name.startswith(".")]
    return files


def read_lines(path: str) -> Iterator[str]:
    """Yields the lines of a text file without their ends; a name ending in .gz is unpacked on the way.

    A leading byte order mark is dropped. Raises UserError when the file cannot be opened, and DataError, naming file, line
    and the byte counted from the start of the (unpacked) text, for what is not UTF-8 and for a damaged .gz.
    """
    offset = 0
    number = 0
    try:
        with _open(path) as file:
            for number, raw in enumerate(file, 1):
                try:
                    line = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    place = f"{path}, line {number}, byte {offset + error.start}"
                    raise DataError(f"{place}: not UTF-8 ({error.reason}); convert the file to UTF-8") from error
                offset += len(raw)
                line = line.removesuffix("\n").removesuffix("\r")
                yield line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}, after line {number}: damaged or truncated .gz ({error})") from error


def _open(path: str) -> IO[bytes]:
    try:
        return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")  # type: ignore[return-value]
    except OSError as error:
        raise UserError(f"cannot read {path!r}: {error.strerror}") from error


def unpacked_size(path: str) -> int:
    """Bytes of text in a file, for a progress bar; of a .gz what its last four bytes say, which is modulo 4 GiB."""
    size = os.path.getsize(path)
    if not path.endswith(".gz") or size < 4:
        return size
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(), "little")


def read_documents(path: str, blanks_separate_docs: bool) -> Iterator[list[str]]:
    """Yields the documents of a file as lists of stripped, non-empty lines.

    A document ends at the end of the file and, with `blanks_separate_docs`, at every blank line:
    "a\\nb\\n\\n\\nc" -> ["a", "b"], ["c"]
    """
    document: list[str] = []
    for line in map(str.strip, read_lines(path)):
        if line:
            document.append(line)
        elif document and blanks_separate_docs:
            yield document
            document = []
    if document:
        yield document


class Block(NamedTuple):
    """Consecutive lines of one document. `size`: UTF-8 bytes with one line end each. `ends_document`: no more of it follows."""

    lines: list[str]
    size: int
    ends_document: bool


def read_blocks(files: Sequence[str], blanks_separate_docs: bool) -> Iterator[Block]:
    """Reads the documents of `files` as blocks: a short document whole, a longer one in runs of lines of about BLOCK_BYTES."""
    for path in files:
        lines: list[str] = []
        size = 0
        for line in map(str.strip, read_lines(path)):
            ends_document = blanks_separate_docs and not line
            if lines and (ends_document or (line and size >= BLOCK_BYTES)):
                yield Block(lines, size, ends_document)
                lines, size = [], 0
            if line:
                lines.append(line)
                size += len(line.encode("utf-8")) + 1
        if lines:
            yield Block(lines, size, True)


def cut_units(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Groups blocks into units of work, by the text alone: nothing about the machine or the number of processes decides.

    A unit ends with the document that fills it to UNIT_BYTES; a document that goes on beyond twice that is cut between two
    of its lines. Short files share a unit, so that a corpus of many small ones is no burden.
    """
    unit: list[Block] = []
    size = 0
    for block in blocks:
        unit.append(block)
        size += block.size
        if size >= (UNIT_BYTES if block.ends_document else 2 * UNIT_BYTES):
            yield unit
            unit, size = [], 0
    if unit:
        yield unit
