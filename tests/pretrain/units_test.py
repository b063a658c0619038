import pytest

from pretrain import corpora
from pretrain.units import hold_out, read_units


@pytest.mark.parametrize("fraction", [0.005, 0.1, 0.3, 0.4, 0.5])
def test_hold_out_takes_its_share_of_every_stretch(fraction):
    fates = hold_out(fraction, seed=5)
    held = [next(fates) for _ in range(20000)]
    assert sum(held) == pytest.approx(20000 * fraction, abs=max(2, 0.2 * 20000 * fraction * (fraction > 0.2)))
    assert any(held[: round(2 / fraction)])


def test_hold_out_depends_on_the_seed_and_nothing_is_held_out_for_zero():
    held = {seed: [block for block, fate in zip(range(2000), hold_out(0.01, seed), strict=False) if fate] for seed in (1, 2)}
    assert len(held[1]) == len(held[2]) == 20 and held[1] != held[2]
    assert not any(fate for _, fate in zip(range(2000), hold_out(0, 1), strict=False))


def test_held_out_blocks_break_documents_and_lose_no_line(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "BLOCK_BYTES", 20)
    monkeypatch.setattr(corpora, "UNIT_BYTES", 150)
    lines = [f"line {number}" if number % 7 else "" for number in range(1, 200)]
    (tmp_path / "text").write_text("\n".join(lines))
    found = list(read_units([str(tmp_path / "text")], True, 0.3, 1))
    assert len(found) > 5 and [unit.number for unit in found] == list(range(len(found)))
    assert [line for unit in found for _, part in unit.parts for line in part if line] == [line for line in lines if line]
    assert sum(unit.documents for unit in found) == 29 and sum(unit.lines for unit in found) == 171
    held = sum(len(part) for unit in found for fate, part in unit.parts if fate)
    assert 25 < held < 90
    assert all(first[0] != second[0] for unit in found for first, second in zip(unit.parts, unit.parts[1:], strict=False))
