"""What the program shows and offers, and what it says to a slip of the finger."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fabric
import invoke
import pytest
from fabric.main import make_program

from tasks.engine import fabrics, listing, paths, seen_names
from tasks.engine.completion import SCRIPTS
from tasks.engine.console import painted
from tasks.engine.hosts import for_connections
from tasks.engine.program import Program, adopt, version

README = (paths.PROJECT / "README.md").read_text()

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose fabric.yaml may be written."""
    for name in ("fabfile.py", "tasks", "README.md", "pyproject.toml"):
        (tmp_path / name).symlink_to(paths.PROJECT / name)
    monkeypatch.setattr(paths, "PROJECT", tmp_path)
    return tmp_path


@pytest.fixture
def typed(project: Path, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type `./fab` and words; return the exit code and what stands on stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        program = Program(name="Fabric", version="3", config_class=fabric.Config)
        code = 0
        try:
            program.run(["fab", "--search-root", str(project), *words])
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def hosts(home: Path) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh/config").write_text("Host ec2 ec2-b *.internal\n  HostName 203.0.113.10\n")


# -- a slip of the finger ----------------------------------------------------------------------

SLIPS = [
    ("instal", "no task 'instal' (did you mean 'install'?)", "./fab install"),
    ("-H ec2 dploy verify", "did you mean 'deploy'?", "./fab -H ec2 deploy verify"),
    ("backup.lst", "did you mean 'backup.list'?", "./fab backup.list"),
    ("remove bob", "did you mean 'users.remove'?", "./fab users.remove bob"),
    ("lgos --follow", "did you mean 'logs'?", "./fab logs --follow"),
    ("status --jsn", "status has no option --jsn (did you mean --json?)", "./fab status --json"),
    ("logs --sicne=1h", "did you mean --since?", "./fab logs --since=1h"),
    ("users.add --admn bob", "did you mean --admin?", "./fab users.add --admin bob"),
    ("-H ec2 tunnel --port 5001", "did you mean --local-port?",
     "./fab -H ec2 tunnel --local-port 5001"),
    ("status --jsn=1", "status has no option --jsn. Those it has", "./fab --help status"),
    ("--hots ec2 status", "./fab has no option --hots", "./fab --hosts ec2 status"),
    ("status --json=1", "--json takes no value", "./fab status --json"),
    ("users.add --admin=1 bob", "--admin takes no value", "./fab users.add --admin bob"),
    ("help backup", "'help' is no task", "./fab --help backup"),
    ("help", "'help' is no task", "./fab --help"),
    ("list", "'list' is no task", "./fab --list"),
    ("--help instal", "did you mean 'install'?", "./fab --help install"),
    ("--list usrs", "no group of tasks 'usrs'", "./fab --list users"),
    ("users.add", "users.add wants NAME", "./fab users.add NAME"),
    ("-H ec2 users.grant bob", "wants EXPERIMENT and PERMISSION",
     "./fab -H ec2 users.grant bob EXPERIMENT PERMISSION"),
    ("logs --since", "--since wants a value", "./fab logs --since VALUE"),
    ("status -H", "-H wants a value", "./fab status -H VALUE"),
    ("-H", "-H wants a value", "./fab -H VALUE"),
    ("ec2 status", "'ec2' is a host, no task", "./fab -H ec2 status"),
    ("me@1.2.3.4 status", "is a host, no task", "./fab -H me@1.2.3.4 status"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said", "again"), SLIPS)
def test_a_slip_is_one_line_with_what_to_type(typed, hosts, words, said, again):
    code, out, err = typed(*words.split())
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert said in err
    assert err.rstrip("\n").endswith(again)


@pytest.mark.parametrize("words", [slip[2] for slip in SLIPS if "VALUE" not in slip[2]])
def test_what_is_to_be_typed_then_is_no_slip(typed, hosts, monkeypatch, words):
    monkeypatch.setattr(Program, "execute", lambda self: None)
    code, _, err = typed(*words.split()[1:])
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("frobnicate", "There is no task 'frobnicate'. All there are: ./fab --list"),
        (
            "environments prod",
            "environments takes no 'prod', and no task is called so. What it takes: "
            "./fab --help environments",
        ),
        (
            "postgres.migrate --to x",
            "postgres.migrate has no option --to. Those it has: ./fab --help postgres.migrate",
        ),
        ("status --frobnicate", "Those it has: ./fab --help status"),
        ("--list frobnicate", "All there are: ./fab --list"),
    ],
)
def test_what_is_like_nothing_is_sent_to_the_list(typed, words, said):
    assert said in typed(*words.split())[2]


@pytest.mark.parametrize("words", ["users.add --admin bob", "--list=users", "logs --since=1h"])
def test_what_is_right_is_let_through(typed, monkeypatch, words):
    monkeypatch.setattr(Program, "execute", lambda self: None)
    assert typed(*words.split())[0] == 0


# -- what it shows -----------------------------------------------------------------------------


def names(text: str) -> set[str]:
    return {
        line.split()[0] for line in text.splitlines() if line.startswith("  ") and line[2] > " "
    }


def test_the_list_has_every_task_once_under_the_readme_s_headings(typed):
    code, out, _ = typed("--list")
    assert code == 0
    headings = [line for line in out.splitlines() if line and not line.startswith(" ")]
    wanted = re.findall(r"^\| \*\*(.+?)\*\* \|", README, re.M)
    assert [heading.lower() for heading in headings] == [name.lower() for name in wanted]
    import fabfile

    found = listing.names_in(fabfile.namespace)
    assert {found[name].body for name in names(out)} == {task.body for task in found.values()}
    assert len(names(out)) == len({task.body for task in found.values()})


def test_a_task_that_the_readme_does_not_name_is_listed_last():
    import fabfile

    groups = listing.grouped("", listing.names_in(fabfile.namespace))
    assert [group.heading for group in groups] == [listing.REST]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("words", [(), ("--list",)])
def test_no_line_is_wider_than_the_terminal(typed, monkeypatch, width, words):
    monkeypatch.setenv("COLUMNS", str(width))
    out = typed(*words)[1]
    assert max(map(len, out.splitlines())) <= width


@pytest.mark.parametrize("words", ["--list --json", "--list --list-format=json"])
def test_the_list_as_json_is_invoke_s(typed, words):
    data = json.loads(typed(*words.split())[1])
    assert {"tasks", "collections", "default"} <= set(data)


def test_a_part_of_the_list_is_invoke_s(typed):
    assert ".reset-admin " in typed("--list", "users")[1]


def test_alone_it_says_where_to_start_and_shows_no_option_of_invoke_s(typed):
    code, out, err = typed()
    assert (code, err) == (0, "")
    assert out.startswith(f"Remote MLflow {version()}: ")
    assert "Start here\n  ./fab init " in out
    assert "-H HOST install configure deploy verify" in out
    assert "--no-dedupe" not in out
    assert {"install", "backup", "doctor", "test"} <= names(out)


@pytest.mark.parametrize(
    ("hosts", "wanted"), [("hosts: [ec2]\n", "./fab status "), ("", "./fab -H HOST status ")]
)
def test_alone_with_a_server_named_it_says_where_to_look(typed, project, hosts, wanted):
    (project / "fabric.yaml").write_text(f"{hosts}mlflow: {{bucket: my-bucket}}\n")
    out = typed()[1]
    assert f"Where to look\n  {wanted}" in out
    assert "Start here" not in out


def test_the_version_names_this_project_first(typed):
    code, out, _ = typed("--version")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        "Remote", "Fabric", "Paramiko", "Invoke", "Python",
    ]  # fmt: skip
    assert out.startswith("Remote MLflow 0.1.0\n")


