"""Rows of task files, read as they are: a row with another number of fields is an error, and only in CSV quotes have a meaning.

`flag` is the flag that said where the file lies, for errors.
"""

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from model.command import DataError, UserError, read_json
from model.words import has_half_pair
from pretrain.text_files import TextFile, read_lines

Row = tuple[int, dict[str, str]]
FLAG = "raw_data_dir"
ANOTHER = "is this the file of another task?"


def read_tsv(path: str, columns: Sequence[str], has_header: bool = True, flag: str = FLAG) -> list[Row]:
    """Reads a tab-separated file with the columns `columns`, which its first line names if it `has_header`.

    'id\\tdocument\\tlabel\\n7\\t"good\\t1\\n' -> [(2, {"id": "7", "document": '"good', "label": "1"})]

    A reader that honours quotes silently merges the lines between two of them. Without `columns` the header alone counts.

    Returns:
      (line number counting from 1, column -> field) for every row.

    Raises:
      UserError: another header, or a row with another number of fields.
    """
    records = ((number, line.split("\t")) for number, line in _lines(path, flag))
    return _read_table(path, "tab", records, columns, has_header, flag)


def read_csv(path: str, columns: Sequence[str], has_header: bool = True, flag: str = FLAG) -> list[Row]:
    """`read_tsv` for fields between commas: those that hold commas, quotes or line ends stand in quotes (RFC 4180).

    'text,label\\n"비가, 온다",1\\n' -> [(2, {"text": "비가, 온다", "label": "1"})]; a row's number is that of its first line.
    """
    return _read_table(path, "comma", _csv_records(path, flag), columns, has_header, flag)


def _csv_records(path: str, flag: str) -> Iterator[tuple[int, list[str]]]:
    with io.TextIOWrapper(TextFile(path).stream(), encoding="utf-8", newline="") as file:
        reader, number = csv.reader(file, strict=True), 1
        try:
            with _blaming(flag):
                for fields in reader:
                    yield number, fields
                    number = reader.line_num + 1
        except csv.Error as error:
            raise UserError(f"{path}, line {number}: no row of CSV: {error} (--{flag})") from error


def _lines(path: str, flag: str) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, counting from 1."""
    with _blaming(flag):
        yield from enumerate(read_lines(path), 1)


@contextlib.contextmanager
def _blaming(flag: str) -> Iterator[None]:
    """Errors about the bytes of a file advise flags of preprocess.py; here it is `flag` that named the file."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{error}".partition("; ")[0] + f" (--{flag})") from error


def _read_table(
    path: str, separator: str, records: Iterable[tuple[int, list[str]]], columns: Sequence[str], has_header: bool, flag: str
) -> list[Row]:
    """Names the fields of `records` (line number, fields)."""
    rows = []
    for index, (number, fields) in enumerate(records):
        if index == 0 and not columns:
            columns = _header(path, fields, flag)
        if len(fields) != len(columns):
            hint = f"; {ANOTHER}" if index == 0 else ""
            expected = f"{len(columns)} ({', '.join(columns)})"
            raise UserError(f"{path}, line {number}: {len(fields)} {separator}-separated fields instead of {expected}{hint} (--{flag})")
        if has_header and index == 0 and fields != list(columns):
            raise UserError(f"{path}, line 1: the header is {fields} instead of {list(columns)}; {ANOTHER} (--{flag})")
        if index >= has_header:
            rows.append((number, dict(zip(columns, fields, strict=True))))
    return rows


def _header(path: str, fields: list[str], flag: str) -> list[str]:
    for index, field in enumerate(fields):
        if field in fields[:index]:
            raise UserError(f"{path}, line 1: the header names {field!r} twice; has the file a header? (--{flag})")
    return fields


def read_json_rows(path: str, keys: Sequence[str], flag: str = FLAG) -> list[Row]:
    """Reads a JSON list of objects; a key with a slash reaches into an object.

    [{"guid": "1", "premise": "비가 온다.", "labels": {"label": 3.5}}], ("premise", "labels/label")
        -> [(1, {"premise": "비가 온다.", "labels/label": "3.5"})]

    Returns:
      (number of the object counting from 1, key -> value as text) for every object.

    Raises:
      UserError: not such a list, or an object without one of the keys.
    """
    objects = read_json(path, flag)
    if not isinstance(objects, list):
        raise UserError(f"{path} holds {type(objects).__name__} instead of a list; {ANOTHER} (--{flag})")
    return [(number, _values(found, keys, f"{path}, row {number}", flag)) for number, found in enumerate(objects, 1)]


def read_json_lines(path: str, keys: Sequence[str], flag: str = FLAG) -> list[Row]:
    """`read_json_rows` for a file with an object a line; the number is that of the line."""
    rows = []
    for number, line in _lines(path, flag):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not JSON ({error}); {ANOTHER} (--{flag})") from error
        rows.append((number, _values(found, keys, f"{path}, line {number}", flag)))
    return rows


def _values(found: Any, keys: Sequence[str], place: str, flag: str) -> dict[str, str]:
    return {key: _value(found, key, place, flag) for key in keys}


def _value(found: Any, key: str, place: str, flag: str) -> str:
    for part in key.split("/"):
        found = found.get(part) if isinstance(found, dict) else None
    if not isinstance(found, str | int | float):
        raise UserError(f"{place}: no {key!r}; {ANOTHER} (--{flag})")
    if isinstance(found, str) and has_half_pair(found):
        raise UserError(f"{place}: {key!r} holds half of a surrogate pair, which is no character (--{flag})")
    return json.dumps(found) if isinstance(found, bool) else str(found)
