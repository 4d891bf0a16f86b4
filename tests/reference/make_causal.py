"""Writes tests/golden/causal: tiny autoregressive models, what they learn, write and expect.

usage: python3 tests/reference/make_causal.py [FOLDER]    (after make_tokenizers.py and make_llama_folders.py)

KIND/ is a model folder without a mask token: `llama` (a head of its own, <s> before each text), `qwen2` (tied, with
biases, nothing before a text). pairs.jsonl and text.txt are data. golden.json, all by torch in f64:

  KIND.losses     of 20 steps of AdamW on all pairs, next token, the mean over each answer, then over the pairs
  KIND.answers    greedy continuations of the pairs' prompts by transformers' generate, up to the end token
  KIND.nats       the sum of -log p over text.txt's lines, in windows as `eval likelihood` has them; KIND.tokens
  dream.CASE      losses of 12 steps of masked diffusion with shifted targets on the first pair, from the folder in
                  tests/golden/llama/folders, with the trainer's own noise
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from decode_reference import stream, uniform
from make_llama_folders import dream
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/causal")
TOKENIZERS = Path("tests/golden/tokenizers")
PAIRS = [
    ("The capital of", "a small country"),
    ("one two three", "four"),
    ("How are you today?", "fine, and how do you do?"),
    ("x", "yes, it is a letter of the alphabet"),
    ("What is brown and runs?", "the dog"),
]
TEXT = ["The dog is brown.", "a", "It was the best of times, it was the worst of times, it was the age of wisdom, it was "
        "the age of foolishness, it was the epoch of belief, it was the epoch of incredulity.", "12 and 30 are 42."]
STEPS, RATE, LONGEST, NEW = 20, 3e-3, 48, 20
NOISE = 0x6E6F6973  # loader.c's NOISE_STREAM
MASK = 423  # dream's


def common(vocab):
    return dict(vocab_size=vocab, hidden_size=16, intermediate_size=22, num_hidden_layers=2, max_position_embeddings=LONGEST,
                rms_norm_eps=1e-6, attn_implementation="eager", initializer_range=0.25)


def model_of(kind, seed):
    torch.manual_seed(seed)
    rope = dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0))
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False,
                                            bos_token_id=1, eos_token_id=2, **rope, **common(700)))
    return Qwen2ForCausalLM(Qwen2Config(num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
                                        bos_token_id=None, eos_token_id=0, **rope, **common(424)))


CONFIG = {
    "llama": dict(model_type="llama", num_attention_heads=4, num_key_value_heads=2, vocab_size=700, tie_word_embeddings=False,
                  bos_token_id=1, eos_token_id=2, hidden_act="silu"),
    "qwen2": dict(model_type="qwen2", num_attention_heads=2, num_key_value_heads=1, vocab_size=424, tie_word_embeddings=True,
                  eos_token_id=0, hidden_act="silu", use_sliding_window=False),
}
TOKENIZER = {"llama": "llama2", "qwen2": "gpt2"}
BEGIN, END = {"llama": [1], "qwen2": []}, {"llama": 2, "qwen2": 0}


def write_folder(kind, model):
    folder = OUT / kind
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIG[kind] | dict(hidden_size=16, intermediate_size=22, num_hidden_layers=2, rms_norm_eps=1e-6,
                                 max_position_embeddings=LONGEST, rope_theta=10000.0, torch_dtype="float32")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tensors = {n: p.detach().bfloat16().contiguous() for n, p in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(TOKENIZERS / TOKENIZER[kind] / "tokenizer.json", folder)
    special = {"llama": dict(bos_token="<s>", eos_token="</s>"), "qwen2": dict(eos_token="<|endoftext|>")}[kind]
    (folder / "tokenizer_config.json").write_text(json.dumps(special, indent=1) + "\n")


def rounded(model):
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.add_(torch.randn_like(p) * 0.2)
            p.copy_(p.bfloat16().float())
    return model.double()


def sequences(kind, encode):
    for prompt, answer in PAIRS:
        yield BEGIN[kind] + encode(prompt), encode(answer) + [END[kind]]


def generate(kind, model, encode):
    model.eval()
    out = []
    for prompt, _ in PAIRS:
        ids = torch.tensor([BEGIN[kind] + encode(prompt)])
        made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW, pad_token_id=END[kind],
                              eos_token_id=END[kind])
        out.append(made[0, ids.shape[1]:].tolist())
    return out


def optimizer_step(model, optimizer):
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)


def train(kind, model, encode):
    losses, optimizer = [], adamw(model)
    for _ in range(STEPS):
        loss = 0
        for prompt, answer in sequences(kind, encode):
            ids = torch.tensor([prompt + answer])
            logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
            loss = loss + F.cross_entropy(logits, torch.tensor(answer)) / len(PAIRS)
        loss.backward()
        losses.append(float(loss))
        optimizer_step(model, optimizer)
    return losses


def perplexity(kind, model, encode):
    """Windows of LONGEST rows; each after the first begins half a window later and counts what is new."""
    nats, tokens = 0.0, 0
    for line in TEXT:
        ids, at, step = BEGIN[kind] + encode(line), 1, LONGEST // 2
        first = 0
        while at < len(ids):
            window = ids[first : first + LONGEST]
            logs = model(input_ids=torch.tensor([window])).logits[0].log_softmax(-1)
            for i in range(at, first + len(window)):
                nats -= float(logs[i - first - 1, ids[i]])
                tokens += 1
            at = first + len(window)
            first += step
    return nats, tokens


def noise(objective, step, count):
    """noise.c's draw in epoch `step` for the only sequence: masks of each copy, weights."""
    which = stream(stream(NOISE, step, 0, 0), 0, 0, 0)
    u = uniform(1, which, 2 * (1 + count))
    if objective == "llada":
        p = (1 - 1e-3) * u[0] + 1e-3
        return [(u[2::2][:count] < p, 1 / p)]
    t = [1 + int(u[0] * 50), 1 + int(u[1] * 50)]
    hi = int(t[1] > t[0])
    lo, coupled = 1 - hi, t[0] != t[1]
    at_hi = u[2 + hi :: 2][:count] < t[hi] / 50
    at_lo = (u[2 + lo :: 2][:count] < (t[lo] / t[hi] if coupled else t[lo] / 50)) & (at_hi | (not coupled))
    masks = {hi: at_hi, lo: at_lo}
    return [(masks[c], 50 - (t[c] - 1)) for c in range(2)]


