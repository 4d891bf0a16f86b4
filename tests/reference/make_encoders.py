"""Writes tests/golden/encoders: tiny RoBERTa, BERT and ModernBERT models, their logits and gradients.

usage: python3 tests/reference/make_encoders.py [FOLDER]    (transformers 5, torch, safetensors;
                                                            after make_tokenizers.py)

KIND.safetensors: weights rounded to bf16, packed sequences, logits with full and block-causal
attention, losses and gradients of some rows, computed in f64; README.md in this folder lists the
tensors, tests/language/test_encoders.c has the same configurations. KIND/ are model folders with the
tokenizer of that name of tests/golden/tokenizers, and KIND-golden.safetensors next to each a
`prompt`, a `canvas` with masks, and the canvas's `logits`.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

LENGTHS = [1, 7, 20, 3]  # of the packed sequences
ENDS = [[1], [2, 5, 7], [9, 20], [1, 3]]  # of their blocks
TOKENIZERS = Path("tests/golden/tokenizers")
SMALL = dict(hidden_size=12, intermediate_size=15, num_attention_heads=3)


def modern(**given):
    rope = dict(full_attention=dict(rope_type="default", rope_theta=500.0),
                sliding_attention=dict(rope_type="default", rope_theta=40.0))
    return ModernBertConfig(**(SMALL | dict(num_hidden_layers=4, max_position_embeddings=40, local_attention=6,
                                            global_attn_every_n_layers=3, rope_parameters=rope, pad_token_id=1,
                                            bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3) | given))


def model_of(kind):
    """kind, kind-untied, modernbert-biases; the last two have no second base and no biases in turn."""
    if kind.startswith("roberta"):
        config = RobertaConfig(**SMALL, num_hidden_layers=2, vocab_size=23, max_position_embeddings=42,
                               type_vocab_size=1, layer_norm_eps=1e-5, tie_word_embeddings="untied" not in kind)
        return RobertaForMaskedLM(config)
    if kind.startswith("bert"):
        config = BertConfig(**SMALL, num_hidden_layers=2, vocab_size=21, max_position_embeddings=30,
                            type_vocab_size=2, tie_word_embeddings="untied" not in kind)
        return BertForMaskedLM(config)
    if kind == "modernbert":
        return ModernBertForMaskedLM(modern(vocab_size=25))
    return ModernBertForMaskedLM(modern(
        vocab_size=19, hidden_size=16, num_attention_heads=2, num_hidden_layers=3, local_attention=9,
        global_attn_every_n_layers=2, norm_bias=True, attention_bias=True, mlp_bias=True, classifier_bias=True,
        decoder_bias=False, tie_word_embeddings=False))


def mask_of(mode, length, ends, window=None):
    rows = torch.arange(length)
    seen = torch.ones(length, length, dtype=torch.bool)
    if mode == "blocks":
        block = torch.bucketize(rows, torch.tensor(ends), right=True)
        seen = block[None] <= block[:, None]
    if window is not None:
        seen &= (rows[None] - rows[:, None]).abs() <= window
    return torch.zeros(length, length, dtype=torch.float64).masked_fill(~seen, -1e30)[None, None]


def logits_of(model, ids, mode, ends):
    masks = mask_of(mode, len(ids), ends)
    if isinstance(model, ModernBertForMaskedLM):
        local = mask_of(mode, len(ids), ends, model.config.sliding_window)
        masks = dict(full_attention=masks, sliding_attention=local)
        if mode == "full":  # the model's own
            masks = None
    return model(input_ids=ids[None], attention_mask=masks).logits[0]


def make(model, seed):
    """Large values, in bf16. An untied head's bias has two names, of which transformers uses the second."""
    head = getattr(model, "lm_head", None) or getattr(getattr(model, "cls", None), "predictions", None)
    if head is not None:
        head.bias = head.decoder.bias
    generator = torch.Generator().manual_seed(seed)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_((p + 0.2 * noise if p.ndim == 1 else 0.3 * noise).bfloat16().float())
    return model


