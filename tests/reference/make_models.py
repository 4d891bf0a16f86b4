"""Writes tests/golden/models: tiny random models in the public layouts, and what torch computes with them.

usage: python3 tests/reference/make_models.py [FOLDER]    (tests/reference/requirements.txt)

  image0.png, image1.png    two drawings
  tiny-base/, tiny-xl/          vision/, language/, projector.safetensors, length.safetensors, easyfirst.json;
                                beside them stages.safetensors (every stage of the way of the data),
                                decode.json (what the decode.K tensors are) and answers.json (picture and
                                question in, text out)
  variants/                     smaller models in the other layouts that loaders meet, and their stages.safetensors

README.md in this folder lists the tensors. The weights are drawn so that outputs are lively: logits
spread over several units and attention is uneven, so that a mistake anywhere moves what comes out.
Fillings are searched: one where rounding could change a choice is not written.
"""

import copy
import io
import itertools
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaXLConfig,
    XLMRobertaXLForMaskedLM,
)
from transformers.utils import logging

PIECES = 320
POSITIONS = 130  # rows of the position table: 128 tokens, counted from 2
BOS, EOS = 0, 2
LOGIT_GAP = 1e-3  # between a row's best and second-best logit
SCORE_GAP = 1e-4  # between scores that are compared
MASKED_SCORE = -1e30  # stands for -inf in files

PROMPTS = {
    "ask": "{question}",
    "translate": "Translate the sentences into {to}.  {from}: {text} {to}: ",
    "summarize": "Summarize: {text} Summary: ",
}

ENGLISH = """What colour is the dog? | How many red circles are in the picture? | Is the square blue or green?
There are two yellow birds on the roof of the old house. | The small child is holding an umbrella in the rain.
What is standing on the left side of the table? | A woman with a hat is reading the newspaper on a bench.
The train leaves the station at nine o'clock in the morning. | Who is sitting next to the window?
Several boats lie in the harbour, and one of them has white sails. | Is there a clock above the door?
The cat sleeps under the chair while the dog looks out of the window. | What is the man doing with the ball?
Three bicycles stand against the brick wall. | The soup is still hot, so please wait a little.
Translate the sentences into German. English: | Translate the sentences into English. German: | Summary:
The answer is probably in the third chapter of the book. | Where does the river meet the lake?
Our neighbours planted apple trees, cherry trees and a long row of roses behind their garden wall last spring.
The final answer is forty two. | Which animal is larger, the horse or the sheep? | No, it is not made of wood.
They walked along the beach until the sun went down behind the hills. | Is the sky clear or cloudy?
Describe the picture in one sentence. | What shape is in the middle? | Please answer with a single word.
Nobody knows why the lights in the kitchen were on all night. | Yes, the lamp to the right is brighter."""

GERMAN = """Welche Farbe hat der Hund? | Wie viele rote Kreise sind auf dem Bild? | Ist das Quadrat blau oder grün?
Zwei gelbe Vögel sitzen auf dem Dach des alten Hauses. | Das kleine Kind hält im Regen einen Schirm in der Hand.
Was steht auf der linken Seite des Tisches? | Eine Frau mit Hut liest auf einer Bank die Zeitung.
Der Zug fährt um neun Uhr morgens vom Bahnhof ab. | Wer sitzt neben dem Fenster?
Mehrere Boote liegen im Hafen, und eines davon hat weiße Segel. | Hängt eine Uhr über der Tür?
Die Katze schläft unter dem Stuhl, während der Hund aus dem Fenster schaut. | Was macht der Mann mit dem Ball?
Drei Fahrräder stehen an der Ziegelmauer. | Die Suppe ist noch heiß, also warte bitte ein wenig.
Die Antwort steht wahrscheinlich im dritten Kapitel des Buches. | Wo trifft der Fluss auf den See?
Unsere Nachbarn haben im letzten Frühling Apfelbäume, Kirschbäume und eine lange Reihe Rosen gepflanzt.
Die Antwort lautet zweiundvierzig. | Welches Tier ist größer, das Pferd oder das Schaf? | Nein, es ist nicht aus Holz.
Sie gingen am Strand entlang, bis die Sonne hinter den Hügeln unterging. | Ist der Himmel klar oder bewölkt?
Beschreibe das Bild in einem Satz. | Welche Form ist in der Mitte? | Bitte antworte mit einem einzigen Wort.
Niemand weiß, warum das Licht in der Küche die ganze Nacht brannte. | Ja, die Lampe rechts ist heller."""

