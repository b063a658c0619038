"""Raw text to clean text: rules with names, each a function from str to str, applied in the order of RULES.

"한국(韓國)은&nbsp;&lt;010-1234-5678&gt;  좋아요ㅋㅋㅋㅋㅋ"  ->  "한국(韓國)은 <000-0000-0000> 좋아요ㅋㅋ"

Nothing here reads a file or knows a document: readers hand over one text after the other (a line, an utterance, a paragraph),
and what is left of it, "" for nothing, goes on to the sentence splitter. `Changes` counts what every rule did, for the report.
"""

import dataclasses
import functools
import html
import re
import unicodedata
from collections.abc import Callable
from html.entities import html5
from typing import Any, NamedTuple

from model.command import UserError
from model.hparams import option

EXAMPLES_PER_RULE = 3
EXAMPLE_CHARACTERS = 160  # of either side of an example: more is cut off
_CONTEXT = 40  # characters that an example shows in front of the change

# Written as numbers where an editor might normalise the character: U+F900 in NFC is U+8C48, and the range would hold all syllables.
HANGUL = "가-힣ㄱ-ㆎ\u1100-\u11ff\ua960-\ua97c\ud7b0-\ud7fb"
HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u2e80-\u2fd5\U00020000-\U000323af"


@dataclasses.dataclass(frozen=True)
class CleaningConfig:
    """How text is cleaned; every field is a flag of preprocess.py."""

    skip_rules: str = option("", "cleaning rules to leave out, separated by commas: html_entities,repeats")
    urls: str = option("drop", "addresses of web pages and e-mail", ("drop", "keep"))
    personal_data: str = option("mask", "digits of phone and resident registration numbers become 0, or are kept", ("mask", "keep"))
    hanja: str = option("keep", "Chinese characters; glosses: drop those of 한국(韓國), keep the rest", ("keep", "drop", "glosses"))
    min_chars: int = option(1, "a text with fewer characters is dropped")
    # A tenth tells a Korean sentence about an English song from English; from a fifth on, such sentences are what it drops.
    min_hangul_share: float = option(0.1, "a text is dropped whose letters are Hangul to a smaller share; one without letters has 0")


# ---- the rules


# The ; may be missing after the names that escaped markup leaves behind (NSMC: "&lt닥터노&gt보다"), but not in a=1&lt=2.
_ENTITY = re.compile(r"&(?:#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};|[A-Za-z][A-Za-z0-9]{1,31};|(?:lt|gt|quot|amp|nbsp)(?![A-Za-z0-9=]))")


_AMPERSANDS = re.compile("&(?:amp;)+")  # what was escaped many times over, in one go


def unescape_html(text: str) -> str:
    """Decodes "&lt;영화&gt; R&amp;amp;D" -> "<영화> R&D"; "&copy=1", as it stands in addresses, is left alone."""
    while "&" in text:
        unescaped = _ENTITY.sub(_unescaped, _AMPERSANDS.sub("&", text))
        if unescaped == text:
            break
        text = unescaped
    return text


def _unescaped(match: re.Match[str]) -> str:
    entity = match.group()
    # Asked for a name it does not know, html.unescape would take a known beginning: &notit; -> ¬it;
    known = entity[1] == "#" or entity[1:] in html5 or not entity.endswith(";")
    return html.unescape(entity if entity.endswith(";") else f"{entity};") if known else entity


_SURROGATES = "\ud800-\udfff"
# Control characters but those that are spaces; Unicode's default ignorable code points (zero-width and soft hyphen, marks of
# direction, joiners, variation selectors); private use; what stands for undecodable bytes; noncharacters.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\ue000-\uf8ff\U000f0000-\U0010ffff\ufdd0-\ufdef\ufff0-\ufffd\ufffe\uffff" + _SURROGATES + "]+"
)
_SURROGATE = re.compile(f"[{_SURROGATES}]+")


def remove_invisible(text: str) -> str:
    """Drops what nobody sees: "가\\u200b나\\ufeff" -> "가나".

    Joined emoji fall into their parts (a family into father, mother and child): the tokenizer would cut them there anyway.
    """
    return _INVISIBLE.sub("", text)


def remove_surrogates(text: str) -> str:
    """Drops halves of character pairs, which broken JSON holds: no UTF-8 file can."""
    return _SURROGATE.sub("", text)


def compose(text: str) -> str:
    """Gives NFC: conjoining jamo become syllables, compatibility ideographs the usual ones."""
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


# Hangul and braille have blanks that look like a space, and are none to Unicode.
_BLANKS = str.maketrans("\u3164\uffa0\u2800", "   ")
_BLANK = re.compile("[\u3164\uffa0\u2800]")


