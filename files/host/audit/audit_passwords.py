"""Try the passwords that everybody tries first against the hashes of all users.

Runs on the host in MLflow's environment, which has the function that made the hashes. Reports
`passwords`: {"weak": [names]}, never a password; fails where not all were tried in time.
"""

import dataclasses
import sys
import time

import all_users
import talk
from werkzeug.security import check_password_hash

# What guides and former MLflow releases use, and what is typed where 12 characters are wanted.
COMMON = (
    "password1234", "password", "your-password", "123456789012", "mlflow123456", "mlflowmlflow",
    "passwordpassword", "changeme1234", "admin1234567", "qwertyuiop12",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Request:
    """The server's folder, and how many seconds may be spent."""

    root: str
    patience: float


asked = talk.request(Request)
everybody = all_users.rows(asked.root, "username, password_hash")
deadline = time.monotonic() + asked.patience
weak, tried = [], 0
for name, kept in everybody:
    if time.monotonic() > deadline:
        break
    guesses = dict.fromkeys([*COMMON, name, name * 2, name + "1234", name + "12345678", name * 3])
    if any(check_password_hash(kept, guess) for guess in guesses if len(guess) >= 4):
        weak.append(name)
    tried += 1
talk.report({"weak": weak}, key="passwords")
if tried < len(everybody):
    some = f"the passwords of {tried} of {talk.counted(len(everybody), 'user')}"
    sys.exit(f"only {some} were tried within {asked.patience:g} s")
