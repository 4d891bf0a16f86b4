"""Times torch on the training steps that `easyfirst bench train` times, with random weights.

usage: python3 tests/reference/bench_torch_train.py [--threads 2] [--runs 3] [--rounds 2] [--compile]
           [--only full|frozen] [--dtype f32|bf16] [--vs 'build/easyfirst bench train --json']

XLM-R base (transformers' own model, SDPA attention, dropout 0.1), 4 sequences of 512 tokens, a quarter
of them masked; the head runs on the masked rows only, as anyone who writes this with care does it.

  full     forward, backward, clip_grad_norm_, torch.optim.AdamW(fused=True) over all parameters
  frozen   no parameter is trained; the first 256 rows of each sequence are embeddings whose gradient is
           asked for, as when a projector is trained

bf16 is torch.autocast over f32 weights in "full" (the usual recipe), and weights in bf16 in "frozen".
With --vs the command runs once in each round, after torch, so that both see the same machine in the same
minute; a ratio is torch's median over the command's, above 1 where the command is faster.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import time

import torch
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

TOKENS, SEQUENCES, PICTURE, MASKED = 512, 4, 256, 4


class Step:
    def __init__(self, what, dtype, compiled):
        torch.manual_seed(0)
        config = XLMRobertaConfig(
            vocab_size=250002, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
        )
        self.what, self.bf16 = what, dtype == "bf16"
        self.model = XLMRobertaForMaskedLM._from_config(config, attn_implementation="sdpa").train()
        if what == "frozen":
            self.model.requires_grad_(False)
            if self.bf16:
                self.model.to(torch.bfloat16)
        else:
            self.optimizer = torch.optim.AdamW(
                self.model.parameters(), lr=1e-5, betas=(0.9, 0.98), weight_decay=0.01, fused=True
            )
        self.ids = torch.randint(4, 250001, (SEQUENCES, TOKENS))
        self.positions = torch.arange(2, 2 + TOKENS)[None].expand(SEQUENCES, -1)
        self.masked = torch.zeros(SEQUENCES, TOKENS, dtype=torch.bool)
        self.masked[:, -(TOKENS // MASKED) :] = True
        self.targets = self.ids[self.masked]
        self.image = torch.randn(SEQUENCES, PICTURE, 768, requires_grad=True)
        self.run_loss = torch.compile(self.loss) if compiled else self.loss

    def loss(self):
        words = self.model.roberta.embeddings.word_embeddings
        if self.what == "frozen":
            text = words(self.ids[:, PICTURE:])
            inputs = torch.cat([self.image.to(text.dtype), text], dim=1)
            hidden = self.model.roberta(inputs_embeds=inputs, position_ids=self.positions)[0]
        else:
            hidden = self.model.roberta(input_ids=self.ids, position_ids=self.positions)[0]
        logits = self.model.lm_head(hidden[self.masked])
        return torch.nn.functional.cross_entropy(logits.float(), self.targets)

    def __call__(self):
        if self.what == "frozen":
            self.image.grad = None
            self.run_loss().backward()
            return
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.run_loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def times(step, runs):
    out = []
    for _ in range(runs):
        begin = time.perf_counter()
        step()
        out.append(1e3 * (time.perf_counter() - begin))
    return out


def command_medians(command, extra):
    text = subprocess.run(shlex.split(command) + extra, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", choices=["full", "frozen"])
    parser.add_argument("--dtype", choices=["f32", "bf16"])
    parser.add_argument("--vs")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    for what in [a.only] if a.only else ["frozen", "full"]:
        for dtype in [a.dtype] if a.dtype else ["f32", "bf16"]:
            step = Step(what, dtype, a.compile)
            step()
            ratios, torch_ms, own_ms = [], [], []
            for _ in range(a.rounds):
                here = statistics.median(times(step, a.runs))
                torch_ms.append(here)
                if a.vs:
                    extra = ["--what", what, "--dtype", dtype, "--runs", str(a.runs)]
                    own = command_medians(a.vs, extra + ["--threads", str(a.threads)])[0]
                    own_ms.append(own["ms_median"])
                    ratios.append(here / own["ms_median"])
            rate = 1e3 * SEQUENCES * TOKENS / statistics.median(torch_ms)
            line = f"{what:7s} {dtype:5s} torch {statistics.median(torch_ms):9.1f} ms {rate:7.1f} tokens/s"
            if ratios:
                line += f"   command {statistics.median(own_ms):9.1f} ms   ratio {statistics.median(ratios):.2f}"
            print(line, flush=True)
            del step


if __name__ == "__main__":
    main()
