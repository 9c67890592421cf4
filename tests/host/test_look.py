"""A look at a host, by bash itself: facts.sh as its command is sent, and the facts read from it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tasks.engine.facts import Facts, Guide, Listener, Managed, Tls, Unit
from tasks.engine.login import Keys
from tasks.engine.probe import command, guide_command, parse, parts, with_guide
from tasks.engine.settings import Settings

# systemctl(1): an empty line stands between two units. Each restarted as often as its name is long.
SHOWN = """first=yes
while shift && [[ $1 != -* ]]; do
  if [ $first = no ]; then echo; fi
  printf '%s\\n' LoadState=loaded ActiveState=active "NRestarts=${#1}"
  first=no
done
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Stand-ins for what only a Debian host with systemd has."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in {
        "sudo": 'shift; exec "$@"',
        "systemctl": SHOWN,
        "ss": """echo 'LISTEN 0 511 127.0.0.1:5000 0.0.0.0:* users:(("nginx",pid=17,fd=5))'""",
        "dpkg-query": r"printf 'package\tnginx ii \npackage\tcurl rc \n'; exit 1",
    }.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def look(home: Path, programs: Path, settings: Settings | None = None) -> Facts:
    settings = settings or Settings()
    facts = parse(ask(home, programs, command(settings)))
    if facts.foreign:
        facts = with_guide(facts, ask(home, programs, guide_command(settings, facts)))
    return facts


