import dataclasses
import errno
import hashlib
import itertools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from model.command import DataError, UserError
from pretrain import build_folder, corpus_builder, corpus_report, corpus_report_page, document_cleaner
from pretrain.corpora import READERS, CorpusReader
from pretrain.corpus_builder import build
from pretrain.document_cleaner import PreprocessConfig, parse_corpora
from pretrain.units import read_blocks

SCRIPT = str(pathlib.Path(__file__).resolve().parents[2] / "preprocess.py")
WORDS = "도서관 자전거 아침 비가 온다 산책 저녁 밥을 먹었다 친구 약속 지난주 공원 사진을 찍었다 버스 늦게 도착했다".split()


def _sentence(draw, length=6):
    return " ".join(draw.choices(WORDS, k=length)) + "."


@pytest.fixture
def raw(tmp_path):
    """Three small corpora: a dialogue file, comments with repetitions, and plain text in two files."""
    draw = random.Random(0)
    folder = tmp_path / "raw"
    (folder / "plain").mkdir(parents=True)
    dialogs = [{"dialogs": [{"question": _sentence(draw), "answer": _sentence(draw)} for _ in range(3)]} for _ in range(40)]
    (folder / "dialog.json").write_text(json.dumps({"data": dialogs}), encoding="utf-8")
    comments = [_sentence(draw) for _ in range(300)]
    (folder / "comments.txt").write_text("\n".join(comments + comments[:50]) + "\n", encoding="utf-8")
    for name in ("a.txt", "b.txt"):
        documents = ["\n".join(_sentence(draw, 12) for _ in range(8)) for _ in range(60)]
        (folder / "plain" / name).write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def config(raw, tmp_path, monkeypatch, request):
    monkeypatch.setattr(corpus_builder, "UNIT_BYTES", 4000)
    if "with_page" not in request.fixturenames:
        monkeypatch.setattr(corpus_report_page, "render", lambda report: "its plots take a second")
    corpora = f"ai_hub_dialog:{raw}/dialog.json,kcbert:{raw}/comments.txt,text:{raw}/plain"
    return PreprocessConfig(corpora=corpora, output_dir=str(tmp_path / "clean"))


@pytest.fixture
def with_page():
    """For tests that look at report.html."""


def _outputs(config):
    folder = os.path.join(config.output_dir, "corpus")
    return {name: open(os.path.join(folder, name), encoding="utf-8").read() for name in sorted(os.listdir(folder))}


def _documents(text):
    return [document.split("\n") for document in text.removesuffix("\n").split("\n\n")]


def _report(config):
    with open(os.path.join(config.output_dir, "report.json"), encoding="utf-8") as file:
        return json.load(file)


def _change(config, **values):
    return dataclasses.replace(config, **values)


# ---- what comes out


def test_documents_stay_in_order_with_blank_lines_between_and_turns_together(config, raw):
    build(config)
    outputs = _outputs(config)
    assert list(outputs) == [f"{name}-00000-of-00001.txt" for name in ("ai_hub_dialog", "kcbert", "text")]
    dialogs = json.loads((raw / "dialog.json").read_text(encoding="utf-8"))["data"]
    turns = [[turn[part] for turn in dialog["dialogs"] for part in ("question", "answer")] for dialog in dialogs]
    assert _documents(outputs["ai_hub_dialog-00000-of-00001.txt"]) == turns
    comments = (raw / "comments.txt").read_text(encoding="utf-8").splitlines()
    assert _documents(outputs["kcbert-00000-of-00001.txt"]) == [[comment] for comment in dict.fromkeys(comments)]
    plain = "".join((raw / "plain" / name).read_text(encoding="utf-8") + "\n" for name in ("a.txt", "b.txt"))
    assert outputs["text-00000-of-00001.txt"] == plain.removesuffix("\n")


def test_next_steps_take_the_output_as_it_is(config):
    build(config)
    files = [os.path.join(config.output_dir, "corpus", name) for name in _outputs(config)]
    blocks = list(read_blocks(files, True))
    assert sum(block.ends_document for block in blocks) == 40 + 300 + 120


