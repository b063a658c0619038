"""What became of the corpora, for a person to look at before a month of training: report.json and report.html.

`TextStatistics` counts the text that was kept, per unit of work, and is added up; `write_report` takes what the pipeline
counted, hides what must not be spread, draws the warnings and writes both files. The page is made in corpus_report_page.py.
"""

import bisect
import copy
import difflib
import functools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from model.command import write_atomically, write_json
from pretrain.cleaning import HAN, HANGUL

FORMAT_VERSION = 1
UNUSUAL_CHARACTERS = 30  # that the report lists
# Lower ends of the bins: 0, 1, 2, 3, 4, 6, 8, 12, 16, 24 ... two for every doubling, up to texts of 25 million characters.
BOUNDS = (0, 1, *(size for power in range(1, 25) for size in (1 << power, 3 << (power - 1))))
SCRIPTS = ("hangul", "jamo", "latin", "digits", "han", "kana", "punctuation", "symbols", "space", "other")
_LETTERS = ("hangul", "jamo", "latin", "han", "kana", "other")

# What the warnings call too much or too little, as shares; and characters: an example of 128 tokens holds about 250.
MIN_KEPT = 0.5
MAX_DUPLICATES = 0.05
MAX_FOREIGN = 0.2
SHORT_DOCUMENT = 96


class TextStatistics:
    """Lengths and characters of the documents that were added."""

    def __init__(self) -> None:
        self._sentence_characters: Counter[int] = Counter()
        self._document_sentences: Counter[int] = Counter()
        self._document_characters: Counter[int] = Counter()
        self._characters: Counter[str] = Counter()
        self._merged = _nothing()

    def add(self, sentences: Sequence[str]) -> None:
        """Adds a document: the sentences that are kept of it."""
        lengths = [len(sentence) for sentence in sentences]
        for length in lengths:
            self._sentence_characters[length] += 1
        self._document_sentences[len(lengths)] += 1
        self._document_characters[sum(lengths)] += 1
        self._characters.update("".join(sentences))

    def merge(self, other: "TextStatistics") -> None:
        """Adds the documents of `other`."""
        _add(self._merged, other.to_json())

    def to_json(self) -> dict[str, Any]:
        """Histograms over BOUNDS, characters by script, and how often each one occurs that a Korean keyboard does not have.

        {"bounds": [0, 1, 2, ...], "sentence_characters": [0, 5, ...], "document_sentences": [...], "document_characters": [...],
         "scripts": {"hangul": 1234, ...}, "unusual": {"U+2665": 12, ...}}, the histograms without the empty bins at the end.
        """
        value = _nothing()
        for name in ("sentence_characters", "document_sentences", "document_characters"):
            value[name] = _histogram(getattr(self, f"_{name}"))
        for char, number in self._characters.items():
            value["scripts"][script(char)] += number
            if _is_unusual(char):
                value["unusual"][f"U+{ord(char):04X}"] = number
        _add(value, self._merged)
        value["unusual"] = dict(sorted(value["unusual"].items(), key=lambda item: (-item[1], item[0])))
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TextStatistics":
        """The other way."""
        statistics = cls()
        _add(statistics._merged, value)
        return statistics


def _nothing() -> dict[str, Any]:
    histograms: dict[str, Any] = {name: [] for name in ("sentence_characters", "document_sentences", "document_characters")}
    return {"bounds": list(BOUNDS), **histograms, "scripts": dict.fromkeys(SCRIPTS, 0), "unusual": {}}


def _add(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, Mapping):
            for key, number in value.items():
                total[name][key] = total[name].get(key, 0) + number
        elif name != "bounds":
            longer, shorter = sorted((total[name], value), key=len, reverse=True)
            total[name] = [number + (shorter[index] if index < len(shorter) else 0) for index, number in enumerate(longer)]


def _histogram(lengths: Mapping[int, int]) -> list[int]:
    bins = Counter[int]()
    for length, number in lengths.items():
        bins[bisect.bisect_right(BOUNDS, length) - 1] += number
    return [bins[index] for index in range(max(bins, default=-1) + 1)]


_SCRIPTS = tuple(
    (name, re.compile(f"[{ranges}]"))
    for name, ranges in (
        ("hangul", "가-힣"),
        ("jamo", HANGUL),
        ("latin", "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a"),
        ("han", HAN),
        ("kana", "\u3041-\u309f\u30a1-\u30ff\u31f0-\u31ff\uff66-\uff9f"),
    )
)
_CATEGORIES = {"N": "digits", "P": "punctuation", "S": "symbols", "Z": "space"}


@functools.lru_cache(1 << 15)
def script(char: str) -> str:
    """Returns the one of SCRIPTS that `char` counts for: 가 -> hangul, ㅋ -> jamo, ★ -> symbols."""
    for name, pattern in _SCRIPTS:
        if pattern.match(char):
            return name
    return "space" if char.isspace() else _CATEGORIES.get(unicodedata.category(char)[0], "other")


def _is_unusual(char: str) -> bool:
    return not (char.isascii() or "가" <= char <= "힣" or "ㄱ" <= char <= "ㅣ")


# ---- what nobody should read


_OPEN = "<>=+~^|`$"  # symbols that, as all punctuation, say nothing of what is around them
# What rules are about: entities, spelled-out characters, the beginning of an address, laughing and crying, masked digits.
_ABOUT = re.compile(r"(&(?:lt|gt|amp|quot|nbsp|#39|#34);?|⟨U\+[0-9A-F]{4,6}⟩|https?://|www\.|[ㅋㅎㅠㅜ]+|0+)")


