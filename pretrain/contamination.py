"""Test texts in the corpus: reads the task files that a model will be tested on, and finds their texts again.

Compared exactly and loosely, that is after NFKC, lower case, and dropping everything but letters and digits. A document is
compared as a whole at any length; its turns, paragraphs and sentences are compared from MIN_LETTERS letters on, since "네" or
"좋아요" as a turn of a dialogue comes from no test set even where one holds it.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from pretrain.text_files import read_lines

MIN_LETTERS = 7
_NOT_COMPARED = re.compile(r"[\W_]+")


def loose(text: str) -> str:
    """Returns what is compared loosely: "Good  영화!!" -> "good영화"."""
    return _NOT_COMPARED.sub("", unicodedata.normalize("NFKC", text).lower())


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()


class Match(NamedTuple):
    """A test text found in the corpus. file: the task file's number; how: "exact" or "loose"."""

    file: int
    how: str


class Excluder:
    """The texts of task files (every column of a tab-separated line that holds a letter), and what to do where they are met."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._exact: dict[bytes, int] = {}
        self._loose: dict[bytes, int] = {}
        for number, path in enumerate(paths):
            for line in read_lines(path):
                for text in filter(_has_letter, map(str.strip, line.split("\t"))):
                    self._exact.setdefault(_key(text), number)
                    self._loose.setdefault(_key(loose(text)), number)

    def find(self, text: str, min_letters: int = 1) -> Match | None:
        """Returns which task file holds `text`, if one does and the text has at least `min_letters` letters and digits."""
        compared = loose(text)
        if len(compared) < min_letters:
            return None
        file = self._loose.get(_key(compared))
        if file is None:
            return None
        exact = self._exact.get(_key(text))
        return Match(file, "loose") if exact is None else Match(exact, "exact")

    def exclude(self, texts: Sequence[str], counts: Counter[Match]) -> list[str]:
        """Returns what stays of a document's texts: nothing when the whole document is a test text. Counts what goes."""
        if not self._loose:
            return list(texts)
        whole = self.find(" ".join(texts))
        if whole is not None:
            counts[whole] += 1
            return []
        return list(texts) if len(texts) == 1 else self.exclude_parts(texts, counts)

    def exclude_parts(self, parts: Sequence[str], counts: Counter[Match]) -> list[str]:
        """Returns the turns, paragraphs or sentences that are no test text. Counts the others."""
        if not self._loose:
            return list(parts)
        matches = [self.find(part, MIN_LETTERS) for part in parts]
        counts.update(match for match in matches if match is not None)
        return [part for part, match in zip(parts, matches, strict=True) if match is None]


def _has_letter(text: str) -> bool:
    return any(map(str.isalpha, text))
