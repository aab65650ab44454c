"""The frontiers as one picture, a panel a trace: left is cheaper, up is sooner."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

from benchmarks.elasticity.frontier import Point, curve

_COLOURS = {
    "loraplex": "#d62728",
    "knative": "#1f77b4",
    "keda": "#2ca02c",
    "ray_serve": "#9467bd",
    "cooldown": "#8c8c8c",
}


def draw(found: Mapping[str, Sequence[Point]], file: Path) -> None:
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "loraplex"  # the same picture for the same figures
    from matplotlib import pyplot

    columns = 4
    rows = -(-len(found) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4 * columns, 3 * rows), squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    for axis, (trace, points) in zip(axes.flat, found.items(), strict=False):
        for law, colour in _COLOURS.items():
            mine = [p for p in points if p.law == law]
            best = curve(mine)
            axis.scatter(
                [p.cost for p in mine], [100 * p.within for p in mine], 6, colour, alpha=0.5
            )
            axis.plot([p.cost for p in best], [100 * p.within for p in best], color=colour, lw=1)
            for point in mine:
                if point.default:
                    axis.scatter([point.cost], [100 * point.within], 36, "none", edgecolors=colour)
        axis.set_xscale("log")
        axis.set_title(trace, fontsize=9)
        axis.tick_params(labelsize=7)
    for law, colour in _COLOURS.items():
        axes.flat[0].plot([], [], color=colour, label=law)
    axes.flat[0].legend(fontsize=7, loc="lower right")
    figure.supxlabel("replica-seconds over the clairvoyant's (log; ringed: defaults)", fontsize=9)
    figure.supylabel("% of requests that wait ≤ 10 s", fontsize=9)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
