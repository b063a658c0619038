"""From text to training examples: ExampleBuilder packs token ids, `build` runs it over a corpus in parallel.

corpus -> blocks -> units of work -> (a process each) token ids -> examples -> one file per unit in the build folder
       -> all units, shuffled and dealt like cards -> TFRecord shards -> manifest.json

Whatever is random is drawn from (seed, place in the corpus), and units depend on the text alone; so neither the number of
processes nor an interruption changes a byte.
"""

import dataclasses
import functools
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from tqdm import tqdm

from model.command import UserError
from model.hparams import option
from model.morphemes import ANALYZERS
from model.tokenization import TOKENIZER_TYPES, FullTokenizer
from pretrain.build_folder import BuildFolder
from pretrain.draws import FOR_DEALING, FOR_EXAMPLES, FOR_UNIT_ORDER, Draws
from pretrain.example_writer import Example, ExampleTable, ExampleWriter
from pretrain.text_files import expand_files, stored_size, unpacked_size
from pretrain.units import Unit, read_blocks, read_units
from pretrain.workers import RUNNERS, Workers

FORMAT_VERSION = 1
TRAIN, HELD_OUT = "train", "eval"  # their keys in the manifest
FILE_PREFIX = {TRAIN: "pretrain_data.tfrecord", HELD_OUT: "eval_data.tfrecord"}
SHARD = r"(pretrain|eval)_data\.tfrecord-\d+-of-\d+"
UNITS_SHUFFLED_AT_ONCE = 64  # some 30 to 60 MB of text
SHARDS_AT_ONCE = 100  # open files of one process
MIN_SEQ_LENGTH = 5  # the shortest target that ExampleBuilder draws


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """What to build; every field is a flag of build_pretraining_dataset.py."""

    corpus_dir: str = option("", "text to read: files, globs and folders, separated by commas; .gz, .xz, .zst and .zip are unpacked")
    vocab_file: str = option("", "vocabulary made by build_vocab.py")
    output_dir: str = option("", "folder for the TFRecord shards and manifest.json")
    max_seq_length: int = option(128, "tokens in an example")
    num_processes: int = option(1, "processes that work; does not change the result")
    num_out_files: int = option(1000, "training shards")
    blanks_separate_docs: bool = option(True, "whether a blank line ends a document; otherwise only the end of a file does")
    tokenizer_type: str = option("mecab_wordpiece", "how text is cut", TOKENIZER_TYPES)
    analyzer: str = option("mecab", "morpheme analyser", ANALYZERS)
    do_lower_case: bool = option(False, "lower-case the text")
    strip_accents: bool = option(False, "strip accents from letters")
    seed: int = option(42, "what all random choices depend on")
    # One in 200: 22 GB of text still train on all but 110 MB, and the 43 MB of a review corpus give some hundred examples to
    # evaluate on, some ten thousand masked tokens, which fixes an accuracy to half a point.
    eval_fraction: float = option(0.005, "part of the text held out for evaluation, by documents (long ones: by runs of lines)")
    overflow: str = option("discard", "tokens beyond max_seq_length are lost, or open the next example", ("discard", "carry"))
    overwrite: bool = option(False, "remove an earlier build from output_dir, or build into a folder that holds other files")
    runner: str = option("local", "where it runs: in processes of this machine, or on one of Apache Beam's runners", RUNNERS)
    beam_args: str = option("", "arguments for the Beam runner, as in a shell: '--direct_num_workers=4'")


