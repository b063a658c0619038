import gzip
import lzma
import pathlib
import subprocess
import sys
import textwrap
import zipfile

import pytest
import zstandard

from model.command import DataError, UserError
from pretrain import corpora, json_events
from pretrain.corpora import CorpusReader, clean_transcription, gather, get_reader, load_reader_module, register
from pretrain.text_files import TextFile, expand_files

DIALOG = '{"data": [{"dialogs": [{"question": "가?", "turn": 1, "answer": "나."}, {"question": "다?"}]}, {"dialogs": [{"answer": "라."}]}]}'
SPOKEN = '{"document": [{"utterance": [{"form": "가?"}, {"form": "나."}, {"form": "다?"}]}, {"utterance": [{"form": "라."}]}]}'
# The same two documents in the format of every reader; where a document holds at most two texts, other ones.
SAMPLES = {
    "text": "가?\n나.\n다?\n\n라.\n",
    "kcbert": "가?\n라.\n",
    "namuwikitext": " = 한 =\n\n가?\n나.\n\n = = 둘 = =\n\n다?\n\n = 셋 =\n\n라.\n",
    "korean_chatbot_data": 'Q,A,label\n가?,"나, 나.",0\n라.,,1  \n',
    "tsv": "id\tone\ttwo\n1\t가?\t나.\n2\t라.\t\n",
    "jsonl": '{"one": "가?\\n나.", "two": "다?"}\n{"two": null, "one": "라."}\n',
    "ai_hub_dialog": DIALOG,
    "nikl_spoken": SPOKEN,
    "nikl_newspaper": SPOKEN.replace("utterance", "paragraph"),
}
DOCUMENTS = {name: [["가?", "나.", "다?"], ["라."]] for name in SAMPLES} | {
    "kcbert": [["가?"], ["라."]],
    "korean_chatbot_data": [["가?", "나, 나."], ["라."]],
    "tsv": [["가?", "나."], ["라."]],
}
JSON = [name for name, reader in corpora.READERS.items() if issubclass(reader, corpora.JsonReader)]
every_reader = pytest.mark.parametrize("name", corpora.READERS)
every_json_reader = pytest.mark.parametrize("name", JSON)


def reader_of(name: str) -> CorpusReader:
    return get_reader(name, ["one", "two"])


@pytest.fixture
def read(tmp_path):
    """read("text", "가\\n") -> [["가"]]; the file is called "file"."""

    def documents(name: str, data: str | bytes, keys=("one", "two"), invalid_utf8="error") -> list[list[str]]:
        path = tmp_path / "file"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return list(get_reader(name, keys).documents(TextFile(str(path), invalid_utf8)))

    return documents


# ---- the registry


def test_readers_are_known_with_their_groups():
    groups = {name: (reader.group, reader.moderated) for name, reader in corpora.READERS.items()}
    assert groups == {
        "text": ("other", False),
        "kcbert": ("dialog", False),
        "namuwikitext": ("written", True),
        "korean_chatbot_data": ("dialog", True),
        "tsv": ("other", False),
        "jsonl": ("other", False),
        "ai_hub_dialog": ("dialog", True),
        "nikl_newspaper": ("written", True),
        "nikl_spoken": ("dialog", True),
    }
    assert all(get_reader(name, ["a"]).name == name for name in groups)
    with pytest.raises(UserError, match="no corpus reader 'kcbret', must be one of text, kcbert.*--reader_module"):
        get_reader("kcbret")


def test_a_name_cannot_be_taken_twice_nor_a_group_be_made_up():
    class Other(corpora.Text):
        group = "poems"

    with pytest.raises(ValueError, match="'text' already"):
        register(Other)
    Other.name = "other"
    with pytest.raises(ValueError, match="'poems', must be one of dialog, written, other"):
        register(Other)
    assert "other" not in corpora.READERS


