"""Past one machine: both builders as Apache Beam pipelines, of the same per-document functions as the local path.

    preprocess:     files -> (a worker each) documents -> clean -> first of equal keys -> mixture -> text shards, report
    build_dataset:  corpus -> units of work -> (a worker each) examples -> dealt like cards -> TFRecord shards, manifest

Preprocessing gives the same documents as the local path, in other files; the TFRecord shards are the same to the byte.
Workers need to see the input and output paths: gs:// or a shared disk, but for the DirectRunner. Cutting the corpus into units is
one worker's work (some 100 MB/s of plain text), because it decides what is held out.
"""

import contextlib
import functools
import hashlib
import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from absl import logging

from model.command import DataError, UserError, read_json, write_atomically, write_json
from pretrain import build_folder, corpus_builder, corpus_report, dataset_builder
from pretrain.build_folder import MANIFEST
from pretrain.corpus_builder import SHARD_FOLDER, ReadCounts
from pretrain.corpus_report import TextStatistics
from pretrain.dataset_builder import HELD_OUT, TRAIN, UNIT_COUNTS, DatasetConfig, Deal
from pretrain.deduplication import document_key, kept_fractions, parse_mixture, uniform_of_keys
from pretrain.document_cleaner import DocumentCleaner, PreprocessConfig, Tally, excluded_files, parse_corpora
from pretrain.example_writer import ExampleTable, frame_records
from pretrain.text_files import expand_files
from pretrain.units import Unit, read_units

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.transforms.window import GlobalWindows
except ImportError as error:
    raise UserError("Apache Beam is missing: run `pip install .[beam]`, or choose --runner=local") from error


MEGABYTE = 1 << 20


# What a runner makes of a worker's exception: a report of several pages, with the exception in one of its lines.
_WORKERS_ERROR = re.compile(r"^model\.command\.(DataError|UserError): (.*?)(?: \[while running .*)?$", re.MULTILINE)


@contextlib.contextmanager
def _pipeline(runner: str, beam_args: str) -> Iterator[beam.Pipeline]:
    """A pipeline that runs at the end. What was wrong with the user's files is raised as it was on the worker."""
    options = PipelineOptions(shlex.split(beam_args), runner=runner, save_main_session=False)
    try:
        with beam.Pipeline(options=options) as pipeline:
            yield pipeline
    except RuntimeError as error:
        found = _WORKERS_ERROR.search(str(error))
        if not found:
            raise
        raise (DataError if found[1] == "DataError" else UserError)(found[2]) from error


def _claim(folder: str, parts: Iterable[str], overwrite: bool) -> None:
    """Makes sure that `folder` is empty; with `overwrite`, an earlier build is removed from it, its own files only."""
    import tensorflow as tf  # for gs:// and the like

    manifest = os.path.join(folder, MANIFEST)
    if overwrite and tf.io.gfile.exists(manifest):
        found = read_json(manifest, "output_dir")
        names = [os.path.join(folder, part, shard["file"]) for part in parts for shard in build_folder.shards_of(found)]
        for name in filter(tf.io.gfile.exists, [*names, *(os.path.join(folder, name) for name in corpus_builder.REPORTS), manifest]):
            tf.io.gfile.remove(name)
    files = [os.path.join(path, name) for path, _, names in tf.io.gfile.walk(folder) for name in names]
    if files:
        raise UserError(f"{folder} holds {os.path.relpath(files[0], folder)!r} already: choose another --output_dir, or give --overwrite")
    for part in parts:
        tf.io.gfile.makedirs(os.path.join(folder, part))


class _Collecting(beam.DoFn):
    """A step that counts on the way: what `collect` returns at the end of a bundle goes to the output COUNTS."""

    COUNTS = "counts"

    def start_bundle(self) -> None:
        self.counts: dict[int, Any] = {}

    def finish_bundle(self) -> Iterator[Any]:
        for corpus, value in self.counts.items():
            yield beam.pvalue.TaggedOutput(self.COUNTS, GlobalWindows.windowed_value((corpus, value.to_json())))


# ---- preprocessing

# A clean document on its way: where it stood, (corpus, file, document), its key and its text.
Number = tuple[int, int, int]
KeyedText = tuple[int, tuple[Number, str]]


class _Read(beam.DoFn):
    """(corpus, file) -> ((corpus, file, document), texts), and what was read."""

    def __init__(self, config: PreprocessConfig) -> None:
        self._config = config

    def setup(self) -> None:
        self._corpora = parse_corpora(self._config)  # here: the user's own readers must be imported by every worker

    def process(self, place: tuple[int, int]) -> Iterator[Any]:
        corpus = self._corpora[place[0]]
        file, documents = corpus.read(corpus.files[place[1]], self._config.invalid_utf8)
        counts = ReadCounts()
        for number, texts in enumerate(documents):
            counts.add(texts)
            yield (*place, number), texts
        counts.replaced_invalid_utf8 = file.replaced
        yield beam.pvalue.TaggedOutput("read", (place[0], vars(counts)))


