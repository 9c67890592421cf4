"""Who may write to the bucket gets nothing on a host, and wears away nothing that is genuine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from lab import CHAIN, ROOT, Host, Lab

CANARY = "/home/ubuntu/canary"
NEWER = "20990101T000000Z-aaaaaaaa"


class Attacker:
    """Somebody who may write to the backups of a host, and has no key."""

    def __init__(self, host: Host) -> None:
        self.s3, self.bucket = host.lab.s3(), host.lab.bucket
        self.place = "mlflow-backups/default/"

    def names(self, id: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.place}{id}/")
        return [entry["Key"].rpartition("/")[2] for entry in found.get("Contents", ())]

    def read(self, id: str, name: str) -> bytes:
        key = f"{self.place}{id}/{name}"
        return bytes(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def write(self, id: str, name: str, body: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=f"{self.place}{id}/{name}", Body=body)

    def copy(self, id: str, to: str) -> None:
        for name in self.names(id):
            self.write(to, name, self.read(id, name))

    def change(self, id: str, **values: Any) -> None:
        manifest = json.loads(self.read(id, "manifest.json"))
        self.write(id, "manifest.json", json.dumps(manifest | values).encode())

    def unsign(self, id: str, **values: Any) -> dict[str, Any]:
        """Make it a set as there were before keys."""
        told = json.loads(self.read(id, "manifest.json"))
        told = {k: v for k, v in told.items() if k not in ("id", "key", "signature")} | values
        self.write(id, "manifest.json", json.dumps(told).encode())
        return told

    def delete(self, id: str) -> None:
        for name in self.names(id):
            self.s3.delete_object(Bucket=self.bucket, Key=f"{self.place}{id}/{name}")

    @contextmanager
    def forging(self, id: str) -> Iterator[None]:
        """Put a set back as it was, and take the forged newer one away."""
        former = {name: self.read(id, name) for name in self.names(id)}
        try:
            yield
        finally:
            self.delete(id)
            for name, body in former.items():
                self.write(id, name, body)
            self.delete(NEWER)


def backed_up(host: Host) -> str:
    return host.fab("backup").out.rpartition("default/")[2].split("/")[0]


def renamed(attacker: Attacker, id: str, name: str) -> None:
    files = json.loads(attacker.read(id, "manifest.json"))["files"]
    attacker.change(id, files=[files[0] | {"name": name}, *files[1:]])


def flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def flip(attacker: Attacker, id: str) -> None:
    attacker.write(id, "mlflow.db.zst", flipped(attacker.read(id, "mlflow.db.zst")))


FORGED: dict[str, Any] = {
    "absolute": lambda a, id: renamed(a, id, "/home/ubuntu/.ssh/authorized_keys2"),
    "above": lambda a, id: renamed(a, id, "../canary"),
    "line": lambda a, id: renamed(a, id, "mlflow.db.zst\n@report {}"),
    "nul": lambda a, id: renamed(a, id, "mlflow.db.zst\0"),
    "flipped": flip,
    "claimed": lambda a, id: a.change(id, host="elsewhere"),
    "configuration": lambda a, id: a.write(id, "configuration.tar.gz.enc", bytes(500)),
}


@pytest.mark.sampled
def test_forged_sets_are_one_line_and_touch_nothing(host: Host) -> None:
    id, attacker = backed_up(host), Attacker(host)
    pid = host.unit("mlflow-server", "MainPID")
    for name, forge in FORGED.items():
        with attacker.forging(id):
            forge(attacker, id)
            for words in (("backup.verify", "--id", id), ("restore", "--id", id, "--yes")):
                host.refused(*words, "--unsigned", because=(f"The backup {id} is damaged",))
            print(f"{name}: refused")
    assert host.run(f"ls {CANARY} /home/ubuntu/.ssh/authorized_keys2 2>&1 || true").count("No such")
    assert host.run(f"ls -A {ROOT}/backups; ls -d {ROOT}/next* 2>/dev/null || true") == ""
    assert host.unit("mlflow-server", "MainPID") == pid, "the server was left alone"
    host.healthy()


@pytest.mark.sampled
def test_a_set_that_nobody_vouches_for_needs_consent_and_a_replay_gets_none(host: Host) -> None:
    id, attacker = backed_up(host), Attacker(host)
    with attacker.forging(id):
        attacker.copy(id, NEWER)
        host.refused("restore", "--id", NEWER, "--yes", "--unsigned", because=(f"that of {id}",))
        told = attacker.unsign(NEWER, made="2099-01-01T00:00:00+00:00")
        # As the ones before there was a key: the newest that is signed is another one.
        done = host.fab("backup.verify")
        assert f"✓ {id} was restored" in done.out
        because = (f"Nobody vouches for the backup {NEWER}", "--unsigned")
        host.refused("restore", "--id", NEWER, "--yes", because=because)
        host.refused("backup.verify", "--id", NEWER, because=because)
        rows = {row["id"]: row for row in json.loads(host.fab("backup.list", "--json").out)}
        assert (rows[id]["signed"], rows[NEWER]["signed"]) == ("yes", "nobody")
        assert rows[id]["verified"], "that one was"
        files = [each for each in told["files"] if not each["name"].endswith(".enc")]
        body = host.run(f"tar -C {ROOT} -cz server.env .server-id | base64 -w0")
        import base64

        plain = base64.b64decode(body)
        files.append({"name": "configuration.tar.gz", "bytes": len(plain),
                      "sha256": hashlib.sha256(plain).hexdigest()})  # fmt: skip
        attacker.write(NEWER, "configuration.tar.gz", plain)
        attacker.write(NEWER, "manifest.json", json.dumps(told | {"files": files}).encode())
        done = host.fab("restore", "--id", NEWER, "--yes", "--unsigned")
        assert f"✓ restored {NEWER}" in done.out
        host.healthy()
        host.fab("rollback", "--yes")
        # The host knows its own last one.
        attacker.delete(id)
        assert f"the last backup that this host made, {id}" in host.fab("restore", code=1).err


# Litestream's files, each with the first of the same database's and of the other one's.
TAMPERED: dict[str, Any] = {
    "flipped": lambda body, _: flipped(body),
    "cut": lambda body, _: body[: len(body) // 2],
    "zeros": lambda body, _: bytes(len(body)),
    "the other database's": lambda _, others: others,
    "nothing": lambda *_: b"",
}


@pytest.mark.sampled
def test_tampered_streams_are_one_line_and_touch_nothing(host: Host) -> None:
    attacker = Attacker(host)
    host.fab("backup", "backup.stream", "on")
    host.fab("backup.stream", "off")
    pid = host.unit("mlflow-server", "MainPID")
    bodies = {name: attacker.read("stream", name) for name in streamed(attacker)}
    firsts = {base: next(bodies[name] for name in bodies if base in name) for base in BASES}
    for what, tamper in TAMPERED.items():
        for name, body in bodies.items():
            others = next(first for base, first in firsts.items() if base not in name)
            attacker.write("stream", name, tamper(body, others))
        done = host.refused("restore", "--at", "latest", "--yes", because=("./fab",))
        print(f"{what}: {done.last_line}")
        assert host.run(f"ls -A {ROOT}/backups; ls -d {ROOT}/next* 2>/dev/null || true") == ""
        assert host.unit("mlflow-server", "MainPID") == pid, "the server was left alone"
    for name, body in bodies.items():
        attacker.write("stream", name, body)
    host.fab("restore", "--at", "latest", "--yes", timeout=600)
    host.healthy()


BASES = ("/mlflow.db/", "/basic_auth.db/")


def streamed(attacker: Attacker) -> list[str]:
    """List the files of the stream that began last, below where all lie."""
    place = f"{attacker.place}stream/"
    pages = attacker.s3.get_paginator("list_objects_v2")
    found = [
        entry["Key"][len(place) :]
        for page in pages.paginate(Bucket=attacker.bucket, Prefix=place)
        for entry in page.get("Contents", ())
    ]
    newest = max(name.split("/")[0] for name in found)
    return [name for name in found if name.startswith(newest) and name.endswith(".ltx")]


@pytest.mark.costly
def test_a_new_host_gets_the_key_along_and_a_lost_key_costs_no_run(lab: Lab) -> None:
    with lab.blank() as first:
        first.variables["FABRIC_MLFLOW_BACKUP_PREFIX"] = "lost"
        first.fab(*CHAIN, "backup", timeout=600)
        (copy,) = (first.home / ".config/remote-mlflow").glob("*backup-key")
        secret = first.run(f"grep SECRET_KEY {ROOT}/server.env")
    with lab.blank() as second:
        second.variables |= first.variables
        second.fab(*CHAIN, "--yes", timeout=600)
        because = ("was signed by the backup key", "--unsigned")
        second.refused("restore", "--yes", because=because)
        done = second.fab("restore", "--yes", "--unsigned")
        assert "without the backup key" in done.err + done.out
        second.healthy()
        assert second.run(f"grep SECRET_KEY {ROOT}/server.env") != secret
        # Now the operator has the other host's key.
        there = second.home / ".config/remote-mlflow" / f"lost{copy.suffix}"
        there.write_text(copy.read_text())
        there.chmod(0o600)
        done = second.fab("restore", "--yes")
        assert "the host gets the backup key" in done.out + done.err
        assert second.run(f"grep SECRET_KEY {ROOT}/server.env") == secret
        assert second.run("cat /etc/mlflow-server/backup.key") == copy.read_text().strip()
        # Its id is the other's now, and so is the mark on the artifacts.
        second.fab("deploy", "--yes")
        assert "nothing to change" in second.fab("deploy").out
        (row,) = json.loads(second.fab("backup.list", "--json").out)
        assert row["signed"] == "yes"


@pytest.mark.costly
def test_backups_with_keys_and_a_bucket_of_their_own(lab: Lab) -> None:
    with lab.blank() as host:
        folder = host.home / ".aws"
        folder.mkdir(mode=0o700)
        keys = (f"{name.lower()} = {value}\n" for name, value in lab.keys.items())
        (folder / "credentials").write_text("[vault]\n" + "".join(keys))
        with lab.bucket_denying("s3:DeleteObject") as bucket:
            host.variables["FABRIC_MLFLOW_BACKUP_PROFILE"] = "vault"
            host.variables["FABRIC_MLFLOW_BACKUP_BUCKET"] = bucket
            host.variables["FABRIC_MLFLOW_BACKUP_PREFIX"] = "apart"
            done = host.fab(*CHAIN, timeout=600)
            assert f"prove access to s3://{bucket}/apart/default/" in done.out
            file = "/etc/mlflow-server/backup-aws/credentials"
            assert host.run(f"stat -c '%a %U' {file} /etc/mlflow-server") == "600 root\n700 root"
            assert f"s3://{bucket}/" in host.fab("backup").out
            host.fab("backup.verify")
            host.fab("backup.schedule", "--verify", "daily")
            host.run("systemctl start mlflow-server-backup.service")
            host.run("systemctl start mlflow-server-backup-verify.service")
            host.fab("backup.stream", "on")
            host.fab("backup.stream", "verify")
            assert lab.s3().list_objects_v2(Bucket=lab.bucket, Prefix="apart/")["KeyCount"] == 0
            host.fab("backup.stream", "off")
            host.fab("restore", "--yes")
            assert "nothing to change" in host.fab("configure").out
