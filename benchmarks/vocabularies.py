"""Compares vocabularies on real text: algorithms x with and without morphemes x sizes, up to a downstream score.

    python benchmarks/vocabularies.py --corpus=reviews.txt.gz --other_text=chats.txt --nsmc_dir=nsmc --output_dir=work/vocabularies

Three stages: build every vocabulary, measure it on text it has not seen, fine-tune a small network from random weights on NSMC
with it. What is finished lies in OUTPUT_DIR/cells and is not done again; results.json, results.md and two plots come last (and after
each seed). One process, so that CPU seconds can be compared.
"""

import dataclasses
import functools
import itertools
import math
import os
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.figure
import scipy.stats
from absl import logging

from model import command, hparams
from model.command import UserError
from model.hparams import option
from model.tokenization import FullTokenizer
from model.words import EOJEOL, WordSplitter
from pretrain.text_files import expand_files, read_lines
from pretrain.vocab_builder import ALGORITHMS, VocabConfig, build, is_held_back

WITH = "mecab_wordpiece"
# Without morphemes each algorithm comes as it is used elsewhere; what it would be with nothing but the morphemes taken away is a
# control where that is something else.
WITHOUT = {name: "sentencepiece" if name.startswith("sentencepiece") else "wordpiece" for name in ALGORITHMS}
CONTROL = "wordpiece"
LENGTH = 48  # pieces of a review, [CLS] and [SEP] included, the same for all
NETWORK = {
    "num_hidden_layers": 1,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_attention_heads": 2,
    "max_position_embeddings": LENGTH,
    "hidden_dropout_prob": 0.0,  # in a single pass nothing is seen twice
    "attention_probs_dropout_prob": 0.0,
}
FINETUNING = {
    "init_checkpoint": "none",
    "task_names": ["nsmc"],
    "model_hparam_overrides": NETWORK,
    "embedding_size": 128,
    "max_seq_length": LENGTH,
    "learning_rate": 5e-4,  # at 1e-3 some runs are still on a plateau, at 69 to 77 %, when the data end
    "layerwise_lr_decay": 0.0,
    "train_batch_size": 32,
    "eval_batch_size": 256,
    "predict_batch_size": 256,
    "num_train_epochs": 1.0,
    "save_checkpoints_steps": 1_000_000,
    "dev_fraction": 0.02,  # nothing is selected in one epoch
}


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """What to compare; every field is a flag."""

    corpus: str = option("", "text to build the vocabularies from: files, globs and folders, separated by commas")
    other_text: str = option("", "text of another domain, to measure them on besides lines held back from the corpus")
    nsmc_dir: str = option("", "folder of ratings_train.txt and ratings_test.txt")
    output_dir: str = option("", "folder for vocabularies, finished cells, tables and plots")
    sizes: str = option("8000,16000,40000", "entries of the vocabularies")
    num_seeds: int = option(3, "fine-tuning runs with each vocabulary")
    train_rows: int = option(30000, "rows of ratings_train.txt to train on, the first ones")
    test_rows: int = option(20000, "rows of ratings_test.txt to test on, the first ones")


class Cell(NamedTuple):
    """One vocabulary."""

    algorithm: str
    tokenizer_type: str
    size: int

    @property
    def name(self) -> str:
        return f"{self.algorithm}-{self.tokenizer_type}-{self.size}"


