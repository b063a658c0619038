"""Raw corpora to the clean text that build_vocab.py and build_pretraining_dataset.py read, on one machine.

corpora -> documents -> units of about 1 MB -> (a process each) clean documents, one file per unit in the build folder
        -> duplicates and mixture decide on every document -> (a process each) corpus/NAME-00000-of-00007.txt -> report

What is kept depends on the text and the settings alone; so neither the number of processes nor an interruption changes a byte.
Memory does not grow with the corpus (with --dedup=near it does, see NearDuplicates); the build folder needs the space of the
clean text once more.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from tqdm import tqdm

from model.command import UserError
from pretrain import corpus_report
from pretrain.build_folder import BuildFolder
from pretrain.corpus_report import TextStatistics
from pretrain.deduplication import (
    EXACT_DUPLICATE,
    KEPT,
    NEAR_DUPLICATE,
    NOT_IN_MIXTURE,
    ExactDuplicates,
    NearDuplicates,
    document_key,
    kept_fractions,
    parse_mixture,
    signature,
    uniform_of_keys,
)
from pretrain.document_cleaner import Corpus, DocumentCleaner, PreprocessConfig, Tally, excluded_files, parse_corpora
from pretrain.text_files import stored_size, unpacked_size
from pretrain.workers import Workers

FORMAT_VERSION = 1
SHARD = r"[\w.-]+-\d{5}-of-\d{5}\.txt"
SHARD_FOLDER = "corpus"
REPORTS = ("report.html", "report.json")
UNIT_BYTES = 1 << 20
# Settings that change what comes out; the others say where it goes and who does the work.
_WITHOUT_EFFECT = ("output_dir", "num_processes", "overwrite", "corpora", "reader_module", "exclude", "runner", "beam_args")


class Unit(NamedTuple):
    """A unit of work: documents, each a list of texts. read: bytes of input since the unit before."""

    number: int
    corpus: int
    documents: list[list[str]]
    read: int

    @property
    def name(self) -> str:
        """Names the unit's file after its place and its text, so that text edited between two runs is noticed."""
        text = "\n\n".join("\n".join(texts) for texts in self.documents)
        digest = hashlib.sha256(f"{self.corpus}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()
        return f"unit-{self.number:07d}-{digest[:16]}"


class ReadCounts:
    """What the readers found in one corpus."""

    def __init__(self) -> None:
        self.documents = self.texts = self.bytes = self.replaced_invalid_utf8 = 0

    def add(self, texts: Sequence[str]) -> int:
        """Counts a document and returns its bytes."""
        size = sum(len(text.encode("utf-8", "surrogatepass")) + 1 for text in texts)
        self.documents += 1
        self.texts += len(texts)
        self.bytes += size
        return size


def read_units(corpora: Sequence[Corpus], invalid_utf8: str, counts: Sequence[ReadCounts]) -> Iterator[Unit]:
    """Reads all corpora and groups their documents, by the text alone; no unit holds two corpora. Adds to `counts`."""
    number = 0
    for index, corpus in enumerate(corpora):
        documents: list[list[str]] = []
        size = read = 0
        for path in corpus.files:
            file, found = corpus.read(path, invalid_utf8)
            seen = 0
            for texts in found:
                if isinstance(texts, str):  # its characters would pass for texts
                    raise UserError(f"corpus reader {corpus.reader.name!r} gave a string, must give lists of strings (--reader_module)")
                documents.append(texts)
                size += counts[index].add(texts)
                if size >= UNIT_BYTES:
                    yield Unit(number, index, documents, read + file.read - seen)
                    number, documents, size, read, seen = number + 1, [], 0, 0, file.read
            read += file.read - seen
            counts[index].replaced_invalid_utf8 += file.replaced
        if documents:
            yield Unit(number, index, documents, read)
            number += 1


class Shard(NamedTuple):
    """A text file to write: the clean documents of some units. first: number in the corpora of each unit's first document."""

    name: str
    units: list[str]
    first: list[int]


class Worker:
    """What one process does: `clean` units, then `write_shard`."""

    def __init__(self, config: PreprocessConfig, folder: BuildFolder, cleaner: DocumentCleaner) -> None:
        self._near = config.dedup == "near"
        self._folder = folder
        self._cleaner = cleaner

    def clean(self, unit: Unit) -> int:
        """Writes the clean documents of `unit` into the build folder; returns the bytes of input that are done with."""
        tally = Tally()
        cleaned = [sentences for texts in unit.documents if (sentences := self._cleaner.clean(texts, tally))]
        texts = ["\n".join(sentences) + "\n" for sentences in cleaned]
        encoded = [text.encode("utf-8") for text in texts]
        self._folder.write_unit(
            unit.name,
            text=np.frombuffer(b"".join(encoded), np.uint8),
            sizes=np.array([len(text) for text in encoded], np.int64),
            keys=np.array([document_key(text) for text in texts], np.uint64),
            signatures=np.array([signature(text) for text in texts] if self._near else [], np.uint64),
            tally=_to_array(tally.to_json()),
        )
        return unit.read

    def write_shard(self, shard: Shard) -> int:
        """Writes the kept documents of some units, a blank line between two; returns the bytes written."""
        fates = np.memmap(self._folder.work_path("fates"), np.uint8, "r")
        statistics = TextStatistics()
        sha256 = hashlib.sha256()
        size = documents = sentences = 0
        with self._folder.new_shards([shard.name]) as (path,):
            with open(path, "wb") as file:
                for name, first in zip(shard.units, shard.first, strict=True):
                    for document in self._kept_documents(name, first, fates):
                        data = b"\n" * bool(size) + document
                        file.write(data)
                        sha256.update(data)
                        lines = document.decode("utf-8").split("\n")[:-1]
                        statistics.add(lines)
                        size, documents, sentences = size + len(data), documents + 1, sentences + len(lines)
            entry = {"bytes": size, "documents": documents, "sentences": sentences, "sha256": sha256.hexdigest()}
            entry["statistics"] = statistics.to_json()
            self._folder.write_entries({shard.name: entry})
        return size

    def _kept_documents(self, unit: str, first: int, fates: np.ndarray) -> Iterator[bytes]:
        text, sizes = self._folder.read_unit(unit, "text", "sizes")
        start = 0
        for size, fate in zip(sizes.tolist(), fates[first : first + len(sizes)].tolist(), strict=True):
            if fate == KEPT:
                yield text[start : start + size].tobytes()
            start += size


def _to_array(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value, ensure_ascii=True).encode(), np.uint8)


