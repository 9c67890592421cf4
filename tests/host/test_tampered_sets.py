"""Whatever comes out of the bucket is data: a set that backup did not write so is one line."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
import json
import os
import re
import subprocess
import tarfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from host_side import KEY, OTHER_KEY, place_in, signed, vouching
from store_side import Store

from tasks.engine import backup_keys
from tasks.engine import backups as laptop
from tasks.laptop import downloads

PLACE = "mlflow-backups/default/"
LINE = re.compile(r"@fail The backup [0-9TZ]+-[0-9a-f]{8}(-[0-9a-f]{6})? is damaged\b[ -~]*\n")
Manifest = dict[str, Any]


@pytest.fixture
def made(back_up: Any) -> str:
    """The id of a set that was made of the server's folder."""
    code, out = back_up()
    assert code == 0, out
    return json.loads(out.splitlines()[-1].removeprefix("@report "))["id"]


@pytest.fixture
def put(store: Store, made: str) -> Callable[[str, bytes], None]:
    """Put other bytes into the set."""

    def put(name: str, body: bytes) -> None:
        store.client().put_object(Bucket="my-bucket", Key=f"{PLACE}{made}/{name}", Body=body)

    return put


@pytest.fixture
def manifest(store: Store, made: str) -> Manifest:
    return json.loads(store.body(f"{PLACE}{made}/manifest.json"))


@pytest.fixture
def forge(put: Any, manifest: Manifest) -> Callable[[str, bytes], None]:
    """Put other bytes into the set, and have its manifest say so, which nobody vouches for."""

    def forge(name: str, body: bytes) -> None:
        for entry in manifest["files"]:
            if entry["name"].removesuffix(".enc") == name:
                entry |= {"name": name, "bytes": len(body)}
                entry["sha256"] = hashlib.sha256(body).hexdigest()
        put(name, body)
        unsigned = {key: value for key, value in manifest.items() if key != "signature"}
        put("manifest.json", json.dumps(unsigned).encode())

    return forge


@pytest.fixture
def restore(store: Store, root: Path, run_program: Any, made: str) -> Callable[..., str]:
    """Have the set refused although somebody agreed to one that nobody vouches for.

    Returns the line. Nothing may change outside the scratch folder.
    """

    def around() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes()
            for path in root.parent.rglob("*")
            if path.is_file() and not path.is_relative_to(root / "next.part")
            and not path.is_symlink() and ".aws" not in path.parts
        }  # fmt: skip

    def refused(id: str = made) -> str:
        before = around()
        request = {"place": place_in(store), "root": root, "folder": root / "next.part"}
        code, out = run_program("fetch_set.py", **request, id=id, unsigned=True)
        assert code == 1
        assert LINE.fullmatch(out), out
        assert around() == before
        return out

    return refused


@pytest.fixture
def listed(store: Store, run_program: Any) -> Callable[[], tuple[list[str], list[str]]]:
    """List the sets; returns the warnings and the ids."""

    def listed() -> tuple[list[str], list[str]]:
        code, out = run_program("list_sets.py", place=place_in(store))
        *warned, report = out.splitlines()
        assert code == 0
        return warned, [each["id"] for each in json.loads(report.removeprefix("@report "))["sets"]]

    return listed


def at(path: str, value: Any) -> Callable[[Manifest], None]:
    """Return what puts a value into a manifest; the path is written with slashes."""

    def change(told: Manifest) -> None:
        *way, last = [int(step) if step.isdigit() else step for step in path.split("|")]
        for step in way:
            told = told[step]  # type: ignore[index]
        told[last] = value  # type: ignore[index]

    return change


def nested(told: Manifest) -> None:
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    told["made"] = deep


