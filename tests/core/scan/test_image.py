"""Every kind of picture becomes the same canonical scan, every bad file one sentence."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import get_refusal

from core.scan import (
    MAX_BYTES,
    NotAnMRIError,
    ScanError,
    from_uint8,
    read_scan,
    read_volume,
    to_image,
    to_png,
    to_uint8,
)
from demo.phantom import draw_phantom


@pytest.fixture(scope="module")
def scan() -> torch.Tensor:
    return draw_phantom(5, tumour=True)


@pytest.fixture(scope="module")
def picture(scan: torch.Tensor) -> Image.Image:
    return to_image(scan)


def encode(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def set_tag(tiff: bytes, tag: int, old: int, new: int) -> bytes:
    entry = struct.pack("<HHLHH", tag, 3, 1, old, 0)
    assert tiff.count(entry) == 1
    return tiff.replace(entry, struct.pack("<HHLHH", tag, 3, 1, new, 0))


def colour_photograph() -> Image.Image:
    ramp = np.linspace(0, 255, 128, dtype=np.uint8)
    red, green = np.meshgrid(ramp, ramp)
    return Image.fromarray(np.stack([red, green, 255 - red], axis=-1))


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that declares a size and holds no pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")[:4])


# --- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_lossless_formats_and_modes_give_the_identical_scan(scan, picture, file_format, mode):
    assert torch.equal(read_scan(encode(picture.convert(mode), file_format)), scan)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_lossless_webp_gives_the_identical_scan(scan, picture, mode):
    assert torch.equal(read_scan(encode(picture.convert(mode), "WEBP", lossless=True)), scan)


@pytest.mark.parametrize(
    ("file_format", "mode"), [("JPEG", "L"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("WEBP", "RGB")]
)
def test_lossy_formats_stay_close(scan, picture, file_format, mode):
    read = read_scan(encode(picture.convert(mode), file_format, quality=95))
    assert (read - scan).abs().mean() < 0.01


def test_cmyk_tiff(scan, picture):
    assert torch.allclose(read_scan(encode(picture.convert("CMYK"), "TIFF")), scan, atol=1.5 / 255)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bits_over_the_full_range(scan, file_format):
    deep = Image.fromarray(to_uint8(scan)[0].astype(np.uint16) * 257)
    assert torch.equal(read_scan(encode(deep, file_format)), scan)


def test_twelve_bits_in_sixteen_fill_the_range(scan):
    levels = np.rint(scan[0].numpy() * 4095).astype(np.uint16)
    levels[0, 0] = 4095
    read = read_scan(encode(Image.fromarray(levels), "PNG"))
    assert torch.allclose(read[0, 1:], scan[0, 1:], atol=1 / 255)


@pytest.mark.parametrize("peak", [1.2, 300.0, 3000.0, 4096.0, 5000.0, 20_000.0, 40_000.0, 2e6])
def test_a_deep_picture_reads_the_same_whatever_its_peak(scan, peak):
    """One grey level around 4095 must not darken it: there is no standard white."""
    deep = Image.fromarray(scan[0].numpy() / scan.max().item() * np.float32(peak))
    usual = Image.fromarray(scan[0].numpy() / scan.max().item() * np.float32(700))
    read = read_scan(encode(deep, "TIFF"))
    assert read.max() == 1
    assert torch.allclose(read, read_scan(encode(usual, "TIFF")), atol=1.1 / 255)


def test_float_tiff(scan):
    assert torch.equal(read_scan(encode(Image.fromarray(scan[0].numpy()), "TIFF")), scan)


def test_float_tiff_with_negative_values_spans_the_range(scan):
    read = read_scan(encode(Image.fromarray(scan[0].numpy() * 2000 - 1000), "TIFF"))
    assert read.min() == 0
    assert read.max() == 1


def test_black_and_white_bitmap(picture):
    read = read_scan(encode(picture.convert("1"), "PNG"))
    assert set(read.unique().tolist()) == {0, 1}


def test_transparent_parts_are_black(picture):
    clear = picture.convert("RGBA")
    clear.paste((255, 255, 255, 0), (0, 0, 224, 112))
    assert read_scan(encode(clear, "PNG"))[0, :112].max() == 0


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "I;16"])
def test_a_transparent_level_is_black(mode):
    levels = np.tile(np.repeat(np.array([255, 200, 0, 90], np.uint8), 16), (64, 1))
    grey = Image.fromarray(levels)
    if mode == "I;16":
        shown, clear = Image.fromarray(levels.astype(np.uint16) * 257), 65535
    elif mode == "P":
        shown = grey.convert("P")
        shown.putpalette(bytes(n for n in range(256) for _ in range(3)))
        clear = 255
    else:
        shown, clear = grey.convert(mode), (255, 255, 255) if mode == "RGB" else 255
    expected = {255: 0, 200: 255 if mode == "1" else 200, 0: 0, 90: 90}
    data = encode(shown, "PNG", transparency=clear)
    if mode == "1":  # dithered: all that is white is transparent
        assert "black" in get_refusal(read_scan, data)
        return
    read = read_volume(data).data[0] / (257 if mode == "I;16" else 1)
    assert np.array_equal(read, np.vectorize(expected.get)(levels))


def test_transparent_grey_is_black(picture):
    clear = picture.convert("LA")
    clear.paste((255, 0), (0, 0, 224, 112))
    assert read_scan(encode(clear, "PNG"))[0, :112].max() == 0


def test_a_deep_tiff_whose_white_is_zero(scan):
    """Pillow turns those of 8 bits alone."""
    deep = (scan[0].numpy() * 65535).round().astype(np.uint16)
    data = encode(Image.fromarray(65535 - deep), "TIFF")
    white_is_zero = set_tag(data, 262, 1, 0)
    volume = read_volume(white_is_zero)
    assert volume.levels == (65535, 0)
    assert torch.equal(volume.slice(), read_scan(encode(Image.fromarray(deep), "TIFF")))


def test_a_tiff_of_32_bits_without_sign(scan):
    values = scan[0].numpy().astype(np.float64) * 3.6e9
    stored = values.round().astype(np.uint32)
    data = encode(Image.fromarray(stored.view(np.int32)), "TIFF")
    assert read_volume(data).data.min() < 0
    volume = read_volume(set_tag(data, 339, 2, 1))
    assert np.array_equal(volume.data[0], stored.astype(np.float32))
    assert np.allclose(volume.levels, np.percentile(stored, [1, 99]))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("orientation", "quarters"), [(3, 2), (6, 1), (8, 3)])
def test_exif_orientation_is_undone(scan, picture, file_format, orientation, quarters):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = picture.rotate(90 * quarters)
    options = {"lossless": True} if file_format == "WEBP" else {}
    read = read_scan(encode(turned, file_format, exif=exif, **options))
    assert (read - scan).abs().mean() < 0.02


def test_broken_exif_does_not_hide_a_good_picture(scan, picture):
    assert torch.equal(read_scan(encode(picture, "PNG", exif=b"Exif\x00\x00MM\x00*rubbish")), scan)


def test_path_text_bytes_and_picture_are_the_same(scan, picture, tmp_path):
    path = tmp_path / "scan.png"
    path.write_bytes(encode(picture, "PNG"))
    for source in (path, str(path), path.read_bytes(), picture):
        assert torch.equal(read_scan(source), scan)


def test_the_name_does_not_matter(scan, picture, tmp_path):
    path = tmp_path / "png-inside.jpg"
    path.write_bytes(encode(picture, "PNG"))
    assert torch.equal(read_scan(path), scan)


# --- what a canonical scan is --------------------------------------------------------------------


def test_png_round_trip_is_identical(scan):
    attacked = from_uint8(to_uint8((scan + 3 / 255).clamp(0, 1)))
    assert torch.equal(read_scan(to_png(attacked)), attacked)


@pytest.mark.parametrize("size", [(640, 480), (90, 300), (224, 224), (5000, 40)])
def test_shape_type_range_and_grid(size):
    noise = np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)
    scan = read_scan(encode(Image.fromarray(noise), "PNG"))
    assert scan.shape == (1, 224, 224)
    assert scan.dtype == torch.float32
    assert scan.min() >= 0
    assert scan.max() <= 1
    assert torch.equal((scan * 255).round() / 255, scan)


def test_a_wide_picture_is_padded_with_black_above_and_below():
    wide = Image.new("L", (400, 200), 255)
    wide.paste(128, (0, 0, 200, 200))
    scan = read_scan(wide)
    assert scan[0, :55].max() == 0
    assert scan[0, 57:167].min() > 0.5
    assert scan[0, 169:].max() == 0


def test_shrinking_is_antialiased():
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (896, 448))
    inside = read_scan(Image.fromarray(stripes))[0, 8:-8, 8:-8]
    assert (inside - 0.5).abs().max() < 0.05


def test_a_huge_long_picture_makes_no_huge_square():
    strip = Image.new("L", (32, 1_000_000), 128)  # as a square it would need 4 TB
    strip.paste(255, (0, 0, 32, 500_000))
    assert read_scan(strip).shape == (1, 224, 224)


def test_size_is_an_argument(picture):
    assert read_scan(picture, size=32).shape == (1, 32, 32)


def test_many_threads_read_at_once(scan, picture):
    data = encode(picture, "PNG")
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(s, scan) for s in pool.map(read_scan, [data] * 32))


# --- what is refused -----------------------------------------------------------------------------


refused = partial(get_refusal, read_scan)


def test_missing_file(tmp_path):
    assert "no such file" in refused(tmp_path / "none.png")


def test_empty_file(tmp_path):
    path = tmp_path / "empty.png"
    path.touch()
    assert "empty" in refused(path)
    assert "empty" in refused(b"")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_truncated_file(picture, file_format):
    data = encode(picture, file_format)
    assert "damaged or incomplete" in refused(data[: len(data) // 2])


def test_renamed_text(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("Patient was seen on Monday.")
    assert "not a picture" in refused(path)


def test_svg():
    assert "not a picture" in refused(b'<svg xmlns="http://www.w3.org/2000/svg"/>')


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_animation_or_several_pages(picture, file_format):
    other = picture.rotate(90)
    data = encode(picture, file_format, save_all=True, append_images=[other])
    assert "several pictures" in refused(data)


def test_one_pixel():
    assert "1 x 1" in refused(encode(Image.new("L", (1, 1)), "PNG"))


def test_thirty_thousand_squared_is_refused_before_decoding():
    assert "50 million pixels" in refused(png_header(30_000, 30_000))


@pytest.mark.parametrize("side", [7_100, 10_000])
def test_more_than_fifty_megapixels_is_refused_before_decoding(side):
    assert "50 million pixels" in refused(png_header(side, side))


def test_more_than_twenty_megabytes(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(bytes(MAX_BYTES + 1))
    assert "larger than 20 MB" in refused(path)
    assert "larger than 20 MB" in refused(path.read_bytes())


@pytest.mark.parametrize(("level", "shade"), [(0, "black"), (255, "white"), (128, "grey")])
def test_blank(level, shade):
    assert shade in refused(encode(Image.new("L", (224, 224), level), "PNG"))


@pytest.mark.parametrize(("side", "level"), [(2000, 255), (300, 5), (224, 255)])
def test_a_few_bright_pixels_are_no_picture(side, level):
    black = Image.new("L", (side, side), 0)
    black.putpixel((side // 2, side // 2), level)
    assert "black everywhere" in refused(encode(black, "PNG"))


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_values_that_are_not_numbers(scan, value):
    values = scan[0].numpy().copy()
    values[3, 4] = value
    assert "not numbers" in refused(encode(Image.fromarray(values), "TIFF"))


def test_colour_photograph_is_told_apart_and_read_on_request():
    data = encode(colour_photograph(), "JPEG")
    with pytest.raises(NotAnMRIError, match="does not look like a brain MRI"):
        read_scan(data)
    assert read_scan(data, any_picture=True).shape == (1, 224, 224)


def test_coloured_marks_are_no_photograph(picture):
    marked = picture.convert("RGB")
    marked.paste((255, 0, 0), (0, 0, 60, 60))  # 7 % of the picture
    assert read_scan(encode(marked, "PNG")).shape == (1, 224, 224)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_damage_anywhere_ends_in_a_scan_or_a_scan_error(picture, file_format):
    whole = encode(picture, file_format)
    rng = np.random.default_rng(0)
    for _ in range(40):
        data = bytearray(whole)
        for position in rng.integers(0, rng.choice([64, len(data)]), 8):
            data[position] = rng.integers(256)
        try:
            scan = read_scan(bytes(data))
        except ScanError:
            continue
        assert scan.shape == (1, 224, 224)
        assert scan.isfinite().all()


# --- real scans ----------------------------------------------------------------------------------


@pytest.mark.data
def test_real_scans_are_all_taken_for_brain_mri(data_root: Path):
    files = [p for p in sorted(data_root.glob("b*/*/*")) if p.suffix.lower() in {".jpg", ".png"}]
    # the most colourful ones known, and a sample of all
    colourful = [f"br35h/yes/y{n}.jpg" for n in (12, 1308, 1309)]
    for path in [*files[::90], *(data_root / name for name in colourful)]:
        assert read_scan(path).shape == (1, 224, 224)
