"""Rows of task files, read as they are: quotes have no meaning, and a line with another number of fields is an error."""

from collections.abc import Sequence

from model.command import UserError
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
            raise UserError(f"{path}, line {number}: {len(fields)} tab-separated fields instead of {len(columns)} ({', '.join(columns)})")
        if has_header and number == 1 and fields != list(columns):
            raise UserError(f"{path}, line 1: the header is {fields} instead of {list(columns)}; is this the file of another task?")
        if number > has_header:
            rows.append((number, dict(zip(columns, fields, strict=True))))
    return rows
