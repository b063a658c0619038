import gzip
import pathlib

import pytest

from model.command import DataError, UserError
from pretrain import corpora


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in ("b.txt", "a.txt", "deep/c.txt", ".hidden.txt", ".git/d.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{name}\n")
    return tmp_path


def names(files: list[str], folder: pathlib.Path) -> list[str]:
    return [str(pathlib.Path(file).relative_to(folder)) for file in files]


@pytest.mark.parametrize(
    "patterns, expected",
    [
        (["b.txt"], ["b.txt"]),
        (["*.txt"], ["a.txt", "b.txt"]),
        (["**/*.txt"], ["a.txt", "b.txt", "deep/c.txt"]),
        ([""], ["a.txt", "b.txt", "deep/c.txt"]),
        (["deep", "b.txt"], ["deep/c.txt", "b.txt"]),
        (["b.txt", "", "b.txt"], ["b.txt", "a.txt", "deep/c.txt"]),
    ],
)
def test_expand_files(folder, patterns, expected):
    assert names(corpora.expand_files([str(folder / pattern) for pattern in patterns]), folder) == expected


def test_commas_separate_patterns_unless_a_file_is_named_so(folder):
    assert names(corpora.expand_files([f"{folder}/b.txt, {folder}/deep/*"]), folder) == ["b.txt", "deep/c.txt"]
    (folder / "x,y.txt").write_text("x\n")
    assert names(corpora.expand_files([f"{folder}/x,y.txt"]), folder) == ["x,y.txt"]


@pytest.mark.parametrize("pattern", ["missing.txt", "*.csv", "a.txt,missing"])
def test_what_matches_nothing_is_named_with_its_flag(folder, pattern):
    with pytest.raises(UserError, match=r"(missing|csv).*--corpus_dir"):
        corpora.expand_files([",".join(str(folder / part) for part in pattern.split(","))], "corpus_dir")


def test_a_folder_without_files_is_an_error(tmp_path):
    (tmp_path / ".hidden").write_text("x")
    with pytest.raises(UserError, match="no files in"):
        corpora.expand_files([str(tmp_path)])


def test_only_line_feeds_end_lines(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeff가\r\n나\u2028다\x85라\x0b마\n\n\ufeff바\r사".encode())
    assert list(corpora.read_lines(str(path))) == ["가", "나\u2028다\x85라\x0b마", "", "\ufeff바\r사"]


def test_gz_reads_as_the_plain_file(tmp_path):
    text = "한국어 문장\n둘째 줄\n" * 1000
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    assert list(corpora.read_lines(f"{tmp_path}/a.txt")) == list(corpora.read_lines(f"{tmp_path}/a.txt.gz")) == text.splitlines()
    assert corpora.unpacked_size(f"{tmp_path}/a.txt.gz") == corpora.unpacked_size(f"{tmp_path}/a.txt") == len(text.encode())


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress])
def test_wrong_encoding_names_file_line_and_byte(tmp_path, pack):
    path = tmp_path / ("text.gz" if pack is gzip.compress else "text")
    path.write_bytes(pack("\ufeff가나\n다라\n마".encode() + "바".encode("cp949") + b"\n"))
    # byte order mark 3, 가나 and its end 7, 다라 and its end 7, 마 3
    with pytest.raises(DataError, match=rf"{path.name}, line 3, byte 20: not UTF-8"):
        list(corpora.read_lines(str(path)))


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"no gzip", lambda data: data[:40] + b"xxxx" + data[44:]])
def test_damaged_gz_is_named(tmp_path, damage):
    path = tmp_path / "text.gz"
    path.write_bytes(damage(gzip.compress(bytes(range(32, 127)) * 50)))
    with pytest.raises(DataError, match=r"text\.gz, after line 0: damaged or truncated"):
        list(corpora.read_lines(str(path)))


def test_unreadable_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot read .*: No such file"):
        list(corpora.read_lines(str(tmp_path / "gone")))


@pytest.mark.parametrize("blanks, expected", [(True, [["a", "b"], ["c"]]), (False, [["a", "b", "c"]])])
def test_read_documents(tmp_path, blanks, expected):
    path = tmp_path / "text"
    path.write_text("\n  a \nb\n\u3000\n\nc")
    assert list(corpora.read_documents(str(path), blanks)) == expected


def joined(blocks) -> list[list[str]]:
    """Blocks back to documents."""
    documents = [[]]
    for block in blocks:
        documents[-1] += block.lines
        if block.ends_document:
            documents.append([])
    return documents[:-1]


def test_blocks_are_short_documents_or_runs_of_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "BLOCK_BYTES", 6)
    (tmp_path / "a").write_text("가\n나\n\n1234\n5678\n9\n\nz\n\n")
    (tmp_path / "b").write_text("다\n")
    files = corpora.expand_files([str(tmp_path)])
    blocks = list(corpora.read_blocks(files, True))
    assert blocks == [(["가", "나"], 8, True), (["1234", "5678"], 10, False), (["9"], 2, True), (["z"], 2, True), (["다"], 4, True)]
    assert joined(blocks) == [document for file in files for document in corpora.read_documents(file, True)]
    assert joined(corpora.read_blocks(files, False)) == [["가", "나", "1234", "5678", "9", "z"], ["다"]]


def test_units_end_with_a_document_unless_it_is_very_long(monkeypatch):
    monkeypatch.setattr(corpora, "UNIT_BYTES", 10)
    sizes = [(4, True), (5, True), (2, True), (9, False), (10, False), (1, False), (3, False), (4, True), (30, True), (1, True)]
    blocks = [corpora.Block([], size, ends) for size, ends in sizes]
    units = [[block.size for block in unit] for unit in corpora.cut_units(blocks)]
    assert units == [[4, 5, 2], [9, 10, 1], [3, 4, 30], [1]]


def test_nsmc_reviews_are_all_read(shared_data):
    path = str(shared_data / "corpus" / "nsmc_reviews.txt.gz")
    blocks = list(corpora.read_blocks([path], True))
    assert sum(len(block.lines) for block in blocks) == 475_970
    assert [block.ends_document for block in blocks].count(True) == 1
    units = list(corpora.cut_units(blocks))
    assert len(units) > 32 and max(sum(block.size for block in unit) for unit in units) < 2.1 * corpora.UNIT_BYTES
