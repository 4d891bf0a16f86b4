"""Makes the images of tests/golden/formats (WebP, GIF, BMP, AVIF, HEIC) and their expected results.
Run by hand, from the repository's root:

    python3 tests/reference/make_formats.py

Needs Pillow, numpy, and pillow-heif for HEIC. The committed files were made with Pillow 13.0 and
pillow-heif 1.8 (libheif 1.23).

GIF and BMP files are put together here, as Pillow writes few of their kinds.

Other files:
    expected.tsv  for each exact format: size and CRC-32 of the RGB bytes as stored, and upright
    near.tsv      for AVIF and HEIC: the largest difference and the mean difference that are allowed
                  from NAME.png, which has Pillow's pixels. Their colors are converted from YCbCr by
                  libraries that round differently (libavif, libheif), and upsample color planes of
                  half the size by interpolation or by repetition
"""

import binascii
import io
import struct
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageOps

FOLDER = Path("tests/golden/formats")
exact, near = [], []


def scene(width, height, seed, smooth=False):
    """Gradients, discs and stripes, the alpha too: uint8 [height, width, 4]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(float)
    u, v = x / max(width - 1, 1), y / max(height - 1, 1)
    image = np.empty((height, width, 4))
    for c in range(4):
        a, b, d = rng.uniform(-150, 150, 3)
        image[..., c] = 128 + a * (u - 0.5) + b * (v - 0.5) + d * (u - 0.5) * (v - 0.5)
    if not smooth:
        for _ in range(4):
            cx, cy, r = rng.uniform(0, 1, 3) * (1, 1, 0.3)
            image[(u - cx) ** 2 + (v - cy) ** 2 < r * r] = rng.uniform(-40, 295, 4)
    return np.clip(image, 0, 255).astype(np.uint8)


def over_white(image):
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, (0, 0), image)
    return white


def crc(image):
    return f"{binascii.crc32(image.tobytes()):08x}"


def write(name, data):
    (FOLDER / name).write_bytes(data)


def expect(name, stored=None):
    """Pillow's pixels, blended over white, unless others are given."""
    if stored is None:
        stored = over_white(Image.open(FOLDER / name))
        upright = over_white(ImageOps.exif_transpose(Image.open(FOLDER / name)))
    else:
        upright = stored
    exact.append((name, *stored.size, crc(stored), *upright.size, crc(upright)))


def tiff(orientation):
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIII", 0x112, 3, 1, orientation, 0)


def xmp(orientation):
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a xmlns:tiff="http://ns.adobe.com/tiff/1.0/" ' + (
        b'tiff:Orientation="%d"/></x:xmpmeta>' % orientation
    )


# --------------------------------------------------------------------------------------------- WebP


