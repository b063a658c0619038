import gzip
import lzma
import pathlib
import tracemalloc
import zipfile

import pytest
import zstandard

from model.command import DataError, UserError
from pretrain import text_files
from pretrain.text_files import TextFile


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
    assert names(text_files.expand_files([str(folder / pattern) for pattern in patterns]), folder) == expected


def test_commas_separate_patterns_unless_a_file_is_named_so(folder):
    assert names(text_files.expand_files([f"{folder}/b.txt, {folder}/deep/*"]), folder) == ["b.txt", "deep/c.txt"]
    (folder / "x,y.txt").write_text("x\n")
    assert names(text_files.expand_files([f"{folder}/x,y.txt"]), folder) == ["x,y.txt"]


@pytest.mark.parametrize("pattern", ["missing.txt", "*.csv", "a.txt,missing"])
def test_what_matches_nothing_is_named_with_its_flag(folder, pattern):
    with pytest.raises(UserError, match=r"(missing|csv).*--corpus_dir"):
        text_files.expand_files([",".join(str(folder / part) for part in pattern.split(","))], "corpus_dir")


def test_a_folder_without_files_is_an_error(tmp_path):
    (tmp_path / ".hidden").write_text("x")
    with pytest.raises(UserError, match="no files in"):
        text_files.expand_files([str(tmp_path)])


def test_only_line_feeds_end_lines(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeff가\r\n나\u2028다\x85라\x0b마\n\n\ufeff바\r사".encode())
    assert list(text_files.read_lines(str(path))) == ["가", "나\u2028다\x85라\x0b마", "", "\ufeff바\r사"]


def pack_zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACKERS = {"": lambda data: data, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": pack_zst}


def write(folder: pathlib.Path, name: str, data: bytes) -> str:
    """Writes `data` packed as the end of `name` says; "a.zip!b" is a member of a .zip."""
    archive, _, member = name.partition("!")
    if member:
        with zipfile.ZipFile(folder / archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(member, data)
    else:
        (folder / name).write_bytes(PACKERS[pathlib.Path(name).suffix](data))
    return str(folder / name)


PACKED = ["text.gz", "text.xz", "text.zst", "text.zip!inner/text"]


@pytest.mark.parametrize("name", PACKED)
def test_packed_files_read_as_the_plain_one(tmp_path, name):
    text = "한국어 문장\n둘째 줄\n\n" * 50000
    data = text.encode()
    path = write(tmp_path, name, data)
    assert text_files.expand_files([path.partition("!")[0]]) == [path]
    assert list(text_files.read_lines(path)) == text.splitlines()
    with TextFile(path).stream() as stream:
        assert stream.read() == data
    assert text_files.unpacked_size(path) == len(data)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, pack_zst])
def test_parts_packed_one_by_one_are_read_together(tmp_path, pack):
    (tmp_path / "text").write_bytes(pack("가\n나".encode()) + pack("다\n".encode()))
    path = (tmp_path / "text").rename(tmp_path / {gzip.compress: "t.gz", lzma.compress: "t.xz", pack_zst: "t.zst"}[pack])
    assert list(text_files.read_lines(str(path))) == ["가", "나다"]


def test_a_zip_stands_for_its_members(tmp_path):
    with zipfile.ZipFile(tmp_path / "Text.ZIP", "w") as file:
        file.mkdir("deep") if hasattr(file, "mkdir") else file.writestr("deep/", "")
        for name in ("deep/b.txt", "a.txt", "a.txt.gz", "__MACOSX/a.txt", "deep/.hidden", ".git/c"):
            file.writestr(name, gzip.compress("가".encode()) if name.endswith(".gz") else "가")
    found = text_files.expand_files([str(tmp_path)])
    assert names(found, tmp_path) == ["Text.ZIP!a.txt", "Text.ZIP!a.txt.gz", "Text.ZIP!deep/b.txt"]
    assert [list(text_files.read_lines(path)) for path in found] == [["가"]] * 3
    assert text_files.stored_size(found[0]) == 3


def test_a_zip_is_read_anew_when_it_has_changed(tmp_path):
    path = write(tmp_path, "text.zip!a", b"1\n")
    assert list(text_files.read_lines(path)) == ["1"]
    write(tmp_path, "text.zip!a", b"1\n2\n")
    assert list(text_files.read_lines(path)) == ["1", "2"]
    write(tmp_path, "text.zip!gone", b"1\n2\n3\n")
    with pytest.raises(DataError, match="text.zip!a, after byte 0.*no item named"):
        list(text_files.read_lines(path))


def test_sizes_that_a_packed_file_does_not_tell(tmp_path):
    compressor = zstandard.ZstdCompressor().compressobj()
    (tmp_path / "a.zst").write_bytes(compressor.compress(b"text") + compressor.flush())
    for name in ("a.xz", "a.gz", "b.zst"):
        (tmp_path / name).write_bytes(b"xx")
    for path in tmp_path.iterdir():
        assert text_files.unpacked_size(str(path)) == path.stat().st_size


@pytest.mark.parametrize("name", ["text", *PACKED])
def test_wrong_encoding_names_file_line_and_byte(tmp_path, name):
    path = write(tmp_path, name, "\ufeff가나\n다라\n마".encode() + "바".encode("cp949") + b"\n")
    # byte order mark 3, 가나 and its end 7, 다라 and its end 7, 마 3
    with pytest.raises(DataError, match=rf"{name}, line 3, byte 20: not UTF-8 .*--invalid_utf8=replace"):
        list(text_files.read_lines(path))
    with pytest.raises(DataError, match=rf"{name}, line 3, byte 20: not UTF-8"):
        TextFile(path).stream().read()


@pytest.mark.parametrize("read_bytes", [1, 2, 3, 4, 5, 7, 1000])
def test_reads_of_any_length_give_the_same(tmp_path, monkeypatch, read_bytes):
    monkeypatch.setattr(text_files, "READ_BYTES", read_bytes)
    good = "\ufeff한😀\r\n\ufffd\r\n\n\r나\r"
    path = write(tmp_path, "text", good.encode())
    assert list(TextFile(path).lines()) == ["한😀", "\ufffd", "", "\r나"]
    assert TextFile(path).stream().read() == good.removeprefix("\ufeff").encode()
    # an invalid byte, the beginning of 한, one genuine U+FFFD, the beginning of an emoji at the end
    path = write(tmp_path, "bad", "가".encode() + b"\xff\n\xed\x95" + "나\ufffd\n".encode() + b"\xf0\x9f\x98")
    for read in (lambda file: "\n".join(file.lines()), lambda file: file.stream().read().decode()):
        file = TextFile(path, "replace")
        assert read(file) == "가\ufffd\n\ufffd나\ufffd\n\ufffd"
        assert file.replaced == 3 and file.read == 17
    with pytest.raises(DataError, match="line 1, byte 3:"):
        list(TextFile(path).lines())


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"no archive", lambda data: data[:40] + b"xxxx" + data[44:]])
@pytest.mark.parametrize("name", PACKED)
def test_damaged_archives_are_named(tmp_path, name, damage):
    path = write(tmp_path, name, bytes(range(32, 127)) * 50)
    archive = pathlib.Path(path.partition("!")[0])
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(DataError, match=r"text\.\w+.* damaged or truncated"):
        list(text_files.read_lines(text_files.expand_files([str(archive)])[0]))