class Benchmark:
    """All cells of one configuration; what they measured is kept as cells/NAME.json."""

    def __init__(self, config: BenchmarkConfig):
        self._config = config
        sizes = _sizes(config)
        self.cells = [Cell(name, kind, size) for size in sizes for name in ALGORITHMS for kind in (WITH, WITHOUT[name])]
        # Last, so that they are what a short night lacks.
        self.controls = [Cell(name, CONTROL, size) for size in sizes for name in ALGORITHMS if WITHOUT[name] != CONTROL]

    def run(self) -> dict[str, Any]:
        """Does what is not done yet, writes and returns the results."""
        self._check_settings()
        self._lay_out_nsmc()
        for cell in self.cells + self.controls:
            self._keep(cell, "vocabulary", self._build)
            self._keep(cell, "text", self._measure)
            self._keep(cell, "nsmc_rows_cut", self._rows_cut)
        results = self._write()
        for cells in (self.cells, self.controls):
            for seed in range(self._config.num_seeds):
                for cell in cells:
                    self._keep(cell, f"nsmc_seed_{seed}", functools.partial(self._finetune, seed=seed))
                results = self._write()
        return results

    # --- finished parts

    def _check_settings(self) -> None:
        """What lies in output_dir may only be gone on with under the same settings; more seeds are welcome."""
        path, own = self._path("settings.json"), _settings(self._config)
        found = command.read_json(path, "output_dir") if os.path.exists(path) else own
        for name in own:
            if found.get(name) != own[name]:
                raise UserError(f"{self._config.output_dir} was made with {name} {found.get(name)!r}, not {own[name]!r} (--output_dir)")
        os.makedirs(self._config.output_dir, exist_ok=True)
        command.write_json(path, own)

    def _path(self, *names: str) -> str:
        return os.path.join(self._config.output_dir, *names)

    def _load(self, cell: Cell) -> dict[str, Any]:
        path = self._path("cells", f"{cell.name}.json")
        return command.read_json(path, "output_dir") if os.path.exists(path) else {}

    def _keep(self, cell: Cell, part: str, measure: Callable[[Cell], Any]) -> None:
        """Adds `part` to what is known of `cell`, unless it is there."""
        known = self._load(cell)
        if part not in known:
            found = measure(cell)
            logging.info("%s %s: %s", cell.name, part, found)
            os.makedirs(self._path("cells"), exist_ok=True)
            command.write_json(self._path("cells", f"{cell.name}.json"), {**cell._asdict(), **known, part: found})

    # --- the stages

    def _build(self, cell: Cell) -> dict[str, Any]:
        wall, cpu = time.monotonic(), time.process_time()
        report = build(
            VocabConfig(
                corpus=self._config.corpus,
                output_dir=self._path("vocabularies", cell.name),
                algorithm=cell.algorithm,
                tokenizer_type=cell.tokenizer_type,
                vocab_size=cell.size,
                overwrite=True,
            )
        )
        seconds = {"cpu_seconds": round(time.process_time() - cpu, 1), "wall_seconds": round(time.monotonic() - wall, 1)}
        return {"entries": report["tokenizer"]["vocab_size"], **seconds}

    def _vocab_file(self, cell: Cell) -> str:
        return self._path("vocabularies", cell.name, "vocab.txt")

    def _tokenizer(self, cell: Cell) -> FullTokenizer:
        return FullTokenizer(self._vocab_file(cell), tokenizer_type=cell.tokenizer_type)

    @functools.cached_property
    def _texts(self) -> dict[str, Counter[str]]:
        texts = {"held_back": count_eojeols(filter(is_held_back, map(str.strip, _lines(self._config.corpus, "corpus"))))}
        if self._config.other_text:
            texts["other"] = count_eojeols(_lines(self._config.other_text, "other_text"))
        for name, eojeols in texts.items():
            if not eojeols:
                raise UserError(f"no text to measure on: the {name.replace('_', ' ')} lines hold no words (--corpus, --other_text)")
        return texts

    def _measure(self, cell: Cell) -> dict[str, Any]:
        tokenizer, reference = self._tokenizer(cell), WordSplitter(analyzer="mecab")
        return {name: measure(tokenizer, reference, eojeols) for name, eojeols in self._texts.items()}

    def _lay_out_nsmc(self) -> None:
        """The first rows of both files; the official ones are in random order."""
        for name, rows in (("ratings_train.txt", self._config.train_rows), ("ratings_test.txt", self._config.test_rows)):
            lines = list(itertools.islice(read_lines(os.path.join(self._config.nsmc_dir, name)), 1 + rows))
            os.makedirs(self._path("raw", "nsmc"), exist_ok=True)
            command.write_atomically(self._path("raw", "nsmc", name), "\n".join(lines) + "\n")

    def _rows_cut(self, cell: Cell) -> float:
        """The share of the test reviews that are longer than LENGTH."""
        tokenizer = self._tokenizer(cell)
        rows = [line.split("\t")[1] for line in read_lines(self._path("raw", "nsmc", "ratings_test.txt"))][1:]
        return round(sum(len(tokenizer.encode(row)) > LENGTH - 2 for row in rows) / len(rows), 5)

    def _finetune(self, cell: Cell, seed: int) -> dict[str, Any]:
        """The test accuracy of a run, its CPU time, and how many weights it had."""
        from configure_finetuning import FinetuningConfig  # here, because TensorFlow takes seconds to import
        from finetune.finetuning_run import FinetuningRun

        cpu, folder = time.process_time(), self._path("nsmc", cell.name)
        config = FinetuningConfig.create(
            cell.name,
            folder,
            {
                **FINETUNING,
                "seed": seed,
                "vocab_file": self._vocab_file(cell),
                "tokenizer_type": cell.tokenizer_type,
                "raw_data_dir": self._path("raw"),
            },
        )
        for leftover in (config.results_dir, config.model_dir):  # of a run that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        trial = FinetuningRun(config).run().find(seed)
        assert trial is not None
        parameters = _count_parameters(config.model_dir)
        shutil.rmtree(config.model_dir)  # the score is all that is wanted of it
        accuracy = trial["scores"]["nsmc"]["test"]["accuracy"]
        return {"accuracy": accuracy, "parameters": parameters, "cpu_seconds": round(time.process_time() - cpu, 1)}

    def _write(self) -> dict[str, Any]:
        rows = [summarize(self._load(cell)) for cell in self.cells + self.controls]
        results = {
            "settings": _settings(self._config),
            "comparisons": {
                "morphemes against the algorithm as it is used elsewhere": compare(rows, WITHOUT),
                "morphemes against plain WordPiece with pieces by the same algorithm": compare(rows, dict.fromkeys(ALGORITHMS, CONTROL)),
            },
            "seed_std": seed_spread(rows),
            "cells": rows,
        }
        command.write_json(self._path("results.json"), results)
        command.write_atomically(self._path("results.md"), format_results(results))
        draw(rows, self._config.output_dir)
        return results


