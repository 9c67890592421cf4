"""Find the users that nginx has not seen since its oldest log.

Runs on the host; nginx's access logs are its standard input. Argument: basic_auth.db. Reports
{"days": how far the logs go back, "unseen": [names]}.
"""

import json
import re
import sqlite3
import sys
import time
from contextlib import closing
from datetime import datetime

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
with closing(sqlite3.connect("file:%s?mode=ro" % sys.argv[1], uri=True)) as base:
    users = [name for (name,) in base.execute("select username from users order by username")]
days = int((time.time() - oldest) / 86400)
print("@report users\t" + json.dumps({"days": days, "unseen": [n for n in users if n not in seen]}))
