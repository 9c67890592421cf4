"""Have MLflow answer few requests at a time: the others wait where they cost nothing.

Each request has a thread of MLflow's, and Python computes in one thread at a time. Of forty threads
at once most do nothing but take the interpreter, and SQLite's lock, from one another: at eight
writers the same request took 16 ms of CPU where two at a time took 12 (docs/performance.md).
"""

import asyncio
import os

# One that computes, and one whose answer is on its way or that waits for the disk.
AT_ONCE = 2
# Who takes longer, such as a search through everything, goes on beside those that come after it.
LONG = 0.2  # seconds
# Files stream for as long as they need, and compute next to nothing.
STREAMED = ("/api/2.0/mlflow-artifacts/", "/ajax-api/2.0/mlflow-artifacts/", "/gateway/")


def of_sqlite():
    """Tell whether the databases are SQLite: one on another host is waited for, not computed."""
    return os.environ.get("MLFLOW_BACKEND_STORE_URI", "").startswith("sqlite:")


class Turns:
    """An ASGI app in which requests wait for their turn, in the order that they came."""

    def __init__(self, app, at_once=AT_ONCE, long=LONG):
        self.app, self.long, self.free = app, long, asyncio.Semaphore(at_once)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"].startswith(STREAMED):
            await self.app(scope, receive, send)
            return
        await self.free.acquire()
        end = once(self.free.release)
        late = asyncio.get_running_loop().call_later(self.long, end)
        try:
            await self.app(scope, receive, send)
        finally:
            late.cancel()
            end()


def once(do):
    """Return what does it when it is first called, and then no more."""
    left = [do]
    return lambda: left and left.pop()()
