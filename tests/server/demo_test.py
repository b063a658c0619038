"""The demo page: what it is answered, and in a real browser what people see and can do, with the keyboard and on a phone."""

import asyncio
import contextlib
import json
import shutil
import socket
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from configure_finetuning import FinetuningConfig
from configure_pretraining import PretrainingConfig
from export.exporter import ExportConfig, export
from finetune.finetuning_run import FinetuningRun
from finetune.prediction import Predictor
from model import checkpoint
from model.tokenization import FullTokenizer
from pretrain.pretrain_data import SpecialTokens
from pretrain.pretraining_model import PretrainingModel
from server.server_config import ServerConfig
from tests.finetune.conftest import SHAPE, TINY, write_several

app = pytest.importorskip("server.app", reason="the server's packages are not installed (serve extra)")
testclient = pytest.importorskip("starlette.testclient", reason="starlette and httpx are not installed (serve extra)")


@pytest.fixture(scope="module")
def models(trained) -> str:
    """--models of a server with a discriminator, a generator, NSMC, a tagger and similarity, all of seconds."""
    settings = {"model_hparam_overrides": SHAPE, "embedding_size": 16, "generator_hidden_size": 0.5, "max_seq_length": 16, "mask_prob": 0.2}
    network = PretrainingModel(PretrainingConfig.create("mini", str(trained), settings), 19, SpecialTokens(2, 3, 4))
    folder = trained / "pretrained"
    checkpoint.save(str(folder), 1, network.trainable_variables, 1)
    tokenizer = FullTokenizer(str(trained / "vocab.txt"), tokenizer_type="wordpiece")
    record = {"bert_config": network.bert_config.to_dict(), "embedding_size": 16, "tokenizer": tokenizer.provenance()}
    record["generator_config"] = network.generators[0].config.to_dict()
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "vocab.txt").write_bytes((trained / "vocab.txt").read_bytes())
    tasks = write_several(trained)
    parts = [("disc", folder, "discriminator"), ("gen", folder, "generator")]
    for task in tasks:
        config = FinetuningConfig.create("tiny", str(trained), {**TINY, "task_names": [task], "num_train_epochs": 6.0})
        FinetuningRun(config).run()
        parts.append((task, trained / "models" / "tiny" / "finetuning_models" / f"{task}_model", "finetuned"))
    for name, source, part in parts:
        fields = {"checkpoint": str(source), "part": part, "format": "saved_model", "output_dir": str(trained / "demo" / name)}
        export(ExportConfig.create(fields))
    places = {"nsmc": trained / "served"} | {name: trained / "demo" / name for name, *_ in parts}
    return ",".join(f"{name}:{place}" for name, place in places.items())


@pytest.fixture(scope="module")
def client(models):
    with testclient.TestClient(app.Server(ServerConfig.create({"models": models})).app, raise_server_exceptions=False) as client:
        yield client


def test_pieces_with_their_places_and_what_the_discriminator_thinks(client, trained):
    found = client.post("/demo/analyze", json={"text": "영화 좋다 쀍", "pair": "좋다"}).json()
    assert [(piece["piece"], piece["start"], piece["end"]) for piece in found["pieces"]] == [
        ("영화", 0, 2),
        ("좋다", 3, 5),
        ("[UNK]", 6, 7),
    ]
    assert [word["text"] for word in found["words"]] == ["영화", "좋다", "쀍"] and found["words"][0]["morphemes"] == ["영화"]
    signature = tf.saved_model.load(str(trained / "demo" / "disc")).signatures["discriminate"]
    ids = [[2, *(piece["id"] for piece in found["pieces"]), 3]]
    expected = signature(input_ids=tf.constant(ids), input_mask=tf.ones((1, 5), tf.int32), segment_ids=tf.zeros((1, 5), tf.int32))
    np.testing.assert_allclose([piece["replaced"] for piece in found["pieces"]], expected["probabilities"].numpy()[0, 1:-1], atol=1e-5)
    answers = {answer["task"]: answer for answer in found["tasks"]}
    assert answers["nsmc"]["probabilities"] == pytest.approx(
        Predictor(str(trained / "models/tiny/finetuning_models/nsmc_model")).predict(["영화 좋다 쀍"])[0]["probabilities"], abs=1e-4
    )
    assert set(answers) == {"nsmc", "naver-ner", "korsts"} and isinstance(answers["korsts"]["score"], float)
    without = client.post("/demo/analyze", json={"text": "영화"}).json()["tasks"]
    assert {answer["task"] for answer in without} == {"nsmc", "naver-ner"}, "there is no second text"
    assert found["cut"] == 0 and client.post("/demo/analyze", json={"text": "영화 " * 50}).json()["cut"] == 50 - 30


