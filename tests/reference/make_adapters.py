"""Writes tests/golden/adapters: adapters that the `peft` package saved, and what models compute with them.

usage: python3 tests/reference/make_adapters.py [FOLDER]            (peft 0.21, transformers 5)
       python3 tests/reference/make_adapters.py --check PROGRAM     trains adapters with `easyfirst train`
                                                                    and opens them with peft

FOLDER/KIND is the adapter's folder, as save_pretrained writes it, of a tiny model that is in tests/golden
already; FOLDER/KIND-golden.safetensors has a `prompt`, a `canvas` with masks, and `logits` of the rows that
predict the canvas's positions, or `pixels` and `features` of the vision tower, computed in f64 with the
adapter (not merged) from the weights as they are in the files.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import make_llama
import make_llama_folders
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, CLIPVisionModel

BASE = Path("tests/golden/models/tiny-base")
FOLDERS = Path("tests/golden/llama/folders")
ENCODERS = Path("tests/golden/encoders")

ADAPTERS = {
    "xlmr": LoraConfig(r=3, lora_alpha=8, target_modules=["query", "value"]),
    "modernbert": LoraConfig(r=2, lora_alpha=5, target_modules="all-linear", lora_dropout=0.1),
    "llama": LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "k_proj", "down_proj", "up_proj"],
                        rank_pattern={"q_proj": 2, "layers.1.mlp.up_proj": 1},
                        alpha_pattern={"k_proj": 9.5, "^model.layers.0.mlp.up_proj": 3}),
    "llada": LoraConfig(r=2, lora_alpha=7, target_modules=["q_proj", "attn_out", "ff_proj", "up_proj"]),
    "dream": LoraConfig(r=2, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                                                            "up_proj", "down_proj"]),
    "clip": LoraConfig(r=3, lora_alpha=4, target_modules=["v_proj", "fc2", "patch_embedding"]),
}


def base_of(kind):
    """The model, and the ids before, after and of masks."""
    if kind == "xlmr":
        return AutoModelForMaskedLM.from_pretrained(BASE / "language", attn_implementation="eager"), [0], [2], 321
    if kind == "modernbert":
        model = AutoModelForMaskedLM.from_pretrained(ENCODERS / kind, attn_implementation="eager")
        config = json.loads((ENCODERS / kind / "config.json").read_text())
        golden = load_file(ENCODERS / f"{kind}-golden.safetensors")
        mask = int(golden["canvas"].mode().values)
        return model, [config["cls_token_id"]], [config["sep_token_id"]], mask
    return make_llama_folders.make(kind), [] if kind == "dream" else [420], [], make_llama_folders.MASK


def logits_of(kind, model, ids):
    if kind == "llada":
        return model(ids, make_llama.mask_of("full", len(ids), [len(ids)]))
    if kind in ("xlmr", "modernbert"):
        return model(input_ids=ids[None]).logits[0]
    mask = make_llama.mask_of("full", len(ids), [len(ids)])
    return model(input_ids=ids[None], attention_mask=mask[None, None]).logits[0]


def randomized(model, kind):
    """B is zero at first, which would test nothing."""
    generator = torch.Generator().manual_seed(sum(kind.encode()))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return model


def write_text(kind, folder):
    torch.manual_seed(sum(kind.encode()))
    base, before, after, mask = base_of(kind)
    base.float()
    model = randomized(get_peft_model(base, ADAPTERS[kind]), kind)
    model.save_pretrained(folder / kind)
    model.double().eval()
    top = 300 if kind == "xlmr" else 400
    prompt, canvas = torch.randint(10, top, (7,)), torch.randint(10, top, (9,))
    canvas[[0, 1, 4, 6, 8]] = mask
    ids = torch.cat([torch.tensor(before, dtype=torch.long), prompt, canvas, torch.tensor(after, dtype=torch.long)])
    first = len(before) + len(prompt) - (kind in ("llama", "dream"))
    logits = logits_of(kind, model.base_model.model, ids)[first : first + len(canvas)]
    without = logits_of(kind, base_of(kind)[0].double().eval(), ids)[first : first + len(canvas)]
    assert (logits - without).abs().max() > 0.05, "the adapter changes nothing"
    save_file(dict(prompt=prompt, canvas=canvas, logits=logits.detach().float().contiguous()),
              folder / f"{kind}-golden.safetensors")


def write_clip(folder):
    torch.manual_seed(7)
    base = CLIPVisionModel.from_pretrained(BASE / "vision", attn_implementation="eager").float()
    model = randomized(get_peft_model(base, ADAPTERS["clip"]), "clip")
    model.save_pretrained(folder / "clip")
    model.double().eval()
    pixels = load_file(BASE / "stages.safetensors")["pixels"]
    hidden = model.base_model.model(pixels.double(), output_hidden_states=True).hidden_states
    save_file(dict(pixels=pixels, features=hidden[-2][:, 1:].detach().float().contiguous()),
              folder / "clip-golden.safetensors")


def tidy(folder):
    """Without this machine's paths."""
    for path in folder.glob("*/adapter_config.json"):
        config = json.loads(path.read_text())
        config["base_model_name_or_path"] = None
        if isinstance(config["target_modules"], list):
            config["target_modules"].sort()
        path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        (path.parent / "README.md").unlink(missing_ok=True)


def check_kind(program, kind, model, run):
    """The adapter of a run, opened by peft, equals the run's merged model, opened by transformers."""
    data = run / f"{kind}.jsonl"
    data.write_text('{"inputs": "red", "targets": "an apple"}\n{"inputs": "blue", "targets": "the sky"}\n')
    subprocess.run([program, "train", "adapt", "-m", model, "--data", data, "--out", run / kind, "--steps", "6",
                    "--lr", "0.05", "--lora-rank", "3", "--lora-alpha", "7", "--lora-targets", "all", "--batch-tokens",
                    "60", "-q", "--save-dtype", "f32"], check=True)
    trained = run / kind / "model"
    base, _, _, mask = base_of(kind)
    merged, *_ = base_of(kind)
    weights = load_file(trained / "language/model.safetensors")
    missing = merged.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys, missing
    model = PeftModel.from_pretrained(base.double(), trained / "adapter").double().eval()
    ids = torch.tensor([0, 20, 30, mask, 40, mask, 50, 2])
    with torch.no_grad():
        with_adapter = logits_of(kind, model.base_model.model, ids)
        with_merged = logits_of(kind, merged.double().eval(), ids)
        without = logits_of(kind, base_of(kind)[0].double().eval(), ids)
    differ, moved = (with_adapter - with_merged).abs().max().item(), (with_adapter - without).abs().max().item()
    print(f"{kind}: peft with the adapter and the merged model differ by {differ:.2g}; training moved logits by {moved:.2g}")
    assert differ < 1e-5 * max(1, with_merged.abs().max().item()) < moved


def check(program):
    with tempfile.TemporaryDirectory() as run:
        check_kind(program, "xlmr", BASE, Path(run))
        check_kind(program, "llama", FOLDERS / "llama", Path(run))
        check_kind(program, "llada", FOLDERS / "llada", Path(run))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        check(sys.argv[2])
    else:
        target = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/adapters")
        target.mkdir(parents=True, exist_ok=True)
        for name in ADAPTERS:
            write_clip(target) if name == "clip" else write_text(name, target)
        tidy(target)
