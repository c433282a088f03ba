"""Public endpoints for programs: one file in, one JSON object out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from core.pipeline import MedFedPure
from core.scan import ScanError
from core.weights import Systems, choose_hospital
from demo.analysis.attack import AttackSettings
from demo.rendering.tumour_map import list_cells, summarize_map
from demo.serving.events import ON_CPU
from demo.serving.uploads import Upload, UploadStore, describe_file, open_volume
from demo.serving.volume_api import VOLUME_DESCRIPTION, read_whole

API_DESCRIPTION = """Reads one brain MRI slice with the full pipeline and returns one JSON object.
Research and teaching only - not for clinical use: model outputs, not a diagnosis.

The object holds exactly these keys:
- can_judge (boolean): false if the picture is unlike the brain MRI slices of the training data
  (novelty > novelty_limit); the outputs then mean nothing
- tumour_probability (number): 0 to 1, with defence; 0.5 or more means tumour
- tumour_probability_undefended (number): of the plain classifier, without defence
- tumour_probability_unpurified (number): of the mixture on the scan as uploaded
- tumour_probability_purified (number): of the mixture on the purified scan
- policy (string): picture: tumour_probability is of the scan as uploaded; paper or floor: of the
  purified scan
- stability_radius (number): an answer that a change of at most this much in each pixel, on a scale
  from 0 to 1, flips is not stable
- stable (boolean or null): true if a short search found no such change of the scan as uploaded
  that flips the mixture's answer (and purifying does not turn it, where the purified scan is read);
  no proof; null where it cannot judge, or where this machine is too slow for the search
- stable_radius (number or null): largest radius at which the search found no flip; 0 if there is
  none, or purifying turned the answer; null where stable is null
- flip_distance (number or null): size of the smallest change that was found to flip the answer of
  the mixture to the scan as uploaded; null if none was found
- purifying_turns (boolean): true if the answer would be another without purifying; false where the
  scan itself is read
- flagged (boolean): attack suspected, score > tau
- score (number): detector score, higher is more suspicious
- tau (number): threshold of the score
- score_name (string): name of the score that is compared with tau
- scores (object): every score by name
- contributions (object): points that each measurement adds to the fused score, by name
- usual_score (number): fused score of an average clean scan, to which the contributions are added
- confidence (number): share of clean validation scans with a lower score, interpolated between
  rounded quantiles: right to about a tenth
- novelty (number): log-odds that the picture is not a brain MRI slice
- novelty_limit (number): largest novelty at which the scan is judged
- t_star (integer): purification depth, in diffusion steps, 0 to 999
- attention (array): weight of each expert; the weights add up to 1
- expert_probabilities (array): tumour probability of each expert on the scan that is read
- expert_shares (array): each expert's share of the log-odds of tumour_probability
- operating_point (number): plus the shares, it is the log-odds of tumour_probability
- overall_share (number): part of the shares' sum that comes from global features, not from a
  tumour map
- where (string): where the tumour map sees a tumour, from a probability of .5 on, in words; empty
  where the network makes no map, and where it cannot judge
- tumour_regions (integer or null): number of regions that the tumour map marks; null where `where`
  is empty
- tumour_area (number or null): share of the head that they cover; 0 where all are outside the head;
  null where `where` is empty
- tumour_map (array): 56 rows of 56 probabilities of a tumour, one for each cell of 4 x 4 pixels,
  from the upper left corner; empty unless `with_map` asks for it