def test_only_files_under_final_names_are_left(config):
    manifest = build(config)
    assert sorted(os.listdir(config.output_dir)) == ["corpus", "manifest.json", "report.html", "report.json"]
    for shard in manifest["shards"]:
        data = open(os.path.join(config.output_dir, "corpus", shard["file"]), "rb").read()
        assert (shard["bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert shard["documents"] == len(_documents(data.decode()))


@pytest.mark.parametrize("change", [{}, {"dedup": "near"}, {"mixture": "dialog=1,text=1"}, {"shard_megabytes": 1}])
def test_same_bytes_for_any_number_of_processes(config, with_page, tmp_path, change):
    pytest.importorskip("datasketch", reason="near duplicates are an extra: pip install .[dedup]")
    found = []
    for processes in (1, 3):
        setting = _change(config, num_processes=processes, output_dir=str(tmp_path / f"by_{processes}"), **change)
        build(setting)
        texts = [open(os.path.join(setting.output_dir, name), "rb").read() for name in ("manifest.json", "report.json", "report.html")]
        found.append((_outputs(setting), texts))
    assert found[0] == found[1]


def test_large_corpora_make_several_files(config, monkeypatch):
    full = build(config)
    monkeypatch.setattr(corpus_builder, "_cut_shards", lambda *args, cut=corpus_builder._cut_shards: cut(*args[:-1], 9000))
    build(_change(config, output_dir=config.output_dir + "2"))
    parts = _outputs(_change(config, output_dir=config.output_dir + "2"))
    for name in ("ai_hub_dialog", "kcbert", "text"):
        own = [text for file, text in parts.items() if file.startswith(name)]
        assert len(own) > 1 and max(map(len, own)) < 9000
        assert "\n".join(own) == _outputs(config)[f"{name}-00000-of-00001.txt"]
    assert len(full["shards"]) == 3


def test_report_adds_up(config, raw):
    build(config)
    report = _report(config)
    assert report["corpora"]["kcbert"]["duplicates"]["exact"]["documents"] == 50
    for name, part in report["corpora"].items():
        duplicates = part["duplicates"]["exact"]["documents"]
        assert part["read"]["documents"] == part["kept"]["documents"] + duplicates + part["empty_documents"], name
        assert sum(part["statistics"]["document_characters"]) == part["kept"]["documents"]
        assert sum(part["statistics"]["sentence_characters"]) == part["kept"]["sentences"]
    assert sum(entry["documents"] for entry in report["outputs"]) == 40 + 300 + 120
    assert str(raw) not in json.dumps({name: part for name, part in report.items() if name != "settings"})


def test_duplicates_are_found_across_corpora_and_the_first_corpus_keeps_its_own(config, raw):
    (raw / "again.txt").write_text((raw / "plain" / "a.txt").read_text(encoding="utf-8"), encoding="utf-8")
    build(_change(config, corpora=config.corpora + f",again=text:{raw}/again.txt"))
    report = _report(config)
    assert report["corpora"]["text"]["kept"]["documents"] == 120
    assert report["corpora"]["again"]["kept"]["documents"] == 0
    assert not any(name.startswith("again") for name in _outputs(config))


def test_without_deduplication_everything_stays(config):
    build(_change(config, dedup="none"))
    assert _report(config)["corpora"]["kcbert"]["kept"]["documents"] == 350


def test_mixture_by_bytes_is_seeded_and_reported(config, tmp_path):
    setting = _change(config, mixture="dialog=1,other=1")
    build(setting)
    report = _report(setting)["corpora"]
    dialog = report["ai_hub_dialog"]["kept"]["bytes"] + report["kcbert"]["kept"]["bytes"]
    assert report["text"]["mixture"]["dropped_documents"] > 20 and report["kcbert"]["mixture"]["dropped_documents"] == 0
    assert report["text"]["kept"]["bytes"] == pytest.approx(dialog, rel=0.4)  # some 60 documents are drawn
    again = _change(setting, output_dir=str(tmp_path / "again"))
    build(again)
    assert _outputs(again) == _outputs(setting)
    other_seed = _change(setting, output_dir=str(tmp_path / "other"), seed=43)
    build(other_seed)
    assert _outputs(other_seed) != _outputs(setting)


def test_excluded_texts_are_gone_and_counted(config, raw):
    comments = (raw / "comments.txt").read_text(encoding="utf-8").splitlines()
    (raw / "test.tsv").write_text(f"id\tdocument\n1\t{comments[3]}\n2\t{comments[7]}!!\n", encoding="utf-8")
    build(_change(config, exclude=str(raw / "test.tsv")))
    kept = [document for (document,) in _documents(_outputs(config)["kcbert-00000-of-00001.txt"])]
    assert comments[3] not in kept and comments[7] not in kept and len(kept) == 298
    assert _report(config)["corpora"]["kcbert"]["excluded"] == {"test.tsv": {"exact": 2, "loose": 2}}  # each comment occurs twice


def test_readers_of_a_user(config, raw, tmp_path):
    module = tmp_path / "my_readers.py"
    module.write_text(
        "from pretrain.corpora import CorpusReader, gather, register\n\n@register\nclass Shouts(CorpusReader):\n"
        "    name, group, moderated = 'shouts', 'other', True\n\n    def documents(self, file):\n"
        "        return gather(text for line in file.lines() for text in (line + '!', None))\n"
    )
    try:
        build(_change(config, corpora=f"shouts:{raw}/comments.txt", reader_module=str(module), num_processes=2))
        assert len(_documents(_outputs(config)["shouts-00000-of-00001.txt"])) == 300
        assert issubclass(READERS["shouts"], CorpusReader)
    finally:
        READERS.pop("shouts", None)


def test_real_corpora(shared_data, tmp_path):
    corpora = ",".join(
        f"{name}:{shared_data}/corpus/{folder}"
        for name, folder in (
            *((name, name) for name in ("ai_hub_dialog", "korean_chatbot_data", "kcbert", "namuwikitext")),
            ("nikl_spoken", "NIKL_spoken"),
            ("nikl_newspaper", "NIKL_newspaper"),
        )
    )
    config = PreprocessConfig(corpora=corpora, output_dir=str(tmp_path / "clean"), exclude=str(shared_data / "nsmc/ratings_test.txt"))
    build(config)
    parts = _report(config)["corpora"]
    assert {name: part["read"]["documents"] for name, part in parts.items()} == {
        **{"ai_hub_dialog": 4, "korean_chatbot_data": 11823, "kcbert": 33893, "namuwikitext": 2, "nikl_spoken": 2, "nikl_newspaper": 4}
    }
    # 241 comments, 3 sentences of others, and 21 comments once they are clean
    assert parts["kcbert"]["excluded"]["ratings_test.txt"] == {"exact": 138, "loose": 127}
    assert parts["kcbert"]["duplicates"]["exact"]["documents"] > 5000


# ---- settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpora": ""}, "--corpora is required"),
        ({"output_dir": ""}, "--output_dir is required"),
        ({"corpora": "/nowhere.txt"}, r"'/nowhere.txt' names no reader.*text:/nowhere.txt.*--corpora"),
        ({"corpora": "text:/nowhere.txt"}, r"no file or folder '/nowhere.txt' \(--corpora\)"),
        ({"corpora": "tweets:/nowhere.txt"}, r"no corpus reader 'tweets', must be one of .*kcbert"),
        ({"mixture": "dialog=1"}, r"weighs neither the corpus 'text' nor its group 'other': add text=WEIGHT \(--mixture\)"),
        ({"mixture": "dialog"}, "like dialog=7,written=15"),
        ({"num_processes": 0}, "num_processes must be from 1"),
        ({"near_threshold": 0.0}, "near_threshold must be from 0.1 to 1.0, got 0.0"),
        ({"exclude": "/nowhere.tsv"}, r"no file or folder '/nowhere.tsv' \(--exclude\)"),
        ({"skip_rules": "nonsense"}, "unknown cleaning rule 'nonsense'"),
    ],
)
def test_settings_that_make_no_sense(config, change, message):
    with pytest.raises(UserError, match=message):
        build(_change(config, **change))
    assert not os.path.exists(config.output_dir)


