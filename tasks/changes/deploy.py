"""The change that ships a server's files and sees it serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import owner, schedule, wall
from tasks.changes import stream as streams
from tasks.changes.configure import env_changes, has_outdated_env, share_changes
from tasks.changes.files import auth_file, deploy_digest, differs, files, must_restart
from tasks.changes.presence import refuse_other_root
from tasks.changes.proofs import CHECK, deep_check
from tasks.changes.site import listeners, pair, site_words
from tasks.engine import stores
from tasks.engine.change import Change
from tasks.engine.facts import is_deployed, refuse_closed_nginx, refuse_without_sudo
from tasks.engine.records import dataclass
from tasks.engine.shell import sh
from tasks.engine.templates import source, staged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.changes.files import File
    from tasks.engine.facts import Facts
    from tasks.engine.login import Login
    from tasks.engine.settings import Settings


def changes(settings: Settings, facts: Facts, login: Login | None, over: str = "") -> list[Change]:
    """Decide what deploying would do; raises Exit where something must come first.

    `over` is the server whose mark on the prefix may be replaced.
    """
    settings.require_bucket()
    refuse_without_sudo(facts)
    refuse_other_root(settings, facts)
    if facts.release is None or facts.release not in facts.complete:
        raise Exit("MLflow is not installed on the host yet. Type: ./fab install configure deploy")
    if not facts.server_env or not (facts.has_users or facts.bootstrap):
        raise Exit("The server has no first login yet. Type: ./fab configure deploy")
    stores.refuse_other(settings, facts)
    refuse_taken_port(settings, facts)
    refuse_closed_nginx(settings, facts)

    marking = [] if owner.is_marked(settings, facts) else [owner.marking(settings, over)]
    # What goes on by itself beside the server goes by the same layout, settings and programs.
    streamed = [file for file in streams.present(settings, facts) if differs(facts, file)]
    renewed = schedule.renewing(settings, facts)
    wanted, after = wanted_files(settings, facts), auth_file(settings, facts)
    differing = [file for file in wanted if differs(facts, file)]
    stamp = deploy_digest(wanted, facts)
    idle = not_running(settings, facts)
    elsewhere = listens_elsewhere(settings, facts)
    drained = facts.drained and bool(settings.balancers)
    keys = key_changes(settings, facts)
    outdated = bool(keys) or has_outdated_env(settings, facts)
    behind = [*keys, *wall.changes(settings, facts)]
    needs_deploy = behind or outdated or streamed or differing or idle or elsewhere or drained
    if not (needs_deploy or facts.bootstrap) and facts.well == stamp:
        return [*marking, *renewed]

    # The stream's come first: one of former files would follow other databases than the server has.
    shipped = [*streamed, *differing]
    sentences = [f"put {file.path}" for file in shipped]
    sentences += [f"start {name}" for name in idle]
    if elsewhere:
        sentences.append(f"have nginx listen on {' and '.join(listeners(settings))} alone")
    if facts.bootstrap:
        sentences.append("take the first password off the host")
    if drained:
        sentences.append("have balancers send requests here again")
    if outdated and not differing:
        sentences.append("have the server see server.env")
    sentences.append(CHECK)
    restart = outdated or must_restart(settings, differing)
    what = "; ".join(sentences)
    first = stores.in_common(settings) is not None and not facts.has_users
    shipment = Shipment(what, shipped, after, stamp, restart, first, bool(streamed))
    return [*marking, *behind, deploying(settings, facts, shipment, login), *renewed]


def wanted_files(settings: Settings, facts: Facts) -> list[File]:
    """Return the files as a host should have them, the login's among them once there are users."""
    return files(settings, facts) + ([auth_file(settings, facts)] if facts.has_users else [])


def restarts(settings: Settings, facts: Facts) -> bool:
    """Tell whether deploying would restart a server that runs."""
    if facts.unit(f"{settings.unit}.service").active != "active":
        return False
    differing = [file for file in wanted_files(settings, facts) if differs(facts, file)]
    outdated = bool(key_changes(settings, facts)) or has_outdated_env(settings, facts)
    return outdated or must_restart(settings, differing)


def key_changes(settings: Settings, facts: Facts) -> list[Change]:
    """Return what gives server.env the keys that it lacks, or that other servers have."""
    return [*env_changes(settings, facts), *share_changes(settings, facts)]


@dataclass(frozen=True)
class Shipment:
    """What a deployment puts on a host, in a sentence and as files, and what that asks for."""

    what: str
    files: Sequence[File]
    after: File  # the login's file, once the server has its users
    well: str  # what is written down when the server is seen well
    restart: bool = False  # the server must see new files
    first: bool = False  # its database, which others have too, lacks tables and users
    stream: bool = False  # the stream must see new files


def deploying(settings: Settings, facts: Facts, shipment: Shipment, login: Login | None) -> Change:
    """Build the one change that ships the files and sees the server well."""
    tls = facts.tls
    places = [f"file{n}\t{file.mode}\t{file.path}\n" for n, file in enumerate(shipment.files)]
    files = deep_check(settings, login) | staged("log_ahead.py") | staged("forget_unmade.py")
    files |= {"after": shipment.after.text, "places": "".join(places)}
    files |= {f"file{n}": file.text for n, file in enumerate(shipment.files)}
    if shipment.first:
        files |= staged("first_start.py")
    restart, first, stream = (
        "yes" if each else "no" for each in (shipment.restart, shipment.first, shipment.stream)
    )
    script = "\n".join(
        (
            f"unit={settings.unit} port={settings.port} restart={restart}",
            f"listen={sh(' '.join(sorted(listeners(settings))))} first={first} stream={stream}",
            f"well={shipment.well} group={sh(facts.nginx.group)} {site_words(settings, facts)}",
            f"tls_name={sh(tls.name)} certificate={sh(pair(settings, tls).certificate)}"
            if tls
            else "tls_name= certificate=",
            source("health.sh"),
            source("stream.sh"),
            source("check_https.sh"),
            source("drain.sh" if settings.balancers else "alone.sh"),
            source("deploy.sh"),
        )
    )
    return Change(shipment.what, script, files, announce=False)


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
            way = "End it"
            if listener.program == "nginx":  # which serves somebody there
                way = "If an environment was renamed, put its former name back (docs/settings.md)"
            raise Exit(
                f"Port {settings.port} of the host is taken by {who} at {listener.address}. {way}, "
                "or set another `port:` under `mlflow:` in fabric.yaml."
            )