QUESTIONS = [
    "What colour is the circle?",
    "How many shapes are in the picture?",
    "Is there a yellow line above the square?",
    "What is on the left side?",
    "Is the sky clear or cloudy?",
    "Welche Form ist in der Mitte?",
    "Where is the blue square?",
    "Which one is larger, the circle or the square?",
    "Wie viele rote Kreise sind auf dem Bild?",
    "Who is sitting next to the window?",
    "Describe the picture in one sentence.",
    "Ist das Quadrat blau oder grün?",
    "Is the lamp to the right brighter?",
    "What is the man doing with the ball?",
    "Please answer with a single word: is it night?",
    "Nobody knows where the clock is, or do you?",
]


def sentences(text):
    return [part.strip() for line in text.splitlines() for part in line.split("|")]


# ---- making models ----


def train_tokenizer():
    """The bytes of a Unigram model with XLM-R's first pieces (<unk>, <s>, </s>). Identity normalisation:
    the table of nmt_nfkc alone would take 240 KB."""
    lines = sentences(ENGLISH) + sentences(GERMAN) + QUESTIONS
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="unigram",
        vocab_size=PIECES,
        character_coverage=1.0,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def deviation(name, p):
    """The standard deviation that a parameter is drawn with."""
    if name in ("lm_head.bias", "lm_head.decoder.bias"):  # one tensor, as is the next: whichever comes first
        return 0.5
    if "word_embeddings" in name or "class_embedding" in name or name == "lm_head.decoder.weight":
        return 0.7
    if "position_embedding" in name:
        return 1.4  # the masks of a canvas differ by position alone
    if "token" in name:
        return 0.7
    return 0.1 if p.dim() <= 1 else 1.4 / math.sqrt(p[0].numel())


