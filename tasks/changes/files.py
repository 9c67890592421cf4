"""The files of ours on the host, what each says, and whom a changed one concerns.

Exit is raised where no bucket is configured, and nothing else.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tasks.changes import elsewhere, wall
from tasks.changes.releases import release_of
from tasks.changes.site import allowed_hosts, allowed_origins, site
from tasks.changes.surroundings import aws_variables
from tasks.engine import stores
from tasks.engine.change import Change
from tasks.engine.facts import READY, is_there, site_of, sites
from tasks.engine.records import dataclass
from tasks.engine.templates import app_folder, render, source, walled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.engine.facts import Facts
    from tasks.engine.settings import Settings


def auth_config(settings: Settings, users: str, username: str, password: str = "") -> str:
    """Return the text that MLFLOW_AUTH_CONFIG_PATH names; deploy takes the password away again.

    `users` is the address of the database of users.
    """
    return render(
        "mlflow_auth_config.ini",
        default_permission=settings.default_permission,
        # MLflow reads the file with interpolation, where a lone % is an error.
        database_uri=users.replace("%", "%%"),
        username=username,
        password=password and f" {password.replace('%', '%%')}",
    )


# Of the host's memory (systemd.resource-control(5)): what is left lets an operator log in and look
# where a request makes the server grow without end.
MEMORY = "75%"

# Where EC2 tells an instance its role's keys, by IPv4 and IPv6.
METADATA = ("169.254.169.254", "fd00:ec2::254")

# Measured on 3.17.2 without the job runner: RSS of 303 to 321 MB for each worker after `verify`;
# 80 MB of it are libraries that several workers share.
WORKER_MB = 320


@dataclass(frozen=True)
class File:
    """One file of ours on the host; its mode as chmod takes it."""

    path: str
    mode: str
    text: str


def differs(facts: Facts, file: File) -> bool:
    """Tell whether the host lacks a file of ours, or has another."""
    return not is_there(facts, file.path, file.text, file.mode)


def files(settings: Settings, facts: Facts) -> list[File]:
    """Return every file of ours but the login's, as the host should have it."""
    unit, root = settings.unit, facts.root
    common = {"unit": unit, "user": facts.user}
    socket = {**common, "group": facts.nginx.group}
    return [
        File(
            f"/etc/systemd/system/{unit}.service",
            "644",
            render(
                "units/server.service",
                root=root,
                confined=walled(root, facts.home),
                metadata=metadata(facts),
                memory_max=settings.memory_max or MEMORY,
                **common,
            ),
        ),
        File(
            f"/etc/systemd/system/{unit}.socket",
            "644",
            render("units/server.socket", **socket),
        ),
        File(f"/etc/tmpfiles.d/{unit}.conf", "644", render("units/tmpfiles.conf", **socket)),
        File(
            site_of(settings, facts).file,
            "644",
            site(settings, facts),
        ),
        ready_script(settings, facts),
        start_script(settings, facts),
    ]


def metadata(facts: Facts) -> str:
    """Spell whether the server may ask its instance for a role: where it has no keys of its own."""
    if facts.credentials is None:
        return "# The server lives on it."
    return f"IPAddressDeny={' '.join(METADATA)}"


def ready_script(settings: Settings, facts: Facts) -> File:
    """Return what is run before the server or its stream starts."""
    text = render("ready_mlflow_server.sh", unit=settings.unit, settle=source("settle.sh").strip())
    return File(f"{facts.root}/{READY}", "700", text)


def start_script(settings: Settings, facts: Facts) -> File:
    """Return what the unit runs. Whatever stands in it restarts MLflow when it changes."""
    return File(
        f"{facts.root}/start_mlflow_server.sh",
        "700",
        render(
            "start_mlflow_server.sh",
            unit=settings.unit,
            site=site_of(settings, facts).file,
            app=app_folder(settings.unit),
            # A new environment must change this file, for only then the server restarts.
            release=facts.release or release_of(settings),
            variables=source("variables.sh").strip(),
            destination=f"s3://{settings.require_bucket()}/{settings.artifact_prefix}",
            profile=settings.profile,
            ai_gateway=str(settings.ai_gateway).lower(),
            aws=aws_variables(settings),
            workers=workers(settings, facts),
            allowed_hosts=",".join(allowed_hosts(settings, facts)),
            allowed_origins=",".join(allowed_origins(settings, facts)),
        ),
    )


def readying(settings: Settings, facts: Facts) -> Change:
    """Return the change that has the next start wait for a switch, as former scripts did not.

    Every release understands the login's file that goes with it. Raises Exit where the settings
    name another place for artifacts.
    """
    elsewhere.refuse_changing(settings, facts)
    behind = wall.putting(settings)
    script = (
        f"{behind.script}\n"
        f'place "$here/ready" "$root/{READY}" 0700\n'
        'place "$here/ready_start" "$root/start_mlflow_server.sh" 0700\n'
        'place "$here/ready_auth" "$root/.mlflow_auth_config" 0600'
    )
    files: dict[str, str | bytes] = {
        **behind.files,
        "ready": ready_script(settings, facts).text,
        "ready_start": start_script(settings, facts).text,
        "ready_auth": auth_file(settings, facts).text,
    }
    return Change("put start_mlflow_server.sh and .mlflow_auth_config", script, files, False)


def auth_file(settings: Settings, facts: Facts) -> File:
    """Return the login's file as it is once the first user exists: without a password."""
    path = f"{facts.root}/.mlflow_auth_config"
    users = stores.current(settings, facts).users
    return File(path, "600", auth_config(settings, users, settings.username))


def must_restart(settings: Settings, differing: Sequence[File]) -> bool:
    """Tell whether the server itself must see one of the files; the others are nginx's."""
    only_nginx = (
        *(site.file for site in sites(settings.unit)),
        f"/etc/tmpfiles.d/{settings.unit}.conf",
    )
    return any(file.path not in only_nginx for file in differing)


def workers(settings: Settings, facts: Facts) -> int:
    """Return the number of workers; 0 in the settings means as many as cores and RAM allow."""
    if settings.workers:
        return settings.workers
    # 60 % of the RAM leaves room for nginx, backups and the page cache.
    room = facts.memory_kb / 1024 * 0.6
    if settings.memory_max:
        from tasks.engine.settings import megabytes

        room = min(room, megabytes(settings.memory_max))
    return max(1, min(facts.cores, int(room // WORKER_MB)))


def deploy_digest(wanted: Sequence[File], facts: Facts) -> str:
    """Return a digest of what a deep check covers: the last one holds until one of these changes.

    `wanted` are our files; the login's does not count, for it is among them only once there are
    users.
    """
    parts = [file.text for file in wanted if not file.path.endswith(".mlflow_auth_config")]
    return hashlib.sha256(
        repr((parts, facts.release, facts.credentials, facts.proved)).encode()
    ).hexdigest()[:16]
