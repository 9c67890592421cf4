"""Draw what was last measured: time by hosts and by round trip, requests by writers.

From bench/numbers, which hosts.py, round_trips.py and writers.py leave, to docs. Legible on white
and on black: no ground of its own, and greys and colours of middle lightness. matplotlib is no
requirement of the project's:

    uv run --no-project --with matplotlib python bench/plots.py
"""

import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
GREY = "#808080"
COLOURS = {"./fab": "#2f9e6e", "Ansible": "#d9534f", "pyinfra": "#3f8fd2", "guide": "#d9534f"}
COLOURS["ssh true"] = GREY
COLOURS["./fab, PostgreSQL"] = COLOURS["pyinfra"]
pyplot.rcParams.update(
    {
        "svg.fonttype": "none", "svg.hashsalt": "remote-mlflow", "font.family": "sans-serif",
        "font.size": 10, "text.color": GREY, "axes.labelcolor": GREY, "xtick.color": GREY,
        "ytick.color": GREY, "axes.edgecolor": GREY, "axes.spines.top": False,
        "axes.spines.right": False, "savefig.transparent": True,
    }
)  # fmt: skip


def numbers(name):
    """Return what a benchmark has left."""
    return json.loads((HERE / f"numbers/{name}.json").read_text())


def draw(name, title, across, up, lines, logarithmic=False):
    """Draw lines, each a name with its places and heights, which stands at the line's end."""
    figure, axes = pyplot.subplots(figsize=(5.2, 2.9), layout="constrained")
    for label, (places, heights) in lines.items():
        colour = COLOURS[label]
        axes.plot(places, heights, marker="o", markersize=4, color=colour, linewidth=2)
        axes.annotate(
            f"{label} {heights[-1]:.3g}", (places[-1], heights[-1]), color=colour,
            xytext=(7, 0), textcoords="offset points", va="center",
        )  # fmt: skip
    if logarithmic:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xticks(next(iter(lines.values()))[0])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_title(title, fontsize=10, loc="left", color=GREY)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(axis="y", color=GREY, alpha=0.25)
    figure.savefig(DOCS / f"{name}.svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def main():
    if (HERE / "numbers/hosts.json").exists():
        tools = numbers("hosts")["tools"]
        lines = {
            tool: ([int(count) for count in costs], [cost["seconds"] for cost in costs.values()])
            for tool, costs in tools.items()
        }
        title = "Nothing to do, at 50 ms of round trip"
        draw("hosts", title, "hosts", "seconds (logarithmic)", lines, logarithmic=True)
    if (HERE / "numbers/round_trips.json").exists():
        found = numbers("round_trips")
        across = [1000 * each for each in found["round_trips"]]
        lines = {name: (across, seconds) for name, seconds in found["seconds"].items()}
        title = "install configure deploy with nothing to do, one host"
        draw("round_trips", title, "round trip, ms", "seconds", lines)
    if (HERE / "numbers/writers.json").exists():
        found = numbers("writers")
        lines = {name: (found["writers"], rates) for name, rates in found["rates"].items()}
        draw("writers", "Requests with a login, two cores", "writers", "requests a second", lines)


main()