def mask_example(before: str, after: str) -> tuple[str, str]:
    """Makes a text unreadable and leaves what a rule did to it: ("나쁜 말ㅋㅋㅋㅋ!", "나쁜 말ㅋㅋ!") -> ("○○ ○ㅋㅋㅋㅋ!", "○○ ○ㅋㅋ!").

    In eojeols that stayed as they are everything but punctuation becomes ○, in the others everything but `_ABOUT` as well.
    """
    old, new = before.split(" "), after.split(" ")
    masked: tuple[list[str], list[str]] = ([], [])
    for tag, old_start, old_end, new_start, new_end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        hide = _hide if tag == "equal" else _hide_all_but_the_cause
        masked[0].extend(map(hide, old[old_start:old_end]))
        masked[1].extend(map(hide, new[new_start:new_end]))
    return " ".join(masked[0]), " ".join(masked[1])


def _hide(text: str) -> str:
    return "".join(char if char in _OPEN or unicodedata.category(char)[0] in "PZ" else "○" for char in text)


def _hide_all_but_the_cause(text: str) -> str:
    return "".join(part if index % 2 else _hide(part) for index, part in enumerate(_ABOUT.split(text)))


# ---- the report


def write_report(output_dir: str, report: Mapping[str, Any]) -> None:
    """Writes report.json and report.html into `output_dir`, each whole or not at all.

    report: {"format_version": 1, "settings": {...}, "outputs": [{"file", "bytes", "documents", "sentences", "sha256"}], "corpora":
      {name: {"reader", "group", "moderated", "files": [{"file", "bytes"}],
              "read": {"documents", "texts", "bytes", "replaced_invalid_utf8"}, "rules" and "examples": those of Changes.to_json(),
              "duplicates": {"exact" and "near": {"documents", "bytes"}}, "excluded": {file: {"exact", "loose"}},
              "mixture": {"weight", "dropped_documents"}, "kept": {"documents", "sentences", "bytes"},
              "statistics": that of TextStatistics.to_json()}}}

    What is written has the warnings added, the commonest of the unusual characters only, and masked examples for corpora that
    nobody moderated.
    """
    from pretrain import corpus_report_page  # late: it imports matplotlib, which the processes that only count do without

    shown = copy.deepcopy(dict(report))
    for corpus in shown["corpora"].values():
        unusual = sorted(corpus["statistics"]["unusual"].items(), key=lambda item: (-item[1], item[0]))
        corpus["statistics"]["unusual"] = dict(unusual[:UNUSUAL_CHARACTERS])
        if not corpus["moderated"]:
            corpus["examples"] = {rule: [list(mask_example(*pair)) for pair in pairs] for rule, pairs in corpus["examples"].items()}
    shown["warnings"] = find_warnings(shown)
    write_json(os.path.join(output_dir, "report.json"), shown)
    write_atomically(os.path.join(output_dir, "report.html"), corpus_report_page.render(shown))


def find_warnings(report: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for each thing that a person should act on before training, corpus by corpus."""
    return [f"{name}: {warning}" for name, corpus in report["corpora"].items() for warning in _corpus_warnings(corpus)]


def _corpus_warnings(corpus: Mapping[str, Any]) -> list[str]:
    read, kept, statistics = corpus["read"], corpus["kept"], corpus["statistics"]
    warnings = []
    if not kept["documents"]:
        return ["nothing of it is left; look at the counts below, and at the flags of the rule that dropped most."]
    share = kept["bytes"] / max(1, read["bytes"])
    if share < MIN_KEPT:
        mixed = corpus.get("mixture", {}).get("dropped_documents", 0)
        because = f" ({mixed:,} documents were left out for the mixture)" if mixed else ""
        warnings.append(f"only {share:.0%} of its bytes are left{because}; is that what you want?")
    duplicates = sum(kind["documents"] for kind in corpus.get("duplicates", {}).values()) / max(1, read["documents"])
    if duplicates > MAX_DUPLICATES:
        warnings.append(f"{duplicates:.1%} of its documents were duplicates, and are gone; was a file given twice?")
    excluded = sum(sum(counts.values()) for counts in corpus.get("excluded", {}).values())
    if excluded:
        warnings.append(
            f"{excluded:,} of its texts are also in files of --exclude, and are gone; models trained without --exclude have seen them."
        )
    if read.get("replaced_invalid_utf8"):
        warnings.append(
            f"{read['replaced_invalid_utf8']:,} byte sequences were not UTF-8, and were replaced; was the encoding another one?"
        )
    if median(statistics["document_characters"]) < SHORT_DOCUMENT:
        warnings.append(
            f"half of its documents have fewer than {SHORT_DOCUMENT} characters: as no example spans two documents, most of each will "
            "be padding; build with --noblanks_separate_docs, or with a shorter --max_seq_length."
        )
    letters = sum(statistics["scripts"][name] for name in _LETTERS)
    foreign = 1 - (statistics["scripts"]["hangul"] + statistics["scripts"]["jamo"]) / max(1, letters)
    if foreign > MAX_FOREIGN:
        warnings.append(f"{foreign:.0%} of its letters are not Hangul; raise --min_hangul_share if that is not what you want.")
    return warnings


def median(histogram: Sequence[int]) -> int:
    """Returns the lower end of the bin that holds the median, 0 for no numbers."""
    middle, seen = sum(histogram) / 2, 0
    for bound, number in zip(BOUNDS, histogram, strict=False):
        seen += number
        if number and seen >= middle:
            return bound
    return 0
