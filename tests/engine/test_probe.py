"""The probe of a host: how its command is spelt, and its text read as values."""

from __future__ import annotations

import dataclasses
import shlex

import pytest

from tasks.engine.facts import (
    PACKAGES,
    POSTGRES_CLIENT,
    Facts,
    Listener,
    Managed,
    Nginx,
    Tls,
    Unit,
)
from tasks.engine.probe import command, managed_files, parse, parts
from tasks.engine.settings import Settings
from tasks.engine.templates import source


def read(*lines: str) -> Facts:
    return parse("".join(f"{line}\n" for line in (*lines, "end\tyes")))


def test_nothing_told_is_nothing_known():
    assert read() == Facts(home="", user="", root="", now=0)


@pytest.mark.parametrize(
    ("lines", "nginx"),
    [
        ((), Nginx()),
        (("user www-data", "include /etc/nginx/conf.d/*.conf", "include sites-enabled/*"),
         Nginx("www-data", ("/etc/nginx/conf.d/*.conf", "/etc/nginx/sites-enabled/*"))),
        (("user  nginx", "include       /etc/nginx/mime.types"),
         Nginx("nginx", ("/etc/nginx/mime.types",))),
        (("user web staff", "include x"), Nginx("staff", ("/etc/nginx/x",))),
        (("include x",), Nginx("www-data", ("/etc/nginx/x",))),
    ],
)  # fmt: skip
def test_how_the_host_s_nginx_is_laid_out(lines, nginx):
    assert read(*(f"nginx\t{line}" for line in lines)).nginx == nginx


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("home\t/home/a b", "home", "/home/a b"),
        ("now\t1800000000", "now", 1_800_000_000),
        ("sudo\tyes", "sudo", True),
        ("os\tdebian 12", "os", "debian 12"),
        ("systemd\tyes", "systemd", True),
        ("python\t3.11.2", "python", (3, 11, 2)),
        ("python\t", "python", ()),
        ("cores\t4", "cores", 4),
        ("cores\t", "cores", 1),
        ("memory_kb\t4000000", "memory_kb", 4_000_000),
        ("addresses\t10.0.0.5 172.17.0.1 ", "addresses", ("10.0.0.5", "172.17.0.1")),
        ("addresses\t", "addresses", ()),
        ("release\t3.17.2-abc", "release", "3.17.2-abc"),
        ("foreign\tvenv", "foreign", True),
        ("tools\tabc", "tools", "abc"),
        ("bootstrap\tyes", "bootstrap", True),
        ("schedule\t1h weekly abc", "schedule", "1h weekly abc"),
        ("backup\t1800000000 id", "backup", "1800000000 id"),
        ("hostname\tip-10-0-0-5", "hostname", "ip-10-0-0-5"),
        ("server_id\t1a2b3c4d", "server_id", "1a2b3c4d"),
        ("owned\t1a2b3c4d@h s3://b/p at AWS", "owned", "1a2b3c4d@h s3://b/p at AWS"),
        ("disk_kb\t80", "disk_kb", 80),
        ("database\tpostgresql", "database", "postgresql"),
        ("database\t", "database", None),
        ("database_bytes\t4096", "database_bytes", 4096),
        ("workers\t2", "workers", 2),
        ("service_kb\t440000", "service_kb", 440_000),
        ("certificate_until\t1800000000", "certificate_until", 1_800_000_000),
        ("tls\tm.example.org own", "tls", Tls("m.example.org", "own")),
        ("tls\tm.example.org https://a/dir", "tls", Tls("m.example.org", "https://a/dir")),
        ("tls\t", "tls", None),
        ("generation\t17", "generation", 17),
        ("users\t0", "users", 0),
        ("users_error\tno such table: users", "users_error", "no such table: users"),
        ("schema\tabc", "schema", "abc"),
        ("runs\t12", "runs", 12),
        ("aws_config\tendpoint_url=http://x?a=b", "aws_config", {"endpoint_url": "http://x?a=b"}),
        ("credential\taws_access_key_id", "credential_keys", frozenset({"aws_access_key_id"})),
        ("credentials_mode\t600", "credentials_mode", "600"),
        ("server_env_changed\t17", "server_env_changed", 17),
        ("server_env\t# Made once", "server_env", frozenset({"# Made once"})),
        ("package\tnginx ii ", "packages", frozenset({"nginx"})),
        ("package\tnginx iF ", "packages", frozenset()),
        ("package\tnginx rc ", "packages", frozenset()),
        ("package\tnginx", "packages", frozenset()),
        ("file\tdead 644 /etc/a b", "files", {"/etc/a b": Managed("dead", "644")}),
        ('listener\t*:5000 "nginx" 17', "listeners", (Listener("*:5000", "nginx", 17),)),
        ("listener\t*:5000 ", "listeners", (Listener("*:5000", "", 0),)),
        ("noise without a tab", "home", ""),
    ],
)  # fmt: skip
def test_one_line_is_one_value(line, name, value):
    assert getattr(read(line), name) == value