OWN_READER = """
from pretrain.corpora import CorpusReader, gather, register

@register
class LineReader(CorpusReader):
    name = "NAME"
    group = "written"
    moderated = True

    def documents(self, file):
        return gather(text for line in file.lines() for text in (line, None))
"""


def test_a_module_brings_in_a_reader(tmp_path, monkeypatch, read):
    monkeypatch.setattr(corpora, "READERS", dict(corpora.READERS))
    (tmp_path / "own.py").write_text(OWN_READER.replace("NAME", "from_file"))
    (tmp_path / "own_dotted.py").write_text(OWN_READER.replace("NAME", "from_path"))
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in (str(tmp_path / "own.py"), "own_dotted"):
        load_reader_module(module)
        load_reader_module(module)  # as every process does
    assert read("from_file", " 가\n\n나\n") == read("from_path", " 가\n\n나\n") == [["가"], ["나"]]


@pytest.mark.parametrize(
    "code, error",
    [("import nothing_of_this_name", "ModuleNotFoundError"), ("1 +", "SyntaxError"), (OWN_READER.replace("NAME", "text"), "already")],
)
def test_a_module_that_cannot_be_imported_is_a_user_error(tmp_path, code, error):
    (tmp_path / "broken.py").write_text(code)
    for _ in range(2):
        with pytest.raises(UserError, match=rf"cannot import '.*broken.py': .*{error}.*--reader_module"):
            load_reader_module(str(tmp_path / "broken.py"))
    for missing in (str(tmp_path / "missing.py"), "missing.module", ""):
        with pytest.raises(UserError, match="cannot import"):
            load_reader_module(missing)


def test_gather():
    texts = [None, " 가 ", "나\r\n\n 다", "", None, " \n", None, "라\u2028마\0"]
    assert list(gather(texts)) == [["가", "나", "다"], ["라\u2028마\0"]]


def test_gather_hands_on_a_very_long_document_in_parts(monkeypatch):
    monkeypatch.setattr(corpora, "MAX_DOCUMENT_CHARS", 5)
    assert list(gather(["가나다", "라마", "바", "사", None, "아"])) == [["가나다", "라마", "바"], ["사"], ["아"]]


# ---- real data and samples: counts from the README of the data


@pytest.mark.parametrize(
    "name, path, documents, texts",
    [
        ("ai_hub_dialog", "ai_hub_dialog/sample_dialog.json", 4, 20),
        ("nikl_spoken", "NIKL_spoken/sample_SARW0000000001.json", 2, 20),
        ("nikl_newspaper", "NIKL_newspaper/sample_NWRW0000000001.json", 4, 12),
        ("korean_chatbot_data", "korean_chatbot_data/ChatbotData.csv", 11_823, 2 * 11_823),
        ("kcbert", "kcbert/standin.unlabeled_comments_5.txt", 33_893, 33_893),
        ("namuwikitext", "namuwikitext/sample_namuwikitext.train", 2, 8),
        ("text", "nsmc_reviews.txt.gz", None, 475_970),
    ],
)
def test_real_files_are_read_whole(shared_data, name, path, documents, texts):
    found = list(get_reader(name).documents(TextFile(str(shared_data / "corpus" / path))))
    assert sum(map(len, found)) == texts and documents in (None, len(found))
    assert all(text and text == text.strip() and "\n" not in text for document in found for text in document)


def test_task_files_are_read_with_tsv(shared_data):
    reader = get_reader("tsv", ["sentence1", "sentence2"])
    assert len(list(reader.documents(TextFile(str(shared_data / "kornli" / "xnli.dev.ko.tsv"))))) == 2490


# ---- every reader


def test_every_reader_has_a_sample():
    assert set(SAMPLES) == set(corpora.READERS)


@every_reader
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.rstrip("\n"),
        lambda text: "\ufeff" + text.replace("\n", "\r\n").rstrip("\r\n"),
        lambda text: text.replace("가", "\u3000 가"),
    ],
    ids=["as it is", "byte order mark", "CRLF", "no line end", "all", "blanks"],
)
def test_every_reader(read, name, change):
    assert read(name, change(SAMPLES[name])) == DOCUMENTS[name]


