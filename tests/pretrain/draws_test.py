import numpy as np

from pretrain.draws import Draws


def test_uniforms_are_the_top_53_bits_of_philox_words():
    words = np.random.Philox(np.random.SeedSequence((42, 1))).random_raw(3)
    draws = Draws(42, 1)
    assert [draws.uniform() for _ in range(3)] == [(int(word) >> 11) / 2**53 for word in words]


def test_draws_are_fixed_for_ever():
    """The shards of a seed must come out the same with every version of numpy."""
    draws = Draws(42, 1)
    assert [draws.uniform() for _ in range(3)] == [0.8215116105322875, 0.8786855366193591, 0.32857557425740236]
    assert draws.integer(5, 128) == 24
    assert draws.permutation(6).tolist() == [3, 0, 1, 5, 2, 4]


def test_every_part_of_the_key_counts():
    keys = [(seed, purpose, place) for seed in range(5) for purpose in range(4) for place in range(5)]
    assert len({Draws(*key).uniform() for key in keys}) == len(keys)


def test_integers_are_uniform_with_both_ends():
    draws = Draws(7)
    counts = np.bincount([draws.integer(5, 8) for _ in range(8000)], minlength=9)
    assert counts[:5].sum() == 0 and counts[5:].sum() == 8000
    assert np.all(np.abs(counts[5:] - 2000) < 6 * 39)  # sqrt(8000 x 1/4 x 3/4) = 38.7


def test_permutation_is_one_and_depends_on_the_key():
    assert sorted(Draws(1, 2).permutation(1000)) == list(range(1000))
    assert Draws(1, 2).permutation(50).tolist() == Draws(1, 2).permutation(50).tolist() != Draws(1, 3).permutation(50).tolist()
