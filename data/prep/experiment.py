"""What the experiments in small share: tokenizers of whole words, two models of equal size, training and
evaluation by the program, and results with 95 % intervals and the commands that gave them."""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys

PROGRAM = os.environ.get("EASYFIRST", "build/easyfirst")
END, MASK = "<|endoftext|>", "<|mask|>"
WAYS = {"diffusion": ("full", "rdm"), "autoregressive": ("causal", "ar")}  # attention, objective


def parser_make(text, steps, small):
    """The arguments of all experiments. --small sets those that `small` names."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--small", action="store_const", const=small, default={})
    return parser


def options_read(parser):
    """What --small names is what is not given otherwise."""
    small = parser.parse_known_args()[0].small
    parser.set_defaults(**small)
    options = parser.parse_args()
    options.out = os.path.normpath(options.out)
    return options


def tokenizer_write(folder, words, spaced=False):
    """A byte-level tokenizer.json in which each of the words, as GPT-2's pattern splits texts ("17", " met"), is
    one token; all else is spelled in ASCII. spaced: a text's first word is as any other."""
    letters = [chr(c) for c in range(33, 127)] + ["\u0120"]
    tokens = dict.fromkeys([END, MASK, *letters, *(w.replace(" ", "\u0120") for w in words)])
    bytes_ = {"type": "ByteLevel", "add_prefix_space": spaced, "trim_offsets": True, "use_regex": True}
    added = [{"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for i, token in enumerate((END, MASK))]
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
             "vocab": {token: i for i, token in enumerate(tokens)}, "merges": []}
    os.makedirs(folder, exist_ok=True)
    for name, value in (("tokenizer.json", {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": bytes_, "post_processor": None, "decoder": bytes_, "model": model}),
            ("tokenizer_config.json", {"eos_token": END})):
        with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False)
            file.write("\n")


class Experiment:
    """One folder of models, runs and results. Whatever exists already is not made again, but its command is
    listed all the same."""

    def __init__(self, options):
        self.out, self.threads, self.seed = options.out, options.threads, options.seed
        self.commands = []
        os.makedirs(self.out, exist_ok=True)

    def run(self, *words, log=None, skip=False):
        """Standard output of the program. A status of 1 with a result says that some lines were left out."""
        words = [str(word) for word in words]
        self.commands.append(shlex.join(["easyfirst", *words]))
        if skip:
            return ""
        if log:
            with open(log, "w", encoding="utf-8") as file:
                done = subprocess.run([PROGRAM, *words], stdout=file, stderr=file, check=False)
            error = log
        else:
            done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False)
            error = done.stderr
        if done.returncode and not (done.returncode == 1 and done.stdout):
            sys.exit(f"{self.commands[-1]}: {error}")
        return done.stdout

    def fresh(self, way, tokenizer, layers, width, positions, head, diffusion):
        """A model of a way, of random weights; the two ways have as many. head: a head's width; diffusion: its kind,
        llada, or llama with predictions shifted by one, as the autoregressive model's."""
        attention = WAYS[way][0]
        kind = diffusion if way == "diffusion" else "llama"
        model = f"{self.out}/fresh-{way}"
        self.run("new", model, "--kind", kind, "--attention", attention, "--tokenizer",
                 f"{tokenizer}/tokenizer.json", "--layers", layers, "--width", width, "--heads", width // head,
                 "--ffn", round(width * 8 / 3 / 8) * 8, "--positions", positions, "--seed", self.seed,
                 skip=os.path.exists(model))
        return model

    def train(self, way, model, run, data, steps, *more):
        """Trains on pairs; the run's folder, whose model is the last one."""
        run = f"{self.out}/{run}"
        save = () if "--save-every" in more else ("--save-every", 0)
        done = os.path.exists(f"{run}/model")
        if not done:
            shutil.rmtree(run, ignore_errors=True)
        objective = "llada" if "--complementary" in more else WAYS[way][1]
        self.run("train", "adapt", "-m", model, "--data", data, "--out", run, "--objective", objective,
                 "--optimizer", "muon", "--schedule", "wsd", "--decay-ratio", 0.3, "--warmup-steps",
                 min(50, steps // 4 + 1), "--dtype", "bf16", "--dropout", 0, "--steps", steps, "--seed", self.seed,
                 *save, "--show-answers", 0, "--threads", self.threads, *more,
                 log=run + ".log", skip=done)
        return run

    def checkpoints(self, run):
        """The updates after which the run kept a checkpoint."""
        return sorted(int(name.removeprefix("checkpoint-")) for name in os.listdir(run)
                      if name.startswith("checkpoint-") and name[-1].isdigit())

    def exact(self, model, path, out, *more):
        """Exact match in percent, with its interval."""
        out = f"{self.out}/{out}"
        self.run("eval", "text", "-m", model, "--task", "exact", path, "--lengths", "target", "--out", out,
                 "--threads", self.threads, "-q", *more)
        with open(f"{out}/result.json", encoding="utf-8") as file:
            return score_read(json.load(file))

    def finish(self, name, settings, rows, table):
        """NAME.json and NAME.md. rows: {"name", "value", "low", "high", ...}."""
        with open(f"{self.out}/{name}.json", "w", encoding="utf-8") as file:
            json.dump({"experiment": name, "settings": settings, "rows": rows, "commands": self.commands}, file,
                      indent=2)
            file.write("\n")
        with open(f"{self.out}/{name}.md", "w", encoding="utf-8") as file:
            file.write("\n".join(table) + "\n")


def score_read(result):
    """The first file's exact match of an evaluation's result.json."""
    row = result["score"]["files"][0]
    interval = row["confidence"]["exact_match"]
    return {"value": row["exact_match"], "low": interval["low"], "high": interval["high"], "questions": row["lines"]}


def curve_read(run, key):
    """[(step, value)] of a run's metrics.jsonl."""
    with open(f"{run}/metrics.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [(row["step"], row[key]) for row in rows if key in row]
