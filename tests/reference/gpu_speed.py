"""Times easyfirst and PyTorch side by side on one GPU, with random weights.

usage: python3 tests/reference/gpu_speed.py --program build/easyfirst --results FILE [--seconds 300]
           [--only NAME,NAME] [--parts own,eager,compiled]
       python3 tests/reference/gpu_speed.py --results FILE --render [--why TEXT]

  vit-l-14     64 images of 224 px through CLIP's ViT-L/14 up to hidden state [-2]
  xlmr-base    one sequence of 300 tokens, 8 answer rows through the head: a token and its
  xlmr-large   log-probability for each; so is a step of decoding a single answer
  xlmr-xxl     the same with 512 tokens
  train full   a step of XLM-R large, 32 sequences of 512 tokens, a quarter of them masked: forward,
               backward, clipping, AdamW over all parameters
  train frozen the same without training a parameter: gradients of the first 256 rows of each sequence,
               as when a projector is trained

All in bf16. PyTorch: transformers' own models with SDPA attention, the head on the needed rows only; bf16
weights, but f32 ones under autocast and AdamW(fused=True) in "train full". "compiled" is torch.compile: with
CUDA graphs (reduce-overhead) for one sequence, which is bound by launches, else its default. Medians of
several runs, each with the GPU waited for.

Each number is a line of JSON in FILE as soon as it is known, {"name", "part", "value"}, so that a run that is
cut off keeps what it has; the next one measures what is missing. A value is a text with the reason if there is
no number; what did not fit into the time is missing. --render prints the tables in Markdown. "matmuls" are
easyfirst's own matmuls alone; a share of the peak is that of one large matmul on this GPU, measured in the
same process.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time

WORDS, WORDS_XXL, PICTURE, MASKED = 250002, 250880, 256, 4

CASES = [
    {"name": "vit-l-14", "batch": 64, "runs": 20, "estimate": 40, "compile": "default", "compile_s": 60},
    {"name": "xlmr-base", "tokens": 300, "runs": 30, "estimate": 20, "compile": "reduce-overhead", "compile_s": 40},
    {"name": "xlmr-large", "tokens": 300, "runs": 30, "estimate": 25, "compile": "reduce-overhead", "compile_s": 60},
    {"name": "xlmr-xxl", "tokens": 512, "runs": 10, "estimate": 90, "compile": None},
    {"name": "train full", "runs": 5, "estimate": 60, "compile": "default", "compile_s": 90},
    {"name": "train frozen", "runs": 5, "estimate": 40, "compile": "default", "compile_s": 60},
]
TOKENS, SEQUENCES, ANSWER = 512, 32, 8
PARTS = ["own", "eager", "compiled"]


class NotRun(Exception):
    pass


# ---- easyfirst. ----


def own_command(case):
    if case["name"].startswith("train"):
        what = case["name"].split()[1]
        command = ["bench", "train", "--model-name", case.get("own", "xlmr-large"), "--what", what]
        sequences = case.get("sequences", SEQUENCES)
        return command + ["--tokens", str(case.get("tokens", TOKENS)), "--sequences", str(sequences)]
    name = case.get("own", case["name"])
    command = ["bench", "-q", "--model-name", name, "--batch", str(case.get("batch", 1))]
    return command + ["--tokens", str(case.get("tokens", 300)), "--rows", str(ANSWER)]


def run_own(program, case, device, seconds):
    command = [program] + own_command(case) + ["--dtype", "bf16", "--device", device]
    command += ["--runs", str(case["runs"]), "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        raise NotRun("out of time")
    if done.returncode != 0:
        raise NotRun((done.stderr.strip().splitlines() or ["no message"])[-1])
    return json.loads([x for x in done.stdout.splitlines() if x.startswith("{")][-1])


# ---- PyTorch. Weights are made on the GPU, where that takes no time. ----


def filled(torch, build, dtype, device):
    with torch.device("meta"):
        model = build()
    model = model.to(dtype).to_empty(device=device)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.02)
        for name, b in model.named_buffers():  # position and type ids
            start = torch.arange(b.shape[-1], device=device).expand_as(b) if "position" in name else 0
            b.copy_(start * torch.ones_like(b))
    if hasattr(model, "lm_head"):
        model.tie_weights()  # emptying has torn the vocabulary's two uses apart
        words = model.roberta.embeddings.word_embeddings.weight
        assert model.lm_head.decoder.weight.data_ptr() == words.data_ptr()
    return model


def masked_lm(torch, name, dtype, device):
    import transformers as t

    width, layers, heads = {
        "xlmr-base": (768, 12, 12),
        "xlmr-large": (1024, 24, 16),
        "xlmr-xxl": (4096, 48, 32),
        "tiny": (64, 2, 4),
    }[name]
    xxl = name == "xlmr-xxl"
    config = (t.XLMRobertaXLConfig if xxl else t.XLMRobertaConfig)(
        vocab_size=WORDS_XXL if xxl else WORDS,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    kind = t.XLMRobertaXLForMaskedLM if xxl else t.XLMRobertaForMaskedLM
    return filled(torch, lambda: kind._from_config(config, attn_implementation="sdpa"), dtype, device)


def encode(torch, case, device):
    import transformers as t

    config = t.CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=case.get("layers", 24),
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
    )
    build = lambda: t.CLIPVisionModel._from_config(config, attn_implementation="sdpa")
    model = filled(torch, build, torch.bfloat16, device).eval()
    tower = getattr(model, "vision_model", model)
    del tower.encoder.layers[-1]
    pixels = torch.randn(case["batch"], 3, 224, 224, device=device, dtype=torch.bfloat16)
    return lambda: model(pixel_values=pixels).last_hidden_state[:, 1:]


def evaluate(torch, case, device):
    tokens = case["tokens"]
    model = masked_lm(torch, case.get("model", case["name"]), torch.bfloat16, device).eval()
    ids = torch.randint(4, WORDS - 1, (1, tokens), device=device)
    positions = torch.arange(2, 2 + tokens, device=device)[None]

    def run():
        hidden = model.roberta(input_ids=ids, position_ids=positions).last_hidden_state
        logits = model.lm_head(hidden[0, -1 - ANSWER : -1])
        return torch.log_softmax(logits.float(), dim=-1).max(dim=-1)

    return run


def training(torch, case, device, sequences, tokens):
    """The loss as a function to compile, and the step around it."""
    full = case["name"] == "train full"
    dtype = torch.float32 if full else torch.bfloat16
    model = masked_lm(torch, case.get("model", "xlmr-large"), dtype, device).train()
    width = model.config.hidden_size
    ids = torch.randint(4, WORDS - 1, (sequences, tokens), device=device)
    positions = torch.arange(2, 2 + tokens, device=device)[None].expand(sequences, -1)
    rows = torch.zeros(sequences, tokens, dtype=torch.bool)
    rows[:, -(tokens // MASKED) :] = True
    rows = rows.flatten().nonzero()[:, 0].to(device)
    targets = ids.flatten()[rows]
    picture = min(PICTURE, tokens // 2)
    image = torch.randn(sequences, picture, width, device=device, requires_grad=True)
    model.requires_grad_(full)
    optimizer = None
    if full:
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-5, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )

    def loss():
        if full:
            hidden = model.roberta(input_ids=ids, position_ids=positions)[0]
        else:
            text = model.roberta.embeddings.word_embeddings(ids[:, picture:])
            inputs = torch.cat([image.to(text.dtype), text], dim=1)
            hidden = model.roberta(inputs_embeds=inputs, position_ids=positions)[0]
        logits = model.lm_head(hidden.flatten(0, 1)[rows])
        return torch.nn.functional.cross_entropy(logits.float(), targets)

    def step(loss):
        if not full:
            image.grad = None
            loss().backward()
            return
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return loss, step


def wait(torch, device):
    if device != "cpu":
        torch.cuda.synchronize()


def medians(torch, device, run, runs, deadline):
    times = []
    for i in range(3 + runs):
        begin = time.perf_counter()
        run()
        wait(torch, device)
        if i >= 3:
            times.append(1e3 * (time.perf_counter() - begin))
        if time.time() > deadline and len(times) > 2:
            break
    return statistics.median(times)


def torch_way(torch, case, device, how):
    """What is to be timed, and how gradients are kept."""
    mode = case["compile"]
    if case["name"].startswith("train"):
        loss, step = training(torch, case, device, case.get("sequences", SEQUENCES), case.get("tokens", TOKENS))
        run = (lambda: step(loss)) if how == "eager" else _compiled_step(torch, loss, step, mode)
        return run, torch.enable_grad
    forward = (encode if case["name"] == "vit-l-14" else evaluate)(torch, case, device)
    if how == "compiled":
        forward = torch.compile(forward, mode=mode, dynamic=False)
    return forward, torch.inference_mode


def run_torch(torch, case, device, how, deadline):
    """Milliseconds, or why there are none."""
    if how == "compiled" and not case["compile"]:
        return "not run: takes minutes to compile"
    try:
        run, grad = torch_way(torch, case, device, how)
        with grad():
            return medians(torch, device, run, case["runs"], deadline)
    except Exception as error:
        text = " ".join(str(error).split())[:120]
        return f"not run: {type(error).__name__}: {text}"
    finally:
        run = None
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()  # what is compiled keeps graphs, and their memory
        gc.collect()
        if device != "cpu":
            torch.cuda.empty_cache()


def _compiled_step(torch, loss, step, mode):
    compiled = torch.compile(loss, mode=mode, dynamic=False)
    return lambda: step(compiled)


# ---- All of it. ----


class Results:
    """The file: one line for each number, whole or not there."""

    def __init__(self, path):
        self.path, self.values, self.begun = path, {}, {}
        try:
            lines = open(path).read().split("\n")[:-1]  # a last line without its end was cut off
        except FileNotFoundError:
            return
        for line in lines:
            try:
                entry = json.loads(line)
                key = entry["name"], entry["part"]
                if "value" in entry:
                    self.values[key] = entry["value"]
                else:
                    self.begun[key] = self.begun.get(key, 0) + 1
            except (ValueError, KeyError):
                pass

    def add(self, name, part, value):
        self.values[name, part] = value
        self._write({"name": name, "part": part, "value": value})

    def begin(self, name, part):
        """Whether to continue: not if this has ended the process, or the machine, twice."""
        if self.begun.get((name, part), 0) < 2:
            self._write({"name": name, "part": part})
            return True
        self.add(name, part, "failed: twice it did not come to its end")
        return False

    def _write(self, entry):
        with open(self.path, "a+b") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                file.write(b"\n")
            file.write((json.dumps(entry) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())


def time_needed(case, part):
    return case["compile_s"] if part == "compiled" and case["compile"] else case["estimate"] / 2


def measure(case, part, load_torch, arguments, deadline):
    """A number, a text that says why there is none, or None if there was no time."""
    if part == "own":
        try:
            return run_own(arguments.program, case, arguments.device, deadline - time.time())
        except NotRun as reason:
            return None if str(reason) == "out of time" else f"not run: {reason}"
    torch, why = load_torch()
    return run_torch(torch, case, arguments.device, part, deadline) if torch else f"not run: {why}"


def ratio(ms, own):
    return f"{ms:.2f} ms, {ms / own:.2f} times" if isinstance(ms, float) else ms


def table(title, head, rows):
    print(f"\n{title}\n\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(x) for x in row) + " |")


def print_results(results):
    speed, training_rows, bus = [], [], []
    for r in results:
        own, name = r["own"], r["name"]
        train = name.startswith("train")
        if isinstance(own, str):
            row = [name, own] + [""] * (3 if train else 4)
            (training_rows if train else speed).append(row + [_plain(r["eager"]), _plain(r["compiled"])])
            bus.append([name, own, "", ""])
            continue
        ms, peak = own["ms_median"], own["peak_gflops"]
        others = [ratio(r["eager"], ms), ratio(r["compiled"], ms)]
        if train:
            rates = [f"{own['tokens_per_s']:.0f}", f"{own['gflops'] / 1e3:.0f} TFLOP/s, {share(own['gflops'], peak)}"]
            memory = f"{own['predicted_mb'] / 1e3:.1f}, {own['peak_mb'] / 1e3:.1f} GB"
            training_rows.append([name, f"{ms:.1f} ms"] + rates + [memory] + others)
        else:
            each = 1e3 * own["batch"] / ms
            products = f"{own['matmul_ms']:.3f} ms, {own['share']:.0f} %"
            rate = f"{own['matmul_gflops'] / 1e3:.0f} TFLOP/s, {share(own['matmul_gflops'], peak)}"
            whole = f"{own['gflops'] / 1e3:.0f} TFLOP/s, {share(own['gflops'], peak)}"
            speed.append([name, f"{ms:.3f} ms", f"{each:.0f}", whole, products, rate] + others)
        up, down = f"{own['bytes_up']:,} bytes", f"{own['bytes_down']:,} bytes"
        bus.append([name, own["launches"], up, down])
    torch_head = ["PyTorch, times as long", "compiled"]
    head = ["bf16", "time", "images or sequences/s", "matmuls of one, of the peak"]
    head += ["matmuls alone, share", "their rate, of the peak"]
    table("Evaluation:", head + torch_head, speed)
    head = ["bf16", "a step", "tokens/s", "matmuls of a step, of the peak", "GPU memory: predicted, taken"]
    table("Training XLM-R large:", head + torch_head, training_rows)
    table("Of one evaluation, or step:", ["", "launches", "to the GPU", "from it"], bus)


def _plain(value):
    return f"{value:.2f} ms" if isinstance(value, float) else value


def render(results, why):
    """The tables, of what there is."""
    missing = f"not run: {why}" if why else ""
    get = lambda name, part: results.values.get((name, part), missing)
    print_results([{"name": c["name"]} | {part: get(c["name"], part) for part in PARTS} for c in CASES])


def torch_loader(device):
    """Loads torch at the first call; (torch, None) or (None, why not)."""
    loaded = []

    def load():
        if not loaded:
            try:
                import torch
                import transformers

                transformers.logging.set_verbosity_error()
                torch.backends.cuda.matmul.allow_tf32 = False
                there = device == "cpu" or torch.cuda.is_available()
                loaded.append((torch, None) if there else (None, "PyTorch sees no GPU"))
            except ImportError as error:
                loaded.append((None, str(error)))
        return loaded[0]

    return load


def share(rate, peak):
    return f"{100 * rate / peak:.0f} %" if peak else "peak unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="build/easyfirst")
    parser.add_argument("--results", metavar="FILE", required=True, help="file of the results")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--only", metavar="NAMES", help="these cases, with commas between them")
    parser.add_argument("--parts", default=",".join(PARTS), help="own: easyfirst; eager, compiled: PyTorch")
    parser.add_argument("--device", default="cuda", help="cpu: to try the script itself, on tiny models")
    parser.add_argument("--render", action="store_true", help="print the tables of FILE")
    parser.add_argument("--why", help="with --render: why what is missing was not run")
    arguments = parser.parse_args()
    results = Results(arguments.results)
    if arguments.render:
        render(results, arguments.why)
        return 0
    cases = [c for c in CASES if not arguments.only or c["name"] in arguments.only.split(",")]
    if arguments.device == "cpu":
        small = {"runs": 1, "estimate": 0, "model": "tiny", "layers": 2, "sequences": 1, "compile": None}
        cases = [c | small | ({"batch": 2} if "batch" in c else {"tokens": 384, "own": "xlmr-base"}) for c in cases]
    deadline = time.time() + arguments.seconds
    load_torch = torch_loader(arguments.device)
    wanted = [(c, part) for c in cases for part in PARTS if part in arguments.parts.split(",")]
    left = 0
    for case, part in wanted:
        if (case["name"], part) in results.values:
            continue
        if time.time() + time_needed(case, part) > deadline:
            left += 1
            continue
        if not results.begin(case["name"], part):
            continue
        value = measure(case, part, load_torch, arguments, deadline)
        if value is None:
            left += 1
        else:
            results.add(case["name"], part, value)
            print(case["name"], part, json.dumps(value), flush=True)
    return 3 if left else 0  # 3: some did not fit into the time


if __name__ == "__main__":
    sys.exit(main())