@every_reader
def test_packed_twins_give_equal_documents(tmp_path, name):
    data = SAMPLES[name].encode()
    for suffix, pack in {"gz": gzip.compress, "xz": lzma.compress, "zst": zstandard.compress}.items():
        (tmp_path / f"file.{suffix}").write_bytes(pack(data))
    with zipfile.ZipFile(tmp_path / "file.zip", "w") as archive:
        archive.writestr("inner/file", data)
    for path in expand_files([str(tmp_path)]):
        assert list(reader_of(name).documents(TextFile(path))) == DOCUMENTS[name]


@every_reader
def test_an_empty_file(read, name):
    for data in ("", "\ufeff"):
        if name in JSON:
            with pytest.raises(DataError, match=rf"file, byte {len(data.encode())}: broken JSON \(parse error: premature EOF\)"):
                read(name, data)
        elif name in ("tsv", "korean_chatbot_data"):
            with pytest.raises(DataError, match="file, line 1: there is no header, must be "):
                read(name, data)
        else:
            assert read(name, data) == []


@every_reader
def test_invalid_utf8_is_an_error_or_replaced(tmp_path, name):
    sample = SAMPLES[name].encode()
    bad = sample.replace("라".encode(), "라".encode("cp949"))
    (tmp_path / "file").write_bytes(bad)
    file = TextFile(str(tmp_path / "file"))
    with pytest.raises(DataError, match=rf"file, line \d+, byte {bad.index('라'.encode('cp949'))}: not UTF-8"):
        list(reader_of(name).documents(file))
    file = TextFile(str(tmp_path / "file"), "replace")
    assert list(reader_of(name).documents(file))[-1] == ["\ufffd\ufffd."]
    assert file.replaced == 2


@every_reader
def test_nul(read, name):
    """Raw NUL breaks JSON; csv drops it, for Python 3.10 cannot read it; in the other files it is a character that cleaning drops."""
    data = SAMPLES[name].replace("라", "라\0")
    if name in (*JSON, "jsonl"):
        with pytest.raises(DataError, match=r"file, (line \d, )?byte \d+.* JSON"):
            read(name, data)
    else:
        assert read(name, data)[-1] == ["라." if name == "korean_chatbot_data" else "라\0."]


