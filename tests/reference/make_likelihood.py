"""Writes tests/golden/likelihood: LLaDA's bound on shared weights and masks, and its guidance.

usage: python3 tests/reference/make_likelihood.py [FOLDER]    (torch, transformers; after
       make_models.py and make_llama_folders.py)

likelihood.safetensors has for KIND llada, dream (shifted predictions) and xlmr: `KIND.prompt`,
`KIND.answer` (8 tokens), `KIND.masks` [n, 8] and `KIND.value`, the mean over these masks of the
masked tokens' cross-entropy over the whole vocabulary, divided by the share of masked tokens, and
`KIND.exact`, its expectation over all 255 masks with the number of masked tokens uniform; all in
f64. guidance.bin has 200 prompts decoded by LLaDA's sampler (decode_reference.py) on the weights of
the llada folder, with logits u + (W + 1) (c - u) in f32: u from the same canvas with the whole
prompt, its first token included, masked. A case is HEADER, [prompt] ids, [steps, N] tokens.
"""

import itertools
import random
import sys
from pathlib import Path

import decode_reference
import numpy as np
import torch
from make_decode import LLADA
from make_llama import Llada, logits_of
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM, XLMRobertaConfig, XLMRobertaForMaskedLM

FOLDERS = Path("tests/golden/llama/folders")
VOCAB, WIDTH, LAYERS, FFN, MASK, BEGIN, LENGTH = 431, 16, 2, 9, 423, 420, 8
HEADER = np.dtype([("strategy", "S64")] + [(n, "<i4") for n in ("prompt", "length", "iterations", "sample", "steps")]
                  + [("seed", "<u4"), ("temperature", "<f4"), ("guidance", "<f4")])


