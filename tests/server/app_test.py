"""The REST interface from outside: answers equal to the predictor's, every wrong request a sentence, and the server stays up."""

import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from export.exporter import ExportConfig, export
from finetune.finetuning_run import FinetuningRun
from finetune.prediction import Predictor
from model.command import UserError
from server.loaded_model import Limits, LoadedModel
from server.server_config import ServerConfig
from tests.conftest import ROOT

testclient = pytest.importorskip("starlette.testclient", reason="starlette and httpx are not installed (serve extra)")
app = pytest.importorskip("server.app", reason="the server's packages are not installed (serve extra)")
PREDICT = "/v1/models/nsmc:predict"


@pytest.fixture
def make_client(served):
    """make_client(api_key="", field=value, ...) -> a client of a server of its own."""

    def make(api_key="", **fields):
        config = ServerConfig.create({"models": f"nsmc:{served}", "batch_window_ms": 0.0, **fields})
        return testclient.TestClient(app.Server(config, api_key).app, raise_server_exceptions=False)

    return make


def test_answers_in_columns_and_in_rows_are_the_predictor_s(make_client, trained):
    texts = ["영화 좋다", "지루 최악 배우 화면"]
    expected = [[*found["probabilities"].values()] for found in Predictor(str(trained / "models")).predict(texts)]
    with make_client() as client:
        columns = client.post(PREDICT, json={"inputs": {"texts": texts}}).json()["outputs"]
        np.testing.assert_allclose(columns["probabilities"], expected, atol=1e-4)
        rows = client.post(PREDICT, json={"instances": texts}).json()["predictions"]
        np.testing.assert_allclose([row["probabilities"] for row in rows], expected, atol=1e-4)
        assert client.post(PREDICT, json={"instances": [{"texts": text} for text in texts]}).json()["predictions"] == rows
        ids = {name: columns[name] for name in ("input_ids", "input_mask", "segment_ids")}
        again = client.post("/v1/models/nsmc/versions/3:predict", json={"signature_name": "classify", "inputs": ids}).json()["outputs"]
        np.testing.assert_allclose(again["probabilities"], expected, atol=1e-4)


def test_status_metadata_health_and_metrics(make_client):
    with make_client() as client:
        client.post(PREDICT, json={"inputs": {"texts": ["영화"]}})
        state = client.get("/v1/models/nsmc").json()["model_version_status"][0]
        assert client.get("/v1/models/nsmc/versions/3").json()["model_version_status"] == [state]
        assert (state["version"], state["state"]) == ("3", "AVAILABLE") and client.get("/v1/models").json() == {"models": ["nsmc"]}
        signatures = client.get("/v1/models/nsmc/metadata").json()["signatures"]
        assert signatures["serving_default"]["inputs"] == {"texts": {"dtype": "string", "shape": [None]}}
        assert client.get("/health").json() == {"status": "ok"}
        metrics = client.get("/metrics").text
        assert 'serve_requests_total{model="nsmc",status="200"} 1.0' in metrics and 'serve_waiting_rows{model="nsmc"} 0.0' in metrics


IDS = {"input_ids": [[2, 5, 3]], "input_mask": [[1, 1, 1]], "segment_ids": [[0, 0, 0]]}


