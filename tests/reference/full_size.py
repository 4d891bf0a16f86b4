"""Compares models of full size with torch: random weights, the layouts in which public models come.

usage: python3 tests/reference/full_size.py FOLDER [--program build/tests/stages] [--only WORD] [--threads 2]

ViT-L/14, XLM-R base and large are whole; XL and XXL have 2 of their layers, with full width and
vocabulary. One after the other is built, computed by torch, written under FOLDER, run by the program
(`make stages`) in f32 and bf16, and removed again: at most 6 GB of disk and 14 GB of memory at a time.

The reference is torch in f32 with the files' weights. The table compares the program's errors with
those of torch itself in bf16 (weights and all): that is what the type costs. Errors are
||a - b|| / ||b|| over all values. "same" counts the answer rows whose largest logit is the same.
Memory is the program's peak resident size, which includes the pages of the mapped file it has touched.

Weights are normal with deviation 1/sqrt(inputs), so that every layer's output has the size of its input:
attention is uneven and a layer's part in the result is large, more than with the 0.02 that training
starts from. Embeddings have 0.1, as after training. Logits of random weights lie closer together than
those of a trained model, so that more of the largest change places.
"""

import argparse
import math
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import torch
from make_models import save_model
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaXLConfig,
    XLMRobertaXLForMaskedLM,
)
from transformers.utils import logging

TYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}


def build_vit():
    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
    )
    return CLIPVisionModel._from_config(config, attn_implementation="eager")


def build_lm(width, layers, heads, ffn, xl):
    config_class = XLMRobertaXLConfig if xl else XLMRobertaConfig
    config = config_class(
        vocab_size=250880 if xl else 250002,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ffn,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    model_class = XLMRobertaXLForMaskedLM if xl else XLMRobertaForMaskedLM
    return model_class._from_config(config, attn_implementation="eager")


# name, builder, {type in the files: layouts}
MODELS = [
    ("ViT-L/14", build_vit, {torch.float32: ["safetensors"]}),
    (
        "XLM-R base",
        lambda: build_lm(768, 12, 12, 3072, False),
        {torch.float32: ["safetensors", "bin"], torch.float16: ["bin"]},
    ),
    ("XLM-R large", lambda: build_lm(1024, 24, 16, 4096, False), {torch.float32: ["shards"]}),
    ("XL, 2 layers", lambda: build_lm(2560, 2, 32, 10240, True), {torch.float16: ["bin"]}),
    ("XXL, 2 layers", lambda: build_lm(4096, 2, 32, 16384, True), {torch.bfloat16: ["safetensors", "shards"]}),
]


def draw(model, dtype):
    """Fills in the weights, the same at each call, rounded to what a file of this type holds."""
    generator = torch.Generator().manual_seed(0)
    for name, p in sorted(model.named_parameters()):
        if "norm" in name.lower() and name.endswith("weight"):
            p.normal_(1, 0.1, generator=generator)
        elif "embedding" in name and "patch" not in name or name == "lm_head.decoder.weight":
            p.normal_(0, 0.1, generator=generator)
        elif p.dim() == 1:
            p.normal_(0, 0.02, generator=generator)
        else:
            p.normal_(0, 1 / math.sqrt(p[0].numel()), generator=generator)
        p.copy_(p.to(dtype))
    return model.eval()


def vision_inputs():
    return {"pixels": torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))}


def language_inputs():
    """Three sequences end to end; the last tokens before each </s> are masks, the answer rows."""
    generator = torch.Generator().manual_seed(2)
    ids, begin, rows = [], [0], []
    for length, answer in [(300, 24), (77, 7), (12, 1)]:
        words = torch.randint(4, 250001, (length - answer - 2,), generator=generator).tolist()
        rows += range(begin[-1] + length - 1 - answer, begin[-1] + length - 1)
        ids += [0] + words + [250001] * answer + [2]
        begin.append(len(ids))
    lists = {"text.ids": ids, "text.begin": begin, "text.answer_rows": rows}
    return {name: torch.tensor(values) for name, values in lists.items()}


