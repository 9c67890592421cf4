"""The operator's settings: fabric.yaml, overridden by FABRIC_MLFLOW_* variables, checked at once.

Precedence: variables > environment > `mlflow:` > default. Every mistake is one line that names the
key, and for an unknown key the nearest known one.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from invoke import Exit
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)

from tasks.engine.configuration import UNNAMED, nearest
from tasks.engine.login import NAME

if TYPE_CHECKING:
    from typing import Any


PREFIX = "FABRIC_MLFLOW_"

WHERE = "Fix it in fabric.yaml or the variable that sets it."


def shaped(pattern: str, give: str) -> AfterValidator:
    """Return a check that a text matches as a whole; its ValueError says what to give."""

    def matching(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"give {give}")
        return text

    return AfterValidator(matching)


# Amazon S3 user guide, "General purpose bucket naming rules".
Bucket = Annotated[
    str,
    shaped(
        r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
        "the bucket's name alone: basketworld, not s3://basketworld",
    ),
]

# A part of dots alone would lead out of the place that it names.
KeyPrefix = Annotated[
    str,
    shaped(
        r"(?!(.*/)?\.+(/|$))[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*",
        "letters, digits and . _ = - with / between the parts, such as team/artifacts",
    ),
]

Name = Annotated[
    str, shaped(r"[a-z0-9][a-z0-9-]{0,31}", "small letters, digits and - (32 at most)")
]

# The server runs as the login user: below 1024 only nginx, with a public name, may listen.
UserPort = Annotated[int, Field(ge=1024, le=65535)]

Folder = Annotated[
    str,
    shaped(r"~?/[A-Za-z0-9._/-]+", "a folder such as ~/mlflow-server or /srv/mlflow-server"),
    AfterValidator(lambda text: own_folder(text)),
]

# What begins with a dash would be an option where it stands in a command.
Word = Annotated[
    str,
    shaped(r"[A-Za-z0-9_][A-Za-z0-9._-]*", "letters, digits and . _ - beginning with a letter"),
]

# systemd.resource-control(5), MemoryMax=
Memory = Annotated[
    str,
    shaped(r"[0-9]+[MG]", "mega- or gigabytes, such as 600M or 2G"),
    AfterValidator(lambda text: enough(text)),
]

Addresses = Annotated[
    str,
    shaped(
        r"[0-9A-Fa-f.:/]+(, *[0-9A-Fa-f.:/]+)*",
        "addresses or networks with commas between them, such as 10.0.1.10 or 10.0.1.0/24",
    ),
    AfterValidator(lambda text: all_addresses(text)),
]

Vpc = Annotated[str, shaped(r"vpc-[0-9a-f]{8,17}", "its id, such as vpc-0123456789abcdef0")]

Subnet = Annotated[
    str, shaped(r"subnet-[0-9a-f]{8,17}", "its id, such as subnet-0123456789abcdef0")
]

Version = Annotated[
    str, shaped(r"[0-9]+(\.[0-9]+)+(rc[0-9]+)?", "a release's number, such as 3.17.2")
]

Url = Annotated[
    str, shaped(r"https?://[^\s'\"\\]+", "an address such as https://store.example.org")
]

# It stands in single quotes in server.env.
Database = Annotated[
    str,
    shaped(
        r"[a-z][a-z0-9+]*://[^\s']*", "an address such as postgresql://mlflow@db.example.org/mlflow"
    ),
]

UserName = Annotated[
    str,
    shaped(
        NAME.pattern,
        "letters, digits and . _ @ + - (64 at most), beginning with a letter or digit",
    ),
]

Permission = Literal["READ", "USE", "EDIT", "MANAGE", "NO_PERMISSIONS", "DENY"]

# The MLflow release that this project is tested with; its lock is files/releases/<version>.txt.
TESTED_VERSION = "3.17.2"

# Measured on 3.17.2: one worker takes 431 MB, and has to start.
LEAST_MB = 512


def megabytes(memory: str) -> int:
    """Read what `memory_max` says, as 600M or 2G."""
    return int(memory[:-1]) * (1024 if memory.endswith("G") else 1)


def enough(memory: str) -> str:
    """Raise ValueError where no server could start within so much memory."""
    if megabytes(memory) < LEAST_MB:
        raise ValueError(f"a server needs {LEAST_MB}M")
    return memory


# A network with more addresses than this is no place that a balancer comes from, but half the
# internet: whoever is in it may say who he is.
WIDEST = {4: 8, 6: 32}


def all_addresses(text: str) -> str:
    """Raise ValueError where one of them is neither an address nor a network, or is too wide."""
    for word in text.split(","):
        network = ipaddress.ip_network(word.strip())
        if network.prefixlen < WIDEST[network.version]:
            raise ValueError(
                f"{network} lets anybody speak for others. Give the balancer's own addresses"
            )
    return text


# Folders of the system's and of other programs: a server's own folder is made private (0700), and
# the server may write in it.
SYSTEMS = {
    "bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "lost+found", "proc", "run",
    "sbin", "sys", "tmp", "usr",
}  # fmt: skip
OTHERS = {
    ".aws", ".cache", ".config", ".docker", ".gnupg", ".local", ".mlflow", ".ssh", "snap",
}  # fmt: skip


def own_folder(text: str) -> str:
    """Raise ValueError where a folder could not be one server's own."""
    home, *parts = text.rstrip("/").split("/")
    if not parts or any(set(part) <= {"."} for part in parts):
        raise ValueError("give the folder's whole path, without . and .. or a / too many")
    if home == "~":
        if parts[0] in OTHERS:
            raise ValueError(f"~/{parts[0]} is for other programs. Give a folder of its own")
        return text
    if parts[0] in SYSTEMS or parts[:2] in (["var", "tmp"], ["var", "run"]):
        raise ValueError("that is the system's. Give a folder such as /srv/mlflow-server")
    # Where folders of others lie side by side, or in somebody's home among them.
    least = 3 if parts[0] in ("home", "var") else 2
    if len(parts) < least or OTHERS & set(parts):
        raise ValueError("it holds what others need. Give a folder of the server's own below it")
    return text