@pytest.mark.parametrize(
    "body, words",
    [
        (b"", "not JSON in UTF-8"),
        (b'{"inputs":', "not JSON in UTF-8"),
        (b'{"inputs": {"texts": ["\xff"]}}', "not JSON in UTF-8"),
        (b"[" * 100_000, "not JSON in UTF-8"),
        (b"[]", "must be a JSON object, got a list"),
        (b"{}", 'either "instances"'),
        (b'{"inputs": {"texts": ["a"]}, "instances": ["a"]}', 'either "instances"'),
        (
            {"signature_name": "nothing", "inputs": {"texts": ["a"]}},
            "no signature 'nothing', only classify, encode, from_morphemes, serving_default",
        ),
        ({"signature_name": 3, "inputs": {"texts": ["a"]}}, "no signature 3"),
        ({"inputs": {"text": ["a"]}}, "takes texts, and 'text' is missing or not among them"),
        ({"inputs": {"texts": "a"}}, "texts must be a list of 1 to 4 rows, got a text"),
        ({"inputs": {"texts": []}}, "list of 1 to 4 rows, got 0"),
        ({"inputs": {"texts": ["a"] * 5}}, "list of 1 to 4 rows, got 5"),
        ({"inputs": {"texts": [1]}}, "texts must hold texts, got a number"),
        ({"inputs": {"texts": [None]}}, "texts must hold texts, got null"),
        ({"inputs": {"texts": ["가" * 51]}}, "51 characters, at most 50"),
        (b'{"inputs": {"texts": ["\\ud800"]}}', "half of a surrogate pair"),
        ({"instances": "a"}, '"instances" must be a list'),
        ({"instances": ["a", {"texts": "a"}]}, '"instances" must be objects with texts'),
        ({"instances": []}, "list of 1 to 4 rows, got 0"),
        ({"signature_name": "classify", "inputs": {**IDS, "input_ids": [[2, 5]]}}, "the inputs differ in size"),
        ({"signature_name": "classify", "inputs": {**IDS, "input_ids": [[2, 5.5, 3]]}}, "whole numbers from 0"),
        ({"signature_name": "classify", "inputs": {**IDS, "input_ids": [[2, -1, 3]]}}, "whole numbers from 0"),
        ({"signature_name": "classify", "inputs": {**IDS, "input_ids": [[]]}}, "rows of 1 to 4096 whole numbers"),
        ({"signature_name": "classify", "inputs": {**IDS, "input_ids": [[2, 99, 3]]}}, r"does not take these inputs: indices\[0,1\] = 99"),
        ({"signature_name": "classify", "inputs": {name: [[1] * 40] for name in IDS}}, "does not take these inputs"),
        ({"signature_name": "classify", "inputs": 3}, '"inputs" must be an object with'),
    ],
)
def test_wrong_requests_are_explained_and_the_server_stays_up(make_client, body, words):
    with make_client(max_rows=4, max_characters=50) as client:
        response = client.post(PREDICT, content=body) if isinstance(body, bytes) else client.post(PREDICT, json=body)
        assert response.status_code == 400 and re.search(words, response.json()["error"]), response.text
        assert "\n" not in response.json()["error"]
        assert client.post(PREDICT, json={"inputs": {"texts": ["영화"]}}).status_code == 200


def test_other_statuses(make_client):
    with make_client(max_body_bytes=1000) as client:
        for path, status in (("/v1/models/none:predict", 404), ("/v1/models/nsmc/versions/1:predict", 404), ("/elsewhere", 404)):
            assert client.post(path, json={}).status_code == status and "error" in client.post(path, json={}).json()
        assert "no model 'none', only nsmc" in client.post("/v1/models/none:predict", json={}).json()["error"]
        assert client.get(PREDICT).status_code == 405
        assert client.post(PREDICT, content=b" " * 1001).status_code == 413
        assert client.post(PREDICT, content=(b" " * 300 for _ in range(5))).status_code == 413, "no length was declared"


def test_an_answer_that_would_be_too_large_is_refused_before_it_is_computed(make_client, monkeypatch):
    monkeypatch.setattr(Limits, "max_values", 300)
    monkeypatch.setattr(Limits.__init__, "__defaults__", (64, 10_000, 4_096, 300))
    with make_client() as client:
        body = {"signature_name": "encode", "inputs": {name: [[1] * 16] * 2 for name in IDS}}
        response = client.post(PREDICT, json=body)
        assert response.status_code == 400 and "could hold 544 numbers, at most 300 are allowed" in response.json()["error"]
        assert client.post(PREDICT, json={**body, "inputs": {name: [[1] * 16] for name in IDS}}).status_code == 200


def test_a_key_is_asked_for(make_client):
    with make_client(api_key="secret key") as client:
        assert client.get("/health").status_code == 200
        for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}):
            assert client.get("/v1/models", headers=headers).status_code == 401
        assert client.get("/v1/models", headers={"X-API-Key": "secret key"}).status_code == 200
        assert client.get("/v1/models", headers={"Authorization": "Bearer secret key"}).status_code == 200


@pytest.mark.parametrize("key", ["열쇠", " key", "key\n"])
def test_a_key_that_http_cannot_carry_is_refused(monkeypatch, key):
    monkeypatch.setenv("SERVE_API_KEY", key)
    with pytest.raises(UserError, match="SERVE_API_KEY must be printable ASCII"):
        app.serve(ServerConfig.create({"models": "a:x"}))


def test_an_address_that_is_taken_is_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot listen on 127.0.0.1:.*Address already in use .--host, --port"):
            app.serve(ServerConfig.create({"models": "a:x", "port": taken.getsockname()[1]}))


def test_a_fault_of_ours_is_500_and_no_more(make_client, monkeypatch):
    with make_client() as client:
        for fault in (lambda *arguments: 1 / 0, lambda *arguments: int("x"), lambda *arguments: {"score": np.array([np.nan])}):
            monkeypatch.setattr(LoadedModel, "run", fault)
            response = client.post(PREDICT, json={"inputs": {"texts": ["영화"]}})
            assert response.status_code == 500 and response.json()["error"] == "the server failed on this request; its log says why"
        monkeypatch.undo()
        assert client.post(PREDICT, json={"inputs": {"texts": ["영화"]}}).status_code == 200


