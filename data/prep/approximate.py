"""Quality against evaluations of approximate decoding, as a table in Markdown.

usage: python3 data/prep/approximate.py MODEL FILE [COUNT]     (after `make`; needs nothing but Python)

FILE has lines {"inputs", "targets"} of JSON. The first COUNT (200) prompts are answered by exact
decoding and by each approximation, with the lengths that the model predicts; BLEU is that of
`easyfirst score text` against the targets. The first row, exact decoding with the paper's 50 steps,
is what the others are compared with: "same" is the share of answers with the same text. Evaluations
are runs of the network, rows the tokens that went through it, both for one answer; seconds are those
of denoising all of them.
"""

import json
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "projector" / "python"))
import easyfirst

PAPER = 50  # steps
DECODINGS = [
    ("exact, 50 steps", {"steps": PAPER}),
    ("exact, a step for each token", {}),
    *((f"confidence {x}", {"strategy": f"confidence{x}"}) for x in ("0.9", "0.7", "0.5", "0.3")),
    *((f"entropy bound {x}", {"strategy": f"entropy{x}"}) for x in ("0.5", "1", "2", "4")),
    *((f"50 steps, early stop {n}", {"steps": PAPER, "early_stop": n}) for n in (2, 3)),
    *((f"early stop {n}", {"early_stop": n}) for n in (2, 3)),
    *((f"50 steps, prefix cache {n}", {"steps": PAPER, "prefix_cache": n}) for n in (2, 4, 8, PAPER)),
    ("confidence 0.9, prefix cache 4", {"strategy": "confidence0.9", "prefix_cache": 4}),
]


def records(path, count):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, count)]


def bleu(answers, targets):
    """Of the program's own metric; an answer is a line of it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, key, texts in (("answers", "answer", answers), ("targets", "targets", targets)):
            paths.append(Path(folder, name + ".jsonl"))
            paths[-1].write_text("".join(json.dumps({key: text}) + "\n" for text in texts), encoding="utf-8")
        command = [ROOT / "build" / "easyfirst", "score", "text", "--metric", "bleu", "--json", *paths]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["bleu"]["score"]


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    model = easyfirst.Model(sys.argv[1], text_only=True)
    lines = records(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 200)
    requests = [easyfirst.Complete(line["inputs"]) for line in lines]
    targets = [line["targets"] for line in lines]
    first, left_out = None, []
    model.answer(requests[:8], steps=2)  # the first call pays for what later ones find
    print(f"{len(lines)} lines of {Path(sys.argv[2]).name}\n")
    print("| decoding | evaluations | of 50 steps' | rows | seconds | BLEU | | same |\n|---|---|---|---|---|---|---|---|")
    for name, options in DECODINGS:
        try:
            answers = model.answer(requests, long_prompts="skip", **options)
        except easyfirst.Error as error:
            left_out.append(f"{name}: {error}")
            continue
        work, texts = answers.work, [answer.text or "" for answer in answers]
        evaluations, score = work["evaluations"] / len(lines), bleu(texts, targets)
        first = first or (evaluations, score, texts)
        same = sum(a == b for a, b in zip(texts, first[2])) / len(lines)
        print(
            f"| {name} | {evaluations:.1f} | {100 * evaluations / first[0]:.0f} % | {work['rows'] / len(lines):,.0f} | "
            f"{work['decode_seconds']:.1f} | {score:.2f} | {score - first[1]:+.2f} | {100 * same:.0f} % |",
            flush=True,
        )
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
