"""Text to words: what happens to a sentence before pieces are looked up.

A sentence is cut at spaces into eojeols; each is cleaned (control characters, case, NFC), cut at punctuation and CJK
characters as BERT does it, and each word of it into morphemes:  "심각합니다."  ->  심각 ##합니다 .
Tokenizer and vocabulary builder share this room, so that a vocabulary is made of the words it will meet.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from model import morphemes

# As in google-research/electra, which deletes control characters before it splits at spaces: the control characters that
# Python takes for spaces (\v, \f, U+001C to U+001F, U+0085) join what stands on both sides.
EOJEOL = re.compile("[^\t\n\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_PLAIN = "0-9A-Za-z가-힣ㄱ-ㅎㅏ-ㅣ"
_PLAIN_WORD = re.compile(f"[{_PLAIN}]+")  # nothing to clean, to normalise or to split
# Nothing to clean but case, and every character that is not plain is a word by itself.
_SIMPLE_EOJEOL = re.compile(f"[{_PLAIN}!-/:-@\\[-`{{-~]+")
_SIMPLE_WORD = re.compile(f"[{_PLAIN}]+|[^{_PLAIN}]")
_SPACES = "\t\n\r\u2028\u2029"


class NormalizedText(NamedTuple):
    """Cleaned text; spans[i] = (start, end) of its character i in the original, or None where nothing was moved."""

    text: str
    spans: list[tuple[int, int]] | None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Returns where text[start:end] stands in the original. Needs start < end."""
        return (start, end) if self.spans is None else (self.spans[start][0], self.spans[end - 1][1])


class WordSplitter:
    """What happens to text before pieces are looked up; the vocabulary builder counts words that went the same way."""

    def __init__(self, do_lower_case: bool = False, strip_accents: bool = False, analyzer: str = "none"):
        self.do_lower_case = do_lower_case
        self.strip_accents = strip_accents
        self.analyzer = morphemes.MorphemeAnalyzer(analyzer)

    def normalize(self, text: str) -> NormalizedText:
        """Deletes control characters and lone surrogates, makes every space U+0020, lower-cases if asked, and returns NFC.

        Unlike google-research/electra, whose lower-casing left Hangul as single jamo (NFD).
        """
        # Printable text holds nothing to delete and no space but U+0020; most eojeols end here.
        if text.isprintable() and "\ufffd" not in text and not self.strip_accents and unicodedata.is_normalized("NFC", text):
            lowered = text.lower() if self.do_lower_case else text
            if len(lowered) == len(text) and (lowered.isascii() or unicodedata.is_normalized("NFC", lowered)):
                return NormalizedText(lowered, None)
        kept = [index for index, char in enumerate(text) if not _is_dropped(char)]
        clean = "".join([" " if _is_space(text[index]) else text[index] for index in kept])
        if self.do_lower_case:
            lowered = clean.lower()
            if len(lowered) != len(clean):  # İ becomes two characters
                kept = [index for index, char in zip(kept, clean, strict=True) for _ in char.lower()]
            clean = lowered
        return _compose(clean, kept, self.strip_accents, len(text))

    def split(self, text: str) -> list[tuple[int, tuple[str, ...]]]:
        """Cuts a normalised eojeol into words and these into morphemes: "심각합니다." -> [(0, ("심각", "합니다")), (5, (".",))].

        The number is where the word begins in `text`. Raises UserError when the analyser cannot be started.
        """
        return [(start, self.analyzer.morphs(text[start:end])) for start, end in _word_spans(text)]

    def words(self, eojeol: str) -> list[str]:
        """Returns the words of an eojeol, cleaned: "심각합니다." -> 심각합니다 . (without their places, three times as fast)."""
        if _PLAIN_WORD.fullmatch(eojeol):
            return [eojeol.lower() if self.do_lower_case else eojeol]
        if _SIMPLE_EOJEOL.fullmatch(eojeol):
            return _SIMPLE_WORD.findall(eojeol.lower() if self.do_lower_case else eojeol)
        text = self.normalize(eojeol).text
        return [text[start:end] for start, end in _word_spans(text)]

    def marked_words(self, eojeol: str) -> list[str]:
        """Returns the morphemes of an eojeol, the later ones of each word marked: "심각합니다." -> 심각 ##합니다 ."""
        return [morph for word in self.words(eojeol) for morph in mark(self.analyzer.morphs(word))]


