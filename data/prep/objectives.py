#!/usr/bin/env python3
"""Autoregressive against masked diffusion: models of LLaMA's kind on the same data, with the same
parameters and computation, of several sizes.

usage: data/prep/objectives.py FOLDER OUT [--sizes LAYERSxWIDTH,...] [--tokens N] [--lines N] [--threads N]
  FOLDER    made by pretrained.sh: start/ (for the vocabulary), texts/, test.descriptions.jsonl
  OUT       gets the models, their runs, objectives.svg and objectives.md; the same command resumes
  --sizes   2x128,4x192,6x256
  --tokens  of training for the smallest size, in millions (1.5); the others get as many more as they
            have more weights
  --lines   held-out lines that are measured (200)

Three ways: autoregressive (--objective ar, causal attention), diffusion from nothing (full attention,
predictions shifted as well), and diffusion adapted from the autoregressive model at half of the
computation: half of the updates each. Bits per byte are exact for the first and a bound for the others;
BLEU of the others has lengths given, since these models predict none: the autoregressive one ends by
itself, and once more with its answers cut to the given lengths.
Computation is counted as 6 operations a token of the batch and a weight of matrices, the word embeddings'
lookup left out. EASYFIRST is the program (build/easyfirst).
"""
import argparse
import json
import os
import shutil
import subprocess
import sys

from adapted import bleu_find, tensors_read
from plot import Panel, draw

PROGRAM = os.environ.get("EASYFIRST", "build/easyfirst")
BATCH = 4096  # tokens of an update
WAYS = ("autoregressive", "diffusion", "diffusion, adapted")


def command(*words):
    """Standard output. A status of 1 with a result says that some texts did not fit: all ways leave the same
    ones out."""
    done = subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode != 0 and not (done.returncode == 1 and done.stdout):
        sys.exit(f"{words[0]}: {done.stderr}")
    return done.stdout


def weights_count(model):
    """Of matrices that a token is multiplied with."""
    header, _ = tensors_read(f"{model}/language/model.safetensors")
    return sum(t["shape"][0] * t["shape"][1] for name, t in header.items()
               if len(t["shape"]) == 2 and "embed_tokens" not in name)


def fresh_make(vocabulary, out, layers, width, attention):
    if not os.path.exists(out):
        command("new", out, "--kind", "llama", "--tokenizer", f"{vocabulary}/language/sentencepiece.bpe.model",
                "--layers", layers, "--width", width, "--heads", width // 32, "--ffn", round(width * 8 / 3 / 8) * 8,
                "--positions", 256, "--attention", attention)


