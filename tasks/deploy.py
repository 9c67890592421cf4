"""Put the server's files in place, start it, and prove that it is usable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.changes import backup_key, elsewhere, owner
from tasks.changes.deploy import changes
from tasks.changes.site import LOOPBACK
from tasks.engine import credentials, templates
from tasks.engine.facts import is_deployed, is_scheduled
from tasks.engine.server import StepFailed
from tasks.engine.task import remote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.engine.change import Change
    from tasks.engine.server import Server
    from tasks.engine.task import Host


def serves(server: Server) -> bool:
    """Tell whether a server of ours runs, so that clients would notice its restart."""
    settings, facts = server.settings, server.facts
    active = facts.unit(f"{settings.unit}.service").active == "active"
    return is_deployed(settings, facts) and active


@remote(
    then="verify",
    in_turn=serves,
    guides_name="deploy-service",
    meanwhile=templates.prepare,
    help={
        "yes": "take over a server of the guide's, or another server's prefix, without asking",
        "move_artifacts": "where the settings name another place: copy former runs' files there",
        "leave_artifacts": "where the settings name another place: leave former runs' files",
    },
)
def deploy(
    c: Host, yes: bool = False, move_artifacts: bool = False, leave_artifacts: bool = False
) -> None:
    """Ship the files that differ, start, check it is usable.

    Restarts only when something changed that the server must see, and loses no request doing so:
    they wait in the socket. Then looks whether login, database and bucket work, and takes the
    first password off the host. A failure puts the former files and server back. The first time
    it marks the artifacts' prefix as this server's; another server's mark makes it ask.

    Several with one database are deployed one after the other once one of them serves, each taken
    out of what balancers choose from while it restarts; the first failure leaves the others alone.

    A server that the guide made is taken over with all its runs and users, after asking.

    Where the settings name another place for artifacts, it counts the files that would be found no
    more and stops. --move-artifacts copies them, within the store where it can, and compares; what
    is at the former place stays. A copy that was cut off is continued by the same command.

    Example: fab -H ec2 deploy
    """
    server = c.server
    if server.facts.guide:
        from tasks.changes.adopt import adopt

        adopt(server, yes)
        return
    login = credentials.known(server)
    settings, scheduled = server.settings, is_scheduled(server.settings, server.facts)
    found = _left_behind(server, move_artifacts, leave_artifacts)
    needed = changes(settings, server.facts, login)
    keys = backup_key.agreeing(server)
    if keys or needed or found:
        _apply(server, keys, yes, found, move_artifacts)
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
        server.warn(
            f"bind: {settings.bind} lets passwords pass the network in the clear. Safer: leave it "
            f"out and use the tunnel, or ./fab tls.enable"
        )
    if not scheduled:
        server.say("automatic backups are off: ./fab backup.schedule")


def _left_behind(server: Server, move: bool, leave: bool) -> list[elsewhere.Left]:
    """Look for files at former places, where that can be; raises Exit where nobody decided."""
    settings, facts = server.settings, server.facts
    changing = elsewhere.is_changing(settings, facts)
    if not changing and not (move and elsewhere.former(settings, facts)):
        if noted := elsewhere.former(settings, facts):
            server.warn(f"files of runs are left under {', '.join(noted)}, where MLflow does not "
                        "look. Copy them: ./fab deploy --move-artifacts")  # fmt: skip
        return []
    found = elsewhere.left(server, leave)
    if not (move or leave):
        elsewhere.refuse_left(settings, found)
    return found


def _apply(
    server: Server, keys: Sequence[Change], yes: bool, found: Sequence[elsewhere.Left], move: bool
) -> None:
    """Make the changes, those of the backup key among them, with the question about the prefix.

    Where nothing was marked before, to mark it comes first of all, and asks by failing: mostly
    there is nobody else's mark, and nothing to wait for.
    """
    facts = server.facts
    look = (facts.owned or found) and not owner.is_marked(server.settings, facts)
    over = owner.confirm_takeover(server, yes) if look else owner.ANYBODY if yes else ""
    try:
        server.apply("deploy", _with_artifacts(server, keys, over, found, move))
    except StepFailed as failed:
        over = owner.confirm_after(server, failed, yes)
        server.apply("deploy", _with_artifacts(server, keys, over, found, move))


def _with_artifacts(
    server: Server, keys: Sequence[Change], over: str, found: Sequence[elsewhere.Left], move: bool
) -> list[Change]:
    """Return the changes, with the backup key's and what concerns former files.

    The most is copied while the server goes on as it is; what comes meanwhile, once it uses the
    other place.
    """
    settings, login = server.settings, credentials.known(server)
    marked = owner.is_marked(settings, server.facts)
    places = [each.place for each in found]
    if found and move:
        first = elsewhere.moving(settings, places, "copy")
        server.apply("deploy --move-artifacts", [first], decided=False)
        for each in found:
            server.say(f"  copied and compared: {each}, where they stay as well")
    needed = changes(settings, server.facts, login, over)
    mark = 0 if marked else 1  # before which nothing changes
    needed[mark:mark] = keys
    if marked:
        needed.insert(0, owner.watching(settings))
    if found:
        needed.insert(0, elsewhere.noting(places))
    if found and move:
        needed.append(elsewhere.moving(settings, places, "finish"))
    return needed