class _Clean(_Collecting):
    """((corpus, file, document), texts) -> (key, (number, text)), and tallies."""

    def __init__(self, cleaner: DocumentCleaner) -> None:
        self._cleaner = cleaner

    def process(self, document: tuple[Number, list[str]]) -> Iterator[KeyedText]:
        number, texts = document
        sentences = self._cleaner.clean(texts, self.counts.setdefault(number[0], Tally()))
        if sentences:
            text = "\n".join(sentences) + "\n"
            yield document_key(text) - (1 << 63), (number, text)  # Beam's integers have a sign


class _Sum(beam.CombineFn):
    """Adds up JSON values of one class, a dict of numbers without a class."""

    def __init__(self, kind: Any = None) -> None:
        self._kind = kind

    def create_accumulator(self) -> Any:
        return self._kind().to_json() if self._kind else {}

    def add_input(self, total: Any, value: Any) -> Any:
        if self._kind is None:
            return {name: total.get(name, 0) + number for name, number in value.items()}
        merged = self._kind.from_json(total)
        merged.merge(self._kind.from_json(value))
        return merged.to_json()

    def merge_accumulators(self, totals: Iterable[Any]) -> Any:
        return functools.reduce(self.add_input, totals, self.create_accumulator())

    def extract_output(self, total: Any) -> Any:
        return total


def _is_in_mixture(document: KeyedText, fractions: dict[int, float], seed: int) -> bool:
    key, (number, _) = document
    return bool(uniform_of_keys(np.array([key + (1 << 63)], np.uint64), seed)[0] < fractions.get(number[0], 1.0))


def _fractions(sizes: dict[int, dict[str, int]], shares: list[str], weights: dict[str, float]) -> dict[int, float]:
    """Which part of each corpus stays."""
    if not weights:
        return {}
    totals = dict.fromkeys(weights, 0)
    for corpus, size in sizes.items():
        totals[shares[corpus]] += size["bytes"]
    fractions = kept_fractions(totals, weights)
    return {corpus: fractions[share] for corpus, share in enumerate(shares)}


def _size(document: KeyedText) -> tuple[int, dict[str, int]]:
    _, (number, text) = document
    return number[0], {"documents": 1, "bytes": len(text.encode("utf-8"))}


def _to_shard(document: KeyedText, sizes: dict[int, dict[str, int]], shard_bytes: int) -> Any:
    """(key, (number, text)) -> ((corpus, shard, shards), (number, text)); the key's high bits choose."""
    key, (number, text) = document
    shards = math.ceil(sizes[number[0]]["bytes"] / shard_bytes)
    return (number[0], (key + (1 << 63)) * shards >> 64, shards), (number, text)


class _WriteText(beam.DoFn):
    """((corpus, shard, shards), documents) -> (corpus, entry of the manifest); documents stand in corpus order."""

    def __init__(self, folder: str, names: list[str]) -> None:
        self._folder = folder
        self._names = names

    def process(self, shard: tuple[tuple[int, int, int], Iterable[tuple[Number, str]]]) -> Iterator[tuple[int, dict[str, Any]]]:
        (corpus, number, shards), documents = shard
        texts = [text for _, text in sorted(documents)]
        data = "\n".join(texts).encode("utf-8")
        name = f"{self._names[corpus]}-{number:05d}-of-{shards:05d}.txt"
        write_atomically(os.path.join(self._folder, SHARD_FOLDER, name), data)
        statistics = TextStatistics()
        sentences = 0
        for text in texts:
            lines = text.split("\n")[:-1]
            statistics.add(lines)
            sentences += len(lines)
        entry = {"file": name, "bytes": len(data), "documents": len(texts), "sentences": sentences}
        yield corpus, entry | {"sha256": hashlib.sha256(data).hexdigest(), "statistics": statistics.to_json()}


