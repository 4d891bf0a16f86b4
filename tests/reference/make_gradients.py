"""Writes tests/golden/gradients: losses and gradients of the tiny models by torch's autograd, in f64.

usage: python3 tests/reference/make_gradients.py [FOLDER]    (tests/reference/requirements.txt)

Reads tests/golden/models (make_models.py comes first) and writes tiny-base.safetensors and
tiny-xl.safetensors. README.md in this folder lists the tensors.
"""

import math
import sys
from pathlib import Path

import torch
from make_models import BOS, EOS, PROMPTS, QUESTIONS, LengthPredictor
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor
from torch import nn
from torch.nn.utils import parametrize
from transformers import AutoModelForMaskedLM, CLIPVisionConfig, CLIPVisionModel
from transformers.utils import logging

MODELS = Path("tests/golden/models")
STEPS, WARMUP, RATE = 10, 3, 2e-3
RATES = {"vision": 0.2, "projector": 1.0, "language": 0.5}
RANK, ALPHA = 3, 6.0
TARGETS = [  # the matrices of a block that LoRA adds to
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
]
KEPT = [  # parameters whose values after the last step are written; those that exist
    "vision_model.embeddings.patch_embedding.weight",
    "vision_model.encoder.layers.0.mlp.fc2.bias",
    "model.mm_projector.weight",
    "model.mm_projector.0.weight",
    "model.mm_projector.2.bias",
    "roberta.embeddings.word_embeddings.weight",
    "roberta.encoder.layer.1.attention.self.value.weight",
    "roberta.encoder.layer.0.output.LayerNorm.weight",
    "roberta.encoder.layer.0.LayerNorm.weight",
    "lm_head.bias",
]