def test_suggestions_can_be_swapped_in(client):
    found = client.post("/demo/suggest", json={"text": "영화 좋다", "place": 1}).json()["suggestions"]
    probabilities = [suggestion["probability"] for suggestion in found]
    assert len(found) == 5 and probabilities == sorted(probabilities, reverse=True) and 0 < sum(probabilities) <= 1
    before = client.post("/demo/analyze", json={"text": "영화 좋다"}).json()["pieces"]
    after = client.post("/demo/analyze", json={"text": "영화 좋다", "swaps": {"1": 7}}).json()["pieces"]
    assert after[1]["id"] == 7 and after[1]["swapped"] and not after[0]["swapped"] and after[1]["replaced"] != before[1]["replaced"]


@pytest.mark.parametrize(
    "question, body, words",
    [
        ("analyze", {}, "text must be a text that is not empty"),
        ("analyze", {"text": "  "}, "not empty"),
        ("analyze", {"text": "영" * 501}, "text holds 501 characters, at most 500"),
        ("analyze", {"text": "영화", "pair": "a" + "\u0301" * 500}, "pair holds 501 characters"),
        ("analyze", {"text": "영화", "pair": 3}, "pair must be a text"),
        ("analyze", {"text": "영화", "swaps": {"7": 7}}, "swaps must be places"),
        ("analyze", {"text": "영화", "swaps": {"0": 99}}, "swaps must be places"),
        ("analyze", {"text": "영화", "swaps": {"9" * 5000: 7}}, "swaps must be places"),
        ("suggest", {"text": "영화", "place": 3}, "place must be that of one of the 1 pieces"),
        ("suggest", {"text": "영화"}, "place must be that of one of the 1 pieces"),
        ("analyze", [], "must be a JSON object"),
    ],
)
def test_wrong_questions(client, question, body, words):
    response = client.post(f"/demo/{question}", json=body)
    assert response.status_code == 400 and words in response.json()["error"]
    assert client.post("/demo/else", json={}).status_code == 404


def test_the_page_is_for_everybody_its_answers_are_not(models):
    with testclient.TestClient(app.Server(ServerConfig.create({"models": models}), "key").app) as client:
        for path, kind in (("/", "text/html"), ("/demo.js", "text/javascript"), ("/demo.css", "text/css")):
            response = client.get(path)
            assert response.status_code == 200 and response.headers["content-type"].startswith(kind)
            assert "http" not in response.text.replace("http-equiv", ""), "nothing is loaded from elsewhere"
            assert response.headers["content-security-policy"].startswith("default-src 'none'")
        assert client.get("/demo/models").status_code == 401 == client.post("/demo/analyze", json={"text": "영화"}).status_code


def test_a_model_that_cannot_be_shown_is_served_all_the_same(models, trained, tmp_path, caplog):
    """Other packages, another version, a task in a module of its own: the page goes without."""
    for name, change in (("module", {"task_module": "evil.py"}), ("other", None)):
        shutil.copytree(trained / "served" / "3", tmp_path / name)
        path = tmp_path / name / "assets.extra" / "config.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"finetuning": record["finetuning"] | change} if change else {"tokenizer": {}}))
    places = ",".join(f"{name}:{tmp_path / name}" for name in ("module", "other"))
    with caplog.at_level("WARNING", logger="absl"):
        server = app.Server(ServerConfig.create({"models": places}))
    assert server.demo.members == [] and caplog.text.count("is served but not shown on the page") == 2
    with testclient.TestClient(server.app) as client:
        assert client.post("/v1/models/module:predict", json={"inputs": {"texts": ["영화"]}}).status_code == 200
        assert "export them anew" in client.post("/demo/analyze", json={"text": "영화"}).json()["error"]


def test_a_generator_of_another_vocabulary_is_not_asked(models, trained, tmp_path):
    shutil.copytree(trained / "demo" / "gen", tmp_path / "gen")
    extra = tmp_path / "gen" / "assets.extra"
    (extra / "vocab.txt").write_text((extra / "vocab.txt").read_text(encoding="utf-8").replace("영화", "연극"), encoding="utf-8")
    server = app.Server(ServerConfig.create({"models": f"disc:{trained / 'demo' / 'disc'},gen:{tmp_path / 'gen'}"}))
    with testclient.TestClient(server.app) as client:
        assert not client.get("/demo/models").json()["has_generator"]
        assert "no generator of the same vocabulary" in client.post("/demo/suggest", json={"text": "영화", "place": 0}).json()["error"]


