"""Makes the images of tests/golden/images and their expected results. Run by hand, from
the repository's root:

    python3 tests/reference/make_images.py [folder with the real photographs, ../shared/data/images]

Needs Pillow and numpy. The committed files were made with Pillow 13.0, libjpeg-turbo 3.2 and
numpy 2.4; Pillow 12.1 makes the same.

PNG files are put together here, chunk by chunk, because Pillow writes neither 2-bit gray, nor
16-bit color, nor interlaced files. JPEG files are Pillow's; kinds that it does not write are made
by changing the headers of kinds that it does (they then look odd, which no decoder minds).

Other files:
    expected.tsv  for each image its stored size and CRC-32 of its RGB bytes, the same after the
                  EXIF orientation, and CRC-32 of the 224x224 crops, without and with padding
    floats.tsv    single values of the preprocessed images
"""

import binascii
import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FOLDER = Path("tests/golden/images")
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

Image.MAX_IMAGE_PIXELS = None
expected = {}  # file name -> (stored picture, upright picture)


def scene(width, height, seed):
    """An image with gradients, edges, fine stripes and a little noise: uint8 [height, width, 4]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(float)
    u, v = x / max(width - 1, 1), y / max(height - 1, 1)
    picture = np.empty((height, width, 4))
    for c in range(4):
        a, b, d = rng.uniform(-150, 150, 3)
        picture[..., c] = 128 + a * (u - 0.5) + b * (v - 0.5) + d * (u - 0.5) * (v - 0.5)
    for _ in range(6):
        cx, cy, r = rng.uniform(0, 1, 3) * (1, 1, 0.3)
        picture[(u - cx) ** 2 + (v - cy) ** 2 < r * r] = rng.uniform(-40, 295, 4)
    striped = (u > 0.55) & (v > 0.6)
    picture[striped & ((x + 2 * y) % 5 < 2)] = rng.uniform(0, 255, 4)
    return np.clip(picture + rng.normal(0, 1.5, picture.shape), 0, 255).astype(np.uint8)


def deep(eight, seed):
    """16-bit samples whose upper bytes are the given 8-bit samples."""
    rng = np.random.default_rng(seed)
    return eight.astype(np.uint16) * 256 + rng.integers(0, 256, eight.shape, dtype=np.uint16)


# ---------------------------------------------------------------------------------------------- PNG

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# The first column, the first row and the steps of each of the seven passes.
ADAM7 = ["0088", "4088", "0448", "2044", "0224", "1022", "0112"]


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", binascii.crc32(body))


def packed_rows(samples, depth):
    """The bytes of each row: [height, bytes]."""
    height, width, channels = samples.shape
    if depth == 16:
        return samples.astype(">u2").view(np.uint8).reshape(height, -1)
    if depth == 8:
        return samples.astype(np.uint8).reshape(height, -1)
    per_byte = 8 // depth
    padded = np.zeros((height, -(-width // per_byte) * per_byte), np.uint8)
    padded[:, :width] = samples[..., 0]
    shifts = np.arange(per_byte)[::-1] * depth
    return (padded.reshape(height, -1, per_byte) << shifts).sum(2).astype(np.uint8)


def filtered(rows, step):
    """Rows with all five filters in turn. `step` is the number of bytes of a pixel, at least 1."""
    out = bytearray()
    above = np.zeros(rows.shape[1], int)
    for i, row in enumerate(rows.astype(int)):
        left = np.concatenate([np.zeros(step, int), row])[: row.size]
        corner = np.concatenate([np.zeros(step, int), above])[: row.size]
        guess = left + above - corner
        da, db, dc = abs(guess - left), abs(guess - above), abs(guess - corner)
        paeth = np.where((da <= db) & (da <= dc), left, np.where(db <= dc, above, corner))
        predicted = [0 * row, left, above, (left + above) // 2, paeth][i % 5]
        out.append(i % 5)
        out += ((row - predicted) % 256).astype(np.uint8).tobytes()
        above = row
    return bytes(out)


def png(
    name, samples, depth, colour, palette=None, trns=None, interlaced=False, before=b"", after=b""
):
    samples = samples.reshape(*samples.shape[:2], CHANNELS[colour])
    height, width = samples.shape[:2]
    step = max(1, depth * CHANNELS[colour] // 8)
    if interlaced:
        passes = [samples[y::dy, x::dx] for x, y, dx, dy in (map(int, p) for p in ADAM7)]
        data = b"".join(filtered(packed_rows(p, depth), step) for p in passes if p.size)
    else:
        data = filtered(packed_rows(samples, depth), step)
    data = zlib.compress(data, 9)
    file = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    file += chunk(b"IHDR", header)
    # A gamma and a text that must change nothing.
    file += chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"tEXt", b"Comment\0none")
    if palette is not None:
        file += chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    if trns is not None:
        file += chunk(b"tRNS", trns)
    file += before
    # Two IDAT chunks, cut in the middle: decoders have to join them.
    file += chunk(b"IDAT", data[: len(data) // 2]) + chunk(b"IDAT", data[len(data) // 2 :])
    file += after + chunk(b"IEND", b"")
    (FOLDER / name).write_bytes(file)


def add_opaque(name):
    """Expect Pillow's result for an image without transparency."""
    picture = Image.open(FOLDER / name).convert("RGB")
    expected[name] = (picture, ImageOps.exif_transpose(Image.open(FOLDER / name)).convert("RGB"))


