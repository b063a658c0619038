"""Examples and counts as text for a terminal. Whatever colour says is said in letters too."""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from model.tokenization import FullTokenizer
from pretrain.pretrain_data import SpecialTokens
from pretrain.record_checker import Expectation, Statistics

COLORS = ("auto", "always", "never")
BARS, BAR_WIDTH = 16, 40
FREQUENT = 40
SEGMENT_STYLES = {"A": "cyan", "B": "green"}
UNKNOWN_STYLE = "bold magenta"
SIGN_STYLES = {"[MASK]": "bold red", "kept": "bold yellow"}


@dataclass(frozen=True)
class Vocabulary:
    """Ids as text."""

    tokenizer: FullTokenizer

    @property
    def special(self) -> SpecialTokens:
        return SpecialTokens(self.tokenizer.cls_id, self.tokenizer.sep_id, self.tokenizer.mask_id)

    @property
    def frame_ids(self) -> tuple[int, ...]:
        """Ids that stand for no text."""
        return self.tokenizer.pad_id, self.tokenizer.cls_id, self.tokenizer.sep_id

    def expectation(self, length: int) -> Expectation:
        return Expectation(length, self.tokenizer.vocab_size, self.tokenizer.cls_id, self.tokenizer.sep_id)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The pieces as they can be printed: control and invisible characters escaped, <9000> for an id outside the vocabulary."""
        return [printable(self.tokenizer.inv_vocab.get(int(row), f"<{row}>")) for row in ids]

    def text(self, ids: Sequence[int]) -> str:
        """Pieces put together: 그 ##는 심각 ##합니다 . -> 그는 심각합니다 . (special tokens left out)"""
        pieces = self.pieces([row for row in ids if row not in self.frame_ids])
        if self.tokenizer.tokenizer_type == "sentencepiece":
            return "".join(pieces).replace("\u2581", " ").strip()
        return " ".join(pieces).replace(" ##", "")


def printable(text: str) -> str:
    """Data must not steer a terminal: what is no visible character becomes \\x1b, \\u200b, ..."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class Example(NamedTuple):
    """One record: `number` counts over all shards, `record` in its shard, `features` int64 [3, L] in the order of FEATURES."""

    number: int
    path: str
    record: int
    offset: int
    features: np.ndarray
    flaw: str | None  # what pre-training would take amiss


class Draw(NamedTuple):
    """What masking does to one example: arrays [L], but `slots`, how many positions were drawn (doubled ones twice)."""

    candidate: np.ndarray  # bool
    drawn: np.ndarray  # bool
    ids: np.ndarray  # int32, what the generator reads
    slots: int


def make_console(color: str) -> Console:
    """stdout. Unlike rich's own choice, --color=always also colours a pipe and --color=never leaves out bold type as well."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    auto = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    colored = color == "always" or (color == "auto" and auto)
    width = shutil.get_terminal_size((100, 24)).columns
    return Console(
        color_system="standard" if colored else None, force_terminal=colored, no_color=False, width=width, highlight=False, markup=False
    )


class Cell(NamedTuple):
    """A piece as it is printed, with the sign below it. `width` in columns of the terminal: Hangul takes two a character."""

    segment: str
    piece: str
    sign: str
    style: str
    width: int


GUTTER = 8  # columns for the position of a line's first piece and its segment


