"""The public endpoint: one scan in, one JSON object out, for programs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from core.pipeline import MedFedPure
from core.scan import ScanError
from core.weights import Systems, choose
from demo.analysis.attack import AttackSettings
from demo.serving.events import ON_CPU
from demo.serving.uploads import Upload, UploadStore

API_DESCRIPTION = """Reads one brain-MRI slice with the whole defence and returns one JSON object.
Research and teaching only - not for clinical use: model outputs, no finding.

The object holds exactly these keys:
- can_judge (boolean): false where the picture is unlike the brain MRI slices that the system has
  learned from, which is novelty > novelty_limit; the outputs then mean nothing
- tumour_probability (number): 0 to 1, of the defended reading; from 0.5 on it says tumour
- tumour_probability_undefended (number): of a plain classifier, without any defence
- tumour_probability_unpurified (number): of the defended mixture, on the scan as it came
- flagged (boolean): whether an attack is suspected, which is score > tau
- score (number): of the detector, higher is more suspicious
- tau (number): its threshold
- score_name (string): which score that is
- scores (object): every score by name
- confidence (number): share of clean validation scans that scored lower
- novelty (number): log-odds that the picture is no brain MRI slice
- novelty_limit (number): up to which it is judged
- t_star (integer): how deep the scan was purified, 0 to 999
- attention (array): weight of each expert; they add up to 1
- expert_probabilities (array): tumour, by each expert alone, on the purified scan
- timings_ms (object): milliseconds of detect, purify, classify, total
- seed (integer): of the purifier's noise; the same scan and seed give the same numbers
- kind (string): picture, DICOM or NIfTI
- slice (integer): which one was read, counted from 1
- slices (integer): how many the file has
- notes (array): sentences that a reader of the file must know
Of a federation's weights the first hospital's system reads, or the one that `hospital` names.
A file that cannot be read is an error with one sentence."""


class Api:
    """One public endpoint; its widgets are never shown."""

    def __init__(self, systems: Systems, problem: str, uploads: UploadStore) -> None:
        self.systems, self.problem, self.uploads = systems, problem, uploads
        with gr.Row(visible=False):
            inputs = [
                gr.File(label="scan"),
                gr.Checkbox(False, label="any_picture"),
                gr.Number(0, precision=0, label="seed"),
                gr.Number(0, precision=0, label="slice"),
            ]
            if len(systems) > 1:
                inputs.append(gr.Number(0, precision=0, label="hospital"))
            gr.Button().click(
                self.read,
                inputs,
                gr.JSON(label="diagnosis"),
                api_name="read",
                api_description=API_DESCRIPTION,
                preprocess=False,
                **ON_CPU,
            )

    def read(
        self,
        scan: dict[str, Any] | None,
        any_picture: bool,
        seed: float,
        slice: float,
        hospital: float = 0,
    ) -> dict[str, Any]:
        """What the endpoint does; `API_DESCRIPTION` describes it to its callers.

        Args:
            scan: picture, DICOM or NIfTI file, or zip of DICOM slices
            any_picture: true reads colour pictures too, which are refused otherwise
            seed: of the purifier's noise, from 0
            slice: of a volume, counted from 1; 0 is the middle one
            hospital: where there are several, whose system reads, counted from 1; 0 is the first
        """
        upload = self.uploads.decode(scan["path"]) if scan else None
        if not self.systems:
            raise gr.Error(self.problem, print_exception=False)
        try:
            numbers = [number for number in self.systems if number is not None]
            system = self.systems[choose(int(hospital) or None, numbers)]
            return read_once(system, upload, bool(any_picture), int(seed), int(slice))
        except (TypeError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from None


def read_once(
    system: MedFedPure, upload: Upload | None, any_picture: bool, seed: int, number: int = 0
) -> dict[str, Any]:
    """One reading as the endpoint returns it, of slice `number`, counted from 1; 0: the middle.

    Raises:
        ValueError: no file, a file that cannot be read, no such slice, or a seed below 0; the
            message says which.
    """
    if upload is None:
        raise ScanError("Send one file.")
    volume = upload.volume
    if volume is None or (upload.is_colour and not any_picture):
        raise ScanError(upload.refusal)
    number = number or len(volume) // 2 + 1
    if not 1 <= number <= len(volume):
        raise ScanError(f"There is no slice {number}: the file has {len(volume)}.")
    settings = AttackSettings(kind="none", seed=seed)
    diagnosis = system.read(volume.slice(number - 1), settings.seed)
    about = {"kind": volume.kind, "slice": number, "slices": len(volume), "notes": volume.notes}
    return diagnosis.to_dict() | about
