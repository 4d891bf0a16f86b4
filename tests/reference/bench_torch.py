"""Times torch on the work that `easyfirst bench` times, with random weights.

usage: python3 tests/reference/bench_torch.py [--threads 2] [--runs 6] [--rounds 2] [--no-compile]
                                              [--only WORD] [--vs 'build/easyfirst bench --json']

  vit-l-14 encode          one image of 224 px through ViT-L/14 up to hidden state [-2]: 23 layers run
  xlm-r-base evaluate      one sequence of 300 tokens through XLM-R base, and 8 answer rows through the
                           head: a token and its log-probability for each

Each in f32 and bf16, in three ways: by plain calls ("eager"); by torch.compile with frozen weights
("compiled"); and with every Linear by oneDNN and weights laid out for it beforehand ("onednn"). The last
is included because torch's f32 matmuls use MKL, compiled or not, which is half as fast on AMD processors.
Prints a table, then one line of JSON. Milliseconds are medians over all runs of all rounds.

With --vs the command is run once in each round, after torch, so that both see the same machine in the
same minute. What it prints is searched for JSON objects with "name", "dtype" and "ms_median"; one belongs
to a case if its name contains the case's first word (hyphens aside). A ratio is torch's median over the command's in one
round, above 1 where the command is faster; the table has the median over the rounds.
"""

import argparse
import copy
import json
import os
import shlex
import statistics
import subprocess
import time

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, XLMRobertaConfig, XLMRobertaForMaskedLM

TOKENS, ANSWER = 300, 8


class Encode(torch.nn.Module):
    """ViT-L/14 without its last layer, so that the last hidden state is the one called [-2]."""

    name = "vit-l-14 encode"

    def __init__(self):
        super().__init__()
        config = CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=224,
            patch_size=14,
        )
        self.tower = CLIPVisionModel._from_config(config, attn_implementation="sdpa")
        del self.tower.encoder.layers[-1]
        self.example = torch.randn(1, 3, 224, 224)

    def forward(self, pixels):
        return self.tower(pixel_values=pixels).last_hidden_state[:, 1:]


class Evaluate(torch.nn.Module):
    """One evaluation of a canvas: the head runs on the answer's rows only."""

    name = "xlm-r-base evaluate"

    def __init__(self):
        super().__init__()
        config = XLMRobertaConfig(
            vocab_size=250002, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
        )
        self.lm = XLMRobertaForMaskedLM._from_config(config, attn_implementation="sdpa")
        self.example = torch.randint(4, 250001, (1, TOKENS))
        self.register_buffer("positions", torch.arange(2, 2 + TOKENS)[None])

    def forward(self, ids):
        hidden = self.lm.roberta(input_ids=ids, position_ids=self.positions).last_hidden_state
        logits = self.lm.lm_head(hidden[0, -1 - ANSWER : -1])
        return torch.log_softmax(logits.float(), dim=-1).max(dim=-1)


class OneDnnLinear(torch.nn.Module):
    """A Linear with its weights in the layout that oneDNN wants for this number of rows."""

    def __init__(self, linear, rows):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)
        self.bias = linear.bias

    def forward(self, x):
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


def with_onednn(model, rows):
    for name, child in model.named_children():
        if isinstance(child, torch.nn.Linear):
            setattr(model, name, OneDnnLinear(child, ANSWER if name == "decoder" else rows))
        else:
            with_onednn(child, rows)
    return model