def train(folder, model, run, steps, objective, threads, seed):
    if os.path.exists(f"{run}/model"):
        return
    shutil.rmtree(run, ignore_errors=True)
    with open(run + ".log", "w", encoding="utf-8") as log:
        subprocess.run([PROGRAM, "train", "adapt", "-m", model, "--out", run, "--data",
                        f"{folder}/texts/descriptions.jsonl", "--objective", objective, "--optimizer", "muon",
                        "--lr", "2e-3", "--schedule", "wsd", "--decay-ratio", "0.3", "--warmup-steps",
                        str(min(50, steps // 4)), "--max-tokens", "256", "--batch-tokens", str(BATCH),
                        "--dtype", "bf16", "--dropout", "0", "--steps", str(steps), "--seed", str(seed),
                        "--save-every", "0", "--show-answers", "0", "--threads", str(threads),
                        *([] if objective == "ar" else ["--weighting", "linear"])],
                       check=True, stdout=log, stderr=log)


def causal_copy(model, out):
    """The autoregressive model as one of full attention, which adapt then trains."""
    if not os.path.exists(out):
        shutil.copytree(model, out + ".part", dirs_exist_ok=True, ignore=shutil.ignore_patterns("training"))
        path = f"{out}.part/easyfirst.json"
        with open(path, encoding="utf-8") as file:
            settings = json.load(file)
        settings["attention"] = "full"
        settings.pop("training", None)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(settings, file, indent=2)
        os.rename(out + ".part", out)


def bits_per_byte(text):
    def find(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                if key == "bits_per_byte":
                    return inner
                found = find(inner)
                if found is not None:
                    return found
        return None
    return find(json.loads(text))


def measure(folder, run, lines, threads, causal):
    """Bits per byte of the answers, and BLEU."""
    result = f"{run}/measured.json"
    if os.path.exists(result):
        with open(result, encoding="utf-8") as file:
            return json.load(file)
    texts = f"{folder}/test.descriptions.jsonl"
    bits = bits_per_byte(command("eval", "likelihood", "-m", f"{run}/model", texts, "--limit", lines,
                                 "--samples", 64, "--json", "-q", "--threads", threads))
    scores = []
    for name, extra in ((("own", ["--length", 100]), ("cut", ["--lengths", "target"])) if causal else
                        (("given", ["--lengths", "target"]),)):
        out = f"{run}/bleu-{name}"
        command("eval", "text", "-m", f"{run}/model", "--task", "translation", texts, "--limit", lines,
                "--out", out, "--threads", threads, "-q", *extra)
        with open(f"{out}/result.json", encoding="utf-8") as file:
            scores.append(bleu_find(json.load(file)))
    with open(result, "w", encoding="utf-8") as file:
        json.dump([bits, *scores], file)
    return [bits, *scores]


def lines_of(rows, column):
    """rows: (way, operations, values). A line for each way."""
    return [(way, [[(r[1], r[2][column]) for r in rows if r[0] == way]]) for way in WAYS]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("out")
    parser.add_argument("--sizes", default="2x128,4x192,6x256")
    parser.add_argument("--tokens", type=float, default=1.5)
    parser.add_argument("--lines", type=int, default=200)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    folder, out = os.path.abspath(options.folder), os.path.abspath(options.out)
    os.makedirs(out, exist_ok=True)
    vocabulary = f"{out}/vocabulary"
    if not os.path.exists(vocabulary):
        command("prune", "-m", f"{folder}/start", "--data", f"{folder}/texts/descriptions.jsonl",
                "--min-count", 40, vocabulary)
    rows, least = [], None
    table = ["| layers x width | weights | tokens | way | bits per byte | BLEU |", "|---|---:|---:|---|---:|---:|"]
    for size in options.sizes.split(","):
        layers, width = map(int, size.split("x"))
        base = f"{out}/{size}"
        fresh_make(vocabulary, f"{base}-causal", layers, width, "causal")
        fresh_make(vocabulary, f"{base}-full", layers, width, "full")
        weights = weights_count(f"{base}-causal")
        least = least or weights
        steps = round(options.tokens * 1e6 * weights / least / BATCH)
        train(folder, f"{base}-causal", f"{base}-ar", steps, "ar", options.threads, 1)
        train(folder, f"{base}-full", f"{base}-diffusion", steps, "rdm", options.threads, 1)
        train(folder, f"{base}-causal", f"{base}-half", steps // 2, "ar", options.threads, 1)
        causal_copy(f"{base}-half/model", f"{base}-opened")
        train(folder, f"{base}-opened", f"{base}-adapted", steps - steps // 2, "rdm", options.threads, 2)
        for way, name in zip(WAYS, ("ar", "diffusion", "adapted"), strict=True):
            values = measure(folder, f"{base}-{name}", options.lines, options.threads, name == "ar")
            rows.append((way, 6 * weights * BATCH * steps, values))
            bleu = " / ".join(f"{v:.1f}" for v in values[1:])
            table.append(f"| {size} | {weights / 1e6:.1f}M | {steps * BATCH / 1e6:.1f}M | {way} | "
                         f"{values[0]:.3f} | {bleu} |")
            print(table[-1], file=sys.stderr, flush=True)
    draw("Bits per byte and BLEU over computation",
         [Panel("Bits per byte (diffusion: a bound)", lines_of(rows, 0), dots=True),
          Panel("BLEU, lengths given", lines_of(rows, -1), dots=True)], f"{out}/objectives.svg")
    with open(f"{out}/objectives.md", "w", encoding="utf-8") as file:
        file.write("\n".join(table) + "\n")
    print(f"{out}/objectives.md, {out}/objectives.svg")


if __name__ == "__main__":
    main()
