"""Find this server's secrets where others may read them, or where they outlive their use.

Runs on the host with whatever Python it has. Reports each as `secret`, "<kind> in <place>". None is
ever printed, nor given to another program.
"""

import dataclasses
import glob
import os
import re
import subprocess

import talk


@dataclasses.dataclass(frozen=True)
class Request:
    """The server's folder and unit."""

    root: str
    unit: str


asked = talk.request(Request)
ROOT, UNIT = asked.root, asked.unit
HOME = os.path.expanduser("~")
LARGEST = 4 << 20  # bytes of a file that is looked through
SHORTEST = 8  # characters: less may stand anywhere by chance
# What stands in shells' histories and profiles of those who followed the guide.
PATTERNS = {
    "an AWS secret key": rb"aws_secret_access_key['\"]?\s*[=:]\s*['\"]?[A-Za-z0-9/+]{40}\b",
    "a password of MLflow": rb"MLFLOW_TRACKING_PASSWORD=['\"]?[^\s'\"$]{8,}",
    "the admin's first password": rb"^\s*admin_password\s*=\s*\S+",
}
# Where they belong, in a folder of the login's own with files of its own.
RIGHT = [HOME + "/.aws/credentials", ROOT + "/server.env", ROOT + "/.mlflow_auth_config"]


def assignments(path, pattern):
    try:
        with open(path, "rb") as stream:
            return re.findall(pattern, stream.read(LARGEST), re.M | re.I)
    except OSError:
        return []


def known():
    """Return this server's own secrets: kind to bytes."""
    found = {}
    for secret in assignments(
        HOME + "/.aws/credentials", rb"^\s*aws_secret_access_key\s*=\s*(\S+)"
    ):
        found[secret] = "the AWS secret key"
    for secret in assignments(
        ROOT + "/server.env", rb"^MLFLOW_FLASK_SERVER_SECRET_KEY=['\"]?([^\s'\"]+)"
    ):
        found[secret] = "the server's secret key"
    for secret in assignments(
        ROOT + "/server.env", rb"^MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY=['\"]?([^\s'\"]+)"
    ):
        found[secret] = "the key of webhooks' secrets"
    for secret in assignments(
        ROOT + "/server.env",
        rb"^MLFLOW_BACKEND_STORE_URI=['\"]?[a-z0-9+]+://[^:/\s]+:([^@\s'\"]+)@",
    ):
        found[secret] = "the database's password"
    return {secret: kind for secret, kind in found.items() if len(secret) >= SHORTEST}


def found_in(place, kinds):
    """Report the kinds of secrets that stand in a place."""
    for kind in kinds:
        talk.report(f"{kind} in {place}", key="secret")


def kinds(data, secrets, patterns=True):
    """Say which kinds of secrets stand in some bytes."""
    found = {kind for secret, kind in secrets.items() if secret in data}
    if patterns:
        exact = " ".join(found)
        for kind, pattern in PATTERNS.items():
            if re.search(pattern, data, re.M | re.I) and not ("AWS" in kind and "AWS" in exact):
                found.add(kind)
    return sorted(found)


def as_root(*words):
    words = list(words) if os.getuid() == 0 else ["sudo", "-n", *words]
    try:
        return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    except OSError:
        return b""


def files():
    """List the places where people, and the guide, put secrets that do not belong there."""
    home = [
        ".bash_history",
        ".zsh_history",
        ".python_history",
        ".bashrc",
        ".bash_profile",
        ".bash_aliases",
        ".profile",
        ".zshrc",
        ".pgpass.bak",
    ]
    patterns = [
        *(os.path.join(HOME, name) for name in home),
        *(os.path.join(HOME, "*" + end) for end in (".sh", ".env", ".txt", ".py", ".json", ".yaml",
                                                    ".ini", ".log", ".bak", ".ipynb")),
        os.path.join(ROOT, "*.log"), os.path.join(ROOT, "*.sh"), os.path.join(ROOT, "*.bak"),
        "/etc/environment", "/etc/profile.d/*", "/etc/cron.d/*",
        "/etc/systemd/system/mlflow*", "/etc/systemd/system/mlflow*.d/*",
        "/etc/nginx/sites-available/*", "/etc/nginx/conf.d/*", "/tmp/*", "/var/tmp/*",
    ]  # fmt: skip
    found = {path for pattern in patterns for path in glob.glob(pattern)}
    return sorted(path for path in found if os.path.isfile(path) and path not in RIGHT)


def main():
    secrets = known()
    for path in files():
        try:
            with open(path, "rb") as stream:
                data = stream.read(LARGEST)
        except OSError:
            continue
        found_in(path, kinds(data, secrets))
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as stream:
                data = stream.read()
        except OSError:
            continue
        process = f"the command line of process {path.split('/')[2]}"
        found_in(process, kinds(data, secrets, patterns=False))
    journal = as_root("journalctl", "-u", UNIT, "-u", UNIT + "-backup", "-n", "20000", "-o", "cat",
                      "--no-pager")  # fmt: skip
    found_in(f"the journal of {UNIT}", kinds(journal, secrets, patterns=False))
    for path in RIGHT[1:]:
        folder = os.path.dirname(path)
        if os.path.isdir(folder) and os.stat(folder).st_mode & 0o077:
            found_in(folder, ["others may read what is"])


main()
