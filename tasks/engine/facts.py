"""What one look at a host says, as frozen values that tasks decide on."""

from __future__ import annotations

import hashlib
from dataclasses import field
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.engine.settings import Settings

# What the guide installs (its "System Dependencies"), nginx, what packs backups, and what these
# need to be installed.
PACKAGES = (
    "python3",
    "python3-venv",
    "curl",
    "git",
    "htop",
    "tmux",
    "nginx",
    "ca-certificates",
    "zstd",
)


POSTGRES_CLIENT = "postgresql-client"  # dumps and restores; for servers on PostgreSQL alone


PASS_FILE = ".pgpass"

READY = "ready_mlflow_server.sh"  # what runs before a server whose databases lie in data/

# What facts.sh calls a file of root's that is not there: eight digits of the digest of nothing.
NOTHING = hashlib.sha256().hexdigest()[:8]


# What sessions are signed with, and what secrets of webhooks are encrypted with: without the second
# one MLflow takes another at each start, and then lists and calls no webhook any more.
SECRET_KEY, WEBHOOK_KEY = "MLFLOW_FLASK_SERVER_SECRET_KEY", "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"

KEYS = frozenset({SECRET_KEY, WEBHOOK_KEY})


@dataclass(frozen=True)
class Unit:
    """One systemd unit as `systemctl show` describes it."""

    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    file: str = ""
    since: int = 0
    changed: int = 0
    restarts: int = 0
    memory: int | None = None
    pid: int = 0


@dataclass(frozen=True)
class Managed:
    """One file of ours on the host: SHA-256 of its content, and its mode."""

    digest: str
    mode: str


@dataclass(frozen=True)
class Listener:
    """Who listens on the server's port: address, program and process id where root could see."""

    address: str
    program: str
    pid: int


def listeners(lines: Sequence[str]) -> tuple[Listener, ...]:
    """Read lines of address, quoted program and process id."""
    result = []
    for line in lines:
        address, _, process = line.partition(" ")
        program, _, pid = process.rpartition(" ")
        result.append(Listener(address, program.strip('"'), int(pid) if pid.isdigit() else 0))
    return tuple(result)


@dataclass(frozen=True)
class Tls:
    """The name that the host serves with TLS, and who certifies it: an ACME address, or `own`."""

    name: str
    authority: str

    @property
    def own(self) -> bool:
        """Tell whether the operator brought the certificate."""
        return self.authority == "own"


@dataclass(frozen=True)
class Nginx:
    """What the host's nginx.conf says: the group of its workers, and what files it includes.

    The defaults are Debian's package; nginx.org's is otherwise.
    """

    group: str = "www-data"
    includes: tuple[str, ...] = ("/etc/nginx/sites-enabled/*",)


@dataclass(frozen=True)
class Site:
    """Where a server's site lies: its file, and the link by which nginx includes it, or ''."""

    file: str
    link: str

    @property
    def included(self) -> str:
        """Return the path that nginx reads it by."""
        return self.link or self.file


@dataclass(frozen=True)
class Guide:
    """A server that the guide made, as files/host/guide/guide.py sees it.

    `unit` is empty where it was started by hand; `store` and `auth` are its databases' files, empty
    for others than SQLite; `destination` is where artifacts lie. `cut_off` says that it was stopped
    by a task that did not come to its end.
    """

    version: str
    unit: str
    active: bool
    enabled: bool
    pid: int
    host: str
    port: int
    store: str
    destination: str
    profile: str
    auth: str
    permission: str
    cut_off: bool = False


