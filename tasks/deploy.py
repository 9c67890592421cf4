"""Put the server's files in place, start it, and prove that it is usable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from invoke import Exit

from tasks import credentials, owner, stores
from tasks.commands import sh
from tasks.configure import auth_config, environment, is_there
from tasks.credentials import Login
from tasks.facts import Facts, Tls
from tasks.install import refuse_without_sudo
from tasks.kinds import Host, remote
from tasks.releases import release_of
from tasks.server import Change, Server
from tasks.site import LOOPBACK, allowed_hosts, allowed_origins, listeners, pair, site
from tasks.templates import confined, read, render

if TYPE_CHECKING:
    from tasks.settings import Settings

FIRST = ("first_start.py", "postgres.py", "databases.py")
CHECK = "check login, database and bucket"
# Measured on 3.17.2 without the job runner: 431 MB with one worker, about 190 MB for each more.
FIRST_WORKER_MB, MORE_WORKER_MB = 431, 190


@dataclass(frozen=True)
class File:
    """One file of ours on the host."""

    path: str
    mode: str
    text: str


def serves(server: Server) -> bool:
    """Tell whether a server of ours runs, so that clients would notice its restart."""
    settings, facts = server.settings, server.facts
    active = facts.unit(f"{settings.unit}.service").active == "active"
    return is_deployed(settings, facts) and active


@remote(
    then="verify",
    in_turn=serves,
    help={"yes": "take over a server of the guide's, or another server's prefix, without asking"},
)
def deploy(c: Host, yes: bool = False) -> None:
    """Ship the files that differ, start, check it is usable.

    Restarts only when something changed that the server must see, and loses no request doing so:
    they wait in the socket. Then looks whether login, database and bucket work, and takes the
    first password off the host. A failure puts the former files and server back. The first time
    it marks the artifacts' prefix as this server's; another server's mark makes it ask.

    Several with one database are deployed one after the other once one of them serves, each taken
    out of what balancers choose from while it restarts; the first failure leaves the others alone.

    A server that the guide made is taken over with all its runs and users, after asking.

    Example: fab -H ec2 deploy
    """
    server = c.server
    if server.facts.guide:
        from tasks.adopt import adopt

        adopt(server, yes)
        return
    login = credentials.known(server)
    settings, scheduled = server.settings, is_scheduled(server.settings, server.facts)
    needed = changes(settings, server.facts, login)
    if needed:
        if not owner.is_marked(settings, server.facts):
            needed = changes(settings, server.facts, login, owner.agreed(server, yes))
        server.apply("deploy", needed)
        also = f", and https://{tls.name}" if (tls := server.facts.tls) else ""
        server.say(
            f"✓ MLflow serves http://{settings.bind}:{settings.port} on the host{also}", "green"
        )
        if login is None:
            server.warn("checked without a login: none of this server's is known (./fab client)")
    else:
        server.say("deploy: nothing to change, the server is well")
    if settings.balancers:
        server.warn(
            f"from the balancer to the servers passwords pass the network in the clear: let nobody "
            f"else reach port {settings.port} of the hosts (docs/several.md)"
        )
    elif settings.bind not in LOOPBACK:
        again = server.fab("tls.enable")
        server.warn(
            f"bind: {settings.bind} lets passwords pass the network in the clear. Safer: leave it "
            f"out and use the tunnel, or {again}"
        )
    if not scheduled:
        again = server.fab("backup.schedule")
        server.say(f"no schedule makes backups yet: {again}")


def changes(settings: Settings, facts: Facts, login: Login | None, over: str = "") -> list[Change]:
    """Decide what deploying would do; raises Exit where something must come first.

    `over` is the server whose mark on the prefix may be replaced.
    """
    settings.require_bucket()
    refuse_without_sudo(facts)
    if facts.release is None or facts.release not in facts.complete:
        raise Exit("MLflow is not installed on the host yet. Type: ./fab install configure deploy")
    if not facts.server_env or not (facts.has_users or facts.bootstrap):
        raise Exit("The server has no first login yet. Type: ./fab configure deploy")
    stores.refuse_other(settings, facts)
    refuse_taken_port(settings, facts)

    marking = [] if owner.is_marked(settings, facts) else [owner.marking(settings, over)]
    wanted = files(settings, facts)
    after = auth_file(settings, facts)
    if facts.has_users:
        wanted.append(after)
    differing = [file for file in wanted if not is_there(facts, file.path, file.text, file.mode)]
    stamp = wellness(wanted, facts)
    idle = not_running(settings, facts)
    elsewhere = listens_elsewhere(settings, facts)
    drained = facts.drained and bool(settings.balancers)
    amiss = differing or idle or elsewhere or drained or facts.bootstrap
    if not amiss and facts.well == stamp:
        return marking

    sentences = [f"put {file.path}" for file in differing]
    sentences += [f"start {name}" for name in idle]
    if elsewhere:
        sentences.append(f"have nginx listen on {' and '.join(listeners(settings))} alone")
    if facts.bootstrap:
        sentences.append("take the first password off the host")
    if drained:
        sentences.append("have balancers send requests here again")
    sentences.append(CHECK)
    restart = must_restart(settings, differing)
    what = "; ".join(sentences)
    first = stores.in_common(settings) is not None and not facts.has_users
    return [
        *marking,
        deploying(settings, what, differing, after, stamp, login, restart, facts.tls, first),
    ]


def deploying(
    settings: Settings,
    what: str,
    differing: Sequence[File],
    after: File,
    stamp: str,
    login: Login | None,
    restart: bool,
    tls: Tls | None = None,
    first: bool = False,
) -> Change:
    """Build the one change that ships the files and sees the server well.

    `first` says that its database, which others have too, lacks tables and users.
    """
    staged = deep_check() | {
        "after": after.text,
        "places": "".join(
            f"file{n}\t{file.mode}\t{file.path}\n" for n, file in enumerate(differing)
        ),
    }
    for n, file in enumerate(differing):
        staged[f"file{n}"] = file.text
    if first:
        staged |= {name: read(f"host/{name}") for name in FIRST}
    script = "\n".join(
        (
            f"unit={settings.unit} port={settings.port} restart={'yes' if restart else 'no'}",
            f"listen={sh(' '.join(sorted(listeners(settings))))} first={'yes' if first else 'no'}",
            f"well={stamp} login={stage_login(staged, login)}",
            f"tls_name={sh(tls.name)} certificate={sh(pair(settings, tls).certificate)}"
            if tls
            else "tls_name= certificate=",
            read("host/health.sh"),
            read("host/check_https.sh"),
            read(f"host/{'drain' if settings.balancers else 'alone'}.sh"),
            read("host/deploy.sh"),
        )
    )
    return Change(what, script, staged, announce=False)


def deep_check() -> dict[str, str | bytes]:
    """Return the program that proves the server usable, with what it imports."""
    return {name: read(f"host/{name}") for name in ("deep_check.py", "tracking.py")}


def stage_login(staged: dict[str, str | bytes], login: Login | None) -> str:
    """Stage the login as a file for the deep check; return its place as a word for the script."""
    if login is None:
        return "-"
    staged["login.json"] = json.dumps({"username": login.username, "password": login.password})
    return '"$here/login.json"'


def login_check(settings: Settings, login: Login) -> Change:
    """Build the change that only asks whether the server takes this login."""
    staged = deep_check()
    place = stage_login(staged, login)
    script = f'"$root/venv/bin/python" "$here/deep_check.py" {settings.port} {place}'
    return Change(f"check the login of {login.username}", script, staged)


def files(settings: Settings, facts: Facts) -> list[File]:
    """Render every file of ours but the login's."""
    unit, root = settings.unit, facts.root
    common = {"unit": unit, "user": facts.user}
    return [
        File(
            f"/etc/systemd/system/{unit}.service",
            "644",
            render(
                "mlflow-server.service",
                root=root,
                confined=confined(root, facts.home),
                memory_max=settings.memory_max or "infinity",
                **common,
            ),
        ),
        File(
            f"/etc/systemd/system/{unit}.socket",
            "644",
            render("mlflow-server.socket", **common),
        ),
        File(f"/etc/tmpfiles.d/{unit}.conf", "644", render("tmpfiles.conf", **common)),
        File(
            f"/etc/nginx/sites-available/{unit}",
            "644",
            site(settings, facts),
        ),
        start_script(settings, facts),
    ]


