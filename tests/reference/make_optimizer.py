#!/usr/bin/env python3
"""Ten updates by torch.optim.AdamW with clip_grad_norm_, for tests/test_optimizer.c.

Two parts with learning rates of their own, gradients of very different size (some are clipped, some
are not), with the same decay for all and without decay for biases. Writes
tests/golden/optimizer/adamw.safetensors; see README.md for the tensors.
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


def main():
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
    folder = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                          "golden", "optimizer")
    os.makedirs(folder, exist_ok=True)
    save_file(tensors, os.path.join(folder, "adamw.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    main()
