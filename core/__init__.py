"""MedFedPure's method, its attacks and its file formats. No training, no measurements, no page.

>>> from core import load, read_scan
>>> load().read(read_scan("scan.png")).tumour_probability  # doctest: +SKIP
"""

import os

# Threads that wait for each other spin for .1 ms, then sleep: longer spinning stands in the way of
# other programs on the same cores, and sleeping at once doubles the time of many small layers.
# OpenMP reads it once, when PyTorch is first imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from core.checkpoint import WeightsError
from core.diagnosis import Diagnosis
from core.pipeline import MedFedPure
from core.scan import ScanError, Volume, read_scan, read_volume
from core.weights import load

__all__ = [
    "Diagnosis",
    "MedFedPure",
    "ScanError",
    "Volume",
    "WeightsError",
    "load",
    "read_scan",
    "read_volume",
]