def make_webp():
    def webp(name, mode, width, height, seed, **options):
        image = Image.fromarray(scene(width, height, seed)).convert(mode)
        image.save(FOLDER / f"{name}.webp", **options)
        expect(f"{name}.webp")

    webp("lossy", "RGB", 20, 37, 1, quality=80)
    webp("lossy_low", "RGB", 33, 17, 2, quality=5)
    webp("lossy_best", "RGB", 31, 29, 3, quality=100)
    webp("lossy_alpha", "RGBA", 20, 37, 4, quality=70)
    webp("lossy_alpha_exact", "RGBA", 19, 23, 5, quality=70, exact=True)
    webp("lossy_alpha_coarse", "RGBA", 21, 16, 6, quality=70, alpha_quality=10)
    webp("lossy_1x1", "RGB", 1, 1, 7, quality=80)
    webp("lossy_1x50", "RGB", 1, 50, 8, quality=80)
    webp("lossy_gray", "L", 23, 31, 9, quality=80)
    webp("lossless", "RGB", 20, 37, 10, lossless=True)
    webp("lossless_alpha", "RGBA", 37, 20, 11, lossless=True)
    webp("lossless_alpha_exact", "RGBA", 13, 21, 12, lossless=True, exact=True)
    webp("lossless_1x1", "RGBA", 1, 1, 13, lossless=True)
    webp("lossless_61x1", "RGB", 61, 1, 14, lossless=True)
    webp("lossless_large", "RGB", 300, 211, 15, lossless=True)
    few = Image.fromarray(scene(40, 9, 16) & 0xC0).convert("RGB")
    few.save(FOLDER / "lossless_few_colors.webp", lossless=True)
    expect("lossless_few_colors.webp")
    for orientation in (3, 5, 6):
        webp(f"exif{orientation}", "RGB", 17, 10, 16 + orientation, lossless=True, exif=tiff(orientation))
    webp("exif8_lossy_alpha", "RGBA", 18, 11, 25, quality=75, exif=tiff(8))
    webp("xmp7", "RGB", 17, 10, 26, lossless=True, xmp=xmp(7))
    webp("exif2_xmp5", "RGB", 17, 10, 27, lossless=True, exif=tiff(2), xmp=xmp(5))
    webp("profile", "RGB", 12, 14, 28, quality=80, icc_profile=bytes(range(200)))
    for name, mode in (("animated", "RGB"), ("animated_alpha", "RGBA")):
        frames = [Image.fromarray(scene(24, 19, 30 + i)).convert(mode) for i in range(3)]
        frames[0].save(
            FOLDER / f"{name}.webp", save_all=True, append_images=frames[1:], duration=50, lossless=True
        )
        expect(f"{name}.webp")
    for name, flags in (("animated_part", 2), ("animated_part_alpha", 2 | 16)):
        # The first frame covers a part of the canvas.
        still = io.BytesIO()
        Image.fromarray(scene(10, 7, 34)).save(still, "WEBP", lossless=True)
        chunk = still.getvalue()[12:]
        chunk = chunk[chunk.index(b"VP8L") :]
        u24 = lambda n: struct.pack("<I", n)[:3]
        frame = u24(3) + u24(2) + u24(9) + u24(6) + u24(40) + b"\0" + chunk
        body = b"VP8X" + struct.pack("<IB", 10, flags) + bytes(3) + u24(22) + u24(17)
        body += b"ANIM" + struct.pack("<I", 6) + b"\x10\x20\x30\xff\0\0"
        body += b"ANMF" + struct.pack("<I", len(frame)) + frame
        write(f"{name}.webp", b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body)
        expect(f"{name}.webp")


# ---------------------------------------------------------------------------------------------- GIF


def lzw(indices, bits, clear_every=0):
    """GIF's compression; the table is cleared after so many codes, too."""
    clear, end = 1 << bits, (1 << bits) + 1
    out, have, width = 0, 0, bits + 1
    table = {}

    def emit(code):
        nonlocal out, have
        out |= code << have
        have += width

    def reset():
        nonlocal width, table
        emit(clear)
        width, table = bits + 1, {(i,): i for i in range(clear)}

    reset()
    number, codes, word = end + 1, 0, ()
    for index in indices:
        if word + (index,) in table:
            word += (index,)
            continue
        emit(table[word])
        codes += 1
        if number < 4096:
            table[word + (index,)] = number
            number += 1
            if number > 1 << width and width < 12:
                width += 1
        if (clear_every and codes % clear_every == 0) or number == 4096:
            reset()
            number = end + 1
        word = (index,)
    emit(table[word])
    emit(end)
    data = out.to_bytes((have + 7) // 8, "little")
    return b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255)) + b"\0"


