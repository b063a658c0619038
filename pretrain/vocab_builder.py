"""Corpus to vocabulary: counts the marked words of a corpus and chooses the pieces to keep.

Out go vocab.txt, vocab.json (how it was made and how it does on lines it has not seen) and, for text that sentencepiece shall
cut, vocab.model.
The same corpus and flags give the same bytes, in every run and with any number of processes.

Ids: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, then [unused0] ..., then the pieces.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import os
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from absl import logging
from tqdm import tqdm

from model import morphemes, tokenization
from model.command import UserError, locked, make_folder, write_atomically, write_json
from model.hparams import option
from model.tokenization import CACHE_SIZE, SPECIAL_TOKENS, FullTokenizer
from model.words import EOJEOL, WordSplitter
from pretrain import piece_trainers
from pretrain.text_files import expand_files, read_lines, stored_size, unpacked_size
from pretrain.workers import Workers

FORMAT_VERSION = 1
ALGORITHMS = ("wordpiece", "morpheme_frequency", "sentencepiece_unigram", "sentencepiece_bpe")
FILES, LOCK, UNFINISHED = ("vocab.txt", "vocab.json", "vocab.model"), ".vocab.lock", ".vocab.unfinished"
CHUNK_LINES = 5000
HELD_BACK_ONE_IN = 100  # lines; 1 % of 43 MB are some 40,000 eojeols, which fix the fertility to a hundredth


@dataclasses.dataclass(frozen=True)
class VocabConfig:
    """What to build; every field is a flag of build_vocab.py."""

    corpus: str = option("", "text to read: files, globs and folders, separated by commas; .gz, .xz, .zst and .zip are unpacked")
    output_dir: str = option("", "folder for vocab.txt, vocab.json and, for tokenizer type sentencepiece, vocab.model")
    tokenizer_type: str | None = option(
        None,
        "how text is cut; None: sentencepiece for its algorithms, else mecab_wordpiece. With another type the sentencepiece algorithms "
        "choose the pieces of an ordinary vocab.txt, from word counts: with mecab_wordpiece out of morphemes",
        tokenization.TOKENIZER_TYPES,
    )
    analyzer: str = option("mecab", "morpheme analyser of mecab_wordpiece", morphemes.ANALYZERS)
    algorithm: str = option("wordpiece", "how pieces are chosen", ALGORITHMS)
    vocab_size: int = option(40000, "entries of the vocabulary, special and unused ones included")
    min_frequency: int = option(3, "characters, merges and morphemes seen less often are left out; sentencepiece: characters")
    limit_alphabet: int = option(6000, "most different characters; the rest becomes [UNK]")
    unused_size: int = option(500, "entries [unused0] ... kept free for later use")
    num_processes: int = option(1, "processes that work; does not change the result")
    do_lower_case: bool = option(False, "lower-case the text")
    strip_accents: bool = option(False, "strip accents from letters")
    overwrite: bool = option(False, "replace a vocabulary that is already in output_dir")

    @property
    def uses_sentencepiece(self) -> bool:
        return self.algorithm.startswith("sentencepiece")

    @property
    def sentencepiece_type(self) -> str:
        """sentencepiece_bpe -> bpe"""
        return self.algorithm.removeprefix("sentencepiece_")

    @property
    def resolved_tokenizer_type(self) -> str:
        return self.tokenizer_type or ("sentencepiece" if self.uses_sentencepiece else "mecab_wordpiece")

    @property
    def has_model(self) -> bool:
        """Whether sentencepiece, with a model of its own, will cut the text."""
        return self.resolved_tokenizer_type == "sentencepiece"

    @property
    def reserved(self) -> list[str]:
        """The entries before the first piece."""
        return [*SPECIAL_TOKENS, *(f"[unused{index}]" for index in range(self.unused_size))]

    @property
    def room(self) -> int:
        """How many pieces there is room for."""
        return self.vocab_size - len(self.reserved)


class Counts(NamedTuple):
    """What a corpus, or a part of it, holds. words: marked morphemes; held_back: eojeols of the lines kept out of training."""

    lines: int
    words: Counter[str]
    held_back_lines: int
    held_back: Counter[str]


class WordCounter:
    """What one process does: counts the words of a list of lines."""

    def __init__(self, do_lower_case: bool, strip_accents: bool, analyzer: str):
        self._marked_words = functools.lru_cache(CACHE_SIZE)(WordSplitter(do_lower_case, strip_accents, analyzer).marked_words)

    def count(self, lines: Sequence[str]) -> Counts:
        """Counts marked words (`심각`, `##합니다`); U+2581 is taken out, since the trainers need it as a mark."""
        eojeols: Counter[str] = Counter()
        held_back: Counter[str] = Counter()
        held_back_lines = 0
        for line in lines:
            kept = not is_held_back(line)
            (eojeols if kept else held_back).update(EOJEOL.findall(line))
            held_back_lines += not kept
        words: Counter[str] = Counter()
        for eojeol, count in eojeols.items():
            for word in self._marked_words(eojeol.replace(piece_trainers.SENTINEL, "")):
                words[word] += count
        return Counts(len(lines), words, held_back_lines, held_back)


def is_held_back(line: str) -> bool:
    """Whether a line is kept out of training, by its text alone: every copy of a line meets the same fate."""
    return zlib.crc32(line.encode("utf-8")) % HELD_BACK_ONE_IN == 0


def build(config: VocabConfig) -> dict[str, Any]:
    """Builds the vocabulary and returns what vocab.json says of it.

    Raises UserError for settings that make no sense, an empty corpus and a vocabulary that is in the way, DataError for text
    that is not UTF-8; then nothing has been written.
    """
    _check(config)
    files = expand_files([config.corpus], "corpus")
    _refuse_existing(config)
    model = b""
    if config.has_model:
        counts, rows, model = _build_sentencepiece(config, files)
    else:
        counts = _count_words(config, files)
        _require_text(counts.words, files)
        rows = config.reserved + _choose_pieces(config, counts.words)
    if len(rows) < config.vocab_size:
        logging.warning(
            "The corpus gives only %d of %d entries: more text or a lower --min_frequency gives more", len(rows), config.vocab_size
        )
    outputs = {"vocab.model": model} if model else {}
    outputs["vocab.txt"] = ("\n".join(rows) + "\n").encode("utf-8")
    report = _describe(config, files, counts, outputs)
    _write(config, outputs, report)
    return report


def _check(config: VocabConfig) -> None:
    for name in ("corpus", "output_dir"):
        if not getattr(config, name):
            raise UserError(f"--{name} is required")
    for name, least in (("min_frequency", 1), ("limit_alphabet", 1), ("num_processes", 1), ("unused_size", 0)):
        if getattr(config, name) < least:
            raise UserError(f"{name} must be at least {least}, got {getattr(config, name)} (--{name})")
    if config.vocab_size <= len(config.reserved):
        raise UserError(
            f"vocab_size {config.vocab_size} leaves no room for pieces: {len(SPECIAL_TOKENS)} special and {config.unused_size} unused "
            f"entries come first (--vocab_size, --unused_size)"
        )
    allowed = tokenization.TOKENIZER_TYPES if config.uses_sentencepiece else ("mecab_wordpiece", "wordpiece")
    if config.resolved_tokenizer_type not in allowed:
        raise UserError(
            f"tokenizer type {config.tokenizer_type!r} does not go with algorithm {config.algorithm!r}, must be {' or '.join(allowed)} "
            "(--tokenizer_type, --algorithm)"
        )
    if "://" in config.output_dir or os.path.isfile(config.output_dir):
        raise UserError(f"{config.output_dir!r} is not a folder of this machine (--output_dir)")


def _refuse_existing(config: VocabConfig) -> None:
    found = [name for name in FILES if os.path.exists(os.path.join(config.output_dir, name))]
    if found and not config.overwrite and not _is_unfinished(config):
        raise UserError(f"{config.output_dir} holds {' and '.join(found)} already: choose another --output_dir or add --overwrite")


def _is_unfinished(config: VocabConfig) -> bool:
    """Whether what lies in output_dir was left by a process that died while it wrote."""
    return os.path.exists(os.path.join(config.output_dir, UNFINISHED))


def _write(config: VocabConfig, outputs: dict[str, bytes], report: dict[str, Any]) -> None:
    """Writes the files, unless another process has written some in the meantime."""
    make_folder(config.output_dir, "output_dir")
    lock, unfinished = (os.path.join(config.output_dir, name) for name in (LOCK, UNFINISHED))
    with locked(lock):
        _refuse_existing(config)
        for name in os.listdir(config.output_dir):
            if name.startswith(tuple(f"{file}.tmp-" for file in (*FILES, UNFINISHED))):  # half of a file
                os.unlink(os.path.join(config.output_dir, name))
        write_atomically(unfinished, "")
        for name, data in outputs.items():
            write_atomically(os.path.join(config.output_dir, name), data)
        write_json(os.path.join(config.output_dir, "vocab.json"), report)
        os.unlink(unfinished)
        os.unlink(lock)


def _require_text(found: Any, files: Sequence[str]) -> None:
    if not found:
        raise UserError(f"no text to learn from in {len(files)} file(s), {files[0]!r} first: a corpus needs lines of words (--corpus)")


# ---- counting


def _read_lines(files: Sequence[str], bar: tqdm) -> Iterator[str]:
    """Stripped, non-empty lines."""
    for line in itertools.chain.from_iterable(map(read_lines, files)):
        bar.update(len(line.encode("utf-8")) + 1)
        if line.strip():
            yield line.strip()


def _chunks(lines: Iterator[str]) -> Iterator[list[str]]:
    """Shares of work for one process."""
    while chunk := list(itertools.islice(lines, CHUNK_LINES)):
        yield chunk


def _progress(files: Sequence[str]) -> tqdm:
    return tqdm(total=sum(map(unpacked_size, files)), unit="B", unit_scale=True, desc="counting words", mininterval=0.5)


def _count_words(config: VocabConfig, files: Sequence[str]) -> Counts:
    analyzer = config.analyzer if config.resolved_tokenizer_type == "mecab_wordpiece" else "none"
    make_counter = functools.partial(WordCounter, config.do_lower_case, config.strip_accents, analyzer)
    make_counter()  # a missing package is reported here, not by a dead worker
    lines, held_back_lines = 0, 0
    words: Counter[str] = Counter()
    held_back: Counter[str] = Counter()
    with _progress(files) as bar, Workers(make_counter, config.num_processes) as workers:
        for part in workers.map("count", _chunks(_read_lines(files, bar))):
            lines += part.lines
            held_back_lines += part.held_back_lines
            words.update(part.words)
            held_back.update(part.held_back)
    return Counts(lines, words, held_back_lines, held_back)


# ---- choosing


def _choose_pieces(config: VocabConfig, words: Counter[str]) -> list[str]:
    """The pieces after the reserved entries, characters first."""
    # As in the reference's own trainer, whose limit counts the special tokens.
    limit = config.limit_alphabet - (len(config.reserved) if config.algorithm == "morpheme_frequency" else 0)
    most = (config.room + 1) // 2
    while True:
        symbols = piece_trainers.choose_symbols(words, config.min_frequency, limit, most)
        pieces = _trainer(config)(words, symbols, config.room)
        if len(pieces) == config.room or len(symbols) < most:
            return pieces
        most += config.room - len(pieces)  # characters were left out although there is room for them


def _trainer(config: VocabConfig) -> Callable[[Counter[str], Sequence[str], int], list[str]]:
    settings: dict[str, Any] = {"min_frequency": config.min_frequency}
    if config.uses_sentencepiece:
        return functools.partial(piece_trainers.train_sentencepiece_words, model_type=config.sentencepiece_type, **settings)
    trainers = {"wordpiece": piece_trainers.train_wordpiece, "morpheme_frequency": piece_trainers.most_frequent_words}
    return functools.partial(trainers[config.algorithm], **settings)


def _build_sentencepiece(config: VocabConfig, files: Sequence[str]) -> tuple[Counts, list[str], bytes]:
    """Returns what the corpus holds (without words), the vocabulary's rows, and the model as bytes."""
    splitter = WordSplitter(config.do_lower_case, config.strip_accents)
    sentences: list[str] = []
    lines, held_back_lines = 0, 0
    held_back: Counter[str] = Counter()
    with _progress(files) as bar:
        for line in _read_lines(files, bar):
            lines += 1
            if is_held_back(line):
                held_back_lines += 1
                held_back.update(EOJEOL.findall(line))
            else:
                sentences.append(splitter.normalize(line.replace(piece_trainers.SENTINEL, "")).text)
    _require_text(any(sentences), files)
    model, rows = piece_trainers.train_sentencepiece(
        sentences,
        config.sentencepiece_type,
        config.reserved,
        config.vocab_size,
        config.min_frequency,
        config.limit_alphabet,
    )
    return Counts(lines, Counter(), held_back_lines, held_back), rows, model


