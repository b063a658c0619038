"""Corpora in: one small class per corpus, from its files to documents, each a list of texts (turns, paragraphs, sentences).

A corpus of your own is one class more, in a module that `load_reader_module` is given:

    @register
    class LineReader(CorpusReader):
        name = "my_lines"
        group = "written"
        moderated = True

        def documents(self, file):
            return gather(text for line in file.lines() for text in (line, None))

What is absent (an empty text, null) is passed over; a number, a list or an object where a text belongs is a DataError, for it
means that the file is laid out in another way than the reader believes, and text would be lost without a word.
"""

import abc
import csv
import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

from model import user_modules
from model.command import DataError, UserError
from pretrain.json_events import ENDS, KINDS, STARTS, JsonEvents
from pretrain.text_files import TextFile

GROUPS = ("dialog", "written", "other")
MAX_DOCUMENT_CHARS = 1 << 20  # a file of 22 GB without a blank line is one document, and memory is to stay flat

# ---- what all readers share


class CorpusReader(abc.ABC):
    """Reads the files of one corpus.

    Class attributes:
      name: what it is called in flags.
      group: its part of a mixture, one of GROUPS.
      moderated: whether its texts can be shown as they are; those of comments and of files about which nothing is known cannot.

    text_keys: keys or columns that hold text, for the readers that have to be told.
    """

    name: ClassVar[str]
    group: ClassVar[str]
    moderated: ClassVar[bool]

    def __init__(self, text_keys: Sequence[str] = ()) -> None:
        self.text_keys = list(text_keys)

    @abc.abstractmethod
    def documents(self, file: TextFile) -> Iterator[list[str]]:
        """Yields the documents of `file` in order, each a list of texts: stripped, not empty, without line ends."""


READERS: dict[str, type[CorpusReader]] = {}
Reader = TypeVar("Reader", bound=type[CorpusReader])


def register(reader: Reader) -> Reader:
    """Class decorator: makes `reader` known under its name. Raises ValueError for a name that is taken and an unknown group."""
    if reader.name in READERS:
        raise ValueError(f"there is a corpus reader {reader.name!r} already: {READERS[reader.name].__module__}")
    if reader.group not in GROUPS:
        raise ValueError(f"corpus reader {reader.name!r} has the group {reader.group!r}, must be one of {', '.join(GROUPS)}")
    READERS[reader.name] = reader
    return reader


def get_reader(name: str, text_keys: Sequence[str] = ()) -> CorpusReader:
    """Returns the reader called `name`. Raises UserError when there is none."""
    if name not in READERS:
        raise UserError(f"no corpus reader {name!r}, must be one of {', '.join(READERS)}; --reader_module brings in another")
    return READERS[name](text_keys)


def load_reader_module(module: str) -> None:
    """Imports readers of the user's: "my_readers.py" or, from the Python path, "my_package.readers".

    Does nothing for a module that was imported before. Raises UserError for what cannot be imported.
    """
    user_modules.load(module, "reader_module")


def gather(texts: Iterable[str | None]) -> Iterator[list[str]]:
    """Makes documents of texts; None ends one, and so does the end.

    " 가 ", "나\\n다", "", None, None, "라" -> ["가", "나", "다"], ["라"]

    A document of more than MAX_DOCUMENT_CHARS is handed on in parts.
    """
    document: list[str] = []
    size = 0
    for text in texts:
        if text is not None:
            lines = [line for line in map(str.strip, text.split("\n")) if line]
            document += lines
            size += sum(map(len, lines))
        if document and (text is None or size > MAX_DOCUMENT_CHARS):
            yield document
            document, size = [], 0
    if document:
        yield document


# ---- plain text


@register
class Text(CorpusReader):
    """Plain text, a paragraph or sentence a line; a blank line ends a document."""

    name = "text"
    group = "other"
    moderated = False

    def documents(self, file: TextFile) -> Iterator[list[str]]:
        return gather(line if line and not line.isspace() else None for line in file.lines())


@register
class KcBert(CorpusReader):
    """KcBERT's news comments, one a line: each is a document."""

    name = "kcbert"
    group = "dialog"
    moderated = False

    def documents(self, file: TextFile) -> Iterator[list[str]]:
        return ([text] for text in map(str.strip, file.lines()) if text)


@register
class NamuWikiText(CorpusReader):
    """namuwikitext: a page is a document; " = Title =" opens one, " = = Section = =" a section of it, and neither is text."""

    name = "namuwikitext"
    group = "written"
    moderated = True

    _HEAD = re.compile(r"\s?(=(?: =){0,9}) \S.* \1\s*")

    def documents(self, file: TextFile) -> Iterator[list[str]]:
        return gather(text for line in file.lines() if (text := self._text(line)) != "")

    def _text(self, line: str) -> str | None:
        """The line, "" for the head of a section, None for the head of a page."""
        head = self._HEAD.fullmatch(line) if "=" in line else None
        if not head:
            return line
        return None if head[1] == "=" else ""


# ---- tables


