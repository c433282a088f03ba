"""The folders of data and of HTML need no Gradio, so that tests and commands start fast."""

import subprocess
import sys

import pytest

CODE = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
sys.exit(" ".join(n for n in sys.modules if n == "gradio" or n.startswith("demo.explore")) or 0)
"""


@pytest.mark.parametrize("package", ["demo.rendering", "demo.analysis"])
def test_neither_gradio_nor_a_handler_is_imported(package: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", CODE, package], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