def build(config: PreprocessConfig) -> dict[str, Any]:
    """Makes the corpus, or what is missing of it, and returns its manifest.

    Raises UserError for settings that make no sense, files that cannot be read and an output folder that holds something else,
    before anything is written; DataError for what is wrong inside a file, naming the place.
    """
    check(config)
    corpora = parse_corpora(config)
    cleaner = DocumentCleaner(config)
    if config.dedup == "near":
        signature("")  # a missing package is reported here, not by a worker
    folder = BuildFolder(config.output_dir, SHARD, SHARD_FOLDER, REPORTS)
    parameters = parameters_of(config, corpora)
    manifest = folder.claim(parameters, config.overwrite, inputs=("corpora", "invalid_utf8"))
    if manifest is not None:
        logging.info("%s holds this corpus already: nothing to do", config.output_dir)
        return manifest
    make_worker = functools.partial(Worker, config, folder, cleaner)
    with folder.locked(), Workers(make_worker, config.num_processes) as workers:
        if not folder.has_json("units"):
            folder.write_json("units", _clean(config, corpora, folder, workers))
        units = folder.read_json("units")
        with folder.writing("fates"):
            kept = _decide(config, corpora, units, folder)
        shards = _write_shards(config, corpora, units, kept, folder, workers)
        report = _report(config, corpora, units, kept, shards)
        corpus_report.write_report(folder.work_path(""), report)
        manifest = parameters | {"shards": [without_statistics(entry) for entry in shards]}
        folder.finish(manifest)
    _log_summary(config, report)
    return manifest


