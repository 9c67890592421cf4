"""What a look sees of a server on which all is well: where a test has something be wrong."""

from __future__ import annotations

from typing import Any

from stand_ins import ROOT

from tasks.engine.facts import Unit
from tasks.findings.case import Here
from tasks.findings.symptoms import Mount, Symptoms

NOW = 1_800_000_000
SERVICE, SOCKET, NGINX = "mlflow-server.service", "mlflow-server.socket", "nginx.service"
DATABASE: dict[str, Any] = {
    "strangers": {},
    "damage": None,
    "revision": {"found": "abc", "known": True, "newest": True},
    "writers": {},
}
WELL = Symptoms(
    looked=frozenset(
        "system machine names service nginx requests databases admins webhooks environment "
        "bucket".split()
    ),
    mounts=(Mount("/", 20_000_000, 15_000_000, 1_000_000, 900_000, False),),
    modes={f"{ROOT}/server.env": "600"},
    schedule="active",
    period=3600.0,
    health=200,
    stranger=401,
    logins={"copy": 200, "variables": 200},
    databases={
        "mlflow.db": {"name": "mlflow.db", **DATABASE},
        "basic_auth.db": {"name": "basic_auth.db", **DATABASE},
    },
    admins=1,
    direct={"count": 0, "names": [], "places": []},
    webhooks={"count": 0, "first": []},
    skew=0.2,
    backup={"id": "20270115T070000Z-x", "made": NOW - 700, "damage": None},
)
HERE = Here(
    now=NOW,
    uri="http://localhost:5001",
    sources=frozenset({"variables", "copy"}),
    tunnel_port=5001,
    tunnel="open",
    tunnel_answers=True,
)


def unit(active: str, **values: Any) -> Unit:
    return Unit("loaded", active, file="enabled", **values)
