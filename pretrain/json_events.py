"""JSON files in: events in the order of the file, with flat memory for a file of any size, and errors that name the byte."""

from collections.abc import Iterator, Sequence
from decimal import InvalidOperation
from typing import Any

import ijson  # takes its C backend, yajl2_c, which the wheels for Linux, macOS and Windows hold

from model.command import DataError
from pretrain.text_files import MAX_LINE_BYTES, TextFile

MAX_TEXT_BYTES = MAX_LINE_BYTES
MAX_JSON_DEPTH = 1000
JSON_BYTES = 1 << 18  # the parser begins a text anew in each
STARTS = frozenset(("start_map", "start_array"))
ENDS = frozenset(("end_map", "end_array"))
# What the parser also raises: for "\\udc00", half a character; for numbers that Python's int and Decimal refuse.
_BROKEN = (ijson.JSONError, UnicodeDecodeError, SystemError, InvalidOperation)
KINDS = {"start_map": "an object", "start_array": "a list", "boolean": "true or false", "number": "a number"}


class JsonEvents:
    """The events of a JSON file, ("map_key", "form"), ("string", "가"), ...; holds at most JSON_BYTES and one text of the file.

    Iterating raises DataError, naming the file and the byte (counted from the start of the unpacked text), for broken JSON.
    """

    def __init__(self, file: TextFile) -> None:
        self._file = file
        self._start = 0  # of the bytes that the events come from, after the byte order mark

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        events = ijson.sendable_list()
        parser = ijson.basic_parse_coro(events)
        last_event = 0
        with self._file.stream() as stream:
            try:
                while chunk := stream.read(JSON_BYTES):
                    parser.send(chunk)
                    yield from events
                    self._start += len(chunk)
                    last_event = self._start if events else last_event
                    if self._start - last_event > MAX_TEXT_BYTES:
                        raise self.error(f"a text of more than {MAX_TEXT_BYTES:,} bytes")
                    events.clear()
                parser.close()
            except _BROKEN as error:
                reason = str(error.__cause__ or error).partition("\n")[0]
                raise DataError(f"{self._file.path}, byte {self._broken_byte()}: broken JSON ({reason})") from error

    def _broken_byte(self) -> int:
        """Reads the file twice more, in the end byte by byte: ijson does not say where it was."""
        position = self._start
        for step in (1 << 9, 1):
            position = self._feed(position, step)
        return self._file.mark_bytes + position

    def _feed(self, start: int, step: int) -> int:
        """Returns where the `step` bytes begin that cannot be parsed, of those from `start` on."""
        events = ijson.sendable_list()
        parser = ijson.basic_parse_coro(events)
        position = 0
        with self._file.stream() as stream:
            while chunk := stream.read(min(JSON_BYTES, start - position) if position < start else step):
                try:
                    parser.send(chunk)
                except _BROKEN:
                    break
                events.clear()
                position += len(chunk)
        return position

    def error(self, message: str) -> DataError:
        """An error about what is being read."""
        start = self._file.mark_bytes + self._start
        return DataError(f"{self._file.path}, in the {JSON_BYTES} bytes from byte {start} on: {message}")

    def check_depth(self, levels: Sequence[Any]) -> None:
        if len(levels) > MAX_JSON_DEPTH:
            raise self.error(f"JSON nested more than {MAX_JSON_DEPTH} deep")

    def text(self, event: str, value: Any, place: str) -> str:
        """The text that an event brings, "" for null; raises DataError for anything else."""
        if event == "string":
            return value
        if event == "null":
            return ""
        raise self.error(f"{KINDS[event]} instead of text under {place}")