def add_truth(name, rgb, alpha, compare):
    """Expect rgb blended over white. `compare`: Pillow must agree on the colours, the alpha too."""
    rgb = np.broadcast_to(rgb, (*alpha.shape, 3)).astype(np.uint8)
    picture = Image.new("RGB", alpha.shape[::-1], "white")
    picture.paste(Image.fromarray(rgb), mask=Image.fromarray(alpha.astype(np.uint8)))
    expected[name] = (picture, picture)
    if compare:
        pillow = np.asarray(Image.open(FOLDER / name).convert("RGBA"))
        assert (pillow[..., 3] == alpha).all(), name
        assert (pillow[..., :3] == rgb).all(), name


def make_png():
    for depth, width, height in [(1, 13, 7), (2, 30, 21), (4, 33, 50), (8, 225, 224)]:
        grey = scene(width, height, depth)[..., 0] >> (8 - depth)
        png(f"grey{depth}.png", grey, depth, 0)
        add_opaque(f"grey{depth}.png")
        picture = np.asarray(expected[f"grey{depth}.png"][0])
        assert (picture == (grey * (255 // (2**depth - 1)))[..., None]).all()

    # Pillow clips 16-bit grey at 255 when it converts to RGB; ours is the upper byte.
    grey = scene(64, 48, 16)[..., 0]
    png("grey16.png", deep(grey, 1), 16, 0)
    add_truth("grey16.png", grey[..., None], np.full(grey.shape, 255), False)

    for depth, width, height in [(1, 17, 5), (2, 5, 17), (4, 31, 9), (8, 223, 337)]:
        palette = scene(2**depth, 1, 20 + depth)[0, :, :3]
        index = scene(width, height, 30 + depth)[..., 0] >> (8 - depth)
        png(f"palette{depth}.png", index, depth, 3, palette)
        add_opaque(f"palette{depth}.png")
        assert (np.asarray(expected[f"palette{depth}.png"][0]) == palette[index]).all()

    for interlaced in (False, True):
        name = "palette8_alpha_interlaced.png" if interlaced else "palette8_alpha.png"
        palette = scene(200, 1, 40)[0]
        index = scene(60, 45, 41)[..., 1].astype(int) * 199 // 255
        # Fewer alphas than colours: the others are opaque.
        png(name, index, 8, 3, palette[:, :3], palette[:150, 3].tobytes(), interlaced)
        alpha = np.where(index < 150, palette[index, 3], 255)
        add_truth(name, palette[index, :3], alpha, True)

    eight = scene(50, 40, 50)
    png("grey8_alpha.png", eight[..., :2], 8, 4)
    add_truth("grey8_alpha.png", eight[..., :1], eight[..., 1], True)
    png("grey16_alpha.png", deep(eight[..., :2], 2), 16, 4)
    add_truth("grey16_alpha.png", eight[..., :1], eight[..., 1], True)
    png("rgba8.png", eight, 8, 6)
    add_truth("rgba8.png", eight[..., :3], eight[..., 3], True)
    png("rgba8_interlaced.png", eight, 8, 6, interlaced=True)
    add_truth("rgba8_interlaced.png", eight[..., :3], eight[..., 3], True)
    png("rgba16.png", deep(eight, 3), 16, 6)
    add_truth("rgba16.png", eight[..., :3], eight[..., 3], True)

    for name, width, height in [
        ("rgb8_1x1.png", 1, 1),
        ("rgb8_3x1000.png", 3, 1000),
        ("rgb8_1000x2.png", 1000, 2),
        ("rgb8_224x224.png", 224, 224),
        ("rgb8_7x225.png", 7, 225),
    ]:
        eight = scene(width, height, width + height)[..., :3]
        png(name, eight, 8, 2)
        add_opaque(name)
        assert (np.asarray(expected[name][0]) == eight).all()
    strip = np.zeros((10, 20000, 3), np.uint8)
    strip[..., 0] = np.arange(20000) // 80
    strip[..., 1] = (np.arange(20000) // 7 % 2) * 255
    strip[..., 2] = np.arange(10)[:, None] * 25
    png("rgb8_20000x10.png", strip, 8, 2)
    add_opaque("rgb8_20000x10.png")

    # One colour is transparent. It is compared at full depth: with 16 bits, a colour that differs
    # from it in its lower byte only is opaque. (Pillow compares the upper bytes.)
    eight = scene(40, 31, 60)[..., :3] & 0xF0
    png("rgb8_key.png", eight, 8, 2, trns=struct.pack(">3H", *eight[5, 5].tolist()))
    add_truth("rgb8_key.png", eight, np.where((eight == eight[5, 5]).all(2), 0, 255), True)
    wide = eight.astype(np.uint16) * 256 + (np.arange(40, dtype=np.uint16) % 2)[None, :, None]
    png("rgb16_key.png", wide, 16, 2, trns=struct.pack(">3H", *wide[5, 5].tolist()))
    add_truth("rgb16_key.png", eight, np.where((wide == wide[5, 5]).all(2), 0, 255), False)
    png("rgb16.png", deep(eight, 4), 16, 2)
    add_opaque("rgb16.png")
    assert (np.asarray(expected["rgb16.png"][0]) == eight).all()
    grey = eight[..., 0] >> 6
    png("grey2_key.png", grey, 2, 0, trns=struct.pack(">H", int(grey[5, 5])))
    # Pillow compares the key with the samples as widened to 8 bits.
    add_truth("grey2_key.png", grey[..., None] * 85, np.where(grey == grey[5, 5], 0, 255), False)
    wide = wide[..., 0]
    png("grey16_key.png", wide, 16, 0, trns=struct.pack(">H", int(wide[5, 5])))
    add_truth("grey16_key.png", eight[..., :1], np.where(wide == wide[5, 5], 0, 255), False)

    # The smallest sizes of interlacing leave some of the seven passes empty.
    for width, height in [(1, 1), (2, 3), (5, 1), (37, 29)]:
        name = f"rgb8_interlaced_{width}x{height}.png"
        png(name, scene(width, height, 70)[..., :3], 8, 2, interlaced=True)
        add_opaque(name)
    png("grey1_interlaced.png", scene(9, 11, 71)[..., 0] >> 7, 1, 0, interlaced=True)
    add_opaque("grey1_interlaced.png")

    eight = scene(21, 13, 80)[..., :3]
    png("exif_before.png", eight, 8, 2, before=chunk(b"eXIf", tiff("<", 6)))
    png("exif_after.png", eight, 8, 2, after=chunk(b"eXIf", tiff(">", 8)))
    add_opaque("exif_before.png")
    add_opaque("exif_after.png")


# --------------------------------------------------------------------------------------------- JPEG


def tiff(order, orientation, kind=3):
    """An EXIF block of three tags in byte order "<" or ">", the orientation as short or long."""
    value = struct.pack(order + ("H2x" if kind == 3 else "I"), orientation)
    entries = struct.pack(order + "HHI4s", 0x010F, 2, 4, b"cam\0")
    entries += struct.pack(order + "HHI4s", 0x0112, kind, 1, value)
    entries += struct.pack(order + "HHI4s", 0x0128, 3, 1, struct.pack(order + "H2x", 2))
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + "H", 3) + entries + struct.pack(order + "I", 0)


def segments(file):
    """The (marker, start, length) of each segment before the scan's data."""
    at = 2
    while True:
        marker, length = file[at + 1], struct.unpack(">H", file[at + 2 : at + 4])[0]
        yield marker, at, length + 2
        if marker == 0xDA:
            return
        at += length + 2


def jpeg(name, mode, width, height, seed, quality=75, exif=None, change=None, **options):
    channels = {"L": 1, "RGB": 3, "CMYK": 4}[mode]
    samples = scene(width, height, seed)[..., :channels]
    picture = Image.frombytes(mode, (width, height), samples.tobytes())
    out = io.BytesIO()
    if exif is not None:
        options["exif"] = b"Exif\0\0" + exif
    picture.save(out, "JPEG", quality=quality, **options)
    file = bytearray(out.getvalue())
    if change:
        file = change(file)
    (FOLDER / name).write_bytes(bytes(file))
    add_opaque(name)


def sampling(width, height, factors):
    """Declares another size and other sampling factors of the first component. Both have to leave
    the number of blocks of an MCU and the number of MCUs as they were."""

    def change(file):
        for marker, at, _ in segments(file):
            if marker == 0xC0:
                file[at + 5 : at + 9] = struct.pack(">HH", height, width)
                file[at + 11] = factors
        return file

    return change


def adobe(transform):
    """Declares another colour transform in the Adobe segment, or takes the segment out (None)."""

    def change(file):
        for marker, at, length in list(segments(file)):
            if marker == 0xEE:
                if transform is None:
                    del file[at : at + length]
                else:
                    file[at + 15] = transform
                return file
        raise AssertionError("no Adobe segment")

    return change


def make_jpeg():
    jpeg("grey.jpg", "L", 97, 61, 100)
    jpeg("grey_progressive.jpg", "L", 61, 97, 101, progressive=True)
    jpeg("one.jpg", "RGB", 1, 1, 102)
    jpeg("ycc444.jpg", "RGB", 225, 224, 103, subsampling="4:4:4")
    jpeg("ycc422.jpg", "RGB", 641, 479, 104, quality=60, subsampling="4:2:2")
    jpeg("ycc420.jpg", "RGB", 223, 337, 105, subsampling="4:2:0")
    jpeg("ycc420_tall.jpg", "RGB", 260, 1100, 104, quality=50)
    jpeg("ycc420_even.jpg", "RGB", 64, 48, 106, quality=95, subsampling="4:2:0")
    jpeg("ycc420_progressive.jpg", "RGB", 479, 641, 107, quality=50, progressive=True)
    jpeg("ycc420_restart.jpg", "RGB", 150, 99, 108, restart_marker_blocks=3)
    jpeg("ycc420_high.jpg", "RGB", 83, 3, 109, quality=100, subsampling="4:2:0")
    # 4:2:2 as 4:4:0 (1x2 samples): 6x11 MCUs of 16x8 become 6x11 of 8x16.
    jpeg("ycc440.jpg", "RGB", 95, 86, 110, subsampling="4:2:2", change=sampling(47, 171, 0x12))
    # 4:2:0 as 4:1:1 (4x1) and 1x4: 8x6 MCUs of 16x16 become 8x6 of 32x8 and of 8x32.
    jpeg("ycc411.jpg", "RGB", 125, 91, 111, subsampling="4:2:0", change=sampling(251, 47, 0x41))
    jpeg("ycc_1x4.jpg", "RGB", 125, 91, 112, subsampling="4:2:0", change=sampling(59, 187, 0x14))
    jpeg("rgb.jpg", "RGB", 53, 71, 113, keep_rgb=True)
    jpeg("cmyk.jpg", "CMYK", 77, 51, 114)
    jpeg("cmyk_progressive.jpg", "CMYK", 51, 77, 115, progressive=True)
    jpeg("cmyk_unmarked.jpg", "CMYK", 40, 50, 116, change=adobe(None))
    jpeg("ycck.jpg", "CMYK", 77, 51, 117, change=adobe(2))
    jpeg("ycck_420.jpg", "CMYK", 90, 35, 118, subsampling="4:2:0", change=adobe(2))
    for orientation in range(1, 9):
        name = f"orientation{orientation}.jpg"
        jpeg(name, "RGB", 45, 26, 120, exif=tiff("<>"[orientation % 2], orientation))
    jpeg("orientation_long.jpg", "RGB", 45, 26, 121, exif=tiff(">", 6, kind=4))


# ------------------------------------------------------------------------------------- orientation

# How Pillow's exif_transpose turns an image that is stored in each orientation.
METHODS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}


def xmp(orientation, form='tiff:Orientation="%d"', binding='xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'):
    """An XMP packet that gives the orientation as an attribute, or as an element if `form` is one."""
    prop = form.replace("%d", str(orientation))
    inside = ("/>", ">" + prop + "</rdf:Description>")[prop[0] == "<"]
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        f'<rdf:Description rdf:about="" {binding} {prop if prop[0] != "<" else ""}{inside}'
        '\n</rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>'
    ).encode()


ELEMENT = "<tiff:Orientation>%d</tiff:Orientation>"


def raw_profile(kind, block):
    """As written by ImageMagick: a name, the length, and lines of 72 hexadecimal digits."""
    digits = block.hex()
    lines = [digits[i : i + 72] for i in range(0, len(digits), 72)]
    return f"\n{kind}\n{len(block):8d}\n".encode() + "\n".join(lines).encode() + b"\n"


def text(keyword, value):
    return chunk(b"tEXt", keyword.encode() + b"\0" + value)


def packed_text(keyword, value):
    return chunk(b"zTXt", keyword.encode() + b"\0\0" + zlib.compress(value))


def international_text(keyword, value, packed=False):
    value = zlib.compress(value) if packed else value
    return chunk(b"iTXt", keyword.encode() + b"\0" + bytes([packed, 0]) + b"en\0\0" + value)


def app1(block):
    """Inserts a segment after the start of a JPEG."""
    return lambda file: file[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + file[2:]


def add_turned(name, orientation, pillow):
    """Expect this orientation; `pillow`: Pillow must agree."""
    picture = Image.open(FOLDER / name).convert("RGB")
    upright = picture.transpose(METHODS[orientation]) if orientation > 1 else picture
    expected[name] = (picture, upright)
    if pillow:
        found = ImageOps.exif_transpose(Image.open(FOLDER / name)).convert("RGB")
        assert (np.asarray(found) == np.asarray(upright)).all(), name


def make_orientation():
    exif, packet = "Raw profile type exif", "XML:com.adobe.xmp"
    prefixed = lambda o: b"Exif\0\0" + tiff("<", o)
    no_tag = tiff(">", 1).replace(struct.pack(">HH", 0x0112, 3), struct.pack(">HH", 0x0111, 3))
    named = 'xmlns:t="http://ns.adobe.com/tiff/1.0/"'
    other = 'xmlns:t="http://example.com/"'
    pngs = {
        # name: (orientation, whether Pillow reads it, chunks before and after the pixels)
        "prefix": (6, True, chunk(b"eXIf", prefixed(6)), b""),
        "raw": (8, True, text(exif, raw_profile("exif", prefixed(8))), b""),
        "raw_packed_after": (5, True, b"", packed_text(exif, raw_profile("exif", prefixed(5)))),
        "raw_app1": (7, False, text("Raw profile type APP1", raw_profile("APP1", prefixed(7))), b""),
        "raw_xmp": (
            2,
            False,
            packed_text("Raw profile type xmp", raw_profile("xmp", xmp(2))),
            b"",
        ),
        "xmp": (3, True, international_text(packet, xmp(3)), b""),
        "xmp_element_after": (6, True, b"", international_text(packet, xmp(6, ELEMENT))),
        "xmp_packed": (4, True, international_text(packet, xmp(4), True), b""),
        "xmp_quotes": (8, False, international_text(packet, xmp(8, "tiff:Orientation = ' %d '")), b""),
        "xmp_prefix": (
            5,
            False,
            international_text(packet, xmp(5, "<t:Orientation>\n %d\n</t:Orientation>", named)),
            b"",
        ),
        "xmp_comment": (
            1,
            False,
            international_text(packet, xmp(6, '> <!-- tiff:Orientation="%d" --> <a')),
            b"",
        ),
        "xmp_other": (1, True, international_text(packet, xmp(6, 't:Orientation="%d"', other)), b""),
        "xmp_nine": (1, True, international_text(packet, xmp(9)), b""),
        # EXIF counts before XMP, be it upright or without sense; a block without the tag does not.
        "exif_first": (6, True, international_text(packet, xmp(3)), chunk(b"eXIf", tiff("<", 6))),
        "exif_upright": (1, True, international_text(packet, xmp(3)), chunk(b"eXIf", tiff("<", 1))),
        "exif_zero": (1, True, international_text(packet, xmp(3)), chunk(b"eXIf", tiff("<", 0))),
        "exif_no_tag": (3, True, international_text(packet, xmp(3)), chunk(b"eXIf", no_tag)),
        "exif_before_raw": (
            7,
            True,
            text(exif, raw_profile("exif", prefixed(3))),
            chunk(b"eXIf", tiff(">", 7)),
        ),
    }
    for seed, (name, (orientation, pillow, before, after)) in enumerate(pngs.items()):
        name = f"turned_{name}.png"
        eight = scene(9 + seed % 3, 6, 200 + seed)[..., :3] & 0xF0
        png(name, eight, 8, 2, before=before, after=after)
        add_turned(name, orientation, pillow)

    address = b"http://ns.adobe.com/xap/1.0/\0"
    jpegs = {
        "xmp": (6, True, app1(address + xmp(6))),
        "xmp_element": (7, True, app1(address + xmp(7, ELEMENT))),
        "xmp_quotes": (2, False, app1(address + xmp(2, "tiff:Orientation='%d'"))),
        "exif_first": (8, True, lambda f: app1(address + xmp(3))(app1(b"Exif\0\0" + tiff(">", 8))(f))),
        "exif_no_tag": (3, True, lambda f: app1(b"Exif\0\0" + no_tag)(app1(address + xmp(3))(f))),
    }
    for seed, (name, (orientation, pillow, change)) in enumerate(jpegs.items()):
        name = f"turned_{name}.jpg"
        jpeg(name, "RGB", 17, 10, 230 + seed, change=change)
        add_turned(name, orientation, pillow)

    # Every orientation in an image large enough to be cut in both directions while it is resized.
    for orientation in range(2, 9):
        name = f"turned_large{orientation}.png"
        grey = scene(331 - 40 * (orientation % 2), 290, 240 + orientation)[..., 0] >> 6
        interlaced = orientation in (4, 6, 7)
        png(name, grey, 2, 0, interlaced=interlaced, before=chunk(b"eXIf", tiff("<", orientation)))
        add_turned(name, orientation, True)


# ----------------------------------------------------------------------------------------- expected


def crc(picture):
    return f"{binascii.crc32(picture.tobytes()):08x}"


def preprocess(picture, size, pad):
    """The uint8 stage of CLIP's image processor, with LLaVA's square before it on demand."""
    width, height = picture.size
    if pad and width != height:
        side = max(width, height)
        square = Image.new("RGB", (side, side), tuple(int(255 * m) for m in MEAN))
        square.paste(picture, ((side - width) // 2, (side - height) // 2))
        picture, width, height = square, side, side
    short, long = min(width, height), max(width, height)
    long = int(size * long / short)
    new = (size, long) if width <= height else (long, size)
    # One direction at a time, because Pillow's later versions begin with the vertical pass where
    # that is cheaper. Horizontal first is what all versions to 12 do.
    picture = picture.resize((new[0], height), Image.Resampling.BICUBIC)
    picture = picture.resize(new, Image.Resampling.BICUBIC)
    left, top = (new[0] - size) // 2, (new[1] - size) // 2
    return picture.crop((left, top, left + size, top + size))


def normalised(crop):
    """float32 [3, size, size], with the reference's roundings."""
    values = (np.asarray(crop).astype(np.float64) * (1 / 255)).astype(np.float32)
    values = (values - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return values.transpose(2, 0, 1)


def main():
    shared = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/images")
    FOLDER.mkdir(parents=True, exist_ok=True)
    make_png()
    make_jpeg()
    make_orientation()
    for path in sorted(shared.glob("*.*")):
        picture = Image.open(path).convert("RGB")
        expected["shared:" + path.name] = (picture, picture)

    with open(FOLDER / "expected.tsv", "w") as table:
        table.write("# made by tests/reference/make_images.py\n")
        table.write("# file\twidth\theight\tcrc\tupright width\theight\tcrc\tcrop\tpadded crop\n")
        for name, (stored, upright) in expected.items():
            crops = (crc(preprocess(upright, 224, pad)) for pad in (False, True))
            row = (name, *stored.size, crc(stored), *upright.size, crc(upright), *crops)
            table.write("\t".join(map(str, row)) + "\n")

    with open(FOLDER / "floats.tsv", "w") as table:
        table.write("# made by tests/reference/make_images.py\n")
        table.write("# file\tsize\tpad\tindex in [3, size, size]\tvalue\n")
        for name, size, pad in [
            ("ycc422.jpg", 224, False),
            ("ycc420.jpg", 224, True),
            ("ycc422.jpg", 32, True),
            ("rgba8.png", 32, False),
        ]:
            values = normalised(preprocess(expected[name][1], size, pad)).reshape(-1)
            for index in np.linspace(0, values.size - 1, 60).astype(int):
                table.write(f"{name}\t{size}\t{int(pad)}\t{index}\t{values[index]:.9g}\n")


main()
