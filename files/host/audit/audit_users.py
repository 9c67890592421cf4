"""Find the users that nginx has not seen since its oldest log.

Runs on the host in MLflow's environment; nginx's access logs are its standard input. Reports
`users`: {"days": how far the logs go back, "unseen": [names]}.
"""

import dataclasses
import re
import sys
import time
from datetime import datetime

import all_users
import talk

# nginx's format "combined": address - user [time] ...
LINE = re.compile(r"\S+ - (\S+) \[([^\]]+)\]")


@dataclasses.dataclass(frozen=True)
class Request:
    """The server's folder."""

    root: str


asked = talk.request(Request)
seen, oldest = set(), time.time()
for line in sys.stdin.buffer:
    found = LINE.match(line.decode(errors="replace"))
    if found:
        seen.add(found[1])
        try:
            when = datetime.strptime(found[2], "%d/%b/%Y:%H:%M:%S %z").timestamp()
        except ValueError:
            continue
        oldest = min(oldest, when)
names = sorted(name for (name,) in all_users.rows(asked.root, "username"))
days = int((time.time() - oldest) / 86400)
talk.report({"days": days, "unseen": [name for name in names if name not in seen]}, key="users")
