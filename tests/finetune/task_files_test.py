import pytest

from finetune.task_files import read_json_rows, read_tsv
from model.command import UserError


def test_fields_are_what_stands_between_tabs(tmp_path):
    (tmp_path / "a.tsv").write_text('id\ttext\n7\t"열고\n8\t닫고" \n', encoding="utf-8")
    assert read_tsv(str(tmp_path / "a.tsv"), ("id", "text")) == [(2, {"id": "7", "text": '"열고'}), (3, {"id": "8", "text": '닫고" '})]


def test_a_file_without_a_header_begins_with_a_row(tmp_path):
    (tmp_path / "a.tsv").write_text("words\ttags", encoding="utf-8")
    assert read_tsv(str(tmp_path / "a.tsv"), ("words", "tags"), has_header=False) == [(1, {"words": "words", "tags": "tags"})]


def test_wrong_fields_and_headers_are_named(tmp_path):
    (tmp_path / "a.tsv").write_text("id\ttext\n7\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a.tsv, line 2: 1 tab-separated fields instead of 2 \(id, text\)"):
        read_tsv(str(tmp_path / "a.tsv"), ("id", "text"))
    with pytest.raises(
        UserError, match="a.tsv, line 1: 2 tab-separated fields instead of 1 .label.; is this the file of another task.*--raw_data_dir"
    ):
        read_tsv(str(tmp_path / "a.tsv"), ("label",))
    with pytest.raises(UserError, match="a.tsv, line 1: the header is.*another task"):
        read_tsv(str(tmp_path / "a.tsv"), ("id", "label"))


def test_json_objects_give_the_fields_asked_for(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "가", "labels": {"score": 3.5, "binary": 1}, "other": []}]', encoding="utf-8")
    assert read_json_rows(str(tmp_path / "a.json"), ("text", "labels/score")) == [(1, {"text": "가", "labels/score": "3.5"})]
    with pytest.raises(UserError, match="a.json, row 1: no 'other'.*another task"):
        read_json_rows(str(tmp_path / "a.json"), ("other",))
