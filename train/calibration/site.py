"""A hospital's system adapted to a new site from the site's own scans, without labels.

The thresholds of the detector come first, from scores that do not depend on them; the operating
points then from the log-odds of what the classifier will read: scans purified as deeply as they
will be, or by policy `picture` the scans themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core import checkpoint
from core.checkpoint import MANIFEST, WeightsError, write_atomic
from core.detector import SCORES
from core.interval import FILE as CERTIFIED
from core.pipeline import BATCH_SIZE, MedFedPure
from core.scan import from_uint8
from core.site.doubts import ASSUMED, ask_prevalence, check_scans, describe_doubt
from core.site.operating_point import (
    SiteError,
    find_shift,
    shift_log_odds,
)
from core.weights import PARTS, system_file_name
from train.calibration.thresholds import store_clean
from train.federated.hospital_weights import MAX_HOSPITALS, save_hospital
from train.provenance import find_commit

PREVALENCES = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Answers:
    """Counts of 'tumour' at an assumed prevalence."""

    prevalence: float
    shift: float  # added to the log-odds
    tumours: int


@dataclass(frozen=True)
class SiteFigures:
    """Counts of an adaptation, before and after; no figure of a single scan."""

    scans: int  # that can be judged
    refused: int  # that cannot
    tumours_before: int
    alarms_before: int
    alarms_after: int
    answers: tuple[Answers, ...]  # the first is the one taken
    plain_shift: float
    doubt: str  # why the scans look like one class


def adapt(system: MedFedPure, scans: np.ndarray, prevalence: float | None) -> SiteFigures:
    """Set thresholds and operating points in place from canonical scans (N, 1, H, W) uint8.

    Args:
        system: a hospital's system.
        scans: the site's, not attacked.
        prevalence: share of them with a tumour. Where none is named one half is assumed, and scans
            that look like one class are refused.

    Raises:
        SiteError: the scans do not allow it; the system is unchanged.
    """
    taken = ASSUMED if prevalence is None else prevalence
    wanted = [taken, *(p for p in PREVALENCES if p != taken)]
    refused, scores = _detect(system, scans)
    check_scans(refused)
    kept, row = scans[~refused.numpy()], SCORES.index(system.config.detector.score)
    scores = scores[:, ~refused]
    before, _ = _classify(system, kept, scores[row])
    doubt = describe_doubt(before)
    if doubt and prevalence is None:
        raise SiteError(ask_prevalence(doubt, "with --prevalence"))
    alarms = int((scores[row] > system.tau).sum())
    for name, values in zip(SCORES, scores, strict=True):
        store_clean(system.detector, name, values)
    log_odds, plain = _classify(system, kept, scores[row])
    shifts = [find_shift(log_odds, p) for p in wanted]
    plain_shift = find_shift(plain, taken)
    shift_log_odds(system.classifier, shifts[0])
    shift_log_odds(system.plain, plain_shift)
    return SiteFigures(
        scans=len(kept),
        refused=int(refused.sum()),
        tumours_before=int((before >= 0).sum()),
        alarms_before=alarms,
        alarms_after=int((scores[row] > system.tau).sum()),
        answers=tuple(
            Answers(p, shift, int((log_odds + shift >= 0).sum()))
            for p, shift in zip(wanted, shifts, strict=True)
        ),
        plain_shift=plain_shift,
        doubt=doubt,
    )


def check_free(out: Path) -> None:
    """Raise WeightsError if `out` is no folder, or holds weights already."""
    if out.exists() and not out.is_dir():
        raise WeightsError(f"{out} is no folder: name one with --out.")
    if (out / MANIFEST).is_file() or any(out.glob("*.safetensors")):
        raise WeightsError(f"{out} holds weights already: name another folder with --out.")


def write_site(system: MedFedPure, figures: SiteFigures, weights: Path, out: Path) -> int:
    """Write the adapted system to `out` as one more hospital; return its number.

    `out` gets the shared parts of `weights` and the site's own file; `weights` is not changed.

    Raises:
        WeightsError: a part is missing or altered, `out` holds weights already, or there are too
            many hospitals.
    """
    number: int = 1 + max(system.info.get("hospitals", [0]))
    check_free(out)
    if number > MAX_HOSPITALS:
        raise WeightsError(f"The weights in {weights} have no number left for another hospital.")
    listed = checkpoint.read_manifest(weights)
    names = [name for name in (*PARTS, CERTIFIED) if name in listed]
    for name in names:
        checkpoint.load_verified(name, weights)
        write_atomic(out / name, (weights / name).read_bytes())
    origin = system.info.get("hospital")
    left_out = ("hospitals", "split_sha256")  # which `load` adds
    system.info = {k: v for k, v in system.info.items() if k not in left_out}
    system.info["site"] = {"adapted_from": origin, **asdict(figures)}
    facts = listed[names[0]]
    save_hospital(system, out, number, facts.split_sha256)
    checkpoint.write_manifest(
        out, [*names, system_file_name(number)], preset=facts.preset, protocol=facts.protocol,
        commit=find_commit(),
    )  # fmt: skip
    return number


@torch.no_grad()
def _detect(system: MedFedPure, scans: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return which scans cannot be judged, bool (N,), and all detector scores (S, N)."""
    refused, scores = [], []
    for x in _read_batches(system, scans):
        refused.append(system.measure_novelty(x) > system.novelty.limit)
        found = system.detect(x).scores
        scores.append(torch.stack([found[name] for name in SCORES]))
    return torch.cat(refused).cpu(), torch.cat(scores, 1).cpu()


@torch.no_grad()
def _classify(system: MedFedPure, scans: np.ndarray, score: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-odds (N,) of the full pipeline and of the plain classifier."""

    def subtract(logits: Tensor) -> Tensor:
        return logits[:, 1] - logits[:, 0]

    defended, plain = [], []
    parts = zip(_read_batches(system, scans), score.split(BATCH_SIZE), strict=True)
    for x, part in parts:
        x_read = x
        if system.reads_purified:
            x_read = system.purify(x, system.t_star(part.to(x)))  # seed 0, as a reading by default
        defended.append(subtract(system.classifier_logits(x_read)))
        plain.append(subtract(system.plain_logits(x)))
    return torch.cat(defended).cpu(), torch.cat(plain).cpu()


def _read_batches(system: MedFedPure, scans: np.ndarray) -> Iterator[Tensor]:
    for start in range(0, len(scans), BATCH_SIZE):
        yield from_uint8(scans[start : start + BATCH_SIZE]).to(system.device)