def liven(module, generator):
    """Draws all parameters, in the order of their names."""
    with torch.no_grad():
        for name, p in sorted(module.named_parameters()):
            drawn = torch.randn(p.shape, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                p.copy_(1 + 0.2 * drawn)
            else:
                p.copy_(deviation(name, p) * drawn)
    return module.eval()


def store_as(module, dtype):
    """Rounds the parameters to what the file will hold, and keeps computing in f32."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(p.to(dtype).float())
    return module


def save_model(model, folder, dtype, prefix=""):
    """save_pretrained; `prefix` goes before every name: transformers 5 writes vision towers without
    the "vision_model." that the public files have."""
    copy.deepcopy(model).to(dtype).save_pretrained(folder)
    path = folder / "model.safetensors"
    if prefix:
        tensors = {prefix + name: value for name, value in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})


class LengthPredictor(nn.Module):
    def __init__(self, width, heads, ffn, classes):
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, heads, ffn, dropout=0.0, batch_first=True)
        self.length_trm = nn.Module()
        self.length_trm.layers = nn.ModuleList([layer])
        self.length_predictor = nn.Sequential(nn.Linear(width, ffn), nn.Tanh(), nn.Linear(ffn, classes))

    def forward(self, hidden):
        """hidden [T, H] of one prompt -> [classes]"""
        return self.length_predictor(self.length_trm.layers[0](hidden[None]).mean(dim=1))[0]


class NearTie(Exception):
    pass


class Model:
    """The parts of one model folder, all in f32."""

    def __init__(self, vision, projector, lm, length, options, tokenizer):
        self.vision, self.projector, self.lm, self.length = vision, projector, lm, length
        self.options, self.tokenizer = options, tokenizer
        self.mask = tokenizer.get_piece_size() + 1

    def pixels(self, picture):
        """A PIL picture as CLIP's image processor sees it: [3, side, side]."""
        side = self.vision.config.image_size
        if self.options["pad"]:
            longest = max(picture.size)
            square = Image.new("RGB", (longest, longest), (122, 116, 104))  # int(255 * mean)
            square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
            picture = square
        processor = CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
        return torch.as_tensor(processor(picture, return_tensors="np")["pixel_values"][0])

    def features(self, pixels):
        """[B, 3, side, side] -> [B, patches, d], the class token dropped."""
        hidden = self.vision(pixel_values=pixels, output_hidden_states=True).hidden_states
        return hidden[self.options["feature_layer"]][:, 1:]

    def encode(self, text):
        """Text to ids: piece p is p + 1, and piece 0 (<unk>) is 3."""
        return [piece + 1 if piece else 3 for piece in self.tokenizer.encode(text)]

    def decode(self, ids):
        pieces = [self.tokenizer.id_to_piece(i - 1) for i in ids if 3 < i < self.mask]
        return "".join(pieces).replace("\u2581", " ").strip()

    def run(self, ids, image=None, ends=None):
        """Hidden states (a list) and logits of one sequence. `image` [n, H] takes the place of the ids -1.
        `ends` are the ends of its blocks: a row sees the rows of its own and of earlier blocks."""
        ids = torch.as_tensor(ids)
        rows = self.lm.roberta.embeddings.word_embeddings(ids.clamp(min=0)).clone()
        if image is not None:
            rows[ids < 0] = image
        mask = None
        if ends is not None:
            block = torch.bucketize(torch.arange(len(ids)), torch.as_tensor(ends), right=True)
            allowed = block[:, None] >= block[None, :]
            mask = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[None, None]
        out = self.lm(
            inputs_embeds=rows[None],
            attention_mask=mask,
            position_ids=torch.arange(2, 2 + len(ids))[None],
            output_hidden_states=True,
        )
        return [hidden[0] for hidden in out.hidden_states], out.logits[0]

    def sequence(self, prompt, answer, image=None):
        """<s> image prompt answer </s> and the ends of its blocks: <s> and image (or <s> alone), prompt,
        answer and </s>."""
        images = 0 if image is None else len(image)
        ids = [BOS] + [-1] * images + prompt + answer + [EOS]
        return ids, [1 + images, 1 + images + len(prompt), len(ids)]

    def blocks(self):
        return self.options["attention"] == "block-causal"

    def propose(self, prompt, answer, image):
        """Token and log-probability for every row of the answer, among the ids that have a piece."""
        ids, ends = self.sequence(prompt, answer, image)
        logits = self.run(ids, image, ends if self.blocks() else None)[1][ends[1] : ends[1] + len(answer)]
        logits = logits[:, : self.mask]  # neither <mask> nor the rows after it
        best = logits.topk(2, dim=-1).values
        self.check(best[:, 0] - best[:, 1], LOGIT_GAP, "logit")
        return torch.log_softmax(logits, dim=-1).max(dim=-1)

    def check(self, differences, gap, kind):
        smallest = min(map(float, differences.abs().reshape(-1)), default=math.inf)
        if smallest < gap:
            raise NearTie
        self.margins[kind] = min(smallest, self.margins.get(kind, math.inf))

    def fill(self, prompt, length, strategy, iterations, image=None):
        """One answer by reparameterised decoding: tokens and scores [steps, N]. Raises NearTie."""
        _, condition, _, schedule = strategy.split("-")
        self.margins, self.erasures = {}, 0
        tokens = torch.full((length,), self.mask)
        scores = torch.full((length,), -math.inf)
        noisy = torch.ones(length, dtype=torch.bool)
        steps = []
        for t in range(1, iterations + 1):
            score, token = self.propose(prompt, tokens.tolist(), image)
            if schedule == "cosine":
                k = math.floor(length * math.cos(math.pi / 2 * t / iterations)) if t < iterations else 0
            else:
                k = length * (iterations - t) // iterations
            cutoff = score.sort().values[k]
            low = score < cutoff
            self.check((score - cutoff)[score != cutoff] if k else torch.tensor([]), SCORE_GAP, "score")
            assert int(low.sum()) == k
            keep_masked, erase = low, low
            if condition == "cond":
                same = low & ~noisy & (token == tokens)
                self.check((score - scores)[same], SCORE_GAP, "score")
                erase = low & (token == tokens) & (score < scores)
            write = noisy & ~keep_masked
            masked = torch.where(noisy, keep_masked, erase)
            self.erasures += int((masked & ~noisy).sum())
            tokens = torch.where(write, token, tokens).masked_fill(masked, self.mask)
            scores = torch.where(write, score, scores).masked_fill(masked, -math.inf)
            noisy = (noisy | erase) & keep_masked
            assert torch.equal(noisy, masked)
            steps.append((tokens, scores))
        return torch.stack([s[0] for s in steps]), torch.stack([s[1] for s in steps])

    def length_logits(self, prompt, image, blocks):
        """From the language model's last hidden states over <s> image prompt."""
        ids, ends = self.sequence(prompt, [], image)
        return self.length(self.run(ids[:-1], image, ends[:-1] if blocks else None)[0][-1])


def make_model(kind, seed, tokenizer_bytes):
    generator = torch.Generator().manual_seed(seed)
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=tokenizer_bytes)
    vision = CLIPVisionModel(
        CLIPVisionConfig(
            image_size=28,
            patch_size=7,
            hidden_size=24,
            num_attention_heads=3,
            num_hidden_layers=3,
            intermediate_size=40,
            projection_dim=24,
        )
    )
    shape = dict(max_position_embeddings=POSITIONS, type_vocab_size=1, layer_norm_eps=1e-5)
    if kind == "base":
        width, heads, ffn, dtype = 24, 3, 40, torch.float32
        config = XLMRobertaConfig(
            vocab_size=PIECES + 2,
            hidden_size=width,
            num_attention_heads=heads,
            intermediate_size=ffn,
            num_hidden_layers=2,
            **shape,
        )
        lm = XLMRobertaForMaskedLM(config)
        projector = nn.Linear(24, width)
    else:
        width, heads, ffn, dtype = 32, 4, 56, torch.bfloat16
        config = XLMRobertaXLConfig(
            vocab_size=PIECES + 2 + 7,  # rows without a piece, as XL and XXL have them
            hidden_size=width,
            num_attention_heads=heads,
            intermediate_size=ffn,
            num_hidden_layers=3,
            **shape,
        )
        lm = XLMRobertaXLForMaskedLM(config)
        projector = nn.Sequential(nn.Linear(24, width), nn.GELU(), nn.Linear(width, width))
    length = LengthPredictor(width, heads, ffn, POSITIONS)
    for module in (vision, projector, lm, length):
        liven(module, generator)
    for module in (vision, lm):
        module.set_attn_implementation("eager")
    with torch.no_grad():
        length.length_predictor[2].bias[:9] += 4  # lengths that keep the tests short
        lm.lm_head.bias[PIECES + 1 :] += 8  # ids that must never be proposed would often win
    for module in (vision, projector, lm, length):
        store_as(module, dtype)
    options = {
        "format": 1,
        "attention": "full" if kind == "base" else "block-causal",
        "feature_layer": -2,
        "image_tokens": 16,
        "pad": kind == "xl",
        "prompts": PROMPTS,
    }
    return Model(vision, projector, lm, length, options, tokenizer), dtype