def ask(home: Path, programs: Path, command: str, **variables: str) -> str:
    path = os.pathsep.join((str(programs), str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "-c", command],
        env={"HOME": str(home), "PATH": path, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def lasting(text: str) -> Facts:
    """Read facts but for those that are others at each look."""
    return replace(parse(text), now=0, free_kb=0)


def test_several_environments_are_looked_at_as_each_alone(home, programs, server):
    (home / "mlflow-server-staging").mkdir()
    environments = [Settings(), Settings(environment="staging"), Settings(root="~/m")]
    told = parts(ask(home, programs, command(*environments)), len(environments))
    alone = [ask(home, programs, command(settings)) for settings in environments]

    assert list(map(lasting, told)) == list(map(lasting, alone))
    assert [parse(text).release for text in alone] == ["3.17.2-abc", None, None]


def everything(home: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in home.rglob("*")
        if path.is_file()
    }


def test_a_blank_host_is_read(home, programs):
    facts = look(home, programs)
    assert (facts.home, facts.root) == (str(home), f"{home}/mlflow-server")
    assert facts.python == sys.version_info[:3]
    assert facts.sudo
    assert facts.cores >= 1
    assert facts.memory_kb > 100_000
    assert facts.free_kb > 0
    assert facts.packages == {"nginx"}
    for name in ("mlflow-server.service", "mlflow-server.socket", "nginx.service"):
        assert facts.unit(name) == Unit("loaded", "active", restarts=len(name))
    assert facts.listeners == (Listener("127.0.0.1:5000", "nginx", 17),)
    assert facts.release is None
    assert facts.credentials is None
    assert facts.users is None
    assert facts.generation == 0


@pytest.fixture
def server(home: Path) -> Path:
    """A server's folder as `deploy` leaves it, in a home with a space in its name."""
    root = home / "mlflow-server"
    release = root / "releases/3.17.2-abc"
    (release / "bin").mkdir(parents=True)
    (release / "bin/python").symlink_to(sys.executable)
    (release / ".complete").touch()
    (root / "releases/3.17.1-def").mkdir()
    broken = root / "releases/3.16.0-abc"
    (broken / "bin").mkdir(parents=True)
    (broken / "bin/python").symlink_to("/nowhere/python3")
    (broken / ".complete").touch()
    (root / "venv").symlink_to("releases/3.17.2-abc")
    (root / "tools").mkdir()
    (root / "tools/.complete").write_text("12345678\n")
    (root / "server.env").write_text(
        "# Made once\nMLFLOW_FLASK_SERVER_SECRET_KEY=abc\nMLFLOW_BACKEND_STORE_URI='sqlite:///x'\n"
    )
    (root / ".mlflow_auth_config").write_text("[mlflow]\nadmin_password = secret-word\n")
    (root / ".proved").write_text("stamp\n")
    (root / ".owned").write_text("1a2b3c4d@h s3://b/p at AWS\n")
    (root / ".server-id").write_text("1a2b3c4d\n")
    (root / ".backup").write_text("1800000000 20270115T080000Z-ec2\n")
    (root / "start_mlflow_server.sh").write_text("mlflow server \\\n  --workers 3 \\\n")
    (root / "audit.log").write_text("x" * 17)
    with sqlite3.connect(root / "basic_auth.db") as users:
        users.executescript("create table users (a); insert into users values (1), (2)")
    with sqlite3.connect(root / "mlflow.db") as store:
        store.executescript(
            "create table alembic_version (version_num); insert into alembic_version values ('r1');"
            "create table runs (a, lifecycle_stage);"
            "create table experiments (a, lifecycle_stage);"
            # What lies in the bin does not count.
            "insert into runs values (1, 'active'), (9, 'deleted')"
        )
    return root


@pytest.fixture
def ordinary(programs: Path) -> Path:
    """The same on a host where the login is not root's."""
    (programs / "id").write_text("#!/bin/bash\necho 'uid=1000(me) gid=1000(me) groups=1000(me)'\n")
    (programs / "id").chmod(0o755)
    return programs


def test_a_login_that_cannot_become_root_is_told_why(home, ordinary):
    (ordinary / "sudo").write_text("#!/bin/bash\necho 'sudo: a password is required' >&2; exit 1\n")
    facts = look(home, ordinary)
    assert (facts.sudo, facts.sudo_error) == (False, "sudo: a password is required")
    assert facts.packages == {"nginx"}, "all else is read as ever"


def test_a_look_becomes_root_once_and_asks_systemd_once(home, ordinary, server):
    for name in ("sudo", "systemctl"):
        text = (ordinary / name).read_text()
        noting = f"#!/bin/bash\necho {name} >> '{home}/calls'\n"
        (ordinary / name).write_text(text.replace("#!/bin/bash\n", noting))
    look(home, ordinary)
    assert sorted((home / "calls").read_text().split()) == ["sudo", "systemctl"]


def test_a_server_is_read(home, programs, server):
    facts = look(home, programs)
    assert facts.release == "3.17.2-abc"
    assert facts.complete == {"3.17.2-abc"}, "neither half of one nor one without its Python is"
    assert facts.tools == "12345678"
    assert not facts.foreign
    assert {"MLFLOW_FLASK_SERVER_SECRET_KEY", "MLFLOW_BACKEND_STORE_URI"} <= facts.server_env
    assert facts.bootstrap
    assert (facts.proved, facts.well) == ("stamp", None)
    assert (facts.owned, facts.server_id) == ("1a2b3c4d@h s3://b/p at AWS", "1a2b3c4d")
    assert facts.hostname == os.uname().nodename
    assert facts.generation == 17
    assert (facts.users, facts.schema, facts.runs, facts.experiments) == (2, "r1", 1, 0)
    assert (facts.database, facts.workers) == ("sqlite", 3)
    assert facts.database_bytes == (server / "mlflow.db").stat().st_size
    assert facts.backup == "1800000000 20270115T080000Z-ec2"
    assert facts.files == {
        str(file): Managed(hashlib.sha256(file.read_bytes()).hexdigest(), "644")
        for file in (server / "start_mlflow_server.sh", server / ".mlflow_auth_config")
    }, "of those that are managed the ones that are there"


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("'postgresql+psycopg2://u:secret@db/x'", "postgresql"),
        ("postgresql://u:secret?secret@db/x", "postgresql"),
        ("postgresql://u:secret@secret@db/x?a=b@c", "postgresql"),
        ("postgresql://u@az:secret@db/x", "postgresql"),
        ("postgresql://u@db:5432/x?a=b@c&sslpassword=secret&password=secret", "postgresql"),
        ("'postgresql+psycopg2://u@db/x?sslmode=require&password=secret'", "postgresql"),
        ('"mysql://x"', "mysql"),
        ("sqlite:////home/x", "sqlite"),
    ],
)
def test_a_database_s_address_is_told_without_its_password(home, programs, server, uri, scheme):
    (server / "server.env").write_text(f"MLFLOW_BACKEND_STORE_URI={uri}\n")
    facts = look(home, programs)
    assert facts.database == scheme
    assert facts.store == re.sub(":secret([@?]secret)?|secret", "", uri.strip("'\""))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[mlflow]\nadmin_password = x", True),
        ("admin_password=\\\n", True),
        ("[mlflow]\nadmin_password = \ndefault_permission = READ\n", False),
        ("no_admin_password = x\n", False),
    ],
)
def test_a_password_of_the_first_start_is_seen(home, programs, server, text, wanted):
    (server / ".mlflow_auth_config").write_text(text)
    assert look(home, programs).bootstrap is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("sync-interval: 5s\n", 5), ("dbs:\nsync-interval: 30s", 30), ("#sync-interval: 5s\n", None)],
)
def test_how_often_databases_are_sent_is_read(home, programs, server, text, wanted):
    (server / "stream.yml").write_text(text)
    assert look(home, programs).stream_every == wanted


