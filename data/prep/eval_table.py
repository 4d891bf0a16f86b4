#!/usr/bin/env python3
"""Markdown tables of the results that eval_bundled.sh left in a folder. usage: eval_table.py FOLDER"""

import json
import os
import sys

# The paper's zero-shot numbers (Ye et al., arXiv 2308.12219), of its largest model, Flan-XLM-R-XXL
# with 10.7 billion parameters; OL: lengths of answers given. Its sets are test sets.
PAPER = {"iwslt14": "30.90 (3 lengths; its test set)", "mmlu": "42.13", "tydiqa": "52.06 (OL)",
         "mgsm": "4.4 (GSM8K)"}

TITLES = {"translation-1": "package descriptions, German to English, 1 length: BLEU",
          "translation-3": "the same, 3 lengths: BLEU",
          "translation-3-weighed": "the same, 3 lengths with `--length-weight 0.2`: BLEU",
          "summary-1": "summaries of package descriptions, 1 length: Rouge-L",
          "summary-3": "the same, 3 lengths: Rouge-L",
          "summary-3-weighed": "the same, 3 lengths with `--length-weight 0.2`: Rouge-L",
          "iwslt14": "IWSLT14 German to English, validation set, 3 lengths: BLEU",
          "mmlu": "MMLU, validation set, mean over subjects: accuracy",
          "tydiqa": "TyDiQA, {files} languages, lengths given: exact match",
          "mgsm": "MGSM, English: last number"}
METRICS = (("accuracy", "accuracy"), ("exact_match", "exact match, lmms-eval's"), ("binary", "binary"),
           ("open", "open"), ("consistency", "consistency"), ("validity", "validity"),
           ("plausibility", "plausibility"), ("grounding", "grounding"),
           ("distribution", "distribution (lower is better)"))


def result_read(folder, name):
    path = os.path.join(folder, name, "result.json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def main_score(score):
    """The one number that is published of a task, of all files."""
    key = {"translation": "bleu", "summary": "rougeL", "choice": "accuracy",
           "exact": "exact_match", "number": "accuracy"}[score["task"]]
    if "macro" in score:
        return score["macro"]
    return score.get("mean", score["files"][0])[key]


def gqa_table(result, beams):
    score = result["score"]
    print(f"**Questions about pictures** in GQA's format and by its metrics: "
          f"{score['questions']:,} questions, {score['unanswered']} unanswered.\n")
    print("| | % |\n|---|---:|")
    for key, title in METRICS:
        value = score["metrics"].get(key)
        if value is not None:
            print(f"| {title} | {value:.2f} |")
    for name, title in (("structural", "structural type"), ("semantic", "semantic type")):
        rows = score["tables"].get(name, {})
        print(f"\n| {title} | " + " | ".join(rows) + " |\n|---|" + "---:|" * len(rows))
        print("| questions | " + " | ".join(f"{row['questions']:,}" for row in rows.values()) + " |")
        print("| accuracy | " + " | ".join(f"{row['accuracy']:.2f}" for row in rows.values()) + " |")
    for title, beam in beams:
        if beam:
            print(f"\nWith {title}: accuracy {beam['score']['metrics']['accuracy']:.2f}.")
    print("\n(The paper's Flan-XLM-R-XXL has 39.93 on GQA itself: other pictures, other questions.)\n")


def text_table(results):
    print("**Texts.** \"Unanswered\" are prompts longer than the model reads; they count as wrong.\n")
    print("| | lines | unanswered | score | paper: Flan-XLM-R-XXL |\n|---|---:|---:|---:|---|")
    for name, result in results:
        files = result["score"]["files"]
        print(f"| {TITLES[name].format(files=len(files))} | {sum(f['lines'] for f in files):,} | "
              f"{sum(f['unanswered'] for f in files):,} | {main_score(result['score']):.2f} | "
              f"{PAPER.get(name, '')} |")
    print()


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = sys.argv[1]
    pictures = result_read(folder, "pictures")
    texts = [(name, result_read(folder, name)) for name in TITLES]
    texts = [(name, result) for name, result in texts if result]
    if not pictures and not texts:
        sys.exit(f"eval_table.py: {folder}: no result is there; eval_bundled.sh makes them")
    if pictures:
        gqa_table(pictures, [("three lengths", result_read(folder, "pictures-3")),
                             ("three lengths and `--length-weight 0.2`",
                              result_read(folder, "pictures-3-weighed"))])
    if texts:
        text_table(texts)
        for _, result in texts:
            signature = result["score"]["files"][0].get("bleu_signature")
            if signature:
                print(f"BLEU: `{signature}`.")
                break


if __name__ == "__main__":
    main()