BAD = [
    *(at("files|0|name", name) for name in (
        "/home/ubuntu/.ssh/authorized_keys2", "../mlflow.db", "..", "a/b.zst", "mlflow.db.zst\0",
        "mlflow.db.zst\n", "-x", "", "\x1b[31mred", "mlflow.db", "server.env", "\ud800", 7, None,
        ["mlflow.db.zst"], {}, "x" * 10**5,
    )),
    *(at("files|0|bytes", size) for size in (
        -1, 1.5, "9", True, None, 2**63, 10**400, [], float("inf"), float("nan"),
    )),
    *(at("files|0|sha256", digest) for digest in ("", "0" * 63, "G" * 64, "a" * 64 + "\n", 7)),
    *(at("files", files) for files in ({}, None, "x", [1], [None], [[]])),
    at("files|0|etag", 7),
    lambda told: told["files"].append(told["files"][0]),
    *(at("databases", seen) for seen in ({}, [], None, "x", {"mlflow.db": {}}, {"../x": {}})),
    lambda told: told["databases"].update({"/etc/passwd": {}}),
    *(at("databases|mlflow.db", seen) for seen in (None, [], 7)),
    *(at("databases|mlflow.db|kind", kind) for kind in ("mysql", None, [], {}, 7, "sqlite\n")),
    *(at("databases|mlflow.db|revision", it) for it in ("../x", None, [], "a b", "$(x)")),
    *(at("databases|mlflow.db|counts", it) for it in (
        [], 7, None, {"runs": "3"}, {"runs": -1}, {"runs": 2**70}, {"a\x1b[0m": 1}, {"a\nb": 1},
    )),
    *(at("databases|mlflow.db|newest_run", it) for it in ("x", 1.5, 2**64, [], True)),
    *(at("databases|mlflow.db|bytes", it) for it in (-1, 2**63, "x", None)),
    *(at("made", it) for it in (
        "", "today", "2026-13-01T00:00:00+00:00", "2026-01-01", 7, None, [],
        "2026-01-01T00:00:00+00:00\n@report {}", "2026-01-01T00:00:00",
    )),
    *(at("host", it) for it in ("a\x1b]0;x\x07", "a b", "[red]x", "", "a" * 300, None, 7, "a\n")),
    *(at("release", it) for it in ("../../x", "/x", "..", "", "a b", "$(x)", None, 7, "3-a\n")),
    *(at("version", it) for it in ("3; rm", "`x`", "", None, 7, "3.1\n")),
    *(at("server", it) for it in ("../x", "", None, 7, "aaaaaaaa\n", "AAAAAAAA")),
    lambda told: told.pop("made"),
    lambda told: told.pop("host"),
    lambda told: told.pop("release"),
    lambda told: told.pop("files"),
    lambda told: told.pop("databases"),
    nested,
    at("more", "x" * (1 << 20)),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD)))
def test_a_manifest_that_backup_did_not_write_so_is_refused(
    number, restore, listed, manifest, put, made
):
    BAD[number](manifest)
    put("manifest.json", json.dumps(manifest).encode())
    restore()
    warned, ids = listed()
    assert (len(warned), ids) == (1, [])
    assert warned[0].startswith(f"@warn The backup {made} is damaged, and left alone: its manifest")
    assert warned[0].isprintable()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b"\xff\xfe",
        b"[" * 10**5,
        b'{"made": ' + b"9" * 10**4 + b"}",
    ],
)
def test_what_is_no_manifest_is_refused(restore, listed, put, body):
    put("manifest.json", body)
    restore()
    assert len(listed()[0]) == 1


@pytest.mark.parametrize("name", ["mlflow.db.zst", "configuration.tar.gz"])
def test_a_set_that_lacks_a_part_is_refused(restore, put, manifest, made, name):
    left = [each for each in manifest["files"] if each["name"].removesuffix(".enc") != name]
    put("manifest.json", signed(manifest | {"files": left}, made))
    assert "it holds no " in restore()


@pytest.mark.parametrize("name", ["..", "2..", "20260101T000000Z-", "20260101T000000Z-a\x1b[31m",
                                  "20260101T000000Z-../../x", "20260101T000000Z-" + "a" * 99,
                                  "2026\x07@report {}", "20260101T000000Z--x"])  # fmt: skip
def test_a_folder_that_is_named_as_no_backup_is_left_out(listed, store, made, name):
    key = f"{PLACE}{name}/manifest.json"
    store.client().put_object(Bucket="my-bucket", Key=key, Body=b"{}")
    warned, ids = listed()
    assert ids == [made]
    assert len(warned) == (name[0] == "2")
    assert all(line.isprintable() for line in warned)


@pytest.mark.parametrize("at", ["2026-01-01T00:00:00+00:00\x1b[31m", 7, None, "x" * 10**6])
def test_a_note_that_backup_verify_did_not_leave_counts_as_none(listed, put, made, at):
    put("verified.json", json.dumps({"at": at}).encode())
    warned, ids = listed()
    assert (len(warned), ids) == (1, [made])