def test_looking_changes_nothing(home, programs, server):
    before = everything(home)
    look(home, programs)
    assert everything(home) == before


def test_the_database_of_a_server_that_was_killed_is_read_and_not_repaired(home, programs, server):
    script = (
        "import os, sqlite3, sys\n"
        "store = sqlite3.connect(sys.argv[1])\n"
        "store.execute('pragma journal_mode=wal')\n"
        "store.execute('insert into runs values (2, \"active\")')\n"
        "store.commit()\n"
        "os._exit(0)\n"  # without closing: the row is in the log beside the database
    )
    subprocess.run([sys.executable, "-c", script, server / "mlflow.db"], check=True)
    names = ("mlflow.db", "mlflow.db-wal")
    before = [(server / name).read_bytes() for name in names]
    assert look(home, programs).runs == 2
    assert [(server / name).read_bytes() for name in names] == before


NO_FILES = (
    ".aws/credentials", ".aws/config", "m/server.env", "m/stream.yml", "m/.mlflow_auth_config",
    "m/start_mlflow_server.sh", "m/.proved", "m/.server-id", "m/mlflow.db", "m/basic_auth.db",
)  # fmt: skip


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_passed_over(home, programs, make):
    for name in NO_FILES:
        (home / name).parent.mkdir(exist_ok=True)
        make(home / name)
    found = ask(home, programs, command(Settings(root="~/m"), Settings()))
    broken, sound = map(parse, parts(found, 2))
    assert (broken.credentials, broken.aws_config, broken.store) == (None, {}, None)
    assert broken.schema_error
    assert broken.users_error
    assert sound.packages == {"nginx"}


def test_what_a_database_says_at_length_is_cut(home, programs, server):
    with sqlite3.connect(server / "mlflow.db") as store:
        store.execute("delete from alembic_version")
        store.execute("insert into alembic_version values (?)", ("x" * 900_000,))
    assert look(home, programs).schema == "x" * 300


# What a login's own files may do, each of which once spoiled a look or changed what it said.
LOGIN_FILES = """
set -e
shopt -s failglob compat31 expand_aliases
readonly user=x; declare -u value line file key; IFS=:
sudo() { echo mine; }
alias read=false fact=false
"""


def test_the_login_s_own_files_change_nothing(home, programs, server):
    credentials(home, "[default]\naws_access_key_id=A\naws_secret_access_key=b\n")
    plain = ask(home, programs, command(Settings()))
    (home / ".bashrc").write_text(LOGIN_FILES)
    spoiled = ask(home, programs, command(Settings()), SSH_CLIENT="1 2 3", IFS=":")
    assert lasting(spoiled) == lasting(plain)


