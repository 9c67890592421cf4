"""Try the passwords that everybody tries first against the hashes of all users.

Runs on the host in MLflow's environment, which has the function that made the hashes. Arguments:
basic_auth.db, seconds that may be spent. Reports {"weak": [names], "tried": n of users}; never a
password.
"""

import json
import sqlite3
import sys
import time
from contextlib import closing

from werkzeug.security import check_password_hash

DATABASE, PATIENCE = sys.argv[1], float(sys.argv[2])
# What guides and former MLflow releases use, and what is typed where 12 characters are wanted.
COMMON = (
    "password1234", "password", "your-password", "123456789012", "mlflow123456", "mlflowmlflow",
    "passwordpassword", "changeme1234", "admin1234567", "qwertyuiop12",
)  # fmt: skip

with closing(sqlite3.connect("file:%s?mode=ro" % DATABASE, uri=True)) as base:
    users = base.execute(
        "select username, password_hash from users order by is_admin desc"
    ).fetchall()
deadline = time.monotonic() + PATIENCE
weak, tried = [], 0
for name, kept in users:
    if time.monotonic() > deadline:
        break
    guesses = dict.fromkeys([*COMMON, name, name * 2, name + "1234", name + "12345678", name * 3])
    if any(check_password_hash(kept, guess) for guess in guesses if len(guess) >= 4):
        weak.append(name)
    tried += 1
print("@report passwords\t" + json.dumps({"weak": weak, "tried": tried, "of": len(users)}))
