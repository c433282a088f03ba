"""Attacks on any function from scans to logits, one a file. No defence and no data set in here."""

from core.attacks.apgd import APGD
from core.attacks.base import Step
from core.attacks.bpda import straight_through
from core.attacks.consistent import ConsistentPGD
from core.attacks.counterfactual import Counterfactual
from core.attacks.detector_aware import DetectorAwarePGD
from core.attacks.eot import eot
from core.attacks.fgsm import FGSM
from core.attacks.low_frequency import LowFrequency
from core.attacks.minimal import BisectionStep, MinimalPGD
from core.attacks.pgd import PGD
from core.attacks.square import Square
from core.attacks.threat_models import adaptive_logits, paper_attack

__all__ = [
    "APGD",
    "FGSM",
    "PGD",
    "BisectionStep",
    "ConsistentPGD",
    "Counterfactual",
    "DetectorAwarePGD",
    "LowFrequency",
    "MinimalPGD",
    "Square",
    "Step",
    "adaptive_logits",
    "eot",
    "paper_attack",
    "straight_through",
]
