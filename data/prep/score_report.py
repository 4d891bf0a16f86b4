"""The results as Markdown: a table for each, and failures drawn at random."""

import json
import os
import random
import sys

from score_sweep import sweep_markdown

HEADS = {"picture": "with the picture", "without": "without", "grey": "grey",
         "other": "another scene's", "commonest": "commonest", "chance": "chance"}
PARTS = {"subject": "asks for", "answer": "answer", "form": "form", "objects": "objects",
         "type": "GQA type"}


def number(value, digits=1):
    return "–" if value is None else f"{value:.{digits}f}"


def cell(text):
    """Text that cannot break a table."""
    return " ".join(str(text).split()).replace("\\", "\\\\").replace("|", "\\|") or "(nothing)"


def settings_text(result):
    settings = result["settings"]
    given = result.get("length_oracle") or result.get("oracle_length")
    return f"{settings['steps']} steps, " + ("lengths given" if given else
                                             f"beam {settings['beam']}")


def pictures_markdown(result):
    """The rows of pictures.json; percentages of questions whose answer is exactly the expected."""
    language = {"en": "English", "de": "German"}[result["language"]]
    columns = [name for name in HEADS if name in result["rows"][0]]
    lines = [f"{result['questions']:,} {language} questions about {result['pictures']:,} pictures "
             f"({result['set']}), {settings_text(result)}" +
             ("" if result["length_oracle"] else
              f"; {result['length_right']:.1f} % of the answers are as long as the expected one")
             + f"; exact match in %; {result['unanswered']} without an answer.", ""]

    def table(head, rows, more=()):
        titles = [head, "questions"] + [HEADS[c] for c in columns] + [title for title, _ in more]
        lines.append("| " + " | ".join(titles) + " |")
        lines.append("|---|" + "---:|" * (len(titles) - 1))
        for row in rows:
            cells = [row["name"], f"{row['questions']:,}"] + [number(row[c]) for c in columns]
            lines.append("| " + " | ".join(cells + [cell(row[key]) for _, key in more]) + " |")
        lines.append("")

    rows = result["rows"]
    table("", [r for r in rows if r["part"] in ("all", "answer", "objects")])
    table(PARTS["subject"], [r for r in rows if r["part"] == "subject"])
    table(PARTS["form"], [r for r in rows if r["part"] == "form"])
    table(PARTS["type"], [r for r in rows if r["part"] == "type"],
          [("the commonest", "commonest_answer")])
    return "\n".join(lines)


def texts_markdown(results):
    """All results of `text` in one table: a line for each, then what needs no model."""
    lines = ["| | lines | BLEU | Rouge-L | exact, % | words, of the reference's | "
             "length as the reference, % |",
             "|---|" + "---:|" * 6]
    def line_add(result, row, name, right):
        lines.append(f"| {cell(name)} | {result['lines']:,} | {number(row['bleu'])} | "
                     f"{number(row['rouge'])} | {number(row['exact'])} | {row['words']:.2f} | "
                     f"{right} |")

    tasks = {}
    for result in results:
        tasks.setdefault((result["name"], result["lines"]), []).append(result)
    for (name, _), same in tasks.items():
        same.sort(key=lambda r: (r["oracle_length"], r["settings"]["beam"], r["settings"]["steps"]))
        for result in same:
            line_add(result, result["rows"][0], f"{name}: {settings_text(result)}",
                     "" if result["oracle_length"] else f"{result['length_right']:.1f}")
        for row in same[0]["rows"][1:]:
            line_add(same[0], row, f"{name}: {row['name']}", "")
    signature = next((r["bleu_signature"] for r in results if r["bleu_signature"]), None)
    note = f"BLEU is sacreBLEU's (`{signature}`), Rouge-L the mean F1 of words.\n" if signature \
        else "Rouge-L is the mean F1 of words; without the package sacrebleu there is no BLEU.\n"
    return "\n".join(lines + ["", note])


def report_write(paths, out):
    """The command `report`: the JSON of other commands, as one Markdown file."""
    found = {"pictures": [], "text": [], "sweep": []}
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                result = json.load(file)
            found[result["command"]].append(result)
        except (OSError, ValueError, KeyError, TypeError) as error:
            sys.exit(f"score.py: {path} is no result of score.py: {error}")
    parts = []
    if found["pictures"]:
        parts.append("## Questions about pictures\n")
        parts += map(pictures_markdown, found["pictures"])
    if found["text"]:
        parts += ["## Texts\n", texts_markdown(found["text"])]
    if found["sweep"]:
        parts.append("## Steps and lengths\n")
        parts += map(sweep_markdown, found["sweep"])
    with open(out, "w", encoding="utf-8") as file:
        file.write("\n".join(parts))


def failures_markdown(path, count, seed):
    """`count` of the wrong answers in an answers.jsonl, drawn at random by the seed alone."""
    with open(path, encoding="utf-8") as file:
        answers = [json.loads(line) for line in file]
    wrong = [one for one in answers if not one["right"]]
    drawn = random.Random(seed).sample(wrong, min(count, len(wrong)))
    lines = [f"{len(drawn)} of {len(wrong):,} wrong answers of {len(answers):,}, drawn at random "
             f"(seed {seed})", ""]
    if answers and "image" in answers[0]:
        lines += ["| picture | question | answer | expected |", "|---|---|---|---|"]
        lines += [f"| {cell(one['image'])} | {cell(one['question'])} | {cell(one['picture'])} | "
                  f"{cell(one['expected'])} |" for one in drawn]
    else:
        lines += ["| text | answer | expected | Rouge-L |", "|---|---|---|---:|"]
        lines += [f"| {cell(one['question'])} | {cell(one['answer'])} | {cell(one['expected'])} | "
                  f"{100 * one['rouge']:.0f} |" for one in drawn]
    return "\n".join(lines) + "\n"


def failures_write(paths, count, seed, out):
    """The command `failures`: a table for each file, into `out` or printed."""
    text = "\n".join(f"**{os.path.basename(os.path.dirname(os.path.abspath(path)))}**: "
                     + failures_markdown(path, count, seed) for path in paths)
    if not out:
        print(text, end="")
        return
    with open(out, "w", encoding="utf-8") as file:
        file.write(text)
