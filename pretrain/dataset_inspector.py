"""A TFRecord set as an engineer wants to see it before training on it for weeks: examples as text, one masking draw, counts.

Any set with the features input_ids, input_mask and segment_ids will do; the manifest.json that build_pretraining_dataset.py
writes beside its shards is used, and checked, where there is one.
"""

import dataclasses
import fnmatch
import functools
import itertools
import posixpath
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from configure_pretraining import PretrainingConfig
from model import hparams
from model.command import DataError, UserError, read_json
from model.hparams import option
from model.random import RandomState
from model.tokenization import FullTokenizer, check_provenance
from pretrain.build_folder import MANIFEST, WORK, shards_of
from pretrain.example_printer import COLORS, Draw, Example, Printer, Vocabulary, make_console
from pretrain.pretrain_data import FEATURES, Inputs, SpecialTokens
from pretrain.pretrain_helpers import get_candidates_mask, mask
from pretrain.record_checker import (
    Checker,
    Fault,
    Frame,
    FrameError,
    ShardTask,
    Statistics,
    find_misfit,
    read_features,
    read_frames,
)
from pretrain.workers import Workers

SPLITS = {"all": "*tfrecord*", "train": "pretrain_data.tfrecord*", "eval": "eval_data.tfrecord*"}
SAMPLE = 20000  # examples that the summary counts when not all are read, spread over the shards


@dataclasses.dataclass(frozen=True)
class InspectConfig:
    """What to show; every field is a flag of inspect_dataset.py."""

    data: str = option("", "TFRecords: a folder, or files and globs separated by commas; also the --data_dir of a run")
    vocab_file: str = option("", "vocabulary of the data (default: vocab.txt in the folder above, where run_pretraining.py finds it)")
    split: str = option("all", "part of a folder", tuple(SPLITS))
    num_examples: int = option(5, "examples to show")
    start: int = option(0, "example to begin with")
    check: bool = option(False, "instead of showing examples, verify every record and the manifest")
    num_processes: int = option(1, "processes that check")
    color: str = option("auto", "colours; 'auto': on a terminal, unless NO_COLOR is set", COLORS)
    seed: int = option(PretrainingConfig.seed, "seed of the masking draw")
    mask_prob: float = option(PretrainingConfig.mask_prob, "share of tokens that the generator replaces")
    masking: str = option(PretrainingConfig.masking, "how positions are drawn, as in run_pretraining.py", ("unique", "original"))

    @classmethod
    def create(cls, run_hparams: str | None, values: Mapping[str, Any]) -> "InspectConfig":
        """Defaults < what the settings of a pre-training run (--hparams) share with this < `values`."""
        run = hparams.check(PretrainingConfig, hparams.read_hparams(run_hparams)) if run_hparams else {}
        shared: dict[str, Any] = {name: run[name] for name in ("seed", "mask_prob", "masking", "vocab_file") if name in run}
        config = cls(**hparams.check(cls, {**shared, **values}))
        config.validate()
        return config

    def validate(self) -> None:
        if not self.data:
            raise UserError("--data is required: a folder of TFRecords, or files and globs separated by commas")
        for name, low, high in (("num_examples", 0, 10**6), ("start", 0, 2**62), ("seed", 0, 2**62 - 1), ("num_processes", 1, 1024)):
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name} must be from {low} to {high}, got {getattr(self, name)} (--{name})")
        if not 0.0 < self.mask_prob < 1.0:
            raise UserError(f"mask_prob must be between 0 and 1, got {self.mask_prob} (--mask_prob)")


