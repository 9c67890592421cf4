"""Which files of its environment a server loads, from its start to its answers.

files/releases/VERSION.modules lists them for `install` to compile. `--golden` adds what is new.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib.util import source_from_cache

from lab import SEARCH, UNIT, Host
from waiting import until

from tasks.changes.releases import RELEASES
from tasks.engine.settings import Settings

RECORD = "/run/e2e-loaded"
# Python then says of each file that it loads what it loaded; nothing is compiled beside it.
OPTIONS = (f"-p StandardError=file:{RECORD}", "-E PYTHONVERBOSE=1", "-E PYTHONDONTWRITEBYTECODE=1")
# "# code object from PATH.py", or from '…/__pycache__/NAME.cpython-311.pyc' where that is compiled.
LOADED = re.compile(r"^# code object from '?\S*/site-packages/(\S+?\.pyc?)'?$", re.M)

ARTIFACT = "/api/2.0/mlflow-artifacts/artifacts/e2e-modules.txt"
REQUESTS = (
    ("GET", SEARCH, None),
    ("POST", "/api/2.0/mlflow/runs/create", {"experiment_id": "0", "start_time": 0}),
    ("POST", "/api/2.0/mlflow/runs/search", {"experiment_ids": ["0"]}),
    ("PUT", ARTIFACT, {}),
    ("GET", ARTIFACT, None),
    ("DELETE", ARTIFACT, None),
    ("GET", "/", None),
)


def assert_compiled(host: Host, golden: bool) -> None:
    """Assert that all a server of this host's loads is compiled."""
    files = loaded(host)
    if golden:
        record(files)
    assert len(files) > 2000
    assert [file for file, compiled in files.items() if not compiled] == []


def record(files: Iterable[str]) -> None:
    """Add to the list of the release; hosts with other Pythons load others."""
    listed = RELEASES / f"{Settings().version}.modules"
    known = listed.read_text().split() if listed.exists() else []
    listed.write_text("".join(f"{file}\n" for file in sorted({*known, *files})))


def loaded(host: Host) -> dict[str, bool]:
    """Have a server of this host's work; returns the files it loaded, and which are compiled."""
    asked = curl_words(host.login())
    with host.served_by_hand(*OPTIONS):
        host.run("curl -sS -K -", stdin=asked)
    found = LOADED.findall(host.run(f"cat {RECORD}"))
    host.run(f"rm {RECORD}; systemctl start {UNIT}.socket {UNIT}")
    until(lambda: host.status("/health") == 200, "the server is back", 120)
    return {path if path.endswith(".py") else source_from_cache(path): path.endswith("c")
            for path in found}  # fmt: skip


def curl_words(login: tuple[str, str]) -> str:
    """Spell the requests as curl's configuration, which keeps the password out of its words."""
    each = []
    for method, path, body in REQUESTS:
        words = [f'url = "http://127.0.0.1:5000{path}"', f'request = "{method}"', "fail"]
        words += [f'user = "{login[0]}:{login[1]}"', 'output = "/dev/null"']
        if body is not None:
            words += [
                'header = "Content-Type: application/json"',
                f"data = {json.dumps(json.dumps(body))}",
            ]
        each.append("\n".join(words))
    return "\nnext\n".join(each) + "\n"