@dataclass(frozen=True)
class Facts:
    """A host at one moment. Sizes in KiB where the name says so, times in seconds since 1970."""

    home: str
    user: str
    root: str
    now: int
    sudo: bool = False
    sudo_error: str = ""  # why not, in sudo's words
    os: str = ""
    machine: str = ""
    systemd: bool = False
    python: tuple[int, ...] = ()
    cores: int = 1
    memory_kb: int = 0
    disk_kb: int = 0
    free_kb: int = 0
    addresses: tuple[str, ...] = ()
    packages: frozenset[str] = frozenset()
    release: str | None = None
    foreign: bool = False
    guide: Guide | None = None
    complete: frozenset[str] = frozenset()
    locked: frozenset[str] = frozenset()  # releases whose lock is kept on the host
    tools: str | None = None
    stream: str | None = None  # the installed Litestream's lock
    stream_every: int | None = None  # seconds
    stream_lag: float | None = None  # seconds since both databases were last sent whole
    files: Mapping[str, Managed] = field(default_factory=dict)
    server_env: frozenset[str] = frozenset()
    server_env_changed: int = 0
    bootstrap: bool = False
    proved: str | None = None
    proved_backups: str | None = None  # the same of backups with a bucket or keys of their own
    backup_key: str | None = None  # the id of the key that vouches for backups
    backup_aws: str | None = None  # a digest of the keys that backups alone have for the bucket
    well: str | None = None
    owned: str | None = None  # as whom it marked which prefix, see files/host/deploy/owner.py
    elsewhere: str | None = None  # where files were left, see tasks/changes/elsewhere.py
    server_id: str | None = None
    hostname: str = ""
    backup: str | None = None  # when (seconds since 1970) and which, made by this host
    schedule: str | None = None  # how often, verified how often, and a digest of what timers run
    generation: int = 0
    units: Mapping[str, Unit] = field(default_factory=dict)
    listeners: tuple[Listener, ...] = ()
    credentials: str | None = None
    credential_keys: frozenset[str] = frozenset()
    credentials_mode: str | None = None
    aws_config: Mapping[str, str] = field(default_factory=dict)
    users: int | None = None
    users_error: str | None = None
    schema: str | None = None
    schema_error: str | None = None
    runs: int | None = None
    experiments: int | None = None
    database: str | None = None  # the scheme of its URI, such as sqlite
    store: str | None = None  # that URI, without a password
    auth_store: str | None = None  # the users' one; None is SQLite
    shared: bool = False  # whether key and id are those of all servers of the database
    drained: bool = False  # whether /usable has balancers send nothing here
    database_bytes: int | None = None
    workers: int | None = None
    service_kb: int | None = None  # proportional set size of the service's processes
    certificate_until: int | None = None
    nginx: Nginx = Nginx()
    tls: Tls | None = None

    @property
    def has_users(self) -> bool:
        """Tell whether the users' database can be read and holds any."""
        return bool(self.users)

    def unit(self, name: str) -> Unit:
        """Return a unit; one that nobody knows of is stopped and not there."""
        return self.units.get(name, Unit())


def is_there(facts: Facts, path: str, text: str, mode: str) -> bool:
    """Tell whether the host has this file with this content and mode."""
    found = facts.files.get(path)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return found is not None and found.digest == digest and found.mode == mode


def sites(unit: str) -> tuple[Site, Site]:
    """Return the places that nginx may include a server's site from, Debian's own first."""
    return (
        Site(f"/etc/nginx/sites-available/{unit}", f"/etc/nginx/sites-enabled/{unit}"),
        Site(f"/etc/nginx/conf.d/{unit}.conf", ""),
    )


def site_of(settings: Settings, facts: Facts) -> Site:
    """Return where this host's nginx includes the server's site from; Debian's where nowhere."""
    includes = facts.nginx.includes
    places = sites(settings.unit)
    fitting = [site for site in places if any(fnmatch(site.included, each) for each in includes)]
    # Where it is included already it stays: twice would be one too many.
    there = [site for site in fitting if site.file in facts.files]
    return (*there, *fitting, *places)[0]


def refuse_closed_nginx(settings: Settings, facts: Facts) -> None:
    """Raise Exit where the host's nginx includes none of the places for a server's site."""
    site = site_of(settings, facts)
    if not any(fnmatch(site.included, each) for each in facts.nginx.includes):
        raise Exit(
            "The host's /etc/nginx/nginx.conf includes neither sites-enabled/* nor conf.d/*.conf. "
            "Add `include /etc/nginx/conf.d/*.conf;` to its http block, then type "
            "./fab deploy again."
        )


def is_deployed(settings: Settings, facts: Facts) -> bool:
    """Tell whether our nginx site is on the host."""
    return any(site.file in facts.files for site in sites(settings.unit))


def is_scheduled(settings: Settings, facts: Facts) -> bool:
    """Tell whether a timer makes backups."""
    return facts.unit(f"{settings.unit}-backup.timer").active == "active"


def sudo_trouble(facts: Facts) -> tuple[str, str]:
    """Say why the login user cannot become root, and what is typed on the host against it."""
    user = facts.user
    # sudo goes by the last word that it reads, and passes over files with a dot in their names.
    file = f"/etc/sudoers.d/zzz-{user.replace('.', '-')}"
    if "must have a tty" in facts.sudo_error:
        what = f"sudo wants a terminal of {user} (`requiretty` in sudoers), and tasks have none"
        return what, f"echo 'Defaults:{user} !requiretty' | sudo tee {file}-tty"
    if "password is required" in facts.sudo_error or not facts.sudo_error:
        what = f"sudo asks {user} for a password"
        return what, f"echo '{user} ALL=(ALL) NOPASSWD:ALL' | sudo tee {file}"
    said = facts.sudo_error.removeprefix("sudo: ")
    return f"sudo on the host does not let {user} become root ({said})", ""


def refuse_without_sudo(facts: Facts) -> None:
    """Raise Exit where the login user cannot become root without a password and a terminal."""
    if facts.sudo:
        return
    what, allowing = sudo_trouble(facts)
    mend = f"Allow it, in a terminal on the host: {allowing}" if allowing else "Fix that there."
    raise Exit(f"{what}. {mend}")