@pytest.mark.parametrize(
    ("kinds", "names", "lacking"),
    [
        (("sqlite", "sqlite"), "mlflow.db.zst basic_auth.db.zst", None),
        ((None, None), "mlflow.db.gz basic_auth.db.gz", None),
        (("postgresql", "postgresql"), "mlflow.dump basic_auth.dump", None),
        (("postgresql", "sqlite"), "mlflow.dump basic_auth.db.zst", None),
        (("sqlite", "sqlite"), "mlflow.dump basic_auth.db.zst", "mlflow.db"),
        (("postgresql", "postgresql"), "mlflow.dump basic_auth.db.zst", "basic_auth.db"),
    ],
)
def test_sets_of_all_kinds_are_whole(kinds, names, lacking, manifest):
    """PostgreSQL's, and those of the first kind, name their files otherwise."""
    shapes = importlib.import_module("shapes")
    for name, kind in zip(("mlflow.db", "basic_auth.db"), kinds, strict=True):
        del manifest["databases"][name]["kind"]
        manifest["databases"][name] |= {"kind": kind} if kind else {}
    entry, every = manifest["files"][0], [*names.split(), "configuration.tar.gz"]
    manifest["files"] = [entry | {"name": name, "bytes": 9} for name in every]
    assert shapes.missing(shapes.manifest(json.dumps(manifest))) == lacking


# -- sizes -------------------------------------------------------------------------------------


def zeros(count: int) -> bytes:
    return subprocess.run(["zstd", "-q"], input=bytes(count), capture_output=True).stdout


def test_what_is_longer_than_was_sent_is_taken_no_further(restore, manifest, root, monkeypatch):
    sizes = {entry["name"]: entry["bytes"] for entry in manifest["files"]}
    endless: dict[str, int] = {}

    def opened(self: Any, id: str, name: str) -> Any:
        def read(size: int) -> bytes:
            endless[name] = endless.get(name, 0) + size
            return bytes(size)

        return {"Body": types.SimpleNamespace(read=read)}

    monkeypatch.setattr(importlib.import_module("sets").Sets, "opened", opened)
    assert " is not what was sent" in restore()
    ((name, taken),) = endless.items()
    assert taken == sizes[name] + 1
    assert not list((root / "next.part").iterdir())


def test_a_bomb_is_stopped(restore, forge, root):
    forge("mlflow.db.zst", zeros(200 << 20))
    assert "becomes larger than" in restore()
    assert not (root / "next.part/mlflow.db").exists()


def test_a_bomb_of_the_first_kind_stops_at_the_room_that_there_is(
    restore, forge, manifest, root, monkeypatch
):
    manifest["databases"]["mlflow.db"] = {"revisions": ["r1"], "count": 3}
    for entry in manifest["files"]:
        entry["name"] = entry["name"].replace("mlflow.db.zst", "mlflow.db.gz")
    room = types.SimpleNamespace(free=110e6)
    monkeypatch.setattr("shutil.disk_usage", lambda path: room)
    forge("mlflow.db.gz", gzip.compress(bytes(30 << 20), 9))
    assert "becomes larger than 10000000 bytes" in restore()


# -- configuration -----------------------------------------------------------------------------


def archive(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as made:
        for name, body in members:
            entry = tarfile.TarInfo(name)
            entry.size, entry.type, entry.linkname = size or len(body), kind, "/etc/shadow"
            made.addfile(entry, io.BytesIO(body) if entry.isreg() else None)
    return packed.getvalue()


KEPT = ("server.env", b"MLFLOW_FLASK_SERVER_SECRET_KEY=abc\n")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"no archive", archive(KEPT)[:40], gzip.compress(b"no tar" * 999),
        *(archive(KEPT, (name, b"x")) for name in (
            "/root/.ssh/authorized_keys", "../x", "x", "server.env/", "a\nb", "\x1b[31m",
        )),
        *(archive(("server.env", b""), kind=kind) for kind in (
            tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE,
        )),
        archive(("server.env", bytes(2 << 20))),
        archive(("server.env", b"\xff\xfe")),
        gzip.compress(bytes(100 << 20), 9),
        archive(KEPT, (".server-id", b"../../x")),
        archive(KEPT, (".server-id", b"")),
        archive(KEPT, (".server-id", b"aaaaaaaa\naaaaaaaa\n")),
        archive(KEPT, (".server-id", b"$(touch x)")),
    ],
    ids=lambda body: "archive",
)  # fmt: skip
def test_an_archive_that_backup_did_not_make_so_is_refused(restore, forge, body, root):
    forge("configuration.tar.gz", body)
    restore()
    assert not (root / "next.part/server.env").exists()


