"""Find the users that nginx has not seen since its oldest log.

Runs on the host in MLflow's environment; nginx's access logs are its standard input. Argument: the
server's folder. Reports {"days": how far the logs go back, "unseen": [names]}.
"""

import json
import re
import sys
import time
from datetime import datetime

import all_users

# nginx's format "combined": address - user [time] ...
LINE = re.compile(r"\S+ - (\S+) \[([^\]]+)\]")

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
names = sorted(name for (name,) in all_users.rows(sys.argv[1], "username"))
days = int((time.time() - oldest) / 86400)
print("@report users\t" + json.dumps({"days": days, "unseen": [n for n in names if n not in seen]}))