def check(config: PreprocessConfig) -> None:
    """Raises UserError for a setting that is missing or out of range."""
    for name in ("corpora", "output_dir"):
        if not getattr(config, name):
            raise UserError(f"--{name} is required")
    limits = {"num_processes": (1, 1024), "near_threshold": (0.1, 1.0), "shard_megabytes": (1, 1 << 16), "seed": (0, 1 << 63)}
    for name, (low, high) in limits.items():
        if not low <= getattr(config, name) <= high:
            raise UserError(f"{name} must be from {low} to {high}, got {getattr(config, name)} (--{name})")


def parameters_of(config: PreprocessConfig, corpora: Sequence[Corpus]) -> dict[str, Any]:
    """All that the bytes of the corpus depend on."""
    settings = {name: value for name, value in vars(config).items() if name not in _WITHOUT_EFFECT}
    sources = {corpus.name: {"reader": corpus.reader.name, "files": list(map(_describe_file, corpus.files))} for corpus in corpora}
    excluded = list(map(_describe_file, excluded_files(config)))
    used = {"datasketch": config.dedup == "near", "kiwipiepy": config.sentence_splitter == "kiwi"}
    libraries = {name: importlib.metadata.version(name) for name, is_used in used.items() if is_used}
    return {"format_version": FORMAT_VERSION} | settings | {"corpora": sources, "exclude": excluded, "libraries": libraries}


def _describe_file(path: str) -> dict[str, Any]:
    return {"file": os.path.basename(path), "bytes": stored_size(path)}


# ---- cleaning


def _clean(config: PreprocessConfig, corpora: Sequence[Corpus], folder: BuildFolder, workers: Workers) -> dict[str, Any]:
    """Cleans every unit that lacks its file; returns the units' names by corpus, and what was read."""
    counts = [ReadCounts() for _ in corpora]
    names: list[list[str]] = [[] for _ in corpora]
    total = sum(unpacked_size(path) for corpus in corpora for path in corpus.files)
    with progress(total, "cleaning") as bar:

        def unfinished() -> Iterator[Unit]:
            for unit in read_units(corpora, config.invalid_utf8, counts):
                names[unit.corpus].append(unit.name)
                if folder.has_unit(names[unit.corpus][-1]):
                    bar.update(unit.read)
                else:
                    yield unit

        for read in workers.map("clean", unfinished()):
            bar.update(read)
    return {"names": names, "read": [vars(count) for count in counts]}


def progress(total: int, what: str) -> tqdm:
    """A bar on stderr with MB/s and time left; in a log file a line every half minute."""
    interval = 0.5 if sys.stderr.isatty() else 30
    return tqdm(total=total, desc=what, unit="B", unit_scale=True, mininterval=interval, maxinterval=2 * interval)


# ---- deciding


class Decision(NamedTuple):
    """What was kept of one corpus. kept: bytes by unit; fates: (documents, bytes) by fate; tally: what cleaning did."""

    kept: list[int]
    documents: list[int]
    fates: dict[int, tuple[int, int]]
    tally: Tally


