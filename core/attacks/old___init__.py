"""Attacks that only an evaluation needs; those that the page shows too are in core.attacks."""

from core.attacks.apgd import APGD
from core.attacks.bpda import straight_through
from core.attacks.detector_aware import DetectorAwarePGD
from core.attacks.low_frequency import LowFrequency
from core.attacks.square import Square

__all__ = ["APGD", "DetectorAwarePGD", "LowFrequency", "Square", "straight_through"]