def test_headings_have_no_colour_of_their_own():
    class Terminal:
        def isatty(self) -> bool:
            return True

    assert painted("x", "bold", Terminal()) == "\x1b[1mx\x1b[0m", "readable on light and dark"


def test_plain_fab_is_ours_from_the_fabfile_on():
    program = make_program()
    adopt(program)
    assert isinstance(program, Program)


def test_the_options_before_a_task_are_fabric_s():
    def told(program: invoke.Program) -> list[tuple[object, ...]]:
        return [(one.names, one.kind, one.default, one.help) for one in program.core_args()]

    assert told(Program()) == told(make_program())


def test_the_configuration_is_fabric_s_but_for_the_runners_of_connections():
    theirs = fabric.Config.global_defaults()
    for name in ("remote", "remote_shell"):
        del theirs["runners"][name]
    assert fabrics.Config.global_defaults() == theirs
    assert fabrics.Config.prefix == fabric.Config.prefix


def test_what_connects_gets_fabric_s_own_configuration():
    config = fabrics.Config(overrides={"run": {"echo": True}})
    there = for_connections(config)
    assert type(there) is fabric.Config
    assert there.run.echo
    assert there.runners.remote is fabric.runners.Remote


# -- TAB ---------------------------------------------------------------------------------------

YAML = """
hosts: [ec2]
mlflow:
  environments:
    staging: {port: 6000, hosts: [ec2-staging]}
"""


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("./fab inst", ["install"]),
        ("fab inst", ["install"]),
        ("../elsewhere/fab inst", ["install"]),
        ("./fab -H ec2 install ver", ["verify"]),
        ("./fab registry.p", ["registry.promote"]),
        ("./fab -H e", ["ec2", "ec2-staging", "ec2-b"]),
        ("./fab --hosts=ec2-", ["--hosts=ec2-staging", "--hosts=ec2-b"]),
        ("./fab -H ec2,ec2-b", ["ec2,ec2-b"]),
        ("./fab -H ec2,e", ["ec2,ec2-staging", "ec2,ec2-b"]),
        ("./fab use ", ["default", "staging"]),
        ("./fab use staging sta", ["status", "start"]),
        ("./fab status --js", ["--json"]),
        ("./fab -H ec2 logs --fo", ["--follow"]),
        ("./fab --help ins", ["install"]),
        ("./fab --list us", ["users"]),
        ("./fab --print-completion-script ", ["bash", "zsh", "fish"]),
        # The shell offers files.
        ("./fab -S ", []),
        ("./fab logs --since ", []),
        ("./fab users.add ", []),
    ],
)
def test_tab_offers_what_may_stand_there(typed, project, hosts, line, wanted):
    (project / "fabric.yaml").write_text(YAML)
    code, out, err = typed("--complete", "--", *line.split(" "))
    assert (code, err) == (0, "")
    assert sorted(out.split()) == sorted(wanted)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("./fab users.remove ", ["alice", "bob"]),
        ("./fab -H ec2 users.grant a", ["alice"]),
        ("./fab -H ec2 users.passwd --name ", ["alice"]),
        ("./fab -H ec2 users.passwd --name=a", ["--name=alice"]),
        ("./fab -H elsewhere users.remove ", []),
        ("./fab users.add ", []),
        ("./fab registry.show ", ["iris"]),
        ("./fab registry.promote i", ["iris"]),
    ],
)
def test_tab_offers_users_and_models_as_they_were_seen_last(typed, line, wanted):
    seen_names.note("users", "ec2", "default", ["alice", "$(reboot)", "-rf", "a b"])
    seen_names.note("users", "me@10.0.0.1:2222", "staging", ["bob"])
    seen_names.note("models", "ec2", "default", ["iris"])
    code, out, err = typed("--complete", "--", *line.split(" "))
    assert (code, err, out.splitlines()) == (0, "", wanted)