def _settings(config: BenchmarkConfig) -> dict[str, Any]:
    """What the results of a cell depend on."""
    names = ("corpus", "other_text", "nsmc_dir", "train_rows", "test_rows")
    return {name: getattr(config, name) for name in names} | {"finetuning": FINETUNING}


def _sizes(config: BenchmarkConfig) -> list[int]:
    for name in ("corpus", "nsmc_dir", "output_dir"):
        if not getattr(config, name):
            raise UserError(f"--{name} is required")
    sizes = config.sizes.split(",")
    if not all(size.isdecimal() for size in sizes):
        raise UserError(f"sizes must be whole numbers separated by commas, got {config.sizes!r} (--sizes)")
    return [int(size) for size in sizes]


def _lines(patterns: str, flag: str) -> Iterable[str]:
    return itertools.chain.from_iterable(map(read_lines, expand_files([patterns], flag)))


def _count_parameters(model_dir: str) -> int:
    """Weights of the one model below `model_dir`."""
    from model import checkpoint

    folder = next(path for path, _, _ in os.walk(model_dir) if os.path.basename(path) == "best")
    return sum(map(math.prod, checkpoint.read_shapes(checkpoint.resolve(folder)).values()))


# ---- measuring


def count_eojeols(lines: Iterable[str]) -> Counter[str]:
    """["가 나", "가"] -> {"가": 2, "나": 1}"""
    return Counter(itertools.chain.from_iterable(map(EOJEOL.findall, lines)))


def measure(tokenizer: FullTokenizer, reference: WordSplitter, eojeols: Counter[str]) -> dict[str, float]:
    """How `tokenizer` cuts `eojeols`, and how that agrees with the morphemes that `reference` finds in them.

    fertility: pieces per eojeol. unk_eojeols: share of the eojeols with an [UNK]. whole_morphemes: share of the pieces that stand
    for exactly one morpheme. morphemes_kept: share of the morphemes of two and more characters that are exactly one piece.
    """
    totals: Counter[str] = Counter()
    for eojeol, count in eojeols.items():
        pieces = tokenizer.tokenize_with_offsets(eojeol)
        known = {(piece.start, piece.end) for piece in pieces if piece.text != tokenizer.unk_token}
        spans = morpheme_spans(reference, eojeol)
        long = [span for span in spans if span[1] - span[0] > 1]
        totals["eojeols"] += count
        totals["pieces"] += count * len(pieces)
        totals["with_unk"] += count * any(piece.text == tokenizer.unk_token for piece in pieces)
        totals["whole"] += count * len(known.intersection(spans))
        totals["long"] += count * len(long)
        totals["long_kept"] += count * len(known.intersection(long))
    return {
        "eojeols": totals["eojeols"],
        "fertility": round(totals["pieces"] / totals["eojeols"], 4),
        "unk_eojeols": round(totals["with_unk"] / totals["eojeols"], 6),
        "whole_morphemes": round(totals["whole"] / totals["pieces"], 4),
        "morphemes_kept": round(totals["long_kept"] / totals["long"], 4),
    }