def has_half_pair(text: str) -> bool:
    """Whether `text` holds half of a surrogate pair, which is no character and cannot be written as UTF-8."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def mark(morphs: Sequence[str]) -> Sequence[str]:
    """Marks the later morphemes of a word: ("심각", "합니다") -> ["심각", "##합니다"]."""
    return [morphs[0], *["##" + morph for morph in morphs[1:]]] if len(morphs) > 1 else morphs


def find_eojeols(text: str) -> list[str]:
    """Returns the eojeols of `text`. In printable text the only space is U+0020, and there str.split does it at once."""
    return text.split() if text.isprintable() else EOJEOL.findall(text)


def _compose(clean: str, kept: list[int], strip_accents: bool, original_length: int) -> NormalizedText:
    """NFC of `clean`, whose character i was character kept[i] of the original; strips accents on the way."""
    unmoved = kept == list(range(original_length))
    if unmoved and not strip_accents and unicodedata.is_normalized("NFC", clean):
        return NormalizedText(clean, None)
    chars: list[str] = []
    spans: list[tuple[int, int]] = []
    starts = [index for index, char in enumerate(clean) if index == 0 or _begins_anew(char)]
    for start, end in itertools.pairwise([*starts, len(clean)]):
        group = clean[start:end]
        composed = unicodedata.normalize("NFC", _without_marks(group) if strip_accents else group)
        if composed == group:
            spans += [(index, index + 1) for index in kept[start:end]]
        else:
            spans += [(kept[start], kept[end - 1] + 1)] * len(composed)
        chars.append(composed)
    return NormalizedText("".join(chars), spans)


def _without_marks(text: str) -> str:
    """Drops combining marks; jamo are letters, so NFC puts Hangul together again."""
    return "".join(char for char in unicodedata.normalize("NFD", text) if unicodedata.category(char) != "Mn")


@functools.lru_cache(1 << 14)
def _begins_anew(char: str) -> bool:
    """Whether no character before `char` can combine with it: there, NFC may be taken of both sides separately."""
    first = unicodedata.normalize("NFD", char)[0]
    return not unicodedata.combining(first) and first not in _second_characters()


@functools.cache
def _second_characters() -> frozenset[str]:
    """Characters that join the one before them: the right halves of Unicode's pairs, and Hangul's vowels and final consonants."""
    pairs = (unicodedata.decomposition(chr(code)).split() for code in range(0x20000))
    seconds = {chr(int(pair[1], 16)) for pair in pairs if len(pair) == 2 and not pair[0].startswith("<")}
    return frozenset(seconds | {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))})


def _word_spans(text: str) -> list[tuple[int, int]]:
    """Cuts at punctuation and CJK characters, each a word of its own (as BERT's BasicTokenizer)."""
    if _PLAIN_WORD.fullmatch(text):
        return [(0, len(text))]
    spans = []
    start = 0
    for index, char in enumerate(text):
        if is_split_off(char):
            if start < index:
                spans.append((start, index))
            if char != " ":
                spans.append((index, index + 1))
            start = index + 1
    if start < len(text):
        spans.append((start, len(text)))
    return spans


@functools.lru_cache(1 << 14)
def is_split_off(char: str) -> bool:
    """Whether `char` is a space or stands alone as a word: punctuation, ASCII symbols included, and CJK ideographs (not Hangul)."""
    code = ord(char)
    ascii_symbol = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return char == " " or ascii_symbol or unicodedata.category(char).startswith("P") or any(a <= code <= b for a, b in CJK_RANGES)


# The ranges of BERT's BasicTokenizer.
CJK_RANGES = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


@functools.lru_cache(1 << 14)
def _is_dropped(char: str) -> bool:
    """Control and format characters (among them zero-width ones), lone surrogates, and the mark of undecodable bytes."""
    return char == "\ufffd" or (unicodedata.category(char) in ("Cc", "Cf", "Cs") and char not in _SPACES)


@functools.lru_cache(1 << 14)
def _is_space(char: str) -> bool:
    return char in _SPACES or unicodedata.category(char) == "Zs"
