"""A LLaDA of full size with random weights: memory, and evaluations per second of the program and of transformers.

usage: python3 tests/reference/llama_full_size.py make FOLDER [--layers 32 --width 4096 --heads 32 --ffn 12288 --vocab 126464]
       python3 tests/reference/llama_full_size.py run FOLDER [--program build/easyfirst] [--canvas 64,256]
       python3 tests/reference/llama_full_size.py torch FOLDER [--canvas 64,256] [--evaluations 3] [--threads 2]

`make` writes FOLDER/language: LLaDA-8B's shape unless told otherwise, bf16 in shards of 2 GiB (16 GB altogether),
with the small tokenizer of tests/golden. Weights repeat one block of random numbers, from
another place for each tensor, with deviation 1/sqrt(inputs); norms are 1.

`run` opens it with `info`, then answers with a canvas of each length in some evaluations of the whole
sequence; prints the predicted memory, the peak resident size (with the pages of the mapped files) and evaluations per
second. `torch` does the same evaluations with transformers' LlamaForCausalLM (transformers has no LLaDA; the shapes and
names but not the mask are LLaMA's) on the same mapped files, with logits of the canvas only.
"""

import argparse
import json
import math
import os
import re
import struct
import subprocess
import time
from pathlib import Path

SHARD = 2 << 30
PROMPT = "Who are you, and what is the answer to everything?"
NAMES = {"attn_norm": "input_layernorm", "q_proj": "self_attn.q_proj", "k_proj": "self_attn.k_proj",
         "v_proj": "self_attn.v_proj", "attn_out": "self_attn.o_proj", "ff_norm": "post_attention_layernorm",
         "ff_proj": "mlp.gate_proj", "up_proj": "mlp.up_proj", "ff_out": "mlp.down_proj"}


def shapes(o):
    yield "model.transformer.wte.weight", (o.vocab, o.width)
    for i in range(o.layers):
        at = f"model.transformer.blocks.{i}."
        yield at + "attn_norm.weight", (o.width,)
        for name in ("q_proj", "k_proj", "v_proj", "attn_out"):
            yield f"{at}{name}.weight", (o.width, o.width)
        yield at + "ff_norm.weight", (o.width,)
        yield at + "ff_proj.weight", (o.ffn, o.width)
        yield at + "up_proj.weight", (o.ffn, o.width)
        yield at + "ff_out.weight", (o.width, o.ffn)
    yield "model.transformer.ln_f.weight", (o.width,)
    yield "model.transformer.ff_out.weight", (o.vocab, o.width)


def noise_of(deviation):
    """Bytes of 32 MiB of bf16 numbers."""
    import torch

    return (torch.randn(1 << 24) * deviation).bfloat16().view(torch.int16).numpy().tobytes()


def write_tensor(file, shape, number, noises):
    if len(shape) == 1:
        file.write(b"\x80\x3f" * shape[0])  # 1.0
        return
    deviation = 0.1 if number == 0 else shape[1] ** -0.5
    if deviation not in noises:
        noises[deviation] = memoryview(noise_of(deviation))
    noise, left, at = noises[deviation], 2 * shape[0] * shape[1], 24690 * number
    while left:
        at %= len(noise)
        part = noise[at : at + left]
        left, at = left - len(part), at + len(part)
        file.write(part)


def write_shard(path, tensors, noises):
    """(name, shape, number) each, as safetensors has them."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _ in tensors:
        size = 2 * math.prod(shape)
        header[name] = dict(dtype="BF16", shape=list(shape), data_offsets=[end, end + size])
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape, number in tensors:
            write_tensor(file, shape, number, noises)
    return end


def make(o):
    import torch

    folder = Path(o.folder) / "language"
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    config = dict(model_type="llada", d_model=o.width, n_heads=o.heads, n_kv_heads=o.heads, n_layers=o.layers,
                  mlp_hidden_size=o.ffn, rope_theta=500000.0, rms_norm_eps=1e-5, embedding_size=o.vocab,
                  vocab_size=o.vocab, max_sequence_length=4096, weight_tying=False, block_type="llama", rope=True,
                  torch_dtype="bfloat16", eos_token_id=421)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    source = Path("tests/golden/tokenizers/llama3/tokenizer.json")
    (folder / "tokenizer.json").write_text(source.read_text())
    shards, size, whole, noises, where = [[]], 0, 0, {}, {}
    for number, (name, shape) in enumerate(shapes(o)):
        if size >= SHARD:
            shards.append([])
            size = 0
        shards[-1].append((name, shape, number))
        size += 2 * math.prod(shape)
    for i, tensors in enumerate(shards):
        file = f"model-{i + 1:05}.safetensors"
        whole += write_shard(folder / file, tensors, noises)
        where.update({name: file for name, _, _ in tensors})
    index = dict(metadata=dict(total_size=whole), weight_map=where)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index) + "\n")
    print(f"{whole / 1e9:.2f} GB in {len(shards)} shards")


def measured(command):
    """Standard output, standard error, the peak resident size in bytes, seconds. A child's peak begins with this
    program's own, which is therefore kept small: torch is imported where it is needed."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.stdout.read(), process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command}: {err}")
    return out, err, used.ru_maxrss * 1024, time.monotonic() - start


