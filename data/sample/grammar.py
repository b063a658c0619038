"""Korean inflection for the sample generator: particles after nouns, endings on verbs and adjectives, and line templates.

`f"{Noun('영화'):은}"` is 영화는 and `f"{Predicate('덥다', ADJECTIVE):었어요}"` is 더웠어요, so a template is an ordinary format
string. Endings are named by the form they take after a closed syllable with a dark vowel: 은 을 이 과 으로, 어요 었다 으면 습니다 는다.
"""

import random
import re
from collections.abc import Mapping

VERB, ADJECTIVE, COPULA = "v", "a", "c"
REGISTERS = {"polite": "어요", "formal": "습니다", "plain": "는다", "casual": "어", "nominal": "음"}  # name -> closing ending

_SYLLABLES = 0xAC00  # 가
_MEDIALS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
_FINALS = ["", *"ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"]
_OPEN_FORMS = {"은": "는", "을": "를", "이": "가", "과": "와"}
# Stem vowel + 어 -> the vowel they merge into; a stem vowel that is not here keeps 어 or 아 as a syllable of its own (쉬어).
_MERGED = {"ㅏ": "ㅏ", "ㅓ": "ㅓ", "ㅐ": "ㅐ", "ㅔ": "ㅔ", "ㅕ": "ㅕ", "ㅗ": "ㅘ", "ㅜ": "ㅝ", "ㅣ": "ㅕ", "ㅚ": "ㅙ", "ㅡ": "ㅓ"}
_BRIGHT = "ㅏㅑㅗ"
_REGULAR_BIEUP = tuple("입잡뽑좁씹접")  # every other stem in ㅂ turns it into 우 before a vowel
_IRREGULAR_DIGEUT = tuple("듣걷닫싣")  # only 깨닫다 is meant by 닫
_IRREGULAR_SIOT = tuple("낫짓붓잇")
_COPULA_FORMS = {"어요": "이에요", "어": "이야", "어서": "이라서", "는다": "이다", "습니다": "입니다", "음": "임"}


def _split(syllable: str) -> tuple[int, str, str]:
    """A Hangul syllable as (number of its initial, medial vowel, final consonant or '')."""
    index = ord(syllable) - _SYLLABLES
    return index // 588, _MEDIALS[index % 588 // 28], _FINALS[index % 28]


def _join(initial: int, medial: str, final: str = "") -> str:
    return chr(_SYLLABLES + initial * 588 + _MEDIALS.index(medial) * 28 + _FINALS.index(final))


def _with_final(text: str, final: str) -> str:
    """`text` with the final consonant of its last syllable replaced."""
    initial, medial, _ = _split(text[-1])
    return text[:-1] + _join(initial, medial, final)


def attach(noun: str, particle: str) -> str:
    """Appends a particle or a form of 이다 in the shape that fits the last syllable: 책은, 영화는, 서울로, 최고예요, 최고였다."""
    final = _split(noun[-1])[2]
    if particle.startswith("으로"):
        return noun + (particle if final not in ("", "ㄹ") else particle[1:])
    if final:
        return noun + particle
    if particle in _OPEN_FORMS:
        return noun + _OPEN_FORMS[particle]
    for closed, opened in (("이에요", "예요"), ("이었", "였"), ("이", "")):
        if particle.startswith(closed):
            return noun + opened + particle[len(closed) :]
    return noun + particle


class Noun(str):
    """A noun whose format spec is a particle: f"{Noun('책'):을}" is 책을."""

    def __format__(self, particle: str) -> str:
        return attach(self, particle) if particle else str(self)


