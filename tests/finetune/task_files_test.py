import pytest

from finetune.task_files import read_csv, read_json_lines, read_json_rows, read_tsv
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


def test_without_columns_the_header_names_them(tmp_path):
    (tmp_path / "a.tsv").write_bytes("\ufeffid\ttext\r\n7\t가\r\n".encode())
    assert read_tsv(str(tmp_path / "a.tsv"), ()) == [(2, {"id": "7", "text": "가"})]
    (tmp_path / "a.tsv").write_text("text\ttext\n")
    with pytest.raises(UserError, match="a.tsv, line 1: the header names 'text' twice.*--my_flag"):
        read_tsv(str(tmp_path / "a.tsv"), (), flag="my_flag")


def test_csv_fields_may_hold_commas_quotes_and_line_ends(tmp_path):
    text = '\ufefftext,label\r\n"비가, ""많이"" 온다",1\r\n"두\n줄",0\r\n 맑다 ,1\r\n'
    (tmp_path / "a.csv").write_bytes(text.encode())
    rows = [(2, {"text": '비가, "많이" 온다', "label": "1"}), (3, {"text": "두\n줄", "label": "0"}), (5, {"text": " 맑다 ", "label": "1"})]
    assert read_csv(str(tmp_path / "a.csv"), ("text", "label")) == read_csv(str(tmp_path / "a.csv"), ()) == rows
    assert read_csv(str(tmp_path / "a.csv"), ("text", "label"), has_header=False)[1:] == rows


@pytest.mark.parametrize(
    "text, words",
    [
        ('a,b\n"두\n줄",1\n가\n', "a.csv, line 4: 1 comma-separated fields instead of 2 .a, b. "),
        ('a,b\n1,2\n"가,나\n다,라\n', "a.csv, line 3: no row of CSV: unexpected end of data"),
        ('a,b\n1,2\n"가"나,다\n', "a.csv, line 3: no row of CSV: .*expected after"),
        ("a;b\n", "a.csv, line 1: 1 comma-separated fields.*another task"),
    ],
)
def test_bad_csv_is_named(tmp_path, text, words):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        read_csv(str(tmp_path / "a.csv"), ("a", "b"))


def test_json_lines_give_the_fields_asked_for(tmp_path):
    (tmp_path / "a.jsonl").write_bytes('\ufeff{"text": "가", "label": {"is": true}}\r\n{"text": "나", "label": {"is": 2}}\n'.encode())
    assert read_json_lines(str(tmp_path / "a.jsonl"), ("text", "label/is")) == [
        (1, {"text": "가", "label/is": "true"}),
        (2, {"text": "나", "label/is": "2"}),
    ]
    (tmp_path / "a.jsonl").write_text('{"text": "가"}\n{"text": null}\n')
    with pytest.raises(UserError, match="a.jsonl, line 2: no 'text'.*another task.*--raw_data_dir"):
        read_json_lines(str(tmp_path / "a.jsonl"), ("text",))
    (tmp_path / "a.jsonl").write_text('{"text": "가\\ud800"}\n')
    with pytest.raises(UserError, match="a.jsonl, line 1: 'text' holds half of a surrogate pair"):
        read_json_lines(str(tmp_path / "a.jsonl"), ("text",))
    for reader, rows in ((read_json_lines, "[" * 100_000), (read_json_rows, "[" * 100_000)):
        (tmp_path / "a.json").write_text(rows)
        with pytest.raises(UserError, match="a.json.* not JSON"):
            reader(str(tmp_path / "a.json"), ("text",))
    (tmp_path / "a.jsonl").write_text('{"text": "가"}\n\n')
    with pytest.raises(UserError, match="a.jsonl, line 2: not JSON"):
        read_json_lines(str(tmp_path / "a.jsonl"), ("text",))


@pytest.mark.parametrize("read", [read_tsv, read_csv, read_json_lines])
def test_what_is_not_utf_8_is_blamed_on_the_flag_that_named_the_file(tmp_path, read):
    (tmp_path / "a.txt").write_bytes(b"a\n\xb0\xa1\n")
    with pytest.raises(UserError, match=r"a.txt, line 2, byte 2: not UTF-8 .* .--task_config.$"):
        read(str(tmp_path / "a.txt"), ("a",), flag="task_config")


def test_json_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_bytes('\ufeff[{"a": "가"}]'.encode())
    assert read_json_rows(str(tmp_path / "a.json"), ("a",)) == [(1, {"a": "가"})]
