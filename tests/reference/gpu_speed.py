"""Times easyfirst and PyTorch side by side on one GPU, with random weights.

usage: python3 tests/reference/gpu_speed.py --program build/easyfirst [--seconds 300] [--only WORD]

  vit-l-14     64 pictures of 224 px through CLIP's ViT-L/14 up to hidden state [-2]
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
several runs, each with the GPU waited for; the two take turns. What does not fit into the time is named as not
run, and so is what does not fit into the memory.

Prints tables in Markdown, then the numbers as JSON. "products" are easyfirst's own matrix products alone; a
share of the peak is that of one large product on this GPU, measured in the same process.
"""

import argparse
import gc
import json
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


def run_torch(torch, case, device, deadline):
    """{"eager": ms or why not, "compiled": the same}"""
    out = {}
    mode = case["compile"]
    if case["name"].startswith("train"):
        loss, step = training(torch, case, device, case.get("sequences", SEQUENCES), case.get("tokens", TOKENS))
        ways = {"eager": lambda: lambda: step(loss), "compiled": lambda: _compiled_step(torch, loss, step, mode)}
        grad = torch.enable_grad
    else:
        make = encode if case["name"] == "vit-l-14" else evaluate
        forward = make(torch, case, device)
        ways = {"eager": lambda: forward, "compiled": lambda: torch.compile(forward, mode=mode, dynamic=False)}
        grad = torch.inference_mode
    for how, way in ways.items():
        if how == "compiled" and not mode:
            out[how] = "not run: takes minutes to compile"
        elif how == "compiled" and time.time() + case["compile_s"] > deadline:
            out[how] = "not run: out of time"
        else:
            try:
                with grad():
                    out[how] = medians(torch, device, way(), case["runs"], deadline)
            except Exception as error:
                text = " ".join(str(error).split())[:120]
                out[how] = f"not run: {type(error).__name__}: {text}"
    return out


def _compiled_step(torch, loss, step, mode):
    compiled = torch.compile(loss, mode=mode, dynamic=False)
    return lambda: step(compiled)


# ---- All of it. ----


def measure(case, torch, why, arguments, deadline):
    result = {"name": case["name"]}
    if time.time() + case["estimate"] > deadline:
        result["own"] = result["eager"] = result["compiled"] = "not run: out of time"
        return result
    if torch is None:
        result["eager"] = result["compiled"] = f"not run: {why}"
    else:
        try:
            result |= run_torch(torch, case, arguments.device, deadline - case["estimate"] / 2)
        except Exception as error:
            text = " ".join(str(error).split())[:120]
            result["eager"] = result["compiled"] = f"not run: {type(error).__name__}: {text}"
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()  # what is compiled keeps graphs, and their memory
        gc.collect()
        if arguments.device != "cpu":
            torch.cuda.empty_cache()
    try:
        result["own"] = run_own(arguments.program, case, arguments.device, deadline - time.time())
    except NotRun as reason:
        result["own"] = f"not run: {reason}"
    return result


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
    head = ["bf16", "time", "pictures or sequences/s", "products of one, of the peak"]
    head += ["products alone, share", "their rate, of the peak"]
    table("Evaluation:", head + torch_head, speed)
    head = ["bf16", "a step", "tokens/s", "products of a step, of the peak", "GPU memory: predicted, taken"]
    table("Training XLM-R large:", head + torch_head, training_rows)
    table("Of one evaluation, or step:", ["", "launches", "to the GPU", "from it"], bus)


def _plain(value):
    return f"{value:.2f} ms" if isinstance(value, float) else value


def share(rate, peak):
    return f"{100 * rate / peak:.0f} %" if peak else "peak unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="build/easyfirst")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--only", metavar="WORD", help="cases whose name contains it")
    parser.add_argument("--device", default="cuda", help="cpu: to try the script itself, on tiny models")
    parser.add_argument("--not-run", metavar="WHY", help="print the tables with nothing measured")
    arguments = parser.parse_args()
    cases = [c for c in CASES if not arguments.only or arguments.only in c["name"]]
    if arguments.not_run:
        none = f"not run: {arguments.not_run}"
        print_results([{"name": c["name"], "own": none, "eager": "", "compiled": ""} for c in cases])
        return
    if arguments.device == "cpu":
        small = {"runs": 1, "estimate": 0, "model": "tiny", "layers": 2, "sequences": 1, "compile": None}
        cases = [c | small | ({"batch": 2} if "batch" in c else {"tokens": 384, "own": "xlmr-base"}) for c in cases]
    deadline = time.time() + arguments.seconds
    torch, why = None, ""
    try:
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        torch.backends.cuda.matmul.allow_tf32 = False
        if arguments.device != "cpu" and not torch.cuda.is_available():
            torch, why = None, "PyTorch sees no GPU"
    except ImportError as error:
        torch, why = None, str(error)
    results = [measure(c, torch, why, arguments, deadline) for c in cases]
    print_results(results)
    print("\n```")
    for result in results:
        print(json.dumps(result))
    print("```")


if __name__ == "__main__":
    main()
