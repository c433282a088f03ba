"""Training phases, one a file: loss, validation and configuration. No loop and no transport."""

from train.phases import classifier, detector, diffusion, interval, mae, novelty
from train.phases.phase import Phase

# in order of training; initial weights depend on the position, so new phases go last
PHASES: tuple[Phase, ...] = (
    classifier.MIXTURE,
    classifier.PLAIN,
    diffusion.PHASE,
    mae.PHASE,
    detector.PHASE,
    novelty.PHASE,
    interval.PHASE,
)
