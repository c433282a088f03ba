from __future__ import annotations

import os
import stat
import time

from demo.serving.private_folder import PrivateFolder


def test_the_folder_is_private_and_goes() -> None:
    with PrivateFolder() as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        (path / "left.bin").write_bytes(b"x")
    assert not path.exists()


def test_old_files_are_swept_and_new_ones_kept() -> None:
    folder = PrivateFolder(max_age=60)
    with folder as path:
        old, new = path / "a" / "old.bin", path / "b" / "new.bin"
        for file in (old, new):
            file.parent.mkdir()
            file.write_bytes(b"x")
        past = time.time() - 120
        os.utime(old, (past, past))
        assert folder.sweep() == 1
        assert not old.exists() and new.exists()
        os.utime(old.parent, (past, past))
        folder.sweep()
        assert not old.parent.exists() and new.exists()
