"""Few requests at a time are in MLflow, a long one holds nobody up, and none is lost."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tasks.engine.templates import FILES

sys.path.insert(0, str(FILES / "app"))

from remote_mlflow_app.turns import Turns, of_sqlite

SEARCH = "/api/2.0/mlflow/runs/search"
FILE = "/api/2.0/mlflow-artifacts/artifacts/0/x"
FOREVER = 3600.0


class Mlflow:
    """An app that counts who is in it, and answers once it may."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.most = 0
        self.done: list[str] = []
        self.may = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.inside.append(scope["name"])
        self.most = max(self.most, len(self.inside))
        if scope["name"] == "fails":
            self.inside.remove("fails")
            raise ValueError("fails")
        await self.may.wait()
        self.inside.remove(scope["name"])
        self.done.append(scope["name"])


def play(
    scene: Callable[[Mlflow, Callable[..., asyncio.Task[None]]], Awaitable[None]],
    long: float = FOREVER,
) -> Mlflow:
    """Play a scene with an app behind turns, two at once, and what sends it a request."""

    async def run() -> Mlflow:
        mlflow = Mlflow()
        turns = Turns(mlflow, 2, long)

        def ask(name: str, path: str = SEARCH, kind: str = "http") -> asyncio.Task[None]:
            scope = {"type": kind, "path": path, "name": name}
            return asyncio.create_task(turns(scope, None, None))

        await asyncio.wait_for(scene(mlflow, ask), 20)
        return mlflow

    return asyncio.run(run())


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_two_at_a_time_are_answered_in_the_order_that_they_came() -> None:
    names = [str(number) for number in range(20)]

    async def scene(mlflow: Mlflow, ask: Callable[..., asyncio.Task[None]]) -> None:
        asked = [ask(name) for name in names]
        await settled()
        assert mlflow.inside == ["0", "1"]
        mlflow.may.set()
        await asyncio.gather(*asked)

    mlflow = play(scene)
    assert (mlflow.done, mlflow.most) == (names, 2)


def test_who_takes_long_holds_nobody_up() -> None:
    async def scene(mlflow: Mlflow, ask: Callable[..., asyncio.Task[None]]) -> None:
        asked = [ask(str(number)) for number in range(6)]
        while len(mlflow.inside) < 6:  # none of them is answered
            await asyncio.sleep(0.01)
        mlflow.may.set()
        await asyncio.gather(*asked)
        # Each gave its turn back once, not twice.
        mlflow.may.clear()
        asked = [ask(str(number)) for number in range(6)]
        await settled()
        assert len(mlflow.inside) == 2
        mlflow.may.set()
        await asyncio.gather(*asked)

    play(scene, long=0.05)


@pytest.mark.parametrize(("path", "kind"), [(FILE, "http"), (f"/ajax-{FILE[1:]}", "http"),
                                            ("/gateway/x", "http"), ("", "lifespan")])  # fmt: skip
def test_files_wait_for_nobody(path: str, kind: str) -> None:
    async def scene(mlflow: Mlflow, ask: Callable[..., asyncio.Task[None]]) -> None:
        asked = [*(ask(str(number)) for number in range(3)), ask("file", path, kind)]
        await settled()
        assert mlflow.inside == ["0", "1", "file"]
        mlflow.may.set()
        await asyncio.gather(*asked)

    play(scene)


def test_an_error_ends_a_turn_as_an_answer_does() -> None:
    async def scene(mlflow: Mlflow, ask: Callable[..., asyncio.Task[None]]) -> None:
        failed = [ask("fails") for _ in range(5)]
        assert [str(each) for each in await asyncio.gather(*failed, return_exceptions=True)] == [
            "fails"
        ] * 5
        mlflow.may.set()
        await ask("next")

    assert play(scene).done == ["next"]


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [("sqlite:////home/x/mlflow.db", True), ("postgresql://u@db/x", False), ("", False)],
)
def test_turns_are_for_sqlite(monkeypatch: pytest.MonkeyPatch, uri: str, wanted: bool) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", uri)
    assert of_sqlite() == wanted
