"""Whose the prefix is: a mark in the bucket, asked about before it is taken from another server."""

from __future__ import annotations

import importlib
import json
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from host_side import HOST, place_in, program
from invoke import Exit
from stand_ins import SETTINGS, Reply, Task, configured, context, deployed, request
from store_side import Store

from tasks.changes import owner
from tasks.deploy import deploy
from tasks.engine.settings import Settings

OTHER = {"server": "0badcafe", "host": "ip-10-0-0-9", "since": "2026-01-02T03:04:05+00:00"}
KEY = "mlflow-artifacts/.remote-mlflow-owner.json"
HERE = socket.gethostname()


# -- the task ----------------------------------------------------------------------------------


def marked(facts: Any = None) -> Task:
    """A host whose prefix another server has marked, and that cannot mark it."""
    c = context(facts or configured())
    taken = f"@report {json.dumps(OTHER)}\n@fail s3://... was marked meanwhile.\n@exit 1\n"
    c.recorder.replies = [Reply(taken)]
    return c


def test_another_server_s_mark_is_refused_where_nobody_can_be_asked():
    c = marked()
    with pytest.raises(Exit, match=r"needs a confirmation\. Add --yes") as refused:
        deploy(c)
    assert "s3://my-bucket/mlflow-artifacts/ belongs to the server on ip-10-0-0-9" in str(
        refused.value.message
    )
    assert "since 2026-01-02T03:04:05+00:00" in str(refused.value.message)
    # The way out of two servers on one prefix comes before --yes, which would take it.
    assert "each server needs a `prefix:` of its own" in str(refused.value.message)
    (change,) = c.recorder.runs
    assert request(change.files, "owner.py")["action"] == "claim"


def test_marking_comes_before_anything_is_changed():
    c = context(configured())
    deploy(c)
    (change,) = c.recorder.runs
    first = min(re.findall(r"^say .*", change.steps, re.MULTILINE)[:1])
    assert "mark s3://my-bucket/mlflow-artifacts/" in first
    assert "put the backup key" in change.steps


@pytest.mark.parametrize(
    "report", ["null", "not json", "key\tvalue", "[" * 9999, "[]", '{"server": "a", "host": "b"}']
)
def test_what_else_fails_is_not_asked_about(report):
    c = context(configured())
    failed = f"@report {report}\n@fail nginx refuses its configuration\n@exit 1\n"
    c.recorder.replies = [Reply(failed)]
    with pytest.raises(Exit, match="nginx refuses"):
        deploy(c, yes=True)
    assert len(c.recorder.runs) == 1


def test_both_sides_spell_a_mark_alike(monkeypatch):
    monkeypatch.syspath_prepend(str(HOST))
    there = importlib.import_module("owner")
    assert there.SHAPES == owner.SHAPES
    assert there.ANYBODY == owner.ANYBODY


def test_what_a_host_says_of_a_mark_is_shown_only_as_marks_are_spelt():
    c = context(configured())
    crafted = json.dumps({"server": "a", "host": "b\u001b[2Jevil", "since": ["x"]})
    c.recorder.replies = [Reply(f"@report {crafted}\n@fail marked\n@exit 1\n")]
    with pytest.raises(Exit, match="the server on unknown since unknown") as refused:
        deploy(c)
    assert "\x1b" not in str(refused.value.message)


def test_a_no_changes_nothing(terminal):
    terminal.append("n")
    c = marked()
    with pytest.raises(Exit, match="Nothing was changed"):
        deploy(c)
    assert len(c.recorder.runs) == 1


@pytest.mark.parametrize("answers", [["y"], []])
def test_the_prefix_is_taken_over_where_that_is_wanted(terminal, answers):
    terminal += answers
    c = marked()
    deploy(c, yes=not answers)
    _, change = c.recorder.runs
    asks = request(change.files, "owner.py")
    assert asks["action"] == "claim"
    # --yes agrees to a mark that another host makes meanwhile as well.
    assert asks["over"] == ("0badcafe@ip-10-0-0-9" if answers else "anybody")


def test_a_host_that_noted_its_mark_looks_in_passing_whether_it_is_still_there():
    c = context(deployed(well=None))
    deploy(c)
    (change,) = c.recorder.runs
    assert request(change.files, "owner.py")["action"] == "watch"


