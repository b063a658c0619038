"""From text files to documents, blocks and units of work for the data builder: pieces of the corpus that can be made into
examples apart, with held-out blocks marked.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pretrain.draws import FOR_HOLDING_OUT, Draws
from pretrain.text_files import read_lines

BLOCK_BYTES = 1 << 13  # keeps an article or a conversation whole, and still lets a one-document corpus give up a small part
UNIT_BYTES = 1 << 19  # about a second of tokenizing: what a kill loses; and enough of them for every process


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


def hold_out(fraction: float, seed: int) -> Iterator[bool]:
    """Says for block 0, 1, 2, ... of the corpus whether it is held out: one of every 1 / `fraction` blocks, at a random place.

    Stratified rather than independent draws, so that a corpus of a few hundred blocks gets its share too.
    """
    draws = Draws(seed, FOR_HOLDING_OUT)
    stratum = 0
    chosen = int(draws.uniform() / fraction) if fraction else -1
    block = 0
    while True:
        yield block == chosen
        while fraction and chosen <= block:
            stratum += 1
            chosen = int((stratum + draws.uniform()) / fraction)
        block += 1


class Unit(NamedTuple):
    """A unit of work. parts: (held out?, lines) of consecutive blocks with the same fate; an empty line ends a document."""

    number: int
    parts: list[tuple[bool, list[str]]]
    size: int
    documents: int
    lines: int

    @property
    def name(self) -> str:
        """Names the unit's file after its place, its text and what of it is held out, so that an edit between two runs is noticed."""
        text = "\n".join(line for held_out, lines in self.parts for line in (str(held_out), *lines))
        return f"unit-{self.number:07d}-{hashlib.sha256(text.encode('utf-8')).hexdigest()[:16]}"


def read_units(files: Sequence[str], blanks_separate_docs: bool, eval_fraction: float, seed: int) -> Iterator[Unit]:
    """Cuts the corpus into units and decides which of their blocks are held out."""
    held_out = hold_out(eval_fraction, seed)
    for number, blocks in enumerate(cut_units(read_blocks(files, blanks_separate_docs))):
        parts: list[tuple[bool, list[str]]] = []
        for block, fate in zip(blocks, held_out, strict=False):
            if not parts or parts[-1][0] != fate:
                parts.append((fate, []))
            parts[-1][1].extend(block.lines + [""] * block.ends_document)
        size = sum(block.size for block in blocks)
        yield Unit(number, parts, size, sum(block.ends_document for block in blocks), sum(len(block.lines) for block in blocks))
