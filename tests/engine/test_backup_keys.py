"""The key that vouches for backups: made once, kept here first, never overwritten."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from typing import Any

import pytest
from invoke import Exit
from stand_ins import BACKUP_KEY, SETTINGS, Reply, Task, configured, context, deployed

from tasks.changes.backup_key import agreeing
from tasks.engine import backup_keys, paths
from tasks.engine.backup_keys import VARIABLE, id_of, vouches
from tasks.engine.settings import Settings

OTHER = "cd" * 32
SHARED = Settings(bucket="my-bucket", backend_store_uri="postgresql://mlflow@db.example.org/mlflow")


def at(key: str | None, settings: Settings = SETTINGS, **more: Any) -> Task:
    """A host with this key, and an operator who has no variable."""
    facts = deployed(settings, backup_key=key and id_of(key))
    return context(facts, settings, **({VARIABLE: ""} | more))


def keep(c: Task, key: str) -> None:
    backup_keys.keep(c.server, key)


def test_the_first_deploy_makes_one_and_keeps_it_here_before_it_is_sent(capsys):
    c = at(None)
    (change,) = agreeing(c.server)
    copy = backup_keys.copy_of(c.server)
    assert change.files["new_backup_key"] == copy.read_text().strip()
    assert re.fullmatch("[0-9a-f]{64}\n", copy.read_text())
    assert copy.stat().st_mode & 0o777 == 0o600
    assert copy.suffix == ".backup-key"
    assert "keep it as you keep the password" in capsys.readouterr().out
    assert copy.read_text().strip() not in change.script
    assert c.recorder.runs == []


def test_a_host_that_lost_its_key_gets_the_operator_s(capsys):
    c = at(None)
    keep(c, OTHER)
    (change,) = agreeing(c.server)
    assert change.files["new_backup_key"] == OTHER
    assert capsys.readouterr().out == ""


def test_the_variable_wins():
    c = at(None, **{VARIABLE: BACKUP_KEY})
    keep(c, OTHER)
    (change,) = agreeing(c.server)
    assert change.files["new_backup_key"] == BACKUP_KEY
    beside = backup_keys.copy_of(c.server).with_suffix(f".{id_of(OTHER)}.backup-key")
    assert beside.read_text().strip() == OTHER, "none is thrown away"


@pytest.mark.parametrize("key", ["x", "ab" * 31, "AB" * 32, "ab" * 32 + "0", "ab" * 31 + "\n$(x)"])
def test_a_variable_that_is_no_key_is_refused(key):
    with pytest.raises(Exit, match="REMOTE_MLFLOW_BACKUP_KEY is no backup key"):
        agreeing(at(None, **{VARIABLE: key}).server)


def test_where_both_have_it_nothing_is_asked_and_nothing_done():
    c = at(OTHER)
    keep(c, OTHER)
    assert agreeing(c.server) == []
    assert c.recorder.runs == []


def test_one_that_only_the_host_has_is_fetched_into_the_operator_s_copy(capsys):
    c = at(OTHER)
    c.recorder.replies = [Reply(f"@report key\t{OTHER}\n@exit 0\n")]
    assert agreeing(c.server) == []
    assert backup_keys.kept(c.server) == OTHER
    assert OTHER not in capsys.readouterr().out
    assert "as_root cat /etc/mlflow-server/backup.key" in c.recorder.runs[0].steps


@pytest.mark.parametrize("said", ["", "x", "[mlflow]"])
def test_what_is_no_key_on_the_host_is_one_line(said):
    c = at(OTHER)
    c.recorder.replies = [Reply(f"@report key\t{said}\n@exit 0\n")]
    with pytest.raises(Exit, match=r"is no backup key.*sudo rm"):
        agreeing(c.server)


@pytest.mark.parametrize(
    ("variable", "away"), [("", "mv '.*backup-key' '.*other'"), ("ef" * 32, f"unset {VARIABLE}")]
)
def test_two_different_ones_are_one_line_and_both_stay(variable, away):
    c = at(OTHER, **{VARIABLE: variable})
    keep(c, BACKUP_KEY)
    with pytest.raises(Exit) as error:
        agreeing(c.server)
    (line,) = str(error.value).splitlines()
    assert re.search(f"ec2 has the backup key {id_of(OTHER)}, and yours is", line)
    assert re.search(away, line)
    assert "ssh ec2 sudo rm /etc/mlflow-server/backup.key" in line
    assert backup_keys.kept(c.server) == BACKUP_KEY
    assert c.recorder.runs == []


def test_the_copy_follows_a_host_that_has_the_key_of_another_one():
    """Such as one that restored the other's backups, typed by somebody who was cut off."""
    c = at(OTHER)
    keep(c, BACKUP_KEY)
    other = context(deployed(), alias="lost", **{VARIABLE: ""})
    other.server.identity = "lost"
    keep(other, OTHER)
    assert agreeing(c.server) == []
    assert backup_keys.kept(c.server) == OTHER
    assert BACKUP_KEY in set(backup_keys._all(c.server))


