"""Panels of lines as SVG, in the style of evaluate_plot.py."""

import html
from dataclasses import dataclass

from evaluate_plot import COLOURS, STYLE, ticks


@dataclass
class Panel:
    """lines: (name, curves), a curve a list of (x, y); a line without a name is not in the legend."""
    title: str
    lines: list
    below: str = "TFLOP"  # what x is
    scale: float = 1e12  # of its numbers
    dots: bool = False
    low: float | None = None  # of y; None: a little below the least
    high: float | None = None
    wide: int = 380  # pixels
    tall: int = 240
    legend: int = 130  # pixels of an entry


LEFT, TOP, GAP, FOOT = 56, 60, 104, 80


def limits(panel, values):
    room = max(max(values) - min(values), 1e-6 + abs(max(values)) * 1e-3)
    return (min(values) - 0.08 * room if panel.low is None else panel.low,
            max(values) + 0.08 * room if panel.high is None else panel.high)


def panel_draw(panel, left):
    points = [p for _, curves in panel.lines for curve in curves for p in curve]
    most = max(x for x, _ in points) or 1
    low, high = limits(panel, [y for _, y in points])

    def at(x, y):
        return left + panel.wide * x / most, TOP + panel.tall * (high - y) / (high - low)

    out = [f'<text class="title" x="{left}" y="28">{html.escape(panel.title)}</text>']
    for tick in ticks(low, high):
        y = at(0, tick)[1]
        out.append(f'<path class="grid" d="M{left},{y:.1f}h{panel.wide}"/>'
                   f'<text class="end" x="{left - 8}" y="{y + 4:.1f}">{tick:g}</text>')
    for tick in ticks(0, most):
        out.append(f'<text class="middle" x="{at(tick, low)[0]:.1f}" y="{TOP + panel.tall + 20}">'
                   f'{tick / panel.scale:g}</text>')
    foot = TOP + panel.tall
    out.append(f'<text class="middle" x="{left + panel.wide / 2}" y="{foot + 40}">{html.escape(panel.below)}</text>')
    for number, (name, curves) in enumerate(panel.lines):
        colour, entry = number % COLOURS, left + panel.legend * number
        for curve in curves:
            path = [at(x, y) for x, y in sorted(curve)]
            out.append(f'<path class="line c{colour}" d="M{"L".join(f"{x:.1f},{y:.1f}" for x, y in path)}"/>')
            if panel.dots:
                out += [f'<circle class="d{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in path]
        out.append(f'<path class="line c{colour}" d="M{entry},{foot + 58}h18"/>'
                   f'<text x="{entry + 22}" y="{foot + 62}">{html.escape(name)}</text>')
    return out


def draw(title, panels, path):
    """Panels side by side, into a file."""
    width = LEFT + sum(p.wide for p in panels) + GAP * (len(panels) - 1) + 30
    height = TOP + max(p.tall for p in panels) + FOOT
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
           f"<title>{html.escape(title)}</title>", f"<style>\n{STYLE}\n</style>",
           '<rect class="paper" width="100%" height="100%"/>']
    left = LEFT
    for panel in panels:
        out += panel_draw(panel, left)
        left += panel.wide + GAP
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join([*out, "</svg>"]) + "\n")