def test_a_database_that_cannot_be_read_says_why(home, programs, server):
    (server / "basic_auth.db").write_text("this is no database, however long it may be" * 99)
    facts = look(home, programs)
    assert facts.users is None
    assert facts.users_error == "file is not a database"
    assert facts.runs == 1


def test_a_folder_where_our_link_should_be_is_somebody_else_s(home, programs, server):
    (server / "venv").unlink()
    (server / "venv").mkdir()
    facts = look(home, programs)
    assert facts.foreign
    assert facts.release is None


def test_no_secret_leaves_the_host(home, programs, server, monkeypatch):
    credentials(home, "[default]\naws_access_key_id = AKIA\naws_secret_access_key = hidden-key\n")
    done = subprocess.run(
        ["bash", "-c", command(Settings())],
        env={"HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    for secret in ("hidden-key", "AKIA", "secret-word", "=abc"):
        assert secret not in done.stdout


def credentials(home: Path, text: str, config: str = "") -> None:
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text(text)
    (home / ".aws/credentials").chmod(0o600)
    (home / ".aws/config").write_text(config)


BOTH = frozenset({"aws_access_key_id", "aws_secret_access_key"})


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("[default]\naws_access_key_id=A\naws_secret_access_key=B\n", Keys("A", "B")),
        ("[default]\n  aws_access_key_id =  A \naws_secret_access_key= B+/= \n", Keys("A", "B+/=")),
        (" [\tdefault ]\naws_access_key_id\t=\tA\naws_secret_access_key=B", Keys("A", "B")),
        ("[default]\naws_secret_access_key=*\\n$x\naws_access_key_id='A'\n", Keys("'A'", "*\\n$x")),
        (
            "[other]\naws_access_key_id=X\n[ default ]\naws_secret_access_key=B\n"
            "aws_session_token=T\naws_access_key_id=A\n[more]\naws_access_key_id=Y\n",
            Keys("A", "B", "T"),
        ),
        ("# c\n[default]\n# d=e\naws_access_key_id=A\naws_secret_access_key=B\n", Keys("A", "B")),
        (
            "[default]\naws_access_key_id=A\naws_secret_access_key=B\nregion=eu-west-1\n",
            Keys("A", "B"),
        ),
    ],
)
def test_the_host_s_keys_have_the_digest_of_ours(home, programs, text, keys):
    credentials(home, text)
    facts = look(home, programs)
    assert facts.credentials == keys.digest
    assert facts.credential_keys == BOTH
    assert facts.credentials_mode == "600"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("[default]\naws_access_key_id=A\n", {"aws_access_key_id"}),
        ("[default]\naws_access_key_id=A\naws_secret_access_key=\n", {"aws_access_key_id"}),
    ],
)
def test_half_a_pair_of_keys_is_seen_as_half(home, programs, text, keys):
    credentials(home, text)
    facts = look(home, programs)
    assert facts.credential_keys == keys
    assert facts.credentials is not None


@pytest.mark.parametrize(
    "text", ["", "[other]\naws_access_key_id=A\n", "[default]\ncredential_process = /bin/keys\n"]
)
def test_a_profile_without_keys_has_none(home, programs, text):
    credentials(home, text)
    assert look(home, programs).credentials is None


@pytest.mark.parametrize(
    ("profile", "wanted"),
    [
        ("default", {"region": "eu-west-1"}),
        ("work", {"region": "us-east-2", "endpoint_url": "http://minio:9000/a=b"}),
        ("none", {}),
    ],
)
def test_the_profile_s_region_and_endpoint_are_read(home, programs, profile, wanted):
    credentials(
        home,
        "",
        "[default]\nregion = eu-west-1\noutput = json\n"
        "[profile work]\nregion=us-east-2\nendpoint_url = http://minio:9000/a=b\n",
    )
    assert look(home, programs, Settings(profile=profile)).aws_config == wanted


