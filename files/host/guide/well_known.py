"""Find admins whose password is the one that MLflow before 3.17 gave everybody.

Runs on the host in MLflow's environment. Reports {"well_known": [names]}. MLflow from 3.17 on
refuses their logins (its advisory GHSA-gq3w-7jj3-x7gr).
"""

import dataclasses
import sqlite3
from contextlib import closing

import talk
from werkzeug.security import check_password_hash


@dataclasses.dataclass(frozen=True)
class Request:
    users: str  # the file basic_auth.db


with closing(sqlite3.connect(f"file:{talk.request(Request).users}?mode=ro", uri=True)) as base:
    admins = base.execute("select username, password_hash from users where is_admin").fetchall()
names = [name for name, kept in admins if check_password_hash(kept, "password1234")]
talk.report({"well_known": names})
