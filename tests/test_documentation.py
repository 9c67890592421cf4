"""Every task and every setting is documented, and what is documented is so."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml
from invoke import Collection, Task

import fabfile
from tasks.engine import paths, templates
from tasks.engine.environments import refuse_shared
from tasks.engine.settings import Settings, settle
from tasks.engine.task import LocalTask, RemoteTask
from tasks.findings.audit import places

README = paths.PROJECT / "README.md"
YAML = paths.PROJECT / "fabric.yaml"


def walk(collection: Collection, prefix: str = "") -> Iterator[tuple[str, Task[Any]]]:
    for name, task in collection.tasks.items():
        yield f"{prefix}{name}", task
    for name, inner in collection.collections.items():
        yield from walk(inner, f"{prefix}{name}.")


TASKS = dict(walk(fabfile.namespace))
# A namespace's own name is its default task.
NAMES = {*TASKS, *fabfile.namespace.collections}
# Asked once for each task: Invoke takes the help away from a task as it hands it out.
OPTIONS = {task: task.get_arguments() for task in dict.fromkeys(TASKS.values())}
every_task = pytest.mark.parametrize("name", sorted(TASKS))
every_setting = pytest.mark.parametrize("key", [*Settings.model_fields, "environments"])


@cache
def readme() -> str:
    return README.read_text()


@cache
def shown() -> dict[str, str]:
    """The settings of fabric.yaml, by key: what stands behind the colon, comment or not."""
    found = re.findall(r"^  (?:# )?([a-z_]+):(.*)$", YAML.read_text(), re.M)
    return {key: value.strip() for key, value in found}


def documentation(name: str) -> list[str]:
    return (TASKS[name].__doc__ or "").strip().splitlines()


# -- tasks -------------------------------------------------------------------------------------


@every_task
def test_every_task_says_whether_it_is_for_hosts_or_for_this_machine(name):
    assert isinstance(TASKS[name], RemoteTask | LocalTask)


@every_task
def test_every_task_s_first_line_is_short_and_imperative(name):
    first, *rest = documentation(name)
    assert len(first) <= 60
    assert first.endswith(".")
    verb = first.split()[0].rstrip(",")
    assert verb[0].isupper()
    assert not re.search(r"(ing|[^s]s)$", verb), f"{verb} is not imperative"
    assert rest[0] == "", "a blank line follows"


@every_task
def test_every_task_has_an_example_that_can_be_typed(name):
    examples = [line for line in documentation(name) if line.strip().startswith("Example: ")]
    assert len(examples) == 1
    example = examples[0].partition("Example: ")[2].removeprefix('eval "$(').removesuffix(')"')
    program, *words = shlex.split(example)
    assert program == "fab"
    if words[0] == "-H":
        del words[:2]
        assert isinstance(TASKS[name], RemoteTask)
    assert fabfile.namespace[words[0]] is TASKS[name]
    known = {option for argument in OPTIONS[TASKS[name]] for option in argument.names}
    for word in words[1:]:
        if word.startswith("--"):
            assert word.removeprefix("--") in known, f"{word} is no option"


@every_task
def test_every_option_has_help(name):
    assert [option.name for option in OPTIONS[TASKS[name]] if not option.help] == []


@every_task
def test_every_task_stands_in_the_readme(name):
    assert re.search(rf"`{re.escape(name)}[` ]", readme())


def test_every_task_that_the_readme_names_exists():
    table = readme().partition("## Tasks")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for cell in cells for name in re.findall(r"`([a-z.-]+)`", cell)}
    assert named
    assert named <= NAMES


def test_the_guide_s_names_are_there():
    assert {"configure-aws", "deploy-service", "backup-db", "tunnel"} <= NAMES
    assert fabfile.namespace["deploy-service"] is fabfile.namespace["deploy"]
    assert fabfile.namespace["backup-db"] is fabfile.namespace["backup"]


def sources() -> Iterator[tuple[str, str]]:
    for folder in ("tasks", "files", "docs", "README.md"):
        place = paths.PROJECT / folder
        for file in [place] if place.is_file() else place.rglob("*"):
            if file.suffix in (".py", ".sh", ".md", ".ini", ".service", ".conf"):
                yield str(file.relative_to(paths.PROJECT)), file.read_text()


def test_what_to_type_next_can_be_typed():
    typed = re.compile(r"\./fab (?:-H (?:\{[^}]*\}|\S+) )?([a-z][a-z.-]*[a-z])")
    unknown = {
        (file, name)
        for file, text in sources()
        for name in typed.findall(text)
        if name not in NAMES
    }
    assert unknown == set()


# -- settings ----------------------------------------------------------------------------------


@every_setting
def test_every_setting_stands_in_fabric_yaml(key):
    assert key in shown()


def test_fabric_yaml_shows_the_defaults():
    """With every comment taken away from a setting, the settings are what they were without."""
    lines = [f"  {key}: {value}" for key, value in shown().items() if key in Settings.model_fields]
    text = "mlflow:\n" + "\n".join(lines)
    settings, _ = settle(yaml.safe_load(text), {})
    # The prefix is shown as it is for the first environment.
    assert settings.artifact_prefix == Settings().artifact_prefix
    assert settings.root_path == Settings().root_path
    assert settings.model_copy(update={"prefix": None, "root": None}) == Settings()


def test_fabric_yaml_is_valid_as_it_is_shipped():
    settings, hosts = settle(yaml.safe_load(YAML.read_text()), {})
    assert settings == Settings()
    assert hosts == []


def test_fabric_yaml_s_example_of_environments_is_valid():
    text = YAML.read_text().partition("  # environments:\n")[2]
    file = yaml.safe_load("mlflow:\n  environments:\n" + text.replace("  # ", "  "))
    file["mlflow"]["environment"] = "dev"
    refuse_shared(file, {})
    found = {name: settle(file, {}, name) for name in ("dev", "staging", "production")}
    assert [settings.port for settings, _ in found.values()] == [5000, 5001, 5002], "the guide's"
    assert found["production"][1]


@every_setting
def test_every_setting_stands_in_the_readme_with_its_default(key):
    row = re.search(rf"^\| `{key}` \| (.*?) \|", readme(), re.M)
    assert row, f"{key} has no row"
    field = Settings.model_fields.get(key)
    if field is None or field.default is None:
        return
    default = field.default
    if isinstance(default, bool):
        default = str(default).lower()
    if key == "keep":
        values = ", ".join(f"{name}: {value}" for name, value in default.model_dump().items())
        default = f"{{{values}}}"
    assert row[1] == f"`{default}`"


def test_every_setting_of_the_readme_exists():
    table = readme().partition("## Settings")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z_]+)`", table, re.M)) == {
        *Settings.model_fields,
        "environments",
    }


# -- links -------------------------------------------------------------------------------------


def test_every_file_that_is_linked_to_exists():
    files = [README, *(paths.PROJECT / "docs").glob("*.md")]
    missing = {
        (file.name, link)
        for file in files
        for link in re.findall(r"\]\(([^)#:]+)\)", file.read_text())
        if not (file.parent / link).exists()
    }
    assert missing == set()


# -- doctor ------------------------------------------------------------------------------------


def test_every_finding_stands_in_doctor_s_page_and_no_other():
    code = [file.read_text() for file in (paths.PROJECT / "tasks/findings").glob("*.py")]
    found = set(re.findall(r'case\.finding\(\s*"([a-z-]+)"', "\n".join(code)))
    found |= {"disk-full", "disk-nearly-full"}  # one finding, two degrees
    bucket = [templates.source(name) for name in ("bucket.py", "look_at_bucket.py")]
    kinds = re.findall(r'Trouble\(\s*"([a-z-]+)"', "\n".join(bucket))
    page = (paths.PROJECT / "docs/doctor.md").read_text().partition("## What it finds")[2]
    cells = [row.split("|")[1] for row in page.splitlines() if row.startswith("|")]
    named = {key for cell in cells for key in re.findall(r"`([a-z-]+)`", cell)}
    assert named == found | set(kinds)


def test_every_finding_of_the_audit_stands_in_its_page_and_no_other():
    folder = paths.PROJECT / "tasks/findings/audit"
    code = "\n".join(file.read_text() for file in folder.glob("*.py"))
    found = set(re.findall(r'case\.finding\(\s*"([a-z-]+)"', code))
    found |= {f"{kind}-elsewhere" for kind in places.KINDS}
    # Those that doctor's own functions find.
    shared = {"listening-everywhere", "certificate", "readable-secrets", "secret-key-missing",
              "password-well-known", "no-admin"}  # fmt: skip
    page = (paths.PROJECT / "docs/audit.md").read_text().partition("## What it finds")[2]
    cells = [row.split("|")[1] for row in page.splitlines() if row.startswith("|")]
    named = {key for cell in cells for key in re.findall(r"`([a-z-]+)`", cell)}
    assert named == found | shared


def test_what_changing_each_setting_does_is_told():
    page = (paths.PROJECT / "docs/settings.md").read_text().partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_]+)` \| \S.*\|$", page, re.M)
    assert sorted(rows) == sorted(Settings.model_fields)