class Keep(BaseModel):
    """How many backups of each age stay."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    hourly: Annotated[int, Field(ge=0)] = 24
    daily: Annotated[int, Field(ge=0)] = 7
    weekly: Annotated[int, Field(ge=0)] = 5
    monthly: Annotated[int, Field(ge=0)] = 12


class Settings(BaseModel):
    """What one server should be; frozen, and complete with every default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bucket: Bucket | None = Field(None, description="S3 bucket for artifacts and backups")
    prefix: KeyPrefix | None = Field(None, description="artifacts' key prefix in the bucket")
    backup_prefix: KeyPrefix = Field("mlflow-backups", description="backups' key prefix")
    backup_bucket: Bucket | None = Field(None, description="another bucket for the backups")
    backup_profile: Word | None = Field(
        None, description="profile in your own ~/.aws/credentials that backups alone use"
    )
    region: Word | None = Field(None, description="AWS region of the bucket")
    profile: Word = Field("default", description="profile in the host's ~/.aws/credentials")
    endpoint_url: Url | None = Field(None, description="S3-compatible store other than AWS")
    root: Folder | None = Field(None, description="folder on the host for all of the server")
    port: UserPort = Field(5000, description="port on the host")
    local_port: UserPort = Field(5001, description="port of the tunnel on this machine")
    bind: Word = Field("127.0.0.1", description="address on the host that the port listens on")
    version: Version = Field(TESTED_VERSION, description="MLflow release")
    workers: Annotated[int, Field(ge=0, le=64)] = Field(
        1, description="server processes; 0 = from cores and memory"
    )
    memory_max: Memory | None = Field(None, description="most memory that the server may take")
    username: UserName = Field("admin", description="name of the first user")
    default_permission: Permission = Field(
        "READ", description="what a user may do with others' experiments"
    )
    backend_store_uri: Database | None = Field(None, description="database; empty = SQLite in root")
    artifact_access: Literal["proxied", "direct"] = Field(
        "proxied",
        description="artifacts through the server, or by presigned URL from S3",
    )
    ai_gateway: bool = Field(False, description="MLflow's AI gateway to model providers")
    public_name: Word | None = Field(None, description="DNS name that clients use (TLS)")
    balancer: Addresses | None = Field(
        None, description="addresses or networks that a balancer in front comes from"
    )
    keep: Keep = Field(Keep(), description="how many backups of each age stay")
    confirm: Literal["ask", "name"] = Field(
        "ask", description="how destruction is asked about: yes or no, or by name"
    )
    access: Literal["ssh", "ssm"] = Field(
        "ssh", description="how a host in AWS is reached: its SSH port, or Session Manager"
    )
    vpc: Vpc | None = Field(None, description="VPC for aws.provision, which makes none")
    subnet: Subnet | None = Field(None, description="public subnet for aws.provision")
    environment: Name | None = Field(None, description="which of `environments` is meant")

    @property
    def unit(self) -> str:
        """Name the systemd unit, and with it the socket, the nginx site and the folder."""
        return f"mlflow-server-{self.environment}" if self.environment else "mlflow-server"

    @property
    def root_path(self) -> str:
        """Name the server's folder on the host; it may start with `~`."""
        return self.root or f"~/{self.unit}"

    @property
    def artifact_prefix(self) -> str:
        """Name the artifacts' place in the bucket."""
        if self.prefix:
            return self.prefix
        return f"mlflow-artifacts-{self.environment}" if self.environment else "mlflow-artifacts"

    @property
    def has_own_backups(self) -> bool:
        """Tell whether backups have a bucket or keys of their own."""
        return bool(self.backup_profile) or self.backup_bucket not in (None, self.bucket)

    @property
    def balancers(self) -> list[str]:
        """List the addresses and networks that requests come from in the name of others."""
        return [word.strip() for word in (self.balancer or "").split(",") if word]

    @property
    def label(self) -> str:
        """Name the environment to people."""
        return self.environment or UNNAMED

    def require_bucket(self) -> str:
        """Return the bucket; raises Exit that says how to name one."""
        if not self.bucket:
            raise Exit(
                "No bucket is configured. Set `bucket:` under `mlflow:` in fabric.yaml, or "
                f"{PREFIX}BUCKET, to the S3 bucket for the artifacts."
            )
        return self.bucket

    def require_backup_bucket(self) -> str:
        """Return the bucket of the backups; raises Exit that says how to name one."""
        return self.backup_bucket or self.require_bucket()