# ---- describing


def _describe(config: VocabConfig, files: Sequence[str], counts: Counts, outputs: dict[str, bytes]) -> dict[str, Any]:
    """What vocab.json says; nothing in it depends on the run, the machine or the number of processes."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in outputs.items():
            with open(os.path.join(folder, name), "wb") as file:
                file.write(data)
        tokenizer = FullTokenizer(
            os.path.join(folder, "vocab.txt"),
            do_lower_case=config.do_lower_case,
            tokenizer_type=config.resolved_tokenizer_type,
            analyzer=config.analyzer,
            strip_accents=config.strip_accents,
        )
        held_back = {"one_line_in": HELD_BACK_ONE_IN, "lines": counts.held_back_lines} | measure(tokenizer, counts.held_back)
        provenance = tokenizer.provenance()
    settings = ("algorithm", "vocab_size", "min_frequency", "limit_alphabet", "unused_size", "do_lower_case", "strip_accents")
    library = "sentencepiece" if config.uses_sentencepiece else "tokenizers"
    return {
        "format_version": FORMAT_VERSION,
        "flags": {name: getattr(config, name) for name in settings},
        "tokenizer": provenance,
        "vocab_txt_sha256": hashlib.sha256(outputs["vocab.txt"]).hexdigest(),
        "libraries": {library: importlib.metadata.version(library)},
        "corpus": [{"file": os.path.basename(file), "bytes": stored_size(file)} for file in files],
        "lines": counts.lines,
        "held_back": held_back,
    }


def measure(tokenizer: tokenization.FullTokenizer, eojeols: Counter[str]) -> dict[str, Any]:
    """Returns fertility (pieces per eojeol) and the rates of [UNK] pieces and of eojeols with one; None where there is no text."""
    total, pieces, unknown, with_unknown = 0, 0, 0, 0
    for eojeol, count in eojeols.items():
        ids = tokenizer.encode(eojeol)
        total += count
        pieces += count * len(ids)
        unknown += count * ids.count(tokenizer.unk_id)
        with_unknown += count * (tokenizer.unk_id in ids)
    return {
        "eojeols": total,
        "pieces_per_eojeol": round(pieces / total, 4) if total else None,
        "unk_rate_of_pieces": round(unknown / pieces, 6) if pieces else None,
        "unk_rate_of_eojeols": round(with_unknown / total, 6) if total else None,
    }
