#!/usr/bin/env python3
"""The results that evaluate.sh left in a folder as Markdown: report.md, failures.md, sweep.svg.

usage: evaluate_report.py OUT SET ... -- TEXT ...
"""
import json
import os
import random
import re
import subprocess
import sys

from answers_score import SUBJECTS
from evaluate_inputs import json_read, json_write
from evaluate_plot import curves_draw
from photos_answers import predictions_accept

# The paper's zero-shot numbers (Ye et al., arXiv 2308.12219), of its largest model, Flan-XLM-R-XXL
# with 10.7 billion parameters; OL: lengths of answers given. Its sets are test sets.
PAPER = (("iwslt14", "IWSLT14 German to English, validation set, 3 lengths: BLEU",
          "30.90 (3 lengths; its test set)"),
         ("mmlu", "MMLU, validation set, mean over subjects: accuracy", "42.13"),
         ("tydiqa", "TyDiQA, {files} languages, lengths given: exact match", "52.06 (OL)"),
         ("mgsm", "MGSM, English: last number", "4.4 (GSM8K)"))
METRICS = (("accuracy", "accuracy"), ("exact_match", "exact match, lmms-eval's"),
           ("binary", "binary"), ("open", "open"), ("consistency", "consistency"),
           ("validity", "validity"), ("plausibility", "plausibility"), ("grounding", "grounding"),
           ("distribution", "distribution (lower is better)"))
# Which table of the questions' groups is in which file, and under which of GQA's names.
WAYS = {"all": ("form-all", "semantic"), "answer": ("answer-objects", "structural"),
        "objects": ("answer-objects", "semantic"), "subject": ("subject-type", "structural"),
        "form": ("form-all", "structural"), "type": ("subject-type", "semantic")}
ORDER = {"subject": [*SUBJECTS, "other"], "answer": ["yes or no", "one of two", "open"],
         "form": ["verify", "query", "choose", "compare", "logical"]}
TEXT_RUNS = (("1", "1 length"), ("3", "3 lengths"),
             ("3-weighted", "3 lengths with `--length-weight 0.2`"), ("given", "lengths given"))
UNITS = {"translation": ("bleu", "BLEU"), "summary": ("rougeL", "Rouge-L")}
STEPS, BEAMS = (1, 2, 4, 10, 50), (1, 3, 5)
FAILURES, SEED = 10, 1


def give_up(message):
    sys.exit(f"evaluate_report.py: {message}")