def preprocess(config: PreprocessConfig) -> None:
    """Runs preprocess.py on Beam; raises what corpus_builder.build does, in the launching process where that is possible."""
    corpus_builder.check(config)
    if config.dedup == "near":
        raise UserError("near duplicates are found on one machine only: choose --dedup=exact or --runner=local")
    corpora = parse_corpora(config)
    cleaner = DocumentCleaner(config)
    _claim(config.output_dir, [SHARD_FOLDER], config.overwrite)
    shares = [corpus.share for corpus in corpora]
    with _pipeline(config.runner, config.beam_args) as pipeline:
        places = [(index, file) for index, corpus in enumerate(corpora) for file in range(len(corpus.files))]
        read = pipeline | beam.Create(places) | beam.Reshuffle() | beam.ParDo(_Read(config)).with_outputs("read", main="documents")
        # Reshuffled again: one file may hold most of the text.
        cleaned = read.documents | "Spread" >> beam.Reshuffle() | beam.ParDo(_Clean(cleaner)).with_outputs(_Clean.COUNTS, main="documents")
        documents = cleaned.documents
        if config.dedup == "exact":
            documents = documents | "FirstOfEqual" >> beam.CombinePerKey(min)
        clean = cleaned.documents | "CleanSizes" >> beam.Map(_size) | "AddCleanSizes" >> beam.CombinePerKey(_Sum())
        unique = documents | "Sizes" >> beam.Map(_size) | "AddSizes" >> beam.CombinePerKey(_Sum())
        if config.mixture:
            fractions = unique | beam.combiners.ToDict() | beam.Map(_fractions, shares, parse_mixture(config.mixture))
            documents = documents | beam.Filter(_is_in_mixture, beam.pvalue.AsSingleton(fractions), config.seed)
        kept = documents | "KeptSizes" >> beam.Map(_size) | "AddKeptSizes" >> beam.CombinePerKey(_Sum())
        entries = (
            documents
            | beam.Map(_to_shard, beam.pvalue.AsDict(kept), config.shard_megabytes * MEGABYTE)
            | beam.GroupByKey()
            | beam.ParDo(_WriteText(config.output_dir, [corpus.name for corpus in corpora]))
        )
        cleaned_counts = cleaned[_Clean.COUNTS] | "AddTallies" >> beam.CombinePerKey(_Sum(Tally))
        read_counts = read.read | "AddRead" >> beam.CombinePerKey(_Sum())
        sides = [beam.pvalue.AsDict(part) for part in (read_counts, cleaned_counts, clean, unique, kept)]
        _ = pipeline | "Start" >> beam.Create([config]) | "Report" >> beam.Map(_finish, *sides, beam.pvalue.AsList(entries))
    logging.info("look at %s before going on", os.path.join(config.output_dir, corpus_builder.REPORTS[0]))


def _finish(
    config: PreprocessConfig,
    read: dict[int, Any],
    tallies: dict[int, Any],
    clean: dict[int, dict[str, int]],
    unique: dict[int, dict[str, int]],
    kept: dict[int, dict[str, int]],
    entries: list[tuple[int, dict[str, Any]]],
) -> None:
    """Writes the report, and last of all the manifest."""
    corpora = parse_corpora(config)
    excluded = [os.path.basename(path) for path in excluded_files(config)]
    weights = parse_mixture(config.mixture)
    nothing = {"documents": 0, "bytes": 0}
    parts = {}
    shards = [entry for _, entry in sorted(entries, key=lambda item: (item[0], item[1]["file"]))]
    for index, corpus in enumerate(corpora):
        statistics = TextStatistics()
        own = [entry for owner, entry in entries if owner == index]
        for entry in own:
            statistics.merge(TextStatistics.from_json(entry["statistics"]))
        tally = Tally.from_json(tallies[index]) if index in tallies else Tally()
        counts = read.get(index, vars(ReadCounts()))
        left = unique.get(index, nothing)
        parts[corpus.name] = corpus_builder.corpus_part(corpus, counts, tally, excluded) | {
            "duplicates": {"exact": {name: clean.get(index, nothing)[name] - left[name] for name in nothing}, "near": nothing},
            "mixture": {
                "weight": weights.get(corpus.share),
                "dropped_documents": left["documents"] - kept.get(index, nothing)["documents"],
            },
            "kept": kept.get(index, nothing) | {"sentences": sum(entry["sentences"] for entry in own)},
            "statistics": statistics.to_json(),
        }
    if not shards:
        raise DataError("nothing is left of the corpora: see --min_chars, --min_hangul_share and --exclude")
    outputs = list(map(corpus_builder.without_statistics, shards))
    report = {"format_version": corpus_builder.FORMAT_VERSION, "settings": corpus_builder.settings_of(config), "corpora": parts}
    corpus_report.write_report(config.output_dir, report | {"outputs": outputs})
    write_json(os.path.join(config.output_dir, MANIFEST), corpus_builder.parameters_of(config, corpora) | {"shards": outputs})


# ---- examples

Counts = tuple[int, dict[str, int]]  # a unit's number, and what was counted in it


