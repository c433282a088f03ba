"""Folders of data and of HTML import without Gradio, so that tests and commands start fast."""

import subprocess
import sys

CODE = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.iter_modules(package.__path__, name + "."):
        importlib.import_module(module.name)
sys.exit(" ".join(n for n in sys.modules if n == "gradio" or n.startswith("demo.explore")) or 0)
"""


def test_neither_gradio_nor_a_handler_is_imported() -> None:
    command = [sys.executable, "-c", CODE, "demo.rendering", "demo.analysis"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
