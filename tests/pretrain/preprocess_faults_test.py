"""What goes wrong with a corpus on a real disk, and that it is said in a sentence before anything is lost."""

import dataclasses
import errno
import os

import pytest

from model.command import DataError, UserError
from pretrain import corpus_report_page
from pretrain.corpora import READERS, get_reader
from pretrain.corpus_builder import build
from pretrain.deduplication import ExactDuplicates
from pretrain.document_cleaner import DocumentCleaner, PreprocessConfig, Tally
from pretrain.text_files import TextFile, expand_files

# ---- files and folders


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
@pytest.mark.parametrize("name", ["b.txt", "b.txt.gz", "folder"])
def test_what_cannot_be_read_is_named_at_once(tmp_path, name):
    (tmp_path / "a.txt").write_text("가\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/c.txt").write_text("나\n")
    (tmp_path / "b.txt").write_text("다\n")
    (tmp_path / "b.txt.gz").write_bytes(b"")
    (tmp_path / name).chmod(0)
    with pytest.raises(UserError, match=rf"cannot read .*{name}.*Permission denied \(--corpora\)"):
        expand_files([str(tmp_path)], "corpora")
    (tmp_path / name).chmod(0o700)


def test_a_folder_that_cannot_be_listed_is_not_passed_over(tmp_path, monkeypatch):
    def walk(folder, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", f"{folder}/secret"))
        return []

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(UserError, match=r"cannot read '.*/secret': Permission denied \(--corpora\)"):
        expand_files([str(tmp_path)], "corpora")


def test_links_to_folders_are_followed_once_and_one_to_nowhere_is_an_error(tmp_path):
    for name in ("raw/a.txt", "elsewhere/b.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("가\n")
    (tmp_path / "raw/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/up").symlink_to(tmp_path / "raw")
    assert expand_files([f"{tmp_path}/raw"]) == [f"{tmp_path}/raw/a.txt", f"{tmp_path}/raw/more/b.txt"]
    (tmp_path / "raw/gone.txt").symlink_to(tmp_path / "nowhere.txt")
    with pytest.raises(UserError, match=r"cannot read '.*gone.txt': it is a link to nowhere"):
        expand_files([f"{tmp_path}/raw"])


def test_a_name_that_is_not_utf8_is_an_error(tmp_path):
    try:
        with open(os.fsencode(tmp_path) + "/가.txt".encode("cp949"), "w"):
            pass
    except OSError:
        pytest.skip("this file system knows UTF-8 names only")
    with pytest.raises(UserError, match=r"the name of b'.*xb0.xa1.txt' is not UTF-8"):
        expand_files([str(tmp_path)])


# ---- JSON


@pytest.mark.parametrize(
    ("value", "byte"),
    [('"네 \\udc00 그래요"', 33), ("1" * 5000, 5012), ("1e99999999999999999999999", 37)],
    ids=["half a character", "a number of 5,000 digits", "an endless number"],
)
def test_json_that_python_cannot_hold_is_named_like_broken_json(tmp_path, value, byte):
    path = tmp_path / "dialog.json"
    path.write_text(f'{{"answer":  {value}}}', encoding="utf-8")
    with pytest.raises(DataError, match=r"dialog.json, byte \d+: broken JSON \(.*") as error:
        list(get_reader("ai_hub_dialog").documents(TextFile(str(path))))
    assert f"byte {byte}:" in str(error.value)


# ---- test texts


def test_text_that_cleaning_turns_into_a_test_text_is_excluded(tmp_path):
    (tmp_path / "ratings_test.txt").write_text("1\t정말 재미있는 영화ㅋㅋ\n2\t굿 영화. 또 봐요.\n", encoding="utf-8")
    cleaner = DocumentCleaner(PreprocessConfig(exclude=f"{tmp_path}/ratings_test.txt"))
    tally = Tally()
    assert cleaner.clean(["정말&nbsp;재미있는 영화ㅋㅋㅋㅋ"], tally) == []
    assert cleaner.clean(["굿 영화. 또 봐요. http://a.kr/b"], tally) == []
    assert cleaner.clean(["정말 재미있는 영화ㅋㅋㅋㅋ. 그런데 길어요."], tally) == ["그런데 길어요."]
    assert dict(tally.excluded) == {(0, "exact"): 2, (0, "loose"): 1}


# ---- a build


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_report_page, "render", lambda report: "its plots take a second")
    for name in ("a", "b"):
        (tmp_path / "raw" / name).mkdir(parents=True)
        (tmp_path / f"raw/{name}/{name}.txt").write_text(f"첫째 문서 {name}.\n\n둘째 문서.\n", encoding="utf-8")
    return PreprocessConfig(corpora=f"a=text:{tmp_path}/raw/a,b=kcbert:{tmp_path}/raw/b", output_dir=str(tmp_path / "out"))


def test_a_full_disk_while_duplicates_are_found(config, monkeypatch):
    def full(duplicates, keys):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DataError, match=r"cannot write .*fates: No space left .* same command again"):
        patch.setattr(ExactDuplicates, "add", full)
        build(config)
    assert build(config)["shards"]


def test_temporary_files_of_a_killed_run_are_removed(config):
    build(config)
    work = os.path.join(config.output_dir, "unfinished_build")
    os.mkdir(work)
    for name in ("report.html.tmp-0a1b2c3d", "unit-0000000-0123456789abcdef.npz.tmp-4711"):
        open(os.path.join(work, name), "w").close()
    build(config)
    assert not os.path.exists(work)


@pytest.mark.parametrize(
    ("parts", "message"),
    [([0], r"corpora = a, b, not a: change --corpora"), ([1, 0], r"corpora = a, b, not b, a: change --corpora")],
)
def test_fewer_corpora_or_another_order_are_another_build(config, parts, message):
    build(config)
    corpora = config.corpora.split(",")
    with pytest.raises(UserError, match=message):
        build(dataclasses.replace(config, corpora=",".join(corpora[part] for part in parts)))


def test_another_file_is_blamed_on_its_flag(config, tmp_path):
    build(config)
    (tmp_path / "raw/b/b.txt").write_text("다른 문서\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"files = .*b.txt.* change --corpora"):
        build(config)


@pytest.mark.parametrize("folder", ["raw/a", "raw/a/out"])
def test_output_among_what_is_read(config, tmp_path, folder):
    with pytest.raises(UserError, match="lies in the folder .*raw/a that is read"):
        build(dataclasses.replace(config, output_dir=f"{tmp_path}/{folder}"))


@pytest.mark.parametrize(
    ("mixture", "message"),
    [("other=1,dialog=2,written=3", "weighs 'written', and no corpus"), ("other=1,dialog=2,other=3", "weighs other twice")],
)
def test_mixtures_that_cannot_be_meant(config, mixture, message):
    with pytest.raises(UserError, match=message):
        build(dataclasses.replace(config, mixture=mixture))


def test_half_characters_of_a_reader_are_cleaned_away(config, monkeypatch, tmp_path):
    monkeypatch.setattr(READERS["text"], "documents", lambda reader, file: iter([["안녕\ud800하세요"]]))
    exclude = tmp_path / "test.txt"
    exclude.write_text("다른 글\n", encoding="utf-8")
    build(dataclasses.replace(config, exclude=str(exclude)))
    assert (tmp_path / "out/corpus/a-00000-of-00001.txt").read_text(encoding="utf-8") == "안녕하세요\n"
