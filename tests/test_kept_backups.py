"""The backups as the operator sees them, and one that is brought to this machine."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fabric import Config
from host_side import KEY, OTHER_KEY, signed
from invoke import Exit
from stand_ins import SETTINGS, Client, Network, Reply, Session, Task, context, deployed, request

from tasks.backup import download, list_, prune, show, verify
from tasks.engine.connection import Connection
from tasks.engine.server import Server
from tasks.engine.settings import Settings
from tasks.laptop.downloads import unpack
from tasks.restore import restore

ID = "20261122T214724Z-926c1729"
SET = {
    "id": ID, "place": f"s3://b/{ID}/", "made": "2026-11-22T21:47:24.5+00:00",
    "made_on": "old-host", "version": "3.17.2", "bytes": 3_200_000, "runs": 12, "users": 3,
    "verified": "2026-11-23T01:02:03.4+00:00", "signed": "yes", "key": "1a2b3c4d",
}  # fmt: skip
SEEN: dict[str, Any] = {"sets": [SET], "incomplete": [], "now": "2026-11-22T23:47:25+00:00"}


def asked(seen: dict[str, Any], **values: Any) -> Any:
    c = context(deployed(**values))
    c.recorder.replies = [Reply(f"@report {json.dumps(seen)}\n@exit 0\n")]
    return c


# -- list --------------------------------------------------------------------------------------


def test_a_list_is_one_look(capsys):
    c = asked(SEEN)
    (row,) = list_(c)
    assert row == {**SET, "age_seconds": 7200}
    (run,) = c.recorder.runs
    assert {"look.sh", "list_sets.py", "sets.py"} <= set(run.files)
    show({"ec2": [row]})
    said = capsys.readouterr().out.split()
    assert said[-13:] == [
        "ec2", ID, "2", "h", "3.1", "MB", "3.17.2", "12", "3", "old-host", "2026-11-23", "01:02",
        "yes",
    ]  # fmt: skip


def test_no_backup_is_an_empty_list_and_a_line_in_the_table(capsys):
    assert list_(asked(SEEN | {"sets": []})) == []
    show({"ec2": []})
    assert "none yet" in capsys.readouterr().out


def test_what_cut_off_backups_left_is_named_on_one_line(capsys):
    list_(asked(SEEN | {"incomplete": ["20261101T000000Z-a", "20261102T000000Z-a"]}), json=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "never finished, and no backups: 20261101T000000Z-a, 20261102T000000Z-a\n"


def test_a_host_without_a_server_is_told_so_in_the_same_exec():
    c = asked(SEEN)
    list_(c)
    assert "fail 'There is no server on ec2 yet" in c.recorder.runs[0].steps


# -- prune -------------------------------------------------------------------------------------

PRUNED = {
    "kept": 5, "pruned": [ID], "bytes": 3_000_000, "incomplete": ["x"], "damaged": [],
    "unsigned": 0,
}  # fmt: skip


def test_without_yes_pruning_only_says_what_would_go(capsys):
    c = asked(PRUNED)
    prune(c)
    (run,) = c.recorder.runs
    assert "look.sh" in run.files
    assert request(run.files, "prune_sets.py")["how"] == "look"
    out = capsys.readouterr().out
    assert ID in out
    assert "x (never finished)" in out
    assert "would delete 2 of 7 (2.9 MB)" in out
    assert "./fab -H ec2 backup.prune --yes" in out


def test_with_yes_it_is_done_under_the_lock(capsys):
    c = asked(PRUNED)
    prune(c, yes=True)
    (run,) = c.recorder.runs
    assert "change.sh" in run.files
    assert request(run.files, "prune_sets.py")["how"] == "delete"
    assert "✓ deleted 2 of 7" in capsys.readouterr().out


def test_the_settings_say_how_many_stay():
    c = asked(PRUNED)
    prune(c)
    keep = {"hourly": 24, "daily": 7, "weekly": 5, "monthly": 12}
    assert request(c.recorder.runs[0].files, "prune_sets.py")["keep"] == keep


def test_where_a_name_is_wanted_it_is_asked_for_although_yes_is_given(terminal):
    terminal.append("y")
    c = context(deployed(), Settings(environment="production", confirm="name"))
    with pytest.raises(Exit, match=r"Nothing was deleted\."):
        prune(c, yes=True)
    assert c.recorder.runs == []


def test_nothing_to_prune_is_one_line(capsys):
    prune(asked(PRUNED | {"pruned": [], "incomplete": [], "damaged": ["bad"]}))
    out, err = capsys.readouterr()
    assert out == "backup.prune: nothing to delete; 5 backups kept\n"
    assert "left alone: bad" in err


# -- download ----------------------------------------------------------------------------------

FILES = {"mlflow.db.zst": b"\x00\xff\n" * 100_000, "configuration.tar.gz": b"secret"}


def manifest(files: dict[str, bytes] = FILES, **wrong: str) -> bytes:
    entries = [
        {"name": name, "bytes": len(body),
         "sha256": wrong.get("sha256", hashlib.sha256(body).hexdigest())}
        for name, body in files.items()
    ]  # fmt: skip
    return json.dumps({"files": entries}).encode()


def packed(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        for name, body in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    return stream.getvalue()


def sent(**changed: bytes) -> bytes:
    members = {"manifest.json": manifest(), **FILES} | changed
    return packed({f"{ID}/{name}": body for name, body in members.items()})


@pytest.fixture
def host(network: Network) -> Callable[..., Any]:
    """A task's context on a host that sends these bytes, and says these lines beside them."""

    def connected(body: bytes, said: bytes = b"@exit 0\n") -> Any:
        def answer(session: Session) -> int:
            session.stdin()
            session.channel.sendall(body)
            session.channel.sendall_stderr(said)
            return 0

        network.add("ec2", answer)
        connection = Connection(network.target("ec2"), Config())
        return Task(Server(connection, SETTINGS, Client()))

    return connected


