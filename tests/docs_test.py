"""README and docs: every link, script and flag in them exists, and the reader that they show as an example works."""

import dataclasses
import pathlib
import re
import shlex

import pytest

from configure_finetuning import FinetuningConfig
from configure_pretraining import PretrainingConfig
from finetune.prediction_files import PredictionConfig
from pretrain import corpora
from pretrain.dataset_builder import DatasetConfig
from pretrain.dataset_inspector import InspectConfig
from pretrain.document_cleaner import PreprocessConfig
from pretrain.text_files import TextFile
from pretrain.vocab_builder import VocabConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
CONFIG_OF = {
    "preprocess.py": PreprocessConfig,
    "build_vocab.py": VocabConfig,
    "build_pretraining_dataset.py": DatasetConfig,
    "inspect_dataset.py": InspectConfig,
    "run_pretraining.py": PretrainingConfig,
    "run_finetuning.py": FinetuningConfig,
    "run_prediction.py": PredictionConfig,
}


def _blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _commands(text):
    """The commands of the bash blocks that run a script, as words."""
    blocks = [block.replace("\\\n", "") for block in _blocks(text, "bash")]
    lines = [line for block in blocks for line in re.findall(r"^python (?:[^\n']|'[^']*')*", block, re.MULTILINE)]
    commands = [shlex.split(line, comments=True) for line in lines]
    return [command for command in commands if command[1] not in ("-c", "-m")]


def test_commands_of_a_page():
    page = "```bash\npython a.py --x=1 \\\n    --y='--z\n  --w'\n# why\npython b.py   # so\n```"
    assert _commands(page) == [["python", "a.py", "--x=1", "--y=--z\n  --w"], ["python", "b.py"]]


@pytest.mark.parametrize("name", TEXTS)
def test_scripts_and_flags_of_commands_exist(name):
    for command in _commands(TEXTS[name]):
        assert (ROOT / command[1]).is_file(), command[1]
        if command[1] in CONFIG_OF:
            flags = {word.partition("=")[0].removeprefix("--") for word in command[2:]}
            known = {field.name for field in dataclasses.fields(CONFIG_OF[command[1]])} | {"hparams"}
            assert {flag.removeprefix("no") if flag not in known else flag for flag in flags} <= known, command


@pytest.mark.parametrize("name", TEXTS)
def test_relative_links_lead_to_files_and_headings(name):
    folder = ROOT if name == "README.md" else ROOT / "docs"
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", TEXTS[name]):
        path, _, heading = target.partition("#")
        assert not path or (folder / path).exists(), target
        if not heading:
            continue
        text = (folder / path).read_text(encoding="utf-8") if path else TEXTS[name]
        headings = [re.sub(r"[^\w\- ]", "", line).strip().replace(" ", "-").lower() for line in re.findall("^#+ (.*)", text, re.MULTILINE)]
        assert heading in headings, target


def test_preprocessing_names_every_reader_and_flag():
    text = TEXTS["preprocessing.md"]
    readers = re.findall(r"^\| `(\w+)` \| (dialog|written|other) \|", text, re.MULTILINE)
    shipped = {name: reader.group for name, reader in corpora.READERS.items() if reader.__module__ == "pretrain.corpora"}
    assert dict(readers) == shipped
    missing = [field.name for field in dataclasses.fields(PreprocessConfig) if f"--{field.name}" not in text]
    assert missing == []


def test_the_reader_shown_as_an_example_works(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "READERS", dict(corpora.READERS))
    (code,) = _blocks(TEXTS["preprocessing.md"], "python")
    (tmp_path / "my_readers.py").write_text(code, encoding="utf-8")
    corpora.load_reader_module(str(tmp_path / "my_readers.py"))
    script = tmp_path / "script.txt"
    script.write_text("#1 부엌, 아침\n엄마: 밥 먹었니?\n아들: 아직요. 늦었어요!\n\n#2 버스\n아들: 방금 떠났네...\n", encoding="utf-8")
    documents = corpora.get_reader("movie_script").documents(TextFile(str(script)))
    assert list(documents) == [["밥 먹었니?", "아직요. 늦었어요!"], ["방금 떠났네..."]]


def test_beam_knows_the_arguments_that_are_shown():
    options = pytest.importorskip("apache_beam.options.pipeline_options", reason="Beam is an extra: pip install .[beam]")
    words = sum(_commands(TEXTS["preprocessing.md"]), [])
    shown = [word.partition("=")[2] for word in words if word.startswith("--beam_args=")]
    assert len(shown) == 5
    for arguments in map(shlex.split, shown):
        known = options.PipelineOptions(arguments).get_all_options(drop_default=True)
        assert {argument[2:].partition("=")[0] for argument in arguments} == set(known)
