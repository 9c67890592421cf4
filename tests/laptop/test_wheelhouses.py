"""A wheelhouse is what the locks name, whole, for one host; and only what lacks there is sent."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from invoke import Exit
from stand_ins import Reply, blank, context

from tasks.engine.locks import Target
from tasks.engine.templates import source
from tasks.laptop import wheelhouses
from tasks.laptop.wheelhouses import Wheelhouse, fetch, read, refuse_other, send

HOST = Target("3.12", "x86_64")
FILES = {"a-1-py3-none-any.whl": b"one", "b-2-py3-none-any.whl": b"two"}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


LOCK = "".join(
    f"{name.split('-')[0]}=={name.split('-')[1]} \\\n    --hash=sha256:{digest(content)}\n"
    for name, content in FILES.items()
)


@pytest.fixture
def pip(monkeypatch):
    """A pip that lays down what it is told, and notes how it is called."""
    told = SimpleNamespace(files=FILES, calls=[], locks=[], code=0, said="")

    def run(words, **options):
        told.calls.append(words)
        told.locks.append(Path(words[words.index("--requirement") + 1]).read_text())
        for name, content in told.files.items():
            Path(words[words.index("--dest") + 1], name).write_bytes(content)
        return SimpleNamespace(returncode=told.code, stderr=told.said)

    monkeypatch.setattr(wheelhouses, "subprocess", SimpleNamespace(run=run))
    return told


@pytest.fixture
def made(pip, tmp_path):
    return fetch(Wheelhouse(tmp_path / "w", "3.17.2-aa", HOST, {}), [LOCK])


def test_files_are_fetched_for_the_host_and_by_hash(pip, made):
    words = " ".join(pip.calls[0])
    assert "--require-hashes --only-binary :all:" in words
    assert "--python-version 3.12 --platform manylinux_2_35_x86_64 " in words
    assert "aarch64" not in words
    assert pip.locks == [LOCK]


def test_what_was_made_is_read_again(made):
    assert read(made.folder) == made
    assert made.digests == {name: digest(content) for name, content in FILES.items()}
    refuse_other(made, "3.17.2-aa", [LOCK])


def test_other_wheels_in_the_folder_go_and_other_files_stay(pip, made):
    (made.folder / "c-3-py3-none-any.whl").write_bytes(b"old")
    (made.folder / "notes").touch()
    assert fetch(made, [LOCK]).digests.keys() == FILES.keys()
    assert {path.name for path in made.folder.iterdir()} == {*FILES, "manifest.json", "notes"}


def test_a_package_that_cannot_be_had_leaves_no_wheelhouse(pip, made):
    pip.code, pip.said = 1, "noise\nERROR: No matching distribution found for b==2\n"
    with pytest.raises(Exit, match="cannot be fetched: No matching distribution found for b==2"):
        fetch(made, [LOCK])
    with pytest.raises(Exit, match=r"no whole wheelhouse in .*Make one: \./fab wheelhouse --to "):
        read(made.folder)


def test_files_of_other_bytes_are_no_wheelhouse(pip, made):
    pip.files = {**FILES, "b-2-py3-none-any.whl": b"other"}
    with pytest.raises(Exit, match="lacks b==2"):
        fetch(made, [LOCK])


AGAIN = r"Make it anew: \./fab wheelhouse --to \S+ --python 3\.12 --platform x86_64$"


def test_a_file_that_is_not_there_is_named(made):
    (made.folder / "b-2-py3-none-any.whl").unlink()
    with pytest.raises(Exit, match=rf"lacks b-2-py3-none-any\.whl\. {AGAIN}"):
        read(made.folder)


def test_a_file_with_other_bytes_is_refused(made):
    (made.folder / "b-2-py3-none-any.whl").write_bytes(b"twp")
    with pytest.raises(Exit, match=rf"b-2-py3-none-any\.whl is not the file .*{AGAIN}"):
        read(made.folder)


def test_a_manifest_that_fits_other_bytes_is_refused_by_the_lock(made):
    other = replace(made, digests={**made.digests, "b-2-py3-none-any.whl": digest(b"twp")})
    with pytest.raises(Exit, match=rf"lacks b==2\. {AGAIN}"):
        refuse_other(other, "3.17.2-aa", [LOCK])
    more = replace(made, digests={**made.digests, "c-3-py3-none-any.whl": digest(b"more")})
    with pytest.raises(Exit, match=rf"c-3-py3-none-any\.whl is in no lock .*{AGAIN}"):
        refuse_other(more, "3.17.2-aa", [LOCK])


def test_another_release_s_is_refused(made):
    with pytest.raises(Exit, match=r"is for MLflow 3\.17\.2-aa, and the settings say 3\.18\.0-bb"):
        refuse_other(made, "3.18.0-bb", [LOCK])


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", '{"python": "3.12"}',
        '{"release": "x", "environment": null, "python": "3.12", "machine": "m", "files": []}',
    ],
)  # fmt: skip
def test_a_manifest_of_another_shape_is_no_wheelhouse(made, text):
    (made.folder / "manifest.json").write_text(text)
    with pytest.raises(Exit, match="There is no whole wheelhouse in"):
        read(made.folder)


def test_a_manifest_leads_out_of_its_folder_nowhere(made, tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    about = json.loads((made.folder / "manifest.json").read_text())
    about["files"] = {"../x": digest(b"x")}
    (made.folder / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(Exit, match=r"lacks \.\./x"):
        read(made.folder)


# -- sending -----------------------------------------------------------------------------------


def sent(run) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(run.stdin)) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive}


def test_only_what_the_host_lacks_is_sent(made):
    c = context(blank())
    c.recorder.replies = [Reply(f"{digest(b'one')}\n"), Reply("")]
    assert send(c.server, made) == 1
    look, take = c.recorder.runs
    assert look.stdin == b""
    sums = f"{digest(b'two')}  b-2-py3-none-any.whl\n".encode()
    assert sent(take) == {"b-2-py3-none-any.whl": b"two", "SHA256SUMS": sums}


def test_nothing_is_sent_to_a_host_that_has_all(made):
    c = context(blank())
    c.recorder.replies = [Reply("".join(f"{digest(content)}\n" for content in FILES.values()))]
    assert send(c.server, made) == 0
    assert len(c.recorder.runs) == 1


def test_large_ones_are_sent_in_portions(made, monkeypatch):
    monkeypatch.setattr(wheelhouses, "SENT", 4)
    c = context(blank())
    c.recorder.replies = [Reply(""), Reply(""), Reply("")]
    assert send(c.server, made) == 2
    assert [len(sent(run)) for run in c.recorder.runs[1:]] == [2, 2]


def test_a_host_that_got_other_bytes_says_so(made):
    c = context(blank())
    said = "a wheel is not what was sent. Run the same command again\n"
    c.recorder.replies = [Reply(""), Reply("", said, 1)]
    with pytest.raises(Exit, match="a wheel is not what was sent"):
        send(c.server, made)


# -- what runs on the host ---------------------------------------------------------------------


def take(home: Path, content: bytes) -> subprocess.CompletedProcess[bytes]:
    from tasks.engine.change import packed

    sums = f"{digest(b'two')}  b-2-py3-none-any.whl\n"
    return subprocess.run(
        ["bash", "-c", source("take_wheels.sh")],
        input=packed({"b-2-py3-none-any.whl": content, "SHA256SUMS": sums}),
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
    )


def test_the_host_names_a_file_once_it_is_what_was_sent(tmp_path):
    wheels = tmp_path / ".cache/remote-mlflow/wheels"
    assert take(tmp_path, b"twp").returncode == 1
    assert list(wheels.iterdir()) == []
    assert take(tmp_path, b"two").returncode == 0
    assert [path.name for path in wheels.iterdir()] == ["b-2-py3-none-any.whl"]
    assert [path.name for path in wheels.parent.iterdir()] == ["wheels"], "nothing half is left"
    there = subprocess.run(
        ["bash", "-c", source("list_wheels.sh")],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert there.stdout == digest(b"two") + "\n"
