"""What goes wrong with a corpus on a real disk, and that it is said in a sentence before anything is lost."""

import os

import pytest

from model.command import DataError, UserError
from pretrain.corpora import get_reader
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