def test_too_much_at_once_is_refused_and_nothing_accepted_is_lost(make_client, monkeypatch):
    run = LoadedModel.run

    def slowly(self, *arguments):
        time.sleep(0.05)
        return run(self, *arguments)

    monkeypatch.setattr(LoadedModel, "run", slowly)
    with make_client(max_waiting_rows=4, max_rows=2, max_batch_rows=2) as client, concurrent.futures.ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(lambda _: client.post(PREDICT, json={"inputs": {"texts": ["영화"]}}), range(60)))
        statuses = {answer.status_code for answer in answers}
        assert statuses == {200, 429} and all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 429)
        probabilities = {tuple(answer.json()["outputs"]["probabilities"][0]) for answer in answers if answer.status_code == 200}
        assert np.ptp(np.array(sorted(probabilities)), axis=0).max() < 1e-6


def test_what_takes_too_long_is_refused(make_client, monkeypatch):
    monkeypatch.setattr(LoadedModel, "run", lambda *arguments: time.sleep(0.5))
    with make_client(timeout_s=0.1) as client:
        response = client.post(PREDICT, json={"inputs": {"texts": ["영화"]}})
        assert response.status_code == 503 and "no answer within 0.1 seconds" in response.json()["error"]


def test_pairs(make_config, several, home):
    FinetuningRun(make_config(task_names=["korsts"], num_train_epochs=0.5)).run()
    fields = {"checkpoint": str(home / "models"), "part": "finetuned", "format": "saved_model", "output_dir": str(home / "sts")}
    export(ExportConfig.create(fields))
    config = ServerConfig.create({"models": f"sts:{home / 'sts'}"})
    with testclient.TestClient(app.Server(config).app) as client:
        row = client.post("/v1/models/sts:predict", json={"instances": [{"text_a": "영화", "text_b": "좋다"}]}).json()["predictions"][0]
        assert row["score"] == pytest.approx(Predictor(str(home / "models")).predict([("영화", "좋다")])[0]["score"], abs=1e-4)
        error = client.post("/v1/models/sts:predict", json={"instances": [{"text_a": "영화"}]}).json()["error"]
        assert "takes text_a, text_b, and 'text_b' is missing" in error
        error = client.post("/v1/models/sts:predict", json={"inputs": {"text_a": ["영화"], "text_b": ["a", "b"]}}).json()["error"]
        assert "differ in size: text_a [1], text_b [2]" in error


@pytest.mark.parametrize(
    "fields, words",
    [
        ({}, "--models is required"),
        ({"models": "nsmc"}, "NAME:FOLDER.*got 'nsmc'"),
        ({"models": "a/b:x"}, "letters, digits"),
        ({"models": "a:x,a:y"}, "different names"),
        ({"models": "a:x", "port": 70000}, "port must be 0 to 65535"),
        ({"models": "a:x", "max_rows": 0}, "max_rows must be greater than 0"),
        ({"models": "a:x", "max_waiting_rows": 3}, "must be at most max_waiting_rows 3"),
        ({"models": "a:x", "max_batch_rows": 3}, "must be at most max_batch_rows 3"),
    ],
)
def test_wrong_flags(fields, words):
    with pytest.raises(UserError, match=words):
        ServerConfig.create(fields)


def test_a_folder_without_a_model(tmp_path):
    config = ServerConfig.create({"models": f"a:{tmp_path}"})
    with pytest.raises(UserError, match="no SavedModel in .* nor N/saved_model.pb .--models"):
        app.Server(config)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be loaded.*--models"):
        app.Server(config)


@pytest.mark.slow
def test_a_real_server_answers_what_it_accepted_before_it_ends(served):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        str(ROOT / "serve.py"),
        f"--models=nsmc:{served}",
        f"--port={port}",
        "--batch_window_ms=1500",
        "--max_rows=8",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "SERVE_API_KEY": "key"})
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.2)
        body = json.dumps({"inputs": {"texts": ["영화 좋다"]}}).encode()
        request = urllib.request.Request(f"{url}{PREDICT}", body, {"X-API-Key": "key"})
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(lambda: json.load(urllib.request.urlopen(request, timeout=30)))
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            assert len(waiting.result()["outputs"]["probabilities"][0]) == 2
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)
        with pytest.raises(OSError):
            urllib.request.urlopen(f"{url}/health", timeout=5)
        assert b"with a key" in process.stderr.read()
    finally:
        process.kill()