@pytest.mark.parametrize(
    "text",
    [
        "{}$(touch /tmp/x)\n", "{}`touch x`\n", "{}abc;touch x\n", "{}abc touch x\n", "{}abc&x\n",
        "{}'a b'\n", "{}\"$(x)\"\n", "{}abc\ntouch x\n", "{}abc\n$(touch x)\n", "{}abc\n. /x\n",
        "{}abc\nX=$(touch x)\n", "{}abc\nX=a;b\n", "{}abc\n{}def\n", "{}abc\nX='a\nb'\n", "{}\n",
        "{}~\n", "{}a\\\nb\n", "{}abc\r\n", "{}abc\0\n", "{}*\n", "{}<(x)\n", "{}a|b\n", "{}a>b\n",
        "{}" + "a" * 999 + "\n", "{}abc\nX=\x1b[31m\n", "{}abc\nPATH=/x touch x\n",
        "{}abc\nX=\"a`b`\"\n",
    ],
)  # fmt: skip
def test_a_server_env_that_bash_would_run_is_refused(restore, forge, text, root):
    key = "MLFLOW_FLASK_SERVER_SECRET_KEY="
    forge("configuration.tar.gz", archive(("server.env", text.replace("{}", key).encode())))
    assert "server.env" in restore()
    assert not (root / "next.part/server.env").exists()


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("# Made once and never rewritten.\nKEY=" + "0f" * 32 + "\n", "0f" * 32),
        ("KEY=" + "0f" * 16, "0f" * 16),
        ("export KEY='by-hand_1'\n", "by-hand_1"),
        ('KEY="c2VjcmV0+/=="\nOTHER=1\nX="a b"\n\n', "c2VjcmV0+/=="),
        ("KEY=abc\nMLFLOW_BACKEND_STORE_URI='postgresql+psycopg2://u@h/d?sslmode=require&x=%2F'\n"
         "AUTH_STORE_URI='postgresql+psycopg2://u@h/d_auth'\nPGPASSFILE='/home/u/x/.pgpass'\n",
         "abc"),
        ("OTHER=1\n", "mine"),
    ],
)  # fmt: skip
def test_a_key_that_was_written_once_comes_back(forge, store, root, run_program, made, lines, key):
    name = "MLFLOW_FLASK_SERVER_SECRET_KEY"
    (root / "server.env").write_text(f"{name}=mine\nHERE=1\n")
    text = re.sub(r"\bKEY=", f"{name}=", lines)
    forge("configuration.tar.gz", archive(("server.env", text.encode())))
    request = {"place": place_in(store), "root": root, "folder": root / "next.part"}
    code, out = run_program("fetch_set.py", **request, id=made, unsigned=True)
    assert code == 0, out
    laid = root / "next.part/server.env"
    if key != "mine":
        assert laid.read_text() == f"{name}={key}\nHERE=1\n"
        ran = ["bash", "-c", f'. "$0"; printf %s "${name}"', laid]
        assert subprocess.run(ran, capture_output=True, text=True).stdout == key
    else:
        assert not laid.exists()


# -- who vouches for it ------------------------------------------------------------------------

NEWER = "20990101T000000Z-aaaaaaaa"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def fetch(store: Store, root: Path, run_program: Any, back_up: Any) -> Run:
    """Bring a set as a restore does that nobody agreed to anything for."""

    def fetch(id: str = "", **more: Any) -> tuple[int, str]:
        request = {"place": place_in(store), "root": root, "folder": root / "next.part"}
        return run_program("fetch_set.py", **request, id=id, **more)

    return fetch


def copied(store: Store, id: str, to: str, manifest: bytes | None = None) -> None:
    """Copy a set to another id, with its own manifest or another one."""
    client = store.client()
    for key in store.listing():
        if key.startswith(f"{PLACE}{id}/"):
            name = key.rpartition("/")[2]
            body = manifest if manifest and name == "manifest.json" else store.body(key)
            client.put_object(Bucket="my-bucket", Key=f"{PLACE}{to}/{name}", Body=body)