def start_script(settings: Settings, facts: Facts) -> File:
    """Render what the unit runs."""
    return File(
        f"{facts.root}/start_mlflow_server.sh",
        "700",
        render(
            "start_mlflow_server.sh",
            unit=settings.unit,
            # A new environment must change this file, for only then the server restarts.
            release=facts.release or release_of(settings),
            settle=read("host/settle.sh").strip(),
            bind=settings.bind,
            port=settings.port,
            destination=f"s3://{settings.require_bucket()}/{settings.artifact_prefix}",
            profile=settings.profile,
            aws=aws_variables(settings),
            workers=workers(settings, facts),
            allowed_hosts=",".join(allowed_hosts(settings, facts)),
            allowed_origins=",".join(allowed_origins(settings, facts)),
        ),
    )


def readying(settings: Settings, facts: Facts) -> Change:
    """Build the change that has the next start wait for a switch, as former scripts did not.

    Every release understands the login's file that goes with it.
    """
    script = (
        'place "$here/ready_start" "$root/start_mlflow_server.sh" 0700\n'
        'place "$here/ready_auth" "$root/.mlflow_auth_config" 0600'
    )
    files: dict[str, str | bytes] = {
        "ready_start": start_script(settings, facts).text,
        "ready_auth": auth_file(settings, facts).text,
    }
    return Change("put start_mlflow_server.sh and .mlflow_auth_config", script, files, False)