# --- in a browser --------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(models, api_key=""):
    """The address of a real server."""
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = uvicorn.Server(
        uvicorn.Config(app.Server(ServerConfig.create({"models": models}), api_key).app, "127.0.0.1", port, log_level="error")
    )
    thread = threading.Thread(target=served.run, daemon=True)
    thread.start()
    while not served.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/"
    served.should_exit = True
    thread.join(20)


def press(key):
    return {"key": key, "code": key, "windowsVirtualKeyCode": {"Enter": 13, "Tab": 9}[key], "text": "\r" if key == "Enter" else ""}


@pytest.mark.slow
def test_people_see_the_model_think(models, tmp_path):
    browser = pytest.importorskip("tests.server.browser", reason="aiohttp is not installed (dev extra)")

    async def actions(page):
        await page.wait("!document.getElementById('pair_field').hidden")
        if await page.run("document.documentElement.lang") != "ko":
            await page.run("document.getElementById('language').click()")
        assert await page.run("document.querySelector('button[type=submit]').textContent") == "보기"
        # Text is never HTML, whoever it comes from.
        await page.run("const text = document.getElementById('text'); text.focus(); text.value = '<img src=x onerror=alert(1)> 영화 감동'")
        await page.send("Input.dispatchKeyEvent", type="keyDown", **press("Enter"))
        await page.wait("document.querySelectorAll('#tasks .task').length === 2")
        assert await page.run("document.images.length") == 0
        assert "<img" in await page.run("document.getElementById('words').textContent")
        assert await page.run("document.querySelector('#tasks .entities').textContent.startsWith('<img src=x onerror=alert(1)> 영화')")

        await page.run(
            "text.value = '영화 감동'; document.getElementById('pair').value = '좋다'; document.getElementById('form').requestSubmit()"
        )
        await page.wait(
            "document.querySelectorAll('#tasks .task').length === 3 && document.querySelectorAll('#pieces button').length === 2"
        )
        assert await page.run("document.querySelector('#tasks mark').firstChild.textContent") == "감동", "entities are shown in place"
        assert await page.run("document.querySelectorAll('#tasks meter').length") == 2
        colours = await page.run("[...document.querySelectorAll('#pieces button')].map((button) => button.style.backgroundColor)")
        assert all(colour.startswith("rgba(240, 138, 93") for colour in colours)

        # The generator's suggestions, with the keyboard: Enter on the piece, Tab to the second, Enter.
        await page.run("document.querySelectorAll('#pieces button')[1].focus()")
        await page.send("Input.dispatchKeyEvent", type="keyDown", **press("Enter"))
        await page.wait("document.querySelectorAll('#suggestions button').length === 5")
        wanted = await page.run("document.querySelectorAll('#suggestions button')[1].textContent.split(' ')[0]")
        await page.send("Input.dispatchKeyEvent", type="keyDown", **press("Tab"))
        await page.send("Input.dispatchKeyEvent", type="keyDown", **press("Enter"))
        await page.wait("document.querySelectorAll('#pieces .swapped').length === 1")
        assert await page.run("document.querySelectorAll('#pieces button')[1].firstChild.textContent") == wanted

        await page.run("document.getElementById('language').click()")
        await page.wait("document.querySelector('button[type=submit]').textContent === 'Look'")
        await page.resize(390, 800)
        assert not await page.run("document.documentElement.scrollWidth > window.innerWidth"), "a phone has to scroll sideways"
        await page.run(
            "text.value = ' '; document.getElementById('form').noValidate = true; document.getElementById('form').requestSubmit()"
        )
        await page.wait("document.getElementById('message').textContent.includes('not empty')")

    with running(models) as address:
        asyncio.run(browser.visit(address, tmp_path / "profile", actions))


@pytest.mark.slow
def test_a_key_is_asked_for_on_the_page(models, tmp_path):
    browser = pytest.importorskip("tests.server.browser", reason="aiohttp is not installed (dev extra)")

    async def actions(page):
        await page.wait("!document.getElementById('key_field').hidden")
        await page.run("document.getElementById('key').value = 'secret'; document.getElementById('text').value = '영화'")
        await page.run("document.getElementById('form').requestSubmit()")
        await page.wait("document.querySelectorAll('#pieces button').length === 1")
        assert await page.run("document.querySelector('#pieces button').firstChild.textContent") == "영화"

    with running(models, "secret") as address:
        asyncio.run(browser.visit(address, tmp_path / "profile", actions))