def save_folder(model, folder, dtype, tokenizer_bytes):
    save_model(model.vision, folder / "vision", dtype, "vision_model.")
    save_model(model.lm, folder / "language", dtype)
    (folder / "language" / "sentencepiece.bpe.model").write_bytes(tokenizer_bytes)
    parts = [(model.projector, "projector", "model.mm_projector."), (model.length, "length", "")]
    for module, name, prefix in parts:
        tensors = {prefix + key: value.to(dtype).contiguous() for key, value in module.state_dict().items()}
        save_file(tensors, folder / f"{name}.safetensors", metadata={"format": "pt"})
    write_json(folder / "easyfirst.json", model.options)


# ---- stages ----


def packed(sequences):
    """ids [T] and begin [S + 1] of sequences end to end."""
    begin = np.cumsum([0] + [len(ids) for ids in sequences])
    return torch.tensor(list(itertools.chain(*sequences))), torch.tensor(begin)


def vision_stages(model, pixels):
    out = model.vision(pixel_values=pixels, output_hidden_states=True)
    stages = {"pixels": pixels, "vit.embeddings": model.vision.pre_layrnorm(model.vision.embeddings(pixels))}
    for i, hidden in enumerate(out.hidden_states):
        stages[f"vit.hidden.{i}"] = hidden
    assert torch.equal(stages["vit.hidden.0"], stages["vit.embeddings"])
    stages["vit.features"] = model.features(pixels)
    stages["projector.tokens"] = model.projector(stages["vit.features"])
    return stages