def squeeze_spaces(text: str) -> str:
    """Makes every run of spaces one: " 안녕\\u3000\\t하세요\\n" -> "안녕 하세요"."""
    if _BLANK.search(text):
        text = text.translate(_BLANKS)
    return " ".join(text.split())


_IN_URL = r"[!#$%&*+,\-./0-9:;=?@A-Z_a-z~|]"
_URL_END = r"[#$%&+\-/0-9=@A-Z_a-z~|]"  # the full stop behind an address belongs to the sentence
_PATH = rf"(?:{_IN_URL}|\({_IN_URL}{{0,200}}\))*(?:{_URL_END}|(?<=\)))"
_HOST = r"(?<![A-Za-z0-9@.\-])(?:[A-Za-z0-9\-]{1,63}\.){1,5}(?:com|net|org|kr|jp|co|tv|me|be|io|gl|ly|info|to|us|gg)"
_E_MAIL = r"(?<![A-Za-z0-9_%+\-])[A-Za-z0-9][A-Za-z0-9._%+\-]{0,63}@(?:[A-Za-z0-9\-]{1,63}\.){1,5}[A-Za-z]{2,24}"
_ADDRESS = rf"(?:{_E_MAIL}|(?<![A-Za-z0-9])(?:(?:https?|ftp)://|www\.){_PATH}|{_HOST}/(?:{_PATH})?)"
_ADDRESSES = re.compile(rf"[(\[<] ?{_ADDRESS} ?[)\]>]|{_ADDRESS}")


def drop_urls(text: str) -> str:
    """Drops addresses: "여기 (http://a.kr/b) 봐요. 문의 a@b.kr" -> "여기 봐요. 문의".

    A bare naver.com is a word of its sentence and stays.
    """
    if "/" not in text and "@" not in text and "www." not in text:
        return text
    return _without(_ADDRESSES, text)


_DASH = "[-\u2010-\u2015\uff0dㅡ]"
_GAP = rf"(?: ?{_DASH} ?|[. ])?"
_MOBILE = r"(?:(?:\+|00)?82[-. ]?(?:\(0\))?0?|0)1[016789]"
_AREA = r"(?:(?:\+|00)82[-. ]?(?:\(0\))?0?|\(?0)(?:2|[3-6][1-5]|[678]0|50[2-8])\)?"
_SERVICE = rf"(1(?:5(?:22|33|44|66|77|88|99)|6(?:00|11|44|55|61|66|68|70|88|99)|8(?:00|11|33|44|55|66|77|88|99))){_DASH}([0-9]{{4}})"
_RESIDENT = rf"[0-9]{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?: ?{_DASH} ?| )?[1-8](?:[0-9]{{6}}|[*xX●]{{6}})"
_PERSONAL = re.compile(
    rf"(?<![0-9])(?<![0-9][-.,])(?:(?:{_MOBILE}|{_AREA}){_GAP}[0-9]{{3,4}}{_GAP}[0-9]{{4}}|{_SERVICE}|{_RESIDENT})(?![0-9]|-[0-9])"
)
_FOUR_DIGITS = re.compile("[0-9]{4}")
_DIGIT = re.compile("[0-9]")


def mask_personal_data(text: str) -> str:
    """Masks "010-1234-5678, 900101-1234567" -> "000-0000-0000, 000000-0000000"; dates, years, prices and scores stay."""
    return _PERSONAL.sub(_masked, text) if _FOUR_DIGITS.search(text) else text


def _masked(match: re.Match[str]) -> str:
    first, second = match.group(1, 2)
    if first and first < second and (second <= "2400" or second.endswith("00")):
        return match.group()  # 1544-1611 are years, 1800-2100 hours, 1600-2500 a range of numbers; 1588-1234 is nothing of these
    return _DIGIT.sub("0", match.group())


_GLOSS = re.compile(rf"(?<=[가-힣]) ?[(（\[][{HAN}][{HAN} ,·・、]*[)）\]]")
_READING = re.compile(rf"[{HAN}]+ ?[(（\[]([가-힣 ]+)[)）\]]")
_HAN_RUN = re.compile(f"[{HAN}]+")


def drop_hanja_glosses(text: str) -> str:
    """Drops readings in brackets: "한국(韓國)과 美 대통령" -> "한국과 美 대통령"."""
    return _GLOSS.sub("", text)