class Tiny:
    """A tiny model folder in f64."""

    def __init__(self, folder):
        vision_config = CLIPVisionConfig.from_pretrained(folder / "vision")
        self.vision = CLIPVisionModel(vision_config)
        state = load_file(folder / "vision" / "model.safetensors")
        self.vision.load_state_dict({name.removeprefix("vision_model."): v for name, v in state.items()})
        self.lm = AutoModelForMaskedLM.from_pretrained(folder / "language", dtype=torch.float32)
        state = load_file(folder / "projector.safetensors")
        state = {name.removeprefix("model.mm_projector."): v for name, v in state.items()}
        last, first = state.get("2.weight"), state.get("weight", state.get("0.weight"))
        width, sight = first.shape
        self.projector = nn.Linear(sight, width)
        if last is not None:
            self.projector = nn.Sequential(nn.Linear(sight, width), nn.GELU(), nn.Linear(width, width))
        self.projector.load_state_dict(state)
        state = load_file(folder / "length.safetensors")
        config = self.lm.config
        self.classes = len(state["length_predictor.2.bias"])
        self.length = LengthPredictor(width, config.num_attention_heads, config.intermediate_size, self.classes)
        self.length.load_state_dict(state)
        for module in (self.vision, self.lm):
            module.set_attn_implementation("eager")
        for module in (self.vision, self.projector, self.lm, self.length):
            module.double().eval()
        self.pixels = load_file(folder / "stages.safetensors")["pixels"].double()
        self.picture_rows = (vision_config.image_size // vision_config.patch_size) ** 2
        model = (folder / "language" / "sentencepiece.bpe.model").read_bytes()
        self.tokenizer = SentencePieceProcessor(model_proto=model)
        self.mask = self.tokenizer.get_piece_size() + 1

    def encode(self, text):
        return [piece + 1 for piece in self.tokenizer.encode(text)]

    def image_tokens(self):
        """[pictures * rows, H]"""
        hidden = self.vision(pixel_values=self.pixels, output_hidden_states=True).hidden_states[-2]
        return self.projector(hidden[:, 1:]).flatten(0, 1)

    def run(self, batch, ids):
        """Last hidden states and logits of packed rows, all at once under a mask made of the spans."""
        words = self.lm.roberta.embeddings.word_embeddings.weight
        image = self.image_tokens()
        rows = torch.where((ids >= 0)[:, None], words[ids.clamp(min=0)], 0)
        rows = rows + torch.where((batch.image_rows >= 0)[:, None], image[batch.image_rows.clamp(min=0)], 0)
        allowed = torch.zeros(len(ids), len(ids), dtype=torch.bool)
        for begin, end, *ranges in batch.spans:
            for first, last in ranges:
                allowed[begin:end, first:last] = True
        mask = torch.zeros(allowed.shape, dtype=torch.float64)
        mask.masked_fill_(~allowed, torch.finfo(torch.float64).min)
        out = self.lm(
            inputs_embeds=rows[None],
            attention_mask=mask[None, None],
            position_ids=batch.positions[None],
            output_hidden_states=True,
        )
        return out.hidden_states[-1][0], out.logits[0]

    def parameters(self, parts):
        """(name as in public files, tensor) of everything trainable in these parts."""
        prefixes = {"vision": "vision_model.", "projector": "model.mm_projector.", "language": "", "length": ""}
        modules = {"vision": self.vision, "projector": self.projector, "language": self.lm, "length": self.length}
        tied = {
            "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias",
        }
        for part in parts:
            for name, p in modules[part].named_parameters():
                yield prefixes[part] + tied.get(name, name), p

    def clear(self):
        for _, p in self.parameters(("vision", "projector", "language", "length")):
            p.grad = None


# ---- packed batches ----


class Batch:
    """Rows end to end. `answers` are the rows that may be masked."""

    def __init__(self, picture_rows):
        self.ids, self.rows, self.places, self.spans, self.answers = [], [], [], [], []
        self.picture_rows = picture_rows

    def add(self, ids, place, picture=None):
        """Appends words and perhaps a picture, from position `place` on; returns the rows' range."""
        begin = len(self.ids)
        images = [] if picture is None else list(range(picture * self.picture_rows, (picture + 1) * self.picture_rows))
        self.ids += ids + [-1] * len(images)
        self.rows += [-1] * len(ids) + images
        self.places += range(place, place + len(ids) + len(images))
        return begin, len(self.ids)

    def finish(self):
        self.clean = torch.tensor(self.ids)
        self.image_rows = torch.tensor(self.rows)
        self.positions = torch.tensor(self.places)
        return self

    def masked(self, mask, chance, generator):
        """ids with masks, and the rows that have them: at least one."""
        while True:
            hidden = [r for r in self.answers if float(torch.rand((), generator=generator)) < chance]
            if hidden:
                break
        ids = self.clean.clone()
        ids[hidden] = mask
        return ids, torch.tensor(hidden)


def full_batch(model):
    """Sequences with one span each; two of them read the same picture."""
    batch = Batch(model.picture_rows)
    for picture, prompt, answer in [
        (1, QUESTIONS[0], "It is blue."),
        (0, QUESTIONS[4], "The sky is clear."),
        (0, "Why?", "No."),
        (None, PROMPTS["summarize"].format(text=QUESTIONS[5]), "Eine Form in der Mitte"),
    ]:
        answer = model.encode(answer) + [EOS]
        begin, end = batch.add([BOS], 2, picture)
        batch.add(model.encode(prompt), 2 + end - begin)
        start, end = batch.add(answer, 2 + len(batch.ids) - begin)
        batch.spans.append((begin, end, (begin, end)))
        batch.answers += range(start, end)
    return batch.finish()


def check_alone(model, batch):
    """That packing changes nothing: the last sequence, which reads no picture, by itself."""
    begin, end, _ = batch.spans[-1]
    places = batch.positions[begin:end][None]
    alone = model.lm(input_ids=batch.clean[begin:end][None], position_ids=places).logits[0]
    assert torch.allclose(model.run(batch, batch.clean)[1][begin:end], alone, rtol=0, atol=1e-9)


def blocks_batch(model):
    """Units of <s> with a picture, prompts that see it, and answers (several of one prompt) that see both."""
    batch = Batch(model.picture_rows)
    for picture, turns in [
        (1, [(QUESTIONS[2], "The line is yellow.", 2), ("Why?", "It is not red.", 1)]),
        (None, [(QUESTIONS[8], "Drei", 1)]),
    ]:
        sight = batch.add([BOS], 2, picture)
        batch.spans.append((*sight, sight))
        for text, answer, copies in turns:
            prompt = batch.add(model.encode(text), 2 + sight[1] - sight[0])
            batch.spans.append((*prompt, sight, prompt))
            for _ in range(copies):
                place = 2 + sight[1] - sight[0] + prompt[1] - prompt[0]
                rows = batch.add(model.encode(answer) + [EOS], place)
                batch.spans.append((*rows, sight, prompt, rows))
                batch.answers += range(*rows)
    return batch.finish()


def spans_table(spans):
    """[n, 11]: queries' begin and end, number of key ranges, begin and end of up to four."""
    table = torch.zeros(len(spans), 11, dtype=torch.long)
    for line, (begin, end, *ranges) in zip(table, spans):
        flat = [begin, end, len(ranges)] + [value for pair in ranges for value in pair]
        line[: len(flat)] = torch.tensor(flat)
    return table


def described(name, batch):
    return {
        f"{name}.image_rows": batch.image_rows,
        f"{name}.positions": batch.positions,
        f"{name}.spans": spans_table(batch.spans),
    }


# ---- losses ----


def masked_losses(logits, targets, weights, smoothing, smoothing_weights):
    logs = torch.log_softmax(logits, dim=-1)
    hard = -logs.gather(1, targets[:, None])[:, 0]
    return weights * ((1 - smoothing) * hard + smoothing_weights * -logs.mean(dim=-1))


def gradients(model, name, parts):
    return {
        f"{name}.grad.{key}": p.grad.clone() for key, p in model.parameters(parts) if p.grad is not None
    }


def loss_case(model, name, batch, smoothing, generator):
    """The masked rows' losses, and the gradients of vision tower, projector and language model."""
    ids, rows = batch.masked(model.mask, 0.6, generator)
    weights = 0.05 + 0.3 * torch.rand(len(rows), generator=generator)
    mean_weights = 0.02 + 0.1 * torch.rand(len(rows), generator=generator)
    if not smoothing:
        mean_weights *= 0
    weights, mean_weights = weights.double(), mean_weights.double()
    model.clear()
    logits = model.run(batch, ids)[1][rows]
    losses = masked_losses(logits, batch.clean[rows], weights, smoothing, mean_weights)
    losses.sum().backward()
    out = described(name, batch) | {
        f"{name}.ids": ids,
        f"{name}.rows": rows,
        f"{name}.targets": batch.clean[rows],
        f"{name}.weights": weights,
        f"{name}.smoothing": torch.tensor([smoothing]),
        f"{name}.losses": losses,
    }
    if smoothing:
        out[f"{name}.smoothing_weights"] = mean_weights
    return out | gradients(model, name, ("vision", "projector", "language"))


def length_case(model, blocks, generator):
    """Cross-entropy of prompts' lengths; the language model is frozen."""
    batch, begin = Batch(model.picture_rows), [0]
    for picture, text in [(0, QUESTIONS[1]), (None, "Why?"), (None, QUESTIONS[9])]:
        sight = batch.add([BOS], 2, picture)
        prompt = batch.add(model.encode(text), 2 + sight[1] - sight[0])
        whole = (sight[0], prompt[1])
        batch.spans += [(*sight, sight), (*prompt, whole)] if blocks else [(*whole, whole)]
        begin.append(prompt[1])
    batch.finish()
    classes = torch.randint(model.classes, (len(begin) - 1,), generator=generator)
    weight = 0.25
    model.clear()
    with torch.no_grad():
        hidden = model.run(batch, batch.clean)[0]
    logits = torch.stack([model.length(hidden[a:b]) for a, b in zip(begin, begin[1:])])
    losses = weight * nn.functional.cross_entropy(logits, classes, reduction="none")
    losses.sum().backward()
    out = described("length", batch) | {
        "length.ids": batch.clean,
        "length.begin": torch.tensor(begin),
        "length.classes": classes,
        "length.weight": torch.tensor([weight]),
        "length.losses": losses,
    }
    return out | gradients(model, "length", ("length",))


# ---- ten steps ----


def schedule_rate(step):
    """Linear warmup, then a cosine down to 0."""
    if step <= WARMUP:
        return RATE * step / WARMUP
    share = min(max((step - 1 - WARMUP) / (STEPS - WARMUP), 0), 1)
    return RATE * (1 + math.cos(math.pi * share)) / 2


def steps_case(model, batch, generator):
    """Updates of everything, each with masks of its own. Last of all: it changes the model."""
    groups = [{"params": [p for _, p in model.parameters([part])], "rate": RATES[part]} for part in RATES]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01)
    everything = [p for group in groups for p in group["params"]]
    all_ids, all_weights, losses, norms = [], [], [], []
    for step in range(1, STEPS + 1):
        ids, rows = batch.masked(model.mask, 0.5, generator)
        weights = torch.zeros(len(ids))
        weights[rows] = 0.1 + 0.3 * torch.rand(len(rows), generator=generator)
        model.clear()
        logits = model.run(batch, ids)[1][rows]
        loss = masked_losses(logits, batch.clean[rows], weights[rows].double(), 0.0, 0.0).sum()
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(everything, 1.0))
        for group in optimizer.param_groups:
            group["lr"] = schedule_rate(step) * group["rate"]
        optimizer.step()
        all_ids.append(ids)
        all_weights.append(weights)
        losses.append(loss)
    out = described("steps", batch) | {
        "steps.ids": torch.stack(all_ids),
        "steps.targets": batch.clean,
        "steps.weights": torch.stack(all_weights),
        "steps.losses": torch.stack(losses),
        "steps.norms": torch.stack(norms),
    }
    values = dict(model.parameters(RATES))
    return out | {f"steps.value.{name}": values[name] for name in KEPT if name in values}