def test_names_and_paths_of_corpora(raw):
    plain = f"{raw}/plain"
    corpora = parse_corpora(PreprocessConfig(corpora=f"news=text:{plain}/a.txt,{plain}/b.txt, kcbert:{raw}/comments.txt"))
    assert [(corpus.name, corpus.reader.name, len(corpus.files)) for corpus in corpora] == [("news", "text", 2), ("kcbert", "kcbert", 1)]
    with pytest.raises(UserError, match="two corpora are called 'kcbert'"):
        parse_corpora(PreprocessConfig(corpora=f"kcbert:{raw}/comments.txt,kcbert=text:{plain}"))


def test_nothing_left_is_an_error(config):
    with pytest.raises(UserError, match="nothing is left of the corpora"):
        build(_change(config, min_chars=10_000))
    assert os.listdir(config.output_dir) == ["unfinished_build"]


def test_nothing_left_to_mix(config):
    with pytest.raises(UserError, match="nothing is left of dialog and other to mix: leave it out of --mixture"):
        build(_change(config, mixture="dialog=1,other=1", min_chars=1000))


# ---- faults


@pytest.mark.parametrize("mended", [True, False])
def test_broken_file_is_named_and_once_mended_the_build_goes_on(config, raw, monkeypatch, mended):
    broken = raw / "plain" / "b.txt"
    text = broken.read_bytes()
    broken.write_bytes("가나다\n".encode() + b"\xb0\xa1\n")
    with pytest.raises(DataError, match=r"b.txt, line 2, byte 10: not UTF-8.*--invalid_utf8=replace"):
        build(config)
    assert os.listdir(config.output_dir) == ["unfinished_build"]
    work = os.path.join(config.output_dir, "unfinished_build")
    times = {name: os.stat(os.path.join(work, name)).st_mtime_ns for name in os.listdir(work) if name.endswith(".npz")}
    if mended:
        broken.write_bytes(text)
    again = _change(config, invalid_utf8="error" if mended else "replace")
    with monkeypatch.context() as patch:
        patch.setattr(build_folder.BuildFolder, "_remove_work", lambda self: None)
        build(again)
    assert len(times) > 5 and times == {name: os.stat(os.path.join(work, name)).st_mtime_ns for name in times}  # not done again
    undisturbed = _change(again, output_dir=config.output_dir + "_undisturbed")
    build(undisturbed)
    assert _outputs(again) == _outputs(undisturbed) and _report(again) == _report(undisturbed)
    assert _report(again)["corpora"]["text"]["read"]["replaced_invalid_utf8"] == (0 if mended else 2)


