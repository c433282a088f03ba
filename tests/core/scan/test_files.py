"""Files that the system does not give: the sentence says so, and names nothing."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from refusals import get_refusal
from series_maker import build_slice, read_order

from core.scan import read_volume


@pytest.fixture
def lock(monkeypatch):
    """Return a function that forbids to open a file; root may open all others."""

    def forbid(path: Path) -> None:
        usual = Path.open, Path.read_bytes

        def refuse(one, *args, method=0, **options):
            if one == path:
                raise PermissionError(errno.EACCES, "Permission denied", str(one))
            return usual[method](one, *args, **options)

        monkeypatch.setattr(Path, "open", refuse)
        monkeypatch.setattr(Path, "read_bytes", lambda one: refuse(one, method=1))

    return forbid


def test_a_file_without_permission_is_not_called_damaged(tmp_path, lock):
    path = tmp_path / "secret.dcm"
    path.write_bytes(build_slice(0))
    lock(path)
    for source in (path, str(path)):
        assert get_refusal(read_volume, source) == "The file may not be read: permission denied."


def test_a_folder_without_permission_is_not_called_empty(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("os.listdir", refuse)
    assert get_refusal(read_volume, tmp_path) == "The file may not be read: permission denied."


def test_a_locked_file_of_a_series_is_counted(tmp_path, lock):
    for n in range(4):
        (tmp_path / f"{n}").write_bytes(build_slice(n))
    lock(tmp_path / "2")
    for source in (tmp_path, sorted(tmp_path.iterdir())):
        volume = read_volume(source)
        assert read_order(volume) == [0, 1, 3]
        assert volume.notes[0] == "1 of 4 files is left out: 1 locked or too large."


def test_a_name_that_is_too_long_is_not_called_damaged():
    for source in ("x" * 5000, Path("y" * 300)):
        message = get_refusal(read_volume, source)
        assert message == "The file may not be read: file name too long."


def test_a_missing_file_stays_missing():
    assert get_refusal(read_volume, "nowhere") == "There is no such file."


def test_an_empty_file_stays_empty(tmp_path):
    (tmp_path / "empty").touch()
    for source in (b"", tmp_path / "empty", [b""], tmp_path):
        assert get_refusal(read_volume, source) == "The file is empty."