# ---- LoRA ----


class LowRank(nn.Module):
    """W + alpha / rank B A in place of W."""

    def __init__(self, rows, columns, generator):
        super().__init__()
        self.a = nn.Parameter(torch.randn(RANK, columns, generator=generator).double() / math.sqrt(3 * columns))
        self.b = nn.Parameter(0.3 * torch.randn(rows, RANK, generator=generator).double())

    def forward(self, w):
        return w + ALPHA / RANK * self.b @ self.a


def lora_case(model, case, batch):
    """The loss of an earlier case with thin matrices in all places, and their gradients."""
    generator = torch.Generator().manual_seed(31)
    thin = {}
    for i, layer in enumerate(model.lm.roberta.encoder.layer):
        for path in TARGETS:
            linear = layer.get_submodule(path)
            low = LowRank(*linear.weight.shape, generator)
            parametrize.register_parametrization(linear, "weight", low)
            thin[f"base_model.model.roberta.encoder.layer.{i}.{path}"] = low
    name = case["name"]
    logits = model.run(batch, case[f"{name}.ids"])[1][case[f"{name}.rows"]]
    means = case.get(f"{name}.smoothing_weights", 0.0)
    smoothing = float(case[f"{name}.smoothing"])
    losses = masked_losses(logits, case[f"{name}.targets"], case[f"{name}.weights"], smoothing, means)
    losses.sum().backward()
    out = {"lora.losses": losses}
    for path, low in thin.items():
        for letter, p in [("A", low.a), ("B", low.b)]:
            out[f"lora.value.{path}.lora_{letter}.weight"] = p
            out[f"lora.grad.{path}.lora_{letter}.weight"] = p.grad
    return out


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/gradients")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(1)  # one order of sums
    torch.backends.mha.set_fastpath_enabled(False)
    folder.mkdir(parents=True, exist_ok=True)
    for kind, seed in [("base", 21), ("xl", 22)]:
        generator = torch.Generator().manual_seed(seed)
        model = Tiny(MODELS / f"tiny-{kind}")
        full, blocks = full_batch(model), blocks_batch(model)
        check_alone(model, full)
        out = loss_case(model, "full", full, 0.0, generator)
        smooth = loss_case(model, "blocks", blocks, 0.1, generator)
        out |= smooth | length_case(model, kind == "xl", generator)
        out |= lora_case(Tiny(MODELS / f"tiny-{kind}"), smooth | {"name": "blocks"}, blocks)
        out |= steps_case(model, full if kind == "base" else blocks, generator)
        for name, value in out.items():
            value = value.detach().float() if value.is_floating_point() else value.detach().long()
            out[name] = value.contiguous().clone()
            assert bool(torch.isfinite(value).all()), name
        save_file(out, folder / f"tiny-{kind}.safetensors")
        size = (folder / f"tiny-{kind}.safetensors").stat().st_size
        print(f"tiny-{kind}: {len(out)} tensors, {size} bytes")


if __name__ == "__main__":
    main()