def test_servers_of_one_database_get_one_key_however_many_ask_at_once():
    hosts = [at(None, SHARED) for _ in range(8)]
    for n, c in enumerate(hosts):
        c.server.identity = f"host{n}"
    made: list[Any] = []
    threads = [threading.Thread(target=lambda c=c: made.extend(agreeing(c.server))) for c in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({change.files["new_backup_key"] for change in made}) == 1
    assert len(list(paths.config().glob("*.backup-key"))) == 1


def test_keys_of_other_environments_are_not_found():
    staging = Settings(bucket="my-bucket", environment="staging")
    keep(at(None, staging), OTHER)
    keep(at(None), BACKUP_KEY)
    ids = [id_of(OTHER), id_of(BACKUP_KEY)]
    assert backup_keys.of(at(None).server, ids) == BACKUP_KEY
    assert backup_keys.of(at(None, staging).server, ids) == OTHER
    assert backup_keys.of(at(None).server, ["00000000"]) is None


def test_keys_of_other_environments_do_not_speak_for_a_database_in_common_either():
    """Whoever has the key of a server for trials does not speak for the one in production."""

    def server(environment: str, host: str = "") -> Any:
        uri = f"postgresql://mlflow@{host}.example/mlflow" if host else None
        named = Settings(bucket="my-bucket", environment=environment, backend_store_uri=uri)
        return at(None, named).server

    keys = {}
    for number, (environment, host) in enumerate((("trials", "t"), ("real", "f"), ("real", ""))):
        keys[environment, host] = f"{number:064x}"
        backup_keys.keep(server(environment, host), keys[environment, host])
    here = server("real", "r")
    found = {place for place, key in keys.items() if backup_keys.of(here, [id_of(key)])}
    assert found == {("real", "f"), ("real", "")}
    backup_keys.keep(here, OTHER)
    assert backup_keys.of(here, [id_of(OTHER)]) == OTHER


def test_a_rehearsal_host_never_gets_a_real_one_s():
    keep(at(None), OTHER)
    rehearsed = context(configured(), rehearsal=True, **{VARIABLE: ""})
    assert backup_keys.of(rehearsed.server, [id_of(OTHER)]) is None
    (change,) = agreeing(rehearsed.server)
    assert change.files["new_backup_key"] != OTHER


def test_a_copy_that_is_none_is_named():
    c = at(None)
    keep(c, OTHER)
    backup_keys.copy_of(c.server).write_text("something else")
    with pytest.raises(Exit, match="holds no backup key"):
        agreeing(c.server)


def test_a_host_whose_key_changed_meanwhile_keeps_it(machine):
    machine.stub("sudo", 'shift; exec "$@"')
    machine.stub("cat", "echo ff")
    (change,) = agreeing(at(None).server)
    said = machine.change(change.script, **change.files)
    assert "@fail Somebody else gave this host a backup key meanwhile" in "\n".join(said)


def test_the_laptop_checks_what_the_host_signs():
    from host_side import KEY, signed

    manifest = json.loads(signed({"made": "now", "n": [1, 2.5, None], "é": "ü"}, "an id"))
    assert vouches(KEY, manifest)
    assert not vouches(OTHER, manifest)
    assert not vouches(KEY, manifest | {"made": "then"})
    assert not vouches(KEY, {name: manifest[name] for name in manifest if name != "signature"})
    assert id_of(KEY) == manifest["key"] == hashlib.sha256(KEY.encode()).hexdigest()[:8]
