from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.scan import read_scan
from demo.rendering import images


def pixels(url: str) -> np.ndarray:
    head, data = url.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_a_shown_scan_is_the_scan_pixel_for_pixel(scan: Tensor) -> None:
    data = base64.b64decode(images.encode_scan(scan).split(",")[1])
    assert torch.equal(read_scan(data), scan)


def test_high_error_is_bright_and_the_scale_is_fixed() -> None:
    shown = images.apply_cividis(np.linspace(0, 1, 256)) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(shown) >= 0).all() and shown[-1] > shown[0] + 150
    top = images.MAX_ERROR**2
    error = torch.tensor([[0.0, top / 4, top, 9 * top]])
    alone = pixels(images.encode_error(error))
    assert (alone[0, 2] == alone[0, 3]).all()  # clipped, as its colour bar says
    beside = pixels(images.encode_error(error[:, :2]))
    assert (beside[0] == alone[0, :2]).all()  # whatever else is in the picture


def test_change_shows_its_sign() -> None:
    scan = torch.full((1, 1, 3), 100 / 255)
    attacked = torch.tensor([[[96.0, 100.0, 104.0]]]) / 255
    darker, same, brighter = pixels(images.encode_change(scan, attacked))[0].astype(int)
    assert darker[2] > darker[0] and brighter[0] > brighter[2] and same.sum() == 0
