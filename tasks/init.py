"""The first questions of all: which host, which bucket, whose keys; the answers to fabric.yaml."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine import paths
from tasks.engine.aliases import known_hosts_of
from tasks.engine.configuration import configured, host_names
from tasks.engine.console import confirm, console, interactive
from tasks.engine.fabric_yaml import difference, filled, holds_something, replace
from tasks.engine.questions import ask
from tasks.engine.records import dataclass
from tasks.engine.task import local
from tasks.engine.typed import typed
from tasks.laptop.bucket_look import Source, look, no_keys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tasks.engine.task import Local
    from tasks.laptop.bucket_look import Seen

NOBODY = (
    "init asks questions, and there is no terminal. Give the answers as variables, with --yes: "
    "FABRIC_HOSTS=ec2 FABRIC_MLFLOW_BUCKET=my-bucket ./fab init --yes"
)

KINDS = {"1": "variables", "2": "profile", "3": "role"}

CHOICE = """Where do the server's AWS keys come from?
  1  the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of this shell
  2  a profile in ~/.aws of this machine
  3  the instance's role: no keys at all, which is safest on EC2"""


@local(help={"yes": "ask nothing: answers are variables, such as FABRIC_MLFLOW_BUCKET"})
def init(c: Local, yes: bool = False) -> None:
    """Write fabric.yaml by questions; test login and bucket.

    Which host, which bucket, and where AWS keys come from. Each answer is tried from here before
    the next question. What fabric.yaml holds stays, with its comments; a difference is shown first.
    With --yes the answers are variables: FABRIC_HOSTS, FABRIC_MLFLOW_BUCKET, FABRIC_MLFLOW_REGION,
    FABRIC_MLFLOW_ENDPOINT_URL, and AWS_PROFILE or AWS_ACCESS_KEY_ID with its key.

    Example: fab init
    """
    if not yes and not interactive():
        raise Exit(NOBODY)
    given = defaults(configured(c.config), os.environ)
    answers = Unattended(c, given).answers() if yes else Interview(c, given).answers()
    write(answers, yes)
    say_next(answers)


@dataclass(frozen=True)
class Answers:
    """What a server needs to know before its first minute."""

    hosts: list[str]
    bucket: str
    source: Source
    region: str | None = None
    endpoint_url: str | None = None

    def settings(self) -> dict[str, str]:
        """Return what fabric.yaml is to say below `mlflow:`."""
        named = {"bucket": self.bucket, "region": self.region, "endpoint_url": self.endpoint_url}
        return {key: value for key, value in named.items() if value}


def defaults(file: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, str]:
    """Return what is known before anything is asked: variables win over fabric.yaml."""
    section = file.get("mlflow") or {}
    hosts = file.get("hosts") or []
    known = {"hosts": hosts if isinstance(hosts, str) else ",".join(hosts)}
    known |= {key: str(section.get(key) or "") for key in ("bucket", "region", "endpoint_url")}
    for key in ("bucket", "region", "endpoint_url"):
        known[key] = variables.get(f"FABRIC_MLFLOW_{key.upper()}") or known[key]
    known["hosts"] = variables.get("FABRIC_HOSTS") or known["hosts"]
    return known


# -- without a question ------------------------------------------------------------------------


class Unattended:
    """Takes the answers as they are given; the first that is wrong ends it."""

    def __init__(self, c: Local, given: Mapping[str, str]) -> None:
        self._c, self._given = c, given

    def answers(self) -> Answers:
        """Return what was given, tried; raises Exit that says what to give."""
        given = self._given
        hosts = host_names(given["hosts"])
        if not hosts:
            raise Exit("No host is named. Give one: FABRIC_HOSTS=ec2")
        if not given["bucket"]:
            raise Exit("No bucket is named. Give one: FABRIC_MLFLOW_BUCKET=my-bucket")
        for key in ("bucket", "region", "endpoint_url"):
            if given[key] and (reason := unfit(key, given[key])):
                raise Exit(reason)
        for host in hosts:
            log_in(self._c, host)
        source, endpoint_url = source_in(os.environ), given["endpoint_url"] or None
        seen = look(given["bucket"], source, endpoint_url)
        reason = seen.trouble or elsewhere(given["bucket"], seen, given["region"])
        if reason:
            raise Exit(reason)
        region = given["region"] or seen.region
        say_seen(given["bucket"], source, region)
        return Answers(hosts, given["bucket"], source, region, endpoint_url)


def source_in(variables: Mapping[str, str]) -> Source:
    """Tell where keys come from, as AWS's own programs would look for them."""
    if variables.get("AWS_ACCESS_KEY_ID") or variables.get("AWS_SECRET_ACCESS_KEY"):
        return Source("variables")
    if profile := variables.get("AWS_PROFILE"):
        return Source("profile", profile)
    return Source("role")


# -- by questions ------------------------------------------------------------------------------