class ExampleBuilder:
    """Packs sentences (lists of token ids) into examples of one or two segments (google-research/electra, class ExampleBuilder).

    Sentences of a document are gathered until the target length is reached; then they become one example.

    draws: has uniform() in [0, 1) and integer(low, high), both ends included; called in the original's order.
    carry: Unlike google-research/electra, tokens beyond `max_length` open the next example instead of being discarded.
    """

    def __init__(self, max_length: int, cls_id: int, sep_id: int, draws: Any, carry: bool = False) -> None:
        self._max_length = max_length
        self._target_length = max_length
        self._cls_id = cls_id
        self._sep_id = sep_id
        self._draws = draws
        self._carry = carry
        self._sentences: list[list[int]] = []
        self._length = 0
        self.discarded_tokens = 0

    def add_line(self, ids: list[int]) -> list[Example]:
        """Adds one sentence, and returns the examples it completes: one at most, unless tokens are carried over."""
        if ids:
            self._sentences.append(ids)
            self._length += len(ids)
        examples = []
        while self._length >= self._target_length:
            examples.append(self._create_example())
        return examples

    def end_document(self) -> list[Example]:
        """Returns what is left of the document: no example spans two."""
        examples = []
        while self._length:
            examples.append(self._create_example())
        return examples

    def _create_example(self) -> Example:
        first, second = self._split_segments()
        first, rest_of_first = _cut(first, self._max_length - 2)
        second, rest_of_second = _cut(second, max(0, self._max_length - len(first) - 3))
        rest = rest_of_first + rest_of_second
        self._sentences = [rest] if rest and self._carry else []
        self._length = len(rest) if self._carry else 0
        self.discarded_tokens += 0 if self._carry else len(rest)
        # As in google-research/electra: a short target is drawn when an example closes, and holds for the next one.
        short = self._draws.uniform() < 0.05
        self._target_length = self._draws.integer(5, self._max_length) if short else self._max_length
        ids = [self._cls_id, *first, self._sep_id]
        return Example(ids + second + [self._sep_id] if second else ids, len(ids))

    def _split_segments(self) -> tuple[list[int], list[int]]:
        """One segment in a tenth of the examples, else two: the first filled to about half of the target length."""
        one_segment = self._draws.uniform() < 0.1
        first_target = math.inf if one_segment else (self._target_length - 3) // 2
        first: list[int] = []
        second: list[int] = []
        for sentence in self._sentences:
            fits = not first or len(first) + len(sentence) < first_target
            # As in google-research/electra: the sentence that would overflow the first segment still joins it half of the time.
            if fits or (not second and len(first) < first_target and self._draws.uniform() < 0.5):
                first += sentence
            else:
                second += sentence
        return first, second


def _cut(tokens: list[int], length: int) -> tuple[list[int], list[int]]:
    return tokens[:length], tokens[length:]


# ---- what one process does

UNIT_COUNTS = ("train_examples", "eval_examples", "tokens", "discarded_tokens", "unk_tokens")


class Worker:
    """What one process does: `tokenize` units, then `write_shards`."""

    def __init__(self, config: DatasetConfig) -> None:
        self._config = config
        self._folder = BuildFolder(config.output_dir, SHARD)

    @functools.cached_property
    def tokenizer(self) -> FullTokenizer:
        """Made where it is used: a Java analyser does not survive the way into another process."""
        return make_tokenizer(self._config)

    def tokenize(self, unit: Unit) -> tuple[int, list[int]]:
        """Writes the examples of `unit` into the build folder; returns its size and its UNIT_COUNTS."""
        counts, tables = self.make_examples(unit)
        columns = {f"{kind}_{column}": values for kind, table in tables.items() for column, values in vars(table).items()}
        self._folder.write_unit(unit.name, counts=np.array(counts, np.int64), **columns)
        return unit.size, counts

    def make_examples(self, unit: Unit) -> tuple[list[int], dict[str, ExampleTable]]:
        """Returns the UNIT_COUNTS of `unit`, and its examples by kind."""
        builders = {fate: self._example_builder(unit.number, fate) for fate in (False, True)}
        examples: dict[bool, list[Example]] = {False: [], True: []}
        encode, unknown_id = self.tokenizer.encode, self.tokenizer.unk_id
        tokens = unknown = 0
        for fate, lines in unit.parts:
            builder, made = builders[fate], examples[fate]
            for line in lines:
                if line:
                    ids = encode(line)
                    tokens += len(ids)
                    unknown += ids.count(unknown_id)
                    made += builder.add_line(ids)
                else:
                    made += builder.end_document()
            made += builder.end_document()  # also where a document goes on in the other set or the next unit
        discarded = sum(builder.discarded_tokens for builder in builders.values())
        counts = [len(examples[False]), len(examples[True]), tokens, discarded, unknown]
        return counts, {TRAIN: ExampleTable.from_examples(examples[False]), HELD_OUT: ExampleTable.from_examples(examples[True])}

    def _example_builder(self, unit: int, held_out: bool) -> ExampleBuilder:
        draws = Draws(self._config.seed, FOR_EXAMPLES, unit, int(held_out))
        tokenizer = self.tokenizer
        return ExampleBuilder(self._config.max_seq_length, tokenizer.cls_id, tokenizer.sep_id, draws, self._config.overflow == "carry")

    def write_shards(self, deal: "Deal") -> int:
        """Writes the shards of `deal`, and returns how many."""
        with self._folder.new_shards(deal.names) as paths:
            writers = [ExampleWriter(path, self._config.max_seq_length) for path in paths]
            for table, dealt in self._shuffled(deal.kind, deal.num_shards):
                for shard, writer in zip(deal.shards, writers, strict=True):
                    writer.write(table, dealt(shard))
            self._folder.write_entries({name: writer.close() for name, writer in zip(deal.names, writers, strict=True)})
        return len(writers)

    def _shuffled(self, kind: str, num_shards: int) -> Iterator[tuple[ExampleTable, Callable[[int], np.ndarray]]]:
        """Yields the examples in large random groups, each with a function from a shard's number to its rows."""
        units = self._folder.read_json("units")["names"]
        columns = [f"{kind}_{column}" for column in ("ids", "lengths", "seconds")]
        dealt = 0
        for group, numbers in enumerate(group_units(len(units), self._config.seed)):
            table = ExampleTable.concatenate([ExampleTable(*self._folder.read_unit(units[i], *columns)) for i in numbers])
            yield table, shuffle_and_deal(len(table.lengths), self._config.seed, kind, group, dealt, num_shards)
            dealt += len(table.lengths)