@pytest.mark.parametrize(
    "values", [{"bucket": "other"}, {"prefix": "other"}, {"endpoint_url": "http://m:9000"}]
)
def test_another_place_has_to_be_marked_anew(values):
    settings = Settings(**({"bucket": "my-bucket"} | values))
    assert owner.is_marked(SETTINGS, deployed())
    assert not owner.is_marked(settings, deployed())


@pytest.mark.parametrize("values", [{"server_id": "99999999"}, {"hostname": "x"}, {"owned": None}])
def test_another_server_id_or_host_has_to_mark_anew(values):
    assert not owner.is_marked(SETTINGS, replace(deployed(), **values))


# -- the program on the host -------------------------------------------------------------------

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def root(home: Path) -> Path:
    root = home / "mlflow-server"
    root.mkdir()
    return root


@pytest.fixture
def run(store: Store, root: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(action: str, *over: str) -> tuple[int, str]:
        request = {"place": place_in(store), "root": root, "action": action}
        return program(capsys, "owner.py", **request, over="".join(over))

    return run


def seen(store: Store) -> dict[str, str]:
    return json.loads(store.body(KEY))


TAKEN = "is taken over from the server on"


def put(store: Store, mark: Any) -> None:
    body = mark if isinstance(mark, bytes) else json.dumps(mark).encode()
    store.client().put_object(Bucket="my-bucket", Key=KEY, Body=body)


def test_an_unmarked_prefix_is_marked(run, store, root):
    assert run("look") == (0, "@report null\n")
    assert run("claim", "") == (0, "")
    mark = seen(store)
    assert (mark["server"], mark["host"]) == ((root / ".server-id").read_text().strip(), HERE)
    assert re.fullmatch(r"[0-9a-f]{8}", mark["server"])
    assert run("look") == (0, "@report null\n")


def test_the_host_s_note_is_what_the_probe_is_compared_with(run, store, root):
    run("claim", "")
    settings = Settings(bucket="my-bucket", endpoint_url=store.url)
    id = (root / ".server-id").read_text().strip()
    facts = replace(deployed(), server_id=id, hostname=HERE)
    assert (root / ".owned").read_text().strip() == owner.mark_text(settings, facts)


def test_what_is_marked_already_keeps_its_date(run, store, root):
    run("claim", "")
    before = seen(store)
    (root / ".owned").unlink()
    store.requests.clear()
    assert run("claim", "") == (0, "")
    assert seen(store) == before
    assert (root / ".owned").exists()
    assert not [request for request in store.requests if request.startswith("PUT")]


def test_another_server_s_mark_is_told_and_never_replaced_unasked(run, store, root):
    put(store, OTHER)
    assert run("look") == (0, f"@report {json.dumps(OTHER)}\n")
    code, out = run("claim", "")
    assert code == 1
    theirs, failure = out.splitlines()
    assert theirs == f"@report {json.dumps(OTHER)}", "whom to ask about"
    assert failure.startswith("@fail s3://my-bucket/mlflow-artifacts/ was marked meanwhile by the")
    assert seen(store) == OTHER
    assert not (root / ".owned").exists()
    code, out = run("claim", "0badcafe@ip-10-0-0-9")
    assert code == 0
    assert out.startswith(f"@warn s3://my-bucket/mlflow-artifacts/ {TAKEN} ip-10-0-0-9, whose it")
    assert seen(store)["host"] == HERE


def test_who_agreed_to_anybody_is_not_stopped_by_a_host_that_is_faster(run, store, root):
    put(store, OTHER)
    code, out = run("claim", "anybody")
    assert (code, TAKEN in out) == (0, True)
    assert seen(store)["host"] == HERE


def test_two_hosts_that_mark_at_one_moment_do_not_both_succeed(run, store, root):
    store.refuse(f"PUT /my-bucket/{KEY}", "PreconditionFailed", 412)
    code, out = run("claim", "")
    assert code == 1
    theirs, failure = out.splitlines()
    assert theirs == "@report null", "gone again"
    assert failure.startswith("@fail Another server marked s3://my-bucket/mlflow-artifacts/")
    assert not (root / ".owned").exists()


def in_common(root: Path, host: str = "db.example") -> None:
    """Have the server be one of several with one database, which gave it its id."""
    (root / ".server-id").write_text("feedbeef\n")
    line = f"AUTH_STORE_URI='postgresql+psycopg2://mlflow@{host}/mlflow_auth?sslmode=require'\n"
    (root / "server.env").write_text(line)


def test_hosts_that_have_a_database_in_common_have_one_mark(run, store, root):
    mark = {"server": "feedbeef", "host": "web1", "since": "2026-11-25T10:00:00+00:00"}
    put(store, mark)
    in_common(root)
    assert run("look") == (0, "@report null\n")
    assert run("claim", "") == (0, "")
    assert seen(store) == mark
    assert (root / ".owned").read_text().startswith(f"feedbeef@{HERE} ")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", ""])
def test_a_database_beside_the_server_is_no_other_host_s(run, store, root, host):
    in_common(root, host)
    put(store, {"server": "feedbeef", "host": "web1", "since": "2026-11-25T10:00:00+00:00"})
    assert '"host": "web1"' in run("look")[1]


def test_a_store_that_refuses_conditions_gets_a_plain_request(run, store):
    store.refuse(f"PUT /my-bucket/{KEY}", "NotImplemented", 501)
    code, out = run("claim", "")
    assert (code, "NotImplemented" in out) == (1, True), "the plain request comes too"
    puts = [request for request in store.requests if request.startswith("PUT")]
    assert len(puts) >= 2


def test_a_restored_id_keeps_what_this_host_marked_before(run, store, root):
    run("claim", "")
    (root / ".server-id").write_text("feedbeef\n")
    assert run("look") == (0, "@report null\n")
    assert run("claim", "") == (0, "")
    assert seen(store)["server"] == "feedbeef"


def test_a_copy_of_the_host_s_disk_is_another_host(run, store, root):
    run("claim", "")
    mark = seen(store) | {"host": "the-original"}
    put(store, mark)
    (root / ".owned").write_text((root / ".owned").read_text().replace(HERE, "the-original"))
    assert json.loads(run("look")[1].removeprefix("@report ")) == mark


@pytest.mark.parametrize(
    "body",
    [
        b"", b"no JSON", b"[]", b'{"server": 7}',
        b'{"server": "x; rm", "host": "\\u001b[2J", "since": {}}',
    ],
)  # fmt: skip
def test_a_mark_that_cannot_be_read_is_somebody_s(run, store, body):
    put(store, body)
    unknown = dict.fromkeys(OTHER, "unknown")
    assert json.loads(run("look")[1].removeprefix("@report ")) == unknown
    assert run("claim", "")[0] == 1
    code, out = run("claim", "unknown@unknown")
    assert (code, TAKEN in out) == (0, True)


def test_a_denied_look_names_the_permission(run, store):
    store.refuse(f"GET /my-bucket/{KEY}")
    code, out = run("look")
    assert code == 1
    assert out.startswith("@fail s3:GetObject on s3://my-bucket/mlflow-artifacts/* is denied")


def test_a_server_whose_prefix_was_taken_over_is_told_whose_it_is_now(run, store, root):
    run("claim", "")
    assert run("watch") == (0, "")
    put(store, OTHER)
    code, out = run("watch")
    assert code == 0
    assert out.startswith(
        "@warn s3://my-bucket/mlflow-artifacts/ was taken over by the server 0badcafe on "
        "ip-10-0-0-9 at 2026-01-02T03:04:05+00:00."
    )
    assert (root / ".owned").read_text().startswith("lost s3://my-bucket/"), "deploy asks again"
    assert seen(store) == OTHER


def test_a_mark_that_is_gone_is_told_too(run, store, root):
    run("claim", "")
    store.client().delete_object(Bucket="my-bucket", Key=KEY)
    assert "no longer bears this server's mark" in run("watch")[1]


def test_who_cannot_look_for_the_mark_says_nothing_of_it(run, store, root):
    run("claim", "")
    store.refuse(f"GET /my-bucket/{KEY}")
    assert run("watch") == (0, "")
    assert "lost" not in (root / ".owned").read_text()
