"""Random numbers for building data: streams that depend on the seed, a purpose and a place in the corpus, on nothing else."""

import numpy as np

# Purposes: the part of a stream's key that follows the seed.
FOR_HOLDING_OUT, FOR_EXAMPLES, FOR_UNIT_ORDER, FOR_DEALING = range(4)


class Draws:
    """Random numbers that depend on `key` alone: Philox words, whose stream numpy promises never to change (NEP 19)."""

    def __init__(self, *key: int) -> None:
        self._words = np.random.Philox(np.random.SeedSequence(key))

    def uniform(self) -> float:
        """A number in [0, 1)."""
        return (int(self._words.random_raw()) >> 11) * 2.0**-53

    def integer(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included, as random.randint."""
        return low + int(self.uniform() * (high - low + 1))

    def permutation(self, count: int) -> np.ndarray:
        """The numbers 0..count-1 in random order, int64 [count]."""
        return np.argsort(self._words.random_raw(count), kind="stable")
