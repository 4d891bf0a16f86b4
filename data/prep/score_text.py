"""Text tasks: BLEU and Rouge-L of a file of {"inputs", "targets"}, beside what needs no model."""

import json
import re
import sys
import time

from score_run import answer_text, json_write, lines_write, spread
from text_scores import first_words, rouge_l

try:
    import sacrebleu
except ImportError:
    sacrebleu = None

# The wordings of the presets, which the sources stand in.
WORDINGS = (re.compile(r"Translate the sentences into \w+\.  \w+: (.*) \w+:\s*", re.S),
            re.compile(r"Write a short summary of the text\.  Text: (.*) Summary:\s*", re.S))


def pairs_read(path, limit):
    pairs = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
                pairs.append((record["inputs"], record["targets"]))
            except (ValueError, KeyError, TypeError):
                sys.exit(f"score.py: {path}: line {number} is no object with inputs and targets")
    if not pairs:
        sys.exit(f"score.py: {path}: no lines to answer")
    return spread(pairs, limit)


def source_of(text):
    """The text that is to be translated or summarized, without the words around it."""
    for wording in WORDINGS:
        match = wording.fullmatch(text)
        if match:
            return match.group(1)
    return text


def scores(answers, references):
    """Corpus BLEU (13a; None without the package sacrebleu), mean Rouge-L, shares of words."""
    words = max(1, sum(len(r.split()) for r in references))
    return {
        "bleu": sacrebleu.corpus_bleu(answers, [references]).score if sacrebleu else None,
        "rouge": 100 * sum(map(rouge_l, references, answers)) / len(references),
        "exact": 100 * sum(a.strip() == r.strip() for a, r in zip(answers, references))
                 / len(references),
        "words": sum(len(a.split()) for a in answers) / words}


def text_score(program, options):
    """The command `text`: answers every line, writes answers and text.json into options.out."""
    started = time.monotonic()
    if options.metric == "bleu" and not sacrebleu:
        sys.exit("score.py: BLEU needs the Python package sacrebleu: install it, or --metric rouge")
    pairs = pairs_read(options.data, options.limit)
    prompts, references = [p for p, _ in pairs], [r for _, r in pairs]
    sources = [source_of(prompt) for prompt in prompts]
    tokens = program.token_counts(references)
    asked = time.monotonic()
    found = program.text_all("text", prompts, [tokens[r] for r in references]
                             if options.oracle_length else None)
    asked = time.monotonic() - asked
    answers = [answer_text(one) for one in found]
    result = {
        "command": "text", "name": options.name, "metric": options.metric, "lines": len(pairs),
        "settings": program.settings(), "oracle_length": options.oracle_length,
        "unanswered": sum("error" in one for one in found),
        "length_right": 100 * sum(one.get("length") == tokens[reference] for one, reference in
                                  zip(found, references)) / len(pairs),
        "evaluations": sum(one.get("evaluations", 0) for one in found),
        "seconds_text": round(asked, 2),
        "bleu_signature": "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp" if sacrebleu else None,
        "rows": [{"name": name, **scores(texts, references)} for name, texts in (
            ("the model", answers), ("copy of the source", sources),
            ("first words of the source", first_words(sources, references)))],
        "seconds": round(time.monotonic() - started, 2)}
    if options.out:
        lines_write(options.out, "answers.jsonl", (
            {"question": source, "expected": reference, "answer": answer,
             "right": answer.strip() == reference.strip(),
             "rouge": round(rouge_l(reference, answer), 4)}
            for source, reference, answer in zip(sources, references, answers)))
        json_write(options.out, "text.json", result)
    return result