# Units come in random order, so that a shard is no walk through the corpus; the examples of 64 of them are shuffled together and
# dealt out in turn, the next group going on where the last one stopped: shard sizes differ by one at most.


def group_units(number: int, seed: int) -> list[list[int]]:
    """The numbers of the units, 0 to number - 1, in random order, in groups that are shuffled together."""
    order = Draws(seed, FOR_UNIT_ORDER).permutation(number).tolist()
    return [order[start : start + UNITS_SHUFFLED_AT_ONCE] for start in range(0, number, UNITS_SHUFFLED_AT_ONCE)]


def shuffle_and_deal(examples: int, seed: int, kind: str, group: int, dealt: int, num_shards: int) -> Callable[[int], np.ndarray]:
    """Returns a function from a shard's number to its rows of a group of examples; `dealt`: those of the groups before."""
    rows = Draws(seed, FOR_DEALING, int(kind == HELD_OUT), group).permutation(examples)
    return lambda shard: rows[(shard - dealt) % num_shards :: num_shards]


class Deal(NamedTuple):
    """The shards numbered `shards`, of `num_shards` in all."""

    kind: str
    shards: list[int]
    num_shards: int

    @property
    def names(self) -> list[str]:
        return [f"{FILE_PREFIX[self.kind]}-{shard:05d}-of-{self.num_shards:05d}" for shard in self.shards]


# ---- the whole build


def make_tokenizer(config: DatasetConfig) -> FullTokenizer:
    """The tokenizer that `config` describes."""
    return FullTokenizer(
        config.vocab_file,
        do_lower_case=config.do_lower_case,
        tokenizer_type=config.tokenizer_type,
        analyzer=config.analyzer,
        strip_accents=config.strip_accents,
    )


def build(config: DatasetConfig) -> dict[str, Any]:
    """Builds the data set, or what is missing of it, and returns its manifest.

    Raises UserError for settings that make no sense and for an output folder that holds something else, before anything is
    written; DataError for text that is not UTF-8.
    """
    check(config)
    files = expand_files([config.corpus_dir], "corpus_dir")
    if next(read_blocks(files, True), None) is None:
        raise UserError(f"no text in {config.corpus_dir!r}: {len(files)} file(s), none with a line that is not blank (--corpus_dir)")
    tokenizer = make_tokenizer(config)
    parameters = parameters_of(config, files, tokenizer)
    folder = BuildFolder(config.output_dir, SHARD)
    manifest = folder.claim(parameters, config.overwrite, inputs=("corpus",))
    if manifest is not None:
        logging.info("%s holds this data set already: nothing to do", config.output_dir)
        return manifest
    with folder.locked(), Workers(functools.partial(Worker, config), config.num_processes) as workers:
        if not folder.has_json("units"):
            folder.write_json("units", _tokenize(config, files, folder, workers))
        summary = folder.read_json("units")
        manifest = parameters | _write_shards(config, summary["counts"], folder, workers) | {"counts": summary["counts"]}
        folder.finish(manifest)
    _report(manifest)
    return manifest


def check(config: DatasetConfig) -> None:
    for name in ("corpus_dir", "vocab_file", "output_dir"):
        if not getattr(config, name):
            raise UserError(f"--{name} is required")
    if "://" in config.output_dir:
        raise UserError(f"--output_dir must be a folder on this machine, got {config.output_dir!r}; copy the data set afterwards")
    for folder in filter(os.path.isdir, config.corpus_dir.split(",")):
        if os.path.realpath(config.output_dir).startswith(os.path.join(os.path.realpath(folder), "")):
            raise UserError(f"--output_dir={config.output_dir} lies in --corpus_dir={folder}: the shards would be read as text next time")
    limits = {
        "max_seq_length": (MIN_SEQ_LENGTH, 1 << 16),
        "num_out_files": (1, 99999),
        "num_processes": (1, 1024),
        "seed": (0, 1 << 63),
        "eval_fraction": (0, 0.5),
    }
    for name, (low, high) in limits.items():
        if not low <= getattr(config, name) <= high:
            raise UserError(f"{name} must be from {low} to {high}, got {getattr(config, name)} (--{name})")