def text_stages(model):
    mask = model.mask
    short = model.encode("Ist das Quadrat blau?")
    long = model.encode(" ".join(sentences(ENGLISH)[3:8]))[:46]
    sequences = [
        [BOS] + short + [mask] * 5 + [EOS],
        [BOS],
        [BOS, mask, EOS],
        [BOS] + long + [mask, short[0], mask, mask, short[1], short[2]] + [mask] * 6 + [EOS],
    ]
    assert [len(s) for s in sequences][1:] == [1, 3, 60]
    ids, begin = packed(sequences)
    runs = []
    for sequence in sequences:
        out = model.lm(
            input_ids=torch.tensor([sequence]),
            position_ids=torch.arange(2, 2 + len(sequence))[None],
            output_hidden_states=True,
        )
        hidden, logits = model.run(sequence)
        assert torch.equal(out.logits[0], logits)
        runs.append((hidden, logits))
    stages = {"text.ids": ids, "text.begin": begin, "text.logits": torch.cat([logits for _, logits in runs])}
    for i in range(len(runs[0][0])):
        stages[f"text.hidden.{i}"] = torch.cat([hidden[i] for hidden, _ in runs])
    return stages


def check_blocks(model, ids, image, ends):
    """That the mask means what it should, by what it lets through."""
    hidden = model.run(ids, image, ends)[0][-1]
    alone = model.run(ids[: ends[0]], image)[0][-1]
    assert torch.allclose(hidden[: ends[0]], alone, atol=1e-5)
    for row, unchanged in [(ends[2] - 2, ends[1]), (ends[1] - 1, ends[0])]:
        other = list(ids)
        other[row] = 77
        moved = (model.run(other, image, ends)[0][-1] - hidden).abs().amax(dim=-1)
        assert float(moved[:unchanged].max()) < 1e-5 and float(moved[unchanged:].min()) > 1e-4
    whole = model.run(ids, image, [len(ids)] * 3)[0][-1]
    assert torch.allclose(whole, model.run(ids, image)[0][-1], atol=1e-5)


def multimodal_stages(model, tokens):
    mask, word = model.mask, model.encode("two yellow birds")
    parts = [  # picture, question, answer
        (1, "Is it red?", [mask] * 3),
        (0, "Where is the cat?", [word[0], mask, word[1], mask, mask, word[2]]),
        (0, "Why?", [mask]),
    ]
    full, blocks, sequences, ends = [], [], [], []
    for picture, question, answer in parts:
        ids, end = model.sequence(model.encode(question), answer, tokens[picture])
        check_blocks(model, ids, tokens[picture], end)
        full.append(model.run(ids, tokens[picture]))
        blocks.append(model.run(ids, tokens[picture], end))
        sequences.append(ids)
        ends.append(end)
    ids, begin = packed(sequences)
    stages = {"mm.ids": ids, "mm.begin": begin, "mm.blocks": torch.tensor(ends)}
    stages["mm.image"] = torch.tensor([picture for picture, _, _ in parts])
    for name, runs in [("mm", full), ("mm_blocks", blocks)]:
        stages[f"{name}.hidden"] = torch.cat([hidden[-1] for hidden, _ in runs])
        stages[f"{name}.logits"] = torch.cat([logits for _, logits in runs])
    return stages


def length_stages(model):
    prompts = [model.encode(text) for text in ("Why?", QUESTIONS[0], " ".join(QUESTIONS[5:8]))]
    ids, begin = packed([[BOS] + prompt for prompt in prompts])
    stages = {"length.ids": ids, "length.begin": begin}
    for name, blocks in [("length", False), ("length_blocks", True)]:
        logits = [model.length_logits(prompt, None, blocks) for prompt in prompts]
        stages[f"{name}.logits"] = torch.stack(logits)
    return stages


def prompt_texts(kind):
    """Candidates for one filling, in the order they are tried."""
    if kind == "ask":
        return [PROMPTS["ask"].format(question=q) for q in QUESTIONS]
    if kind == "summarize":
        texts = sentences(ENGLISH) + sentences(GERMAN)
        return [PROMPTS[kind].format(text=" ".join(texts[i : i + 2])) for i in range(0, len(texts) - 1, 3)]
    names = {"from": "German", "to": "English"}
    return [PROMPTS[kind].format(text=text, **names) for text in sentences(GERMAN) if len(text) < 50]