def test_a_download_is_whole_and_for_its_owner_alone(host, tmp_path, capsys):
    c = host(sent())
    download(c, to=str(tmp_path))
    folder = tmp_path / ID
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        "manifest.json": manifest(), **FILES,
    }  # fmt: skip
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    assert [entry.name for entry in tmp_path.iterdir() if ID[:4] in entry.name] == [ID]
    out, err = capsys.readouterr()
    assert f"every file as it was sent: {folder}" in out
    assert "it holds secrets" in err
    assert c.server.execs == 1


VOUCHED = signed(json.loads(manifest()), ID)


def test_a_download_that_is_vouched_for_says_nothing_more(host, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("REMOTE_MLFLOW_BACKUP_KEY", KEY)
    download(host(sent(**{"manifest.json": VOUCHED})), to=str(tmp_path))
    assert "vouches" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("", manifest(), "nobody vouches for it"),
        ("", VOUCHED, "whether it is genuine was not checked here"),
        (OTHER_KEY, VOUCHED, "whether it is genuine was not checked here"),
    ],
)
def test_a_download_that_nobody_here_vouches_for_says_so(
    host, tmp_path, capsys, monkeypatch, key, text, said
):
    monkeypatch.setenv("REMOTE_MLFLOW_BACKUP_KEY", key)
    download(host(sent(**{"manifest.json": text})), to=str(tmp_path))
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"made": "later"}, "was not signed by the key that it names"),
        ({"id": "20261122T214724Z-aaaaaaaa"}, "its manifest.json is that of another"),
    ],
)
def test_a_forged_download_leaves_nothing(host, tmp_path, monkeypatch, changed, said):
    monkeypatch.setenv("REMOTE_MLFLOW_BACKUP_KEY", KEY)
    text = json.dumps(json.loads(VOUCHED) | changed).encode()
    with pytest.raises(Exit, match=said):
        download(host(sent(**{"manifest.json": text})), to=str(tmp_path))
    assert not (tmp_path / ID).exists()
    assert [file for file in tmp_path.iterdir() if file.name.startswith(".backup-")] == []


