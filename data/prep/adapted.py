#!/usr/bin/env python3
"""Does the pretrained encoder help? The paper's comparison in small: the encoder adapted, every second
layer of it, and fresh weights of its shape, at equal computation.

usage: data/prep/adapted.py FOLDER OUT [--updates N] [--seeds N] [--lines N] [--threads N]
  FOLDER     made by pretrained.sh: start/ (the pruned encoder), texts/, valid.* and test.descriptions.jsonl
  OUT        gets the starts, a run for each start and seed, adapted.svg and adapted.md; the same command
             resumes
  --updates  of 2,048 tokens for the whole encoder (400); its half gets as many as cost the same
  --seeds    runs of each start (3)
  --lines    held-out lines that are translated, by four checkpoints of each run (200)

Computation is counted as 6 operations a token and a weight of the layers and of the word embeddings,
which are multiplied once, at the end. Needs python3-numpy; EASYFIRST is the program (build/easyfirst).
"""
import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys

from plot import Panel, draw

TOKENS = 2048  # of an update
POINTS = 4  # checkpoints that translate
PROGRAM = os.environ.get("EASYFIRST", "build/easyfirst")


def tensors_read(path):
    """The header of a .safetensors file and its bytes after that."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    header.pop("__metadata__", None)
    return header, data


def tensors_write(path, header, chunks):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def half_make(start, out):
    """`start` with every second layer, from the first one on."""
    shutil.copytree(start, out + ".part", dirs_exist_ok=True)
    language = os.path.join(out + ".part", "language")
    header, data = tensors_read(os.path.join(language, "model.safetensors"))
    kept, chunks, end = {}, [], 0
    for name, tensor in header.items():
        before, found, after = name.partition(".layer.")
        if found:
            number, _, rest = after.partition(".")
            if int(number) % 2:
                continue
            name = f"{before}.layer.{int(number) // 2}.{rest}"
        begin, stop = tensor["data_offsets"]
        chunks.append(data[begin:stop])
        kept[name] = {**tensor, "data_offsets": [end, end + stop - begin]}
        end += stop - begin
    tensors_write(os.path.join(language, "model.safetensors"), kept, chunks)
    path = os.path.join(language, "config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config["num_hidden_layers"] //= 2
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
    os.rename(out + ".part", out)


def fresh_make(start, out, seed):
    with open(f"{start}/language/config.json", encoding="utf-8") as file:
        config = json.load(file)
    with open(f"{start}/easyfirst.json", encoding="utf-8") as file:
        settings = json.load(file)
    subprocess.run([PROGRAM, "new", out, "--tokenizer", f"{start}/language/sentencepiece.bpe.model",
                    "--layers", str(config["num_hidden_layers"]), "--width", str(config["hidden_size"]),
                    "--heads", str(config["num_attention_heads"]),
                    "--ffn", str(config["intermediate_size"]), "--length-classes", "0",
                    "--positions", str(config["max_position_embeddings"]), "--seed", str(seed),
                    "--attention", settings["attention"],
                    "--answer-position", str(settings["answer_position"])], check=True)


def weights_count(model):
    """Of the layers and the word embeddings: those that each token is multiplied with."""
    header, _ = tensors_read(f"{model}/language/model.safetensors")
    return sum(t["shape"][0] * t["shape"][1] for name, t in header.items() if len(t["shape"]) == 2 and
               (".layer." in name or name.endswith("word_embeddings.weight")))


def run_train(folder, model, run, updates, seed, threads):
    if os.path.exists(f"{run}/model"):
        return
    every = max(1, updates // 8)
    command = [PROGRAM, "train", "adapt", "-m", model, "--out", run, "--data", f"{folder}/texts",
               "--valid", f"{folder}/valid.descriptions.jsonl", "--valid-limit", "200", "--lr", "4e-4",
               "--schedule", "constant", "--warmup-steps", str(min(100, updates // 4)), "--max-tokens", "256",
               "--batch-tokens", str(TOKENS), "--dtype", "bf16", "--dropout", "0", "--steps", str(updates),
               "--seed", str(seed), "--valid-every", str(every), "--save-every", str(-(-updates // POINTS)),
               "--keep", str(POINTS), "--show-answers", "0",
               "--threads", str(threads)]
    if os.path.exists(run):
        shutil.rmtree(run)
    with open(run + ".log", "w", encoding="utf-8") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)


def model_score(folder, model, out, lines, threads):
    """BLEU of held-out descriptions, lengths given."""
    subprocess.run([PROGRAM, "eval", "text", "-m", model, "--task", "translation",
                    f"{folder}/test.descriptions.jsonl", "--limit", str(lines), "--lengths", "target",
                    "--out", out, "--threads", str(threads), "--quiet"], check=True,
                   stdout=subprocess.DEVNULL)
    with open(f"{out}/result.json", encoding="utf-8") as file:
        return bleu_find(json.load(file))


def run_score(folder, run, updates, lines, threads):
    """[(updates, BLEU)] of a run's checkpoints and its model; the checkpoints, which are large, are removed."""
    path = f"{run}/bleu.json"
    if not os.path.exists(path):
        scores = []
        for name in sorted(name for name in os.listdir(run) if name.startswith("checkpoint-")):
            step = int(name.rpartition("-")[2])
            if step < updates:
                scores.append((step, model_score(folder, f"{run}/{name}", f"{run}/bleu-{step}", lines, threads)))
        scores.append((updates, model_score(folder, f"{run}/model", f"{run}/bleu-{updates}", lines, threads)))
        with open(path + ".part", "w", encoding="utf-8") as file:
            json.dump(scores, file)
        os.rename(path + ".part", path)
    for name in os.listdir(run):
        if name.startswith("checkpoint-"):
            shutil.rmtree(f"{run}/{name}")
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def bleu_find(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "bleu":
                return inner["score"] if isinstance(inner, dict) else inner
            found = bleu_find(inner)
            if found is not None:
                return found
    if isinstance(value, list):
        return next((f for f in map(bleu_find, value) if f is not None), None)
    return None


def curve_read(run):
    with open(f"{run}/metrics.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [(row["step"], row["valid_loss"]) for row in rows if "valid_loss" in row]


def spread(values, digits):
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("out")
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lines", type=int, default=200)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    folder, out = os.path.abspath(options.folder), os.path.abspath(options.out)
    os.makedirs(out, exist_ok=True)
    start = f"{folder}/start"
    if not os.path.exists(f"{out}/half"):
        half_make(start, f"{out}/half")
    whole = weights_count(start)
    kinds = []
    for name, key in (("pretrained", "whole"), ("every second layer", "half"), ("fresh", "fresh")):
        curves, points, losses, scores = [], [], [], []
        updates = options.updates
        for seed in range(1, options.seeds + 1):
            model = {"whole": start, "half": f"{out}/half", "fresh": f"{out}/fresh-{seed}"}[key]
            if key == "fresh" and not os.path.exists(model):
                fresh_make(start, model, seed)
            weights = weights_count(model)
            updates = round(options.updates * whole / weights)
            run = f"{out}/{key}-run-{seed}"
            run_train(folder, model, run, updates, seed, options.threads)
            curve = curve_read(run)
            curves.append([(6 * weights * TOKENS * step, loss) for step, loss in curve])
            losses.append(curve[-1][1])
            bleu = run_score(folder, run, updates, options.lines, options.threads)
            points.append([(step, score) for step, score in bleu])
            scores.append(bleu[-1][1])
            print(f"{name}, seed {seed}: loss {losses[-1]:.1f}, BLEU {scores[-1]:.1f}", file=sys.stderr)
        kinds.append((name, curves, points, updates, losses, scores))
    draw("German to English: held-out loss over computation, BLEU over updates",
         [Panel("Held-out loss over computation", [(kind[0], kind[1]) for kind in kinds],
                wide=420, tall=300, legend=150),
          Panel("BLEU over updates, lengths given", [(kind[0], kind[2]) for kind in kinds],
                below="updates", scale=1, dots=True, low=0, wide=420, tall=300, legend=150)],
         f"{out}/adapted.svg")
    with open(f"{out}/adapted.md", "w", encoding="utf-8") as file:
        file.write("| start | updates | held-out loss | BLEU, lengths given |\n|---|---:|---:|---:|\n")
        for name, _, _, updates, losses, scores in kinds:
            file.write(f"| {name} | {updates} | {spread(losses, 1)} | {spread(scores, 1)} |\n")
    print(f"{out}/adapted.md, {out}/adapted.svg")


if __name__ == "__main__":
    main()