def compute(model, inputs):
    """What the program is asked for, by torch in the model's type."""
    if "pixels" in inputs:
        pixels = inputs["pixels"].to(model.dtype)
        hidden = model(pixel_values=pixels, output_hidden_states=True).hidden_states
        return {"vit.features": hidden[-2][:, 1:].flatten(0, 1).float()}
    hidden = []
    begin = inputs["text.begin"].tolist()
    for first, last in zip(begin, begin[1:]):
        positions = torch.arange(2, 2 + last - first)[None]
        out = model.roberta(input_ids=inputs["text.ids"][None, first:last], position_ids=positions)
        hidden.append(out.last_hidden_state[0])
    hidden = torch.cat(hidden)
    logits = model.lm_head(hidden[inputs["text.answer_rows"]])
    return {"text.hidden": hidden.float(), "text.answer_logits": logits.float()}


def save(model, folder, layout, dtype):
    folder.mkdir(parents=True)
    if isinstance(model, CLIPVisionModel):
        save_model(model, folder, dtype, "vision_model.")
    elif layout == "bin":  # with the tied decoder under its own name, as the public ones
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    else:
        model.save_pretrained(folder, max_shard_size="700MB" if layout == "shards" else "100GB")
    files = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")]
    assert (len(files) > 1) == (layout == "shards")
    return sum(path.stat().st_size for path in files)


def run_program(program, part, folder, inputs, outputs, arithmetic, threads):
    """Its results, its milliseconds of loading and computing, and its peak memory in bytes."""
    command = [program, part, str(folder), str(inputs), str(outputs), arithmetic]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    peak = 0
    while child.poll() is None:  # getrusage would count this process's own size at the fork
        status = Path(f"/proc/{child.pid}/status").read_text()
        peak = max([peak] + [int(kb) << 10 for kb in re.findall(r"VmHWM:\s+(\d+) kB", status)])
        time.sleep(0.02)
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit status {child.returncode}")
    times = [float(number) for number in re.findall(r"([\d.]+) ms", child.stdout.read())]
    return load_file(outputs), times, peak


def errors(found, wanted):
    """Cells of the table: relative error of features or hidden states, of logits, rows of one argmax."""
    cells = []
    for name, right in wanted.items():
        value = found[name].reshape(right.shape).double()
        cells.append(f"{float((value - right).norm() / right.double().norm()):.1e}")
        if name == "text.answer_logits":
            same = int((value.argmax(dim=-1) == right.argmax(dim=-1)).sum())
            cells.append(f"{same}/{len(right)}")
    return cells + [""] * (3 - len(cells))


HEAD = (
    "| model | files | in files | arithmetic | GB | load s | compute s | hidden | logits | same | peak GB "
    "| torch bf16: hidden | logits | same |"
)


def compare(name, build, dtype, layouts, arguments):
    folder = Path(arguments.folder)
    model = draw(build(), dtype)
    part, inputs = ("vision", vision_inputs()) if "ViT" in name else ("language", language_inputs())
    save_file(inputs, folder / "inputs.safetensors")
    wanted = compute(model, inputs)
    assert all(bool(torch.isfinite(value).all()) for value in wanted.values())
    model.to(dtype)
    rows = []
    for layout in layouts:
        place = folder / "model"
        size = save(model, place, layout, dtype)
        for arithmetic in ("f32", "bf16"):
            found, times, peak = run_program(
                arguments.program,
                part,
                place,
                folder / "inputs.safetensors",
                folder / "outputs.safetensors",
                arithmetic,
                arguments.threads,
            )
            row = [name, layout, TYPES[dtype], arithmetic, f"{size / 1e9:.2f}"]
            row += [f"{ms / 1e3:.2f}" for ms in times] + errors(found, wanted) + [f"{peak / 1e9:.2f}"]
            rows.append(row)
        shutil.rmtree(place)
    torch_bf16 = errors(compute(model.to(torch.bfloat16), inputs), wanted)
    for row in rows:
        print("|", " | ".join(row + (torch_bf16 if row[3] == "bf16" else [""] * 3)), "|", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="for the models; a new one is made, and removed at the end")
    parser.add_argument("--program", default="build/tests/stages")
    parser.add_argument("--only", metavar="WORD", default="", help="models whose name contains it")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    Path(arguments.folder).mkdir(parents=True)
    logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    print(HEAD)
    print("|" + "---|" * (HEAD.count("|") - 1), flush=True)
    try:
        for name, build, types in MODELS:
            for dtype, layouts in types.items():
                if arguments.only in name:
                    compare(name, build, dtype, layouts, arguments)
    finally:
        shutil.rmtree(arguments.folder)


if __name__ == "__main__":
    main()