def test_an_older_set_is_not_replayed_under_a_newer_id(restore, listed, store, made):
    copied(store, made, NEWER)
    assert restore(NEWER).endswith(f"its manifest.json is that of {made}.\n")
    assert listed()[1] == [made]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"host": "elsewhere"}, "was not signed by the key that it names"),
        ({"made": "2099-01-01T00:00:00+00:00"}, "was not signed by the key that it names"),
        ({"signature": "0" * 64}, "was not signed by the key that it names"),
        ({"environment": "staging"}, "is that of another environment"),
    ],
)
def test_a_manifest_that_was_changed_is_refused_with_or_without_consent(
    restore, fetch, put, manifest, made, values, said
):
    put("manifest.json", json.dumps(manifest | values).encode())
    assert said in restore()
    assert said in fetch(made)[1]


def test_a_manifest_without_its_id_is_refused(restore, put, manifest):
    key = vouching().Key(KEY)
    told = {name: manifest[name] for name in manifest if name not in ("id", "key", "signature")}
    put("manifest.json", json.dumps(key.signed("manifest", told)).encode())
    assert "lacks `id`" in restore()


def test_the_manifest_of_another_server_is_refused(restore, store, put, made, back_up, root):
    (root / ".server-id").write_text("bbbbbbbb\n")
    other = json.loads(back_up()[1].splitlines()[-1].removeprefix("@report "))["id"]
    put("manifest.json", store.body(f"{PLACE}{other}/manifest.json"))
    assert f"is that of {other}" in restore()


def test_what_another_key_signed_needs_consent(fetch, put, manifest, made):
    put("manifest.json", signed(manifest, made, OTHER_KEY))
    code, out = fetch(made)
    assert code == 1
    assert "was signed by the backup key " + vouching().Key(OTHER_KEY).id in out
    assert out.endswith(f"./fab restore --id {made} --unsigned\n")
    code, out = fetch(made, unsigned=True)
    assert code == 0, "its secrets are lost, its runs are not"
    assert "@warn without the backup key" in out


def test_a_key_that_is_brought_along_vouches_and_opens(fetch, store, made, root, monkeypatch):
    """A new host that has a key of its own restores what the lost one made."""
    (root.parent / "new.key").write_text(OTHER_KEY)
    monkeypatch.setenv("REMOTE_MLFLOW_BACKUP_KEY_FILE", str(root.parent / "new.key"))
    (root / "server.env").write_text("MLFLOW_FLASK_SERVER_SECRET_KEY=mine\n")
    assert fetch(made)[0] == 1
    assert fetch(made, key=KEY)[0] == 0
    laid = (root / "next.part/server.env").read_text()
    assert laid == "MLFLOW_FLASK_SERVER_SECRET_KEY=abc\n"


def test_without_the_key_a_set_is_restored_with_this_host_s_own_secrets(
    fetch, made, root, monkeypatch
):
    monkeypatch.delenv("REMOTE_MLFLOW_BACKUP_KEY_FILE")
    (root / ".server-id").write_text("cccccccc\n")
    code, out = fetch(made, unsigned=True)
    assert code == 0
    assert "secrets of webhooks that another server made have to be given again" in out
    assert not (root / "next.part/server.env").exists(), "the host's own stays"
    assert (root / "next.part/.server-id").read_text().strip() == made.split("-")[1]


def test_without_an_id_it_is_the_newest_that_is_vouched_for(fetch, store, made, manifest, put):
    unsigned = {name: manifest[name] for name in manifest if name not in ("id", "signature")}
    unsigned["made"] = "2099-01-01T00:00:00+00:00"
    copied(store, made, NEWER, json.dumps(unsigned).encode())
    code, out = fetch()
    assert code == 0
    assert json.loads(out.splitlines()[-1].removeprefix("@report "))["id"] == made