def seen(mode, prompt, length):
    allowed = torch.ones(length, length, dtype=torch.bool)
    if mode == "block-causal":
        allowed[:prompt, prompt:] = False
    return torch.zeros(length, length, dtype=torch.float64).masked_fill(~allowed, -1e30)[None, None]


def diffusion(objective, mode):
    model = dream()
    state = {}
    for part in sorted(Path("tests/golden/llama/folders/dream").glob("*.safetensors")):
        state |= load_file(part)
    model.load_state_dict({n: t.float() for n, t in state.items()})
    model.double()
    encoder = Tokenizer.from_file(str(TOKENIZERS / "qwen2/tokenizer.json"))
    prompt, answer = (encoder.encode(text, add_special_tokens=False).ids for text in PAIRS[2])
    answer.append(420)  # <|endoftext|>
    losses, optimizer = [], adamw(model)
    for step in range(12):
        loss = torch.zeros((), dtype=torch.float64)
        copies = noise(objective, step, len(answer))
        for masked, weight in copies:
            ids = torch.tensor([prompt + [MASK if m else a for a, m in zip(answer, masked)]])
            logits = model(input_ids=ids, attention_mask=seen(mode, len(prompt), ids.shape[1])).logits[0, len(prompt) - 1 : -1]
            each = F.cross_entropy(logits, torch.tensor(answer), reduction="none")
            loss = loss + weight * (each * torch.tensor(np.array(masked))).sum() / (len(answer) * len(copies))
        losses.append(float(loss))
        loss.backward()
        optimizer_step(model, optimizer)
    return losses


def main():
    golden = {}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "pairs.jsonl").write_text("".join(json.dumps(dict(inputs=a, targets=b)) + "\n" for a, b in PAIRS))
    (OUT / "text.txt").write_text("\n".join(TEXT) + "\n")
    for kind in CONFIG:
        encoder = Tokenizer.from_file(str(TOKENIZERS / TOKENIZER[kind] / "tokenizer.json"))

        def encode(text):
            return encoder.encode(text, add_special_tokens=False).ids

        for seed in range(1000):  # a model some of whose answers end
            model = rounded(model_of(kind, seed))
            answers = generate(kind, model, encode)
            ended = sum(a[-1] == END[kind] and len(a) > 3 for a in answers)
            if 1 <= ended < len(PAIRS):
                break
        write_folder(kind, model)
        nats, tokens = perplexity(kind, model, encode)
        model.train()
        golden[kind] = dict(answers=answers, nats=nats, tokens=tokens, losses=train(kind, model, encode))
    golden["dream"] = {f"{o} {m}": diffusion(o, m) for o in ("rdm", "llada") for m in ("full", "block-causal")}
    (OUT / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
