"""Load on serve.py: requests per second and latencies with 1, 8 and 64 clients over loopback, and what becomes of every request.

    python benchmarks/serving.py --models=nsmc:served/nsmc --texts=reviews.txt --output_dir=work/serving

Starts serve.py with its defaults, sends texts for --seconds with each number of clients, one request after the other per client, and
writes serving.json. "refused" are answers with 429 or 503; an answer that does not come within a minute, or any other status, is a fault.
"""

import asyncio
import collections
import itertools
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from typing import Any

import aiohttp
from absl import flags

from model import command
from model.command import DataError, UserError, write_json
from server.server_config import parse_models

CLIENTS = (1, 8, 64)
ROOT = pathlib.Path(__file__).resolve().parent.parent


def start_server(models: str) -> tuple[subprocess.Popen[bytes], str]:
    """(process, address) of a server that answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(ROOT / "serve.py"), f"--models={models}", f"--port={port}"], stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        time.sleep(0.2)
        if process.poll() is not None:
            raise UserError(f"serve.py ended with {process.returncode}: are the folders SavedModels? (--models)")
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return process, address
        except OSError:
            continue
    process.kill()
    raise UserError("serve.py did not answer within two minutes (--models)")


async def load(address: str, name: str, texts: list[str], clients: int, seconds: float) -> dict[str, Any]:
    """What came of `clients` clients that ask for `seconds`."""
    latencies: list[float] = []
    statuses: collections.Counter[str] = collections.Counter()
    source, end = itertools.cycle(texts), time.monotonic() + seconds

    async def ask(client: aiohttp.ClientSession) -> None:
        while time.monotonic() < end:
            begin = time.monotonic()
            try:
                body = {"inputs": {"texts": [next(source)]}}
                async with client.post(f"{address}/v1/models/{name}:predict", json=body) as response:
                    await response.read()
                statuses[f"{response.status}"] += 1
                if response.status == 200:
                    latencies.append(time.monotonic() - begin)
            except (aiohttp.ClientError, TimeoutError, asyncio.TimeoutError) as error:
                statuses[type(error).__name__] += 1

    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as client:
        begin = time.monotonic()
        await asyncio.gather(*(ask(client) for _ in range(clients)))
        elapsed = time.monotonic() - begin
    refused = statuses["429"] + statuses["503"]
    quantiles = statistics.quantiles(latencies, n=100, method="inclusive") if len(latencies) > 1 else [0.0] * 99
    return {
        "clients": clients,
        "requests_per_second": statuses["200"] / elapsed,
        "p50_ms": 1000 * quantiles[49],
        "p99_ms": 1000 * quantiles[98],
        "answered": statuses["200"],
        "refused": refused,
        "faults": statuses.total() - statuses["200"] - refused,
    }


def main() -> None:
    models, folder = command.required("models"), command.required("output_dir")
    with open(command.required("texts"), encoding="utf-8") as file:
        texts = [line.strip() for line in itertools.islice(file, 10_000) if line.strip()]
    os.makedirs(folder, exist_ok=True)
    name = next(iter(parse_models(models)))
    process, address = start_server(models)
    try:
        asyncio.run(load(address, name, texts, 8, 3.0))  # warm-up
        rows = []
        for clients in CLIENTS:
            rows.append(asyncio.run(load(address, name, texts, clients, flags.FLAGS.seconds)))
            print("  ".join(f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}" for key, value in rows[-1].items()))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    if any(row["faults"] for row in rows):
        raise DataError("some requests got another answer than 200, 429 or 503, or none within a minute: see above")
    write_json(os.path.join(folder, "serving.json"), {"model": name, "seconds": flags.FLAGS.seconds, "loads": rows})


if __name__ == "__main__":
    flags.DEFINE_string("models", None, "as serve.py takes it; the first one is asked")
    flags.DEFINE_string("texts", None, "file with a text a line")
    flags.DEFINE_string("output_dir", None, "folder for serving.json")
    flags.DEFINE_float("seconds", 10.0, "time for each number of clients")
    command.run(main)
