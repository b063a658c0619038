"""Repeated documents: exact ones among any number of documents in bounded memory, near ones by MinHash, both in corpus order.

Of equal documents the first one stays. Documents are told apart by 64-bit keys of their cleaned text: among n different
documents about n^2 / 2^65 are taken for a copy of another (one in a thousand runs loses one at 200 million documents).
"""

import functools
import hashlib
import os
from typing import Any

import numpy as np

from model.command import UserError

# What became of a document; uint8, one for each document of the corpus.
KEPT, EXACT_DUPLICATE, NEAR_DUPLICATE, NOT_IN_MIXTURE = range(4)

BUCKETS = 256  # of keys; a bucket of 400 million documents is 25 MB
_PAIR = np.dtype([("key", "<u8"), ("number", "<u8")])
SIGNATURE_LENGTH = 128  # datasketch's own default; a similarity of 0.8 is estimated to about 0.035
SHINGLE = 5  # characters
NEAR_MIN_CHARS = 50  # in shorter documents a few characters decide


def document_key(text: str) -> int:
    """Returns 64 bits that stand for `text`."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


class ExactDuplicates:
    """Finds equal keys: `add` them in corpus order, then `mark`. Keys lie in `folder`, in memory is one bucket at a time."""

    def __init__(self, folder: str) -> None:
        self._paths = [os.path.join(folder, f"keys-{bucket:03d}") for bucket in range(BUCKETS)]
        self._files = [open(path, "wb") for path in self._paths]
        self._documents = 0

    def add(self, keys: np.ndarray) -> None:
        """Adds the keys, uint64 [n], of the next n documents."""
        pairs = np.empty(len(keys), _PAIR)
        pairs["key"] = keys
        pairs["number"] = np.arange(self._documents, self._documents + len(keys))
        self._documents += len(keys)
        buckets = keys >> np.uint64(56)
        pairs = pairs[np.argsort(buckets, kind="stable")]
        ends = np.cumsum(np.bincount(buckets.astype(np.intp), minlength=BUCKETS))
        for file, start, end in zip(self._files, [0, *ends[:-1]], ends, strict=True):
            file.write(pairs[start:end].tobytes())

    def mark(self, fates: np.ndarray) -> None:
        """Sets fates[i] to EXACT_DUPLICATE where document i has the key of an earlier one; removes the files."""
        for file, path in zip(self._files, self._paths, strict=True):
            file.close()
            pairs = np.fromfile(path, _PAIR)
            os.unlink(path)
            pairs = pairs[np.argsort(pairs["key"], kind="stable")]  # equal keys stay in corpus order
            repeated = pairs["key"][1:] == pairs["key"][:-1]
            fates[pairs["number"][1:][repeated]] = EXACT_DUPLICATE


# ---- near duplicates


def _import_datasketch() -> Any:
    try:
        import datasketch
    except ImportError as error:
        raise UserError("near duplicates need `pip install .[dedup]`; or choose --dedup=exact") from error
    return datasketch


@functools.cache
def _empty_signature() -> Any:
    return _import_datasketch().MinHash(num_perm=SIGNATURE_LENGTH, seed=1)


def signature(text: str) -> np.ndarray:
    """Returns the MinHash signature of the text's shingles, uint64 [SIGNATURE_LENGTH]; zeros for a text too short to compare."""
    minhash = _empty_signature().copy()
    text = "".join(text.split())
    if len(text) < NEAR_MIN_CHARS:
        return np.zeros(SIGNATURE_LENGTH, np.uint64)
    minhash.update_batch([text[start : start + SHINGLE].encode("utf-8") for start in range(len(text) - SHINGLE + 1)])
    return np.asarray(minhash.hashvalues, np.uint64)


class NearDuplicates:
    """Finds documents whose shingles agree to at least `threshold` (Jaccard) with an earlier document that is kept.

    The signatures of all kept documents stay in memory: some 3 KB each.
    """

    def __init__(self, threshold: float) -> None:
        self._datasketch = _import_datasketch()
        self._threshold = threshold
        self._index = self._datasketch.MinHashLSH(threshold=threshold, num_perm=SIGNATURE_LENGTH)
        self._documents = 0

    def mark(self, signatures: np.ndarray, fates: np.ndarray) -> None:
        """Goes through the next n documents, uint64 [n, SIGNATURE_LENGTH], and sets fates[i], uint8 [n], of near duplicates."""
        for row, fate in enumerate(fates):
            self._documents += 1
            if fate != KEPT or not signatures[row].any():
                continue
            minhash = _empty_signature().copy()
            minhash.hashvalues = signatures[row]
            found = self._index.query(minhash)
            if any(self._jaccard(minhash, other) >= self._threshold for other in found):
                fates[row] = NEAR_DUPLICATE
            else:
                self._index.insert((self._documents, signatures[row].tobytes()), minhash)

    @staticmethod
    def _jaccard(minhash: Any, other: tuple[int, bytes]) -> float:
        return float(np.mean(minhash.hashvalues == np.frombuffer(other[1], np.uint64)))


# ---- mixing


def uniform_of_keys(keys: np.ndarray, seed: int) -> np.ndarray:
    """Returns a number in [0, 1) for each key, uint64 [n] -> float64 [n], by the key and `seed` alone (SplitMix64's finaliser)."""
    mixed = keys ^ np.uint64(int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), "little"))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def kept_fractions(sizes: dict[str, int], weights: dict[str, float]) -> dict[str, float]:
    """Returns which part of each share's bytes to keep, so that they stand as `weights` and the scarcest share stays whole.

    sizes {dialog: 10, written: 40}, weights {dialog: 1, written: 2} -> {dialog: 1.0, written: 0.5}
    """
    scale = min((sizes[name] / weight for name, weight in weights.items() if weight), default=0.0)
    return {name: min(1.0, scale * weights[name] / sizes[name]) if sizes[name] else 1.0 for name in sizes}


def parse_mixture(mixture: str) -> dict[str, float]:
    """Reads "dialog=7,written=15" -> {"dialog": 7.0, "written": 15.0}."""
    weights: dict[str, float] = {}
    for part in filter(None, map(str.strip, mixture.split(","))):
        name, _, weight = part.partition("=")
        if name.strip() in weights:
            raise UserError(f"mixture weighs {name.strip()} twice, in {mixture!r} (--mixture)")
        try:
            weights[name.strip()] = float(weight)
        except ValueError:
            weights[name.strip()] = -1.0
        if not 0 < weights[name.strip()] < float("inf"):
            raise UserError(f"mixture must be like dialog=7,written=15 with numbers above 0, got {part!r} (--mixture)")
    return weights
