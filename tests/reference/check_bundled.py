#!/usr/bin/env python3
"""Checks that transformers opens the parts of a model folder and computes what the program computes.

    make && ENV/bin/python tests/reference/check_bundled.py [MODEL] [IMAGE QUESTION]

The image goes through transformers' CLIP tower and the projector (two matmuls, by hand), the sequence
<s> image | question | masks </s> through its XLM-R, with block-causal attention and the answer's
positions from easyfirst.json, all in f32. The first step's proposals and scores of each position are
compared with those in the trace of `easyfirst show --json --dtype f32`.
"""
import json
import os
import subprocess
import sys

import numpy as np
import sentencepiece
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, CLIPImageProcessor, CLIPVisionModel

FOLDER = "data/bundled/model"
FIRST_POSITION = 2
LIMIT = 1e-3  # of a log-probability


def opened(kind, folder):
    model, report = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True,
                                         attn_implementation="eager")
    left = {key: value for key, value in report.items() if value}
    print(f"{folder}: {left if left else 'nothing missing, nothing left over'}")
    return model.eval()


def image_tokens(folder, image_path, settings):
    tower = opened(CLIPVisionModel, f"{folder}/vision")
    processor = CLIPImageProcessor.from_pretrained(f"{folder}/vision")
    pixels = processor(Image.open(image_path).convert("RGB"), return_tensors="pt")["pixel_values"]
    states = tower(pixels, output_hidden_states=True).hidden_states
    features = states[settings["feature_layer"]][0, 1:]
    projector = load_file(f"{folder}/projector.safetensors")
    w = {key.rsplit("projector.", 1)[-1]: value.float() for key, value in projector.items()}
    hidden = torch.nn.functional.gelu(features @ w["0.weight"].T + w["0.bias"])
    return hidden @ w["2.weight"].T + w["2.bias"]


def first_step(folder, image_path, question, length, settings):
    model = opened(AutoModelForMaskedLM, f"{folder}/language")
    words = model.get_input_embeddings()
    pieces = sentencepiece.SentencePieceProcessor(f"{folder}/language/sentencepiece.bpe.model")
    prompt = [3 if i == 0 else i + 1 for i in pieces.encode(question)]
    mask = len(pieces) + 1
    ids = torch.tensor(prompt + [mask] * length + [2])
    image = image_tokens(folder, image_path, settings)
    rows = torch.cat([words(torch.tensor([0])), image, words(ids)])
    blocks = torch.tensor([0] * (1 + len(image)) + [1] * len(prompt) + [2] * (length + 1))
    positions = torch.arange(len(rows))
    if settings.get("answer_position"):
        positions[blocks == 2] = settings["answer_position"] + torch.arange(length + 1)
    hidden = torch.zeros(len(rows), len(rows))
    hidden[blocks[:, None] < blocks[None, :]] = torch.finfo(torch.float32).min
    logits = model(inputs_embeds=rows[None], position_ids=positions[None] + FIRST_POSITION,
                   attention_mask=hidden[None, None]).logits[0]
    scores = logits[-1 - length : -1].log_softmax(-1)
    scores[:, mask:] = -np.inf
    best = scores.max(-1)
    return best.indices.tolist(), best.values.tolist()


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else FOLDER
    if len(sys.argv) > 3:
        image_path, question = sys.argv[2:4]
    else:
        images = os.path.join(os.path.dirname(folder), "images")
        image_path = os.path.join(images, sorted(os.listdir(images))[0])
        question = "What is in the picture?"
    with open(f"{folder}/easyfirst.json", encoding="utf-8") as file:
        settings = json.load(file)
    program = os.environ.get("EASYFIRST", "build/easyfirst")
    trace = json.loads(subprocess.run(
        [program, "show", "-m", folder, "--json", "--dtype", "f32", "--length", "5", "-q", image_path,
         question], check=True, capture_output=True).stdout)
    cells = trace["trace"][0]["cells"]
    with torch.no_grad():
        ids, scores = first_step(folder, image_path, question, len(cells), settings)
    worst = max(abs(cell["proposal_score"] - score) for cell, score in zip(cells, scores))
    same = [cell["proposal"] for cell in cells] == ids
    good = same and worst <= LIMIT
    print(f"{'ok' if good else 'WRONG'}: {len(ids)} places, proposals "
          f"{'equal' if same else 'differ'}, scores within {worst:.1e}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
