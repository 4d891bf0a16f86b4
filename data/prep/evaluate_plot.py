"""Curves of scores by denoising steps and lengths tried, as SVG."""

import html
import math

STYLE = """\
.paper{fill:#ffffff}
text{fill:#68707c;font-family:system-ui,sans-serif;font-size:13px}
.title{font-size:16px;font-weight:600}.title{fill:#24292f}
.end{text-anchor:end}.middle{text-anchor:middle}
.grid{stroke:#e3e6ea;stroke-width:1;fill:none}
.line{stroke-width:2;fill:none;stroke-linejoin:round}
.c0{stroke:#2563c9}.c1{stroke:#c2410c}.c2{stroke:#2d7d46}.c3{stroke:#7c3aed}.c4{stroke:#b0206b}
.d0{fill:#2563c9}.d1{fill:#c2410c}.d2{fill:#2d7d46}.d3{fill:#7c3aed}.d4{fill:#b0206b}
@media (prefers-color-scheme:dark){.paper{fill:#15181d}text{fill:#98a2b0}.title{fill:#e6e9ee}\
.grid{stroke:#2c323b}.c0{stroke:#6ea8fe}.c1{stroke:#fb923c}.c2{stroke:#5fc27e}\
.c3{stroke:#b794f6}.c4{stroke:#f472b6}.d0{fill:#6ea8fe}.d1{fill:#fb923c}.d2{fill:#5fc27e}\
.d3{fill:#b794f6}.d4{fill:#f472b6}}"""
PANEL, GAP, LEFT, TOP, BOTTOM, HEIGHT = 290, 62, 56, 60, 300, 372  # pixels
COLOURS = 5


def ticks(low, high):
    """Round numbers between the two, about five."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= rough)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def panel_draw(left, name, unit, rows, steps, beams):
    """One task: steps from left to right, evenly spaced; a line for each beam."""
    values = [r["score"] for r in rows]
    low, high = min(values), max(values)
    margin = max((high - low) * 0.08, abs(high) * 0.02, 0.05)
    low, high = max(0.0, low - margin), high + margin

    def x(step):
        return left + PANEL * (steps.index(step) + 0.5) / len(steps)

    def y(value):
        return BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP)

    out = [f'<text class="title" x="{left}" y="28">{html.escape(name)}</text>',
           f'<text x="{left}" y="47">{html.escape(unit)}</text>']
    for tick in ticks(low, high):
        out.append(f'<path class="grid" d="M{left},{y(tick):.1f}h{PANEL}"/>'
                   f'<text class="end" x="{left - 8}" y="{y(tick) + 4:.1f}">{tick:.4g}</text>')
    for step in steps:
        out.append(f'<text class="middle" x="{x(step):.1f}" y="{BOTTOM + 20}">{step}</text>')
    for number, beam in enumerate(beams):
        points = [(x(r["steps"]), y(r["score"])) for r in sorted(rows, key=lambda r: r["steps"])
                  if r["beam"] == beam]
        path = "L".join(f"{a:.1f},{b:.1f}" for a, b in points)
        out.append(f'<path class="line c{number % COLOURS}" d="M{path}"/>')
        out += [f'<circle class="d{number % COLOURS}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>'
                for a, b in points]
    return out


def curves_draw(tasks, steps, beams):
    """tasks: (name, unit, rows). All of it as SVG."""
    width = LEFT + len(tasks) * (PANEL + GAP) - GAP + 24
    size = f'viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}"'
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
           "<title>Score by denoising steps and lengths tried</title>", f"<style>\n{STYLE}\n</style>",
           f'<rect class="paper" width="{width}" height="{HEIGHT}"/>']
    for number, (name, unit, rows) in enumerate(tasks):
        out += panel_draw(LEFT + number * (PANEL + GAP), name, unit, rows, steps, beams)
    at = LEFT
    out.append(f'<text x="{at}" y="{BOTTOM + 54}">denoising steps; lengths tried:</text>')
    at += 180
    for number, beam in enumerate(beams):
        out.append(f'<path class="line c{number % COLOURS}" d="M{at},{BOTTOM + 50}h22"/>'
                   f'<text x="{at + 28}" y="{BOTTOM + 54}">{beam}</text>')
        at += 64
    return "\n".join(out + ["</svg>"]) + "\n"
