"""The worked example of docs/contributing.md, carried out in a copy of the tree."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tasks.engine import paths

PAGE = paths.PROJECT / "docs/contributing.md"
FILE = re.compile(r"^\*\*`(\S+)`\*\*\n\n```\w+\n(.*?)^```$", re.M | re.S)
ROW = re.compile(r"^```markdown\n(.*?)^```$", re.M | re.S)
COPIED = (
    "docs", "files", "tasks", "tests", "fab", "fabfile.py", "fabric.yaml", "pyproject.toml",
    "README.md", "requirements.txt",
)  # fmt: skip


def carry_out(copy: Path) -> list[str]:
    """Copy the project and do what the page says; returns the files that it adds."""
    left_out = shutil.ignore_patterns("__pycache__", ".state", ".venv*")
    for name in COPIED:
        source = paths.PROJECT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=left_out, dirs_exist_ok=True)
        else:
            copy.mkdir(exist_ok=True)
            shutil.copy(source, copy / name)
    page = PAGE.read_text()
    added = dict(FILE.findall(page))
    for name, text in added.items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(text)
    (row,) = ROW.findall(page)
    before = "| `install` |"
    readme = (copy / "README.md").read_text()
    assert before in readme
    (copy / "README.md").write_text(readme.replace(before, f"{row}{before}", 1))
    return list(added)
