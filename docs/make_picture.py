"""Make docs/rehearse.svg from a real `./fab rehearse`.

Usage: python docs/make_picture.py (as root, as rehearsals need it). The lines are the program's;
only their colours are put back, which it leaves out where there is no terminal.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

PROJECT = Path(__file__).resolve().parent.parent
STYLES = {"✓": "green", "…": "bold", "╭": "green", "│": "green", "╰": "green", "$": "bold cyan"}


def main() -> None:
    done = subprocess.run(
        [str(PROJECT / "fab"), "rehearse", "--yes"], capture_output=True, text=True, check=True
    )
    console = Console(record=True, width=112, file=io.StringIO())
    for line in ["$ ./fab rehearse", *done.stdout.splitlines()]:
        console.print(Text(line, style=STYLES.get(line[:1], "")), soft_wrap=True)
    console.save_svg(str(PROJECT / "docs/rehearse.svg"), title="./fab rehearse")


if __name__ == "__main__":
    sys.exit(main())