@every_reader
@pytest.mark.slow
def test_a_line_of_100_megabytes(tmp_path, name):
    """Refused, in a JSON file as one text; the next test reads JSON files that are one line."""
    path = tmp_path / "file"
    before, _, after = SAMPLES[name].partition("라")
    with path.open("w", encoding="utf-8") as file:
        file.write(before)
        for _ in range(100):
            file.write("라" * ((1 << 20) // 3))
        file.write(after)
    error = "a text of more than" if name in JSON else r"file, line \d+: longer than"
    with pytest.raises(DataError, match=f"{error} 16,777,216"):
        list(reader_of(name).documents(TextFile(str(path))))
    path.unlink()


MEMORY = """
import resource, sys
from pretrain.corpora import get_reader
from pretrain.text_files import TextFile
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
texts = sum(map(len, get_reader(sys.argv[1], ["one", "two"]).documents(TextFile(sys.argv[2]))))
print(texts, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@every_reader
@pytest.mark.slow
def test_200_megabytes_take_little_memory(tmp_path, name):
    """One file of 200 MB, for the JSON readers one document: a tenth of it would be too much."""
    path = tmp_path / "file"
    begin, repeated, end = {
        "text": ("", "가나다라 마바사 아자차카\n", ""),
        "kcbert": ("", "가나다라 마바사 아자차카\n", ""),
        "namuwikitext": (" = 한 =\n", "가나다라 마바사 아자차카\n", ""),
        "korean_chatbot_data": ("Q,A,label\n", "가나다라 마바사 아자차카,답,0\n", ""),
        "tsv": ("one\ttwo\n", "가나다라 마바사 아자차카\t답\n", ""),
        "jsonl": ("", '{"one": "가나다라 마바사 아자차카", "two": "답"}\n', ""),
        "ai_hub_dialog": ('[{"question": "첫째"}', ',{"turn": 1, "question": "가나다라 마바사 아자차카", "answer": "답"}', "]"),
        "nikl_spoken": ('{"document": [{"utterance": [{}', ',{"id": "1", "form": "가나다라 마바사 아자차카"}', "]}]}"),
        "nikl_newspaper": ('{"document": [{"paragraph": [{}', ',{"id": "1", "form": "가나다라 마바사 아자차카"}', "]}]}"),
    }[name]
    times = 200_000_000 // len(repeated.encode()) // 1000
    with path.open("w", encoding="utf-8") as file:
        file.write(begin)
        for _ in range(times):
            file.write(repeated * 1000)
        file.write(end)
    result = subprocess.run([sys.executable, "-c", MEMORY, name, path], capture_output=True, text=True, check=True)
    texts, megabytes = map(int, result.stdout.split())
    per_document = 2 if "답" in repeated else 1
    assert texts == times * 1000 * per_document + (name == "ai_hub_dialog")
    assert megabytes < 100
    path.unlink()


# ---- each reader


def test_only_level_one_heads_open_a_page(read):
    text = "앞\n = 한 =\n\n = = 둘 = =\n가 = 나 =\n = = = 셋 = = = \n= 넷 =\n = = =\n= 아님\n"
    # the fourth head has no blank before it; the fifth is of the page "="
    assert read("namuwikitext", text) == [["앞"], ["가 = 나 ="], ["= 아님"]]
    line = "= " * 100_000 + "가"
    assert read("namuwikitext", " = 한 =\n " + line) == [[line]]  # soon


def test_chatbot_rows_are_real_csv(read):
    text = 'Q,A,label\r\n"가, ""나""?",다,0\r\n"두\r\n줄",라,2   \r\n\r\n'
    assert read("korean_chatbot_data", text) == [['가, "나"?', "다"], ["두", "줄", "라"]]


@pytest.mark.parametrize(
    "rows, error",
    [
        ("question,answer\n", r"line 1: the columns are question, answer, must be Q, A, label"),
        ("가\t나\n", r"line 1: the columns are 가\t나, must be Q, A, label; is this another reader's file\?"),
        ("Q,A,label\n가,나,0\n가,나,다,0\n", r"line 3: 4 comma-separated columns instead of 3 \(Q, A, label\)"),
        ("Q,A,label\n가\n", r"line 2: 1 comma-separated columns instead of 3"),
        ('Q,A,label\n"가"나,나,0\n', r"line 2: not CSV \(',' expected after '\"'\)"),
        ('Q,A,label\n가,나,0\n"가,나,0\n', r"line 3: not CSV \(unexpected end of data\)"),
        ('Q,A,label\n"' + "가나다라\n" * 50_000, r"line \d+: not CSV \(field larger than field limit"),
    ],
)
def test_wrong_csv_names_file_and_line(read, rows, error):
    with pytest.raises(DataError, match="file, " + error):
        read("korean_chatbot_data", rows)


def test_tsv_takes_the_columns_in_the_order_of_their_keys_and_quotes_as_text(read):
    rows = 'id\tone\ttwo\n1\t"가\t나\n\n2\t다"\t \n'
    assert read("tsv", rows, ["two", "one"]) == [["나", '"가'], ['다"']]
    assert read("tsv", rows, ["one"]) == [['"가'], ['다"']]
    assert read("tsv", "one\n가\n\n나\n", ["one"]) == [["가"], ["나"]]


def test_wrong_tsv_names_file_and_line(read):
    with pytest.raises(DataError, match="file, line 1: the columns are id, one, must be one, two"):
        read("tsv", "id\tone\n")
    with pytest.raises(DataError, match=r"file, line 3: 2 tab-separated columns instead of 3 \(id, one, two\)"):
        read("tsv", "id\tone\ttwo\n1\t가\t나\n1\t가\n")
    with pytest.raises(UserError, match="--text_key"):
        get_reader("tsv")


def test_jsonl_reads_text_unless_told_otherwise(read):
    assert read("jsonl", '{"text": "가", "n": 1}\n\n {"text": " 나\\r\\n다\\u0000 "}', []) == [["가"], ["나", "다\0"]]
    assert read("jsonl", '{"text": "\\ud83d\\ude00"}\n{"text": "가\\ud800나"}', []) == [["😀"], ["가\ufffd\ufffd\ufffd나"]]


@pytest.mark.parametrize(
    "line, error",
    [
        ('{"one": "가", "two": }', r"byte 22 of the line: not JSON \(Expecting value\)"),
        ('{"one": "가", "two": "나"} 다', r"byte 29 of the line: not JSON \(Extra data\)"),
        ('{"one": "가"}', r"no key 'two' \(--text_key"),
        ('["one", "two"]', "no key 'one'"),
        ('{"one": "가", "two": 3}', "a number instead of text under the key 'two'"),
        ('{"one": "가", "two": false}', "true or false instead of text"),
        ('{"one": "가", "two": ["나"]}', "a list instead of text"),
        ('{"one": "가", "two": {"나": "나"}}', "an object instead of text"),
        ("[" * 100_000, "not JSON that can be read"),
        ("9" * 5000, "(not JSON that can be read|no key 'one')"),
    ],
)
def test_wrong_jsonl_names_file_and_line(read, line, error):
    with pytest.raises(DataError, match="file, line 2.*" + error):
        read("jsonl", SAMPLES["jsonl"].split("\n")[0] + "\n" + line + "\n")


def test_dialog_texts_are_found_at_any_depth(read):
    lists = '[[{"q": {"question": "가", "tags": [], "answer": ["나", "다", null]}}, {"answer": "라"}], [[{"question": "마"}]]]'
    assert read("ai_hub_dialog", lists) == [["가", "나", "다", "라"], ["마"]]
    assert read("ai_hub_dialog", '{"answer": "가", "question": ""}') == [["가"]]
    # a list within a turn: texts stay in order, and the turn after it begins a document
    assert read("ai_hub_dialog", '[{"question": "가", "more": [{"answer": "나"}], "answer": "다"}, {"question": "라"}]') == [
        ["가"],
        ["나"],
        ["다", "라"],
    ]
    assert read("ai_hub_dialog", '{"question": {"id": "1", "answer": {"question": "가"}}}') == [["가"]]


def test_an_object_without_text_under_a_text_key_is_an_error(read):
    for value in ('{"text": "가"}', '[{"text": "가"}]', "{}"):
        with pytest.raises(DataError, match="an object without text under the keys question and answer"):
            read("ai_hub_dialog", '[{"question": "하나", "answer": VALUE}]'.replace("VALUE", value))


def test_nikl_takes_only_the_forms_of_its_own_part(read):
    text = """{"document": [{"metadata": {"form": "아님"}, "utterance": [{"form": "가", "original_form": "아님"}, {"form": ""},
        {"form": null}, {"note": {"form": "아님"}}, {"form": "나"}], "paragraph": [{"form": "아님"}]}, {"utterance": []},
        {"utterance": [{"form": "다"}]}], "utterance": [{"form": "아님"}]}"""
    assert read("nikl_spoken", text) == [["가", "나"], ["다"]]
    assert read("nikl_newspaper", text) == [["아님"]]


@every_json_reader
@pytest.mark.parametrize("value, kind", [("3", "a number"), ("true", "true or false")])
def test_what_is_no_text_is_an_error(read, name, value, kind):
    where = corpora.READERS[name].looked_for.replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(DataError, match=rf"file, in the 262144 bytes from byte 3 on: {kind} instead of text under {where}"):
        read(name, "\ufeff" + SAMPLES[name].replace('"라."', value))


@pytest.mark.parametrize("value, kind", [('["라"]', "a list"), ('{"라": 1}', "an object")])
def test_nikl_forms_are_strings(read, value, kind):
    with pytest.raises(DataError, match=f"{kind} instead of text"):
        read("nikl_spoken", SPOKEN.replace('"라."', value))


@every_json_reader
def test_a_file_without_texts_is_an_error(read, name):
    for text in ("{}", "[1]", '"가"', '{"document": []}', '{"text": "가"}'):
        with pytest.raises(DataError, match=r"file: no text under .*; is this another reader's file\?"):
            read(name, text)
    with pytest.raises(DataError, match="no text under"):
        read(name, SAMPLES["nikl_spoken" if name != "nikl_spoken" else "nikl_newspaper"])
    empty = SAMPLES[name].replace("가?", "").replace("나.", "").replace("다?", "").replace('"라."', "null")
    assert read(name, empty) == []


@every_json_reader
@pytest.mark.parametrize("filler", [0, 262_138, 700_000])
def test_broken_json_names_file_and_byte(read, name, filler, monkeypatch):
    good = "\ufeff" + SAMPLES[name][:1] + " " * filler + SAMPLES[name][1:]
    for start, bad, expected in (
        (good.index('"라."'), "nul ", len("nul")),
        (good.index('"라."'), '"라\n"', len('"라'.encode())),
        (len(good), "x", 0),
        (len(good) - 1, "", 0),
    ):
        byte = len(good[:start].encode()) + expected
        with pytest.raises(DataError, match=rf"file, byte {byte}: broken JSON \(.*(error|premature)"):
            read(name, good[:start] + bad)


@every_json_reader
def test_deep_json_and_long_texts_are_errors(read, name, monkeypatch):
    with pytest.raises(DataError, match="nested more than 1000 deep"):
        read(name, "[" * 300_000)
    monkeypatch.setattr(json_events, "MAX_TEXT_BYTES", 300_000)
    assert read(name, SAMPLES[name].replace("라.", "라" * 90_000))[-1] == ["라" * 90_000]
    with pytest.raises(DataError, match="a text of more than 300,000 bytes"):
        read(name, SAMPLES[name].replace("라.", "라" * 300_000))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("&name1& 씨가 {laughing} 좀- ((그랬어요)) (())", "○○ 씨가 좀 그랬어요"),
        ("name1 씨도 company-name2에서 &tel-num1&로 &name&야", "○○ 씨도 ○○에서 ○○로 ○○야"),
        ("그 {clearing}. 음~ -그거 {share: photo}", "그. 음 그거"),
        ("((xx)) ((xx요)) ((요만했어요)).", "요 요만했어요."),
        ("A&B&c 1-2 -3도 nickname1 {대괄호} ((box)) a-b (가) rename12", "A&B&c 1-2 -3도 nickname1 {대괄호} box a-b (가) rename12"),
        ("(())", ""),
    ],
)
def test_clean_transcription(text, expected):
    assert clean_transcription(text) == expected


def test_spoken_samples_hold_no_marks(shared_data):
    path = str(shared_data / "corpus" / "NIKL_spoken" / "sample_SARW0000000001.json")
    texts = [text for document in get_reader("nikl_spoken").documents(TextFile(path)) for text in document]
    assert texts[9] == "○○ 씨도 한번 같이 가요." and not any(set(text) & set("&{}()-~") for text in texts)


def test_importing_readers_does_not_import_tensorflow():
    code = textwrap.dedent("""
        import sys
        import pretrain.corpora
        assert not {"tensorflow", "numpy"} & set(sys.modules)
    """)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=pathlib.Path(corpora.__file__).parent.parent)
