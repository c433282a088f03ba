"""Folder that is uploaded as a Hugging Face Space: assembled, and opened once.

    python -m tools.build_space build/space         # assembles it, prints its size
    python -m tools.build_space build/space --run   # and opens it once, from a clean copy

Nothing is uploaded: `hf upload OWNER/NAME build/space . --repo-type space` does that.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# all that the page needs, and nothing that trains or measures
PARTS = (
    "app.py",
    "core",
    "demo",
    "weights",
    "results",
    "docs",
    "README.md",
    "LICENSE",
    "CITATION.cff",
)
LEFT_OUT = ("__pycache__", "*.pyc", "LOG.md")
# what a Space with a shared GPU has, though the page does not use it: see demo/serving/zero_gpu.py
SPACE_PINS = {"torch": "2.11.0", "torchvision": "0.26.0"}
HEAD = """# What the Space runs on; made from the project's requirements.txt by `make space`.
# torch is the newest that Spaces with a shared GPU have. A Space without a GPU installs 5 GB
# less with PyTorch's own index of CPU builds as an --extra-index-url on the file's first line.
"""
START_SECONDS = 120


def assemble(out: Path) -> int:
    """Copy the files of a Space into `out`; return their size in bytes.

    Raises:
        FileExistsError: `out` holds something that this command did not make.
    """
    made = out / "app.py"
    if out.exists() and any(out.iterdir()) and not made.is_file():
        raise FileExistsError(f"{out} is not empty and no Space: name another folder")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, out / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
        else:
            shutil.copy(source, out / name)
    pins = build_requirements((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    (out / "requirements.txt").write_text(pins, encoding="utf-8")
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def build_requirements(pinned: str) -> str:
    """Build the Space's requirements.txt from the project's; the Space itself brings Gradio."""
    lines = [line for line in pinned.splitlines() if line and not line.startswith("#")]
    for i, line in enumerate(lines):
        name = re.split(r"[=<>\[]", line)[0]
        if name in SPACE_PINS:
            lines[i] = f"{name}=={SPACE_PINS[name]}"
    return HEAD + "\n".join(line for line in lines if not line.startswith("gradio")) + "\n"


def measure_start(folder: Path) -> float:
    """Return the seconds until the page of a clean copy of `folder` opens, with these packages.

    Raises:
        RuntimeError: it does not open; the message holds what it printed.
    """
    with tempfile.TemporaryDirectory() as clean, socket.socket() as probe:
        copy = Path(clean) / "space"
        shutil.copytree(folder, copy)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        log = Path(clean) / "log"
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command = [sys.executable, "app.py", "--no-browser", "--port", str(port)]
        start = time.monotonic()
        with log.open("w") as output:
            process = subprocess.Popen(
                command, cwd=copy, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            while process.poll() is None and time.monotonic() - start < START_SECONDS:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=2) as page:
                        if b"MedFedPure" in page.read():
                            return time.monotonic() - start
                except OSError:
                    time.sleep(0.2)
            raise RuntimeError(f"the Space did not open:\n{log.read_text()}")
        finally:
            process.terminate()
            process.wait(30)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.build_space", description="Assemble the files of a Space."
    )
    parser.add_argument("out", type=Path, help="folder to make; an earlier one of it is replaced")
    parser.add_argument("--run", action="store_true", help="open it once from a clean copy")
    args = parser.parse_args(argv)
    try:
        size = assemble(args.out)
        print(f"{args.out}: {size / 1e6:.1f} MB")
        if args.run:
            print(f"opened in {measure_start(args.out):.1f} s")
    except (OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