DECODE_CASES = [  # prompt, picture (-1: none), N, strategy, steps, whether a written token must be erased
    ("ask", 0, 1, "reparam-uncond-deterministic-cosine", 10, False),
    ("ask", 1, 9, "reparam-uncond-deterministic-cosine", 50, True),
    ("translate", -1, 6, "reparam-uncond-deterministic-linear", 10, False),
    ("summarize", -1, 8, "reparam-cond-deterministic-cosine", 50, False),
    ("ask", 0, 7, "reparam-cond-deterministic-linear", 10, True),
    ("translate", -1, 9, "reparam-uncond-deterministic-cosine", 50, True),
    ("ask", 1, 5, "reparam-cond-deterministic-linear", 50, False),
    ("ask", -1, 2, "reparam-uncond-deterministic-linear", 50, False),
]


def decode_stages(model, tokens):
    stages, cases, used = {}, [], set()
    for k, (kind, picture, length, strategy, iterations, erasing) in enumerate(DECODE_CASES):
        image = None if picture < 0 else tokens[picture]
        for text in prompt_texts(kind):
            if text in used:
                continue
            prompt = model.encode(text)
            try:
                filled, scores = model.fill(prompt, length, strategy, iterations, image)
            except NearTie:
                continue
            if model.erasures or not erasing:
                break
        else:
            raise SystemExit(f"decode case {k}: every prompt has a near tie or no erasure; try another seed")
        used.add(text)
        stages[f"decode.{k}.prompt"] = torch.tensor(prompt)
        stages[f"decode.{k}.image"] = torch.tensor([picture])
        stages[f"decode.{k}.tokens"] = filled
        stages[f"decode.{k}.scores"] = scores.masked_fill(scores == -math.inf, MASKED_SCORE)
        case = {"strategy": strategy, "iterations": iterations, "length": length, "image": picture}
        cases.append(case | {"prompt": text, "erasures": model.erasures, "margins": rounded(model.margins)})
    return stages, cases


def rounded(margins):
    return {kind: float(f"{value:.2g}") for kind, value in margins.items() if value < math.inf}


def beam(model, prompt, image, size):
    """The likeliest lengths, best first; class c means c + 1 tokens."""
    images = 0 if image is None else len(image)
    most = POSITIONS - 2 - (1 + images + len(prompt)) - 1
    logits, classes = model.length_logits(prompt, image, model.blocks())[:most].sort(descending=True)
    if float(logits[:size].sub(logits[1 : size + 1]).min()) < LOGIT_GAP:
        raise NearTie
    return (classes[:size] + 1).tolist()


def answers(model, tokens):
    """Two pictures, three questions each with a given length; then one each whose length is predicted."""
    out = []
    strategy = "reparam-uncond-deterministic-cosine"
    for picture, image in enumerate(tokens):
        wanted, questions = [(3, 10), (5, 50), (8, 50), ("beam", 10)], iter(QUESTIONS)
        while wanted:
            question, (length, iterations) = next(questions), wanted[0]
            prompt = model.encode(PROMPTS["ask"].format(question=question))
            try:
                lengths = beam(model, prompt, image, 3) if length == "beam" else [length]
                results, margins = [], {}
                for n in lengths:
                    filled, scores = model.fill(prompt, n, strategy, iterations, image)
                    results.append((float(scores[-1].double().mean()), filled[-1].tolist()))
                    margins = {k: min(v, margins.get(k, math.inf)) for k, v in model.margins.items()}
                ranked = sorted((score for score, _ in results), reverse=True)
                if len(ranked) > 1 and ranked[0] - ranked[1] < SCORE_GAP:
                    raise NearTie
            except NearTie:
                continue
            score, ids = max(results)
            wanted.pop(0)
            out.append(
                {
                    "image": f"image{picture}.png",
                    "question": question,
                    "prompt_ids": prompt,
                    "strategy": strategy,
                    "iterations": iterations,
                    "beam": len(lengths) if length == "beam" else None,
                    "lengths": lengths,
                    "hypothesis_scores": [s for s, _ in results],
                    "ids": ids,
                    "score": score,
                    "answer": model.decode(ids),
                    "margins": rounded(margins),
                }
            )
    return out