def contenders(arguments):
    """(name, dtype, how, function without arguments)"""
    out = []
    for kind in (Encode, Evaluate):
        if arguments.only and arguments.only not in kind.name:
            continue
        torch.manual_seed(0)
        whole = kind().eval()
        for dtype, word in [(torch.float32, "f32"), (torch.bfloat16, "bf16")]:
            model = copy.deepcopy(whole).to(dtype)
            example = model.example.to(dtype) if model.example.is_floating_point() else model.example
            ways = {"eager": lambda m: m, "onednn": lambda m: with_onednn(m, TOKENS)}
            if not arguments.no_compile:
                ways["compiled"] = lambda m: torch.compile(m, dynamic=False)
            for how, way in ways.items():
                try:
                    run = way(copy.deepcopy(model))
                    run(example)
                except Exception as error:  # no compiler, or a version without one of these
                    print(f"{kind.name} {word} {how}: {type(error).__name__}: {str(error)[:200]}")
                    continue
                out.append((kind.name, word, how, lambda run=run, example=example: run(example)))
    return out


def milliseconds(function, runs):
    for _ in range(2):
        function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def find_cases(text):
    """All objects with a name and a median in what a program printed: whole or line by line."""

    def walk(value):
        if isinstance(value, dict):
            if "name" in value and "ms_median" in value:
                yield value
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                yield from walk(item)

    for part in [text, *text.splitlines()]:
        try:
            found = list(walk(json.loads(part)))
        except json.JSONDecodeError:
            continue
        yield from found
        if part is text:
            return


def letters(name):
    """xlm-r-base and xlmr-base are the same."""
    return "".join(c for c in name.lower() if c.isalnum())


def run_command(command, threads):
    """{(name, dtype): ms} of one run of the command."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    output = subprocess.run(shlex.split(command), env=environment, capture_output=True, text=True)
    if output.returncode != 0:
        raise SystemExit(f"{command}: exit status {output.returncode}\n{output.stderr}")
    return {(c["name"], c.get("dtype", "f32")): float(c["ms_median"]) for c in find_cases(output.stdout)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=6, help="of each case in each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--only", metavar="WORD", help="cases whose name contains it")
    parser.add_argument("--vs", metavar="COMMAND")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"load average {load:.1f} before the start: others use this machine, and times will vary")
    import torch._inductor.config as inductor

    inductor.freezing = True
    with torch.inference_mode():
        cases = contenders(arguments)
        times, ratios, theirs = {}, {}, {}
        for _ in range(arguments.rounds):
            medians = {}
            for name, dtype, how, function in cases:
                run = milliseconds(function, arguments.runs)
                times.setdefault((name, dtype, how), []).extend(run)
                medians[name, dtype, how] = statistics.median(run)
            other = run_command(arguments.vs, arguments.threads) if arguments.vs else {}
            for (name, dtype, how), ours in medians.items():
                for (other_name, other_dtype), ms in other.items():
                    if other_dtype == dtype and letters(name.split()[0]) in letters(other_name):
                        ratios.setdefault((name, dtype, how, other_name), []).append(ours / ms)
                        theirs.setdefault((other_name, dtype), []).append(ms)
    rows = []
    for (name, dtype, how), values in times.items():
        row = {"name": name, "dtype": dtype, "how": how, "runs": len(values)}
        row |= {"ms_median": round(statistics.median(values), 2), "ms_min": round(min(values), 2)}
        row["against"] = [
            {
                "name": key[3],
                "ms_median": round(statistics.median(theirs[key[3], dtype]), 2),
                "ratios": [round(r, 3) for r in values],
                "ratio": round(statistics.median(values), 3),
            }
            for key, values in ratios.items()
            if key[:3] == (name, dtype, how)
        ]
        rows.append(row)
    print(f"torch {torch.__version__}, {arguments.threads} threads, load average before the start {load:.1f}")
    print("| case | type | how | ms, median | ms, least | against | its ms | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        for other in row["against"] or [{"name": "", "ms_median": "", "ratio": ""}]:
            cells = [row[k] for k in ("name", "dtype", "how", "ms_median", "ms_min")]
            print("|", " | ".join(map(str, cells + [other[k] for k in ("name", "ms_median", "ratio")])), "|")
    print(json.dumps({"torch": torch.__version__, "threads": arguments.threads, "load": load, "cases": rows}))


if __name__ == "__main__":
    main()
