"""What can be wrong with nginx, the doors to the network, and certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.changes.site import pair
from tasks.engine.facts import site_of
from tasks.engine.tables import counted
from tasks.findings.case import Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.engine.facts import Listener
    from tasks.findings.case import Case, Finding

RENEW = 21  # days; certbot renews 30 days before the end, so that then something is wrong

LOOPBACK = ("127.", "[::1]", "localhost")

SERVERS = ("mlflow", "uvicorn", "gunicorn")


def nginx(case: Case) -> Iterator[Finding]:
    facts, settings, symptoms = case.facts, case.settings, case.symptoms
    down = facts.unit("nginx.service").active != "active"
    site = site_of(settings, facts).file
    others = [one for one in facts.listeners if one.program not in ("nginx", "")]
    if symptoms.nginx != "ok":
        yield _broken(case, "; nginx is down" if down else "; it runs on with the former one")
    for listener in others:
        yield case.finding(
            "port-taken",
            f"Port {settings.port} is taken by {listener.program} (process {listener.pid}).",
            f"ss -ltnp: {listener.address}",
            Remedy(
                "End that program if it may go, or set another `port:` in fabric.yaml.",
                script=f"sudo kill {listener.pid}",
                tasks=("start",),
                safe=False,
            ),
        )
    # One that is masked is the server's area's.
    if down and symptoms.nginx == "ok" and not others and "nginx.service" not in symptoms.masked:
        yield case.finding(
            "nginx-down",
            f"nginx is down: nobody answers on port {settings.port}.",
            f"systemctl: nginx.service {facts.unit('nginx.service').active}",
            Remedy(tasks=("start",)),
        )
    if site not in facts.files:
        yield case.finding(
            "site-missing",
            "nginx does not know this server.",
            f"there is no {site}",
            Remedy(tasks=("deploy",)),
        )
    yield from open_doors(case)
    if symptoms.name == 403:
        name = settings.public_name or (facts.tls.name if facts.tls else "")
        yield case.finding(
            "host-refused",
            f"The server refuses requests for {name}.",
            f"a request with Host: {name} is answered 403",
            Remedy(tasks=("deploy",)),
        )
    yield from _tls(case)
    for one in symptoms.certificates:
        yield from certificate(case, one.path, one.ends)


def _broken(case: Case, state: str) -> Finding:
    tls, what = case.facts.tls, case.symptoms.nginx
    seen = f"nginx -t{state}"
    if tls and pair(case.settings, tls).certificate in what:
        return case.finding(
            "nginx-broken",
            f"nginx refuses its configuration, for the certificate of {tls.name} is gone: {what}",
            seen,
            Remedy(
                "Give the name up for a moment, then serve it anew with --email, or with "
                "--certificate and --key:",
                type=(case.fab("tls.disable", "--yes"), case.fab("tls.enable", tls.name)),
            ),
        )
    ours = case.unit in what
    return case.finding(
        "nginx-broken",
        f"nginx refuses its configuration: {what}",
        seen,
        Remedy(
            "" if ours else "That file is not this project's: fix what it names, then:",
            tasks=("deploy",) if ours else ("start",),
            safe=ours,
        ),
    )


def _tls(case: Case) -> Iterator[Finding]:
    tls, symptoms, name = case.facts.tls, case.symptoms, case.settings.public_name
    if tls is None:
        return
    if symptoms.unserved:
        yield case.finding(
            "certificate-unserved",
            f"nginx does not show the certificate of {tls.name} that there is.",
            "openssl s_client -connect 127.0.0.1:443",
            Remedy(script="sudo systemctl reload nginx"),
        )
    if symptoms.renewal_failed:
        yield case.finding(
            "renewal-failed",
            f"The certificate of {tls.name} was not renewed: {symptoms.renewal_failed}.",
            "systemctl: certbot.service failed; the certificate that there is stays in use",
            Remedy("It is tried again twice a day; at once:", type=(case.fab("tls.renew"),)),
        )
    if symptoms.renewal not in (None, "active"):
        yield case.finding(
            "renewal-off",
            f"Nothing renews the certificate of {tls.name}.",
            f"systemctl: certbot.timer {symptoms.renewal}",
            Remedy(script="sudo systemctl enable --now certbot.timer"),
        )
    if name and name.lower() != tls.name:
        yield case.finding(
            "name-differs",
            f"The settings say public_name: {name}, and the host serves {tls.name} with TLS.",
            "fabric.yaml, and .tls in the server's folder",
            Remedy(
                f"Set `public_name: {tls.name}`, or serve the other one:",
                type=(case.fab("tls.enable", name, "--email", "you@example.org"),),
            ),
            severity="note",
        )


def open_doors(case: Case) -> Iterator[Finding]:
    loopback = case.settings.bind in ("127.0.0.1", "localhost")
    wide = [one for one in case.facts.listeners if one.program == "nginx" and is_wide(one)]
    if wide and loopback:
        yield case.finding(
            "listening-everywhere",
            f"nginx listens beyond this host on port {case.settings.port}, and passwords pass in "
            "the clear.",
            f"ss -ltnp: {', '.join(one.address for one in wide)}; the settings say "
            f"bind: {case.settings.bind}",
            Remedy(tasks=("deploy",)),
        )
    for one in case.symptoms.listeners:
        if one.program in SERVERS and is_wide(one):
            yield case.finding(
                "listening-everywhere",
                f"{one.program} (process {one.pid}) listens on {one.address}, past nginx and its "
                "rules.",
                "ss -ltnp",
                Remedy(
                    "It was started by hand, perhaps as in the guide. End it, if it is not needed.",
                    # Its workers first, or they would outlive it.
                    script=f"sudo pkill -P {one.pid}; sudo kill {one.pid}",
                    safe=False,
                ),
            )


def is_wide(listener: Listener) -> bool:
    return not listener.address.startswith(LOOPBACK)


def certificate(case: Case, path: str, ends: int) -> Iterator[Finding]:
    days = (ends - case.facts.now) / 86400
    if days > RENEW:
        return
    left = counted(round(abs(days)), "day")
    state = f"expires in {left}" if days > 0 else f"has expired {left} ago"
    tls = case.facts.tls
    if tls and tls.own:
        again = case.fab("tls.enable", tls.name, "--certificate", "FILE", "--key", "FILE")
        yield case.finding(
            "certificate",
            f"The certificate {path} {state}.",
            "openssl x509 -enddate",
            Remedy("It is your own. Give a new one:", type=(again,)),
        )
        return
    if "/letsencrypt/" in path:
        remedy, script = "", "sudo certbot renew; sudo systemctl reload nginx"
    else:
        remedy, script = "Put a new one in that place, then:", "sudo systemctl reload nginx"
    yield case.finding(
        "certificate",
        f"The certificate {path} {state}.",
        "openssl x509 -enddate",
        Remedy(remedy, script=script, safe=not remedy),
    )