def test_a_configuration_of_another_set_is_refused(restore, store, made, back_up, put):
    other = json.loads(back_up()[1].splitlines()[-1].removeprefix("@report "))["id"]
    body = store.body(f"{PLACE}{other}/configuration.tar.gz.enc")
    told = json.loads(store.body(f"{PLACE}{made}/manifest.json"))
    for entry in told["files"]:
        if entry["name"] == "configuration.tar.gz.enc":
            entry |= {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    put("configuration.tar.gz.enc", body)
    # Who has no key cannot sign it; who has one shall not mix them up either.
    put("manifest.json", signed(told, made))
    assert "was not encrypted for this backup" in restore()


@pytest.mark.parametrize("body", [b"", b"x" * 11, b"x" * 200])
def test_what_is_not_encrypted_by_the_key_is_refused(restore, made, put, manifest, body):
    for entry in manifest["files"]:
        if entry["name"] == "configuration.tar.gz.enc":
            entry |= {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    put("configuration.tar.gz.enc", body)
    put("manifest.json", signed(manifest, made))
    assert "was not encrypted for this backup" in restore()


def test_a_note_of_a_verification_that_nobody_vouches_for_counts_as_none(
    store, made, put, run_program, back_up
):
    other = json.loads(back_up()[1].splitlines()[-1].removeprefix("@report "))["id"]
    sets, talk = importlib.import_module("sets"), importlib.import_module("talk")
    backups = sets.Sets(talk.Place(**place_in(store)))
    at = {"at": "2026-11-24T00:00:00+00:00"}
    digests = {each["id"]: each["digest"] for each in backups.complete()}

    def verified() -> bool:
        return (
            next(each for each in backups.complete() if each["id"] == made)["verified"] is not None
        )

    backups.note(made, digests[made], at)
    assert verified()
    note = json.loads(store.body(f"{PLACE}{made}/verified.json"))
    put("verified.json", json.dumps(note | {"at": "2027-01-01T00:00:00+00:00"}).encode())
    assert not verified(), "changed"
    told = at | {"id": made, "of": digests[made]}
    put("verified.json", json.dumps(vouching().Key(OTHER_KEY).signed("note", told)).encode())
    assert not verified(), "by another key"
    put("verified.json", json.dumps(vouching().Key(KEY).signed("manifest", told)).encode())
    assert not verified(), "by what signs manifests"
    backups.note(other, digests[other], at)
    put("verified.json", store.body(f"{PLACE}{other}/verified.json"))
    assert not verified(), "of another set"


def test_a_key_derives_another_one_for_each_purpose_as_rfc_5869_does():
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    made = {
        purpose: HKDF(SHA256(), 32, None, f"remote-mlflow backup {purpose}".encode()).derive(
            bytes.fromhex(KEY)
        )
        for purpose in ("manifest", "note", "configuration")
    }
    assert {purpose: vouching().Key(KEY)._derived(purpose) for purpose in made} == made
    assert len(set(made.values())) == 3


# -- what is sent to the laptop, and what a line is ----------------------------------------------


def test_a_file_of_another_size_is_not_sent_to_the_laptop(
    store, made, put, run_program, monkeypatch
):
    put("mlflow.db.zst", b"longer or shorter")
    opened = os.fdopen

    def nowhere(number: int, *how: Any, **more: Any) -> Any:
        # This process's own 3 is what pytest's leader speaks to it through.
        return io.BytesIO() if number == 3 else opened(number, *how, **more)

    monkeypatch.setattr("os.fdopen", nowhere)
    code, out = run_program("send_set.py", place=place_in(store), id=made)
    assert code == 1
    assert "mlflow.db.zst has 17 bytes, which is not what was sent" in out


@pytest.mark.parametrize("id", ["20261122T214724Z-926c1729-5e0c2b", "20261122T214724Z-926c1729"])
def test_a_set_of_now_and_one_of_before_tell_their_server(made, id):
    shapes = importlib.import_module("shapes")
    assert shapes.ID.fullmatch(id)
    assert shapes.server_of(id) == "926c1729"


def test_the_laptop_knows_the_same_shapes(made, run_program):
    shapes = importlib.import_module("shapes")
    assert vouching().KEY.pattern == backup_keys.KEY.pattern
    assert laptop.ID.pattern == shapes.ID.pattern
    assert downloads.FILES == shapes.NAMES
    assert shapes.LARGEST == downloads.LARGEST
    assert laptop.is_backup(made)


def test_a_line_for_people_stays_one(capsys, monkeypatch):
    talk = importlib.import_module("talk")
    talk.warn("a\n@report {}\x1b[31m\ud800é")
    assert capsys.readouterr().out == "@warn a @report {} [31m é\n"