def drop_hanja(text: str) -> str:
    """Drops all of it: "한국(韓國)과 美 대통령, 大選(대선)" -> "한국과 대통령, 대선"."""
    if not _HAN_RUN.search(text):
        return text
    return _without(_HAN_RUN, _READING.sub(r"\1", drop_hanja_glosses(text)))


_REPEATS = re.compile(r"([^0-9A-Za-z가-힣])\1{2,}")


def shorten_repeats(text: str) -> str:
    """Shortens "와ㅋㅋㅋㅋ 10000원!!!!" -> "와ㅋㅋ 10000원!!": the reference's rule, which keeps numbers, Latin letters and syllables."""
    return _REPEATS.sub(r"\1\1", text)


def drop_short(text: str, min_chars: int) -> str:
    """Drops a text of fewer than `min_chars` characters."""
    return text if len(text) >= min_chars else ""


_OTHER_LETTER = re.compile(rf"[^\W\d_{HANGUL}]")
_HANGUL_RUN = re.compile(f"[{HANGUL}]+")


def drop_foreign(text: str, min_hangul_share: float) -> str:
    """Drops a text whose letters are Hangul, jamo included, to a smaller share: "It's OK 굿" holds 1 of 6."""
    if not _HANGUL_RUN.search(text):
        return ""
    others = len(_OTHER_LETTER.findall(text))
    if not others:
        return text
    hangul = sum(map(len, _HANGUL_RUN.findall(text)))
    return text if hangul >= min_hangul_share * (hangul + others) else ""


def _without(pattern: re.Pattern[str], text: str) -> str:
    """Takes the matches out, and the doubled spaces they leave."""
    rest = pattern.sub(" ", text)
    return " ".join(rest.split()) if rest != text else text


class Rule(NamedTuple):
    """A line of RULES. `function` gives the rule as the configuration wants it, None for one that would do nothing."""

    name: str
    description: str
    function: Callable[[CleaningConfig], Callable[[str], str] | None]


# First what turns codes into characters, then the characters themselves, so that later rules see text as a reader does: a phone
# number may be spelled with &#45; or a zero-width space inside. Invisible characters go before NFC, as one between two jamo
# keeps them apart, and addresses before personal data, since their numbers look like phone numbers. Repeats come after what
# brings equal characters together, and what judges a text comes last.
RULES = (
    Rule("html_entities", "HTML entities become characters, doubly escaped ones too", lambda config: unescape_html),
    Rule("invisible", "control, zero-width, direction and private-use characters and U+FFFD go", lambda config: remove_invisible),
    Rule("nfc", "Unicode normal form C", lambda config: compose),
    Rule("whitespace", "spaces of any kind and number become one, none at the ends", lambda config: squeeze_spaces),
    Rule("urls", "addresses of web pages and e-mail go", lambda config: drop_urls if config.urls == "drop" else None),
    Rule(
        "personal_data",
        "digits of Korean phone and resident registration numbers become 0",
        lambda config: mask_personal_data if config.personal_data == "mask" else None,
    ),
    Rule(
        "hanja",
        "Chinese characters go (drop), or those in brackets after their reading (glosses)",
        lambda config: {"drop": drop_hanja, "glosses": drop_hanja_glosses}.get(config.hanja),
    ),
    Rule("repeats", "runs of three and more of one character become two; digits, letters, syllables stay", lambda config: shorten_repeats),
    Rule(
        "min_chars",
        "texts with too few characters are dropped",
        lambda config: functools.partial(drop_short, min_chars=config.min_chars) if config.min_chars > 1 else None,
    ),
    Rule(
        "min_hangul_share",
        "texts with too little Hangul among their letters are dropped",
        lambda config: functools.partial(drop_foreign, min_hangul_share=config.min_hangul_share) if config.min_hangul_share > 0 else None,
    ),
)


# ---- all rules together


class Cleaner:
    """The rules that `config` asks for. Raises UserError for an unknown rule and for limits that make no sense."""

    def __init__(self, config: CleaningConfig) -> None:
        _check(config)
        skipped = _names(config.skip_rules)
        functions = [(rule.name, None if rule.name in skipped else rule.function(config)) for rule in RULES]
        self._rules = [(name, function) for name, function in functions if function is not None]
        if "invisible" in skipped:
            self._rules.insert(0, ("invisible", remove_surrogates))  # what no output file could hold goes in any case

    def clean(self, text: str, changes: "Changes") -> str:
        """Returns what is left of `text`, "" for nothing, and counts in `changes` what was done to it.

        The rules are applied until none finds anything, so that clean text stays as it is: clean(clean(text)) == clean(text).
        That ends, because every rule shortens the text or brings it nearer to a normal form; for nearly all texts the second
        round is the last.
        """
        done: list[str] = []
        before = None
        while text and text != before:
            before = text
            for name, rule in self._rules:
                cleaned = rule(text)
                if cleaned != text:
                    changes.record(name, text, cleaned, again=name in done)
                    done.append(name)
                    text = cleaned
                    if not text:
                        break
        return text


