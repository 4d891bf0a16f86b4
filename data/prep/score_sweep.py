"""How the score depends on filling steps and on the lengths tried: table, TSV and curves."""

import argparse
import html
import math
import os
import sys

from score_pictures import pictures_score
from score_run import Program, json_write
from score_text import pairs_read, sacrebleu, text_score

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
TSV_HEAD = "task\tsteps\tbeam\tscore\titems\tevaluations\tseconds"


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
    room = max((high - low) * 0.08, abs(high) * 0.02, 0.05)
    low, high = max(0.0, low - room), high + room

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
    """tasks: (name, unit, rows). The whole picture as SVG."""
    width = LEFT + len(tasks) * (PANEL + GAP) - GAP + 24
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" '
           f'width="{width}" height="{HEIGHT}" role="img">',
           "<title>Score by filling steps and lengths tried</title>", f"<style>\n{STYLE}\n</style>",
           f'<rect class="paper" width="{width}" height="{HEIGHT}"/>']
    for number, (name, unit, rows) in enumerate(tasks):
        out += panel_draw(LEFT + number * (PANEL + GAP), name, unit, rows, steps, beams)
    at = LEFT
    out.append(f'<text x="{at}" y="{BOTTOM + 54}">filling steps; lengths tried:</text>')
    at += 180
    for number, beam in enumerate(beams):
        out.append(f'<path class="line c{number % COLOURS}" d="M{at},{BOTTOM + 50}h22"/>'
                   f'<text x="{at + 28}" y="{BOTTOM + 54}">{beam}</text>')
        at += 64
    return "\n".join(out + ["</svg>"]) + "\n"


def sweep_markdown(result):
    """A table for each task: steps down, beams across; score, and evaluations for each answer."""
    lines = []
    for name, unit, rows in by_task(result):
        beams = result["beams"]
        lines += [f"**{name}**, {unit} of {rows[0]['items']}; in brackets evaluations an answer",
                  "",
                  "| steps | " + " | ".join(f"beam {beam}" for beam in beams) + " |",
                  "|---" * (len(beams) + 1) + "|"]
        for step in result["steps"]:
            cells = [f"{r['score']:.1f} ({r['evaluations'] / r['items']:.1f})"
                     for beam in beams for r in rows if (r["steps"], r["beam"]) == (step, beam)]
            lines.append(f"| {step} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def by_task(result):
    """(name, unit, rows) of each task, in the order in which they were measured."""
    tasks = {}
    for one in result["rows"]:
        tasks.setdefault((one["task"], one["unit"]), []).append(one)
    return [(name, unit, rows) for (name, unit), rows in tasks.items()]


def sweep_tasks(options):
    """(name, unit, function of a program that gives score, items, evaluations, seconds)"""
    tasks = []
    if options.world:
        asked = argparse.Namespace(
            world=options.world, set=options.set, language="en", limit=options.pictures,
            images=options.images, length_oracle=False, picture_only=True, out=None)

        def pictures(program):
            found = pictures_score(program, asked)
            return (found["rows"][0]["picture"], found["questions"], found["evaluations"],
                    found["seconds_picture"])
        tasks.append(("Questions about pictures", "exact match, %", pictures))
    for name, data, metric, unit in (
            ("Translation", options.translation, "bleu", "BLEU"),
            ("Summaries", options.summary, "rouge", "Rouge-L")):
        if not data:
            continue
        if metric == "bleu" and not sacrebleu:
            sys.exit("score.py: BLEU needs the Python package sacrebleu: install it, or leave out "
                     "--translation")
        pairs_read(data, options.lines)  # a file that cannot be read is told before hours pass
        settings = argparse.Namespace(data=data, limit=options.lines, metric=metric, name=name,
                                      oracle_length=False, out=None)

        def text(program, settings=settings, metric=metric):
            found = text_score(program, settings)
            return (found["rows"][0][metric], found["lines"], found["evaluations"],
                    found["seconds_text"])
        tasks.append((name, unit, text))
    if not tasks:
        sys.exit("score.py: sweep needs --world, --translation or --summary")
    return tasks


def sweep_score(program, options):
    """The command `sweep`: sweep.json, sweep.tsv, sweep.md and sweep.svg in options.out."""
    rows, tasks = [], sweep_tasks(options)
    print(TSV_HEAD)
    for name, unit, score in tasks:
        for beam in options.beams:
            for steps in options.step_counts:
                one = Program(program.path, program.model, program.threads, program.jobs, steps,
                              beam)
                value, items, evaluations, seconds = score(one)
                rows.append({"task": name, "unit": unit, "steps": steps, "beam": beam,
                             "score": value, "items": items, "evaluations": evaluations,
                             "seconds": seconds})
                print(row_tsv(rows[-1]), flush=True)
    result = {"command": "sweep", "steps": options.step_counts, "beams": options.beams,
              "rows": rows}
    json_write(options.out, "sweep.json", result)
    for name, text in (
            ("sweep.tsv", "\n".join([TSV_HEAD, *map(row_tsv, rows)]) + "\n"),
            ("sweep.md", sweep_markdown(result)),
            ("sweep.svg", curves_draw(by_task(result), options.step_counts, options.beams))):
        with open(os.path.join(options.out, name), "w", encoding="utf-8") as file:
            file.write(text)
    return result


def row_tsv(one):
    return (f"{one['task']}\t{one['steps']}\t{one['beam']}\t{one['score']:.2f}\t{one['items']}\t"
            f"{one['evaluations']}\t{one['seconds']}")
