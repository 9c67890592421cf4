"""Ask the tracking server's REST interface, on its host, through nginx.

Staged beside the programs that import it. A login is {"username": ..., "password": ...}, and comes
in their requests: a password never stands on a command line.
"""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request

from talk import fail, without_proxy

_opener = without_proxy()

# The login of nobody: no user's name is empty. MLflow says 401 to it; to a request without a login
# nginx does, whatever MLflow would say.
NOBODY = {"username": "", "password": "nobody"}


class Tracking:
    """The server as one user sees it; `login` is None for somebody without one."""

    def __init__(self, port, login=None, timeout=60):
        self.base, self.login, self.timeout = f"http://127.0.0.1:{port}", login, timeout

    def ask(self, method, path, query=None, body=None, host=None):
        """Return status and body of one request; raises OSError where nobody answers.

        `host` stands for another name than the one that is connected to.
        """
        if query:
            path += "?" + urllib.parse.urlencode(query, doseq=True)
        request = urllib.request.Request(self.base + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if host:
            request.add_header("Host", host)
        if self.login:
            pair = f"{self.login['username']}:{self.login['password']}"
            request.add_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
        try:
            with _opener.open(request, timeout=self.timeout) as answer:
                return answer.status, answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode("utf-8", "replace")

    def call(self, method, path, query=None, body=None):
        """Return the JSON of one request; raises Refused where the server says no.

        A server that does not answer, or refuses the login, ends the program with one line.
        """
        try:
            status, text = self.ask(method, path, query, body)
        except OSError as error:
            fail(f"The server does not answer: {error}. Type: ./fab doctor")
        if status == 401:
            user = self.login["username"] if self.login else "nobody"
            fail(
                f"The server refuses the password of {user}. Give the right login in "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; for a lost one: "
                "./fab users.reset-admin"
            )
        if status in (502, 503, 504):
            fail(f"The server is down (nginx says {status}). Type: ./fab doctor")
        if status != 200:
            raise Refused(status, text)
        return json.loads(text) if text.strip() else {}


class Refused(Exception):
    """The server's no: `status`, its `code` such as RESOURCE_DOES_NOT_EXIST, its `message`."""

    def __init__(self, status, text):
        try:
            said = json.loads(text)
        except ValueError:
            said = {}
        self.status = status
        self.code = said.get("error_code", "") if isinstance(said, dict) else ""
        message = said.get("message", "") if isinstance(said, dict) else ""
        self.message = (message or text).strip().split("\n")[0][:300]
        super().__init__(f"{status} {self.message}")
