"""Units of work for the data builder: pieces of the corpus that can be made into examples apart, with held-out blocks marked."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pretrain.corpora import cut_units, read_blocks
from pretrain.draws import FOR_HOLDING_OUT, Draws


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
        """Names the unit's file after its place and its text, so that text edited between two runs is noticed."""
        text = "\n".join(line for _, lines in self.parts for line in lines)
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
