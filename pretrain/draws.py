"""Random numbers for building data: streams that depend on the seed, a purpose and a place in the corpus, on nothing else."""

import numpy as np

# Purposes: the part of a stream's key that follows the seed.
FOR_HOLDING_OUT, FOR_EXAMPLES, FOR_UNIT_ORDER, FOR_DEALING = range(4)

_AHEAD = 64  # words taken from the generator at once


class Draws:
    """Random numbers that depend on `key` alone: Philox words, whose stream numpy promises never to change (NEP 19)."""

    def __init__(self, *key: int) -> None:
        self._words = np.random.Philox(np.random.SeedSequence(key))
        self._ahead: list[int] = []

    def uniform(self) -> float:
        """A number in [0, 1)."""
        return (self._next() >> 11) * 2.0**-53

    def _next(self) -> int:
        if not self._ahead:
            self._ahead = self._words.random_raw(_AHEAD)[::-1].tolist()  # one at a time would cost ten times as much
        return self._ahead.pop()

    def integer(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included, as random.randint."""
        return low + int(self.uniform() * (high - low + 1))

    def permutation(self, count: int) -> np.ndarray:
        """The numbers 0..count-1 in random order, int64 [count]."""
        return np.argsort(np.array([self._next() for _ in range(count)], np.uint64), kind="stable")
