"""Writes tests/golden/llama/folders: tiny model folders of LLaDA's, Dream's and LLaMA's kind.

usage: python3 tests/reference/make_llama_folders.py [FOLDER]    (after make_tokenizers.py)

Each has config.json, weights in bf16 (Dream's in two shards), a tokenizer of tests/golden/tokenizers,
and next to it KIND-golden.safetensors: a `prompt`, a `canvas` with masks, and `logits` [canvas, V] of the rows that
predict the canvas's positions, computed in f64: for Dream those one earlier.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from make_llama import Llada, logits_of
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

VOCAB, WIDTH, LAYERS, FFN = 431, 16, 2, 9
TOKENIZERS = Path("tests/golden/tokenizers")
MASK = 423  # of both tokenizers


def dream():
    return Qwen2ForCausalLM(Qwen2Config(
        vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6, max_position_embeddings=70,
        rope_parameters=dict(rope_type="default", rope_theta=1000000.0), tie_word_embeddings=False,
        attn_implementation="eager", initializer_range=0.3))


def llama():
    """Adapted to diffusion: its tokenizer has a mask."""
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=1, rms_norm_eps=1e-5, max_position_embeddings=64,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0), tie_word_embeddings=True,
        attn_implementation="eager", initializer_range=0.3))


CONFIGS = {
    "llada": dict(model_type="llada", d_model=WIDTH, n_heads=2, n_kv_heads=2, n_layers=LAYERS,
                  mlp_hidden_size=FFN, rope_theta=10000.0, rms_norm_eps=1e-5, embedding_size=VOCAB,
                  vocab_size=VOCAB, max_sequence_length=60, weight_tying=False, block_type="llama",
                  layer_norm_type="rms", activation_type="silu", rope=True, alibi=False,
                  include_bias=False, include_qkv_bias=False, mask_token_id=MASK, eos_token_id=421,
                  pad_token_id=421),
    "dream": dict(model_type="Dream", hidden_size=WIDTH, num_attention_heads=4, num_key_value_heads=2,
                  num_hidden_layers=LAYERS, intermediate_size=FFN, rope_theta=1000000.0,
                  rope_scaling=None, rms_norm_eps=1e-6, vocab_size=VOCAB, max_position_embeddings=70,
                  tie_word_embeddings=False, hidden_act="silu", use_sliding_window=False,
                  mask_token_id=MASK, eos_token_id=420, pad_token_id=420, bos_token_id=420),
    "llama": dict(model_type="llama", hidden_size=WIDTH, num_attention_heads=4, num_key_value_heads=1,
                  num_hidden_layers=LAYERS, intermediate_size=FFN, rope_theta=10000.0,
                  rope_scaling=None, rms_norm_eps=1e-5, vocab_size=VOCAB, max_position_embeddings=64,
                  tie_word_embeddings=True, hidden_act="silu", attention_bias=False, mlp_bias=False,
                  mask_token_id=MASK, eos_token_id=[421, 422], bos_token_id=420),
}


def write_weights(model, folder, shards):
    tensors = {n: p.detach().bfloat16().contiguous() for n, p in model.named_parameters()}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    files = [f"model-{i + 1:05}-of-00002.safetensors" for i in range(2)]
    for part, file in zip(parts, files):
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
    size = sum(t.numel() * 2 for t in tensors.values())
    index = dict(metadata=dict(total_size=size),
                 weight_map={n: f for part, f in zip(parts, files) for n in part})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def make(kind):
    """The model of a kind, with weights that are bf16's."""
    torch.manual_seed(sum(kind.encode()))
    model = Llada(VOCAB, WIDTH, 2, FFN, LAYERS) if kind == "llada" else dict(dream=dream, llama=llama)[kind]()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.add_(torch.randn_like(p) * 0.2)
            p.copy_(p.bfloat16().float())
    return model


def write(kind, folder):
    model = make(kind)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[kind], indent=1) + "\n")
    write_weights(model, folder, 2 if kind == "dream" else 1)
    if kind != "dream":
        shutil.copy(TOKENIZERS / "llama3/tokenizer.json", folder)
    else:
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
            shutil.copy(TOKENIZERS / "dream" / name, folder)
    model.double().eval()
    prompt, canvas = torch.randint(10, 400, (7,)), torch.randint(10, 400, (9,))
    canvas[[0, 1, 4, 6, 8]] = MASK
    before = torch.tensor([] if kind == "dream" else [420], dtype=torch.long)  # <|begin_of_text|>
    ids = torch.cat([before, prompt, canvas])
    first = len(before) + len(prompt) - (kind != "llada")
    logits = logits_of(model, ids, "full", [len(ids)])[first : first + len(canvas)]
    save_file(dict(prompt=prompt, canvas=canvas, logits=logits.detach().float().contiguous()),
              folder.parent / f"{kind}-golden.safetensors")


if __name__ == "__main__":
    for kind in CONFIGS:
        write(kind, Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/llama/folders") / kind)
