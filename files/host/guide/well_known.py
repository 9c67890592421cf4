"""Find admins whose password is the one that MLflow before 3.17 gave everybody.

Runs on the host in MLflow's environment. Argument: basic_auth.db. Reports {"well_known": [names]}.
MLflow from 3.17 on refuses their logins (its advisory GHSA-gq3w-7jj3-x7gr).
"""

import json
import sqlite3
import sys
from contextlib import closing

from werkzeug.security import check_password_hash

with closing(sqlite3.connect("file:%s?mode=ro" % sys.argv[1], uri=True)) as base:
    admins = base.execute("select username, password_hash from users where is_admin").fetchall()
names = [name for name, kept in admins if check_password_hash(kept, "password1234")]
print("@report " + json.dumps({"well_known": names}))
