"""Writers that log runs from this machine, and rows of runs that were never logged.

Started as a program, this file is the writers: they write down each run that the server
acknowledged, and when, before they go on to the next. That is what a backup or an upgrade must
not lose.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import Host, Working
from waiting import until

from tasks.engine.login import Login
from tasks.laptop.play import client_environment
from tasks.rehearsal import processes

PROCESSES = 8
BOUND = 3600  # seconds after which writers stop by themselves, whatever became of the test
PAUSE = 0.4  # seconds between two runs of one writer: about 30 requests a second from all of them


class Raw:
    """Log runs by bare REST on one kept connection: no call is ever tried a second time."""

    def __init__(self, uri: str, patience: float) -> None:
        address = urllib.parse.urlsplit(uri)
        self._connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=patience
        )
        names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        pair = ":".join(os.environ[name] for name in names)
        self._headers = {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}

    def log(self, number: int) -> str:
        """Log one run; returns its id. Raises where a call is not answered with 200."""
        now = int(time.time() * 1000)
        made = self._call("runs/create", {"experiment_id": "0", "start_time": now})
        run = str(made["run"]["info"]["run_id"])
        metrics = [{"key": "metric", "value": number, "timestamp": now, "step": 0}]
        params = [{"key": "number", "value": str(number)}]
        self._call("runs/log-batch", {"run_id": run, "metrics": metrics, "params": params})
        return run

    def _call(self, path: str, body: dict[str, Any]) -> Any:
        try:
            headers = self._headers | {"Content-Type": "application/json"}
            self._connection.request("POST", f"/api/2.0/mlflow/{path}", json.dumps(body), headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except OSError:
            self._connection.close()  # the next call opens another
            raise
        if answer.status != 200:
            raise OSError(f"{answer.status} for {path}: {text[:200]!r}")
        return json.loads(text)


class Client:
    """Log runs with MLflow's own client, as it is out of the box."""

    def __init__(self, uri: str, patience: float) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(uri)

    def log(self, number: int) -> str:
        """Log one run; returns its id."""
        from mlflow.entities import Metric, Param

        run = str(self._client.create_run("0").info.run_id)
        metrics = [Metric("metric", number, int(time.time() * 1000), 0)]
        self._client.log_batch(run, metrics, [Param("number", str(number))])
        return run


def write(kind: str, uri: str, note: Path, pause: float, patience: float) -> None:
    """Log runs one after the other, and note each that was acknowledged, or that failed."""
    writer = {"raw": Raw, "client": Client}[kind](uri, patience)
    deadline = time.monotonic() + BOUND
    number = 0
    with note.open("a", buffering=1) as stream:
        while time.monotonic() < deadline:
            began = time.monotonic()
            try:
                said: dict[str, Any] = {"run": writer.log(number)}
            except Exception as error:  # noqa: BLE001 (whatever a client raises is a failed call)
                said = {"failed": f"{type(error).__name__}: {error}"}
            said |= {"at": time.time(), "took": time.monotonic() - began}
            stream.write(json.dumps(said) + "\n")
            os.fsync(stream.fileno())
            number += 1
            time.sleep(pause * random.uniform(0.5, 1.5))


def main(kind: str, uri: str, folder: str, count: str, pause: str, patience: str) -> None:
    """Be that many writers, each a process of its own."""
    if kind == "client":
        import mlflow.entities  # noqa: F401 (once, for all of them)
    children = []
    for number in range(int(count)):
        child = os.fork()
        if not child:
            note = Path(folder, f"{kind}-{number}")
            write(kind, uri, note, float(pause), float(patience))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