def test_names_that_cannot_be_kept_are_no_trouble(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    seen_names.note("users", "ec2", "default", ["alice"])
    assert seen_names.known("users") == []


def test_tab_takes_the_hosts_of_another_configuration(typed, hosts, tmp_path):
    (tmp_path / "other").write_text("Host elsewhere\n")
    _, out, _ = typed("--complete", "--", "./fab", "-S", str(tmp_path / "other"), "-H", "e")
    assert out == "elsewhere\n"


def test_another_shell_is_told_which_there_are(typed):
    assert typed("--print-completion-script", "csh")[2] == (
        "No completion for 'csh'. Give one of: bash, zsh, fish\n"
    )


# What a shell is told to print once TAB was pressed behind $LINE.
SHELLS = {
    "bash": """
        complete -p fab | grep -q 'default.*_remote_mlflow fab'
        COMP_LINE=$LINE COMP_POINT=${#LINE}
        _remote_mlflow ./fab "${LINE##*[ =:]}" x
        printf '%s\\n' "${COMPREPLY[@]}"
    """,
    "zsh": """
        words=(${(z)LINE}) CURRENT=${#words}
        compadd() { shift; print -l -- ${(P)1} }
        _remote_mlflow
    """,
    "fish": "complete -C $LINE",
}


@pytest.mark.parametrize("shell", SCRIPTS)
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("./fab inst", {"install"}),
        ("./fab -H ec2-", {"ec2-b"}),
        ("./fab status --js", {"--json"}),
    ],
)
def test_real_shells_offer_it(shell, line, wanted, tmp_path, hosts):
    if not (program := shutil.which(shell)):
        pytest.skip(f"no {shell} here")
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell].replace("(( $+functions[compdef] ))", "compdef() { : }; true"))
    # In the place of ./fab, which would make an environment first.
    fab = tmp_path / "fab"
    python = paths.PROJECT / "fabfile.py"
    words = [sys.executable, python, "--search-root", paths.PROJECT]
    fab.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n')
    fab.chmod(0o755)
    done = subprocess.run(
        [shell, "-c", f"{'.' if shell != 'fish' else 'source'} ./script\n{SHELLS[shell]}"],
        cwd=tmp_path, env=os.environ | {"LINE": line}, capture_output=True, text=True,
    )  # fmt: skip
    assert program
    assert set(done.stdout.split()) == wanted, done.stderr
