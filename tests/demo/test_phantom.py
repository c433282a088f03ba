from __future__ import annotations

import torch

from core.scan import read_scan, to_png
from demo.phantom import draw_phantom


def test_a_phantom_is_a_canonical_scan() -> None:
    for seed in range(4):
        scan = draw_phantom(seed, tumour=seed % 2 == 0)
        assert scan.shape == (1, 224, 224) and scan.dtype == torch.float32
        assert scan.min() >= 0 and scan.max() <= 1 and scan.std() > 0.1
        assert torch.equal(read_scan(to_png(scan)), scan)


def test_the_seed_decides_everything() -> None:
    assert torch.equal(draw_phantom(7, True), draw_phantom(7, True))
    assert not torch.equal(draw_phantom(7, True), draw_phantom(8, True))


def test_the_tumour_is_all_that_differs() -> None:
    for seed in range(8):
        change = (draw_phantom(seed, True) - draw_phantom(seed, False)).abs()[0] > 0.15
        assert 50 < change.sum() < 0.25 * 224 * 224
        assert not change[:8].any() and not change[:, :8].any()


def test_both_sides_and_several_contrasts_occur() -> None:
    tumours = [(draw_phantom(s, True) - draw_phantom(s, False)).abs()[0] for s in range(24)]
    left = [bool(t[:, :112].sum() > t[:, 112:].sum()) for t in tumours]
    assert any(left) and not all(left)
    middle = torch.stack([draw_phantom(s, False)[0, 80:150, 60:160].mean() for s in range(24)])
    assert middle.max() - middle.min() > 0.2
