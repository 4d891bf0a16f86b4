"""Writes tests/golden/llama/images: CLIP towers and projectors for the folders of make_llama_folders.py.

usage: python3 tests/reference/make_llama_images.py [FOLDER]    (after make_llama_folders.py)

vision-224 and vision-336 are tiny CLIP vision towers of patches of 14 (transformers' CLIPVisionModel);
projector-KIND.safetensors have two layers. KIND-golden.safetensors, computed in f64 by torch, with LLaDA of
make_llama.py and transformers' Llama and Qwen2:

`lead`    the ids before the image in the kind's chat template, without the one that begins a sequence
`prompt`  those after it: a line break, the question, the end of the template
`canvas`  with masks
`image`   [8] of the image tokens' first row
`full`    [canvas, V] logits of the rows that predict the canvas
`blocks`  the same with block-causal attention: lead and image, prompt, canvas
`loss`    mean cross-entropy of the canvas's masks, whose targets are 11, 25 and 39, full attention
`dimage`  [8, 16] its gradient, of the image tokens' first and last four rows
`norm`    ... and the norm of all of it
`map`     [canvas, image rows] attention of these rows, mean over layers and heads; Dream with full
          attention, LLaMA with block-causal

The image is a square of size SIDE with pixel (x, y, c) = (x * (c + 3) + y * (5 - c) + x * y / 64) mod 256.
"""

import json
import sys
from pathlib import Path

import torch
from make_llama import Llada, mask_of
from make_llama_folders import MASK, WIDTH, make
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

FOLDERS = Path("tests/golden/llama/folders")
TOWER = 8  # width
QUESTION = "Who are you?"
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
TEMPLATES = {  # what is before the image, and after it
    "llada": ("<|begin_of_text|>" + HEADER.format("user"), "\n{}<|eot_id|>" + HEADER.format("assistant")),
    "llama": ("<|begin_of_text|>" + HEADER.format("user"), "\n{}<|eot_id|>" + HEADER.format("assistant")),
    "dream": ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
              "\n{}<|im_end|>\n<|im_start|>assistant\n"),
}
SIDES = {"llada": 224, "dream": 336, "llama": 336}


def pixels(side):
    y, x, c = torch.meshgrid(torch.arange(side), torch.arange(side), torch.arange(3), indexing="ij")
    image = ((x * (c + 3) + y * (5 - c) + x * y // 64) % 256).double() / 255
    return ((image - torch.tensor(MEAN).double()) / torch.tensor(STD).double()).permute(2, 0, 1)


def round_weights(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_((torch.randn_like(p) * 0.3 + (0 if p.ndim > 1 else 0.5)).bfloat16().float())
    return model


def tower(side, folder):
    config = CLIPVisionConfig(image_size=side, patch_size=14, hidden_size=TOWER, num_attention_heads=2,
                              num_hidden_layers=2, intermediate_size=12, projection_dim=TOWER)
    model = round_weights(CLIPVisionModel(config), side)
    path = folder / f"vision-{side}"
    path.mkdir(parents=True, exist_ok=True)
    keep = {n: p.detach().bfloat16().contiguous() for n, p in model.state_dict().items() if "position_ids" not in n}
    if not any(n.startswith("vision_model.") for n in keep):
        keep = {"vision_model." + n: p for n, p in keep.items()}
    save_file(keep, path / "model.safetensors", metadata={"format": "pt"})
    names = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "image_size",
             "patch_size", "num_channels", "hidden_act", "layer_norm_eps")
    config = dict(model_type="clip_vision_model", **{n: getattr(config, n) for n in names})
    (path / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return model.double().eval()


def tokens_of(kind):
    """Dream's vocab.json and merges.txt are those of the tokenizer.json of tests/golden/tokenizers/qwen2."""
    folder = Path("tests/golden/tokenizers/qwen2") if kind == "dream" else FOLDERS / kind
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def logits(model, ids, images, place, mask):
    """Of a sequence whose rows from `place` on are an image's."""
    words = model.model["transformer"]["wte"] if isinstance(model, Llada) else model.get_input_embeddings()
    x = words(ids)
    x = torch.cat([x[:place], images, x[place:]])
    if not isinstance(model, Llada):
        got = model(inputs_embeds=x[None], attention_mask=mask[None, None], output_attentions=True)
        attention = torch.stack(got.attentions).mean((0, 1, 2))[:, place : place + len(images)]
        return got.logits[0], attention
    parts = model.model["transformer"]
    for block in parts["blocks"]:
        x = block(x, mask)
    return parts["ff_out"](parts["ln_f"](x)), None


def write(kind, vision, folder):
    side = SIDES[kind]
    model = make(kind).double().eval()
    projector = round_weights(nn.Sequential(nn.Linear(TOWER, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH)),
                              sum(kind.encode()))
    save_file({f"model.mm_projector.{n}": p.detach().bfloat16().contiguous() for n, p in projector.named_parameters()},
              folder / f"projector-{kind}.safetensors", metadata={"format": "pt"})
    with torch.no_grad():
        states = vision(pixel_values=pixels(side)[None], output_hidden_states=True).hidden_states
        images = projector.double()(states[-2][0, 1:])
    encode = tokens_of(kind)
    lead, prompt = (torch.tensor(encode(t.format(QUESTION))) for t in TEMPLATES[kind])
    torch.manual_seed(5)
    canvas = torch.randint(10, 400, (5,))
    canvas[[0, 2, 4]] = MASK
    ids = torch.cat([lead, prompt, canvas])
    ends = [len(lead) + len(images), len(lead) + len(images) + len(prompt), len(ids) + len(images)]
    first = ends[1] - (kind != "llada")
    out = dict(lead=lead[(kind != "dream"):], prompt=prompt, canvas=canvas, image=images[0].float())
    for name, mode in (("full", "full"), ("blocks", "blocks")):
        with torch.no_grad():
            all, attention = logits(model, ids, images, len(lead), mask_of(mode, ends[-1], ends))
        out[name] = all[first : first + len(canvas)].float().contiguous()
        if (kind, mode) in (("dream", "full"), ("llama", "blocks")):
            out["map"] = attention[first : first + len(canvas)].float().contiguous()
    images.requires_grad_(True)
    got, _ = logits(model, ids, images, len(lead), mask_of("full", ends[-1], ends))
    loss = F.cross_entropy(got[first : first + len(canvas)][[0, 2, 4]], torch.tensor([11, 25, 39]))
    loss.backward()
    out |= dict(loss=loss.detach().float()[None], norm=images.grad.norm().float()[None],
                dimage=torch.cat([images.grad[:4], images.grad[-4:]]).float().contiguous())
    save_file(out, folder / f"{kind}-golden.safetensors")


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/llama/images")
    folder.mkdir(parents=True, exist_ok=True)
    towers = {side: tower(side, folder) for side in sorted(set(SIDES.values()))}
    for kind in TEMPLATES:
        write(kind, towers[SIDES[kind]], folder)