- expert_maps (array): the same of each expert, weighted by whose attention they are the tumour map
- timings_ms (object): milliseconds of detect, purify, classify, stability, total
- seed (integer): seed of the purifier's noise; equal scans and seeds give equal numbers
- kind (string): picture, DICOM or NIfTI
- slice (integer): number of the slice that was read, from 1
- slices (integer): number of slices in the file
- notes (array): notes on how the file was read, as sentences
- doubts (array): those of the notes that make the picture worth doubting
Federated weights hold one system per hospital: `hospital` chooses one, by default the weights' own.
A file that cannot be read gives an error message of one sentence."""


class Api:
    """The endpoints `read` and `read_volume`; their widgets are hidden."""

    def __init__(self, systems: Systems, problem: str, uploads: UploadStore) -> None:
        self.systems, self.problem, self.uploads = systems, problem, uploads
        with gr.Row(visible=False):
            common = [
                gr.File(label="scan"),
                gr.Checkbox(False, label="any_picture"),
                gr.Number(0, precision=0, label="seed"),
            ]
            hospital = [gr.Number(0, precision=0, label="hospital")] if len(systems) > 1 else []
            # calls may name inputs by their place, so that a new one is the last
            gr.Button().click(
                self.read if hospital else self.read_alone,
                [
                    *common,
                    gr.Number(0, precision=0, label="slice"),
                    *hospital,
                    gr.Checkbox(False, label="with_map"),
                    gr.Number(0, label="d"),
                ],
                gr.JSON(label="diagnosis"),
                api_name="read",
                api_description=API_DESCRIPTION,
                preprocess=False,
                **ON_CPU,
            )
            gr.Button().click(
                self.read_volume,
                [*common, *hospital],
                gr.JSON(label="answer"),
                api_name="read_volume",
                api_description=VOLUME_DESCRIPTION,
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
        with_map: bool = False,
        d: float = 0,
    ) -> dict[str, Any]:
        """Answer one call; `API_DESCRIPTION` documents the answer.

        Args:
            scan: picture, DICOM or NIfTI file, or zip of DICOM slices
            any_picture: also read colour pictures, which are refused otherwise
            seed: seed of the purifier's noise, 0 or more
            slice: slice of a volume, from 1; 0 for the middle slice
            hospital: hospital whose system reads, if there are several, from 1; 0 for the default
            with_map: also return the cells of the tumour map, and of each expert's
            d: stability_radius, up to .1; 0 for the default
        """
        return self._answer(
            scan,
            hospital,
            lambda system, upload: read_once(
                system, upload, bool(any_picture), int(seed), int(slice), bool(with_map), float(d)
            ),
        )

    def read_alone(
        self,
        scan: dict[str, Any] | None,
        any_picture: bool,
        seed: float,
        slice: float,
        with_map: bool = False,
        d: float = 0,
    ) -> dict[str, Any]:
        """Answer one call where there is one system; `API_DESCRIPTION` documents the answer.

        Args:
            scan: picture, DICOM or NIfTI file, or zip of DICOM slices
            any_picture: also read colour pictures, which are refused otherwise
            seed: seed of the purifier's noise, 0 or more
            slice: slice of a volume, from 1; 0 for the middle slice
            with_map: also return the cells of the tumour map, and of each expert's
            d: stability_radius, up to .1; 0 for the default
        """
        return self.read(scan, any_picture, seed, slice, with_map=with_map, d=d)

    read_alone.__name__ = "read"  # Gradio names an MCP tool after its function

    def read_volume(
        self, scan: dict[str, Any] | None, any_picture: bool, seed: float, hospital: float = 0
    ) -> dict[str, Any]:
        """Answer one call for all slices; `VOLUME_DESCRIPTION` documents the answer.

        Args:
            scan: picture, DICOM or NIfTI file, or zip of DICOM slices
            any_picture: also read colour pictures, which are refused otherwise
            seed: seed of the purifier's noise, the same for every slice, 0 or more
            hospital: hospital whose system reads, if there are several, from 1; 0 for the default
        """
        return self._answer(
            scan,
            hospital,
            lambda system, upload: read_whole(system, upload, bool(any_picture), int(seed)),
        )

    def _answer(
        self,
        scan: dict[str, Any] | None,
        hospital: float,
        read: Callable[[MedFedPure, Upload | None], dict[str, Any]],
    ) -> dict[str, Any]:
        """Decode the file, delete it, and read it with a hospital's system."""
        upload = self.uploads.decode(scan["path"]) if scan else None
        if not self.systems:
            raise gr.Error(self.problem, print_exception=False)
        try:
            numbers = [number for number in self.systems if number is not None]
            return read(self.systems[choose_hospital(int(hospital) or None, numbers)], upload)
        except (TypeError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from None


def read_once(
    system: MedFedPure,
    upload: Upload | None,
    any_picture: bool,
    seed: int,
    number: int = 0,
    with_map: bool = False,
    d: float = 0,
) -> dict[str, Any]:
    """Return the endpoint's answer for slice `number`, from 1; 0 for the middle slice.

    Raises:
        ValueError: no file, a file that cannot be read, no such slice, a seed below 0, or d out of
            range.
    """
    volume = open_volume(upload, any_picture=any_picture)
    number = number or len(volume) // 2 + 1
    if not 1 <= number <= len(volume):
        raise ScanError(f"There is no slice {number}: the file has {len(volume)}.")
    settings = AttackSettings(kind="none", seed=seed)
    system = system.with_options(d=d or None)
    diagnosis = system.read(volume.slice(number - 1), settings.seed)
    answer = diagnosis.to_dict() | summarize_map(diagnosis) | {"slice": number}
    answer |= {"tumour_map": [], "expert_maps": []}
    if with_map and diagnosis.expert_maps is not None:
        answer["tumour_map"] = list_cells(diagnosis.tumour_map)
        answer["expert_maps"] = [list_cells(cells) for cells in diagnosis.expert_maps]
    return answer | describe_file(volume)