def test_input_edited_after_shards_were_written(config, raw, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(corpus_report, "write_report", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(config)
    assert len(os.listdir(os.path.join(config.output_dir, "corpus"))) == 3
    (raw / "plain" / "a.txt").write_text("새로 쓴 글입니다.", encoding="utf-8")
    build(config)
    assert _outputs(config)["text-00000-of-00001.txt"].startswith("새로 쓴 글입니다.\n\n")


def test_a_reader_that_gives_strings_is_refused(config, raw, monkeypatch):
    class Strings(CorpusReader):
        name, group, moderated = "strings", "other", True

        def documents(self, file):
            return file.lines()

    monkeypatch.setitem(READERS, "strings", Strings)
    with pytest.raises(UserError, match="corpus reader 'strings' gave a string, must give lists of strings"):
        build(_change(config, corpora=f"strings:{raw}/comments.txt"))


def test_full_disk_is_reported_and_the_build_goes_on_afterwards(config, monkeypatch):
    replace, calls = os.replace, itertools.count()

    def full_after_some_files(old, new):
        if next(calls) >= 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(old, new)

    monkeypatch.setattr(build_folder.os, "replace", full_after_some_files)
    with pytest.raises(DataError, match=r"cannot write .*: No space left on device; mend that, then give the same command again"):
        build(config)
    monkeypatch.undo()
    monkeypatch.setattr(corpus_builder, "UNIT_BYTES", 4000)
    work = os.path.join(config.output_dir, "unfinished_build")
    finished = sorted(name for name in os.listdir(work) if name.endswith(".npz"))
    assert len(finished) > 5 and not [name for name in os.listdir(work) if ".tmp-" in name]
    times = {name: os.stat(os.path.join(work, name)).st_mtime_ns for name in finished}
    monkeypatch.setattr(build_folder.BuildFolder, "_remove_work", lambda self: None)
    build(config)
    assert times == {name: os.stat(os.path.join(work, name)).st_mtime_ns for name in finished}  # nothing was done again


def test_a_folder_of_somebody_else_is_left_alone(config):
    os.makedirs(config.output_dir)
    open(os.path.join(config.output_dir, "thesis.txt"), "w").close()
    with pytest.raises(UserError, match="in use and holds no build of this tool"):
        build(config)
    assert os.listdir(config.output_dir) == ["thesis.txt"]


def test_finished_build_is_not_done_again_and_other_settings_are_refused(config):
    manifest = build(config)
    assert build(config) == manifest
    with pytest.raises(UserError, match=r"holds a finished build with seed = 42, not 43: change --seed or --output_dir"):
        build(_change(config, seed=43))
    build(_change(config, dedup="none", overwrite=True))
    assert _report(config)["corpora"]["kcbert"]["kept"]["documents"] == 350
    assert sorted(os.listdir(config.output_dir)) == ["corpus", "manifest.json", "report.html", "report.json"]


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bytes(raw, tmp_path):
    """kill -9 at random moments, parent and workers; then the same command once more."""
    for name in ("a.txt", "b.txt"):
        path = raw / "plain" / name
        path.write_text("\n\n".join(path.read_text(encoding="utf-8") + str(copy) for copy in range(120)), encoding="utf-8")
    corpora = f"kcbert:{raw}/comments.txt,text:{raw}/plain"
    whole = PreprocessConfig(corpora=corpora, output_dir=str(tmp_path / "whole"), dedup="none")
    build(whole)
    draw = random.Random(1)
    target = str(tmp_path / "killed")
    arguments = [f"--corpora={corpora}", f"--output_dir={target}", "--num_processes=2", "--dedup=none"]
    kills = 0
    for _ in range(5):
        process = subprocess.Popen([sys.executable, SCRIPT, *arguments], start_new_session=True, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(1.0, 4.0))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        done = os.listdir(target) if os.path.exists(target) else []
        assert set(done) <= {"unfinished_build", "corpus", "report.html", "report.json", "manifest.json"}
    assert kills
    build(_change(whole, output_dir=target))
    assert _outputs(_change(whole, output_dir=target)) == _outputs(whole)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak of a process's memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """24 MB as one document without a blank line, and the same as comments: hardly more than what a twelfth needs."""
    draw = random.Random(0)
    lines = [_sentence(draw, 20) + "\n" for _ in range(5000)]
    used = []
    for repeats in (2, 24):
        (tmp_path / "big.txt").write_text("".join(lines * repeats), encoding="utf-8")
        corpora = f"text:{tmp_path}/big.txt,kcbert:{tmp_path}/big.txt"
        arguments = [f"--corpora={corpora}", f"--output_dir={tmp_path}/clean{repeats}", "--dedup=none"]
        script = (
            "import re, runpy, sys; sys.argv = sys.argv[1:]\ntry: runpy.run_path(sys.argv[0], run_name='__main__')\n"
            "except SystemExit as end: assert not end.code\nprint(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])"
        )
        result = subprocess.run([sys.executable, "-c", script, SCRIPT, *arguments], capture_output=True, text=True, check=True)
        used.append(int(result.stdout.split()[-1]) // 1024)
    assert used[1] < 500 and used[1] < used[0] + 100, used


def test_config_is_what_the_script_offers():
    names = {field.name for field in dataclasses.fields(PreprocessConfig)}
    assert {"corpora", "output_dir", "hanja", "skip_rules", "mixture", "exclude", "runner", "num_processes"} <= names
    assert document_cleaner.DEDUP[0] == PreprocessConfig().dedup == "exact"