def gif_frame(indices, bits, left=0, top=0, palette=None, interlaced=False, clear_every=0):
    height, width = indices.shape
    flags = (0x80 | (len(palette) // 3).bit_length() - 2 if palette else 0) | (0x40 if interlaced else 0)
    rows = list(range(height))
    if interlaced:
        rows = [y for first, step in ((0, 8), (4, 8), (2, 4), (1, 2)) for y in range(first, height, step)]
    data = lzw([int(i) for y in rows for i in indices[y]], max(bits, 2), clear_every)
    head = b"," + struct.pack("<HHHHB", left, top, width, height, flags)
    return head + (palette or b"") + bytes([max(bits, 2)]) + data


def gif(name, size, frames, palette=None, background=0, version=b"GIF89a"):
    flags = 0x80 | (len(palette) // 3).bit_length() - 2 if palette else 0
    data = version + struct.pack("<HHBBB", *size, flags, background, 0)
    write(f"{name}.gif", data + (palette or b"") + b"".join(frames) + b";")
    expect(f"{name}.gif")


def control(transparent=None, dispose=0, delay=5):
    flags = dispose << 2 | (transparent is not None)
    return b"!\xf9\x04" + struct.pack("<BHB", flags, delay, transparent or 0) + b"\0"


def make_gif():
    def indices(width, height, bits, seed):
        return scene(width, height, seed)[..., 0] >> (8 - bits)

    def colors(bits, seed):
        return np.random.default_rng(seed).integers(0, 256, 3 << bits, dtype=np.uint8).tobytes()

    for bits in (1, 2, 3, 4, 6, 7, 8):
        gif(f"global{bits}", (20, 37), [gif_frame(indices(20, 37, bits, bits), bits)], colors(bits, bits))
    gif("version87", (13, 11), [gif_frame(indices(13, 11, 4, 9), 4)], colors(4, 9), version=b"GIF87a")
    gif("local", (19, 8), [gif_frame(indices(19, 8, 5, 10), 5, palette=colors(5, 10))])
    gif("local_over_global", (19, 8), [gif_frame(indices(19, 8, 5, 11), 5, palette=colors(5, 11))], colors(2, 1))
    gif("gray_without_palette", (15, 16), [gif_frame(indices(15, 16, 8, 12), 8)])
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes()
    gif("gray_ramp", (15, 16), [gif_frame(indices(15, 16, 8, 13), 8)], ramp)
    for height in (1, 2, 5, 37):
        frame = gif_frame(indices(20, height, 4, 14 + height), 4, interlaced=True)
        gif(f"interlaced{height}", (20, height), [frame], colors(4, 14))
    gif("transparent", (21, 17), [control(5), gif_frame(indices(21, 17, 3, 20), 3)], colors(3, 20))
    gif(
        "transparent_interlaced",
        (21, 17),
        [control(2), gif_frame(indices(21, 17, 3, 21), 3, interlaced=True)],
        colors(3, 21),
    )
    part = indices(9, 7, 3, 22)
    gif("part", (20, 15), [gif_frame(part, 3, 6, 4)], colors(3, 22), background=3)
    gif("part_transparent", (20, 15), [control(4), gif_frame(part, 3, 6, 4)], colors(3, 23))
    gif("part_local", (20, 15), [gif_frame(part, 3, 0, 8, colors(3, 24), True)], colors(4, 25))
    gif("beyond_canvas", (12, 9), [gif_frame(part, 3, 6, 4)], colors(3, 26))
    gif("canvas_of_zero", (0, 0), [gif_frame(part, 3)], colors(3, 27))
    second = gif_frame(indices(20, 15, 3, 28), 3)
    loop = b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    note = b"!\xfe\x05hello\x03abc\0"
    text = b"!\x01\x0c" + bytes(12) + b"\x02hi\0"
    first = gif_frame(indices(20, 15, 3, 29), 3)
    gif("animated", (20, 15), [loop, control(None, 2), first, control(1), second], colors(3, 28))
    gif("extensions", (20, 15), [note, loop, text, control(6), note, first], colors(3, 29))
    gif("clears", (41, 30), [gif_frame(indices(41, 30, 8, 30), 8, clear_every=50)], colors(8, 30))
    noise = np.random.default_rng(31).integers(0, 256, (90, 101), dtype=np.uint8)
    gif("table_full", (101, 90), [gif_frame(noise, 8)], colors(8, 31))
    Image.fromarray(scene(35, 26, 32)).convert("RGB").quantize(50).save(FOLDER / "pillow.gif")
    expect("pillow.gif")


# ---------------------------------------------------------------------------------------------- BMP


def bmp_bytes(
    size, bits, data, header=40, compression=0, palette=b"", masks=(), used=0, top_down=False, offset=None, gap=0
):
    width, height = size
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        signed = -height if top_down else height
        info = struct.pack("<IiiHHIIiiII", header, width, signed, 1, bits, compression, len(data), 0, 0, used, 0)
        extra = struct.pack(f"<{len(masks)}I", *masks)
        info += extra + bytes(max(0, header - len(info) - len(extra)))
    at = 14 + len(info) + len(palette) + gap
    start = at if offset is None else offset
    return b"BM" + struct.pack("<IHHI", at + len(data), 0, 0, start) + info + palette + bytes(gap) + data


def bmp(name, *arguments, expected=None, **named):
    write(f"{name}.bmp", bmp_bytes(*arguments, **named))
    expect(f"{name}.bmp", expected)


def rows(values, bits):
    """[height, width] of pixels as rows of whole words, the last row first."""
    out = b""
    for row in values[::-1]:
        if bits < 8:
            joined = "".join(format(int(v), f"0{bits}b") for v in row)
            packed = bytes(int(joined[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(joined), 8))
        else:
            packed = b"".join(int(v).to_bytes(bits // 8, "little") for v in row)
        out += packed + bytes(-len(packed) % 4)
    return out


def make_bmp():
    def colors(count, each, seed):
        rng = np.random.default_rng(seed)
        return b"".join(bytes(rng.integers(0, 256, 3, dtype=np.uint8)) + bytes(each - 3) for _ in range(count))

    def field(values, mask):
        """8-bit values as bits of this mask, the upper ones."""
        low = (mask & -mask).bit_length() - 1
        count = (mask >> low).bit_length()
        return (values.astype(np.int64) >> (8 - count)) << low

    for bits in (1, 4, 8):
        index = scene(21, 18, bits)[..., 0] >> (8 - bits)
        bmp(f"palette{bits}", (21, 18), bits, rows(index, bits), palette=colors(1 << bits, 4, bits))
        os2 = {"header": 12, "palette": colors(1 << bits, 3, 10 + bits)}
        bmp(f"palette{bits}_os2", (21, 18), bits, rows(index, bits), **os2)
    index = scene(13, 20, 20)[..., 0]
    bmp("few_colors", (13, 20), 8, rows(index % 37, 8), palette=colors(37, 4, 20), used=37)
    bmp("palette_top_down", (13, 20), 8, rows(index[::-1], 8), palette=colors(256, 4, 21), top_down=True)
    bmp("palette_header64", (13, 20), 8, rows(index, 8), header=64, palette=colors(256, 4, 22))
    bmp("palette_gap", (13, 20), 8, rows(index, 8), palette=colors(256, 4, 23), gap=7)
    bmp("palette_offset", (13, 20), 8, rows(index, 8), palette=colors(256, 4, 24), offset=54)
    bmp("palette_no_offset", (13, 20), 8, rows(index, 8), palette=colors(256, 4, 25), offset=0)
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 4).reshape(-1, 4) * (1, 1, 1, 0)
    bmp("gray", (13, 20), 8, rows(index, 8), palette=ramp.astype(np.uint8).tobytes())

    red, green, blue, alpha = (scene(19, 22, 30)[..., c] for c in range(4))

    def packed(masks):
        return sum(field(c, m) for c, m in zip((red, green, blue, alpha), masks) if m)

    size = (19, 22)
    of_24 = packed((0xFF0000, 0xFF00, 0xFF))
    bmp("rgb24", size, 24, rows(of_24, 24))
    bmp("rgb24_os2", size, 24, rows(of_24, 24), header=12)
    bmp("rgb24_top_down", size, 24, rows(of_24[::-1], 24), top_down=True)
    bmp("rgb24_1x1", (1, 1), 24, rows(of_24[:1, :1], 24))
    bmp("rgb32", size, 32, rows(packed((0xFF0000, 0xFF00, 0xFF, 0xFF000000)), 32))
    bmp("rgb16", size, 16, rows(packed((0x7C00, 0x3E0, 0x1F)), 16))
    for name, bits, header, masks in (
        ("fields565", 16, 40, (0xF800, 0x7E0, 0x1F)),
        ("fields555", 16, 52, (0x7C00, 0x3E0, 0x1F)),
        ("fields565_v4", 16, 108, (0xF800, 0x7E0, 0x1F, 0)),
        ("fields_bgrx", 32, 40, (0xFF0000, 0xFF00, 0xFF)),
        ("fields_xbgr", 32, 56, (0xFF000000, 0xFF0000, 0xFF00, 0)),
        ("fields_bgra", 32, 124, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
        ("fields_rgba", 32, 108, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
        ("fields_abgr", 32, 56, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
    ):
        bmp(name, size, bits, rows(packed(masks), bits), header=header, compression=3, masks=masks)
    zero = rows(packed((0xFF0000, 0xFF00, 0xFF, 0xFF000000)), 32)
    bmp("fields_zero", size, 32, zero, header=56, compression=3, masks=(0, 0, 0, 0))
    # Not Pillow's: other masks are refused there, and an alpha of 0 everywhere hides the image.
    plain = Image.fromarray(np.dstack([red, green, blue]))
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    opaque = rows(packed(masks[:3]), 32)
    bmp("fields_no_alpha", size, 32, opaque, header=124, compression=3, masks=masks, expected=plain)
    masks = (0x3F0000, 0x3F00, 0x3F)
    six = np.dstack([(c >> 2).astype(int) * 255 // 63 for c in (red, green, blue)]).astype(np.uint8)
    data = rows(packed(masks), 32)
    bmp("fields666", size, 32, data, compression=3, masks=masks, expected=Image.fromarray(six))

    runs = (
        b"\x05\x07\x00\x06\x01\x02\x03\x04\x05\x06\0\0"  # 5 of 7, 1 to 6, the rest 0
        b"\x0b\x10\0\0"
        b"\x03\x09\0\x02\x04\x01\x02\x08\0\0"  # 3 of 9; 4 to the right, one row up; 2 of 8
        b"\0\x03\x01\x02\x03\0\x08\x04\0\0"
        b"\x0b\x05\0\x01"
    )
    bmp("rle8", (11, 6), 8, runs, compression=1, palette=colors(256, 4, 40))
    runs = b"\x05\x7a\0\x05\x12\x34\x50\0\x03\x6b\0\0\x0d\x30\0\0\x06\xc1\0\x07\x12\x34\x56\x70\0\0\x0d\x45\0\x01"
    bmp("rle4", (13, 4), 4, runs, compression=2, palette=colors(16, 4, 41))
    run = b"\x07\x02\x09\x03\0\0\x0b\x04\0\0\x0b\x05\0\x01"
    bmp("rle8_long_run", (11, 3), 8, run, compression=1, palette=colors(9, 4, 42), used=9)
    # Not Pillow's, which refuses an end before the last pixel: color 0.
    palette = colors(16, 4, 43)
    table = np.frombuffer(palette, np.uint8).reshape(16, 4)[:, 2::-1]
    index = np.zeros((5, 6), int)
    index[4, :4] = 3
    early = Image.fromarray(np.ascontiguousarray(table[index]))
    bmp("rle4_end", (6, 5), 4, b"\x04\x33\0\x01", compression=2, palette=palette, expected=early)


# ------------------------------------------------------------------------------------- AVIF and HEIC


def expect_near(name, most, mean):
    image = over_white(ImageOps.exif_transpose(Image.open(FOLDER / name)))
    image.save(FOLDER / f"{name}.png", optimize=True)
    near.append((name, most, mean))


def make_avif():
    def avif(name, mode, width, height, seed, most, mean, smooth=False, **options):
        image = Image.fromarray(scene(width, height, seed, smooth)).convert(mode)
        image.save(FOLDER / f"{name}.avif", speed=8, **options)
        expect_near(f"{name}.avif", most, mean)

    for quality in (10, 50, 80, 100):
        avif(f"full{quality}", "RGB", 20, 37, quality, 2, 0.6, quality=quality, subsampling="4:4:4")
    avif("limited", "RGB", 21, 18, 1, 2, 0.8, subsampling="4:4:4", range="limited")
    avif("half", "RGB", 24, 21, 2, 12, 3, True, subsampling="4:2:0")
    avif("half_limited", "RGB", 25, 20, 3, 12, 3, True, subsampling="4:2:0", range="limited")
    avif("half_wide", "RGB", 26, 19, 4, 12, 3, True, subsampling="4:2:2")
    avif("edges", "RGB", 27, 22, 5, 100, 8, subsampling="4:2:0")
    avif("gray", "L", 19, 23, 6, 1, 0.3, subsampling="4:0:0")
    avif("alpha", "RGBA", 20, 37, 7, 2, 0.6, quality=80, subsampling="4:4:4")
    avif("alpha_premultiplied", "RGBA", 22, 13, 8, 3, 0.6, quality=90, subsampling="4:4:4", alpha_premultiplied=True)
    avif("alpha_half", "RGBA", 23, 24, 9, 12, 3, True, subsampling="4:2:0")
    avif("one", "RGB", 1, 1, 10, 2, 1, subsampling="4:4:4")
    avif("tall", "RGB", 1, 50, 11, 2, 0.6, subsampling="4:4:4")
    avif("large", "RGB", 300, 211, 12, 2, 0.6, True, quality=60, subsampling="4:4:4")
    for orientation in (2, 3, 5, 6, 7, 8):
        avif(
            f"turned{orientation}", "RGB", 18, 11, 20 + orientation, 2, 0.6, subsampling="4:4:4", exif=tiff(orientation)
        )
    frames = [Image.fromarray(scene(20, 15, 30 + i)).convert("RGB") for i in range(3)]
    more = {"save_all": True, "append_images": frames[1:], "duration": 50, "subsampling": "4:4:4"}
    frames[0].save(FOLDER / "animated.avif", **more)
    expect_near("animated.avif", 2, 0.6)


def make_heic():
    pillow_heif.register_heif_opener()

    def heic(name, mode, width, height, seed, most, mean, smooth=False, **options):
        image = Image.fromarray(scene(width, height, seed, smooth)).convert(mode)
        image.save(FOLDER / f"{name}.heic", **options)
        expect_near(f"{name}.heic", most, mean)

    for quality in (10, 50, 80, 100):
        heic(f"full{quality}", "RGB", 20, 37, quality, 1, 0.2, quality=quality, chroma=444)
    for seed, (width, height) in enumerate([(64, 64), (65, 64), (33, 47), (1, 50), (50, 1), (2, 2)]):
        heic(f"size{width}x{height}", "RGB", width, height, 40 + seed, 1, 0.2, chroma=444)
    heic("half", "RGB", 24, 21, 2, 2, 0.2, True, chroma=420)
    heic("half_wide", "RGB", 26, 19, 4, 2, 0.2, True, chroma=422)
    heic("edges", "RGB", 27, 22, 5, 2, 0.2, chroma=420)
    heic("gray", "L", 19, 23, 6, 1, 0.2)
    heic("alpha", "RGBA", 20, 37, 7, 1, 0.2, quality=80, chroma=444)
    heic("large", "RGB", 300, 211, 12, 1, 0.2, True, quality=60, chroma=444)
    for orientation in (2, 3, 6, 7, 8):
        heic(f"turned{orientation}", "RGB", 18, 11, 20 + orientation, 1, 0.2, chroma=444, exif=tiff(orientation))
    deep = scene(23, 20, 50)[..., :3].astype(np.uint16) * 256 + 128
    for bits in (10, 12):
        file = pillow_heif.from_bytes(mode="RGB;16", size=(23, 20), data=deep.tobytes())
        pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
        file.save(FOLDER / f"deep{bits}.heic", quality=80, chroma=444)
        expect_near(f"deep{bits}.heic", 1, 0.2)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    make_webp()
    make_gif()
    make_bmp()
    make_avif()
    make_heic()
    with open(FOLDER / "expected.tsv", "w") as table:
        table.write("# made by tests/reference/make_formats.py\n")
        table.write("# file\twidth\theight\tcrc\tupright width\theight\tcrc\n")
        for row in exact:
            table.write("\t".join(map(str, row)) + "\n")
    with open(FOLDER / "near.tsv", "w") as table:
        table.write("# made by tests/reference/make_formats.py\n")
        table.write("# file\tlargest difference\tmean difference\n")
        for row in near:
            table.write("\t".join(map(str, row)) + "\n")


main()