def test_truncated_zst_between_two_frames_reads_as_whole_but_not_within_one(tmp_path):
    frame = pack_zst("한국어\n".encode() * 100)
    (tmp_path / "a.zst").write_bytes(frame + frame[:-1])
    with pytest.raises(DataError, match="ends within a frame"):
        list(text_files.read_lines(f"{tmp_path}/a.zst"))


def test_unreadable_file_is_a_user_error(tmp_path):
    for path in (tmp_path / "gone", tmp_path / "gone.zip!a", tmp_path):
        with pytest.raises(UserError, match="cannot read .*: (No such file|Is a dir)"):
            list(text_files.read_lines(str(path)))


def test_an_empty_file_has_no_lines(tmp_path):
    for name in ("text", *PACKED):
        assert list(text_files.read_lines(write(tmp_path, name, b""))) == []
    assert list(text_files.read_lines(write(tmp_path, "mark", "\ufeff".encode()))) == []


def test_a_line_without_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "READ_BYTES", 4)
    monkeypatch.setattr(text_files, "MAX_LINE_BYTES", 12)
    assert list(text_files.read_lines(write(tmp_path, "text", "가\n가나다라\n마".encode()))) == ["가", "가나다라", "마"]
    with pytest.raises(DataError, match="text, line 2: longer than 12 bytes"):
        list(text_files.read_lines(write(tmp_path, "text", "가\n가나다라1\n마".encode())))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["text", *PACKED])
def test_memory_is_flat(tmp_path, name):
    """256 MiB of one letter, some of which pack to a few kilobytes."""
    path = write(tmp_path, name, b"x" * (1 << 28))
    tracemalloc.start()
    with TextFile(path).stream() as stream:
        assert sum(len(part) for part in iter(lambda: stream.read(1 << 16), b"")) == 1 << 28
    with pytest.raises(DataError, match="line 1: longer than"):
        list(TextFile(path).lines())
    assert tracemalloc.get_traced_memory()[1] < 1.2e8
    tracemalloc.stop()
    pathlib.Path(path.partition("!")[0]).unlink()