@register
class KoreanChatbotData(CorpusReader):
    """Korean chatbot data: CSV with the columns Q, A and label; a row is a document of two turns."""

    name = "korean_chatbot_data"
    group = "dialog"
    moderated = True

    COLUMNS = ("Q", "A", "label")

    def documents(self, file: TextFile) -> Iterator[list[str]]:
        return gather(text for row in self._rows(file) for text in (*row[:2], None))

    def _rows(self, file: TextFile) -> Iterator[list[str]]:
        # Python 3.10's csv refuses NUL, which is no text either.
        rows = csv.reader((line.replace("\0", "") + "\n" for line in file.lines()), strict=True)
        try:
            header = next(rows, [])
            if tuple(header) != self.COLUMNS:
                raise _wrong_header(file, header, self.COLUMNS)
            for row in rows:
                if row and len(row) != len(header):  # csv makes [] of a blank line
                    raise _wrong_columns(file, rows.line_num, row, header, "comma-separated")
                yield row
        except csv.Error as error:
            raise DataError(f"{file.path}, line {rows.line_num}: not CSV ({error})") from error


@register
class TabSeparated(CorpusReader):
    """Tab-separated columns under a header; quotes have no meaning. A row is a document: the columns `text_keys`, in that order."""

    name = "tsv"
    group = "other"
    moderated = False

    def __init__(self, text_keys: Sequence[str] = ()) -> None:
        super().__init__(text_keys)
        if not text_keys:
            raise UserError("the reader tsv has to be told which columns hold text, separated by commas (--text_key)")

    def documents(self, file: TextFile) -> Iterator[list[str]]:
        return gather(text for row in self._rows(file) for text in (*row, None))

    def _rows(self, file: TextFile) -> Iterator[list[str]]:
        rows = (line.split("\t") for line in file.lines())
        header = next(rows, [])
        if not set(self.text_keys) <= set(header):
            raise _wrong_header(file, header, self.text_keys)
        columns = [header.index(key) for key in self.text_keys]
        for number, row in enumerate(rows, 2):
            if row == [""] and len(header) > 1:
                continue  # a blank line, at the end for instance
            if len(row) != len(header):
                raise _wrong_columns(file, number, row, header, "tab-separated")
            yield [row[column] for column in columns]


def _wrong_header(file: TextFile, header: Sequence[str], wanted: Sequence[str]) -> DataError:
    found = f"the columns are {_shortened(header)}" if header else "there is no header"
    return DataError(f"{file.path}, line 1: {found}, must be {', '.join(wanted)}; is this another reader's file?")


def _wrong_columns(file: TextFile, line: int, row: Sequence[str], header: Sequence[str], kind: str) -> DataError:
    return DataError(f"{file.path}, line {line}: {len(row)} {kind} columns instead of {len(header)} ({_shortened(header)})")


def _shortened(header: Sequence[str]) -> str:
    text = ", ".join(header)
    return text if len(text) <= 100 else f"{text[:100]} ..."


# ---- JSON


@register
class JsonLines(CorpusReader):
    """A JSON object a line, each a document: the lines of the texts under `text_keys` ("text" unless told otherwise), in that order."""

    name = "jsonl"
    group = "other"
    moderated = False

    def __init__(self, text_keys: Sequence[str] = ()) -> None:
        super().__init__(text_keys or ["text"])

    def documents(self, file: TextFile) -> Iterator[list[str]]:
        return gather(text for number, line in enumerate(file.lines(), 1) for text in (*self._texts(file, number, line), None))

    def _texts(self, file: TextFile, number: int, line: str) -> Iterator[str]:
        if not line.strip():
            return
        place = f"{file.path}, line {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            byte = len(line[: error.pos].encode("utf-8"))
            raise DataError(f"{place}, byte {byte} of the line: not JSON ({error.msg})") from error
        except (RecursionError, ValueError) as error:  # nested too deeply, a number with too many digits
            raise DataError(f"{place}: not JSON that can be read ({error})") from error
        for key in self.text_keys:
            if not isinstance(value, dict) or key not in value:
                raise DataError(f"{place}: no key {key!r} (--text_key names the keys that hold text)")
            if isinstance(text := value[key], str):
                # "\ud800" is an escape of half a character, which no UTF-8 can hold.
                yield text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") if _HALF.search(text) else text
            elif text is not None:
                raise DataError(f"{place}: {_json_kind(text)} instead of text under the key {key!r}")


_HALF = re.compile("[\ud800-\udfff]")


def _json_kind(value: Any) -> str:
    return KINDS[{dict: "start_map", list: "start_array", bool: "boolean"}.get(type(value), "number")]


class JsonReader(CorpusReader):
    """What readers of whole JSON files share: the file is streamed, so that its size does not matter.

    looked_for: where text is expected, for the error when there is none.
    """

    looked_for: ClassVar[str]

    def documents(self, file: TextFile) -> Iterator[list[str]]:
        return gather(self._checked_texts(file))

    @abc.abstractmethod
    def texts(self, events: JsonEvents) -> Iterator[str | None]:
        """Yields the texts, those that are empty or null as "", and None at least where a document ends."""

    def _checked_texts(self, file: TextFile) -> Iterator[str | None]:
        found = False
        for text in self.texts(JsonEvents(file)):
            found = found or text is not None
            yield text
        if not found:
            raise DataError(f"{file.path}: no text under {self.looked_for}; is this another reader's file?")