@pytest.fixture
def guides(server: Path) -> Path:
    """The folder of a server that the guide made, which does not run."""
    (server / "venv").unlink()
    (server / "venv/lib/python3.11/site-packages/mlflow-2.22.1.dist-info").mkdir(parents=True)
    (server / "start_mlflow_server.sh").write_text(
        "export AWS_PROFILE=basketworld\nmlflow server \\\n"
        '  --backend-store-uri "sqlite:///mlflow.db" \\\n'
        '  --artifacts-destination "s3://bucket/mlflow-artifacts" \\\n  --port 5005\n'
    )
    return server


def test_a_server_that_the_guide_made_is_recognised_by_its_real_venv(home, programs, guides):
    server = guides
    facts = look(home, programs)
    assert not facts.foreign
    assert facts.guide is not None
    found = (facts.guide.version, facts.guide.active, facts.guide.port, facts.guide.profile)
    assert found == ("2.22.1", False, 5005, "basketworld")
    assert facts.guide.destination == "s3://bucket/mlflow-artifacts"
    assert facts.guide.store == f"{server}/mlflow.db"
    assert facts.guide.auth == f"{server}/basic_auth.db"


def noted(guides: Path) -> Guide:
    """Leave what a takeover has left once it stopped the server; returns what ran before."""
    (guides / "venv/.guide").mkdir()
    ran = Guide("2.22.1", "mlflow", True, True, 77, "0.0.0.0", 5005, "a", "s3://b/c", "p", "b", "R")
    (guides / "venv/.guide/ran.json").write_text(json.dumps({"argv": ["x"], **asdict(ran)}))
    (guides / "venv/.guide/stopped").touch()
    return ran


@pytest.mark.parametrize("moved", ["not yet", "without its name", "with its name"])
def test_how_it_ran_is_known_wherever_its_takeover_was_cut_off(home, programs, guides, moved):
    ran = noted(guides)
    if moved != "not yet":
        (guides / "releases").mkdir(exist_ok=True)
        (guides / "venv").rename(guides / "releases/2.22.1-guide")
    if moved == "with its name":
        (guides / "venv").symlink_to("releases/2.22.1-guide")
    facts = look(home, programs)
    assert (facts.foreign, facts.release) == (False, None)
    assert facts.guide == replace(ran, active=False, pid=0, cut_off=True)


def test_once_taken_over_it_is_no_longer_the_guide_s(home, programs, guides):
    noted(guides)
    (guides / "releases").mkdir(exist_ok=True)
    (guides / "venv").rename(guides / "releases/2.22.1-guide")
    (guides / "venv").symlink_to("releases/3.17.2-abc")
    facts = look(home, programs)
    assert (facts.foreign, facts.guide, facts.release) == (False, None, "3.17.2-abc")


CURL = r"""case "$*" in
  *"-X PUT"*) echo a-token ;;
  *"aws-ec2-metadata-token: a-token"*public-ipv4) echo 203.0.113.10 ;;
  *) exit 22 ;;
esac"""


@pytest.mark.parametrize(("vendor", "wanted"), [("Amazon EC2", True), ("QEMU", False)])
def test_on_ec2_the_address_that_others_use_is_one_of_the_host_s(home, programs, vendor, wanted):
    stand_ins = {
        "curl": CURL,
        "hostname": "echo '10.0.0.5 '",
        # What the machine calls itself stands in /sys.
        "grep": f"""[ "$2" != 'Amazon EC2' ] && exec {shutil.which("grep")} "$@"
            [ "{vendor}" = 'Amazon EC2' ]""",
    }
    for name, script in stand_ins.items():
        (programs / name).write_text(f"#!/bin/bash\n{script}\n")
        (programs / name).chmod(0o755)
    addresses = look(home, programs).addresses
    assert addresses == (("10.0.0.5", "203.0.113.10") if wanted else ("10.0.0.5",))


def test_the_name_that_a_host_serves_is_read_from_its_folder(home, programs):
    (home / "mlflow-server").mkdir()
    (home / "mlflow-server/.tls").write_text("m.example.org https://acme.example/dir\n")
    found = look(home, programs).tls
    assert found == Tls("m.example.org", "https://acme.example/dir")
    assert not found.own
