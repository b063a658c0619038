"""Rows of task files, read as they are: quotes have no meaning, and a line with another number of fields is an error."""

from collections.abc import Sequence
from typing import Any

from model.command import UserError, read_json
from pretrain.text_files import read_lines

Row = tuple[int, dict[str, str]]


def read_tsv(path: str, columns: Sequence[str], has_header: bool = True) -> list[Row]:
    """Reads a tab-separated file with the columns `columns`, which its first line names if it `has_header`.

    'id\\tdocument\\tlabel\\n7\\t"good\\t1\\n' -> [(2, {"id": "7", "document": '"good', "label": "1"})]

    A reader that honours quotes silently merges the lines between two of them.

    Returns:
      (line number counting from 1, column -> field) for every row.

    Raises:
      UserError: another header, or a row with another number of fields.
    """
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split("\t")
        if len(fields) != len(columns):
            hint = "; is this the file of another task?" if number == 1 else ""
            expected = f"{len(columns)} ({', '.join(columns)})"
            raise UserError(f"{path}, line {number}: {len(fields)} tab-separated fields instead of {expected}{hint} (--raw_data_dir)")
        if has_header and number == 1 and fields != list(columns):
            raise UserError(
                f"{path}, line 1: the header is {fields} instead of {list(columns)}; is this the file of another task? (--raw_data_dir)"
            )
        if number > has_header:
            rows.append((number, dict(zip(columns, fields, strict=True))))
    return rows


def read_json_rows(path: str, keys: Sequence[str]) -> list[Row]:
    """Reads a JSON list of objects; a key with a slash reaches into an object.

    [{"guid": "1", "premise": "비가 온다.", "labels": {"label": 3.5}}], ("premise", "labels/label")
        -> [(1, {"premise": "비가 온다.", "labels/label": "3.5"})]

    Returns:
      (number of the object counting from 1, key -> value as text) for every object.

    Raises:
      UserError: not such a list, or an object without one of the keys.
    """
    objects = read_json(path, "raw_data_dir")
    if not isinstance(objects, list):
        raise UserError(f"{path} holds {type(objects).__name__} instead of a list; is this the file of another task? (--raw_data_dir)")
    return [(number, {key: _value(found, key, f"{path}, row {number}") for key in keys}) for number, found in enumerate(objects, 1)]


def _value(found: Any, key: str, place: str) -> str:
    for part in key.split("/"):
        found = found.get(part) if isinstance(found, dict) else None
    if not isinstance(found, str | int | float):
        raise UserError(f"{place}: no {key!r}; is this the file of another task? (--raw_data_dir)")
    return str(found)
