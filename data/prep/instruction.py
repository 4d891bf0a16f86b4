#!/usr/bin/env python3
"""Does a model know its task without the instruction? Questions with it, without it, and without it but
after a demonstration (arXiv 2308.12219v3, table 3), and which differences are more than chance.

usage: data/prep/instruction.py OUT MODEL [--source FILE --target FILE | --data FILE] [--demonstrations FILE]
           [--shots K] [--task TASK] [--instruction TEXT] [--template TEXT] [--bare-template TEXT]
           [--limit N] [--threads N] [--small]
  OUT      gets the evaluations, instruction.md and instruction.json; the same command resumes
  MODEL    a model folder
  --source, --target   the questions and their answers, a line each; or --data, a file of any format that has
           an instruction of its own (MMLU, SQuAD, TyDiQA)
  --demonstrations     a file of any format for the third evaluation; its first K (1) go before each question. For
           --source it has pairs with a tab between them, which get the same template
  --task   what answers are scored as (translation)
  --instruction        before each prompt ("Translate the sentences into English. ", with --data its own)
  --template           of a prompt, for --source ("German: {source} English: ")
  --bare-template      of one without instruction (the same)
  --limit  the first N questions (all)
  --small  50 questions

Lengths are those of the answers, as in the paper. EASYFIRST is the program (build/easyfirst).
"""
import argparse
import json
import os

from experiment import Experiment

INSTRUCTION, TEMPLATE = "Translate the sentences into English. ", "German: {source} English: "
SCORES = {"translation": "bleu", "summary": "rougeL", "choice": "accuracy", "exact": "exact_match",
          "number": "accuracy"}


def asked(options, way):
    """The options of the evaluation of one way."""
    parallel = bool(options.source)
    template = options.template if way == "with" else options.bare_template or options.template
    words = [options.data]
    if parallel:
        words = ["--source", options.source, "--target", options.target, "--template", template]
    if way == "with":
        instruction = options.instruction or (INSTRUCTION if parallel else "")
        words += ["--instruction", instruction] if instruction else []
    elif not parallel:
        words.append("--no-instruction")
    if way == "demonstration":
        words += ["--demonstrations", options.demonstrations, "--shots", options.shots]
    return words


def evaluate(experiment, options, way):
    out = f"{experiment.out}/{way}"
    experiment.run("eval", "text", "-m", options.model, "--task", options.task, *asked(options, way), "--lengths",
                   "target", "--out", out, "--threads", experiment.threads, "-q",
                   *(["--limit", options.limit] if options.limit else []))
    with open(f"{out}/result.json", encoding="utf-8") as file:
        row = json.load(file)["score"]["files"][0]
    key = SCORES[options.task]
    return {"name": way, "value": row[key], "low": row["confidence"][key]["low"],
            "high": row["confidence"][key]["high"], "questions": row["lines"]}


def compare(experiment, options, first, second):
    """The difference of the second evaluation from the first."""
    text = experiment.run("eval", "compare", "--other-prompts", "--json", f"{experiment.out}/{first}",
                          f"{experiment.out}/{second}")
    score = json.loads(text)["scores"][SCORES[options.task]]
    return {"name": f"{second} - {first}", "value": score["difference"], "low": score["low"], "high": score["high"],
            "p": score["p_randomization"]}


def options_read():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("model")
    for name in ("source", "target", "data", "demonstrations", "instruction", "bare-template"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--template", default=TEMPLATE)
    parser.add_argument("--task", choices=SCORES, default="translation")
    parser.add_argument("--shots", type=int, default=1)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    if bool(options.data) == bool(options.source) or bool(options.source) != bool(options.target):
        parser.error("the questions are --source and --target, or --data")
    if options.small:
        options.limit = min(options.limit or 50, 50)
    return options


def main():
    options = options_read()
    experiment = Experiment(options)
    ways = ["with", "without", *(["demonstration"] if options.demonstrations else [])]
    rows = [evaluate(experiment, options, way) for way in ways]
    table = [f"| instruction | {SCORES[options.task]} |", "|---|---:|"]
    table += [f"| {row['name']} | {row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f}) |" for row in rows]
    table += ["", "| difference | | p |", "|---|---:|---:|"]
    for way in ways:
        if way != "without":
            rows.append(compare(experiment, options, "without", way))
            row = rows[-1]
            table.append(f"| {row['name']} | {row['value']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f}) | "
                         f"{row['p']:.4f} |")
    experiment.finish("instruction", vars(options), rows, table)
    print(f"{experiment.out}/instruction.md, {experiment.out}/instruction.json")


if __name__ == "__main__":
    main()
