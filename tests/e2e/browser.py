"""A real Chromium without a window, driven by its own protocol over a pipe.

Debian's packages: chromium, and libnss3-tools to have it trust a test's authority. A machine that
lacks them gets them, as it gets those of a rehearsal host.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.rehearsal import packages

NEEDED = {"chromium": "chromium", "certutil": "libnss3-tools"}  # program: Debian package
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-proxy-server", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 60  # seconds


class Browser:
    """One tab, and the login that it gives where a server asks for one."""

    def __init__(self, folder: Path, name: str, address: str, root: Path) -> None:
        if missing := [package for name, package in NEEDED.items() if not shutil.which(name)]:
            packages.install(missing)
        store = folder / ".pki/nssdb"
        store.mkdir(parents=True)
        for words in (("-N", "--empty-password"), ("-A", "-t", "C,,", "-n", "test", "-i", root)):
            subprocess.run(["certutil", "-d", f"sql:{store}", *words], check=True)
        to_it, self._in = os.pipe()
        self._out, from_it = os.pipe()

        def descriptors() -> None:
            # It reads its orders from 3, and answers on 4.
            first, second = os.dup(to_it), os.dup(from_it)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self._process = subprocess.Popen(
            ["chromium", *FLAGS, f"--user-data-dir={folder / 'profile'}",
             f"--host-resolver-rules=MAP {name} {address}", "about:blank"],
            env=os.environ | {"HOME": str(folder)}, pass_fds=(3, 4), preexec_fn=descriptors,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        os.close(to_it)
        os.close(from_it)
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.login: tuple[str, str] | None = None
        self.asked: list[str] = []  # who wanted a login
        self.failed: list[str] = []  # what was answered with 403 or worse
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        attached = self.do("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.do("Page.enable")
        self.do("Network.enable")
        self.do("Fetch.enable", handleAuthRequests=True)
        self.do("Emulation.setDeviceMetricsOverride", width=1280, height=640,
                deviceScaleFactor=1, mobile=False)  # fmt: skip

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def _send(self, method: str, values: dict[str, Any]) -> int:
        self._number += 1
        order = {"id": self._number, "method": method, "params": values}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._in, json.dumps(order).encode() + b"\0")
        return self._number

    def do(self, method: str, **values: Any) -> dict[str, Any]:
        """Give an order and wait for its answer; what happens meanwhile is seen to."""
        number = self._send(method, values)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            said = self._next()
            if said.get("id") == number:
                assert "error" not in said, said["error"]
                return dict(said["result"])
            self._happened(said.get("method", ""), said.get("params", {}))
        raise AssertionError(f"the browser did not answer {method}")

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._out, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))

    def _happened(self, event: str, about: dict[str, Any]) -> None:
        if event == "Fetch.requestPaused":
            self._send("Fetch.continueRequest", {"requestId": about["requestId"]})
        elif event == "Fetch.authRequired":
            self.asked.append(about["authChallenge"]["origin"])
            answer = {"response": "CancelAuth"}
            if self.login:
                answer = {"response": "ProvideCredentials", "username": self.login[0],
                          "password": self.login[1]}  # fmt: skip
            values = {"requestId": about["requestId"], "authChallengeResponse": answer}
            self._send("Fetch.continueWithAuth", values)
        elif event == "Network.responseReceived" and about["response"]["status"] >= 403:
            self.failed.append(f"{about['response']['status']} {about['response']['url']}")

    # -- what a person does --------------------------------------------------------------------

    def open(self, url: str) -> str:
        """Go to a page; returns why that failed, or nothing."""
        return str(self.do("Page.navigate", url=url).get("errorText", ""))

    def turn_to(self, page: str, quiet: float = 0.6) -> str:
        """Go to another page of MLflow's as its links do; returns what it shows once it is quiet.

        Quiet is a page that shows the same for so many seconds.
        """
        self.run(f"location.hash = {json.dumps(page)}")
        shown, since = None, time.monotonic()
        while time.monotonic() - since < quiet:
            time.sleep(0.1)
            seen = str(self.run("document.body.innerText"))
            if seen != shown:
                shown, since = seen, time.monotonic()
        return shown or ""

    def run(self, script: str) -> Any:
        """Return the value of a line of JavaScript on the page."""
        return self.do("Runtime.evaluate", expression=script, awaitPromise=True,
                       returnByValue=True)["result"].get("value")  # fmt: skip

    def shows(self, *texts: str) -> str:
        """Wait until the page shows all the texts; returns all that it shows."""
        deadline = time.monotonic() + PATIENCE
        while True:
            seen = str(self.run("document.body ? document.body.innerText : ''"))
            if all(text in seen for text in texts):
                return seen
            assert time.monotonic() < deadline, f"{texts} not in {seen!r}; failed: {self.failed}"
            time.sleep(0.3)

    def picture(self, file: Path) -> None:
        """Write what it shows as a PNG of 255 colours, which is a quarter of the size."""
        from PIL import Image

        whole = base64.b64decode(self.do("Page.captureScreenshot", format="png")["data"])
        Image.open(io.BytesIO(whole)).convert("RGB").quantize(255, Image.Quantize.MAXCOVERAGE).save(
            file, optimize=True
        )


@contextmanager
def browser_for(folder: Path, name: str, address: str, root: Path) -> Iterator[Browser]:
    browser = Browser(folder, name, address, root)
    try:
        yield browser
    finally:
        browser.close()
