#!/usr/bin/env python3
"""Public forms of evaluation sets, rebuilt from the files of the paper's authors.

usage: make_public.py DATA OUT [LINES]

DATA has mgsm/, mmlu/, tydiqa/ and iwslt14/ with the authors' lines of {"inputs", "targets"}. OUT gets, for each, the
public form (MGSM's tables, MMLU's csv files, TyDiQA's JSON, parallel files), and beside it what should be built from it:
the authors' own lines, of each file the first LINES (default: all). tests/data/test_formats.c compares them with what
data/formats builds; tests/golden/public was made with LINES = 4.
"""

import csv
import json
import pathlib
import re
import sys


def lines(path, most):
    found = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    return found[:most]


def write(path, text):
    path.write_text(text, encoding="utf-8", newline="")


def mgsm(data, out, most):
    marks = {"de": ("Frage", "Schritt-für-Schritt-Antwort"), "en": ("Question", "Step-by-Step Answer")}
    for language, (question, answer) in marks.items():
        kept = lines(data / "mgsm" / f"0shot.{language}.jsonl", most)
        rows = [json.loads(line) for line in kept]
        table = ""
        for row in rows:
            text = re.fullmatch(f" {question}:  (.*) {answer}: ", row["inputs"], re.S).group(1)
            table += f"{text}\t{row['targets'].replace('# ', '')}\n"
        write(out / f"mgsm_{language}.tsv", table)
        write(out / f"mgsm_{language}.jsonl", "\n".join(kept) + "\n")
    # Three demonstrations before each question.
    kept = lines(data / "mgsm" / "3shot.en.jsonl", most)
    front = json.loads(kept[0])["inputs"].split(" Question:  ")[0]
    shots = re.findall(r" Question: (.*?) Step-by-Step Answer: (.*? The answer is \d+\.)", front)
    pairs = [{"inputs": f"Question: {question} Step-by-Step Answer:", "targets": answer} for question, answer in shots]
    write(out / "mgsm_demonstrations.jsonl", "".join(json.dumps(pair) + "\n" for pair in pairs))
    write(out / "mgsm_3shot.jsonl", "\n".join(kept) + "\n")


def mmlu(data, out, most):
    kept = lines(data / "mmlu" / "val.0shot.jsonl", None)
    subjects = json.loads((data / "mmlu" / "index2subject.json").read_text())
    by_subject = {}
    for line, subject in zip(kept, subjects):
        by_subject.setdefault(subject, []).append(line)
    if most:
        by_subject = {subject: by_subject[subject][:most] for subject in ("abstract algebra", "jurisprudence")}
    for subject, some in by_subject.items():
        front = f"The following are multiple choice questions (with answers) about {subject}. Q: "
        name = subject.replace(" ", "_") + "_val"
        with (out / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            for line in some:
                row = json.loads(line)
                body = row["inputs"][len(front) :]
                parts = re.fullmatch(r"(.*) \(A\) (.*) \(B\) (.*) \(C\) (.*) \(D\) (.*) A:", body, re.S).groups()
                table.writerow([*parts, row["targets"]])
        write(out / f"{name}.jsonl", "\n".join(some) + "\n")


def tydiqa(data, out, most):
    for language in ("english", "finnish", "swahili"):
        kept = lines(data / "tydiqa" / f"0shot.{language}.jsonl", most)
        front = f"Please answer each of the question according to the given context in {language}.  context: "
        paragraphs = []
        for number, line in enumerate(kept):
            row = json.loads(line)
            context, question = row["inputs"][len(front) : -len(" A:")].rsplit(" Q: ", 1)
            answers = [{"text": row["targets"], "answer_start": max(context.find(row["targets"]), 0)}]
            qas = [{"id": f"{language}-{number}-0", "question": question, "answers": answers}]
            paragraphs.append({"context": context, "qas": qas})
        articles = [{"title": "", "paragraphs": [paragraph]} for paragraph in paragraphs]
        write(out / f"tydiqa_{language}.json", json.dumps({"version": "TyDiQA-GoldP-1.1-for-SQuAD-1.1", "data": articles}))
        write(out / f"tydiqa_{language}.jsonl", "\n".join(kept) + "\n")


def iwslt14(data, out, most):
    kept = lines(data / "iwslt14" / "valid.deen.jsonl", most)
    rows = [json.loads(line) for line in kept]
    front, back = "Translate the sentences into English.  German: ", " English: "
    write(out / "valid.de", "".join(row["inputs"][len(front) : -len(back)] + "\n" for row in rows))
    write(out / "valid.en", "".join(row["targets"] + "\n" for row in rows))
    write(out / "valid.jsonl", "\n".join(kept) + "\n")


def main():
    data, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    most = int(sys.argv[3]) if len(sys.argv) > 3 else None
    out.mkdir(parents=True, exist_ok=True)
    for make in (mgsm, mmlu, tydiqa, iwslt14):
        make(data, out, most)


if __name__ == "__main__":
    main()
