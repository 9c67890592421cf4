"""A host's role is proved beside keys that lie there; the keys go, come back, or are forgotten."""

from __future__ import annotations

import configparser
import json
from pathlib import Path
from typing import Any

import botocore.credentials
import pytest
from host_side import place_in
from store_side import Store

THEIRS = "[theirs]\naws_access_key_id = AKIATHEIRS\naws_secret_access_key = z\n"
OURS = "[default]\naws_access_key_id = AKIAOURS\naws_secret_access_key = x\naws_session_token = t\n"

Report = dict[str, Any]


def report(out: str) -> Report:
    return dict(json.loads(out.rpartition("@report ")[2]))


# -- take_keys.py --------------------------------------------------------------------------------


@pytest.fixture
def file(home: Path) -> Path:
    file = home / ".aws" / "credentials"
    file.parent.mkdir(exist_ok=True)
    file.write_text(THEIRS + OURS)
    return file


@pytest.fixture
def take(run_program: Any) -> Any:
    def take(action: str, profile: str = "default") -> Report:
        code, out = run_program("take_keys.py", profile=profile, action=action)
        assert code == 0, out
        assert "aws_secret" not in out
        return report(out)

    return take


def away(file: Path) -> Path:
    return file.with_name("credentials.default.away")


def profiles(file: Path) -> list[str]:
    found = configparser.RawConfigParser()
    found.read(file)
    return found.sections()


def test_the_profile_s_keys_go_and_others_stay(take, file):
    assert take("away") == {"id": "AKIAOURS"}
    assert file.read_text() == THEIRS
    assert profiles(away(file)) == ["default"]
    for kept in (file, away(file)):
        assert kept.stat().st_mode & 0o777 == 0o600


def test_they_come_back_as_they_were(take, file):
    take("away")
    take("back")
    assert profiles(file) == ["theirs", "default"]
    assert file.read_text() == THEIRS + OURS
    assert not away(file).exists()


def test_forgotten_they_are_nowhere(take, file):
    take("away")
    assert take("forget") == {"id": "AKIAOURS"}
    assert [one.name for one in file.parent.iterdir()] == ["credentials"]


def test_a_file_without_any_keys_is_none(take, file):
    file.write_text(OURS)
    take("away")
    assert not file.exists()


@pytest.mark.parametrize("action", ["away", "back", "forget"])
def test_repeated_it_does_nothing_more(take, file, action):
    take("away")
    take(action)
    was = {one.name: one.read_text() for one in file.parent.iterdir()}
    take(action)
    assert {one.name: one.read_text() for one in file.parent.iterdir()} == was


def test_keys_that_somebody_put_there_meanwhile_stay(take, file):
    take("away")
    newer = OURS.replace("AKIAOURS", "AKIANEWER")
    file.write_text(newer)
    take("back")
    assert file.read_text() == newer
    assert not away(file).exists()


def test_without_keys_there_is_nothing_to_take(take, home):
    assert take("away") == {"id": None}
    assert not (home / ".aws" / "credentials").exists()


# -- prove_role.py -------------------------------------------------------------------------------

LENT = {
    "aws_access_key_id": "ASIALENT", "aws_secret_access_key": "y", "aws_session_token": "t",
}  # fmt: skip


@pytest.fixture
def prove(store: Store, run_program: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Prove the role of an instance that lends these keys, or none, at each turn the next."""
    turns: list[dict[str, str] | None] = []

    def load(_: Any) -> Any:
        keys = turns.pop(0) if len(turns) > 1 else turns[0]
        return keys and botocore.credentials.Credentials(*keys.values())

    monkeypatch.setattr(botocore.credentials.InstanceMetadataProvider, "load", load)
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setenv("AWS_PROFILE", "in-no-file")

    def prove(*lent: dict[str, str] | None, backups: bool = True, patience: int = 30) -> Any:
        turns[:] = lent
        place = place_in(store)
        theirs = place | {"prefix": "mlflow-backups/default"} if backups else {}
        return run_program("prove_role.py", place=place, backups=theirs, patience=patience)

    return prove


def test_both_places_are_proved_with_the_role_although_keys_lie_there(prove, store, file):
    code, out = prove(LENT)
    assert code == 0, out
    puts = [one for one in store.requests if one.startswith("PUT")]
    assert [one.split("/")[2] for one in puts] == ["mlflow-artifacts", "mlflow-backups"]
    assert store.listing() == []


def test_a_role_that_the_host_hears_of_later_is_waited_for(prove):
    code, out = prove(None, None, LENT)
    assert code == 0, out
    assert "waiting up to 30 s for the role: The instance lends no role." in out


def test_without_a_role_it_ends_with_one_line(prove):
    code, out = prove(None, patience=0)
    assert code == 1
    assert "@fail The instance lends no role. Allow what ./fab aws.policy prints" in out


def test_a_right_that_comes_later_is_waited_for(prove, store):
    store.refuse("PUT /my-bucket/mlflow-backups", times=2)
    code, out = prove(LENT)
    assert code == 0, out
    assert "s3:PutObject on s3://my-bucket/mlflow-backups/default/* is denied to the role" in out


def test_keys_that_s3_does_not_know_yet_are_waited_for(prove, store):
    store.refuse("GET /my-bucket", code="InvalidAccessKeyId", times=1)
    assert prove(LENT)[0] == 0


def test_a_right_that_is_missing_is_named(prove, store):
    store.refuse("PUT /my-bucket/mlflow-artifacts")
    code, out = prove(LENT, patience=0)
    assert code == 1
    assert "@fail s3:PutObject on s3://my-bucket/mlflow-artifacts/* is denied to the role." in out


def test_backups_with_keys_of_their_own_are_none_of_the_role_s(prove, store):
    assert prove(LENT, backups=False)[0] == 0
    assert not any("mlflow-backups" in one for one in store.requests)


def test_what_no_waiting_helps_against_ends_at_once(prove, store):
    code, out = prove(LENT, backups=False)
    assert code == 0
    store.refuse("(HEAD|GET) /my-bucket", code="NoSuchBucket", status=404)
    code, out = prove(LENT)
    assert code == 1
    assert "@fail The bucket my-bucket does not exist." in out
