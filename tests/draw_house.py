"""Draw docs/house.svg: the folders of tasks/, their modules, and who imports whom.

Run as: .venv/bin/python tests/draw_house.py
"""

from __future__ import annotations

import sys
import textwrap
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from test_house import graph, room  # noqa: E402 (found only from here on)

PICTURE = ROOT / "docs/house.svg"
COMMAND = ".venv/bin/python tests/draw_house.py"

WIDTH, HEIGHT, LINE, LETTER = 960, 700, 19, 7.3  # of a line and a letter, in pixels
# Where each folder stands: left edge, top, width and height.
BOXES = {
    "verbs": (20, 20, 890, 110),
    "findings": (20, 180, 220, 240),
    "changes": (280, 180, 290, 240),
    "laptop": (600, 180, 150, 240),
    "rehearsal": (770, 180, 140, 240),
    "engine": (20, 470, 890, 100),
    "files/host": (20, 590, 890, 95),
}
TITLES = {
    "verbs": "verbs: what an operator types",
    "findings": "findings: what is wrong",
    "changes": "changes: what would be done",
    "laptop": "laptop: this side",
    "rehearsal": "rehearsal",
    "engine": "engine: how a task reaches its hosts, and what it is told",
    "files/host": "files/host: programs that run on the host; named, never imported",
}


def picture(root: Path = ROOT) -> str:
    """Return the picture as it is measured now."""
    imports = graph(root)
    rooms: dict[str, set[str]] = {name: set() for name in BOXES}
    arrows = set()
    for module, others in imports.items():
        if module == "tasks":
            continue
        if not module.endswith(f".{room(module)}"):
            rooms[room(module)].add(module.split(".", 2 if room(module) != "verbs" else 1)[-1])
        arrows |= {(room(module), room(there)) for there in others if there != "tasks"}
    topics = (root / "files/host").iterdir()
    rooms["files/host"] = {topic.name for topic in topics if any(topic.glob("*.*"))}
    drawn = [arrow(*pair) for pair in sorted(arrows) if pair[0] != pair[1]]
    drawn += [box(name, sorted(modules)) for name, modules in rooms.items()]
    return "\n".join((HEAD, *drawn, "</svg>", ""))


def box(name: str, modules: list[str]) -> str:
    left, top, width, height = BOXES[name]
    lines = textwrap.wrap(" · ".join(modules), int((width - 24) / LETTER), break_long_words=False)
    text = [f'<text x="{left + 12}" y="{top + 24}" class="title">{escape(TITLES[name])}</text>']
    text += [
        f'<text x="{left + 12}" y="{top + 48 + LINE * n}">{escape(line)}</text>'
        for n, line in enumerate(lines)
    ]
    return f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="6"/>' + "".join(text)


def arrow(above: str, below: str) -> str:
    """Draw from one box to another: beside it, below it, or past what lies between."""
    left, top, width, height = BOXES[above]
    there_left, there_top, there_width, there_height = BOXES[below]
    if top == there_top:
        points = f"{left + width},{top + height // 2} {there_left - 2},{top + height // 2}"
    elif there_top - top > 400:
        out, low = left + width + 20, there_top + there_height // 2
        points = f"{left + width},{top + 60} {out},{top + 60} {out},{low} {left + width + 2},{low}"
    else:
        x = (left + width // 2) if width < there_width else there_left + there_width // 2
        points = f"{x},{top + height} {x},{there_top - 2}"
    return f'<polyline points="{points}" marker-end="url(#head)"/>'


HEAD = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}">
<!-- Made by: {COMMAND} -->
<defs><marker id="head" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">
<path d="M0,0 L9,4 L0,8 Z" fill="#57606a"/></marker></defs>
<style>
text {{ font: 12px ui-monospace, Menlo, "DejaVu Sans Mono", monospace; fill: #24292f }}
.title {{ font: bold 14px system-ui, "DejaVu Sans", sans-serif; fill: #0550ae }}
rect {{ fill: #f6f8fa; stroke: #8c959f }}
polyline {{ fill: none; stroke: #57606a; stroke-width: 1.5 }}
</style>
<rect x="0" y="0" width="{WIDTH}" height="{HEIGHT}" style="fill: white; stroke: none"/>"""


if __name__ == "__main__":
    PICTURE.write_text(picture())
