"""Word counts to pieces: the algorithms that fill a vocabulary, each a pure and deterministic function.

Words are marked morphemes, `심각` or `##합니다`. The pieces begin with single characters ("symbols"), `심` and `##합`, so that
every word made of them can be spelled; what follows is what the algorithms differ in.
"""

import bisect
import heapq
import io
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from model.command import UserError
from model.words import is_split_off

SENTINEL = "\u2581"  # stands for a word's leading ## while the trainer works; taken out of the text beforehand
_SPELLED = 0.9995  # of the text's characters; the share that sentencepiece's authors advise for scripts as rich as this
_SPARE = 1.25  # pieces asked of the trainer per piece needed: some coincide once the sentinel is ## again
_WORDS_PER_LINE = 1000
_LEAST_COVERAGE = 0.98  # sentencepiece takes no less
_LONGEST_PIECE, _MOST_SEEDS = 16, 1_000_000  # sentencepiece's defaults


def choose_symbols(words: Counter[str], min_frequency: int, limit: int, most: int) -> list[str]:
    """Returns single characters and their ## forms by falling frequency.

    Args:
        words: marked words and how often each occurs.
        min_frequency: characters that occur less often are left out.
        limit: how many different characters are kept at most.
        most: how many symbols are kept at most, so that a small vocabulary has room for longer pieces; more are kept where that
            is needed to spell all but one in 2,000 characters.

    Both forms of every character are there, also one that never occurred: what began words in this corpus may continue one in
    the next. Punctuation and CJK characters, which are words by themselves, have no ## form.
    """
    symbols: Counter[str] = Counter()
    for word, count in words.items():
        for symbol in spell(word):
            symbols[symbol] += count
    chars: Counter[str] = Counter()
    for symbol, count in symbols.items():
        chars[symbol[-1]] += count
    frequent = sorted((char for char, count in chars.items() if count >= min_frequency), key=lambda char: (-chars[char], char))
    kept = frequent[: max(limit, 0)]
    both = kept + ["##" + char for char in kept if not is_split_off(char)]
    ordered = sorted(both, key=lambda symbol: (-symbols[symbol], symbol))
    spelled = list(itertools.accumulate(symbols[symbol] for symbol in ordered))
    needed = bisect.bisect_left(spelled, _SPELLED * spelled[-1]) + 1 if spelled else 0
    return ordered[: max(most, needed)]


def spell(word: str) -> list[str]:
    """`심각` -> 심 ##각; `##합니다` -> ##합 ##니 ##다."""
    if word.startswith("##"):
        return ["##" + char for char in word[2:]]
    return [word[0], *("##" + char for char in word[1:])]


def most_frequent_words(words: Counter[str], symbols: Sequence[str], room: int, min_frequency: int) -> list[str]:
    """Returns `symbols`, then whole words by falling frequency, `room` entries at most: no merges, as the reference's trainer."""
    frequent = sorted((word for word, count in words.items() if count >= min_frequency), key=lambda word: (-words[word], word))
    return list(dict.fromkeys([*symbols, *(word for word in frequent if len(spell(word)) > 1)]))[:room]


def train_wordpiece(words: Counter[str], symbols: Sequence[str], room: int, min_frequency: int) -> list[str]:
    """Returns `symbols`, then the pieces that the tokenizers library's WordPiece trainer merges, `room` entries at most.

    Words with a character outside `symbols` are left out: no piece of theirs could be reached through them.
    """
    known = set(symbols)
    spellable = {word: count for word, count in sorted(words.items()) if known.issuperset(spell(word))}
    wanted = room - len(symbols)
    merges = max(0, int(_SPARE * wanted)) + 1
    while True:
        merged = _merge(spellable, merges, min_frequency)
        pieces = list(dict.fromkeys([*symbols, *merged]))
        if len(pieces) >= room or len(merged) < merges:
            return pieces[:room]
        merges *= 2