def _decide(config: PreprocessConfig, corpora: Sequence[Corpus], units: dict[str, Any], folder: BuildFolder) -> list[Decision]:
    """Writes the fate of every document, uint8, into the build folder, and returns what that means for every corpus."""
    names = [name for corpus_names in units["names"] for name in corpus_names]
    counts = [len(folder.read_unit(name, "keys")[0]) for name in names]
    # On the disk: a corpus of a billion comments is no matter for the memory.
    with open(folder.work_path("fates"), "wb") as file:
        # Written out: the map of a file with holes ends the process without a word when the disk is full.
        for count in [*counts, not any(counts)]:
            file.write(bytes(count))
    fates = np.memmap(folder.work_path("fates"), np.uint8, "r+")
    if config.dedup != "none":
        exact = ExactDuplicates(folder.work_path(""))
        for name in names:
            exact.add(folder.read_unit(name, "keys")[0])
        exact.mark(fates)
    if config.dedup == "near":
        near = NearDuplicates(config.near_threshold)
        for name, part in _parts(names, fates, counts):
            near.mark(folder.read_unit(name, "signatures")[0], part)
    if config.mixture:
        _mix(config, corpora, units["names"], folder, fates)
    fates.flush()
    return _decisions(units["names"], folder, fates)


def _parts(names: Iterable[str], fates: np.ndarray, counts: Sequence[int]) -> Iterator[tuple[str, np.ndarray]]:
    start = 0
    for name, count in zip(names, counts, strict=True):
        yield name, fates[start : start + count]
        start += count


def _mix(
    config: PreprocessConfig, corpora: Sequence[Corpus], names: Sequence[Sequence[str]], folder: BuildFolder, fates: np.ndarray
) -> None:
    """Draws what stays of every share; whether a document stays depends on its text and the seed alone."""
    weights = parse_mixture(config.mixture)
    sizes = dict.fromkeys(weights, 0)
    for corpus, decision in zip(corpora, _decisions(names, folder, fates), strict=True):
        sizes[corpus.share] += decision.fates[KEPT][1]
    empty = [name for name, size in sizes.items() if not size]
    if empty:
        raise UserError(f"nothing is left of {' and '.join(empty)} to mix: leave it out of --mixture")
    fractions = kept_fractions(sizes, weights)
    start = 0
    for corpus, unit_names in zip(corpora, names, strict=True):
        for name in unit_names:
            (keys,) = folder.read_unit(name, "keys")
            part = fates[start : start + len(keys)]
            part[(part == KEPT) & (uniform_of_keys(keys, config.seed) >= fractions[corpus.share])] = NOT_IN_MIXTURE
            start += len(keys)


def _decisions(names: Sequence[Sequence[str]], folder: BuildFolder, fates: np.ndarray) -> list[Decision]:
    decisions = []
    start = 0
    for unit_names in names:
        decision = Decision([], [], dict.fromkeys((KEPT, EXACT_DUPLICATE, NEAR_DUPLICATE, NOT_IN_MIXTURE), (0, 0)), Tally())
        for name in unit_names:
            sizes, tally = folder.read_unit(name, "sizes", "tally")
            part = fates[start : start + len(sizes)]
            start += len(sizes)
            decision.kept.append(int(sizes[part == KEPT].sum()))
            decision.documents.append(len(sizes))
            decision.tally.merge(Tally.from_json(json.loads(tally.tobytes())))
            for fate, (documents, size) in decision.fates.items():
                decision.fates[fate] = documents + int((part == fate).sum()), size + int(sizes[part == fate].sum())
        decisions.append(decision)
    return decisions


# ---- writing


def _write_shards(
    config: PreprocessConfig,
    corpora: Sequence[Corpus],
    units: dict[str, Any],
    decisions: Sequence[Decision],
    folder: BuildFolder,
    workers: Workers,
) -> list[dict[str, Any]]:
    """Writes the text files that are missing; returns the entries of all."""
    shards = []
    start = 0
    for corpus, names, decision in zip(corpora, units["names"], decisions, strict=True):
        shards += _cut_shards(corpus.name, names, start, decision, config.shard_megabytes << 20)
        start += sum(decision.documents)
    if not shards:
        raise UserError("nothing is left of the corpora: see --min_chars, --min_hangul_share and --exclude")
    missing = [shard for shard in shards if folder.entry(shard.name) is None]
    with progress(sum(size for decision in decisions for size in decision.kept), "writing") as bar:
        for size in workers.map("write_shard", iter(missing)):
            bar.update(size)
    return [folder.entry(shard.name) or {} for shard in shards]