@pytest.mark.parametrize(
    ("properties", "wanted"),
    [
        ("", Unit()),
        ("LoadState=loaded ActiveState=active SubState=up", Unit("loaded", "active", "up")),
        ("UnitFileState=enabled", Unit(file="enabled")),
        ("ActiveEnterTimestamp=@1800000000 NRestarts=3", Unit(since=1_800_000_000, restarts=3)),
        ("ActiveEnterTimestamp= NRestarts=", Unit()),
        ("MemoryCurrent=451000000 MainPID=17", Unit(memory=451_000_000, pid=17)),
        ("MemoryCurrent=[not_set]", Unit()),
        ("MemoryCurrent=18446744073709551615", Unit()),
    ],
)  # fmt: skip
def test_a_unit_is_what_systemctl_shows(properties, wanted):
    facts = read(*(f"unit\tnginx.service {assignment}" for assignment in properties.split()))
    assert facts.unit("nginx.service") == wanted


def test_a_unit_that_nobody_told_of_is_none():
    assert read().unit("nginx.service") == Unit()


@pytest.mark.parametrize("text", ["", "home\t/home/ubuntu\n", "end", "Please login as ubuntu\n"])
def test_output_that_was_cut_short_is_never_taken_for_facts(text):
    with pytest.raises(ValueError, match="cut short"):
        parse(text)


def test_what_several_probes_print_is_told_apart():
    one, other = "home\t/a\nend\tyes\n", "home\t/b\nend\tyes\n"
    assert parts(one + other, 2) == [one, other]
    with pytest.raises(ValueError, match="cut short"):
        parts(one + "home\t/b\n", 2)


@pytest.mark.parametrize(
    ("users", "wanted"), [("users\t2", True), ("users\t0", False), ("", False)]
)
def test_a_server_has_users_where_the_table_has_rows(users, wanted):
    assert read(users).has_users is wanted


def test_facts_cannot_be_changed_under_way():
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().user = "x"  # type: ignore[misc]


def test_the_probe_names_what_to_look_at_and_quotes_it():
    settings = Settings(root="~/m", port=6000, profile="work")
    bash, *options, text, name, sqlite, postgres = shlex.split(command(settings))
    assert [bash, *options, name] == ["bash", "--norc", "-pc", "facts"]
    assert [sqlite, postgres] == [source("facts_sqlite.py"), source("facts_postgres.py")]
    assert shlex.split(text.splitlines()[-1]) == [
        "look", "~/m", "mlflow-server", "6000", "work",
        *PACKAGES, POSTGRES_CLIENT, "--", *managed_files(settings), "--",
    ]  # fmt: skip


def test_the_probes_of_many_environments_fit_in_one_command():
    environments = (Settings(environment=f"staging-{n}") for n in range(30))
    # Half of what Linux takes as one argument, which sshd makes of it.
    assert len(command(*environments)) < 64 * 1024