# The unnamed environment's label and folder of backups, and what units of a server end in: those of
# an environment `backup` and the schedule of the unnamed one would be the same.
TAKEN = re.compile(r"default|(.+-)?(backup|backup-verify|stream)")

SCALARS = sorted(set(Settings.model_fields) - {"keep"})


def settle(
    file: Mapping[str, Any] | None,
    variables: Mapping[str, str],
    environment: str | None = None,
) -> tuple[Settings, list[str]]:
    """Settle what the file's `mlflow:` and `hosts:` and the variables say into settings and hosts.

    `file` is fabric.yaml as plain data; `environment` is what `use` named. Raises Exit naming the
    key on the first mistake.
    """
    data = dict(file or {})
    base = section(data.get("mlflow"), "mlflow")
    environments = environments_in(base)
    overrides = _from_variables(variables)
    name = environment or overrides.get("environment") or base.get("environment") or UNNAMED
    layer: dict[str, Any] = {}
    if name == UNNAMED:
        name = None
    elif name in environments:
        layer = section(environments[name], f"mlflow.environments.{name}")
    else:
        known = [UNNAMED, *environments]
        raise Exit(
            f"Unknown environment {name!r}{nearest(str(name), known)}. There is: "
            f"{', '.join(map(str, known))}. More go under `environments:` in fabric.yaml."
        )
    own_hosts = layer.pop("hosts", None)
    hosts = _hosts(variables.get("FABRIC_HOSTS") or own_hosts or data.get("hosts"))
    return checked({**base, **layer, **overrides, "environment": name}), hosts


