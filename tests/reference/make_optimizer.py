#!/usr/bin/env python3
"""Updates by torch's optimisers, for tests/kernels/test_optimizer.c and tests/kernels/test_muon.c.

adamw.safetensors: ten by torch.optim.AdamW with clip_grad_norm_, two parts with learning rates of
their own, gradients of very different size (some are clipped, some are not), with the same decay
for all and without decay for biases. muon.safetensors: four by torch.optim.Muon (torch 2.9 or
later) of a tall, a wide and a square matrix. Both in tests/golden/optimizer; see README.md for the
tensors.
"""
import os

import torch
from safetensors.torch import save_file

STEPS, CLIP, DECAY, BETAS, EPS = 10, 1.0, 0.1, (0.9, 0.98), 1e-6
RATES = {"one": 1.0, "two": 0.25}  # times the step's own
SHAPES = {"one.weight": (17, 5), "one.bias": (17,), "two.weight": (9, 7), "two.bias": (9,)}


def run(start, grads, rates, decay_vectors):
    """[steps, ...] of every parameter after each update, and the norms before clipping."""
    params = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    groups = [{"params": [p], "factor": RATES[name.split(".")[0]],
               "weight_decay": DECAY if decay_vectors or p.dim() > 1 else 0.0}
              for name, p in params.items()]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=BETAS, eps=EPS)
    after, norms = {name: [] for name in params}, []
    for step in range(STEPS):
        for name, p in params.items():
            p.grad = grads[name][step].clone()
        for group in optimizer.param_groups:
            group["lr"] = rates[step].item() * group["factor"]
        norms.append(torch.nn.utils.clip_grad_norm_(list(params.values()), CLIP))
        optimizer.step()
        for name, p in params.items():
            after[name].append(p.detach().clone())
    return {name: torch.stack(values) for name, values in after.items()}, torch.stack(norms)


def write(tensors, name):
    folder = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                          "golden", "optimizer")
    os.makedirs(folder, exist_ok=True)
    save_file(tensors, os.path.join(folder, name), metadata={"format": "pt"})


def adamw():
    torch.manual_seed(7)
    start = {name: torch.randn(shape) * 0.5 for name, shape in SHAPES.items()}
    size = torch.tensor([0.02, 3.0, 0.1, 0.004, 20.0, 0.05, 0.3, 1e-4, 0.08, 1.0])
    grads = {name: torch.stack([torch.randn(shape) * s for s in size])
             for name, shape in SHAPES.items()}
    rates = torch.tensor([1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 4e-3, 3e-3, 2e-3, 1e-3, 5e-4],
                         dtype=torch.float64)
    tensors = {"rates": rates}
    for name in SHAPES:
        tensors[f"start.{name}"] = start[name]
        tensors[f"grad.{name}"] = grads[name]
    for case, decay_vectors in (("all", True), ("matrices", False)):
        after, tensors["norms"] = run(start, grads, rates, decay_vectors)
        for name in SHAPES:
            tensors[f"{case}.{name}"] = after[name]
    write(tensors, "adamw.safetensors")


MUON_SHAPES = {"tall": (19, 7), "wide": (8, 21), "square": (12, 12)}


def muon():
    torch.manual_seed(8)
    rates = torch.tensor([0.02, 0.05, 0.03, 0.01], dtype=torch.float64)
    start = {name: torch.randn(shape) * 0.3 for name, shape in MUON_SHAPES.items()}
    sizes = torch.tensor([1.0, 0.2, 5.0, 0.7])
    grads = {name: torch.stack([torch.randn(shape) * s for s in sizes])
             for name, shape in MUON_SHAPES.items()}
    params = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    optimizer = torch.optim.Muon(params.values(), lr=1.0, momentum=0.95, nesterov=True,
                                 weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    after = {name: [] for name in params}
    for step, rate in enumerate(rates):
        for name, p in params.items():
            p.grad = grads[name][step].clone()
        optimizer.param_groups[0]["lr"] = rate.item()
        optimizer.step()
        for name, p in params.items():
            after[name].append(p.detach().clone())
    tensors = {"rates": rates}
    for name in MUON_SHAPES:
        tensors[f"start.{name}"] = start[name]
        tensors[f"grad.{name}"] = grads[name]
        tensors[f"after.{name}"] = torch.stack(after[name])
    write(tensors, "muon.safetensors")


if __name__ == "__main__":
    adamw()
    muon()