class _Tokenize(beam.DoFn):
    """Unit -> (its number, its examples by kind), and what was counted."""

    def __init__(self, config: DatasetConfig) -> None:
        self._config = config

    def setup(self) -> None:
        self._worker = dataset_builder.Worker(self._config)

    def process(self, unit: Unit) -> Iterator[Any]:
        counts, tables = self._worker.make_examples(unit)
        yield unit.number, tables
        counted = {"documents": unit.documents, "lines": unit.lines, "bytes": unit.size}
        yield beam.pvalue.TaggedOutput("counts", (unit.number, counted | dict(zip(UNIT_COUNTS, counts, strict=True))))


def _to_groups(tables: tuple[int, dict[str, Any]], units: list[Counts], seed: int) -> Iterator[Any]:
    """(unit, tables) -> ((kind, group), (place in the group, table))."""
    for group, numbers in enumerate(dataset_builder.group_units(len(units), seed)):
        if tables[0] in numbers:
            yield from (((kind, group), (numbers.index(tables[0]), table)) for kind, table in tables[1].items())


def _totals(units: list[Counts]) -> dict[str, int]:
    return {name: sum(counted[name] for _, counted in units) for name in ("documents", "lines", "bytes", *UNIT_COUNTS)}


def _plan(config: DatasetConfig, units: list[Counts]) -> dict[str, Deal]:
    totals = _totals(units)
    deals = dataset_builder.plan_deals(config, {kind: totals[f"{kind}_examples"] for kind in (TRAIN, HELD_OUT)})
    return {deal.kind: deal for deal in deals}


def _deal(grouped: tuple[tuple[str, int], Iterable[tuple[int, ExampleTable]]], units: list[Counts], config: DatasetConfig) -> Iterator[Any]:
    """((kind, group), tables) -> ((kind, shard), (group, its examples in this shard, their bytes))."""
    (kind, group), tables = grouped
    table = ExampleTable.concatenate([table for _, table in sorted(tables, key=lambda item: item[0])])
    examples = dict(units)
    before = dataset_builder.group_units(len(units), config.seed)[:group]
    dealt = sum(examples[unit][f"{kind}_examples"] for numbers in before for unit in numbers)
    num_shards = _plan(config, units)[kind].num_shards
    rows_of = dataset_builder.shuffle_and_deal(len(table.lengths), config.seed, kind, group, dealt, num_shards)
    for shard in range(num_shards):
        encoded = table.encode(rows_of(shard), config.max_seq_length)
        if encoded:
            yield (kind, shard), (group, len(encoded), frame_records(encoded))


def _write_shard(dealt: tuple[tuple[str, int], Iterable[tuple[int, int, bytes]]], units: list[Counts], config: DatasetConfig) -> Any:
    """((kind, shard), parts) -> (kind, entry of the manifest)."""
    (kind, shard), parts = dealt
    parts = sorted(parts)
    data = b"".join(part for _, _, part in parts)
    (name,) = _plan(config, units)[kind]._replace(shards=[shard]).names
    write_atomically(os.path.join(config.output_dir, name), data)
    records = sum(count for _, count, _ in parts)
    return kind, {"file": name, "records": records, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _finish_dataset(config: DatasetConfig, parameters: dict[str, Any], units: list[Counts], entries: list[tuple[str, dict]]) -> None:
    totals = _totals(units)
    kinds = {
        kind: {
            "examples": totals[f"{kind}_examples"],
            "shards": sorted((entry for owner, entry in entries if owner == kind), key=lambda entry: entry["file"]),
        }
        for kind in (TRAIN, HELD_OUT)
    }
    write_json(os.path.join(config.output_dir, MANIFEST), parameters | kinds | {"counts": dataset_builder.with_ratio(totals)})


def build_dataset(config: DatasetConfig) -> None:
    """Runs build_pretraining_dataset.py on Beam: the same bytes as on one machine."""
    dataset_builder.check(config)
    files = expand_files([config.corpus_dir], "corpus_dir")
    parameters = dataset_builder.parameters_of(config, files, dataset_builder.make_tokenizer(config))
    _claim(config.output_dir, [""], config.overwrite)
    arguments = (files, config.blanks_separate_docs, config.eval_fraction, config.seed)
    with _pipeline(config.runner, config.beam_args) as pipeline:
        units = pipeline | beam.Create([arguments]) | beam.FlatMapTuple(read_units) | beam.Reshuffle()
        made = units | beam.ParDo(_Tokenize(config)).with_outputs("counts", main="tables")
        counted = beam.pvalue.AsList(made.counts)
        entries = (
            made.tables
            | beam.FlatMap(_to_groups, counted, config.seed)
            | "Group" >> beam.GroupByKey()
            | beam.FlatMap(_deal, counted, config)
            | "Gather" >> beam.GroupByKey()
            | beam.Map(_write_shard, counted, config)
        )
        start = pipeline | "Start" >> beam.Create([config])
        _ = start | "Manifest" >> beam.Map(_finish_dataset, parameters, counted, beam.pvalue.AsList(entries))
