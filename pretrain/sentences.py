"""One clean text to its sentences: "정말요? 네, 3.5점이에요. 좋아요!" -> ["정말요?", "네, 3.5점이에요.", "좋아요!"].

Nothing is lost but spaces, whatever the splitter: the sentences one after the other are the text.
"""

import functools
import importlib.util
import re
from collections.abc import Callable
from typing import Any

from model.command import UserError

SPLITTERS = ("regex", "kiwi", "none")
KIWI_CHARACTERS = 4096  # kiwi's time and memory grow with the length of what it gets; longer pieces stay as they are

# What ends a sentence, with the quotes and brackets that close behind it, and a space; a new line always ends one.
_END = re.compile("(?<=[.!?…。！？])[\"'”’」』)\\]》〉]{0,4}[ \t]+|\n")
_NO_END = re.compile(
    "(?:"
    "[0-9]\\."  # 2024. 5. 3.
    "|(?<![A-Za-z])[A-Za-z]\\."  # U. S., J. Kim
    "|(?<![A-Za-z])(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|vs|No|Vol|vol|pp|cf|Fig|Prof|Co|Ltd|Inc)\\."
    "|^\\(?[가나다라마바사아자차카타파하]\\."  # 가. 목적  나. 방법: at the beginning, elsewhere it is a verb
    ")$"
)
_QUOTED = re.compile("이?라[고는며]|하[고는며였]|[고는] ")  # "갈까?" 하고 물었다: the sentence goes on


def make_sentence_splitter(kind: str) -> Callable[[str], list[str]]:
    """Returns a function from a text to its sentences, fit for other processes.

    kind: "regex" cuts behind sentence-final punctuation; "kiwi" also finds endings without any, at a hundredth of the speed;
    "none" cuts at new lines only.
    Raises UserError for another kind, and for "kiwi" without kiwipiepy.
    """
    if kind not in SPLITTERS:
        raise UserError(f"unknown sentence splitter {kind!r}: known are {', '.join(SPLITTERS)} (--sentence_splitter)")
    if kind == "kiwi" and importlib.util.find_spec("kiwipiepy") is None:
        raise UserError("--sentence_splitter=kiwi needs kiwipiepy: pip install '.[sentences]', or take regex")
    return {"regex": split_by_regex, "kiwi": split_by_kiwi, "none": split_lines}[kind]


def split_lines(text: str) -> list[str]:
    """Returns the lines that are not blank."""
    return [line for line in map(str.strip, text.split("\n")) if line]


def split_by_regex(text: str) -> list[str]:
    """Cuts where `_END` says so, except behind numbers, abbreviations and list marks, and before "하고 물었다"."""
    sentences = []
    start = 0
    for match in _END.finditer(text):
        if "\n" in match.group() or _is_end(text, start, match):
            sentences.append(text[start : match.end()])
            start = match.end()
    sentences.append(text[start:])
    return [sentence for sentence in map(str.strip, sentences) if sentence]


def _is_end(text: str, start: int, match: re.Match[str]) -> bool:
    # The last eojeol decides; 16 characters hold all that _NO_END knows.
    if _NO_END.search(text[max(start, match.start() - 16) : match.start()]):
        return False
    closed = match.group().strip()
    return not (closed and _QUOTED.match(text, match.end()))


def split_by_kiwi(text: str) -> list[str]:
    """Cuts as kiwipiepy does, line by line; a line too long for it is cut by `split_by_regex` first."""
    sentences = []
    for line in split_lines(text):
        pieces = [line] if len(line) <= KIWI_CHARACTERS else split_by_regex(line)
        for piece in pieces:
            sentences += _kiwi_sentences(piece) if len(piece) <= KIWI_CHARACTERS else [piece]
    return sentences


def _kiwi_sentences(text: str) -> list[str]:
    starts = [sentence.start for sentence in _kiwi().split_into_sents(text, return_sub_sents=False)]
    cuts = [0, *starts[1:], len(text)]
    return [sentence for sentence in (text[start:end].strip() for start, end in zip(cuts, cuts[1:], strict=False)) if sentence]


@functools.cache
def _kiwi() -> Any:
    """Made once in every process that splits: it holds some hundred megabytes, and does not pickle."""
    from kiwipiepy import Kiwi

    return Kiwi(num_workers=1)
