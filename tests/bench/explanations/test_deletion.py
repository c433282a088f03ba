"""Inpainting against solutions by hand; deletion on a reader that sees one square alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.components.lesions import widen
from bench.explanations.deletion import measure_deletion
from bench.explanations.inpainting import (
    find_control_region,
    inpaint,
    measure_noise,
    solve_laplace,
)
from bench.explanations.maps import Maps

SIDE = 224


def brain(radius: int = 80) -> Tensor:
    """A grey disc (1, H, W)."""
    rows, columns = torch.arange(SIDE).float()[:, None], torch.arange(SIDE).float()[None]
    return (((rows - 112) ** 2 + (columns - 112) ** 2 < radius**2) * 0.5)[None]


def square(top: int, left: int, side: int = 24) -> Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_a_plane_is_harmonic_and_comes_back() -> None:
    rows, columns = torch.arange(SIDE)[:, None], torch.arange(SIDE)[None]
    plane = (0.1 + 0.001 * rows + 0.002 * columns)[None]
    x = plane.clone()
    x[0][square(90, 60)] = 1.0
    out = inpaint(x, square(90, 60), seed=3)
    assert torch.allclose(out, plane, atol=1e-4)


def test_the_rest_stays_bit_for_bit() -> None:
    x = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    region = square(90, 60)
    out = inpaint(x, region, seed=3)
    assert torch.equal(out[0][~region], x[0][~region])
    assert not torch.equal(out[0][region], x[0][region])
    assert torch.equal(out, inpaint(x, region, seed=3)) and 0 <= out.min() <= out.max() <= 1
    assert not torch.equal(out, inpaint(x, region, seed=4))


def test_the_solution_is_that_of_the_linear_system() -> None:
    """Each unknown is the mean of its neighbours, at the picture's edge of the three it has."""
    values = torch.rand(6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    region = torch.zeros(6, 7, dtype=torch.bool)
    region[0:3, 2:5] = region[3, 3] = True
    unknown = region.nonzero().tolist()
    matrix, right = torch.zeros(len(unknown), len(unknown)).double(), torch.zeros(len(unknown))
    right = right.double()
    for k, (i, j) in enumerate(unknown):
        for di, dj in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            if not (0 <= i + di < 6 and 0 <= j + dj < 7):
                continue
            matrix[k, k] += 1
            if [i + di, j + dj] in unknown:
                matrix[k, unknown.index([i + di, j + dj])] = -1
            else:
                right[k] += values[i + di, j + dj]
    found = solve_laplace(values, region)
    assert torch.allclose(found[region], torch.linalg.solve(matrix, right), atol=1e-6)
    assert torch.equal(found[~region], values[~region])


def test_noise_is_as_strong_as_around_the_region() -> None:
    generator = torch.Generator().manual_seed(0)
    x = 0.5 + 0.04 * torch.randn(1, SIDE, SIDE, generator=generator)
    region = square(60, 60, 64)
    assert measure_noise(x, region) == pytest.approx(0.04, rel=0.1)
    inner = square(70, 70, 44)  # away from the rim, whose noise the solution smooths inwards
    assert float(inpaint(x, region, 0)[0][inner].std()) == pytest.approx(0.04, rel=0.1)
    with pytest.raises(ValueError, match="no rim"):
        inpaint(x, torch.ones(SIDE, SIDE, dtype=torch.bool), 0)


def test_a_control_region_has_the_same_shape_in_tissue_off_the_tumour() -> None:
    x, region, tumour = brain(), square(90, 60), square(84, 54, 36)
    place = find_control_region(x, region, region | tumour)
    assert place is not None and int(place.sum()) == 24 * 24
    assert not (place & (region | tumour)).any() and (x[0][place] > 0).float().mean() > 0.9
    rows, columns = place.nonzero().unbind(1)
    assert int(rows.max() - rows.min()) == int(columns.max() - columns.min()) == 23
    assert find_control_region(brain(radius=20), square(100, 100, 20), square(0, 0)) is not None
    everywhere = torch.ones(SIDE, SIDE, dtype=torch.bool)
    assert find_control_region(x, region, everywhere) is None


def is_bright(x: Tensor) -> Tensor:
    """A reader that sees the middle of one square alone: bright is a tumour."""
    return x[:, 0, 95:110, 65:80].mean((1, 2)) > 0.9


def test_deletion_turns_the_answer_where_the_map_is_right(test_fold) -> None:
    tumour = square(90, 60)
    scans = brain().repeat(len(test_fold), 1, 1, 1)
    scans[:3, 0][:, tumour] = 1.0
    scans[2, 0][tumour] = 0.6  # not found: does not count
    maps = {
        "right": tumour.float(),
        "wrong": square(120, 120).float(),
        "nothing": torch.zeros(SIDE, SIDE),
        "all": torch.ones(SIDE, SIDE),
    }
    drawn = {
        name: (lambda x, m=m: Maps(*(m.expand(len(x), -1, -1),) * 2), 0.5)
        for name, m in maps.items()
    }
    masks = dict.fromkeys(range(3), tumour)
    found = measure_deletion(is_bright, drawn, test_fold, scans, masks, torch.device("cpu"))
    assert found["found"] == 2
    assert found["mask"]["mean"]["value"] == 1
    right, wrong = found["maps"]["right"], found["maps"]["wrong"]
    assert (
        right["marked"]["sources"]["br35h"]["k"] == right["marked, with room"]["mean"]["value"] * 2
    )
    assert right["marked"]["mean"]["value"] == 1 and right["control"]["mean"]["value"] == 0
    assert wrong["marked"]["mean"]["value"] == wrong["control"]["mean"]["value"] == 0
    for name, count in (("nothing", "nothing"), ("all", "too_much")):
        other = found["maps"][name]
        assert other[count] == 2 and other["marked"]["mean"]["value"] == 0
        assert other["control"] == {"sources": {}}
    assert widen(tumour).sum() == 30 * 30  # so much is removed
