"""Text to pieces: from a Korean sentence to vocabulary ids, and from every piece back to where it stands in the sentence.

A sentence is cut at spaces into eojeols; each eojeol is cleaned, cut at punctuation and CJK characters as BERT does it, cut
into morphemes (model/morphemes.py), and each morpheme into the longest pieces that the vocabulary holds:

    "그는 심각합니다."  ->  그 ##는  심각 ##합니다 .

No step looks across a space, so that an eojeol seen once is never tokenized again. Sentencepiece models go the same way with
their own pieces; only for KoBERT's the library cuts whole sentences, as it did when those were trained (model/kobert.py).
"""

import functools
import hashlib
import importlib.metadata
import itertools
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from model.command import DataError, UserError
from model.kobert import SentenceCutter
from model.words import EOJEOL, NormalizedText, WordSplitter, find_eojeols

TOKENIZER_TYPES = ("mecab_wordpiece", "wordpiece", "sentencepiece")
KOBERT = "kobert"  # the type of models that come from elsewhere; no vocabulary is built for it
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Sentencepiece models of other makers name the same roles otherwise.
_SENTENCEPIECE_NAMES = {"[PAD]": "<pad>", "[UNK]": "<unk>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>"}
MAX_WORD_CHARS = 200  # as in google-research/electra: a longer word is one [UNK]
CACHE_SIZE = 1 << 18  # eojeols; about 80 MB when full. `encode` keeps up to eight times as many, 600 MB in all


class Piece(NamedTuple):
    """A piece of the vocabulary and the part of the original string, text[start:end], that it stands for."""

    text: str
    start: int
    end: int


class _Memo(dict[str, tuple[int, ...]]):
    """The answers of `function`, kept for `size` to 2 * `size` of the strings asked for last.

    A dict that computes what it lacks is asked in C, at a third of the cost of functools.lru_cache. When it is full it begins
    anew, and what is asked for again comes back from the generation before.
    """

    def __init__(self, function: Callable[[str], tuple[int, ...]], size: int):
        super().__init__()
        self._function = function
        self._size = size
        self._older: dict[str, tuple[int, ...]] = {}

    def __missing__(self, key: str) -> tuple[int, ...]:
        if len(self) >= self._size:
            self._older = dict(self)
            self.clear()
        value = self._older.get(key)
        self[key] = value = self._function(key) if value is None else value
        return value