def _names(skip_rules: str) -> list[str]:
    return [name.strip() for name in skip_rules.split(",") if name.strip()]


def _check(config: CleaningConfig) -> None:
    known = [rule.name for rule in RULES]
    for name in _names(config.skip_rules):
        if name not in known:
            raise UserError(f"unknown cleaning rule {name!r}: known are {', '.join(known)} (--skip_rules)")
    if config.min_chars < 1:
        raise UserError(f"min_chars must be 1 or more, got {config.min_chars} (--min_chars)")
    if not 0 <= config.min_hangul_share <= 1:
        raise UserError(f"min_hangul_share must be from 0 to 1, got {config.min_hangul_share} (--min_hangul_share)")


class Changes:
    """What every rule did to a number of texts; those of several processes are added up in the order of the corpus."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}
        self._examples: dict[str, list[list[str]]] = {}

    def record(self, rule: str, before: str, after: str, again: bool = False) -> None:
        """Counts one change; `again`: the rule has changed this text before."""
        counts = self._counts.setdefault(rule, {"texts": 0, "dropped": 0, "characters": 0})
        counts["texts"] += not again
        counts["dropped"] += not after
        counts["characters"] += len(before) - len(after)
        if len(self._examples.setdefault(rule, [])) < EXAMPLES_PER_RULE:
            self._add_examples(rule, [_example(before, after)])

    def merge(self, other: "Changes") -> None:
        """Adds what was counted in texts that come later."""
        for rule, counts in other._counts.items():
            mine = self._counts.setdefault(rule, dict.fromkeys(counts, 0))
            mine.update({name: mine[name] + number for name, number in counts.items()})
        for rule, examples in other._examples.items():
            self._add_examples(rule, examples)

    def _add_examples(self, rule: str, examples: list[list[str]]) -> None:
        mine = self._examples.setdefault(rule, [])
        mine += [pair for pair in examples if pair not in mine][: EXAMPLES_PER_RULE - len(mine)]

    def to_json(self) -> dict[str, Any]:
        """{"rules": {"nfc": {"texts": 2, "dropped": 0, "characters": 5}}, "examples": {"nfc": [["before", "after"]]}}

        texts: changed or dropped by the rule; dropped: those of which nothing was left; characters: how many fewer there are.
        Rules come in the order in which they are applied. The examples are fit to be stored: see `_example`.
        """
        names = [rule.name for rule in RULES if rule.name in self._counts]  # in an order that does not depend on the texts
        return {
            "rules": {name: dict(self._counts[name]) for name in names},
            "examples": {name: [list(pair) for pair in self._examples[name]] for name in names},
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Changes":
        """The other way."""
        changes = cls()
        changes._counts = {rule: dict(counts) for rule, counts in value["rules"].items()}
        changes._examples = {rule: [list(pair) for pair in examples] for rule, examples in value["examples"].items()}
        return changes


_LONG_NUMBER = re.compile("[0-9]{3,}")
_NOT_ZERO = re.compile("[1-9]")
_MAILBOX = re.compile(r"[A-Za-z0-9._%+\-]{1,64}(?=@)")


def _example(before: str, after: str) -> list[str]:
    """The two sides around the first change, with characters that cannot be seen spelled out as ⟨U+200B⟩.

    Numbers of three digits or more lose all but their zeros, and mail addresses their names: no report may spread what
    personal_data takes out of the text, in whatever form it stood there.
    """
    same = 0
    while same < min(len(before), len(after)) and before[same] == after[same]:
        same += 1
    start = max(0, same - _CONTEXT) if after else 0
    return [_shown(side, start) for side in (before, after)]


def _shown(text: str, start: int) -> str:
    end = start + EXAMPLE_CHARACTERS
    piece = _LONG_NUMBER.sub(lambda match: _NOT_ZERO.sub("#", match.group()), text[start:end])
    piece = _MAILBOX.sub("###", piece)
    piece = "".join(char if _is_visible(char) else f"⟨U+{ord(char):04X}⟩" for char in piece)
    return ("…" if start else "") + piece + ("…" if end < len(text) else "")


def _is_visible(char: str) -> bool:
    return char == " " or (char.isprintable() and not _INVISIBLE.match(char) and not _BLANK.match(char))
