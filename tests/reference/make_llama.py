"""Writes tests/golden/llama: tiny models of LLaMA's kind, their logits, losses and gradients.

usage: python3 tests/reference/make_llama.py [FOLDER]    (transformers 5, torch, safetensors)

Llama, Llama with biases and Qwen2 are transformers'; LLaDA is written below from its public
description, in torch. Weights are rounded to bf16; everything else is computed in f64. README.md in
this folder lists the tensors; tests/language/test_llama.c has the same configurations.
"""

import math
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

LENGTHS = [1, 7, 20, 3]  # of the packed sequences
ENDS = [[1], [2, 5, 7], [9, 20], [1, 3]]  # of their blocks
MODES = ["full", "blocks", "causal"]


def transformers_model(kind):
    """Of LLaMA's kind with grouped keys, wide heads and LLaMA 3's scaling; with biases; Qwen2."""
    common = dict(max_position_embeddings=64, attn_implementation="eager", initializer_range=0.3)
    if kind == "llama":
        rope = dict(rope_type="llama3", rope_theta=500.0, factor=4.0, low_freq_factor=1.0,
                    high_freq_factor=4.0, original_max_position_embeddings=16)
        config = LlamaConfig(vocab_size=23, hidden_size=18, intermediate_size=13, num_hidden_layers=2,
                             num_attention_heads=6, num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-5,
                             rope_parameters=rope, tie_word_embeddings=False, **common)
        return LlamaForCausalLM(config)
    if kind == "biases":
        config = LlamaConfig(vocab_size=17, hidden_size=12, intermediate_size=11, num_hidden_layers=1,
                             num_attention_heads=3, num_key_value_heads=3, rms_norm_eps=1e-6,
                             rope_parameters=dict(rope_type="default", rope_theta=10000.0),
                             attention_bias=True, mlp_bias=True, tie_word_embeddings=True, **common)
        return LlamaForCausalLM(config)
    config = Qwen2Config(vocab_size=19, hidden_size=12, intermediate_size=15, num_hidden_layers=2,
                         num_attention_heads=3, num_key_value_heads=1, rms_norm_eps=1e-6,
                         rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
                         tie_word_embeddings=True, **common)
    return Qwen2ForCausalLM(config)


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class LladaBlock(nn.Module):
    def __init__(self, width, heads, ffn):
        super().__init__()
        self.heads = heads
        self.attn_norm, self.ff_norm = RmsNorm(width), RmsNorm(width)
        for name in ("q_proj", "k_proj", "v_proj", "attn_out"):
            setattr(self, name, nn.Linear(width, width, bias=False))
        self.ff_proj = nn.Linear(width, ffn, bias=False)
        self.up_proj = nn.Linear(width, ffn, bias=False)
        self.ff_out = nn.Linear(ffn, width, bias=False)

    def turn(self, x):
        """Pairs (i, i + half) of each head as complex numbers, turned by their position's angle."""
        length, half = x.shape[1], x.shape[2] // 2
        angles = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(half) / half)
        turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([turned.real, turned.imag], -1).to(x.dtype)

    def forward(self, x, mask):
        h = self.attn_norm(x)
        q, k, v = (f(h).view(len(x), self.heads, -1).transpose(0, 1) for f in (self.q_proj, self.k_proj, self.v_proj))
        q, k = self.turn(q), self.turn(k)
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]) + mask
        x = x + self.attn_out((scores.softmax(-1) @ v).transpose(0, 1).reshape(x.shape))
        h = self.ff_norm(x)
        return x + self.ff_out(F.silu(self.ff_proj(h)) * self.up_proj(h))


class Llada(nn.Module):
    def __init__(self, vocab=21, width=16, heads=2, ffn=9, layers=2):
        super().__init__()
        parts = nn.ModuleDict(dict(wte=nn.Embedding(vocab, width), ln_f=RmsNorm(width),
                                   ff_out=nn.Linear(width, vocab, bias=False)))
        parts["blocks"] = nn.ModuleList([LladaBlock(width, heads, ffn) for _ in range(layers)])
        self.model = nn.ModuleDict(dict(transformer=parts))
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.3)

    def forward(self, ids, mask):
        parts = self.model["transformer"]
        x = parts["wte"](ids)
        for block in parts["blocks"]:
            x = block(x, mask)
        return parts["ff_out"](parts["ln_f"](x))


def mask_of(mode, length, ends):
    rows = torch.arange(length)
    if mode == "full":
        seen = torch.ones(length, length, dtype=torch.bool)
    elif mode == "causal":
        seen = rows[None] <= rows[:, None]
    else:
        block = torch.bucketize(rows, torch.tensor(ends), right=True)
        seen = block[None] <= block[:, None]
    return torch.zeros(length, length, dtype=torch.float64).masked_fill(~seen, -1e30)


def logits_of(model, ids, mode, ends):
    mask = mask_of(mode, len(ids), ends)
    if isinstance(model, Llada):
        return model(ids, mask)
    given = {} if mode == "causal" else dict(attention_mask=mask[None, None])  # causal: the model's own
    return model(input_ids=ids[None], **given).logits[0]


def write(kind, mode, path):
    torch.manual_seed(sum(kind.encode()))
    model = Llada() if kind == "llada" else transformers_model(kind)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.add_(torch.randn_like(p) * 0.2)
            p.copy_(p.bfloat16().float())
    model.double().train()
    vocab = next(p for n, p in model.named_parameters() if "embed" in n or "wte" in n).shape[0]
    total = sum(LENGTHS)
    ids = torch.randint(vocab, (total,))
    begin = torch.tensor([0, *LENGTHS]).cumsum(0)
    tensors = {n: p.detach().bfloat16() for n, p in model.named_parameters()}
    tensors |= dict(ids=ids, begin=begin, blocks=torch.tensor(sum(ENDS, [])),
                    block_counts=torch.tensor([len(e) for e in ENDS]))
    for each in MODES:
        parts = [logits_of(model, ids[begin[i] : begin[i + 1]], each, ENDS[i]) for i in range(len(LENGTHS))]
        logits = torch.cat(parts)
        tensors[f"logits.{each}"] = logits.detach().float()
        if each != mode:
            continue
        rows = torch.randperm(total)[: total // 2].sort().values
        targets, weights = torch.randint(vocab, (len(rows),)), torch.rand(len(rows)).double() + 0.1
        losses = weights.float().double() * F.cross_entropy(logits[rows], targets, reduction="none")
        losses.sum().backward()
        tensors |= dict(rows=rows, targets=targets, weights=weights.float(), losses=losses.detach().float())
        tensors |= {f"grad.{n}": p.grad.float() for n, p in model.named_parameters()}
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/llama")
    folder.mkdir(parents=True, exist_ok=True)
    for kind, mode in [("llama", "causal"), ("biases", "blocks"), ("qwen2", "causal"), ("llada", "full")]:
        write(kind, mode, folder / f"{kind}.safetensors")
