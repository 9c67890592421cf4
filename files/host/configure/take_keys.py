"""Take one profile's keys off the host, into a file of their own; bring them back, or forget them.

Reports {"id"} of the key, which is no secret; None where there is none. Repeated, it does nothing
more.
"""

import configparser
import dataclasses
import os
import re

import talk

KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


@dataclasses.dataclass(frozen=True)
class Request:
    """Which profile, and what to do: `away`, `back`, or `forget` what is away."""

    profile: str
    action: str


def path(name):
    return os.path.expanduser("~/.aws/" + name)


def read(file):
    try:
        with open(file) as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def write(file, text):
    """Write a file that only its owner can read, whole or not at all; an empty one is none."""
    if not text.strip():
        if os.path.exists(file):
            os.remove(file)
        return
    part = file + ".part"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)
    os.replace(part, file)


def divided(text, profile):
    """Return the lines of the profile's section, and all others."""
    inside, taken, left = False, [], []
    for line in text.splitlines():
        if re.match(r"\s*\[", line):
            inside = re.sub(r"[\s\[\]]", "", line) == profile
        (taken if inside else left).append(line)
    return taken, left


def joined(lines):
    return "\n".join(lines) + "\n" if lines else ""


def key_id(text, profile):
    found = configparser.RawConfigParser(strict=False)
    try:
        found.read_string(text)
    except configparser.Error:
        return None
    return found.get(profile, KEYS[0], fallback=None)


def main(asked):
    file, aside = path("credentials"), path("credentials." + asked.profile + ".away")
    there, away = read(file), read(aside)
    taken, left = divided(there, asked.profile)
    if asked.action == "away" and taken:
        # What is away already is from a turn that was cut off: what is there now is newer.
        write(aside, joined(taken))
        write(file, joined(left))
    elif asked.action == "back" and away:
        # Keys that somebody put there meanwhile are newer.
        if not taken:
            write(file, joined(left) + away)
        os.remove(aside)
    elif asked.action == "forget" and away:
        os.remove(aside)
    talk.report({"id": key_id(joined(taken) or away, asked.profile)})


if __name__ == "__main__":
    main(talk.request(Request))
