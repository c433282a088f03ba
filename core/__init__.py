"""MedFedPure's method, its attacks and its file formats. No training, no measurements, no page.

>>> from core import load, read_scan
>>> load().read(read_scan("scan.png")).tumour_probability  # doctest: +SKIP
"""

import os

# Threads that wait sleep instead of spinning: beside other programs on the same cores a reading
# took 47 times as long, and takes twice. OpenMP reads it once, when PyTorch is first imported.
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