def write(kind, path):
    torch.manual_seed(sum(kind.encode()))
    model = make(model_of(kind), sum(kind.encode()))
    model.double().eval()
    vocab, total = model.config.vocab_size, sum(LENGTHS)
    ids = torch.randint(4, vocab, (total,))
    begin = torch.tensor([0, *LENGTHS]).cumsum(0)
    tensors = {n: p.detach().bfloat16() for n, p in model.named_parameters()}
    tensors |= dict(ids=ids, begin=begin, blocks=torch.tensor(sum(ENDS, [])),
                    block_counts=torch.tensor([len(e) for e in ENDS]))
    for mode in ["full", "blocks"]:
        parts = [logits_of(model, ids[begin[i] : begin[i + 1]], mode, ENDS[i]) for i in range(len(LENGTHS))]
        logits = torch.cat(parts)
        tensors[f"logits.{mode}"] = logits.detach().float()
        rows = torch.randperm(total)[: total // 2].sort().values
        targets, weights = torch.randint(vocab, (len(rows),)), torch.rand(len(rows)).double() + 0.1
        losses = weights.float().double() * F.cross_entropy(logits[rows], targets, reduction="none")
        model.zero_grad()
        losses.sum().backward()
        own = dict(rows=rows, targets=targets, weights=weights.float(), losses=losses.detach().float())
        own |= {f"grad.{n}": p.grad.float() for n, p in model.named_parameters()}
        if mode == ("blocks" if "untied" in kind else "full"):
            tensors |= own | dict(trained=torch.tensor([mode == "blocks"]).long())
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)


# ---- Folders. ---- #

FOLDER_SIZES = dict(hidden_size=24, intermediate_size=25, num_attention_heads=3)  # some are quantized


def folder_model(kind, vocab, ids):
    if kind == "roberta":
        return RobertaForMaskedLM(RobertaConfig(**FOLDER_SIZES, num_hidden_layers=2, vocab_size=vocab, type_vocab_size=1,
                                                max_position_embeddings=66, layer_norm_eps=1e-5))
    if kind == "bert":
        return BertForMaskedLM(BertConfig(**FOLDER_SIZES, num_hidden_layers=2, vocab_size=vocab,
                                          max_position_embeddings=64))
    return ModernBertForMaskedLM(modern(**FOLDER_SIZES, vocab_size=vocab, max_position_embeddings=64, **ids))


def vocabulary(folder):
    if (folder / "vocab.json").exists():
        return json.loads((folder / "vocab.json").read_text())
    whole = json.loads((folder / "tokenizer.json").read_text())
    return whole["model"]["vocab"] | {t["content"]: t["id"] for t in whole["added_tokens"]}


def write_folder(kind, folder):
    torch.manual_seed(5)
    source = TOKENIZERS / kind
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.name != "ids.tsv":
            shutil.copy(file, folder)
    words = vocabulary(source)
    vocab = max(words.values()) + 2  # a row more than there are tokens
    names = ["<mask>", "<s>", "</s>", "<pad>"] if kind == "roberta" else ["[MASK]", "[CLS]", "[SEP]", "[PAD]"]
    mask, begin, end, pad = (words[t] for t in names)
    ids = dict(pad_token_id=pad, bos_token_id=begin, eos_token_id=end, cls_token_id=begin, sep_token_id=end)
    model = make(folder_model(kind, vocab, ids), 7)
    config = json.loads(model.config.to_json_string())
    config = {k: v for k, v in config.items() if k not in ("transformers_version", "dtype", "id2label", "label2id")}
    (folder / "config.json").write_text(json.dumps(config | dict(architectures=[type(model).__name__]), indent=1) + "\n")
    weights = {n: p.detach().bfloat16().contiguous() for n, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model.double().eval()
    prompt, canvas = torch.randint(10, vocab - 2, (7,)), torch.randint(10, vocab - 2, (9,))
    canvas[[0, 1, 4, 6, 8]] = mask
    ids = torch.cat([torch.tensor([begin]), prompt, canvas, torch.tensor([end])])
    logits = logits_of(model, ids, "full", [len(ids)])[1 + len(prompt) : -1]
    save_file(dict(prompt=prompt, canvas=canvas, logits=logits.detach().float().contiguous()),
              folder.parent / f"{kind}-golden.safetensors")


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/encoders")
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ["roberta", "roberta-untied", "bert", "bert-untied", "modernbert", "modernbert-untied"]:
        write(kind, folder / f"{kind}.safetensors")
    for kind in ["roberta", "bert", "modernbert"]:
        write_folder(kind, folder / kind)
