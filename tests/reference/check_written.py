#!/usr/bin/env python3
"""Whether transformers opens the language models that the C code writes.

    make && make build/tests/data/test_model_files
    ENV/bin/python tests/reference/check_written.py
    ENV/bin/python tests/reference/check_written.py --compare WRITTEN ORIGINAL

The first form has the test program rewrite the language models of tests/golden/models; the second
compares two folders that are there. Of each pair: AutoModelForMaskedLM reports no tensor as missing,
unexpected or newly initialised, and all logits are equal (to the bit where the type was kept, else
within what the type holds).
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForMaskedLM
from transformers.utils import logging

LIMITS = {None: 0.0, "f32": 0.0, "bf16": 2e-2, "f16": 5e-3}


def logits_of(folder, ids):
    """The logits, and what the loader had to complain about."""
    model, report = AutoModelForMaskedLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True)
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    return logits, {key: value for key, value in report.items() if value}


def compare(written, original, limit):
    generator = torch.Generator().manual_seed(3)
    with open(os.path.join(original, "config.json"), encoding="utf-8") as file:
        vocabulary = json.load(file)["vocab_size"]
    ids = torch.randint(5, vocabulary, (2, 17), generator=generator)
    expected, _ = logits_of(original, ids)
    logits, report = logits_of(written, ids)
    error = ((logits - expected).norm() / expected.norm()).item()
    good = not report and error <= limit
    print(f"{'ok' if good else 'WRONG':5s} {original}: relative error {error:.3g}, "
          f"{report if report else 'nothing missing, nothing left over'}")
    return good


def rewrite(program, original, dtype):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(os.path.join(original, "config.json"), folder)
        subprocess.run([program, "write", original, folder] + ([dtype] if dtype else []),
                       check=True)
        return compare(folder, original, LIMITS[dtype])


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/tests/data/test_model_files")
    parser.add_argument("--models", default="tests/golden/models")
    parser.add_argument("--compare", nargs=2, metavar=("WRITTEN", "ORIGINAL"))
    args = parser.parse_args()
    logging.disable_progress_bar()
    if args.compare:
        good = compare(*args.compare, 0.0)
    else:
        good = all([rewrite(args.program, os.path.join(args.models, name, "language"), dtype)
                    for name in ("tiny-base", "tiny-xl") for dtype in LIMITS])
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