def morpheme_spans(reference: WordSplitter, eojeol: str) -> list[tuple[int, int]]:
    """Where the morphemes of `eojeol` stand in it: "심각합니다." -> [(0, 2), (2, 5), (5, 6)]."""
    clean = reference.normalize(eojeol)
    spans = []
    for start, morphs in reference.split(clean.text):
        for morph in morphs:
            spans.append(clean.span(start, start + len(morph)))
            start += len(morph)
    return spans


# ---- reporting


def summarize(known: Mapping[str, Any]) -> dict[str, Any]:
    """A finished cell as one row of the results; accuracy: by seed, mean and standard deviation of as many as there are."""
    runs = [value for name, value in sorted(known.items()) if name.startswith("nsmc_seed_")]
    accuracies = [run["accuracy"] for run in runs]
    row = {name: known[name] for name in ("algorithm", "tokenizer_type", "size", "text", "nsmc_rows_cut")} | known["vocabulary"]
    row |= {"accuracies": accuracies, "finetuning_cpu_seconds": [run["cpu_seconds"] for run in runs]}
    return row | {
        "parameters": runs[0]["parameters"] if runs else None,
        "accuracy": round(statistics.fmean(accuracies), 3) if runs else None,
        "accuracy_std": round(statistics.stdev(accuracies), 3) if len(runs) > 1 else None,
    }


def compare(rows: Sequence[Mapping[str, Any]], without: Mapping[str, str]) -> dict[str, Any] | None:
    """What morphemes add to the accuracy, in points: pairs of the same algorithm, size and seed; None before there are two pairs.

    without: algorithm -> the tokenizer type to compare with. mean and interval (95 %, Student's t) are over the pairs' means.
    """
    found = {(row["algorithm"], row["tokenizer_type"], row["size"]): row["accuracies"] for row in rows}
    pairs = []
    for (algorithm, kind, size), accuracies in found.items():
        others = found.get((algorithm, without[algorithm], size), [])
        if kind == WITH and accuracies and others:
            gains = [round(a - b, 3) for a, b in zip(accuracies, others, strict=False)]
            pairs.append({"algorithm": algorithm, "size": size, "gains": gains, "mean": round(statistics.fmean(gains), 3)})
    if len(pairs) < 2:
        return None
    means = [pair["mean"] for pair in pairs]
    half = float(scipy.stats.t.ppf(0.975, len(means) - 1)) * statistics.stdev(means) / math.sqrt(len(means))
    mean = statistics.fmean(means)
    seeds = range(min(len(pair["gains"]) for pair in pairs))
    return {
        "mean": round(mean, 3),
        "interval": [round(mean - half, 3), round(mean + half, 3)],
        "by_size": _group_means(pairs, "size"),
        "by_algorithm": _group_means(pairs, "algorithm"),
        "by_seed": [round(statistics.fmean(pair["gains"][seed] for pair in pairs), 3) for seed in seeds],
        "pairs": pairs,
    }


