"""Our WordPiece tokenizer in a TensorFlow graph, with the operations of tensorflow-text, which TensorFlow Serving has too.

Its pieces are those of model.tokenization without an analyser; morphemes that were cut and marked before are taken as they are.
"""

from typing import Any

import tensorflow as tf

from model.command import UserError
from model.tokenization import MAX_WORD_CHARS, FullTokenizer
from model.words import CJK_RANGES

_SPACES = r"[\t\n\r\p{Zs}\x{2028}\x{2029}]"
_DROPPED = r"[\p{Cc}\p{Cf}\x{FFFD}]"
_SPLIT_OFF = "|".join([r"[!-/]", r"[:-@]", r"[\[-`]", r"[{-~]", r"[\p{P}]", *(rf"[\x{{{a:X}}}-\x{{{b:X}}}]" for a, b in CJK_RANGES)])
_TOO_LONG = "\ufffd"  # a word that no text holds, as it was dropped there, nor a vocabulary


class GraphTokenizer(tf.Module):
    """Text to ids [CLS] a [SEP] or [CLS] a [SEP] b [SEP], cut to `max_length` as finetune.classification cuts them."""

    def __init__(self, tokenizer: FullTokenizer, max_length: int):
        super().__init__()
        self._text = _import_text()
        self._max_length, self._splitter = max_length, tokenizer.splitter
        self._cls, self._sep, self._pad, self._unk = tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, tokenizer.unk_id
        vocab = {piece: row for piece, row in tokenizer.vocab.items() if piece}
        marked = {piece: row for piece, row in vocab.items() if piece.startswith("##") and len(piece) > 2}
        later = {piece[2:]: row for piece, row in marked.items()} | {tokenizer.unk_token: self._unk}  # so that it is never empty
        self._wordpiece = self._make_wordpiece(vocab)
        # A marked morpheme goes on with its word from its first character.
        self._wordpiece_of_later = self._make_wordpiece(marked | later)

    def _make_wordpiece(self, vocab: dict[str, int]) -> Any:
        initializer = tf.lookup.KeyValueTensorInitializer(list(vocab), list(vocab.values()), tf.string, tf.int64)
        table = tf.lookup.StaticHashTable(initializer, self._unk)
        return self._text.WordpieceTokenizer(table, max_bytes_per_word=4 * MAX_WORD_CHARS, token_out_type=tf.int64, unknown_token=None)

    def ids_of_texts(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Ids of texts, string [B], without special tokens: int32 [B, (pieces)]."""
        return self._ids_of_words(self._words(texts), False)

    def ids_of_morphemes(self, morphemes: tf.Tensor) -> tf.RaggedTensor:
        """Ids of morphemes between spaces, string [B], the later ones of a word marked: "그 ##는 심각 ##합니다 ." """
        return self._ids_of_words(tf.strings.split(morphemes), True)

    def _words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        splitter = self._splitter
        texts = tf.strings.regex_replace(tf.strings.regex_replace(texts, _SPACES, " "), _DROPPED, "")
        if splitter.do_lower_case:
            texts = tf.strings.lower(texts, encoding="utf-8")
        if splitter.strip_accents:
            texts = tf.strings.regex_replace(self._text.normalize_utf8(texts, "NFD"), r"\p{Mn}", "")
        texts = self._text.normalize_utf8(texts, "NFC")
        return self._text.regex_split(texts, rf" +|{_SPLIT_OFF}", _SPLIT_OFF)

    def _ids_of_words(self, words: tf.RaggedTensor, are_marked: bool) -> tf.RaggedTensor:
        """int32 [B, (pieces)] of the words string [B, (words)]."""
        flat = words.flat_values
        flat = tf.where(tf.strings.length(flat, unit="UTF8_CHAR") > MAX_WORD_CHARS, _TOO_LONG, flat)
        is_later = tf.strings.regex_full_match(flat, "##.+") if are_marked else tf.zeros_like(flat, tf.bool)
        pieces = self._wordpiece.tokenize(tf.where(is_later, "", flat))
        if are_marked:
            later = self._wordpiece_of_later.tokenize(tf.where(is_later, tf.strings.regex_replace(flat, "^##", ""), ""))
            pieces = tf.concat([pieces, later], 1)  # each word has pieces in one of the two
        return tf.cast(words.with_flat_values(pieces).merge_dims(1, 2), tf.int32)

    def pack(self, first: tf.RaggedTensor, second: tf.RaggedTensor | None = None) -> dict[str, tf.Tensor]:
        """input_ids, input_mask and segment_ids, int32 [B, L], L that of the longest example."""
        if second is None:
            parts = [first[:, : self._max_length - 2]]
        else:
            room = self._max_length - 3
            lengths = [part.row_lengths() for part in (first, second)]
            keep = (tf.maximum(room - lengths[1], room - room // 2), tf.maximum(room - lengths[0], room // 2))
            parts = [_head(part, count) for part, count in zip((first, second), keep, strict=True)]
        rows = first.nrows()
        ids, segments = [tf.fill([rows, 1], self._cls)], [tf.zeros([rows, 1], tf.int32)]
        for index, part in enumerate(parts):
            ids += [part, tf.fill([rows, 1], self._sep)]
            segments += [tf.ones_like(part) * index, tf.fill([rows, 1], index)]
        whole = tf.concat(ids, 1)
        found = ((whole, self._pad), (tf.ones_like(whole), 0), (tf.concat(segments, 1), 0))
        # One row more and less: a batch without texts has a length too.
        more = [tf.concat([rows, tf.RaggedTensor.from_tensor([[0, 0]])], 0).to_tensor(default)[:-1] for rows, default in found]
        return dict(zip(("input_ids", "input_mask", "segment_ids"), more, strict=True))


def _head(pieces: tf.RaggedTensor, count: tf.Tensor) -> tf.RaggedTensor:
    """The first `count` (int64 [B]) pieces of each row."""
    places = tf.ragged.range(pieces.row_lengths())
    return tf.ragged.boolean_mask(pieces, places < count[:, None])


def _import_text() -> Any:
    try:
        import tensorflow_text
    except ImportError as error:
        raise UserError("text inside a SavedModel needs tensorflow-text: `pip install .[export]` (--format)") from error
    return tensorflow_text
