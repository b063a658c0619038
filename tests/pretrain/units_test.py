import pytest

from pretrain import units
from pretrain.text_files import expand_files
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
    monkeypatch.setattr(units, "BLOCK_BYTES", 20)
    monkeypatch.setattr(units, "UNIT_BYTES", 150)
    lines = [f"line {number}" if number % 7 else "" for number in range(1, 200)]
    (tmp_path / "text").write_text("\n".join(lines))
    found = list(read_units([str(tmp_path / "text")], True, 0.3, 1))
    assert len(found) > 5 and [unit.number for unit in found] == list(range(len(found)))
    assert [line for unit in found for _, part in unit.parts for line in part if line] == [line for line in lines if line]
    assert sum(unit.documents for unit in found) == 29 and sum(unit.lines for unit in found) == 171
    held = sum(len(part) for unit in found for fate, part in unit.parts if fate)
    assert 25 < held < 90
    assert all(first[0] != second[0] for unit in found for first, second in zip(unit.parts, unit.parts[1:], strict=False))


@pytest.mark.parametrize("blanks, expected", [(True, [["a", "b"], ["c"]]), (False, [["a", "b", "c"]])])
def test_read_documents(tmp_path, blanks, expected):
    path = tmp_path / "text"
    path.write_text("\n  a \nb\n\u3000\n\nc")
    assert list(units.read_documents(str(path), blanks)) == expected


def joined(blocks) -> list[list[str]]:
    """Blocks back to documents."""
    documents = [[]]
    for block in blocks:
        documents[-1] += block.lines
        if block.ends_document:
            documents.append([])
    return documents[:-1]


def test_blocks_are_short_documents_or_runs_of_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "BLOCK_BYTES", 6)
    (tmp_path / "a").write_text("가\n나\n\n1234\n5678\n9\n\nz\n\n")
    (tmp_path / "b").write_text("다\n")
    files = expand_files([str(tmp_path)])
    blocks = list(units.read_blocks(files, True))
    assert blocks == [(["가", "나"], 8, True), (["1234", "5678"], 10, False), (["9"], 2, True), (["z"], 2, True), (["다"], 4, True)]
    assert joined(blocks) == [document for file in files for document in units.read_documents(file, True)]
    assert joined(units.read_blocks(files, False)) == [["가", "나", "1234", "5678", "9", "z"], ["다"]]


def test_units_end_with_a_document_unless_it_is_very_long(monkeypatch):
    monkeypatch.setattr(units, "UNIT_BYTES", 10)
    sizes = [(4, True), (5, True), (2, True), (9, False), (10, False), (1, False), (3, False), (4, True), (30, True), (1, True)]
    blocks = [units.Block([], size, ends) for size, ends in sizes]
    found = [[block.size for block in unit] for unit in units.cut_units(blocks)]
    assert found == [[4, 5, 2], [9, 10, 1], [3, 4, 30], [1]]


def test_nsmc_reviews_are_all_read(shared_data):
    path = str(shared_data / "corpus" / "nsmc_reviews.txt.gz")
    blocks = list(units.read_blocks([path], True))
    assert sum(len(block.lines) for block in blocks) == 475_970
    assert [block.ends_document for block in blocks].count(True) == 1
    found = list(units.cut_units(blocks))
    assert len(found) > 32 and max(sum(block.size for block in unit) for unit in found) < 2.1 * units.UNIT_BYTES