def _group_means(pairs: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    names = dict.fromkeys(pair[key] for pair in pairs)
    return {str(name): round(statistics.fmean(pair["mean"] for pair in pairs if pair[key] == name), 3) for name in names}


def seed_spread(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The standard deviation between seeds, pooled over the cells."""
    variances = [row["accuracy_std"] ** 2 for row in rows if row["accuracy_std"] is not None]
    return round(math.sqrt(statistics.fmean(variances)), 3) if variances else None


_COLUMNS = (
    "algorithm",
    "tokenizer type",
    "size",
    "pieces per eojeol",
    "eojeols with [UNK], %",
    "pieces that are morphemes, %",
    "morphemes kept, %",
    "CPU s",
    "reviews cut, %",
    "weights, M",
    "NSMC accuracy",
)


def format_results(results: Mapping[str, Any]) -> str:
    """The results as Markdown. Two numbers in a cell: on the lines held back / on the other text."""
    table = [_COLUMNS, ("---",) * len(_COLUMNS), *map(_format_row, results["cells"])]
    lines = ["| " + " | ".join(row) + " |" for row in table]
    for name, comparison in results["comparisons"].items():
        if comparison:
            low, high = comparison["interval"]
            lines += ["", f"{name}: {comparison['mean']:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}", ""]
            lines += _format_gains(comparison)
    return "\n".join([*lines, "", f"standard deviation between seeds: {results['seed_std']}"]) + "\n"


def _format_gains(comparison: Mapping[str, Any]) -> list[str]:
    """Lines of a table of algorithms by sizes: the mean gain, and in parentheses the gain with each seed."""
    sizes, found = list(comparison["by_size"]), {(pair["algorithm"], str(pair["size"])): pair for pair in comparison["pairs"]}
    rows = [["gain, points", *(f"{int(size):,}" for size in sizes), "mean"], ["---"] * (len(sizes) + 2)]
    for algorithm, mean in comparison["by_algorithm"].items():
        pairs = [found.get((algorithm, size)) for size in sizes]
        cells = [f"{pair['mean']:+.2f} ({' '.join(f'{gain:+.2f}' for gain in pair['gains'])})" if pair else "" for pair in pairs]
        rows.append([algorithm, *cells, f"{mean:+.2f}"])
    rows.append(["mean", *(f"{gain:+.2f}" for gain in comparison["by_size"].values()), f"{comparison['mean']:+.2f}"])
    return ["| " + " | ".join(row) + " |" for row in rows]


def _format_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    def numbers(name: str, factor: float, digits: int) -> str:
        return " / ".join(f"{factor * text[name]:.{digits}f}" for text in row["text"].values())

    spread = "" if row["accuracy_std"] is None else f" ({row['accuracy_std']:.2f})"
    return (
        row["algorithm"],
        row["tokenizer_type"],
        f"{row['size']:,}",
        numbers("fertility", 1, 3),
        numbers("unk_eojeols", 100, 3),
        numbers("whole_morphemes", 100, 1),
        numbers("morphemes_kept", 100, 1),
        f"{row['cpu_seconds']:.0f}",
        f"{100 * row['nsmc_rows_cut']:.1f}",
        "" if row["parameters"] is None else f"{row['parameters'] / 1e6:.2f}",
        "" if row["accuracy"] is None else f"{row['accuracy']:.2f}{spread}",
    )


def draw(rows: Sequence[Mapping[str, Any]], folder: str) -> None:
    """fertility.png and nsmc.png: one line per algorithm, broken where there are no morphemes."""
    plots = {
        "fertility.png": ("pieces per eojeol, held-back lines", lambda row: (row["text"]["held_back"]["fertility"], 0.0)),
        "nsmc.png": ("NSMC test accuracy, mean and standard deviation", lambda row: (row["accuracy"], row["accuracy_std"] or 0.0)),
    }
    for name, (label, value) in plots.items():
        figure = matplotlib.figure.Figure(figsize=(8.5, 4.5), layout="constrained")
        axes = figure.add_subplot(xscale="log", xlabel="entries of the vocabulary", ylabel=label)
        sizes = sorted({row["size"] for row in rows})
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        for index, (algorithm, without) in enumerate(WITHOUT.items()):
            for kind, style in ((WITH, "o-"), (without, "s--")):
                own = [row for row in rows if (row["algorithm"], row["tokenizer_type"]) == (algorithm, kind) and value(row)[0] is not None]
                shift = 1 + 0.012 * (2 * index - 3 + (kind == WITH))  # so that error bars stand side by side
                points = [(row["size"] * shift, *value(row)) for row in own]
                if points:
                    x, y, spread = zip(*points, strict=True)
                    axes.errorbar(x, y, spread, fmt=style, color=f"C{index}", markersize=4, label=f"{algorithm}, {kind}")
        if axes.containers:
            figure.legend(loc="outside right upper", fontsize="x-small")
        axes.grid(alpha=0.3)
        figure.savefig(os.path.join(folder, name), dpi=100)


def main() -> None:
    """Reads the flags, does what is not done yet, and prints the tables."""
    logging.set_verbosity(logging.INFO)
    config = BenchmarkConfig(**hparams.check(BenchmarkConfig, hparams.collect(BenchmarkConfig, None)))
    print(format_results(Benchmark(config).run()))


if __name__ == "__main__":
    hparams.define_flags(BenchmarkConfig)
    command.run(main)
