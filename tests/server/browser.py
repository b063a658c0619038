"""A headless Chromium that a test drives by the DevTools protocol."""

import asyncio
import base64
import json
import pathlib
import shutil
import subprocess
import time
from typing import Any

import aiohttp
import pytest

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--remote-debugging-port=0", "--no-first-run")


def find_chromium() -> str:
    """Path of the browser; skips the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no chromium on this machine (Debian's package chromium)")


class Page:
    """A page, whose scripts `run` evaluates."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse):
        self._socket, self._number = socket, 0

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_str(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads((await self._socket.receive()).data)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        found = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def wait(self, script: str, seconds: float = 20.0) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not await self.run(script):
            assert time.monotonic() < end, f"{script} never came true: {await self.run('document.body.innerText')}"
            await asyncio.sleep(0.05)

    async def resize(self, width: int, height: int) -> None:
        await self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    async def screenshot(self, path: pathlib.Path) -> None:
        found = await self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


async def visit(address: str, folder: pathlib.Path, actions: Any) -> None:
    """Opens `address` in a browser of its own, whose profile is `folder`, and awaits actions(page)."""
    process = subprocess.Popen([find_chromium(), *FLAGS, f"--user-data-dir={folder}"], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not (folder / "DevToolsActivePort").exists() or "\n" not in (folder / "DevToolsActivePort").read_text():
            assert time.monotonic() < end and process.poll() is None, "chromium did not start"
            await asyncio.sleep(0.1)
        port = (folder / "DevToolsActivePort").read_text().split("\n")[0]
        async with aiohttp.ClientSession() as session:
            async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as response:
                socket = (await response.json())["webSocketDebuggerUrl"]
            async with session.ws_connect(socket, max_msg_size=0) as connection:
                page = Page(connection)
                await page.send("Page.navigate", url=address)
                await page.wait("document.readyState === 'complete'")
                await actions(page)
    finally:
        process.kill()
        process.wait()
