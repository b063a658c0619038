"""What happens to one document on its way into the corpus, wherever it runs: on this machine or on Apache Beam's workers.

texts of a reader (turns, paragraphs) -> less test texts -> cleaned -> sentences -> less test sentences
"""

import dataclasses
import functools
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

from model.command import UserError
from model.hparams import option
from pretrain.cleaning import Changes, Cleaner, CleaningConfig
from pretrain.contamination import Excluder, Match
from pretrain.corpora import CorpusReader, get_reader, load_reader_module
from pretrain.deduplication import parse_mixture
from pretrain.sentences import SPLITTERS, make_sentence_splitter
from pretrain.text_files import InvalidUtf8, TextFile, expand_files
from pretrain.workers import RUNNERS

DEDUP = ("exact", "near", "none")


@dataclasses.dataclass(frozen=True)
class PreprocessConfig(CleaningConfig):
    """What to make of which corpora; every field is a flag of preprocess.py."""

    corpora: str = option("", "[NAME=]READER:PATH,... such as kcbert:raw/kcbert,reviews=text:raw/*.txt.gz; files, globs, folders")
    output_dir: str = option("", "folder for corpus/*.txt, report.html, report.json and manifest.json")
    num_processes: int = option(1, "processes that work; does not change the result")
    text_key: str = option("", "keys of jsonl objects or columns of tsv files that hold text, separated by commas")
    reader_module: str = option("", "Python file or module with readers of your own")
    invalid_utf8: str = option("error", "what to do with bytes that are not UTF-8: stop, or replace them and count", ("error", "replace"))
    sentence_splitter: str = option("regex", "how texts become sentences; kiwi finds endings without punctuation", SPLITTERS)
    dedup: str = option("exact", "which repeated documents to drop, across all corpora; near includes exact", DEDUP)
    near_threshold: float = option(0.8, "share of common shingles from which two documents are near duplicates")
    exclude: str = option("", "task files whose texts must not be in the corpus: files, globs, folders")
    mixture: str = option("", "bytes of corpora or groups relative to each other, as dialog=7,written=15; the scarcest stays whole")
    shard_megabytes: int = option(64, "about so much text goes into one output file")
    seed: int = option(42, "what the choice of documents for the mixture depends on")
    runner: str = option("local", "where it runs: local, or one of Apache Beam's runners", RUNNERS)
    beam_args: str = option("", "arguments for the Beam runner, as in a shell: --direct_num_workers=4")
    overwrite: bool = option(False, "remove an earlier build from output_dir")


class Corpus(NamedTuple):
    """Files of one format. share: what --mixture weighs, the corpus's name or the group of its reader; "" without a mixture."""

    name: str
    reader: CorpusReader
    files: list[str]
    share: str

    def read(self, path: str, invalid_utf8: str) -> tuple[TextFile, Iterator[list[str]]]:
        """One of the files, and its documents."""
        file = TextFile(path, cast(InvalidUtf8, invalid_utf8))
        return file, self.reader.documents(file)


_SOURCE = re.compile(r"(?:(?P<name>[\w.-]+)=)?(?P<reader>\w+):(?!//)(?P<path>.*)", re.DOTALL)


def parse_corpora(config: PreprocessConfig) -> list[Corpus]:
    """Reads --corpora; a part without READER: is a further path of the corpus before it."""
    if config.reader_module:
        load_reader_module(config.reader_module)
    keys = [key.strip() for key in config.text_key.split(",") if key.strip()]
    weights = parse_mixture(config.mixture)
    sources: dict[str, tuple[CorpusReader, list[str]]] = {}
    name = ""
    for part in filter(None, map(str.strip, config.corpora.split(","))):
        match = _SOURCE.fullmatch(part)
        if match:
            reader = get_reader(match["reader"], keys)
            name = match["name"] or reader.name
            if type(sources.setdefault(name, (reader, []))[0]) is not type(reader):
                raise UserError(f"two corpora are called {name!r}: give one another name, as in NAME={part} (--corpora)")
            part = match["path"]
        elif not name:
            raise UserError(f"{part!r} names no reader: write READER:PATH, such as text:{part} (--corpora)")
        sources[name][1].append(part)
    if not sources:
        raise UserError("--corpora is required: READER:PATH, such as kcbert:raw/kcbert")
    shares = {name: _share(name, reader, weights) for name, (reader, _) in sources.items()}
    for weighed in weights.keys() - set(shares.values()):
        raise UserError(f"the mixture weighs {weighed!r}, and no corpus is or belongs to it: leave it out (--mixture)")
    _check_output_dir(config.output_dir, [path for _, paths in sources.values() for path in paths])
    return [Corpus(name, reader, expand_files(paths, "corpora"), shares[name]) for name, (reader, paths) in sources.items()]


def _check_output_dir(output_dir: str, paths: Sequence[str]) -> None:
    """What is written must not be read, by the next run at the latest."""
    output = os.path.realpath(output_dir)
    for folder in filter(os.path.isdir, paths if output_dir else ()):
        if os.path.commonpath([output, real := os.path.realpath(folder)]) == real:
            raise UserError(f"{output_dir} lies in the folder {folder} that is read (--corpora): choose another --output_dir")


def _share(name: str, reader: CorpusReader, weights: dict[str, float]) -> str:
    found = [share for share in (name, reader.group) if share in weights]
    if weights and not found:
        raise UserError(f"the mixture weighs neither the corpus {name!r} nor its group {reader.group!r}: add {name}=WEIGHT (--mixture)")
    return found[0] if found else ""


class Tally:
    """What was counted on the way of some documents; a plain JSON value in `to_json`, so that tallies of processes add up."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.excluded: Counter[Match] = Counter()
        self.empty_documents = 0

    def merge(self, other: "Tally") -> None:
        """Adds what was counted for documents that come later."""
        self.changes.merge(other.changes)
        self.excluded.update(other.excluded)
        self.empty_documents += other.empty_documents

    def to_json(self) -> dict:
        excluded = [[*match, count] for match, count in sorted(self.excluded.items())]
        return {"changes": self.changes.to_json(), "excluded": excluded, "empty_documents": self.empty_documents}

    @classmethod
    def from_json(cls, value: dict) -> "Tally":
        tally = cls()
        tally.changes = Changes.from_json(value["changes"])
        tally.excluded = Counter({Match(file, how): count for file, how, count in value["excluded"]})
        tally.empty_documents = value["empty_documents"]
        return tally


class DocumentCleaner:
    """Turns the texts of a document into clean sentences. Can be sent to other processes."""

    def __init__(self, config: PreprocessConfig) -> None:
        self._cleaner = Cleaner(config)
        self._split = make_sentence_splitter(config.sentence_splitter)
        self._excluder = Excluder(excluded_files(config))

    def clean(self, texts: Sequence[str], tally: Tally) -> list[str]:
        """Returns the sentences, none where nothing is left, and counts in `tally` what was done."""
        texts = self._excluder.exclude(texts, tally.excluded)
        clean = functools.partial(self._cleaner.clean, changes=tally.changes)
        sentences = [sentence for text in map(clean, texts) if text for sentence in self._split(text)]
        if sentences != texts:  # cleaned and cut, text may equal a test text that it did not equal before
            sentences = self._excluder.exclude(sentences, tally.excluded)
        tally.empty_documents += not sentences
        return sentences


def excluded_files(config: PreprocessConfig) -> list[str]:
    """The task files of --exclude."""
    return expand_files([config.exclude], "exclude") if config.exclude else []
