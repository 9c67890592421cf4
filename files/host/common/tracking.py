"""Ask the tracking server's REST interface, on its host, through nginx.

Staged beside the program that imports it, with a login.json {"username": ..., "password": ...}
where one is needed: a password never stands on a command line.
"""

import base64
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fail(text):
    """End with one line for the operator: what is wrong, and what to type."""
    print("@fail " + text)
    sys.exit(1)


def staged(name):
    """Read a JSON file that lies beside this one."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), name)) as stream:
        return json.load(stream)


class Tracking:
    """The server as one user sees it; `login` is None for somebody without one."""

    def __init__(self, port, login=None, timeout=60):
        self.base, self.login, self.timeout = "http://127.0.0.1:%s" % port, login, timeout

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
            pair = "%(username)s:%(password)s" % self.login
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
            fail("The server does not answer: %s. Type: ./fab doctor" % error)
        if status == 401:
            fail(
                "The server refuses the password of %(username)s. Give the right login in "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; for a lost one: "
                "./fab users.reset-admin" % (self.login or {"username": "nobody"})
            )
        if status in (502, 503, 504):
            fail("The server is down (nginx says %d). Type: ./fab doctor" % status)
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
        super().__init__("%d %s" % (status, self.message))
