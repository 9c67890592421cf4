"""What can be wrong with nginx, the doors to the network, and certificates."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.facts import Listener
from tasks.findings.case import Case, Finding

RENEW = 21  # days; certbot renews 30 days before the end, so that then something is wrong
LOOPBACK = ("127.", "[::1]", "localhost")
SERVERS = ("mlflow", "uvicorn", "gunicorn")


def nginx(case: Case) -> Iterator[Finding]:
    facts, settings, symptoms = case.facts, case.settings, case.symptoms
    down = facts.unit("nginx.service").active != "active"
    site = f"/etc/nginx/sites-available/{case.unit}"
    others = [one for one in facts.listeners if one.program not in ("nginx", "")]
    if symptoms.nginx != "ok":
        ours = case.unit in symptoms.nginx
        yield case.finding(
            "nginx-broken",
            f"nginx refuses its configuration: {symptoms.nginx}",
            "nginx -t" + ("; nginx is down" if down else "; it runs on with the former one"),
            "" if ours else "That file is not this project's: mend what it names, then:",
            tasks=("deploy",) if ours else ("start",),
            safe=ours,
        )
    for listener in others:
        yield case.finding(
            "port-taken",
            f"Port {settings.port} is taken by {listener.program} (process {listener.pid}).",
            f"ss -ltnp: {listener.address}",
            "End that program if it may go, or set another `port:` in fabric.yaml.",
            script=f"sudo kill {listener.pid}",
            tasks=("start",),
            safe=False,
        )
    if down and symptoms.nginx == "ok" and not others:
        yield case.finding(
            "nginx-down",
            f"nginx is down: nobody answers on port {settings.port}.",
            f"systemctl: nginx.service {facts.unit('nginx.service').active}",
            tasks=("start",),
        )
    if site not in facts.files:
        yield case.finding("site-missing", "nginx does not know this server.",
                           f"there is no {site}", tasks=("deploy",))  # fmt: skip
    yield from open_doors(case)
    if symptoms.name == 403:
        yield case.finding(
            "host-refused",
            f"The server refuses requests for {settings.public_name}.",
            f"a request with Host: {settings.public_name} is answered 403",
            tasks=("deploy",),
        )
    for one in symptoms.certificates:
        yield from certificate(case, one.path, one.ends)


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
            tasks=("deploy",),
        )
    for one in case.symptoms.listeners:
        if one.program in SERVERS and is_wide(one):
            yield case.finding(
                "listening-everywhere",
                f"{one.program} (process {one.pid}) listens on {one.address}, past nginx and its "
                "rules.",
                "ss -ltnp",
                "It was started by hand, perhaps as in the guide. End it, if it is not needed.",
                # Its workers first, or they would outlive it.
                script=f"sudo pkill -P {one.pid}; sudo kill {one.pid}",
                safe=False,
            )


def is_wide(listener: Listener) -> bool:
    return not listener.address.startswith(LOOPBACK)


def certificate(case: Case, path: str, ends: int) -> Iterator[Finding]:
    days = (ends - case.facts.now) / 86400
    if days > RENEW:
        return
    state = f"expires in {days:.0f} days" if days > 0 else f"has expired {-days:.0f} days ago"
    if "/letsencrypt/" in path:
        remedy, script = "", "sudo certbot renew; sudo systemctl reload nginx"
    else:
        remedy, script = "Put a new one in that place, then:", "sudo systemctl reload nginx"
    yield case.finding("certificate", f"The certificate {path} {state}.",
                       "openssl x509 -enddate", remedy, script=script,
                       safe=not remedy)  # fmt: skip
