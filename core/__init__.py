"""MedFedPure's method, its attacks and its file formats. No training, no measurements, no page.

>>> from core import load, read_scan
>>> load().read(read_scan("scan.png")).tumour_probability  # doctest: +SKIP
"""

import os

# Threads that wait sleep: where other programs use the same cores, threads that spin wait for each
# other. OpenMP reads it once, when PyTorch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