class Interview:
    """Asks one thing after the other, and the same again until it is right."""

    def __init__(self, c: Local, given: Mapping[str, str]) -> None:
        self._c, self._given = c, dict(given)

    def answers(self) -> Answers:
        """Return what was answered and tried; raises NoAnswer at Ctrl-D."""
        hosts = self._hosts()
        source = self._source()
        while True:
            endpoint_url = self._setting("endpoint_url", "Address of the store", "AWS S3")
            bucket = self._setting("bucket", "Name of the bucket")
            seen = look(bucket, source, endpoint_url or None)
            if seen.trouble is None:
                break
            console.warn(seen.trouble)
            if seen.about == "keys":
                source = self._source()
        region = self._region(bucket, seen)
        say_seen(bucket, source, region)
        return Answers(hosts, bucket, source, region, endpoint_url or None)

    def _hosts(self) -> list[str]:
        """Ask for the host until one lets us in, or is to be kept although it does not yet."""
        if aliases := known_hosts_of(self._c.client().config_file):
            console.say(f"Hosts of your ssh configuration: {', '.join(aliases)}")
        default = self._given["hosts"] or (aliases[0] if len(aliases) == 1 else "")
        refused = ""
        while True:
            said = asked("Host (an alias, or USER@ADDRESS)", default)
            hosts = host_names(said)
            if hosts and said == refused:
                return hosts
            reason = "Give a host, such as ec2 or ubuntu@203.0.113.10."
            try:
                for host in hosts:
                    log_in(self._c, host)
                if hosts:
                    return hosts
            except Exit as error:
                reason = error.message or ""
            console.warn(reason)
            # One that has no address can never be meant; one that is off may be.
            keep = hosts and not reason.startswith(("Unknown host", "OpenSSH does not", "'"))
            default = refused = said if keep else ""
            if keep:
                console.warn(f"Give another host, or press Enter to keep {said} and go on.")

    def _source(self) -> Source:
        """Ask where keys come from until there are some."""
        default = {"variables": "1", "profile": "2", "role": "3"}[source_in(os.environ).kind]
        console.say(CHOICE)
        while True:
            kind = KINDS.get(asked("1, 2 or 3", default))
            if kind == "profile":
                profile = asked("Name of the profile", os.environ.get("AWS_PROFILE") or "default")
                return Source(kind, profile)
            if kind == "variables" and source_in(os.environ).kind != kind:
                console.warn(no_keys(Source(kind)))
            elif kind:
                return Source(kind)
            else:
                console.warn("Give the number of a line above.")

    def _setting(self, key: str, question: str, nothing: str = "") -> str:
        """Ask for a setting until it has the shape of one; `nothing` is what no answer means."""
        while True:
            said = asked(question, self._given[key], nothing)
            if not said and nothing:
                return ""
            reason = unfit(key, said) if said else "Give one: there is no default."
            if reason is None:
                self._given[key] = said
                return said
            console.warn(reason)
            self._given[key] = meant(key, said)

    def _region(self, bucket: str, seen: Seen) -> str | None:
        """Ask for the region until it is the bucket's; a store may have none."""
        self._given["region"] = seen.region or self._given["region"]
        while True:
            region = self._setting("region", "Region of the bucket", "the store's own")
            reason = elsewhere(bucket, seen, region)
            if reason is None:
                return region or seen.region
            console.warn(reason)
            self._given["region"] = seen.region or ""


def asked(question: str, default: str, nothing: str = "") -> str:
    """Return an answer; Enter takes what stands in brackets."""
    shown = default or nothing
    return ask(f"{question} [{shown}]: " if shown else f"{question}: ") or default


def meant(key: str, said: str) -> str:
    """Guess what was meant where a bucket is given as an address of it; nothing otherwise."""
    found = re.fullmatch(r"(?:s3://|arn:aws[a-z-]*:s3:::)([a-z0-9.-]+)(?:/.*)?", said)
    return found[1] if key == "bucket" and found else ""


# -- trying the answers ------------------------------------------------------------------------


def unfit(key: str, value: str) -> str | None:
    """Say what to give instead of a value that no setting can have; None where it can."""
    from tasks.engine.settings import reason_against

    reason = reason_against(key, value)
    return reason and f"{key} {reason}."


def elsewhere(bucket: str, seen: Seen, region: str) -> str | None:
    """Say that a bucket is in another region than the one that was given."""
    if not region or seen.region in (None, region):
        return None
    return f"The bucket {bucket} is in {seen.region}, not in {region}. Give {seen.region}."


def log_in(c: Local, host: str) -> None:
    """Log in to a host and out again; raises Exit that says what is wrong."""
    from tasks.engine.hosts import connection_to

    connection = connection_to(c.client().target(host), c.config)
    try:
        connection.open()
    finally:
        connection.close()
    console.say(f"✓ {host} lets you in", style="green")


def say_seen(bucket: str, source: Source, region: str | None) -> None:
    """Say what is known of the bucket, and what only the host can find out."""
    where = f" in {region}" if region else ""
    if source.kind == "role":
        console.say(f"✓ the bucket {bucket} is there{where}", style="green")
        console.say("  whether the instance's role may use it, `configure` finds out on the host")
    else:
        console.say(f"✓ the bucket {bucket} is there{where}, and opens to your keys", style="green")


# -- writing them down -------------------------------------------------------------------------


def write(answers: Answers, yes: bool) -> None:
    """Write the answers into fabric.yaml, after showing what changes and asking."""
    file = paths.PROJECT / "fabric.yaml"
    former = file.read_text() if file.is_file() else ""
    text = filled(former, answers.hosts, answers.settings())
    if text == former:
        console.say("fabric.yaml says so already")
        return
    console.say("\n".join(difference(former, text)))
    asks = holds_something(former)
    if asks and not confirm("fabric.yaml holds something already. Change these lines?", yes):
        raise Exit("Nothing was written.")
    replace(file, text)
    console.say("✓ written to fabric.yaml", style="green")


def say_next(answers: Answers) -> None:
    """Say what to type next."""
    chain = typed(",".join(answers.hosts), None, "install configure deploy verify")
    profile = answers.source.profile
    if profile and shutil.which("aws"):
        export = f"aws configure export-credentials --profile {profile} --format env"
        console.say(f'Next: eval "$({export})"; {chain}')
    elif profile:
        console.say(f"Next: {chain}")
        console.say(f"  configure asks for the keys: type those of your profile {profile}")
    else:
        console.say(f"Next: {chain}")