class Predicate:
    """A verb, adjective or noun + 이다 in its dictionary form, whose format spec is an ending."""

    def __init__(self, dictionary_form: str, kind: str) -> None:
        self.dictionary_form, self.kind = dictionary_form, kind
        self.stem = dictionary_form.removesuffix("이다" if kind == COPULA else "다")

    def __format__(self, ending: str) -> str:
        return self._copula(ending) if self.kind == COPULA else self._conjugate(ending)

    def negated(self) -> "Predicate":
        """The long negation, itself a predicate: 지루하지 않다."""
        return Predicate(f"{self:지} 않다", ADJECTIVE if self.kind == COPULA else self.kind)

    def _copula(self, ending: str) -> str:
        if ending in _COPULA_FORMS:
            return attach(self.stem, _COPULA_FORMS[ending])
        if ending.startswith(("는다", "는대")):  # reported speech: 최고라는, 최고래요
            return attach(self.stem, ("이라" if ending[1] == "다" else "이래") + ending[2:])
        if ending[0] in "은는을":
            return attach(self.stem, ("일" if ending[0] == "을" else "인") + ending[1:])
        return attach(self.stem, "이" + ending.removeprefix("으"))

    def _conjugate(self, ending: str) -> str:
        existential = self.stem.endswith(("있", "없"))  # 있다 and 없다: modifiers of a verb, plain form of an adjective
        if ending.startswith(("는다", "는대")):
            return self._closing("는", "ㄴ") + ending[1:] if self.kind == VERB and not existential else self.stem + ending[1:]
        if ending.startswith("는") and self.kind == ADJECTIVE and not existential:
            ending = "은" + ending[1:]
        if ending.startswith("어"):
            return self._infinitive() + ending[1:]
        if ending.startswith("었"):
            return _with_final(self._infinitive(), "ㅆ") + ending[1:]
        if ending.startswith("습"):
            return self._closing("습", "ㅂ") + ending[1:]
        if ending[:1] in ("은", "을", "음"):
            return self._before_vowel(ending[0], _split(ending[0])[2]) + ending[1:]
        if ending.startswith("으"):
            return self._before_vowel("으", "", keeps_rieul=ending[1] in "면려러며") + ending[1:]
        return (self._without_rieul() if ending[0] in "는네니나" else self.stem) + ending

    def _closing(self, syllable: str, final: str) -> str:
        """읽 + 는, 가 + ㄴ: a syllable after a consonant, a final consonant after a vowel (and in place of ㄹ)."""
        stem = self._without_rieul()
        return stem + syllable if _split(stem[-1])[2] else _with_final(stem, final)

    def _without_rieul(self) -> str:
        return _with_final(self.stem, "") if _split(self.stem[-1])[2] == "ㄹ" else self.stem

    def _before_vowel(self, syllable: str, final: str, keeps_rieul: bool = False) -> str:
        """The stem before 으, 은, 을, 음: the vowel shows only after a consonant other than ㄹ."""
        stem, irregular = self._vowel_stem()
        if _split(stem[-1])[2] == "ㄹ" and not irregular:
            if syllable == "음":
                return _with_final(stem, "ㄻ")
            return stem if keeps_rieul or final == "ㄹ" else _with_final(stem, final)
        if _split(stem[-1])[2] or irregular:
            return stem + syllable
        return _with_final(stem, final) if final else stem

    def _vowel_stem(self) -> tuple[str, bool]:
        """(the stem as vowels see it, whether it still counts as closed though it lost its consonant): 더우, 걸, 나."""
        final = _split(self.stem[-1])[2]
        if final == "ㅂ" and not self.stem.endswith(_REGULAR_BIEUP):
            return _with_final(self.stem, "") + "우", False
        if final == "ㄷ" and self.stem.endswith(_IRREGULAR_DIGEUT):
            return _with_final(self.stem, "ㄹ"), True
        if final == "ㅅ" and self.stem.endswith(_IRREGULAR_SIOT):
            return _with_final(self.stem, ""), True
        return self.stem, False

    def _infinitive(self) -> str:
        """The stem with 아 or 어 merged in: 가, 봐, 마셔, 해, 몰라, 바빠, 더워, 들어, 나아."""
        stem, irregular = self._vowel_stem()
        initial, medial, final = _split(stem[-1])
        if stem.endswith("하"):
            return stem[:-1] + "해"
        if stem.endswith("르") and len(stem) > 1:
            vowel = "ㅏ" if _split(stem[-2])[1] in _BRIGHT else "ㅓ"
            return _with_final(stem[:-1], "ㄹ") + _join(initial, vowel)
        if final or irregular or medial not in _MERGED:
            return stem + ("아" if medial in _BRIGHT else "어")
        if medial == "ㅡ" and len(stem) > 1 and _split(stem[-2])[1] in _BRIGHT:
            return stem[:-1] + _join(initial, "ㅏ")
        return stem[:-1] + _join(initial, _MERGED[medial])


def word(text: str) -> Noun | Predicate:
    """`책` is a noun, `읽다/v` a verb, `덥다/a` an adjective, `최고이다/c` a noun + 이다."""
    form, _, kind = text.strip().partition("/")
    return Predicate(form, kind) if kind else Noun(form)


def draw(slots: Mapping[str, str], rng: random.Random) -> dict[str, Noun | Predicate]:
    """Draws the words of each slot: {"food": "냉면, 만두", "genre feel": "공포 영화=무섭다/a, ..."}; words joined by = belong together."""
    words: dict[str, Noun | Predicate] = {}
    for names, options in slots.items():
        chosen = rng.choice(options.split(",")).split("=")
        words.update(zip(names.split(), map(word, chosen), strict=True))
    return words


def render(template: str, words: Mapping[str, Noun | Predicate], register: str, rng: random.Random) -> str:
    """Fills a template in one of REGISTERS.

    `<a/b>` is a free choice; `[casual|polite]` and `~` (요 when polite) follow the register; `{slot:은}` inflects the drawn word and
    `{읽다/v:은}` a word spelled out; `@` in an ending is the register's closing ending: `{slot:었@}` is 었어요, 었습니다, 었다, 었어, 었음.
    """
    polite = register in ("polite", "formal")
    text = re.sub(r"<([^<>]*)>", lambda match: rng.choice(match[1].split("/")), template)
    text = re.sub(r"\[([^\[\]|]*)\|([^\[\]]*)\]", lambda match: match[2 if polite else 1], text)
    text = text.replace("~", "요" if polite else "").replace("었@", "었" + REGISTERS[register].replace("는다", "다"))
    text = text.replace("@", REGISTERS[register]).format_map(_Words(words))
    return re.sub(r" +", " ", text).strip()


class _Words(dict):
    def __missing__(self, text: str) -> Noun | Predicate:
        return word(text)
