"""README and docs: every link, script and flag in them exists, and the reader and the tasks that they show as examples work."""

import dataclasses
import json
import pathlib
import random
import re
import shlex

import pytest

from configure_finetuning import FinetuningConfig
from configure_pretraining import PretrainingConfig
from export.exporter import ExportConfig
from finetune import custom_task, task_builder
from finetune.custom_task import TaskDescription, read_description
from finetune.finetuning_run import FinetuningRun
from finetune.prediction_files import PredictionConfig
from pretrain import corpora
from pretrain.dataset_builder import DatasetConfig
from pretrain.dataset_inspector import InspectConfig
from pretrain.document_cleaner import PreprocessConfig
from pretrain.text_files import TextFile
from pretrain.vocab_builder import VocabConfig
from server.server_config import ServerConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXTS = {
    path.name: path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "README_KO.md", *sorted((ROOT / "docs").glob("*.md")))
}
CONFIG_OF = {
    "preprocess.py": PreprocessConfig,
    "build_vocab.py": VocabConfig,
    "build_pretraining_dataset.py": DatasetConfig,
    "inspect_dataset.py": InspectConfig,
    "run_pretraining.py": PretrainingConfig,
    "run_finetuning.py": FinetuningConfig,
    "run_prediction.py": PredictionConfig,
    "export_checkpoint.py": ExportConfig,
    "serve.py": ServerConfig,
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
            known |= {"search", "search_trials", "search_space"} if command[1] == "run_finetuning.py" else set()
            assert {flag.removeprefix("no") if flag not in known else flag for flag in flags} <= known, command


@pytest.mark.parametrize("name", TEXTS)
def test_relative_links_lead_to_files_and_headings(name):
    folder = ROOT if name.startswith("README") else ROOT / "docs"
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


SHAPE = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "max_position_embeddings": 32}
TINY = {"init_checkpoint": "none", "tokenizer_type": "wordpiece", "model_hparam_overrides": SHAPE, "max_seq_length": 16}
FAST = {"learning_rate": 3e-3, "layerwise_lr_decay": 0.0, "num_train_epochs": 6.0, "train_batch_size": 16}


def _write_task(folder, rows):
    """Train and test files of the header and the rows `rows`, a number before every text, and a vocabulary of all words."""
    header, *examples = rows
    generator = random.Random(3)
    folder.mkdir(parents=True)
    for split, count in (("train", 400), ("test", 40)):
        lines = [f"{generator.randrange(100)} {generator.choice(examples)}" for _ in range(count)]
        (folder / f"{split}.tsv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    words = {word for row in examples for word in row.partition("\t")[0].split()}
    return "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(100)), *sorted(words)]) + "\n"


def _values_as_shown(folder, index):
    """The flags of the page's command number `index`, with what it names in `folder`."""
    words = _commands(TEXTS["adding_a_task.md"])[index][2:]
    return [re.sub(r"=(my_data|my_tasks|intent/)", rf"={folder}/\1", word) for word in words if not word.startswith("--num_trials")]


def test_the_task_without_code_takes_under_30_lines_and_comes_to_a_score(run_script, tmp_path):
    text = TEXTS["adding_a_task.md"]
    description, command, (rows,) = _blocks(text, "yaml")[0], _blocks(text, "bash")[0], _blocks(text, "text")
    assert len((description + command).splitlines()) < 30
    vocabulary = _write_task(tmp_path / "intent", rows.splitlines())
    (tmp_path / "my_data").mkdir()
    (tmp_path / "my_data" / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    (tmp_path / "intent" / "task.yaml").write_text(description, encoding="utf-8")
    output = run_script("run_finetuning.py", *_values_as_shown(tmp_path, 0), f"--hparams={json.dumps(TINY | FAST)}").stdout
    (row,) = [line.split() for line in output.splitlines() if line.startswith("intent  test   f1 ")]
    assert float(row[3]) > 90


def test_the_task_with_code_takes_under_30_lines_and_comes_to_a_score(tmp_path, monkeypatch):
    monkeypatch.setattr(task_builder, "TASKS", dict(task_builder.TASKS))
    (code,) = _blocks(TEXTS["adding_a_task.md"], "python")
    assert len(code.splitlines()) < 30
    vocabulary = _write_task(
        tmp_path / "my_data" / "tasks" / "politeness", ["sentence\tlevel", "밥 먹었어\t반말", "식사 하셨습니까\t존댓말"]
    )
    (tmp_path / "my_data" / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    (tmp_path / "my_tasks.py").write_text(code, encoding="utf-8")
    user = dict(word.removeprefix("--").split("=") for word in _values_as_shown(tmp_path, 1))
    values = {**TINY, **FAST, **user, "task_names": [user["task_names"]]}
    config = FinetuningConfig.create(values.pop("model_name"), values.pop("data_dir"), values)
    assert FinetuningRun(config).run().trials[0]["scores"]["politeness"]["test"]["balanced_accuracy"] > 90


def test_all_descriptions_of_tasks_are_valid_and_every_key_is_explained(tmp_path):
    text = TEXTS["adding_a_task.md"]
    kinds = set()
    for block in _blocks(text, "yaml"):
        (tmp_path / "task.yaml").write_text(block, encoding="utf-8")
        kinds.add(read_description(str(tmp_path / "task.yaml")).type)
    assert kinds == set(custom_task.METRICS)
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == {field.name for field in dataclasses.fields(TaskDescription)} - {
        "path"
    }
    assert all(f"`{metric}`" in text for metrics in custom_task.METRICS.values() for metric in metrics)


# --- the README in Korean ------------------------------------------------------------------------------------------------------------


def _shape(text):
    """What a translation has to share: levels of headings, code without comments, cells of tables, links, flags and file names."""
    code = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {
        "headings": re.findall(r"^(#+) ", prose, re.MULTILINE),
        "code": [(kind, re.sub(r" *#.*$", "", block, flags=re.MULTILINE)) for kind, block in code if kind],
        "tables": [line.count("|") for line in prose.splitlines() if line.startswith("|")],
        "items": len(re.findall(r"^- ", prose, re.MULTILINE)),
        "links": sorted(link for link in re.findall(r"\]\(([^)]*)\)", prose) if not link.startswith("README")),
        "names": sorted(name for name in re.findall(r"`([^`]*)`", prose)),
    }


def test_the_readme_in_korean_keeps_step():
    english, korean = _shape(TEXTS["README.md"]), _shape(TEXTS["README_KO.md"])
    for name in english:
        assert korean[name] == english[name], name
    assert len(re.findall("[가-힣]", TEXTS["README_KO.md"])) > 2500, "it is not translated"