def inspect(config: InspectConfig) -> None:
    """Prints examples and a summary, or with config.check the summary and a verdict; DataError names the first bad record."""
    data = find_data_set(config)
    vocabulary = read_vocabulary(config, data)
    printer = Printer(make_console(config.color), vocabulary)
    if config.check:
        check(config, data, vocabulary, printer)
        return
    for fault in manifest_faults(data):
        printer.bad(str(fault))
    for example in itertools.islice(read_examples(data, vocabulary, config.start), config.num_examples):
        printer.example(example, draw_masks(config, example, vocabulary.special))
    checker = Checker(vocabulary.expectation(data.length))
    limit = -(-SAMPLE // len(data.files))
    statistics = Statistics.empty(checker.expected)
    for path in data.files:
        report = checker.check(ShardTask(path, {}, limit))
        statistics.merge(report.statistics)
        if report.fault:
            printer.bad(str(report.fault))
    printer.summary(statistics, f"up to {limit} examples from each of {len(data.files)} shard(s)")


# ---- what there is


class DataSet(NamedTuple):
    """Shards and what is known of them without reading."""

    patterns: list[str]
    files: list[str]
    manifests: dict[str, dict[str, Any]]  # by folder, {} where there is none
    length: int

    def entry(self, path: str) -> dict[str, Any]:
        """What the manifest says of a shard; {} for one it does not list."""
        return _entries(self.manifests[posixpath.dirname(path)]).get(posixpath.basename(path), {})


def _entries(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {shard["file"]: shard for shard in shards_of(manifest)}


def find_data_set(config: InspectConfig) -> DataSet:
    """Finds shards and manifests; UserError where there are none, or they are of several lengths."""
    patterns = [_pattern(part.strip(), config.split) for part in config.data.split(",") if part.strip()]
    found = {path for pattern in patterns for path in tf.io.gfile.glob(pattern) if ".tmp" not in posixpath.basename(path)}
    files = sorted(found - set(filter(tf.io.gfile.isdir, found)), key=lambda path: (posixpath.basename(path).startswith("eval_data"), path))
    if not files:
        raise UserError(f"no TFRecord files match {','.join(patterns)!r}: run build_pretraining_dataset.py or change --data or --split")
    manifests = {folder: _read_manifest(folder) for folder in sorted({posixpath.dirname(path) for path in files})}
    lengths = {manifest["max_seq_length"]: folder for folder, manifest in manifests.items() if manifest}
    if len(lengths) > 1:
        listed = ", ".join(f"{length} in {folder}" for length, folder in sorted(lengths.items()))
        raise UserError(f"TFRecords of different max_seq_length cannot be inspected together: {listed} (--data)")
    return DataSet(patterns, files, manifests, next(iter(lengths), None) or _length_of_first(files))


def _pattern(part: str, split: str) -> str:
    """A folder as the pattern of its shards; the folder of a run stands for the shards in it."""
    if not tf.io.gfile.isdir(part):
        return part
    inside = posixpath.join(part, "pretrain_tfrecords")
    return posixpath.join(inside if tf.io.gfile.isdir(inside) else part, SPLITS[split])


def _read_manifest(folder: str) -> dict[str, Any]:
    path = posixpath.join(folder, MANIFEST)
    if not tf.io.gfile.exists(path):
        if tf.io.gfile.isdir(posixpath.join(folder, WORK)):
            raise UserError(f"the TFRecords in {folder!r} are unfinished: run build_pretraining_dataset.py to its end (--data)")
        return {}
    manifest = read_json(path, "data")
    if not isinstance(manifest, dict) or manifest.get("format_version") != 1 or not _is_whole(manifest):
        raise UserError(f"{path} is not a manifest of build_pretraining_dataset.py (--data)")
    return manifest


_NEEDED = {
    "tokenizer": ("tokenizer_type", "vocab_sha256", "vocab_size"),
    "counts": ("train_examples", "eval_examples"),
    "train": ("examples", "shards"),
    "eval": ("examples", "shards"),
}


def _is_whole(manifest: Mapping[str, Any]) -> bool:
    parts = all(isinstance(manifest.get(part), dict) and manifest[part].keys() >= {*keys} for part, keys in _NEEDED.items())
    return parts and type(manifest.get("max_seq_length")) is int and manifest["max_seq_length"] > 0


def _length_of_first(files: Sequence[str]) -> int:
    """The length of the first example; DataError where the first record is none."""
    for path in files:
        try:
            frame = next(read_frames(path), None)
        except FrameError as error:
            raise DataError(f"{Fault(path, str(error), 0, error.offset)}: is it a TFRecord file? (--data)") from None
        if frame:
            try:
                length = len(tf.train.Example.FromString(frame.record).features.feature["input_ids"].int64_list.value)
            except Exception as error:
                raise DataError(f"{Fault(path, 'it is not a tf.train.Example', 0, 0)} (--data)") from error
            if not length:
                raise DataError(f"{Fault(path, 'it has no int64 input_ids', 0, 0)} (--data)")
            return length
    raise UserError(f"the TFRecord files {files[0]!r} ... hold no examples (--data)")


def read_vocabulary(config: InspectConfig, data: DataSet) -> Vocabulary:
    """Reads the vocabulary, from above the shards unless --vocab_file names it; UserError if the data were made with another one."""
    first = data.files[0] if "://" in data.files[0] else posixpath.abspath(data.files[0])
    above = posixpath.join(posixpath.dirname(posixpath.dirname(first)), "vocab.txt")
    path = config.vocab_file or (above if tf.io.gfile.exists(above) else "")
    if not path:
        raise UserError(f"--vocab_file is required: there is no {above!r}")
    kinds = [manifest["tokenizer"]["tokenizer_type"] for manifest in data.manifests.values() if manifest]
    kind = kinds[0] if kinds else "sentencepiece" if path.endswith(".model") else "wordpiece"
    tokenizer = FullTokenizer(path, tokenizer_type=kind, analyzer="none")  # nothing is cut here, so no analyser is needed
    own = {name: tokenizer.provenance()[name] for name in ("vocab_sha256", "vocab_size")}
    for folder, manifest in data.manifests.items():
        if manifest:
            check_provenance({name: manifest["tokenizer"][name] for name in own}, own, f"the TFRecords in {folder}")
    return Vocabulary(tokenizer)


# ---- examples


def read_examples(data: DataSet, vocabulary: Vocabulary, start: int) -> Iterator[Example]:
    """Yields the examples from number `start` on; DataError for a record that cannot be read."""
    number, expected = 0, vocabulary.expectation(data.length)
    for path in data.files:
        listed = data.entry(path).get("records", 0)
        if number + listed <= start and listed:
            number += listed
            continue
        for record, frame in enumerate(_frames(path)):
            if number >= start:
                features = _readable(path, record, frame, data.length)
                flaw = find_misfit(features, expected)
                yield Example(number, path, record, frame.offset, features[0], flaw.reason if flaw else None)
            number += 1
    if number <= start:
        raise UserError(f"there is no example {start}: the data hold {number} (--start)")


def _frames(path: str) -> Iterator[Frame]:
    record = 0
    try:
        for frame in read_frames(path):
            yield frame
            record += 1
    except FrameError as error:
        raise DataError(f"{Fault(path, str(error), record, error.offset)}") from None


def _readable(path: str, record: int, frame: Frame, length: int) -> np.ndarray:
    features, flaw = read_features([frame], length)
    if flaw:
        raise DataError(f"{Fault(path, flaw.reason, record, frame.offset)}")
    return features


def draw_masks(config: InspectConfig, example: Example, special: SpecialTokens) -> Draw:
    """One draw by the function that training calls, for the place of `example` in a batch of the whole data set at step 0."""
    run = dataclasses.replace(
        PretrainingConfig(), mask_prob=config.mask_prob, masking=config.masking, max_seq_length=example.features.shape[1]
    )
    if run.max_predictions_per_seq < 1:
        raise UserError(f"mask_prob must be higher for one token of {run.max_seq_length} to be masked, got {run.mask_prob} (--mask_prob)")
    inputs = Inputs(*(tf.constant(example.features[FEATURES.index(name)][None], tf.int32) for name in FEATURES))
    random = RandomState(config.seed, tf.constant(0, tf.int64), tf.constant(example.number, tf.int64))
    masked = mask(run, inputs, special, random)
    assert masked.masked_lm_positions is not None and masked.masked_lm_weights is not None  # mask fills them
    used = masked.masked_lm_weights[0].numpy() > 0
    drawn = np.zeros(example.features.shape[1], bool)
    drawn[masked.masked_lm_positions[0].numpy()[used]] = True
    return Draw(get_candidates_mask(inputs, special)[0].numpy(), drawn, masked.input_ids[0].numpy(), int(used.sum()))


# ---- checking


def check(config: InspectConfig, data: DataSet, vocabulary: Vocabulary, printer: Printer) -> None:
    """Reads every shard and prints a summary; DataError names the first bad record, and stdout the first of every shard."""
    make_checker = functools.partial(Checker, vocabulary.expectation(data.length))
    statistics = Statistics.empty(vocabulary.expectation(data.length))
    tasks = [ShardTask(path, data.entry(path)) for path in data.files]
    faults = []
    total = sum(tf.io.gfile.stat(path).length for path in data.files)
    interval = 0.5 if sys.stderr.isatty() else 30
    with (
        tqdm(total=total, desc="checking", unit="B", unit_scale=True, mininterval=interval, maxinterval=2 * interval) as bar,
        Workers(make_checker, config.num_processes) as workers,
    ):
        for report in workers.map("check", iter(tasks)):
            statistics.merge(report.statistics)
            faults += [report.fault] if report.fault else []
            bar.update(report.size)
    printer.summary(statistics, f"all sound examples in {len(data.files)} shard(s), {total} bytes")
    faults += manifest_faults(data)
    for fault in faults:
        printer.bad(str(fault))
    if faults:
        more = f" (and {len(faults) - 1} more, listed above)" if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{more}: build or copy the data set again")
    bare = [folder for folder, manifest in data.manifests.items() if not manifest]
    printer.line("every record is sound", *(f"; no manifest.json in {folder} to compare with" for folder in bare))


def manifest_faults(data: DataSet) -> list[Fault]:
    """Where the manifests do not agree with themselves, or with the files that are there."""
    faults = []
    for folder, manifest in data.manifests.items():
        entries = _entries(manifest)
        listed = [posixpath.join(folder, name) for name in entries]
        wanted = [path for path in listed if any(_matches(path, pattern) for pattern in data.patterns)]
        faults += [Fault(path, "missing, but manifest.json lists it") for path in wanted if path not in data.files]
        if not manifest:
            continue
        there = [path for path in data.files if posixpath.dirname(path) == folder]
        faults += [Fault(path, "not in the manifest.json beside it") for path in there if path not in listed]
        for part in ("train", "eval"):
            records = sum(shard.get("records", 0) for shard in shards_of(manifest[part]))
            said = {f"{part}.examples": manifest[part]["examples"], f"counts.{part}_examples": manifest["counts"][f"{part}_examples"]}
            path = posixpath.join(folder, MANIFEST)
            faults += [
                Fault(path, f"{key} {value}, expected {records} as in its shards") for key, value in said.items() if value != records
            ]
    return faults


def _matches(path: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(path.removeprefix("./"), pattern.removeprefix("./"))  # a glob of TensorFlow's puts ./ before bare names
