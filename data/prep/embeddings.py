#!/usr/bin/python3
"""Word embeddings from counts alone, for a language model that is trained from nothing.

usage: data/prep/embeddings.py MODEL FILE.jsonl ...
  MODEL  a model folder; language/model.safetensors (f32) gets other word embeddings
  FILE   lines of {"inputs", "targets"}: training pairs

Pieces that occur in the same pair get similar vectors: their positive pointwise mutual information,
factorised (Levy and Goldberg, 2014), with a pair of sentences as the window, so that a word comes to
lie next to its translation (cross-language latent semantic indexing: Dumais et al., 1997). A model
whose output layer is its word table then says something near the right word as soon as it has learned
to look at the right place. The rows keep the size that the fresh model gave them, and a part of its
random directions, so that no two are the same. The same files give the same bytes.
Needs python3-numpy, python3-scipy and spm_encode (Debian's package sentencepiece).
"""

import json
import struct
import subprocess
import sys

import numpy as np
from scipy import sparse

RANDOM = 0.3  # share of a row's length that stays random
COMMON = 0.75  # exponent that evens out the counts of contexts
FEW = 2  # what was seen together about so many times counts half
TABLE = "roberta.embeddings.word_embeddings.weight"


def read_tensors(path):
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), bytearray(data[8 + size :]), data[: 8 + size]


def read_sides(files):
    """Lines of inputs, and of targets, without the instruction around the text."""
    sides = [], []
    for path in files:
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                try:
                    record = json.loads(line)
                    pair = record["inputs"], record["targets"]
                except (ValueError, KeyError, TypeError):
                    sys.exit(f'{path}:{number}: expected {{"inputs", "targets"}}')
                for side, text in zip(sides, pair):
                    side.append(text.replace("\n", " "))
    return sides


def count_documents(model, lines, rows):
    """[lines, rows] of 0 and 1: which ids a line has."""
    out = subprocess.run(
        ["spm_encode", f"--model={model}/language/sentencepiece.bpe.model", "--output_format=id"],
        input="\n".join(lines).encode(), stdout=subprocess.PIPE, check=True).stdout
    columns, begin = [], [0]
    for line in out.decode().split("\n")[: len(lines)]:
        # in XLM-R's order of ids; <unk>, <s> and </s> (0, 1, 2 here) do not count
        columns.extend(sorted({int(i) + 1 for i in line.split() if int(i) > 2}))
        begin.append(len(columns))
    ones = np.ones(len(columns), np.float32)
    return sparse.csr_matrix((ones, columns, begin), shape=(len(lines), rows))


def mutual_information(source, target):
    """Positive pointwise mutual information of pieces on the two sides of a pair, [rows, rows]."""
    length = np.asarray(target.sum(1)).ravel() + np.asarray(source.sum(1)).ravel()
    # long pairs say less about each two of their pieces
    weight = sparse.diags((10 / np.maximum(length, 10)).astype(np.float32))
    pairs = source.T @ (weight @ target)
    pairs = (pairs + pairs.T).tocoo()
    frequency = np.bincount(pairs.row, pairs.data, pairs.shape[0]) + 1e-9
    context = frequency**COMMON
    context /= context.sum()
    expected = frequency[pairs.row] * context[pairs.col]
    information = np.log(pairs.data / expected) * pairs.data / (pairs.data + FEW)
    keep = information > 0
    matrix = sparse.csr_matrix((information[keep].astype(np.float32),
                                (pairs.row[keep], pairs.col[keep])), shape=pairs.shape)
    return (matrix + matrix.T) / 2


def factorise(matrix, width, rng):
    """Vectors whose products come nearest to the symmetric matrix: its largest positive eigenvalues,
    by subspace iteration (Halko et al., 2011). (Those of the negative ones say that a word is on the
    one side or on the other.)"""
    basis = rng.standard_normal((matrix.shape[1], 2 * width + 64), np.float32)
    for _ in range(6):
        basis = np.linalg.qr(matrix @ basis)[0]
    values, vectors = np.linalg.eigh(basis.T @ (matrix @ basis))
    best = np.argsort(-values)[:width]
    return basis @ (vectors[:, best] * np.sqrt(np.maximum(values[best], 0)))


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__.split("\n\n")[1])
    model, files = sys.argv[1], sys.argv[2:]
    path = f"{model}/language/model.safetensors"
    header, data, head = read_tensors(path)
    if header.get(TABLE, {}).get("dtype") != "F32":
        sys.exit(f"{path}: no {TABLE} in F32; make the model with easyfirst new --dtype f32")
    first, end = header[TABLE]["data_offsets"]
    fresh = np.frombuffer(bytes(data[first:end]), np.float32).reshape(header[TABLE]["shape"])
    rows, width = fresh.shape
    rng = np.random.default_rng(1)
    source, target = (count_documents(model, lines, rows) for lines in read_sides(files))
    vectors = factorise(mutual_information(source, target), width, rng)
    # rotated, so that no place of a vector is larger than the others over all words
    vectors = vectors @ np.linalg.qr(rng.standard_normal((width, width), np.float32))[0]
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    seen = norm[:, 0] > 1e-6
    size = np.linalg.norm(fresh, axis=1, keepdims=True)
    table = fresh.copy()
    table[seen] = (np.sqrt(1 - RANDOM**2) * size * vectors / np.maximum(norm, 1e-6)
                   + RANDOM * fresh)[seen]
    data[first:end] = table.astype(np.float32).tobytes()
    with open(path, "wb") as f:
        f.write(head + data)
    print(f"{path}: {int(seen.sum())} of {rows} word embeddings from {len(files)} files")


if __name__ == "__main__":
    main()
