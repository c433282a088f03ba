"""Attacks on any function from scans to logits, gradient steps with their trajectories."""

from core.attack.apgd import APGD
from core.attack.bpda import straight_through
from core.attack.eot import eot
from core.attack.fgsm import FGSM
from core.attack.low_frequency import LowFrequency
from core.attack.pgd import PGD
from core.attack.smallest import Probe, Smallest
from core.attack.square import Square
from core.attack.step import Step

__all__ = [
    "APGD",
    "FGSM",
    "PGD",
    "LowFrequency",
    "Probe",
    "Smallest",
    "Square",
    "Step",
    "eot",
    "straight_through",
]
