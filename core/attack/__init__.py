"""Attacks on any function from scans to logits, each with its trajectory."""

from core.attack.eot import eot
from core.attack.fgsm import FGSM
from core.attack.pgd import PGD
from core.attack.smallest import Probe, Smallest
from core.attack.step import Step

__all__ = ["FGSM", "PGD", "Probe", "Smallest", "Step", "eot"]
