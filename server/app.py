"""TensorFlow Serving's REST interface for SavedModels, without its binary: predict, status, metadata, health, Prometheus metrics.

    POST /v1/models/NAME:predict        see server/loaded_model.py for the bodies
    GET  /v1/models/NAME                the version that is served
    GET  /v1/models/NAME/metadata       the signatures
    GET  /v1/models                     the names
    GET  /health, /metrics
    GET  /                              the demo page (server/demo.py)

Whatever a client sends, the answer is JSON with one sentence under "error" and a status that says whose fault it is, and the server stays
up: 400, 401, 404, 405 and 413 are the client's; 429 (too much is waiting) and 503 (too late) mean "later".
"""

import asyncio
import contextlib
import hmac
import importlib.resources
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import prometheus_client
import uvicorn
from absl import logging
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from model.command import UserError
from server.batching import Batcher, Overloaded
from server.demo import Demo
from server.loaded_model import BadRequest, Limits, LoadedModel, answer
from server.server_config import ServerConfig, parse_models

API_KEY = "SERVE_API_KEY"  # environment variable: a flag would show in the list of processes


class Metrics:
    """What /metrics shows, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self.requests = prometheus_client.Counter("serve_requests", "Answers", ["model", "status"], registry=self.registry)
        self.seconds = prometheus_client.Histogram("serve_request_seconds", "Time to the answer", ["model"], registry=self.registry)
        sizes = (1, 2, 4, 8, 16, 32, 64, 128)
        self.batch_rows = prometheus_client.Histogram(
            "serve_batch_rows", "Rows of a batch", ["model"], buckets=sizes, registry=self.registry
        )
        self.waiting = prometheus_client.Gauge("serve_waiting_rows", "Rows that wait", ["model"], registry=self.registry)


class Server:
    """The application for a configuration; `app` is what an ASGI server runs."""

    def __init__(self, config: ServerConfig, api_key: str = ""):
        """Loads the models. Raises UserError and DataError as LoadedModel does."""
        self._config, self._api_key, self.metrics = config, api_key.encode(), Metrics()
        limits = Limits(config.max_rows, config.max_characters)
        self.models = {name: LoadedModel(name, path, limits) for name, path in parse_models(config.models).items()}
        self._batchers = {name: self._make_batcher(model) for name, model in self.models.items()}
        self.demo = Demo(self.models, lambda name, request: self._batchers[name].submit(request))
        routes = [
            *(Route(f"/{name}" if name != PAGE else "/", _file(name)) for name in _TYPES),
            Route("/demo/models", self.demo_models),
            Route("/demo/{question:str}", self.ask_demo, methods=["POST"]),
            Route("/health", self.health),
            Route("/metrics", self.show_metrics),
            Route("/v1/models", self.list_models),
            Route("/v1/models/{name}:predict", self.predict, methods=["POST"]),
            Route("/v1/models/{name}/versions/{version}:predict", self.predict, methods=["POST"]),
            Route("/v1/models/{name}/versions/{version}/metadata", self.metadata),
            Route("/v1/models/{name}/versions/{version}", self.status),
            Route("/v1/models/{name}/metadata", self.metadata),
            Route("/v1/models/{name}", self.status),
        ]
        handlers = {HTTPException: _explain, Exception: _explain_fault}
        self.app = Starlette(routes=[*map(self._guard, routes)], lifespan=self._lifespan, exception_handlers=handlers)

    def _make_batcher(self, model: LoadedModel) -> Batcher:
        config, observe = self._config, self.metrics.batch_rows.labels(model.name).observe
        batcher = Batcher(model, config.max_batch_rows, config.max_waiting_rows, config.batch_window_ms / 1000.0, observe)
        self.metrics.waiting.labels(model.name).set_function(lambda: batcher.waiting_rows)
        return batcher

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        workers = [asyncio.create_task(batcher.work()) for batcher in self._batchers.values()]
        yield
        for worker, batcher in zip(workers, self._batchers.values(), strict=True):
            worker.cancel()
            batcher.close()

    def _guard(self, route: Route) -> Route:
        """`route` for those who have the key; /health and the page, which holds nothing of the models, are for everybody."""
        is_public = route.path in ("/health", "/", *(f"/{name}" for name in _TYPES))

        async def guarded(request: HTTPRequest) -> Response:
            given = request.headers.get("x-api-key", "") or request.headers.get("authorization", "").removeprefix("Bearer ")
            if self._api_key and not is_public and not hmac.compare_digest(given.encode("latin-1"), self._api_key):
                raise HTTPException(
                    401, "a valid key is needed: X-API-Key: KEY, or Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"}
                )
            return await route.endpoint(request)

        return Route(route.path, guarded, methods=sorted(route.methods or ()))

    # --- what clients ask for ------------------------------------------------------------------------------------------------

    async def predict(self, request: HTTPRequest) -> Response:
        model = self._model(request)
        begin, status = time.monotonic(), 500
        try:
            response = await self._in_time(self._predict(request, model))
            status = response.status_code
            return response
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            self.metrics.requests.labels(model.name, status).inc()
            self.metrics.seconds.labels(model.name).observe(time.monotonic() - begin)

    async def _in_time(self, response: Coroutine[Any, Any, Response]) -> Response:
        try:
            return await asyncio.wait_for(response, self._config.timeout_s)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise HTTPException(503, f"no answer within {self._config.timeout_s:g} seconds", {"Retry-After": "1"}) from error

    async def _predict(self, request: HTTPRequest, model: LoadedModel) -> Response:
        batcher = self._batchers[model.name]
        with self._explained():
            if batcher.is_full:
                raise Overloaded
            parsed = model.parse(_json(await self._read(request)))
            outputs = await batcher.submit(parsed)
        # Large answers take long to write: elsewhere, so that others are served meanwhile.
        content = await asyncio.to_thread(lambda: json.dumps(answer(parsed, outputs), ensure_ascii=False, allow_nan=False).encode("utf-8"))
        return Response(content, media_type="application/json")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """What is wrong with a request, or with the moment, as HTTP says it."""
        try:
            yield
        except (BadRequest, UserError) as error:
            raise HTTPException(400, f"{error}".partition(" (--")[0][:500]) from error
        except ClientDisconnect as error:
            raise HTTPException(400, "the client went away") from error
        except Overloaded as error:
            raise HTTPException(429, f"{self._config.max_waiting_rows} rows are waiting already", {"Retry-After": "1"}) from error

    async def demo_models(self, request: HTTPRequest) -> Response:
        return JSONResponse(self.demo.describe())

    async def ask_demo(self, request: HTTPRequest) -> Response:
        """What the page asks: /demo/analyze and /demo/suggest."""
        question = {"analyze": self.demo.analyze, "suggest": self.demo.suggest}.get(request.path_params["question"])
        if question is None:
            raise HTTPException(404, "the page asks /demo/analyze and /demo/suggest only")
        return await self._in_time(self._ask_demo(request, question))

    async def _ask_demo(self, request: HTTPRequest, question: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> Response:
        with self._explained():
            body = _json(await self._read(request))
            if not isinstance(body, dict):
                raise BadRequest("the body must be a JSON object")
            return JSONResponse(await question(body))

    async def _read(self, request: HTTPRequest) -> bytes:
        """The body; 413 as soon as it is known to be too large."""
        limit, chunks, size = self._config.max_body_bytes, [], 0
        declared = request.headers.get("content-length", "0")
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit or (declared.isdecimal() and int(declared[:20]) > limit):  # of more digits Python might not make a number
                raise HTTPException(413, f"the body is larger than {limit:,} bytes")
            chunks.append(chunk)
        return b"".join(chunks)

    def _model(self, request: HTTPRequest) -> LoadedModel:
        name, version = request.path_params["name"], request.path_params.get("version")
        if name.endswith(":predict") and request.method != "POST":
            raise HTTPException(405, "predict takes POST", {"Allow": "POST"})
        if name not in self.models:
            raise HTTPException(404, f"no model {name!r:.100}, only {', '.join(self.models)}")
        model = self.models[name]
        if version not in (None, f"{model.version}"):
            raise HTTPException(404, f"model {name} is there in version {model.version} only, not {version!r:.100}")
        return model

    async def status(self, request: HTTPRequest) -> Response:
        version = f"{self._model(request).version}"
        state = {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return JSONResponse({"model_version_status": [state]})

    async def metadata(self, request: HTTPRequest) -> Response:
        model = self._model(request)
        signatures = {}
        for name, function in model.signatures.items():
            inputs = {name: {"dtype": spec.dtype.name, "shape": spec.shape.as_list()} for name, spec in model.inputs(name).items()}
            outputs = {
                name: {"dtype": spec.dtype.name, "shape": spec.shape.as_list()} for name, spec in function.structured_outputs.items()
            }
            signatures[name] = {"inputs": inputs, "outputs": outputs}
        return JSONResponse({"model_spec": {"name": model.name, "version": f"{model.version}"}, "signatures": signatures})

    async def list_models(self, request: HTTPRequest) -> Response:
        return JSONResponse({"models": list(self.models)})

    async def health(self, request: HTTPRequest) -> Response:
        return JSONResponse({"status": "ok"})

    async def show_metrics(self, request: HTTPRequest) -> Response:
        return Response(prometheus_client.generate_latest(self.metrics.registry), media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _file(name: str) -> Callable[[HTTPRequest], Awaitable[Response]]:
    """The endpoint of one of the page's files, which load nothing from elsewhere."""
    content = (importlib.resources.files("server") / "page" / name).read_bytes()
    headers = {"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'"}
    headers["Content-Security-Policy"] += "; frame-ancestors 'none'; form-action 'self'"

    async def endpoint(request: HTTPRequest) -> Response:
        return Response(content, media_type=_TYPES[name], headers=headers)

    return endpoint