def _merge(words: dict[str, int], merges: int, min_frequency: int) -> list[str]:
    """Returns up to `merges` pieces, in the order in which the trainer made them; ## and bare forms may coincide."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    marked = {SENTINEL + word[2:] if word.startswith("##") else word: count for word, count in words.items()}
    alphabet = {char for word in marked for char in word}
    # The trainer numbers its ## symbols in the random order of a hash table, and these numbers break ties between merges.
    # As special tokens they have their numbers before it starts.
    continuing = sorted({"##" + char for word in marked for char in word[1:]})
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # type: ignore[call-arg]
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    trainer = trainers.WordPieceTrainer(
        vocab_size=len(alphabet) + len(continuing) + merges,
        min_frequency=min_frequency,
        limit_alphabet=len(alphabet),
        special_tokens=continuing,  # type: ignore[arg-type]
        show_progress=False,
    )
    tokenizer.train_from_iterator(_repeat(marked), trainer)
    by_number = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    made = [piece for piece, _ in by_number[len(alphabet) + len(continuing) :]]
    return [piece.replace(SENTINEL, "##", 1) for piece in made]


def _repeat(words: dict[str, int]) -> Iterator[str]:
    """Lines that hold each word as often as it was counted: the trainer takes text, not counts."""
    for word, count in words.items():
        for start in range(0, count, _WORDS_PER_LINE):
            yield " ".join([word] * min(_WORDS_PER_LINE, count - start))


def train_sentencepiece(
    sentences: Sequence[str], model_type: str, reserved: Sequence[str], vocab_size: int, min_frequency: int, max_chars: int
) -> tuple[bytes, list[str]]:
    """Trains a sentencepiece model of `model_type` unigram or bpe; returns its bytes and its pieces in the order of their ids.

    reserved: the first entries; [PAD] and [UNK] come first, the rest become control symbols, which no text can produce.
    Characters below `min_frequency` or beyond `max_chars` are left out of the model.

    Raises UserError when sentencepiece cannot make a model of this size.
    """
    # The trainer counts a space before each word; it keeps the most frequent characters that make up this share of the text.
    chars = Counter(char for sentence in sentences for char in " " + sentence)
    kept = [count for _, count in chars.most_common(max_chars) if count >= min_frequency]
    return _run_sentencepiece(
        sentences,
        model_type=model_type,
        vocab_size=vocab_size,
        pad_id=0,
        unk_id=1,
        pad_piece=reserved[0],
        unk_piece=reserved[1],
        control_symbols=list(reserved[2:]),
        character_coverage=max(_LEAST_COVERAGE, sum(kept) / chars.total()),
    )


def train_sentencepiece_words(words: Counter[str], symbols: Sequence[str], room: int, min_frequency: int, model_type: str) -> list[str]:
    """Returns `symbols`, then the pieces that sentencepiece's trainer of `model_type` finds in the words, `room` entries at most.

    The trainer sees counts instead of text, and its own mark of a word's beginning instead of ours: the words 심각 and ##합니다
    are its ▁심각 and 합니다, and what it makes of them, such as ▁심 and 니다, are the pieces 심 and ##니다.

    Words with a character outside `symbols` are left out: no piece of theirs could be reached through them.
    """
    known = set(symbols)
    spellable = {word: count for word, count in sorted(words.items()) if known.issuperset(spell(word))}
    marked = {word[2:] if word.startswith("##") else SENTINEL + word: count for word, count in spellable.items()}
    if not marked or len(symbols) >= room:
        return list(symbols)[:room]
    chars = {char for word in marked for char in word}
    beginnings = sum(not symbol.startswith("##") for symbol in symbols)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".tsv") as seeds:
        if model_type == "unigram":
            seeds.writelines(f"{piece}\t{count}\n" for piece, count in _count_substrings(marked, min_frequency))
            seeds.flush()
        _, rows = _run_sentencepiece(
            (f"{word}\t{count}" for word, count in marked.items()),
            input_format="tsv",
            model_type=model_type,
            seed_sentencepieces_file=seeds.name if model_type == "unigram" else "",
            # Besides the pieces needed: [UNK], each character, and ▁X for a symbol X at most.
            vocab_size=1 + len(chars) + beginnings + room - len(symbols),
            unk_id=0,
            character_coverage=1.0,
            add_dummy_prefix=False,
        )
    made = [row[1:] if row.startswith(SENTINEL) else "##" + row for row in rows[1:] if row != SENTINEL]
    return [*symbols, *(piece for piece in made if len(spell(piece)) > 1)][:room]


def _count_substrings(words: dict[str, int], min_frequency: int) -> list[tuple[str, int]]:
    """The pieces that unigram starts from, those that cover most text first: what occurs `min_frequency` times in `words`.

    The trainer finds them in a suffix tree by itself, but only what different characters follow, and at the end of a word
    nothing follows: it would miss every word that is not the beginning of another one.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for start in range(len(word) - 1):
            for end in range(start + 2, min(len(word), start + _LONGEST_PIECE) + 1):
                counts[word[start:end]] += count
    frequent = (item for item in counts.items() if item[1] >= min_frequency)
    return heapq.nsmallest(_MOST_SEEDS, frequent, key=lambda item: (-len(item[0]) * item[1], item[0]))


def _run_sentencepiece(sentences: Iterable[str], vocab_size: int, **options: Any) -> tuple[bytes, list[str]]:
    """Trains a sentencepiece model; returns its bytes and its pieces in the order of their ids."""
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            bos_id=-1,
            eos_id=-1,
            # The text is NFC already; the default, NFKC, would turn ㅋㅋ into jamo that no longer combine.
            normalization_rule_name="identity",
            max_sentence_length=1 << 20,
            num_threads=16,  # the library's default, said here because sums over threads depend on it
            minloglevel=2,
            **options,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2].strip() or str(error)
        raise UserError(
            f"sentencepiece cannot make a vocabulary of {vocab_size} entries from this corpus: {reason} (--vocab_size)"
        ) from error
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return model.getvalue(), [processor.id_to_piece(row) for row in range(len(processor))]