@register
class AiHubDialog(JsonReader):
    """AI Hub's Korean dialogues: the texts are strings (or lists of them) under the keys question and answer, at any depth.

    A document is what lies next to each other in one innermost list, so that the turns of a dialogue stay together:
    {"data": [{"dialogs": [{"question": "가", "answer": "나"}, {"question": "다"}]}, {"dialogs": [...]}]} -> ["가", "나", "다"], ...
    """

    name = "ai_hub_dialog"
    group = "dialog"
    moderated = True
    looked_for = "the keys question and answer"

    KEYS = frozenset(("question", "answer"))

    def texts(self, events: JsonEvents) -> Iterator[str | None]:
        levels = [_Level("", 0, None)]
        found = lists = document = 0  # texts and lists so far; the list that the document is
        for event, value in events:
            level = levels[-1]
            if event == "map_key":
                level.key = value
            elif event in ENDS:
                if levels.pop().found_before == found:
                    raise events.error(f"an object without text under {self.looked_for}")
            elif event in STARTS:
                events.check_depth(levels)
                is_text = level.key in self.KEYS
                lists += event == "start_array" and not is_text
                if event == "start_map":
                    levels.append(_Level("", level.list, found if is_text else None))
                else:
                    levels.append(_Level(level.key, level.list, None) if is_text else _Level("", lists, None))
            elif level.key in self.KEYS:
                if document != level.list:
                    yield None
                document = level.list
                found += 1
                yield events.text(event, value, self.looked_for)


@dataclasses.dataclass(slots=True)
class _Level:
    """Where AiHubDialog is in an object or list. key: the last one; list: the innermost, by number; found_before: texts before it."""

    key: str
    list: int
    found_before: int | None


class NiklReader(JsonReader):
    """What NIKL's corpora share: document[].<part>[].form, each member of document[] one document."""

    part: ClassVar[str]

    def clean(self, text: str) -> str:
        return text

    def texts(self, events: JsonEvents) -> Iterator[str | None]:
        path: list[str] = []
        wanted = ["document", "[]", self.part, "[]", "form"]
        for event, value in events:
            if event == "map_key":
                path[-1] = value
            elif event in ENDS:
                path.pop()
                if path == wanted[:2]:
                    yield None
            elif path == wanted:
                yield self.clean(events.text(event, value, self.looked_for))
            elif event in STARTS:
                events.check_depth(path)
                path.append("[]" if event == "start_array" else "")


@register
class NiklNewspaper(NiklReader):
    """NIKL's newspapers (and written texts): an article is a document, a paragraph a text."""

    name = "nikl_newspaper"
    group = "written"
    moderated = True
    part = "paragraph"
    looked_for = "document[].paragraph[].form"


@register
class NiklSpoken(NiklReader):
    """NIKL's spoken texts (and dialogues): a conversation or speech is a document, an utterance without its marks a text."""

    name = "nikl_spoken"
    group = "dialog"
    moderated = True
    part = "utterance"
    looked_for = "document[].utterance[].form"

    def clean(self, text: str) -> str:
        return clean_transcription(text)


_MARKED = re.compile("[-~&{(a-z]")
# What stands for a name, an address or a number that was taken out: &name1&, or the bare name1 that `form` keeps of it.
_ANONYMISED = re.compile(
    "&[a-z]{3,}(?:-[a-z]+)*[0-9]*&"
    "|(?<![0-9A-Za-z])(?:name|address|affiliation|company-name|(?:social-security|card|tel)-num)[0-9]+(?![0-9A-Za-z])"
)
_NOISE = re.compile(r"\{[a-z]+(?:: ?[a-z]+)?\}")  # {laughing}, {share:photo}
_UNCLEAR = re.compile(r"\(\(([^()]*)\)\)")  # (()) not heard, ((xx)) two syllables not heard, ((text)) as understood
_UNHEARD_SYLLABLES = re.compile("(?<![A-Za-z])x+(?![A-Za-z])")
_BROKEN_OFF = re.compile(r"(?:(?<=\s)|^)-(?![\s0-9])|(?<=[^\s0-9])[-~](?=[\s.,?!]|$)")
_SPACES = re.compile(r"\s+(?=[.,?!])|(?<=\s)\s+")


def clean_transcription(text: str) -> str:
    """Takes the marks of NIKL's transcribers out of an utterance.

    "&name1& 씨가 {laughing} 좀- ((그랬어요)) (())" -> "○○ 씨가 좀 그랬어요"

    Anonymised words become "○○", as Korean prose writes them, so that the particles after them keep something to follow;
    sounds, breaking off ("-"), discourse markers ("~" after a word) and what was not heard leave nothing.
    """
    if not _MARKED.search(text):
        return text
    text = _ANONYMISED.sub("○○", text)
    text = _NOISE.sub(" ", text)
    text = _UNCLEAR.sub(lambda unclear: _UNHEARD_SYLLABLES.sub("", unclear[1]), text)
    return _SPACES.sub("", _BROKEN_OFF.sub("", text)).strip()