# ---- variants ----


def on_grid(module):
    """Multiples of 1/64 below 4: exact in f32, f16 and bf16, so that one expectation serves all files."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_((p * 64).round().div(64).clamp(-2, 2))
    return module


def small_lm(kind, generator):
    shape = dict(hidden_size=8, num_attention_heads=2, intermediate_size=12, num_hidden_layers=2)
    shape |= dict(vocab_size=40, max_position_embeddings=20, type_vocab_size=1, layer_norm_eps=1e-5)
    if kind == "base":
        lm = XLMRobertaForMaskedLM(XLMRobertaConfig(**shape))
    else:
        lm = XLMRobertaXLForMaskedLM(XLMRobertaXLConfig(**shape))
    lm.set_attn_implementation("eager")
    return on_grid(liven(lm, generator))


def bin_state(lm, dtype):
    """What older versions wrote into pytorch_model.bin: the tied decoder under its own names (sharing
    its storage with the embeddings), and the position ids."""
    state = {name: value.to(dtype) for name, value in lm.state_dict().items() if "decoder" not in name}
    state["lm_head.decoder.weight"] = state["roberta.embeddings.word_embeddings.weight"]
    state["lm_head.decoder.bias"] = state["lm_head.bias"]
    state["roberta.embeddings.position_ids"] = torch.arange(20)[None]
    return state


def write_bin(lm, folder, dtype, **options):
    folder.mkdir(parents=True)
    lm.config.save_pretrained(folder)
    state = bin_state(lm, dtype)
    if dtype == torch.float16:  # some files have the bias under one of its two names only
        state["lm_head.bias"] = torch.zeros_like(state["lm_head.bias"])
    torch.save(state, folder / "pytorch_model.bin", **options)


def lm_stages(lm, name, sequences):
    ids, begin = packed(sequences)
    hidden, logits = [], []
    for sequence in sequences:
        positions = torch.arange(2, 2 + len(sequence))[None]
        out = lm(input_ids=torch.tensor([sequence]), position_ids=positions, output_hidden_states=True)
        hidden.append(out.hidden_states[-1][0])
        logits.append(out.logits[0])
    values = {"ids": ids, "begin": begin, "hidden": torch.cat(hidden), "logits": torch.cat(logits)}
    return {f"{name}.{key}": value for key, value in values.items()}


def make_variants(folder):
    generator = torch.Generator().manual_seed(5)
    stages = {}

    # A full CLIP file, with the text tower and old files' position ids; and a tower without prefix.
    shape = dict(hidden_size=8, num_attention_heads=2, num_hidden_layers=2, intermediate_size=12)
    sight = shape | dict(image_size=12, patch_size=6)
    text = shape | dict(vocab_size=30, max_position_embeddings=9, bos_token_id=0, eos_token_id=2)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=sight, projection_dim=8))
    clip.set_attn_implementation("eager")
    on_grid(liven(clip, generator))
    tower = clip.vision_model
    clip.config.save_pretrained(folder / "clip-full")
    state = {name: value.detach() for name, value in clip.state_dict().items()}
    state["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    state["text_model.embeddings.position_ids"] = torch.arange(9)[None]
    save_file(state, folder / "clip-full" / "model.safetensors", metadata={"format": "pt"})
    save_model(tower, folder / "clip-bare", torch.float32)
    pixels = torch.randn(2, 3, 12, 12, generator=generator)
    hidden = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    stages |= {"pixels": pixels, "vit.features": hidden[-2][:, 1:]}

    # A projector under the names of transformers' LLaVA.
    projector = nn.ModuleDict({"linear_1": nn.Linear(8, 6), "linear_2": nn.Linear(6, 6)})
    on_grid(liven(projector, generator))
    state = {f"multi_modal_projector.{name}": value for name, value in projector.state_dict().items()}
    save_file(state, folder / "projector-llava.safetensors", metadata={"format": "pt"})
    between = nn.functional.gelu(projector["linear_1"](stages["vit.features"]))
    stages["projector.tokens"] = projector["linear_2"](between)

    # One language model in PyTorch's files and in shards.
    lm = small_lm("base", generator)
    for dtype, name in [(torch.float32, "f32"), (torch.float16, "f16"), (torch.bfloat16, "bf16")]:
        write_bin(lm, folder / f"language-bin-{name}", dtype)
    write_bin(lm, folder / "language-bin-legacy", torch.float32,
              _use_new_zipfile_serialization=False)
    lm.save_pretrained(folder / "language-sharded", max_shard_size="4KB")
    sequences = [[0, 17, 5, 39, 39, 2], [0, 39, 2], [0, 8, 30, 22, 11, 4, 39, 21, 39, 6, 2]]
    stages |= lm_stages(lm, "text", sequences)

    # The language model and its length predictor as one state dict, the decoder stored empty.
    length = on_grid(liven(LengthPredictor(8, 2, 12, 20), generator))
    state = {f"model.{name}": value for name, value in bin_state(lm, torch.float32).items()}
    state["model.lm_head.decoder.weight"] = torch.empty(0)
    state |= {name: value.detach() for name, value in length.state_dict().items()}
    (folder / "released").mkdir()
    lm.config.save_pretrained(folder / "released")
    torch.save(state, folder / "released" / "released.pt")
    prompts = [sequence[:-2] for sequence in (sequences[0], sequences[2])]
    last = [lm_stages(lm, "x", [prompt])["x.hidden"] for prompt in prompts]
    stages["length.ids"], stages["length.begin"] = packed(prompts)
    stages["length.logits"] = torch.stack([length(hidden) for hidden in last])

    # The larger kind with a config that claims the smaller one.
    xl = small_lm("xl", generator)
    save_model(xl, folder / "language-xl-mislabelled", torch.float32)
    path = folder / "language-xl-mislabelled" / "config.json"
    config = json.loads(path.read_text())
    write_json(path, config | {"model_type": "xlm-roberta", "architectures": ["XLMRobertaForMaskedLM"]})
    stages |= lm_stages(xl, "text_xl", sequences)

    save_stages(stages, folder / "stages.safetensors")


# ---- all of it ----


def draw_pictures(folder):
    """Slow gradients with a few shapes, of sizes that need shrinking, cropping and padding."""
    pictures = []
    for number, (width, height) in enumerate([(50, 37), (28, 61)]):
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        planes = [(x * 3 + 40 * number) % 256, (y * 4 + 60) % 256, (x * 2 + y * 3 + 100 * number) % 256]
        picture = Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))
        pen = ImageDraw.Draw(picture)
        if number == 0:
            pen.ellipse((6, 8, 24, 26), fill=(220, 30, 40))
            pen.rectangle((30, 12, 44, 28), fill=(20, 60, 200))
        else:
            pen.line((2, 15, 25, 22), fill=(250, 220, 30), width=3)
            pen.rectangle((7, 30, 20, 43), fill=(30, 160, 70))
        picture.save(folder / f"image{number}.png")
        pictures.append(picture)
    return pictures


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_lines(path, records):
    """A JSON array with one record a line."""
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def save_stages(stages, path):
    for name, value in stages.items():
        value = value.detach()
        stages[name] = (value.long() if not value.is_floating_point() else value.float()).contiguous()
        assert bool(torch.isfinite(stages[name]).all()), name
    save_file(stages, path)


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/models")
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # one order of sums
    torch.set_grad_enabled(False)
    torch.backends.mha.set_fastpath_enabled(False)
    for name in ("tiny-base", "tiny-xl", "variants"):
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw_pictures(folder)
    tokenizer_bytes = train_tokenizer()
    for kind, seed in [("base", 6), ("xl", 13)]:
        model, dtype = make_model(kind, seed, tokenizer_bytes)
        place = folder / f"tiny-{kind}"
        save_folder(model, place, dtype, tokenizer_bytes)
        stages = vision_stages(model, torch.stack([model.pixels(picture) for picture in pictures]))
        tokens = stages["projector.tokens"]
        stages |= text_stages(model) | multimodal_stages(model, tokens) | length_stages(model)
        filled, cases = decode_stages(model, tokens)
        write_lines(place / "decode.json", cases)
        write_lines(place / "answers.json", answers(model, tokens))
        save_stages(stages | filled, place / "stages.safetensors")
    make_variants(folder / "variants")
    files = [path for path in folder.rglob("*") if path.is_file()]
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files)} bytes in {folder}")


if __name__ == "__main__":
    main()
