"""Attacks that only an evaluation needs; those that the page shows too are in core.attack."""

from bench.attacks.apgd import APGD
from bench.attacks.bpda import straight_through
from bench.attacks.hiding import Hiding
from bench.attacks.low_frequency import LowFrequency
from bench.attacks.square import Square

__all__ = ["APGD", "Hiding", "LowFrequency", "Square", "straight_through"]