class Load:
    """What writers have done so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def notes(self) -> list[dict[str, Any]]:
        """List what was noted, in the order of time; a line that is being written is left out."""
        lines = [
            line
            for note in self._folder.iterdir()
            for line in note.read_text().splitlines(keepends=True)
        ]
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return sorted(found, key=lambda note: note["at"])

    def acknowledged(self, before: float | None = None) -> set[str]:
        """Return the runs that were acknowledged, all or those before a moment (s since 1970)."""
        return {
            note["run"]
            for note in self.notes()
            if "run" in note and (before is None or note["at"] < before)
        }

    def failures(self) -> list[str]:
        return [note["failed"] for note in self.notes() if "failed" in note]

    def longest_wait(self) -> float:
        """Return the seconds of the longest run, from its first call to its last answer."""
        return max((note["took"] for note in self.notes()), default=0.0)

    def goes_on(self, runs: int = PROCESSES) -> None:
        """Wait until more runs are acknowledged than now."""
        wanted = len(self.acknowledged()) + runs
        try:
            until(lambda: len(self.acknowledged()) >= wanted, "the writers go on", 120)
        except AssertionError as error:
            raise AssertionError(f"{error}; the last failures: {self.failures()[-3:]}") from None


@contextmanager
def writers(
    host: Host,
    login: tuple[str, str],
    *kinds: tuple[str, int],
    pause: float = PAUSE,
    patience: float = 300,
    uri: str = "",
) -> Iterator[Load]:
    """Have writers at work on a host's server for the block: by default 8 of the bare kind.

    `kinds` pairs "raw" or "client" with how many; `patience` is the seconds that one of the bare
    kind waits for an answer. They reach the server at `uri`, by default at the host's own address
    (`bind: 0.0.0.0`).
    """
    uri = uri or f"http://{host.address}:5000"
    environment = client_environment(Login(*login), uri)
    # MLflow's own patience and retries, not those of the product's trial.
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        del environment[name]
    environment |= {"NO_PROXY": "*", "no_proxy": "*", processes.MARK: host.lab.mark}
    environment["PYTHONPATH"] += f":{Path(__file__).parents[1]}"
    folder = Path(tempfile.mkdtemp(prefix="load-", dir=host.home))
    (notes := folder / "notes").mkdir()
    working = []
    try:
        for kind, count in kinds or (("raw", PROCESSES),):
            words = (kind, uri, str(notes), str(count), str(pause), str(patience))
            command = (sys.executable, __file__, *words)
            working.append(Working(command, environment, folder))
        load = Load(notes)
        load.goes_on()
        yield load
        dead = [each.so_far for each in working if not each.running]
        assert not dead, dead
    finally:
        for each in working:
            each.__exit__()


# Rows as MLflow makes them, by SQL alone: a Python loop would take ten times as long. Values are
# random, or they would pack to nothing. Arguments: the database, runs, metrics of each run.
ROWS = """
import sqlite3, sys, time
path, runs, metrics = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
now = int(time.time() * 1000)
base = sqlite3.connect(path, timeout=60)
base.execute("pragma synchronous=off")
base.execute("create temp table made (id text, began integer)")
base.execute('''
    with recursive n(i) as (select 1 union all select i + 1 from n where i < ?)
    insert into made select lower(hex(randomblob(16))), ? - i * 1000 from n
''', (runs, now))
base.execute('''
    insert into runs (run_uuid, name, source_type, user_id, status, start_time, end_time,
                      lifecycle_stage, artifact_uri, experiment_id)
    select id, 'filled-' || substr(id, 1, 8), 'LOCAL', 'somebody', 'FINISHED', began, began + 500,
           'active', 'mlflow-artifacts:/0/' || id || '/artifacts', 0 from made
''')
base.execute('''
    with recursive n(i) as (select 0 union all select i + 1 from n where i + 1 < ?)
    insert into metrics (key, value, timestamp, run_uuid, step, is_nan)
    select 'loss', random() / 9e18, began + i, id, i, 0 from made cross join n
''', (metrics,))
base.execute('''
    insert into latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
    select key, value, timestamp, step, is_nan, run_uuid from metrics
    where step = ? - 1 and key = 'loss' and run_uuid in (select id from made)
''', (metrics,))
base.execute('''
    insert into params (key, value, run_uuid)
    select p.key, hex(randomblob(8)), id from made,
           (select 'rate' key union select 'depth' union select 'seed') p
''')
base.execute('''
    insert into tags (key, value, run_uuid)
    select t.key, t.value, id from made,
           (select 'mlflow.user' key, 'somebody' value union select 'mlflow.source.type', 'LOCAL'
            union select 'mlflow.source.name', '/home/somebody/train.py') t
''')
base.commit()
base.execute("pragma wal_checkpoint(truncate)").fetchall()
"""


if __name__ == "__main__":
    main(*sys.argv[1:])