PAGE = "index.html"
_TYPES = {PAGE: "text/html; charset=utf-8", "demo.js": "text/javascript; charset=utf-8", "demo.css": "text/css; charset=utf-8"}


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON in UTF-8: {error}") from error


async def _explain(request: HTTPRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _explain_fault(request: HTTPRequest, error: Exception) -> Response:
    logging.exception("%s %s", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": "the server failed on this request; its log says why"}, 500)


def serve(config: ServerConfig) -> None:
    """Serves until SIGTERM or Ctrl-C; what was accepted is answered before it ends.

    Raises UserError for an address that cannot be listened on and a key that HTTP cannot carry, and what Server does.
    """
    key = os.environ.get(API_KEY, "")
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise UserError(f"the environment variable {API_KEY} must be printable ASCII without blanks around it")
    # The protocol is named: asyncio sends at once (TCP_NODELAY) only where it knows that it is TCP.
    listener = socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
    except OSError as error:
        raise UserError(f"cannot listen on {config.host}:{config.port}: {error.strerror} (--host, --port)") from error
    server = Server(config, key)
    names = ", ".join(f"{model.name} (version {model.version})" for model in server.models.values())
    port = listener.getsockname()[1]
    logging.info("Serving %s on http://%s:%d, %s a key", names, config.host, port, "with" if key else "without")
    options = uvicorn.Config(
        server.app,
        log_level="warning",
        access_log=False,
        limit_concurrency=config.max_connections,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(config.timeout_s) + 1,
    )
    uvicorn.Server(options).run(sockets=[listener])