class FullTokenizer:
    """Tokenizes text with one vocabulary (google-research/electra model/tokenization.py, with morphemes).

    Args:
        vocab_file: vocab.txt, one piece a line, or a WordPiece tokenizer.json of the tokenizers library; for "sentencepiece" and "kobert"
            a .model file or a vocab.txt that lies beside one.
        do_lower_case: lower-cases letters; unlike the original it never takes Hangul apart.
        tokenizer_type: one of TOKENIZER_TYPES or "kobert". "mecab_wordpiece" marks the morphemes that `analyzer` finds, whichever it is.
        analyzer: one of morphemes.ANALYZERS; the other types do without.
        strip_accents: drops combining marks (é -> e); Hangul stays whole.

    Special tokens written in the text are text, as in the original: "[MASK]" gives the pieces of [, MASK and ].
    Raises UserError for a missing file, special token or package, DataError for a vocabulary that is not UTF-8.
    """

    def __init__(
        self,
        vocab_file: str,
        do_lower_case: bool = False,
        tokenizer_type: str = "mecab_wordpiece",
        analyzer: str = "mecab",
        strip_accents: bool = False,
    ):
        if tokenizer_type not in (*TOKENIZER_TYPES, KOBERT):
            allowed = ", ".join((*TOKENIZER_TYPES, KOBERT))
            raise UserError(f"unknown tokenizer type {tokenizer_type!r}, must be one of {allowed} (--tokenizer_type)")
        self.vocab_file = vocab_file
        self.files = {vocab_file}  # all that it needs
        if tokenizer_type in ("sentencepiece", KOBERT):
            self.files.add(_model_file(vocab_file))
        self.tokenizer_type = tokenizer_type
        self.splitter = WordSplitter(do_lower_case, strip_accents, analyzer if tokenizer_type == "mecab_wordpiece" else "none")
        self._sentencepiece = _load_sentencepiece(vocab_file) if tokenizer_type in ("sentencepiece", KOBERT) else None
        self._cut_sentence = SentenceCutter(self._sentencepiece, do_lower_case, strip_accents) if tokenizer_type == KOBERT else None
        self._rows = _read_rows(vocab_file, self._sentencepiece)
        self.vocab = {piece: row for row, piece in enumerate(self._rows)}
        self.inv_vocab = dict(enumerate(self._rows))
        self.pad_token, self.unk_token, self.cls_token, self.sep_token, self.mask_token = map(self._special_token, SPECIAL_TOKENS)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = self.convert_tokens_to_ids(
            [self.pad_token, self.unk_token, self.cls_token, self.sep_token, self.mask_token]
        )
        self._longest_piece = max(map(len, self.vocab))
        self._cached_pieces = functools.lru_cache(CACHE_SIZE)(self._eojeol_pieces)
        self._ids_of_eojeol = _Memo(self._eojeol_ids, 4 * CACHE_SIZE)
        self._ids_of_word = _Memo(self._word_ids, CACHE_SIZE)
        self._ids_of_first = _Memo(functools.partial(self._morph_ids, False), CACHE_SIZE)
        self._ids_of_later = _Memo(functools.partial(self._morph_ids, True), CACHE_SIZE)

    @property
    def vocab_size(self) -> int:
        """Rows that an embedding table needs: the highest id plus one, also where the vocabulary holds an entry twice."""
        return len(self._rows)

    def tokenize(self, text: str) -> list[str]:
        """Returns the pieces of `text`."""
        if self._cut_sentence is not None:
            return [self._known(piece) for piece in self._cut_sentence(text)]
        return [piece.text for eojeol in EOJEOL.findall(text) for piece in self._cached_pieces(eojeol)]

    def tokenize_with_offsets(self, text: str) -> list[Piece]:
        """Returns the pieces of `text` with their places in it.

        Offsets count the characters of `text` as it was given: three for 한 written as three jamo. They never decrease from
        piece to piece; neighbours overlap only where several pieces come from one unnormalised character.
        "kobert" cuts each eojeol alone here, as its users do where words have labels: of pieces that are equally likely, others may come.
        """
        return [
            Piece(piece.text, match.start() + piece.start, match.start() + piece.end)
            for match in EOJEOL.finditer(text)
            for piece in self._cached_pieces(match.group())
        ]

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text` without special tokens; the fast way to convert_tokens_to_ids(tokenize(text))."""
        if self._cut_sentence is not None:
            return self.convert_tokens_to_ids(self.tokenize(text))
        ids: list[int] = []
        for eojeol in find_eojeols(text):
            ids += self._ids_of_eojeol[eojeol]  # a loop of these is twice as fast as itertools.chain
        return ids

    def convert_tokens_to_ids(self, tokens: Sequence[str]) -> list[int]:
        """Looks up each token; KeyError for one that is not in the vocabulary, as in the original."""
        return [self.vocab[token] for token in tokens]

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Names each id; KeyError outside [0, vocab_size)."""
        return [self.inv_vocab[int(row)] for row in ids]

    def provenance(self) -> dict[str, Any]:
        """Returns what decides the ids of a text, for manifest.json and its like (see check_provenance)."""
        version = self.splitter.analyzer.version
        if self._sentencepiece is not None:
            version = f"sentencepiece {importlib.metadata.version('sentencepiece')}"
        return {
            "tokenizer_type": self.tokenizer_type,
            "analyzer": self.splitter.analyzer.name,
            "analyzer_version": version,
            "do_lower_case": self.splitter.do_lower_case,
            "strip_accents": self.splitter.strip_accents,
            "vocab_sha256": self._vocab_sha256(),
            "vocab_size": self.vocab_size,
        }

    def _vocab_sha256(self) -> str:
        """SHA-256 of vocab.txt; for sentencepiece of the model and the entries, wherever they were read."""
        if self._sentencepiece is None:
            return hashlib.sha256(_read_bytes(self.vocab_file)).hexdigest()
        return hashlib.sha256(self._sentencepiece.serialized_model_proto() + "\n".join(self._rows).encode("utf-8")).hexdigest()

    def _special_token(self, name: str) -> str:
        names = (name, _SENTENCEPIECE_NAMES[name]) if self._sentencepiece is not None else (name,)
        for candidate in names:
            if candidate in self.vocab:
                return candidate
        raise UserError(
            f"{self.vocab_file} has no {name} among its {len(self._rows)} entries: a vocabulary smaller than the special tokens "
            f"{' '.join(SPECIAL_TOKENS)} cannot be used (--vocab_file)"
        )

    def _eojeol_ids(self, eojeol: str) -> tuple[int, ...]:
        """What _eojeol_pieces finds, as ids alone: the data builder's hot path, where each step has answers of its own to go back to."""
        if self._sentencepiece is not None:
            return tuple(self.vocab[piece.text] for piece in self._eojeol_pieces(eojeol))
        words = self.splitter.words(eojeol)
        if len(words) == 1:
            return self._ids_of_word[words[0]]
        return tuple(itertools.chain.from_iterable(map(self._ids_of_word.__getitem__, words)))

    def _word_ids(self, word: str) -> tuple[int, ...]:
        if len(word) > MAX_WORD_CHARS:
            return (self.unk_id,)
        ids: list[int] = []
        ids_of = self._ids_of_first
        for morph in self.splitter.analyzer.analyze(word):
            ids += ids_of[morph]
            ids_of = self._ids_of_later
        return tuple(ids)

    def _morph_ids(self, continues: bool, morph: str) -> tuple[int, ...]:
        return tuple(self.vocab[piece] for piece, _ in self._wordpiece(morph, continues))

    def _eojeol_pieces(self, eojeol: str) -> tuple[Piece, ...]:
        """Pieces of one eojeol with offsets in it."""
        clean = self.splitter.normalize(eojeol)
        if self._cut_sentence is not None:
            surfaces = self._cut_sentence(eojeol)
            return tuple(_align(surfaces, [self._known(surface) for surface in surfaces], clean, len(eojeol)))
        if self._sentencepiece is not None:
            return tuple(self._sentencepieces(clean, len(eojeol)))
        pieces: list[Piece] = []
        for start, morphs in self.splitter.split(clean.text):
            pieces += self._word_pieces(start, morphs, clean)
        return tuple(pieces)

    def _word_pieces(self, start: int, morphs: Sequence[str], clean: NormalizedText) -> list[Piece]:
        """Pieces of one word that begins at clean.text[start]: the first morpheme bare, the later ones marked with ##."""
        end = start + sum(map(len, morphs))
        if end - start > MAX_WORD_CHARS:
            return [Piece(self.unk_token, *clean.span(start, end))]
        pieces = []
        continues = False
        for morph in morphs:
            for text, length in self._wordpiece(morph, continues):
                pieces.append(Piece(text, *clean.span(start, start + length)))
                start += length
            continues = True
        return pieces

    def _wordpiece(self, morph: str, continues: bool) -> list[tuple[str, int]]:
        """Greedy longest match first: (piece, its length in characters) pairs, or one [UNK] when something is left over."""
        whole = "##" + morph if continues else morph
        if whole in self.vocab:
            return [(whole, len(morph))]
        pieces = []
        start = 0
        while start < len(morph):
            mark = "##" if continues else ""
            for end in range(min(len(morph), start + self._longest_piece), start, -1):
                piece = mark + morph[start:end]
                if piece in self.vocab:
                    break
            else:
                return [(self.unk_token, len(morph))]
            pieces.append((piece, end - start))
            start = end
            continues = True
        return pieces

    def _sentencepieces(self, clean: NormalizedText, eojeol_length: int) -> list[Piece]:
        """Pieces of one eojeol by the sentencepiece model, which calls what it does not know by its surface."""
        model = self._sentencepiece
        assert model is not None
        surfaces = model.encode(clean.text, out_type=str) if clean.text else []
        ids = model.encode(clean.text, out_type=int) if clean.text else []
        is_known = [row != model.unk_id() and surface in self.vocab for surface, row in zip(surfaces, ids, strict=True)]
        names = [surface if known else self.unk_token for surface, known in zip(surfaces, is_known, strict=True)]
        return _align(surfaces, names, clean, eojeol_length)

    def _known(self, surface: str) -> str:
        """What KoBERT makes of a piece: itself if vocab.txt has it, whatever the model thinks; special tokens do not come from text."""
        special = (self.pad_token, self.unk_token, self.cls_token, self.sep_token, self.mask_token)
        return surface if surface in self.vocab and surface not in special else self.unk_token


def _align(surfaces: Sequence[str], names: Sequence[str], clean: NormalizedText, eojeol_length: int) -> list[Piece]:
    """The pieces `names` of one eojeol, each where its surface stands in it."""
    lengths = [len(surface.replace("\u2581", "")) for surface in surfaces]
    aligned = 0 < sum(lengths) == len(clean.text)  # false where the model's own normaliser joins or splits characters
    pieces = []
    start = 0
    for name, length in zip(names, lengths, strict=True):
        if not aligned:
            span = (0, eojeol_length)
        elif length:
            span = clean.span(start, start + length)
        else:  # the bare mark of a word's beginning
            span = (clean.span(start, start + 1)[0],) * 2
        pieces.append(Piece(name, *span))
        start += length
    return pieces


def load_vocab(vocab_file: str) -> dict[str, int]:
    """Reads a vocab.txt: piece -> line number from 0. The last line of a doubled entry wins, as in google-research/electra."""
    return {piece: row for row, piece in enumerate(_read_rows(vocab_file, None))}


def check_provenance(expected: Mapping[str, Any], found: Mapping[str, Any], what: str) -> None:
    """Compares two FullTokenizer.provenance() records, key by key in the order of `expected`.

    Args:
        expected: what `what` was made with.
        found: what this run was asked to use.
        what: names the thing that `expected` belongs to, such as "the TFRecords in data/".

    Raises UserError at the first difference, with both values and the flag to change.
    """
    for key, value in expected.items():
        if found.get(key) != value:
            remedy = _REMEDIES.get(key, f"change --{key}")
            raise UserError(f"{what}: made with {key} {value!r}, but this run has {found.get(key)!r}; {remedy}")


_REMEDIES = {
    "analyzer_version": "install those packages, or make it anew with these (--analyzer)",
    "vocab_sha256": "name the vocabulary it was made with (--vocab_file)",
    "vocab_size": "name the vocabulary it was made with (--vocab_file)",
}


def _read_rows(vocab_file: str, sentencepiece: Any) -> list[str]:
    """The entries of a vocabulary in the order of their ids."""
    if sentencepiece is not None and vocab_file.endswith(".model"):
        return [sentencepiece.id_to_piece(row) for row in range(len(sentencepiece))]
    if vocab_file.endswith(".json"):
        return _read_tokenizer_json(vocab_file)
    rows: list[str] = []
    for number, line in enumerate(_read_bytes(vocab_file).removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            rows.append(line.decode("utf-8").strip())
        except UnicodeDecodeError as error:
            raise DataError(f"{vocab_file}, line {number}, byte {error.start}: not UTF-8 ({error.reason}) (--vocab_file)") from error
    while rows and not rows[-1]:
        rows.pop()
    if not rows:
        raise UserError(f"{vocab_file} is empty: one piece a line is expected (--vocab_file)")
    return rows


def _read_tokenizer_json(path: str) -> list[str]:
    """The entries of a WordPiece model as the tokenizers library saves it, where no vocab.txt lies beside it."""
    try:
        model = json.loads(_read_bytes(path))["model"]
        kind, vocab = (model.get("type"), model.get("continuing_subword_prefix")), model["vocab"]
        rows = sorted(vocab, key=vocab.__getitem__)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is not a file of the tokenizers library (--vocab_file)") from error
    if kind != ("WordPiece", "##"):
        raise UserError(f"{path} holds a {kind[0]} model with the mark {kind[1]!r}, only WordPiece with '##' is supported (--vocab_file)")
    if sorted(vocab.values()) != list(range(len(rows))):
        raise DataError(f"{path}: the ids of its {len(rows)} entries are not 0 to {len(rows) - 1} (--vocab_file)")
    return rows


def _read_bytes(path: str) -> bytes:
    if "://" in path:
        return _read_remote(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # /dev/zero has no end
            raise UserError(f"{path!r} is no file (--vocab_file)")
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"cannot read {path!r}: {error.strerror} (--vocab_file)") from error


def _read_remote(path: str) -> bytes:
    import tensorflow as tf  # here, because it takes seconds to import

    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()
    except tf.errors.OpError as error:
        raise UserError(f"cannot read {path!r}: {error.message} (--vocab_file)") from error


def _model_file(vocab_file: str) -> str:
    """The sentencepiece model that belongs to `vocab_file`: itself, the one of the same name, or the only one in its folder."""
    if vocab_file.endswith(".model"):
        return vocab_file
    same_name = os.path.splitext(vocab_file)[0] + ".model"
    if os.path.exists(same_name):
        return same_name
    folder = os.path.dirname(vocab_file) or "."
    models = [name for name in (os.listdir(folder) if os.path.isdir(folder) else []) if name.endswith(".model")]
    if len(models) != 1:
        raise UserError(
            f"a sentencepiece tokenizer needs a .model file, and {len(models)} lie beside {vocab_file!r}: name one (--vocab_file)"
        )
    return os.path.join(folder, models[0])


def _load_sentencepiece(vocab_file: str) -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise UserError("a sentencepiece tokenizer needs `pip install sentencepiece` (--tokenizer_type)") from error
    path = _model_file(vocab_file)
    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=_read_bytes(path))
        crosses_spaces = model.encode("가 가", out_type=int) != model.encode("가", out_type=int) * 2
        for row in range(len(model)):
            model.id_to_piece(row)
    except (RuntimeError, OSError, UnicodeDecodeError) as error:  # the last: a piece that is no text
        raise DataError(f"{path} is not a sentencepiece model (--vocab_file)") from error
    if crosses_spaces:
        raise UserError(f"{path} has pieces that cross spaces, which this tokenizer does not support (--vocab_file)")
    return model