def auth_file(settings: Settings, facts: Facts) -> File:
    """Render the login's file as it is once the first user exists: without a password."""
    path = f"{facts.root}/.mlflow_auth_config"
    users = stores.current(settings, facts).users
    return File(path, "600", auth_config(settings, users, settings.username))


def managed_files(settings: Settings) -> list[str]:
    """Name the files whose content decides whether something must be shipped."""
    unit, root = settings.unit, settings.root_path
    return [
        f"/etc/systemd/system/{unit}.service",
        f"/etc/systemd/system/{unit}.socket",
        f"/etc/tmpfiles.d/{unit}.conf",
        f"/etc/nginx/sites-available/{unit}",
        f"/etc/ssl/certs/{unit}.pem",
        f"{root}/start_mlflow_server.sh",
        f"{root}/.mlflow_auth_config",
        f"{root}/{stores.PASS_FILE}",
        *(f"/etc/systemd/system/{name}" for name in schedule_units(settings)),
    ]


def schedule_units(settings: Settings) -> list[str]:
    """Name the units of a schedule of backups."""
    names = (f"{settings.unit}-backup", f"{settings.unit}-backup-verify")
    return [f"{name}.{kind}" for name in names for kind in ("service", "timer")]


def must_restart(settings: Settings, differing: Sequence[File]) -> bool:
    """Tell whether the server itself must see one of the files; the others are nginx's."""
    only_nginx = (
        f"/etc/nginx/sites-available/{settings.unit}",
        f"/etc/tmpfiles.d/{settings.unit}.conf",
    )
    return any(file.path not in only_nginx for file in differing)


def as_the_server(settings: Settings) -> str:
    """Spell for a script on the host what the server has: AWS profile, region, endpoint, and the
    file where libpq finds a password.
    """
    passwords = 'PGPASSFILE="$root/.pgpass"'
    return f"{environment(settings)}\nset -a\n{passwords}\n{aws_variables(settings)}\nset +a"


def aws_variables(settings: Settings) -> str:
    """Spell region and endpoint for the server; nothing where AWS's own defaults are meant."""
    given = {
        "AWS_DEFAULT_REGION": settings.region,
        "MLFLOW_S3_ENDPOINT_URL": settings.endpoint_url,
    }
    lines = [f"{name}={sh(value)}" for name, value in given.items() if value]
    return "\n".join(lines) or "# region and endpoint: AWS's own"


def workers(settings: Settings, facts: Facts) -> int:
    """Return the number of workers; 0 in the settings means as many as cores and RAM allow."""
    if settings.workers:
        return settings.workers
    # 60 % of the RAM leaves room for nginx, backups and the page cache.
    room = facts.memory_kb / 1024 * 0.6
    if settings.memory_max:
        from tasks.settings import megabytes

        room = min(room, megabytes(settings.memory_max))
    room -= FIRST_WORKER_MB
    return max(1, min(facts.cores, 1 + int(room // MORE_WORKER_MB)))


def not_running(settings: Settings, facts: Facts) -> list[str]:
    """Name the units that are not active, or would not be after a reboot."""
    names = (f"{settings.unit}.socket", f"{settings.unit}.service", "nginx.service")
    return [
        name
        for name in names
        if (unit := facts.unit(name)).active != "active" or unit.file != "enabled"
    ]


def listens_elsewhere(settings: Settings, facts: Facts) -> bool:
    """Tell whether nginx listens on the server's port at other addresses than the settings say."""
    found = {listener.address for listener in facts.listeners if listener.program == "nginx"}
    return bool(found) and found != set(listeners(settings))


def refuse_taken_port(settings: Settings, facts: Facts) -> None:
    """Raise Exit where another program listens on the server's port, naming it."""
    for listener in facts.listeners:
        ours = listener.program == "nginx" and is_deployed(settings, facts)
        guides = facts.guide and facts.guide.active and facts.guide.port == settings.port
        if not (ours or guides):
            who = f"{listener.program or 'a program'} (process {listener.pid})"
            raise Exit(
                f"Port {settings.port} of the host is taken by {who} at {listener.address}. End "
                "it, or set another `port:` under `mlflow:` in fabric.yaml."
            )


def is_deployed(settings: Settings, facts: Facts) -> bool:
    """Tell whether our nginx site is on the host."""
    return f"/etc/nginx/sites-available/{settings.unit}" in facts.files


def is_scheduled(settings: Settings, facts: Facts) -> bool:
    """Tell whether a timer makes backups."""
    return facts.unit(f"{settings.unit}-backup.timer").active == "active"


def wellness(wanted: Sequence[File], facts: Facts) -> str:
    """Digest what the last deep check covered: it holds until one of these changes."""
    parts = [file.text for file in wanted if not file.path.endswith(".mlflow_auth_config")]
    return hashlib.sha256(
        repr((parts, facts.release, facts.credentials, facts.proved)).encode()
    ).hexdigest()[:16]