def score(kind, *words):
    """What `easyfirst score` counts."""
    done = subprocess.run([os.environ.get("EASYFIRST", "build/easyfirst"), "score", kind, "--json",
                           *words], check=False, capture_output=True, text=True, encoding="utf-8")
    if done.returncode not in (0, 1) or not done.stdout:
        give_up(f"score {kind} {words[0]}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def result_read(out, name):
    path = f"{out}/{name}/result.json"
    return json_read(path) if os.path.exists(path) else None


def number(value, digits=1):
    return "–" if value is None else f"{value:.{digits}f}"


def cell(text):
    """Text that cannot break a table."""
    return " ".join(str(text).split()).replace("\\", "\\\\").replace("|", "\\|") or "(nothing)"


def table(heads, rows, align="---:|"):
    lines = ["| " + " | ".join(heads) + " |", "|---|" + align * (len(heads) - 1)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


# ---- questions about images

def column_read(predictions, prefix):
    """{way: {group: (accuracy, questions)}} of a file of predictions."""
    found, files = {}, {}
    for way, (name, gqa_name) in WAYS.items():
        if name not in files:
            files[name] = score("gqa", predictions, f"{prefix}.{name}.json")["tables"]
        found[way] = {group: (row["accuracy"], row["questions"])
                      for group, row in files[name][gqa_name].items()}
    return found


def given_write(out, name):
    """The predictions of the runs with lengths given, as one file."""
    parts = [f"{out}/{folder}/predictions.json" for folder in sorted(os.listdir(out))
             if re.fullmatch(re.escape(name) + r"-length-\d+", folder)]
    path = f"{out}/inputs/{name}/given.json"
    json_write(path, [one for part in parts for one in json_read(part)])
    return path


def groups_tables(prefix, columns):
    """Accuracy in percent: a row for each group, a column for each file of predictions."""
    found = [(title, column_read(path, prefix)) for title, path in columns]
    chance = json_read(f"{prefix}.chance.json")
    commonest = json_read(f"{prefix}.commonest-answers.json")

    def rows(*ways):
        for way in ways:
            groups = found[0][1][way]
            for group in sorted(groups, key=lambda g: (ORDER.get(way, []) + [g]).index(g)
                                if way in ORDER else 0):
                cells = [group, f"{groups[group][1]:,}"]
                cells += [number(column[way][group][0]) for _, column in found]
                cells.append(number(chance[way][group]))
                yield cells + ([cell(commonest[group])] if way == "type" else [])

    heads = ["questions", *(title for title, _ in found), "chance"]
    return [*table(["asks for", *heads], rows("all", "subject")),
            *table(["answer, objects", *heads], rows("answer", "objects")),
            *table(["form", *heads], rows("form")),
            *table(["type", *heads, "the commonest"], rows("type"))]


def metrics_table(result):
    score_of = result["score"]
    rows = [(title, number(score_of["metrics"][key], 2)) for key, title in METRICS
            if score_of["metrics"].get(key) is not None]
    asked = (f"{score_of['questions']:,} questions, {score_of['unanswered']} unanswered, "
             f"{result['settings']['answer']['steps']} steps.")
    return [asked, "", *table(["GQA's metrics, 1 length", "%"], rows)]


def accepted_write(path, questions):
    """The path of the same predictions, each accepted one in the words that `score gqa` expects."""
    if not any("answers" in record for record in questions.values()):
        return path
    accepted = path.removesuffix(".json") + ".accepted.json"
    json_write(accepted, predictions_accept(json_read(path), questions))
    return accepted


def images_report(out, name):
    prefix = f"{out}/inputs/{name}"
    questions = json_read(f"{prefix}/questions.json")
    lines = [f"## Questions about images: {name}", "", *metrics_table(result_read(out, f"{name}-1"))]
    if any("answers" in record for record in questions.values()):
        lines += ["Above, only the first of several accepted answers counts; below, each does.", ""]
    columns = [
        ("with the image", f"{out}/{name}-1/predictions.json"),
        ("lengths given", given_write(out, name)),
        ("3 lengths", f"{out}/{name}-3/predictions.json"),
        ("... weighted", f"{out}/{name}-3-weighted/predictions.json"),
        ("gray", f"{out}/{name}-gray/predictions.json"),
        ("another scene's", f"{out}/{name}-other/predictions.json"),
        ("commonest", f"{prefix}/english.commonest.json")]
    lines += groups_tables(f"{prefix}/english", [(title, accepted_write(path, questions))
                                                 for title, path in columns])
    if result_read(out, f"{name}-german"):
        lines += ["In German:", "", *groups_tables(f"{prefix}/german", [
            ("with the image", f"{out}/{name}-german/predictions.json"),
            ("gray", f"{out}/{name}-german-gray/predictions.json"),
            ("commonest", f"{prefix}/german.commonest.json")])]
    return lines


# ---- texts

def texts_report(out, names):
    lines, signature = ["## Texts", ""], ""
    rows = []
    for name in names:
        inputs = f"{out}/inputs/{name}"
        runs = [(title, f"{out}/{name}-{run}/test.{name}.answers.txt") for run, title in TEXT_RUNS]
        runs += [("copy of the source", f"{inputs}/copy.txt"),
                 ("first words of the source", f"{inputs}/first.txt")]
        for title, answers in runs:
            found = score("text", "--metric", "bleu,chrf,rouge,exact", answers,
                          f"{inputs}/targets.txt")
            signature = found["bleu"]["signature"]
            rows.append((f"{name}: {title}", f"{found['lines']:,}",
                         number(found["bleu"]["score"], 2), number(found["chrf"]["score"], 2),
                         number(found["rougeL"]["f"], 2), number(found["exact"]),
                         number(found["bleu"]["ratio"], 2)))
    lines += table(["", "lines", "BLEU", "chrF2", "Rouge-L", "exact, %",
                    "length, of the reference's"], rows)
    return [*lines, f"BLEU: `{signature}`.", ""]


def main_score(found):
    """The one number that is published of a task, of all files."""
    if "macro" in found:
        return found["macro"]
    key = {"translation": "bleu", "summary": "rougeL", "choice": "accuracy",
           "exact": "exact_match", "number": "accuracy"}[found["task"]]
    return found.get("mean", found["files"][0])[key]


def paper_report(out):
    rows = []
    for name, title, paper in PAPER:
        result = result_read(out, name)
        if result:
            files = result["score"]["files"]
            rows.append((title.format(files=len(files)),
                         f"{sum(file['lines'] for file in files):,}",
                         f"{sum(file['unanswered'] for file in files):,}",
                         number(main_score(result["score"]), 2), paper))
    if not rows:
        return []
    return ["## The paper's sets", "", *table(["", "lines", "unanswered", "score",
            "paper: Flan-XLM-R-XXL"], rows),
            '"Unanswered" are prompts longer than the model reads; they count as wrong.', ""]


# ---- steps and lengths

def evaluations(path):
    """Evaluations of the language model, by what the runs printed (several if one was cut off)."""
    with open(path, encoding="utf-8") as file:
        return sum(int(count) for count in re.findall(r"(\d+) of \d+ steps evaluated", file.read()))


def sweep_read(out, name):
    """[(steps, beam, score, items, evaluations)], and of what."""
    rows, unit = [], ""
    for beam in BEAMS:
        for steps in STEPS:
            folder = f"sweep-{name}-{steps}-{beam}"
            result = result_read(out, folder)
            if not result:
                return [], ""
            if "metrics" in result["score"]:
                value, unit = result["score"]["metrics"]["accuracy"], "accuracy, %"
            else:
                key, unit = UNITS[result["score"]["task"]]
                value = result["score"]["files"][0][key]
            rows.append({"steps": steps, "beam": beam, "score": value,
                         "items": result["questions"],
                         "evaluations": evaluations(f"{out}/{folder}.log")})
    return rows, unit


def sweep_report(out, names):
    tasks = [(name, *reversed(sweep_read(out, name))) for name in names]
    tasks = [task for task in tasks if task[2]]
    if not tasks:
        return []
    lines = ["## Steps and lengths", ""]
    for name, unit, rows in tasks:
        lines += [f"{name}: {unit} of {rows[0]['items']}; in brackets evaluations an answer", ""]
        lines += table(["steps", *(f"{beam} length{'s' * (beam > 1)}" for beam in BEAMS)], (
            [str(steps), *(f"{row['score']:.1f} ({row['evaluations'] / row['items']:.1f})"
                           for row in rows if row["steps"] == steps)] for steps in STEPS))
    with open(f"{out}/sweep.svg", "w", encoding="utf-8") as file:
        file.write(curves_draw(tasks, STEPS, BEAMS))
    return [*lines, "![score by steps and lengths tried](sweep.svg)", ""]


# ---- failures

def drawn(name, wrong, total, heads):
    """A table of some wrong answers, drawn at random by the seed alone."""
    some = random.Random(SEED).sample(wrong, min(FAILURES, len(wrong)))
    title = (f"**{name}**: {len(some)} of {len(wrong):,} wrong answers of {total:,}, drawn at "
             f"random (seed {SEED})")
    return [title, "", *table(heads, (map(cell, row) for row in some), "---|")]


def failures_report(out, sets, texts):
    lines = []
    for name in sets:
        questions = json_read(f"{out}/inputs/{name}/questions.json")
        given = {one["questionId"]: one["prediction"] for one in
                 predictions_accept(json_read(f"{out}/{name}-1/predictions.json"), questions)}
        wrong = [(one["imageId"], one["question"], given.get(key, ""), one["answer"])
                 for key, one in questions.items() if given.get(key) != one["answer"]]
        lines += drawn(name, wrong, len(questions), ["image", "question", "answer", "expected"])
    for name in texts:
        columns = []
        for path in (f"inputs/{name}/copy.txt", f"{name}-1/test.{name}.answers.txt",
                     f"inputs/{name}/targets.txt"):
            with open(f"{out}/{path}", encoding="utf-8") as file:
                columns.append(file.read().split("\n")[:-1])
        wrong = [row for row in zip(*columns, strict=True) if row[1] != row[2]]
        lines += drawn(name, wrong, len(columns[0]), ["text", "answer", "expected"])
    return lines


def lines_write(path, lines):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def main():
    words = sys.argv[1:]
    if len(words) < 2 or words.count("--") != 1:
        sys.exit(__doc__)
    out, sets, texts = words[0], words[1:words.index("--")], words[words.index("--") + 1:]
    try:
        lines = [line for name in sets for line in images_report(out, name)]
        lines += texts_report(out, texts) if texts else []
        lines += paper_report(out) + sweep_report(out, sets[:1] + texts)
        lines_write(f"{out}/report.md", lines[:-1])
        lines_write(f"{out}/failures.md", failures_report(out, sets, texts)[:-1])
    except (OSError, ValueError, KeyError) as error:
        give_up(error)


if __name__ == "__main__":
    main()
