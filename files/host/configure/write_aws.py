"""Set one profile's keys in ~/.aws/credentials and ~/.aws/config; leave all else as it is."""

import dataclasses
import os
import re

import talk


@dataclasses.dataclass(frozen=True)
class Request:
    """A profile, and what each of both files shall say of it; nothing where it is empty."""

    profile: str
    credentials: dict
    config: dict


def mended(text, header, values):
    """Replace what the section says of these keys, keep its others, add the section if missing."""
    lines, inside, done = [], False, False
    for line in text.splitlines():
        if re.match(r"\s*\[", line):
            inside = (
                re.sub(r"\s+", " ", line.strip()).replace("[ ", "[").replace(" ]", "]") == header
            )
            lines.append(line)
            if inside:
                lines += spelt(values)
                done = True
            continue
        key = line.split("=")[0].strip()
        # A session token of the former keys would make the new ones invalid.
        if inside and (
            key in values or (key == "aws_session_token" and "aws_access_key_id" in values)
        ):
            continue
        lines.append(line)
    if not done:
        lines += ([""] if lines and lines[-1].strip() else []) + [header]
        lines += spelt(values)
    return "\n".join(lines) + "\n"


def spelt(values):
    return [f"{key} = {value}" for key, value in values.items()]


def write(name, header, values):
    if not values:
        return
    path = os.path.expanduser("~/.aws/" + name)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    text = ""
    if os.path.exists(path):
        with open(path) as stream:
            text = stream.read()
    part = path + ".part"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(mended(text, header, values))
    os.chmod(part, 0o600)
    os.replace(part, path)


asked = talk.request(Request)
write("credentials", f"[{asked.profile}]", asked.credentials)
header = "[default]" if asked.profile == "default" else f"[profile {asked.profile}]"
write("config", header, asked.config)