def environments_in(base: dict[str, Any]) -> dict[str, Any]:
    """Take the environments out of the file's section; raises Exit where one has a taken name."""
    environments = section(base.pop("environments", None), "mlflow.environments")
    for taken in filter(TAKEN.fullmatch, map(str, environments)):
        raise Exit(
            f"No environment can be called {taken!r}: a server's own units or backups are. Rename "
            "it under `environments:` in fabric.yaml."
        )
    return environments


def checked(values: Mapping[str, Any]) -> Settings:
    """Check the values; raises Exit that names the first key that is wrong."""
    for key in values:
        if key == "hosts":  # an environment's own were taken out before
            raise Exit(
                "`hosts:` stands below `mlflow:` in fabric.yaml. Put it at the top of the file, "
                "beside `mlflow:`, without blanks before it."
            )
        if key not in Settings.model_fields:
            known = [*Settings.model_fields, "environments"]
            raise Exit(f"Unknown setting `mlflow: {key}:`{nearest(str(key), known)}. {WHERE}")
    # An empty value in YAML (`bucket:`) means the default, not a null.
    given = {key: value for key, value in values.items() if value not in (None, "")}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = _reason(first)
        raise Exit(f"Setting `mlflow: {key}:` {reason}. {WHERE}") from None


def reason_against(key: str, value: str) -> str | None:
    """Say why a setting cannot have a value, and what to give; None where it can."""
    try:
        Settings(**{key: value})
    except ValidationError as error:
        return _reason(error.errors()[0])
    return None


def _reason(error: Any) -> str:
    value = error["input"]
    wanted = {
        "int_parsing": "a whole number",
        "int_type": "a whole number",
        "bool_parsing": "true or false",
        "bool_type": "true or false",
        "string_type": "text (quote it)",
        "extra_forbidden": "a known key",
    }.get(error["type"])
    if wanted:
        return f"is {value!r}, not {wanted}"
    said = error["msg"].removeprefix("Value error, ")
    return f"is {value!r}: {said[:1].lower()}{said[1:]}"


def _from_variables(variables: Mapping[str, str]) -> dict[str, str]:
    known = {PREFIX + key.upper(): key for key in SCALARS}
    names = {*known, "FABRIC_HOSTS"}
    for variable in variables:
        suspicious = variable.startswith(PREFIX) or _misspelt(variable, names)
        if suspicious and variable not in names:
            raise Exit(
                f"Unknown variable {variable}{nearest(variable, names)}. Unset it or fix its name."
            )
    return {key: variables[name] for name, key in known.items() if variables.get(name)}


def _misspelt(variable: str, names: set[str]) -> bool:
    # FABRIC_RUN_ECHO and the like are Fabric's own and nobody's typing mistake.
    return variable.startswith("FABRIC_") and bool(
        difflib.get_close_matches(variable, names, n=1, cutoff=0.85)
    )


def _hosts(value: Any) -> list[str]:
    if value is None:
        return []
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Exit(f"`hosts:` is {value!r}, not a list of names. {WHERE}")
    return [name.strip() for name in names if name.strip()]


def section(value: Any, name: str) -> dict[str, Any]:
    """Return a part of the file as a dict of its own; raises Exit where it is something else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Exit(f"`{name}:` is {value!r}, not a list of `key: value` lines. {WHERE}")
    return dict(value)