class Printer:
    """Prints to `console` what ids of `vocabulary` say."""

    def __init__(self, console: Console, vocabulary: Vocabulary) -> None:
        self._console = console
        self._vocabulary = vocabulary

    def line(self, *parts: str | Text | tuple[str, str]) -> None:
        """Prints parts, plain or (text, style), as one line however long."""
        self._console.print(Text.assemble(*parts), soft_wrap=True)

    def bad(self, message: str) -> None:
        """Prints what is wrong."""
        self.line(("bad: ", "bold red"), printable(message))

    def example(self, example: Example, draw: Draw) -> None:
        """Where it stands, its text, and its pieces with one masking draw."""
        ids, mask, segments = example.features
        length = int(np.flatnonzero(mask).max(initial=-1)) + 1
        place = f"example {example.number}: record {example.record} of {printable(example.path)}, from byte {example.offset}"
        self.line((place, "bold"))
        if example.flaw:
            self.bad(example.flaw)
        parts = {name: ids[:length][(segments[:length] != 0) == (name == "B")] for name in "AB"}
        counts = {name: int((~np.isin(part, self._vocabulary.frame_ids)).sum()) for name, part in parts.items()}
        said = ", ".join(f"{counts[name]} pieces in {name}" for name in "AB" if len(parts[name]))
        self.line(f"length {length} of {len(ids)}, padding {len(ids) - length}; {said or 'nothing'}")
        for name, part in parts.items():
            if len(part):
                text = Text(self._vocabulary.text(part), SEGMENT_STYLES[name])
                text.highlight_words([self._vocabulary.tokenizer.unk_token], UNKNOWN_STYLE)
                self._wrapped(f"  {name}  ", text)
        self.line(self._masking(draw))
        for name, start, cells in self._rows(self._cells(example, draw)[:length]):
            self._pieces(name, start, cells)
        self.line()

    def _masking(self, draw: Draw) -> str:
        drawn = int(draw.drawn.sum())
        masked = int((draw.drawn & (draw.ids == self._vocabulary.special.mask)).sum())
        doubled = f" in {draw.slots} draws" if draw.slots > drawn else ""
        return f"masking: {drawn}{doubled} of {int(draw.candidate.sum())} candidates, {masked} as [MASK] and {drawn - masked} kept"

    def _wrapped(self, label: str, text: Text) -> None:
        """Prints `text` in lines that begin below each other, the first behind `label`."""
        for number, line in enumerate(text.wrap(self._console, max(20, self._console.width - len(label)))):
            line.rstrip()
            self.line(label if number == 0 else " " * len(label), line)

    def _cells(self, example: Example, draw: Draw) -> list[Cell]:
        cells = []
        for position, piece in enumerate(self._vocabulary.pieces(example.features[0])):
            name = "B" if example.features[2][position] else "A"
            sign, style = "", SEGMENT_STYLES[name]
            if draw.drawn[position]:
                sign = "[MASK]" if draw.ids[position] == self._vocabulary.special.mask else "kept"
                style = SIGN_STYLES[sign]
            elif not draw.candidate[position]:
                style = "dim"
            elif example.features[0][position] == self._vocabulary.tokenizer.unk_id:
                style = UNKNOWN_STYLE
            cells.append(Cell(name, piece, sign, style, max(cell_len(piece), cell_len(sign))))
        return cells

    def _rows(self, cells: Sequence[Cell]) -> Iterator[tuple[str, int, Sequence[Cell]]]:
        """Yields (segment, position of the first, cells) for lines that fit the terminal; a segment begins on a new line."""
        start = 0
        while start < len(cells):
            end, used = start + 1, GUTTER + cells[start].width
            while end < len(cells) and cells[end].segment == cells[start].segment and used + 1 + cells[end].width <= self._console.width:
                used += 1 + cells[end].width
                end += 1
            yield cells[start].segment, start, cells[start:end]
            start = end

    def _pieces(self, name: str, start: int, cells: Sequence[Cell]) -> None:
        """Two lines: the pieces, and below those that were drawn what the generator reads there."""
        lines = Text(f"{start:>4} {name}  "), Text(" " * GUTTER)
        for cell in cells:
            for line, part in zip(lines, (cell.piece, cell.sign), strict=True):
                line.append(part, cell.style)
                line.append(" " * (cell.width - cell_len(part) + 1))
        for line in lines:
            line.rstrip()
            if line.plain:
                self.line(line)

    def summary(self, statistics: Statistics, what: str) -> None:
        """Counts, a bar chart of the lengths, and the most frequent pieces."""
        lengths, tokens = statistics.lengths, int(statistics.pieces.sum())
        longest, examples = len(lengths) - 1, statistics.examples
        self.line(("summary", "bold"), f" of {what}: {examples} examples")
        if not examples:
            return
        words = statistics.pieces.copy()
        words[list(self._vocabulary.frame_ids)] = 0
        unknown = words[self._vocabulary.tokenizer.unk_id]
        self.line(f"  tokens      {tokens}, {tokens / examples:.1f} an example; padding {100 - 100 * tokens / examples / longest:.1f} %")
        self.line(f"  segments    two in {100 * statistics.two_segments / examples:.1f} % of the examples")
        self.line(f"  [UNK]       {unknown}, {100 * unknown / max(1, words.sum()):.3f} % of the pieces")
        self.line(f"  vocabulary  {np.count_nonzero(words)} of {len(words)} pieces occur")
        self.line("  lengths")
        self._bars(lengths)
        self.line("  most frequent pieces, in % of all")
        frequent = [row for row in np.argsort(-words, kind="stable")[:FREQUENT] if words[row]]
        self._columns(
            [
                f"{piece} {100 * words[row] / words.sum():.2f}"
                for row, piece in zip(frequent, self._vocabulary.pieces(frequent), strict=True)
            ]
        )

    def _columns(self, cells: Sequence[str]) -> None:
        """Prints `cells` below each other in as many columns as fit."""
        width = max(map(cell_len, cells)) + 3
        columns = max(1, (self._console.width - 4) // width)
        for start in range(0, len(cells), columns):
            row = "".join(cell + " " * (width - cell_len(cell)) for cell in cells[start : start + columns])
            self.line("    ", row.rstrip())

    def _bars(self, lengths: np.ndarray) -> None:
        step = -(-(len(lengths) - 1) // BARS)
        counts = [int(lengths[low : low + step].sum()) for low in range(1, len(lengths), step)]
        for number, count in enumerate(counts):
            low, high = 1 + number * step, min((number + 1) * step, len(lengths) - 1)
            bar = "█" * round(BAR_WIDTH * count / max(counts))
            self.line(f"    {low:>5} to {high:<5} ", (bar, "blue"), f"{' ' if bar else ''}{count}")
