"""Everything that yields a number: `python -m bench COMMAND` writes results/*.json."""

import core  # noqa: F401 - sets OpenMP's environment before PyTorch is imported
