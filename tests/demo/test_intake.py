from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.scan import from_uint8, to_png
from demo import intake
from demo.intake import Inbox, decode


def stored(folder: Path, data: bytes) -> Path:
    path = folder / "0123abcd" / "Jane Doe 1970.png"
    path.parent.mkdir()
    path.write_bytes(data)
    return path


def test_an_upload_becomes_pixels_and_its_file_is_gone(scan: Tensor, tmp_path: Path) -> None:
    path = stored(tmp_path, to_png(scan))
    upload = Inbox().take(str(path))
    assert upload.levels is not None and torch.equal(from_uint8(upload.levels), scan)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_file_is_gone_too(tmp_path: Path) -> None:
    upload = Inbox().take(str(stored(tmp_path, b"<svg></svg>")))
    assert upload.levels is None and upload.refusal.endswith(".")
    assert list(tmp_path.iterdir()) == []


def test_a_second_visitor_with_the_same_file_still_gets_it(scan: Tensor, tmp_path: Path) -> None:
    inbox = Inbox()
    path = str(stored(tmp_path, to_png(scan)))
    first, second = inbox.take(path), inbox.take(path)  # Gradio stores equal files once
    assert second.levels is not None and (first.levels == second.levels).all()


def test_pixels_are_forgotten(
    scan: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox()
    path = str(stored(tmp_path, to_png(scan)))
    inbox.take(path)
    monkeypatch.setattr(intake, "REMEMBER_SECONDS", 0)
    assert inbox.take(path).refusal == "The upload was interrupted: choose the file again."


def test_a_photograph_is_refused_but_kept_readable(photograph: bytes) -> None:
    upload = decode(photograph)
    assert upload.is_colour and upload.levels is not None
    assert "does not look like a brain MRI" in upload.refusal
