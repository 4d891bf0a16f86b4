"""Writes tests/golden/inspect: attention weights and likeliest words of the tiny models, by transformers.

usage: python3 tests/reference/make_inspect.py [FOLDER]     (tests/reference/requirements.txt)

Needs the files of make_models.py. tiny-base.safetensors and tiny-xl.safetensors hold, for each case K of
their decode.json that has a picture (N positions, L layers, P rows of the picture, C different canvases):

  K.written            [N]           the step, from 1, in which the final word of a position was written
  K.step_canvas        [steps]       which canvas a step starts from; -1 once it is complete and no masks are due
  K.canvases           [C, N]        ids
  K.PATTERN.layers     [N, L, P]     weights of a position's row to the picture's rows, mean over the heads,
                                     in the canvas that its final word was written from
  K.PATTERN.tokens     [C, N, 4]     the likeliest ids, <mask> and ids without a piece left out
  K.PATTERN.scores     [C, N, 4]     and their log-probabilities

PATTERN is full or blocks: both are computed on the same canvases, those of the model's own pattern.
"""

import json
import math
import sys
from pathlib import Path

import sentencepiece
import torch
from make_models import Model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM
from transformers.utils import logging

RUNNERS = 4


def open_model(folder):
    lm = AutoModelForMaskedLM.from_pretrained(
        folder / "language", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokenizer = sentencepiece.SentencePieceProcessor(
        model_file=str(folder / "language" / "sentencepiece.bpe.model")
    )
    return Model(None, None, lm, None, json.loads((folder / "easyfirst.json").read_text()), tokenizer)


def evaluate(model, prompt, answer, image, pattern):
    """Weights [L, N, T], mean over heads, and logits [N, V] of the answer's rows."""
    ids, ends = model.sequence(prompt, answer, image)
    ids = torch.tensor(ids)
    rows = model.lm.roberta.embeddings.word_embeddings(ids.clamp(min=0)).clone()
    rows[ids < 0] = image
    block = torch.bucketize(torch.arange(len(ids)), torch.tensor(ends), right=True)
    allowed = block[:, None] >= block[None, :] if pattern == "blocks" else torch.ones(len(ids), len(ids)) > 0
    out = model.lm(
        inputs_embeds=rows[None],
        attention_mask=torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[None, None],
        position_ids=torch.arange(2, 2 + len(ids))[None],
        output_attentions=True,
    )
    weights = torch.stack([w[0].double().mean(dim=0) for w in out.attentions])
    assert torch.allclose(weights.sum(dim=-1), torch.ones(1).double(), atol=1e-5)
    own = slice(ends[1], ends[1] + len(answer))
    return weights[:, own], out.logits[0, own]


def masks(strategy, length, step, steps):
    if strategy.endswith("linear"):
        return length * (steps - step) // steps
    return math.floor(length * math.cos(math.pi / 2 * step / steps)) if step < steps else 0


def look(model, strategy, prompt, image, tokens):
    steps, length = tokens.shape
    blank = torch.full((1, length), model.mask)
    before = torch.cat([blank, tokens[:-1]])
    written = torch.tensor([1 + max(torch.nonzero(before[:, i] != tokens[:, i])[:, 0]) for i in range(length)])
    canvases, step_canvas = [], []
    for step in range(steps):
        canvas = before[step].tolist()
        if model.mask not in canvas and masks(strategy, length, step + 1, steps) == 0:
            step_canvas.append(-1)
            continue
        if canvas not in canvases:
            canvases.append(canvas)
        step_canvas.append(canvases.index(canvas))
    out = {"written": written, "step_canvas": torch.tensor(step_canvas), "canvases": torch.tensor(canvases)}
    for pattern in ("full", "blocks"):
        runs = [evaluate(model, prompt, canvas, image, pattern) for canvas in canvases]
        picture = slice(1, 1 + len(image))
        at = [runs[step_canvas[step - 1]][0] for step in written]
        out[f"{pattern}.layers"] = torch.stack([w[:, i, picture] for i, w in enumerate(at)]).float()
        logits = torch.stack([logits for _, logits in runs])[:, :, : model.mask]
        best = torch.log_softmax(logits, dim=-1).topk(RUNNERS, dim=-1)
        out[f"{pattern}.tokens"], out[f"{pattern}.scores"] = best.indices, best.values
    return out


def main():
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/inspect")
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    target.mkdir(parents=True, exist_ok=True)
    for name in ("tiny-base", "tiny-xl"):
        folder = Path("tests/golden/models") / name
        model, stages = open_model(folder), load_file(folder / "stages.safetensors")
        tensors = {}
        for k, case in enumerate(json.loads((folder / "decode.json").read_text())):
            if case["image"] < 0:
                continue
            image = stages["projector.tokens"][case["image"]]
            prompt, tokens = stages[f"decode.{k}.prompt"].tolist(), stages[f"decode.{k}.tokens"]
            got = look(model, case["strategy"], prompt, image, tokens)
            tensors |= {f"{k}.{key}": value.contiguous() for key, value in got.items()}
        save_file(tensors, target / f"{name}.safetensors", metadata={"format": "pt"})
        print(f"{name}: {len(tensors)} tensors")


if __name__ == "__main__":
    main()
