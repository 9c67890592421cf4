"""Lock the packages of an MLflow version as they were on the day of its release.

Runs on the host and changes nothing. An old MLflow does not import with today's packages, so
nothing newer than a day after its release counts. Reports {"lock": text}, for this host's Python
and machine.
"""

import base64
import dataclasses
import datetime
import difflib
import http.client
import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request

import talk
from talk import fail


@dataclasses.dataclass(frozen=True)
class Request:
    """The server's folder, where uv is, and the version of MLflow."""

    root: str
    version: str


asked = talk.request(Request)
version = asked.version
TOOLS = os.path.join(asked.root, "tools", "bin")
# The Simple repository API of the package index, whose JSON gives upload times (PEP 691, PEP 700).
SIMPLE = "application/vnd.pypi.simple.v1+json"
# pip's own default, where nothing names an index.
PUBLIC = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
# What a release of ours has (files/releases/*.in); Flask-WTF is in the extra `auth` of newer ones.
WANTED = f"mlflow[auth]=={version}\nFlask-WTF<2\nboto3\npsycopg2-binary\n"


def index():
    """Return the address of the package index that this host's pip and uv use."""
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if os.environ.get(variable):
            return os.environ[variable].rstrip("/")
    words = ("-m", "pip", "config", "get", "global.index-url")
    return (tools_python(*words) or tools_python("-c", PUBLIC)).rstrip("/")


def tools_python(*words):
    """Return what the Python that uv and pip lie beside prints, or "" where it fails."""
    command = [os.path.join(TOOLS, "python"), *words]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def question():
    """Ask the index for MLflow's files; a login in its address goes as a header, as with pip."""
    parts = urllib.parse.urlsplit(index() + "/mlflow/")
    login, _, place = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=place).geturl())
    request.add_header("Accept", SIMPLE)
    if login:
        word = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
        # Never sent on to where the index redirects.
        request.add_unredirected_header("Authorization", "Basic " + word)
    return request


def uploads():
    """Map every version in the index to the moment of its first file."""
    try:
        with urllib.request.urlopen(question(), timeout=60) as answer:
            files = json.load(answer)["files"]
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        fail(f"The package index does not tell when MLflow {version} came out: {error}.")
    found = {}
    for file in files:
        name = re.match(r"mlflow-([0-9][0-9a-z.]*?)(-py3.*\.whl|\.tar\.gz)$", file["filename"])
        if name and file.get("upload-time"):
            found[name[1]] = min(file["upload-time"], found.get(name[1], "9"))
    return found


def released():
    found = uploads()
    if version not in found:
        close = difflib.get_close_matches(version, found, n=1, cutoff=0)
        hint = f" Did you mean {close[0]}?" if close else ""
        fail(f"There is no MLflow {version} in the package index.{hint}")
    return datetime.datetime.fromisoformat(found[version][:19])


def why(stderr):
    """Return the first reason in uv's explanation, which goes over several lines."""
    text = " ".join(stderr.split())
    return (text.partition("cause: ")[2] or text or "uv said nothing").split(". ")[0].rstrip(".")


def main():
    day = (released() + datetime.timedelta(days=1)).strftime("%Y-%m-%d")
    talk.say(f"MLflow {version} is resolved as of {day}")
    words = [
        os.path.join(TOOLS, "uv"), "pip", "compile", "--quiet", "--generate-hashes",
        "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links",
        "--exclude-newer", day, "--python", sys.executable, "-",
    ]  # fmt: skip
    # uv does not read pip's configuration.
    done = subprocess.run(
        words, input=WANTED, capture_output=True, text=True,
        env=dict(os.environ, UV_DEFAULT_INDEX=index()),
    )  # fmt: skip
    if done.returncode:
        fail(f"The packages of MLflow {version} cannot be resolved: {why(done.stderr)}.")
    talk.report({"lock": done.stdout})


main()