def weights(model, *files):
    tensors = {}
    for file in files:
        tensors |= {n: t.double() for n, t in load_file(file).items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and all("position_ids" in n or "decoder" in n for n in missing), (missing, unexpected)
    return model.double().eval()


def llada():
    model = weights(Llada(VOCAB, WIDTH, 2, FFN, LAYERS), FOLDERS / "llada/model.safetensors")
    return lambda prompt, canvas: full(model, [BEGIN, *prompt], canvas, 0)


def dream():
    model = Qwen2ForCausalLM(Qwen2Config(
        vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6, max_position_embeddings=70,
        rope_parameters=dict(rope_type="default", rope_theta=1000000.0), tie_word_embeddings=False,
        attn_implementation="eager"))
    model = weights(model, *sorted((FOLDERS / "dream").glob("*.safetensors")))
    return lambda prompt, canvas: full(model, prompt, canvas, 1)


def full(model, before, canvas, shift):
    ids = torch.tensor([*before, *canvas])
    with torch.no_grad():
        return logits_of(model, ids, "full", [len(ids)])[len(before) - shift :][: len(canvas)]


def xlmr():
    folder = Path("tests/golden/models/tiny-base/language")
    model = XLMRobertaForMaskedLM(XLMRobertaConfig.from_pretrained(folder, attn_implementation="eager"))
    model = weights(model, *folder.glob("*.safetensors"))
    model.tie_weights()

    def logits(prompt, canvas):
        with torch.no_grad():
            return model(torch.tensor([[0, *prompt, *canvas, 2]])).logits[0, 1 + len(prompt) : -1]

    return logits, SentencePieceProcessor(str(folder / "sentencepiece.bpe.model")).get_piece_size() + 1


def loss(logits, mask_id, prompt, answer, mask):
    """The sum over the masked tokens, divided by their share."""
    noisy = [mask_id if m else a for m, a in zip(mask, answer)]
    at = torch.tensor(mask)
    sum_ = F.cross_entropy(logits(prompt, noisy)[at], torch.tensor(answer)[at], reduction="sum")
    return sum_.item() / (sum(mask) / len(answer))


def exact(logits, mask_id, prompt, answer):
    by_count = [[] for _ in range(len(answer) + 1)]
    for mask in itertools.product([False, True], repeat=len(answer)):
        if any(mask):
            by_count[sum(mask)].append(loss(logits, mask_id, prompt, answer, mask))
    return sum(sum(v) / len(v) for v in by_count[1:]) / len(answer)


def likelihoods(kinds):
    draw, tensors = random.Random(5), {}
    for kind, (logits, mask_id, low, high) in kinds.items():
        prompt = [draw.randrange(low, high) for _ in range(5)]
        answer = [draw.randrange(low, high) for _ in range(LENGTH)]
        masks = []
        for count in (1, 3, 4, 6, 8, 2, 5, 7, 1):
            chosen = draw.sample(range(LENGTH), count)
            masks.append([i in chosen for i in range(LENGTH)])
        value = sum(loss(logits, mask_id, prompt, answer, m) for m in masks) / len(masks)
        tensors |= {f"{kind}.prompt": torch.tensor(prompt), f"{kind}.answer": torch.tensor(answer),
                    f"{kind}.masks": torch.tensor(masks).long(), f"{kind}.value": torch.tensor([value]).float(),
                    f"{kind}.exact": torch.tensor([exact(logits, mask_id, prompt, answer)]).float()}
        print(kind, value, tensors[f"{kind}.exact"].item())
    return tensors


class Guided:
    """Logits for decode_reference, which asks for them by canvas."""

    def __init__(self, model, prompt, guidance):
        self.model, self.before, self.guidance = model, [BEGIN, *prompt], np.float32(guidance)

    def __call__(self, case, canvas):
        canvas = [int(token) for token in canvas]
        given, none = (full(self.model, b, canvas, 0).float().numpy() for b in (self.before, [MASK] * len(self.before)))
        logits = none + (self.guidance + np.float32(1)) * (given - none)
        allowed = logits.copy()
        allowed[:, MASK] = -np.inf
        if "-noend" in case.strategy:
            allowed[:, decode_reference.end_tokens(case)[0]] = -np.inf
        best = np.sort(allowed, axis=1)[:, -2:]
        if (best[:, 1] - best[:, 0] < 1e-3).any():
            raise decode_reference.NearTie
        return logits


def guidance_case(model, strategy, draw):
    while True:
        prompt = [draw.randrange(10, 400) for _ in range(draw.randint(0, 9))]
        guidance = draw.choice([0.25, 0.5, 1, 2, 4])
        case = decode_reference.Case(
            strategy=strategy, kind="random", vocabulary=VOCAB, mask=MASK, length=draw.randint(1, 10),
            iterations=draw.randint(1, 10), request=0, sample=draw.randrange(3), seed=draw.randrange(2**31),
            temperature=draw.choice([0, 0, 0.5, 1]))
        decode_reference.model_logits = Guided(model, prompt, guidance)
        try:
            (tokens, *_), _, _ = decode_reference.decode(case)
        except decode_reference.NearTie:
            continue
        header = np.zeros((), HEADER)
        header["strategy"], header["prompt"], header["steps"] = strategy, len(prompt), len(tokens)
        for name in ("length", "iterations", "sample", "seed", "temperature"):
            header[name] = getattr(case, name)
        header["guidance"] = guidance
        return header.tobytes() + np.array(prompt, "<i4").tobytes() + np.array(tokens, "<i4").tobytes()


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/likelihood")
    folder.mkdir(parents=True, exist_ok=True)
    encoder, encoder_mask = xlmr()
    kinds = dict(llada=(llada(), MASK, 10, 400), dream=(dream(), MASK, 10, 400), xlmr=(encoder, encoder_mask, 5, 150))
    save_file(likelihoods(kinds), folder / "likelihood.safetensors")
    model = weights(Llada(VOCAB, WIDTH, 2, FFN, LAYERS), FOLDERS / "llada/model.safetensors")
    draw = random.Random(6)
    cases = [guidance_case(model, LLADA[i % len(LLADA)], draw) for i in range(200)]
    (folder / "guidance.bin").write_bytes(b"".join(cases))
    print(f"{len(cases)} prompts, {sum(map(len, cases))} bytes")


if __name__ == "__main__":
    main()