def _cut_shards(corpus: str, names: Sequence[str], start: int, decision: Decision, shard_bytes: int) -> list[Shard]:
    """Groups a corpus's units into files of about `shard_bytes`; none is empty."""
    groups: list[tuple[list[str], list[int]]] = []
    size = shard_bytes
    for name, kept, documents in zip(names, decision.kept, decision.documents, strict=True):
        if kept:
            if size + kept > shard_bytes and (not groups or size):
                groups.append(([], []))
                size = 0
            groups[-1][0].append(name)
            groups[-1][1].append(start)
            size += kept
        start += documents
    return [Shard(f"{corpus}-{number:05d}-of-{len(groups):05d}.txt", *group) for number, group in enumerate(groups)]


def without_statistics(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "statistics"}


# ---- the report


def _report(
    config: PreprocessConfig, corpora: Sequence[Corpus], units: dict[str, Any], decisions: Sequence[Decision], shards: Sequence[dict]
) -> dict[str, Any]:
    """What corpus_report shows; nothing in it depends on the run or the machine."""
    excluded = [os.path.basename(path) for path in excluded_files(config)]
    weights = parse_mixture(config.mixture)
    parts = {}
    for corpus, read, decision in zip(corpora, units["read"], decisions, strict=True):
        statistics = TextStatistics()
        entries = [entry for entry in shards if entry["file"].rpartition("-of-")[0].rpartition("-")[0] == corpus.name]
        for entry in entries:
            statistics.merge(TextStatistics.from_json(entry["statistics"]))
        parts[corpus.name] = corpus_part(corpus, read, decision.tally, excluded) | {
            "duplicates": {"exact": _amount(decision, EXACT_DUPLICATE), "near": _amount(decision, NEAR_DUPLICATE)},
            "mixture": {"weight": weights.get(corpus.share), "dropped_documents": decision.fates[NOT_IN_MIXTURE][0]},
            "kept": _amount(decision, KEPT) | {"sentences": sum(entry["sentences"] for entry in entries)},
            "statistics": statistics.to_json(),
        }
    outputs = list(map(without_statistics, shards))
    return {"format_version": FORMAT_VERSION, "settings": settings_of(config), "corpora": parts, "outputs": outputs}


def settings_of(config: PreprocessConfig) -> dict[str, Any]:
    """What the report says of the flags."""
    return {name: value for name, value in vars(config).items() if name not in ("output_dir", "num_processes", "overwrite")}


def corpus_part(corpus: Corpus, read: dict[str, int], tally: Tally, excluded_names: Sequence[str]) -> dict[str, Any]:
    """What the report says of one corpus's way up to deduplication."""
    excluded: dict[str, Counter[str]] = {}
    for match, count in sorted(tally.excluded.items()):
        excluded.setdefault(excluded_names[match.file], Counter({"exact": 0, "loose": 0}))[match.how] += count
    changes = tally.changes.to_json()
    return {
        "reader": corpus.reader.name,
        "group": corpus.reader.group,
        "moderated": corpus.reader.moderated,
        "files": list(map(_describe_file, corpus.files)),
        "read": read,
        "rules": changes["rules"],
        "examples": changes["examples"],
        "excluded": excluded,
        "empty_documents": tally.empty_documents,
    }


def _amount(decision: Decision, fate: int) -> dict[str, int]:
    documents, size = decision.fates[fate]
    return {"documents": documents, "bytes": size}


def _log_summary(config: PreprocessConfig, report: dict[str, Any]) -> None:
    for name, part in report["corpora"].items():
        logging.info(
            "%s: kept %d of %d documents, %.1f of %.1f MB",
            *(name, part["kept"]["documents"], part["read"]["documents"], part["kept"]["bytes"] / 1e6, part["read"]["bytes"] / 1e6),
        )
    logging.info("look at %s before going on", os.path.join(config.output_dir, REPORTS[0]))