def parameters_of(config: DatasetConfig, files: Sequence[str], tokenizer: FullTokenizer) -> dict[str, Any]:
    """All that the bytes of the data set depend on."""
    names = ("max_seq_length", "num_out_files", "seed", "blanks_separate_docs", "eval_fraction", "overflow")
    corpus = [{"file": os.path.basename(file), "bytes": stored_size(file)} for file in files]
    settings = {name: getattr(config, name) for name in names}
    return {"format_version": FORMAT_VERSION} | settings | {"tokenizer": tokenizer.provenance(), "corpus": corpus}


def _tokenize(config: DatasetConfig, files: Sequence[str], folder: BuildFolder, workers: Workers) -> dict[str, Any]:
    """Makes the examples of every unit that lacks its file; returns the units' names in order and what was counted."""
    names = []
    counts = Counter(dict.fromkeys(("documents", "lines", "bytes", *UNIT_COUNTS), 0))
    with _progress(sum(map(unpacked_size, files)), "tokenizing", "B") as bar:

        def unfinished() -> Iterator[Unit]:
            for unit in read_units(files, config.blanks_separate_docs, config.eval_fraction, config.seed):
                names.append(unit.name)
                counts.update(documents=unit.documents, lines=unit.lines, bytes=unit.size)
                if not folder.has_unit(names[-1]):
                    yield unit
                else:
                    (done,) = folder.read_unit(names[-1], "counts")
                    counts.update(dict(zip(UNIT_COUNTS, done.tolist(), strict=True)))
                    bar.update(unit.size)

        for size, unit_counts in workers.map("tokenize", unfinished()):
            counts.update(dict(zip(UNIT_COUNTS, unit_counts, strict=True)))
            bar.update(size)
    return {"names": names, "counts": with_ratio(dict(counts))}


def with_ratio(counts: dict[str, Any]) -> dict[str, Any]:
    """The manifest's counts."""
    return counts | {"pieces_per_line": round(counts["tokens"] / counts["lines"], 4)}


def _write_shards(config: DatasetConfig, counts: dict[str, Any], folder: BuildFolder, workers: Workers) -> dict[str, Any]:
    """Writes the shards that are missing; returns the manifest's entries "train" and "eval"."""
    examples = {kind: counts[f"{kind}_examples"] for kind in (TRAIN, HELD_OUT)}
    deals = plan_deals(config, examples)
    tasks = []
    for deal in deals:
        missing = [shard for shard, name in zip(deal.shards, deal.names, strict=True) if folder.entry(name) is None]
        size = max(1, min(SHARDS_AT_ONCE, math.ceil(len(missing) / config.num_processes)))
        tasks += [deal._replace(shards=missing[start : start + size]) for start in range(0, len(missing), size)]
    with _progress(sum(len(task.shards) for task in tasks), "writing", "shard") as bar:
        for written in workers.map("write_shards", iter(tasks)):
            bar.update(written)
    return {deal.kind: {"examples": examples[deal.kind], "shards": [folder.entry(name) for name in deal.names]} for deal in deals}


def plan_deals(config: DatasetConfig, examples: dict[str, int]) -> list[Deal]:
    """All shards of both kinds. Unlike google-research/electra none is empty: few examples make fewer shards."""
    if not examples[TRAIN]:
        raise UserError("no examples to train on: the corpus is too small to hold some of it out (--eval_fraction=0)")
    if config.eval_fraction and not examples[HELD_OUT]:
        logging.warning("nothing is held out: the corpus is too small for an eval_fraction of %g", config.eval_fraction)
    wanted = {TRAIN: config.num_out_files, HELD_OUT: math.ceil(config.num_out_files * config.eval_fraction)}
    numbers = {kind: min(wanted[kind], examples[kind]) for kind in wanted}
    for kind, number in numbers.items():
        if 0 < number < wanted[kind]:
            logging.warning("%d %s examples make %d shards, not %d", examples[kind], kind, number, wanted[kind])
    return [Deal(kind, list(range(number)), number) for kind, number in numbers.items()]


def _progress(total: int, what: str, unit: str) -> tqdm:
    """A bar on stderr with speed and time left; in a log file a line every half minute."""
    interval = 0.5 if sys.stderr.isatty() else 30
    return tqdm(total=total, desc=what, unit=unit, unit_scale=unit == "B", mininterval=interval, maxinterval=2 * interval)


def _report(manifest: dict[str, Any]) -> None:
    counts = manifest["counts"]
    logging.info(
        "%d examples to train on in %d shards, %d held out in %d; of %d tokens %.2f %% were discarded, %.3f %% unknown",
        *(number for kind in (TRAIN, HELD_OUT) for number in (manifest[kind]["examples"], len(manifest[kind]["shards"]))),
        counts["tokens"],
        100 * counts["discarded_tokens"] / max(1, counts["tokens"]),
        100 * counts["unk_tokens"] / max(1, counts["tokens"]),
    )
