"""A made-up NSMC, small enough that a network learns it within seconds."""

import json
import pathlib
import random
from typing import Any

import pytest
import safetensors.numpy

from configure_finetuning import FinetuningConfig
from finetune import task_builder
from finetune.classification.classification_tasks import NSMC
from model import transformers_folder
from model.layers import variable_name
from model.modeling import BertModel

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
GOOD, BAD, OTHER = ["좋다", "재미", "최고", "감동"], ["나쁘다", "지루", "최악", "실망"], ["영화", "배우", "이야기", "음악", "화면", "장면"]
SHAPE = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "max_position_embeddings": 32}


def reviews(count: int, seed: int) -> str:
    """A header and `count` rows: a few neutral words and one that gives the label away."""
    generator = random.Random(seed)
    lines = ["id\tdocument\tlabel"]
    for index in range(count):
        label = generator.randrange(2)
        words = generator.choices(OTHER, k=generator.randrange(1, 5)) + [generator.choice([BAD, GOOD][label])]
        generator.shuffle(words)
        lines.append(f"{index}\t{' '.join(words)}\t{label}")
    return "\n".join(lines) + "\n"


# Settings of a tiny model with random weights.
TINY: dict[str, Any] = {
    "init_checkpoint": "none",
    "tokenizer_type": "wordpiece",
    "model_hparam_overrides": SHAPE,
    "embedding_size": 16,
    "max_seq_length": 16,
    "learning_rate": 3e-3,
    "layerwise_lr_decay": 0.0,
    "num_train_epochs": 2.0,
    "train_batch_size": 16,
    "dev_fraction": 0.2,
}


def make_home(folder: pathlib.Path) -> pathlib.Path:
    """Makes `folder` a data_dir with a vocabulary of whole words and an NSMC of 300 + 60 rows."""
    (folder / "finetuning_data" / "nsmc").mkdir(parents=True)
    (folder / "finetuning_data" / "nsmc" / "ratings_train.txt").write_text(reviews(300, 1), encoding="utf-8")
    (folder / "finetuning_data" / "nsmc" / "ratings_test.txt").write_text(reviews(60, 2), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(SPECIALS + GOOD + BAD + OTHER) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    return make_home(tmp_path)


@pytest.fixture
def tiny() -> dict[str, Any]:
    return dict(TINY)


@pytest.fixture
def make_config(home, tiny):
    """make_config(name=value, ...) -> FinetuningConfig of a tiny model in `home`."""

    def make(**user) -> FinetuningConfig:
        return FinetuningConfig.create("tiny", str(home), tiny | user)

    return make


@pytest.fixture
def make_transformers_folder(home):
    """make_transformers_folder("bert", name=value, ...) -> a folder with random weights, config.json and vocab.txt."""
    shape = {"vocab_size": 19, "max_position_embeddings": 24}
    shapes = {
        "electra": {"embedding_size": 4, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12},
        "bert": {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12},
        "distilbert": {"dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 12},
    }

    def make(kind: str, **record) -> pathlib.Path:
        folder = home / f"transformers-{kind}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": kind, **shape, **shapes[kind], **record}))
        config, embedding_size = transformers_folder.read_config(str(folder), {})
        model = BertModel(config, embedding_size, has_pooler=kind == "bert", seed=7)
        values = {variable_name(variable): variable.numpy() for variable in model.trainable_variables}
        weights = {transformers_folder.to_theirs(name, kind): transformers_folder.to_our_layout(name, values[name]) for name in values}
        safetensors.numpy.save_file(weights, folder / "model.safetensors")
        (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
        (folder / "vocab.txt").write_bytes((home / "vocab.txt").read_bytes())
        return folder

    return make


@pytest.fixture
def twin(home, monkeypatch) -> None:
    """A second task, "twin": other texts, in the same layout."""
    folder = home / "finetuning_data" / "twin"
    folder.mkdir()
    (folder / "ratings_train.txt").write_text(reviews(100, 3), encoding="utf-8")
    (folder / "ratings_test.txt").write_text(reviews(20, 4), encoding="utf-8")
    monkeypatch.setitem(task_builder.TASKS, "twin", type("Twin", (NSMC,), {"name": "twin"}))


@pytest.fixture
def several(home) -> list[str]:
    return write_several(home)


def write_several(home: pathlib.Path) -> list[str]:
    """Files of two more of the benchmark's tasks, the answers of which a word gives away; returns their names."""
    generator, files = random.Random(5), home / "finetuning_data"
    (files / "korsts").mkdir()
    (files / "naver-ner").mkdir()
    for split, count in (("train", 300), ("dev", 40), ("test", 40)):
        rows = ["genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2"]
        for _ in range(count):
            score = generator.choice([0, 5])
            rows.append(f"g\tf\t2012\t1\t{score}.0\t{generator.choice(OTHER)}\t{generator.choice(GOOD if score else BAD)}")
        (files / "korsts" / f"sts-{split}.tsv").write_text("\n".join(rows), encoding="utf-8")
        words = [generator.choices(GOOD + OTHER, k=generator.randrange(2, 6)) for _ in range(count)]
        lines = ["\t".join([" ".join(line), " ".join("PER-B" if word in GOOD else "O" for word in line)]) for line in words]
        (files / "naver-ner" / f"{'standin.klue-ner-dev.' if split == 'test' else ''}{split}.tsv").write_text(
            "\n".join(lines), encoding="utf-8"
        )
    return ["korsts", "naver-ner"]
