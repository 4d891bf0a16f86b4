#!/usr/bin/env python3
"""Measures a model by driving `easyfirst ask` and `easyfirst text` as a user would.

  score.py pictures -m MODEL --world WORLD --out DIR     questions in GQA's format about pictures
  score.py text -m MODEL --data FILE.jsonl --out DIR     {"inputs", "targets"}, BLEU and Rouge-L
  score.py sweep -m MODEL --world WORLD ... --out DIR    filling steps and lengths tried
  score.py failures DIR/answers.jsonl ...                wrong answers, drawn at random
  score.py report DIR/*.json ... --out FILE.md           Markdown tables of all results

README-score.md says what is measured, and how.
"""
import argparse
import os
import sys

from score_pictures import pictures_score
from score_report import failures_write, pictures_markdown, report_write, texts_markdown
from score_run import Program
from score_sweep import sweep_score
from score_text import text_score


def numbers(text):
    """A list of different positive numbers with commas between, ascending."""
    found = sorted({int(part) for part in text.split(",")})
    if not found or found[0] < 1:
        raise ValueError(text)
    return found


def count(text):
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, text):
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument("-m", "--model", required=True, help="model folder")
        one.add_argument("--program", default=os.environ.get("EASYFIRST", "build/easyfirst"),
                         help="default: $EASYFIRST, else %(default)s")
        one.add_argument("--threads", type=count, default=1, help="of a process (default 1)")
        one.add_argument("--jobs", type=count, default=os.cpu_count() or 1,
                         help="processes at a time (default: one a processor)")
        one.add_argument("--out", required=True, help="folder for the results")
        return one

    def filling(one):
        one.add_argument("--steps", type=count, default=50, help="filling steps (default 50)")
        one.add_argument("--beam", type=count, default=1, help="lengths tried (default 1)")

    def world(one, needed):
        one.add_argument("--world", required=needed, help="folder that world.py made")
        one.add_argument("--images", help="where the pictures are (default: WORLD/images)")
        one.add_argument("--set", default="test", help="default: test")

    one = command("pictures", "Answers right, by kind of question, with and without the picture.")
    filling(one)
    world(one, True)
    one.add_argument("--language", choices=("en", "de"), default="en",
                     help="of the questions (default en)")
    one.add_argument("--limit", type=count, default=0,
                     help="pictures, evenly spaced (default: all)")
    one.add_argument("--length-oracle", action="store_true",
                     help="give the expected answer's length in tokens")
    one.add_argument("--picture-only", action="store_true",
                     help="leave out the columns without a picture, with a grey one and "
                     "with another scene's")

    one = command("text", "BLEU and Rouge-L of translations or summaries.")
    filling(one)
    one.add_argument("--data", required=True, help='lines of {"inputs", "targets"}')
    one.add_argument("--metric", choices=("bleu", "rouge"), default="rouge",
                     help="bleu: stop if it cannot be computed (default rouge)")
    one.add_argument("--name", help="of the task in tables (default: the file's name)")
    one.add_argument("--limit", type=count, default=0, help="lines, evenly spaced (default: all)")
    one.add_argument("--oracle-length", "--length-oracle", action="store_true",
                     help="give the reference's length in tokens")

    one = command("sweep", "Scores by filling steps and lengths tried: table and curves.")
    world(one, False)
    one.add_argument("--translation", help="lines to translate, scored by BLEU")
    one.add_argument("--summary", help="lines to summarize, scored by Rouge-L")
    one.add_argument("--pictures", type=count, default=100, help="how many (default 100, 0: all)")
    one.add_argument("--lines", type=count, default=200,
                     help="of each of the files (default 200, 0: all)")
    one.add_argument("--step-counts", type=numbers, default=[1, 2, 4, 10, 50], metavar="N,N...",
                     help="default 1,2,4,10,50")
    one.add_argument("--beams", type=numbers, default=[1, 3, 5], metavar="N,N...",
                     help="default 1,3,5")

    one = commands.add_parser("failures", help="Wrong answers, drawn at random.")
    one.add_argument("answers", nargs="+", help="answers.jsonl of pictures or text")
    one.add_argument("--count", type=count, default=10, help="of each file (default 10)")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--out", help="Markdown file (default: printed)")

    one = commands.add_parser("report", help="Markdown tables of results.")
    one.add_argument("results", nargs="+", help="pictures.json, text.json, sweep.json")
    one.add_argument("--out", required=True, help="Markdown file")
    return parser.parse_args()


def main():
    options = arguments()
    if options.command == "failures":
        failures_write(options.answers, options.count, options.seed, options.out)
        return
    if options.command == "report":
        report_write(options.results, options.out)
        return
    if not os.path.isdir(options.model):
        sys.exit(f"score.py: {options.model}: no such model folder")
    os.makedirs(options.out, exist_ok=True)
    steps, beam = (options.steps, options.beam) if options.command != "sweep" else (1, 1)
    program = Program(options.program, options.model, max(1, options.threads),
                      max(1, options.jobs), max(1, steps), max(1, beam))
    if options.command == "pictures":
        print(pictures_markdown(pictures_score(program, options)))
    elif options.command == "text":
        options.name = options.name or os.path.basename(options.data).removesuffix(".jsonl")
        print(texts_markdown([text_score(program, options)]))
    else:
        sweep_score(program, options)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"score.py: {error}")