def run(o):
    out, _, peak, seconds = measured([o.program, "info", "--json", o.folder])
    info = json.loads(out)
    part = info["parts"][0]
    print(f"info: {seconds:.1f} s, {info['parameters'] / 1e9:.2f}e9 parameters, files {part['stored_bytes'] / 1e9:.2f} GB, "
          f"weights {part['weight_bytes'] / 1e9:.2f} GB, activations {part['activation_bytes'] / 1e9:.2f} GB, "
          f"predicted besides the files {info['memory_bytes'] / 1e9:.2f} GB")
    for n in o.canvas:
        command = [o.program, "text", "-m", o.folder, "--length", str(n), "--steps", str(o.evaluations), "--strategy",
                   f"llada-block{n}-lowconf", "--threads", str(o.threads), PROMPT]
        _, err, peak, seconds = measured(command)
        print(f"canvas {n}: peak resident {peak / 1e9:.2f} GB, {seconds:.1f} s altogether; {err.strip()}")
        took = re.search(r"decode +([\d.]+) (m?s) ", err)
        print(f"    {o.evaluations / float(took[1]) * (1000 if took[2] == 'ms' else 1):.3f} evaluations/s")


def torch_run(o):
    import torch
    from safetensors import safe_open
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = Path(o.folder) / "language"
    c = json.loads((folder / "config.json").read_text())
    torch.set_num_threads(o.threads)
    config = LlamaConfig(vocab_size=c["vocab_size"], hidden_size=c["d_model"], intermediate_size=c["mlp_hidden_size"],
                         num_hidden_layers=c["n_layers"], num_attention_heads=c["n_heads"],
                         num_key_value_heads=c["n_kv_heads"], max_position_embeddings=4096, rms_norm_eps=1e-5,
                         rope_parameters=dict(rope_type="default", rope_theta=c["rope_theta"]),
                         tie_word_embeddings=False, attn_implementation="sdpa")
    with torch.device("meta"):
        model = LlamaForCausalLM(config).bfloat16()
    state = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as f:
            for name in f.keys():
                state[renamed(name)] = f.get_tensor(name)
    model.load_state_dict(state, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompt = [420] + tokenizer.encode(PROMPT, add_special_tokens=False).ids
    for n in o.canvas:
        ids = torch.tensor([prompt + [423] * n])
        mask = torch.zeros(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bfloat16)
        times = []
        with torch.inference_mode():
            for _ in range(o.evaluations):
                start = time.monotonic()
                model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=n).logits.argmax(-1)
                times.append(time.monotonic() - start)
        print(f"canvas {n}: {', '.join(f'{t:.1f}' for t in times)} s: {1 / min(times):.3f} evaluations/s at best", flush=True)
    import resource

    print(f"peak resident {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def renamed(name):
    outer = {"model.transformer.wte.weight": "model.embed_tokens.weight", "model.transformer.ln_f.weight": "model.norm.weight",
             "model.transformer.ff_out.weight": "lm_head.weight"}
    if name in outer:
        return outer[name]
    _, _, _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.weight"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "run", "torch"])
    parser.add_argument("folder")
    for name, value in dict(layers=32, width=4096, heads=32, ffn=12288, vocab=126464).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--program", default="build/easyfirst")
    parser.add_argument("--canvas", type=lambda s: [int(n) for n in s.split(",")], default=[64, 256])
    parser.add_argument("--evaluations", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    dict(make=make, run=run, torch=torch_run)[options.what](options)
