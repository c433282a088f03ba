"""Answer of the public endpoint `read_volume`: all slices of a file, one answer for the volume."""

from __future__ import annotations

from typing import Any

from core.pipeline import MedFedPure
from demo.analysis.attack import AttackSettings
from demo.analysis.volume import SliceReading, answer_volume, read_slices
from demo.rendering.volume_answer import describe_answer
from demo.serving.uploads import Upload, describe_file, open_volume

VOLUME_DESCRIPTION = """Reads all slices of a brain MRI volume with the full pipeline and returns
one JSON object with one answer for the volume. A picture is a volume of one slice.
Research and teaching only - not for clinical use: model outputs, not a diagnosis.

The answer is the highest mean of the log-odds over three slices in a row; slices that are blank or
cannot be judged are passed over, at most two within the three. Where no three lie so near, two or
one decide. The rule was not measured on whole volumes. Whether a small change flips the answer is
not tried; `read` tries it for one slice.

The object holds exactly these keys:
- tumour_probability (number or null): of the answer, 0 to 1, with defence; 0.5 or more means
  tumour; null if no slice can be judged
- answer_slices (array): numbers of the slices that the answer rests on, from 1
- answer (string): the answer, what it rests on and the rule, in words
- slices (integer): number of slices in the file
- read (integer): number of slices that were read; with the blank ones, all
- blank (integer): number of slices that are blank
- cannot_judge (integer): number of slices that were read and are unlike the brain MRI slices of the
  training data; their outputs mean nothing
- readings (array): one object a slice, in the order of the slices, null where blank, with slice
  (from 1), tumour_probability (with defence), flagged (attack suspected) and can_judge
- kind (string): picture, DICOM or NIfTI
- seed (integer): seed of the purifier's noise, the same for every slice
- notes (array): notes on how the file was read, as sentences
- doubts (array): those of the notes that make the picture worth doubting
A volume takes as long as its slices one after another, and other requests wait meanwhile. Federated
weights hold one system per hospital: `hospital` chooses one, by default the weights' own.
A file that cannot be read gives an error message of one sentence."""


def read_whole(
    system: MedFedPure, upload: Upload | None, any_picture: bool, seed: int
) -> dict[str, Any]:
    """Return the endpoint's answer; `VOLUME_DESCRIPTION` documents it.

    Raises:
        ValueError: no file, a file that cannot be read, or a seed below 0.
    """
    volume = open_volume(upload, any_picture=any_picture)
    seed = AttackSettings(kind="none", seed=seed).seed
    readings: dict[int, SliceReading | None] = {}
    for part in read_slices(system, volume, seed):
        readings |= part
    found = [reading for reading in readings.values() if reading is not None]
    answer = answer_volume(readings)
    return {
        "tumour_probability": None if answer is None else answer.tumour_probability,
        "answer_slices": [] if answer is None else [n + 1 for n in answer.slices],
        "answer": describe_answer(readings),
        "read": len(found),
        "blank": len(volume) - len(found),
        "cannot_judge": sum(not reading.can_judge for reading in found),
        "readings": [_describe_slice(n + 1, reading) for n, reading in readings.items()],
        "seed": seed,
        **describe_file(volume),
    }


def _describe_slice(number: int, reading: SliceReading | None) -> dict[str, Any] | None:
    if reading is None:
        return None
    return {
        "slice": number,
        "tumour_probability": reading.tumour_probability,
        "flagged": reading.flagged,
        "can_judge": reading.can_judge,
    }