@pytest.mark.parametrize(
    ("body", "said", "reason"),
    [
        (sent(**{"mlflow.db.zst": b"\x00\xff\r" * 100_000}), b"@exit 0\n", "is not what was sent"),
        (sent()[:200_000], b"@fail The bucket refuses it\n@exit 1\n", "The bucket refuses it"),
        (sent()[:200_000], b"", "was cut short"),
        (b"", b"@fail There is no complete backup\n@exit 1\n", "There is no complete backup"),
        (packed({f"{ID}/manifest.json": manifest()}), b"@fail x is missing\n@exit 1\n",
         "x is missing"),
        (sent(), b"@exit 1\n", "failed"),
        (packed({"../manifest.json": b"{}"}), b"@exit 0\n", "is no backup's manifest"),
        *((packed({f"{ID}/manifest.json": text}), b"@exit 0\n", "its manifest.json is not what")
          for text in (
            *(manifest({name: b""}) for name in ("../x", "/etc/x", "..", "x", "mlflow.db\n", "\0")),
            manifest(sha256="x"), b"{", b"[]", b"{}", b'{"files": [7]}', b'{"files": 7}',
            b"[" * 50_000,
            manifest().replace(b'"bytes": 6', b'"bytes": -6'),
            manifest().replace(b'"bytes": 6', b'"bytes": "6"'),
            manifest().replace(b'"mlflow.db.zst"', b'"configuration.tar.gz"'),
          )),
        (packed({f"{ID}/manifest.json": bytes(2 << 20)}), b"@exit 0\n", "is no backup's manifest"),
        (packed({"20261122T214724Z-a\n/manifest.json": manifest()}), b"@exit 0\n",
         "is no backup's manifest"),
        (sent(**{"mlflow.db.zst": bytes(400_000)}), b"@exit 0\n", "which its manifest does not"),
        (packed({f"{ID}/manifest.json": manifest(), f"{ID}/other": b""}), b"@exit 0\n",
         "holds .*other"),
    ],
)  # fmt: skip
def test_what_is_not_whole_leaves_nothing(host, tmp_path, body, said, reason):
    folder = tmp_path / "to"
    folder.mkdir()
    with pytest.raises(Exit, match=reason):
        download(host(body, said), to=str(folder))
    assert list(folder.iterdir()) == []


def test_a_connection_that_breaks_at_once_is_no_fault_of_the_folder(host, tmp_path, monkeypatch):
    c = host(b"")
    c.server.connection.open()

    def broken(channel: Any, data: bytes) -> None:
        raise OSError("Socket is closed")  # as paramiko says it

    monkeypatch.setattr("paramiko.Channel.sendall", broken)
    with pytest.raises(Exit, match="The connection to ec2 was lost"):
        download(c, to=str(tmp_path))


def test_a_backup_that_is_there_already_is_left_alone(host, tmp_path):
    (tmp_path / ID).mkdir()
    with pytest.raises(Exit, match="is there already"):
        download(host(sent()), to=str(tmp_path))
    assert list((tmp_path / ID).iterdir()) == []


def test_a_folder_that_is_not_there_is_made(host, tmp_path):
    download(host(sent()), to=str(tmp_path / "not/there/yet"))
    assert (tmp_path / "not/there/yet" / ID / "manifest.json").is_file()


def test_a_folder_that_cannot_be_made_is_named_before_any_connection(tmp_path):
    (tmp_path / "a-file").touch()
    c = context(deployed())
    with pytest.raises(Exit, match=r"a-file does not take it: File exists.*another --to"):
        download(c, to=str(tmp_path / "a-file"))
    assert c.recorder.opened == 0


def test_a_full_disk_is_said_before_anything_comes(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 5}))
    with pytest.raises(Exit, match="are free here"):
        unpack(io.BytesIO(sent()), tmp_path)
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize(
    "id", ["../x", "..", "/etc", "x", f"{ID}\n", f"{ID}/x", f"-{ID}", "\x1b[31m"]
)
@pytest.mark.parametrize("task", [download, verify, restore])
def test_an_id_that_no_backup_has_is_refused_before_any_connection(task, id):
    saying = r"is not a backup's ID.*See them all: \./fab backup\.list"
    with pytest.raises(Exit, match=saying) as refused:
        task.options(id=id)
    assert str(refused.value).isprintable()
    task.options(id=ID)
    task.options()
