"""What a host lacks, by tables: a host that lacks nothing gets nothing."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import pytest
from invoke import Exit
from stand_ins import ROOT, RUNNER, SETTINGS, Reply, blank, context, deployed, installed

import tasks.install as install_task
from tasks.changes import deploy as deploy_changes
from tasks.changes import install as install_changes
from tasks.changes import releases
from tasks.changes.install import changes
from tasks.engine import change as change_engine
from tasks.engine import templates
from tasks.engine.facts import PACKAGES, Facts
from tasks.engine.locks import Target
from tasks.engine.settings import Settings
from tasks.install import install
from tasks.laptop.wheelhouses import Wheelhouse, manifest

RELEASE = releases.release_of(SETTINGS)


def sentences(facts: Facts, settings: Settings = SETTINGS) -> list[str]:
    return [change.what for change in changes(settings, facts)]


APT = f"install with apt: {', '.join(PACKAGES)}"
TOOLS = "install uv and the AWS CLI"
ENVIRONMENT = f"install MLflow {SETTINGS.version} in an environment of its own"
CURRENT = f"make {RELEASE} the current release"


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (blank(), [f"{APT}; {TOOLS}; {ENVIRONMENT}", CURRENT]),
        (blank(packages=frozenset(PACKAGES)), [TOOLS, ENVIRONMENT, CURRENT]),
        (installed(), []),
        (deployed(), []),
        (installed(packages=frozenset(PACKAGES) - {"git"}), ["install with apt: git"]),
        (installed(packages=frozenset(PACKAGES) | {"more"}), []),
        (installed(tools=None), [TOOLS]),
        (installed(tools="other"), [TOOLS]),
        (installed(complete=frozenset()), [ENVIRONMENT]),
        (installed(complete=frozenset({RELEASE, "3.17.1-x"})), []),
        (installed(release=None), [CURRENT]),
        (installed(release="3.17.1-0000"), [CURRENT]),
        (installed(release="3.17.1-0000", complete=frozenset()), [ENVIRONMENT, CURRENT]),
        (installed(free_kb=0), []),
        (installed(python=(3, 13, 0)), []),
    ],
)  # fmt: skip
def test_a_host_gets_what_it_lacks_and_no_more(facts, wanted):
    assert sentences(facts) == wanted


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (blank(os="fedora 41"), "The host runs fedora 41, not Ubuntu or Debian with systemd"),
        (blank(os=""), "The host runs an unknown system"),
        (blank(systemd=False), "with systemd"),
        (blank(sudo=False), "sudo asks ubuntu for a password"),
        (blank(python=(3, 9, 2)), "The host has Python 3.9.2; MLflow 3.17.2 needs 3.10 or newer"),
        (blank(foreign=True), f"{ROOT}/venv is a folder that neither this project nor"),
        (blank(free_kb=1_000_000), "The disk of the host has 1.0 GB free; installing needs 2"),
        (
            installed(release="3.16.0-0000", schema="abc"),
            "Set `version: 3.16.0` in fabric.yaml, then type ./fab install again",
        ),
    ],
)
def test_a_host_that_cannot_become_a_server_is_refused_in_one_line(facts, wanted):
    with pytest.raises(Exit, match=re.escape(wanted)) as caught:
        changes(SETTINGS, facts)
    assert "\n" not in str(caught.value.message)


@pytest.mark.parametrize(
    "facts",
    [
        blank(os="ubuntu 24.04"),
        blank(os="debian 13"),
        blank(os="debian"),
        blank(python=()),
        blank(python=(3, 10, 0)),
        blank(free_kb=install_changes.NEEDED_KB),
    ],
)
def test_a_host_that_can_become_a_server_is_taken(facts):
    assert sentences(facts)


def test_a_version_without_a_lock_names_those_there_are():
    with pytest.raises(Exit, match=r"no lock for MLflow 9\.9\.9.*3\.17\.2"):
        changes(Settings(bucket="my-bucket", version="9.9.9"), blank())


def test_a_release_is_named_by_version_and_content_of_its_lock(monkeypatch, tmp_path):
    assert re.fullmatch(r"3\.17\.2-[0-9a-f]{8}", RELEASE)
    monkeypatch.setattr(releases, "RELEASES", tmp_path)
    (tmp_path / "3.17.2.txt").write_text("other")
    assert releases.release_of(SETTINGS) != RELEASE


OLDER = "3.16.0-0000"


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (deployed(release=OLDER, complete=frozenset({OLDER})), []),
        (deployed(release=OLDER, complete=frozenset({OLDER, RELEASE})), []),
        (deployed(release="3.17.2-0000", complete=frozenset({"3.17.2-0000"})), []),
        (deployed(complete=frozenset()), [ENVIRONMENT]),
        (deployed(release="3.17.2-0000", complete=frozenset()), [ENVIRONMENT, CURRENT]),
        (deployed(release=None), [CURRENT]),
        # Without databases there is nothing that another release could fail to read.
        (installed(release=OLDER, complete=frozenset({OLDER})), [ENVIRONMENT, CURRENT]),
    ],
)  # fmt: skip
def test_a_server_with_databases_keeps_its_release_until_it_is_upgraded(facts, wanted):
    assert sentences(facts) == wanted


def test_a_server_of_another_release_is_told_of_the_upgrade(capsys):
    c = context(deployed(release=OLDER, complete=frozenset({OLDER})))
    install(c)
    assert c.recorder.runs == []
    assert capsys.readouterr().out.splitlines() == [
        "install: nothing to change (MLflow 3.16.0-0000)",
        f"The settings want MLflow {SETTINGS.version}. What that would do: "
        "./fab -H ec2 upgrade --check",
    ]


def test_the_scripts_get_what_they_need():
    tools, environment, current = changes(SETTINGS, blank(packages=frozenset(PACKAGES)))
    assert tools.files["tools.txt"] == (templates.FILES / "tools.txt").read_text()
    digest = change_engine.digest(str(tools.files["tools.txt"]))
    assert tools.script.startswith("sent=no\n")
    assert f"\nfolder=tools digest={digest}\n" in tools.script
    assert environment.files["release.txt"] == releases.lock_of(SETTINGS)
    assert environment.files["modules.txt"] == releases.modules(RELEASE)
    assert environment.script.startswith(f"release={RELEASE} known=yes\n")
    assert current.script == (
        f'ln -sfn releases/{RELEASE} "$root/venv.part"\nmv -fT "$root/venv.part" "$root/venv"'
    )


def test_while_apt_is_at_work_the_environments_are_made():
    both, _current = changes(SETTINGS, blank())
    alone = changes(SETTINGS, blank(packages=frozenset(PACKAGES)))
    first = "python3 python3-pip-whl ca-certificates"
    assert both.script.startswith(f"packages='{' '.join(PACKAGES)}' first='{first}'\nbeside() {{\n")
    assert all(each.script in both.script for each in alone[:2])
    assert both.files == {**alone[0].files, **alone[1].files}
    git_alone = changes(SETTINGS, installed(packages=frozenset(PACKAGES) - {"git"}))
    assert "beside()" not in git_alone[0].script


def test_the_locks_are_whole_and_hashed():
    for file in (
        releases.RELEASES / f"{SETTINGS.version}.txt",
        templates.FILES / "tools.txt",
    ):
        pins = re.findall(r"^[a-z0-9][a-z0-9._\[\],-]*==.*$", file.read_text(), re.M)
        assert pins
        assert all(pin.endswith("\\") for pin in pins), "a pin without a hash"
    assert f"mlflow=={SETTINGS.version}" in releases.lock_of(SETTINGS)


def test_a_blank_host_is_changed_in_one_exec(capsys):
    c = context(blank())
    install(c)
    (run,) = c.recorder.runs
    assert set(run.files) == RUNNER | {"tools.txt", "release.txt", "modules.txt"}
    assert "installed MLflow 3.17.2" in capsys.readouterr().out


def test_a_host_that_has_all_gets_no_exec(capsys):
    c = context(installed())
    install(c)
    assert c.recorder.runs == []
    assert capsys.readouterr().out == f"install: nothing to change (MLflow {RELEASE})\n"


def test_a_failed_step_is_the_one_line():
    c = context(blank())
    c.recorder.replies = [Reply("@fail no network\n@exit 1\n")]
    with pytest.raises(Exit, match="no network"):
        install(c)


def test_a_changed_root_never_makes_an_empty_server_beside_the_one_that_runs():
    facts = deployed(server_env=frozenset(), release=None, complete=frozenset())
    with pytest.raises(Exit, match="an empty one would be made"):
        deploy_changes.changes(SETTINGS, facts, None)
    with pytest.raises(Exit, match="an empty one would be made"):
        changes(SETTINGS, facts)
    stopped = replace(facts, units={})
    changes(SETTINGS, stopped)  # a folder that was lost is made again


# -- from a wheelhouse -------------------------------------------------------------------------


@pytest.fixture
def wheelhouse(tmp_path):
    """A wheelhouse of one file, beside locks that name just that."""
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "a-1-py3-none-any.whl").write_bytes(b"one")
    digest = hashlib.sha256(b"one").hexdigest()
    wheels = Wheelhouse(folder, RELEASE, Target("3.12", "x86_64"), {"a-1-py3-none-any.whl": digest})
    (folder / "manifest.json").write_text(manifest(wheels))
    return folder


@pytest.fixture
def locks(monkeypatch):
    digest = hashlib.sha256(b"one").hexdigest()
    lock = f"a==1 \\\n    --hash=sha256:{digest}\n"
    monkeypatch.setattr(install_task, "locks", lambda settings: [lock])


READY = {"packages": frozenset(PACKAGES), "python": (3, 12, 3), "machine": "x86_64"}


def test_a_host_gets_its_wheels_from_here_alone(wheelhouse, locks):
    c = context(blank(**READY))
    install(c, from_wheelhouse=str(wheelhouse))
    look, take, change = c.recorder.runs
    assert look.stdin == b""
    assert take.stdin
    assert change.files["SHA256SUMS"].endswith("  a-1-py3-none-any.whl\n")
    assert change.files["steps.sh"].count("\nsent=yes\n") == 2
    assert "sent=no" not in change.files["steps.sh"]


def test_a_host_that_has_all_is_sent_nothing(wheelhouse):
    c = context(installed())
    install(c, from_wheelhouse=str(wheelhouse))
    assert c.recorder.runs == []


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (
            {**READY, "packages": frozenset(PACKAGES) - {"nginx", "git"}},
            "sudo apt-get install --no-install-recommends git nginx",
        ),
        ({**READY, "python": (3, 11, 2)}, "has Python 3.11 on x86_64. Make one for it: ./fab "),
        ({**READY, "machine": "aarch64"}, "--python 3.12 --platform aarch64"),
    ],
)
def test_another_host_s_wheels_are_not_sent(wheelhouse, locks, facts, wanted):
    c = context(blank(**facts))
    with pytest.raises(Exit, match=re.escape(wanted)):
        install(c, from_wheelhouse=str(wheelhouse))
    assert c.recorder.runs == []


def test_the_next_release_s_wheels_wait_on_the_host_for_its_upgrade(wheelhouse, locks, capsys):
    c = context(deployed(release=OLDER, complete=frozenset({OLDER}), **READY))
    install(c, from_wheelhouse=str(wheelhouse))
    _look, take, change = c.recorder.runs
    assert take.stdin
    assert "SHA256SUMS" in change.files
    assert "uv pip" not in change.files["steps.sh"]
    said = capsys.readouterr().out
    assert "The settings want MLflow 3.17.2, whose wheels are on the host. What that" in said
    assert "upgrade --check" in said


def test_the_next_release_s_wheels_renew_the_tools_of_a_server_that_is_behind(
    wheelhouse, locks, capsys
):
    facts = deployed(release=OLDER, complete=frozenset({OLDER}), tools="former", **READY)
    c = context(facts)
    install(c, from_wheelhouse=str(wheelhouse))
    _look, take, change = c.recorder.runs
    assert take.stdin
    assert "SHA256SUMS" in change.files
    assert "\nfolder=tools digest=" in change.files["steps.sh"]
    assert "install_release" not in change.files["steps.sh"]
    *_, done, wanted = capsys.readouterr().out.splitlines()
    assert done == "✓ installed what was missing; the server keeps MLflow 3.16.0"
    assert "The settings want MLflow 3.17.2" in wanted


def test_a_folder_without_wheels_is_refused_before_any_connection(tmp_path):
    with pytest.raises(Exit, match="There is no whole wheelhouse in"):
        install.options(from_wheelhouse=str(tmp_path / "none"))
    assert install.options() is None
