"""Local state of a client: personal tensors after each round, each phase's finished network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from train.federated import state_file
from train.federated.experiment import Experiment
from train.federated.state_file import StateError


class ClientState:
    """Files of client number `client` under `root`, shared by all phases of a family."""

    def __init__(self, root: Path, experiment: Experiment, client: int) -> None:
        self.folder = root / experiment.family[:12] / f"client-{client:03d}"
        self.client = client
        self._phase = experiment.phase
        self._digest = experiment.digest

    def find_latest(self, round_index: int) -> int:
        """Return the last round up to `round_index` that has a file; 0 if there is none."""
        return max((n for n in self._list_round_files() if n <= round_index), default=0)

    def find_nearest(self, round_index: int) -> int:
        """Return the last round up to `round_index` that has a file, else the first, else 0."""
        return self.find_latest(round_index) or min(self._list_round_files(), default=0)

    def read(self, round_index: int) -> dict[str, Tensor]:
        """Read the personal tensors after round `round_index`; 0 stands for lost ones.

        Raises:
            StateError: they are lost, damaged or another client's.
        """
        if not round_index:
            raise StateError(
                f"client {self.client} trained before, but its attention is not on its disk: "
                "restore its state folder, or let it join as another client number"
            )
        return self._read_own(self._get_round_file(round_index), self._digest)

    def write(self, round_index: int, tensors: Mapping[str, Tensor]) -> None:
        """Write the personal tensors after round `round_index`."""
        state_file.write(
            self._get_round_file(round_index),
            tensors,
            self._build_facts(self._digest) | {"round": round_index},
        )

    def keep_rounds(self, rounds: set[int]) -> None:
        """Remove the files of all other rounds."""
        for number, path in self._list_round_files().items():
            if number not in rounds:
                path.unlink()

    def write_finished(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the whole network at the end of the phase."""
        state_file.write(
            self._get_finished_file(self._phase), tensors, self._build_facts(self._digest)
        )

    def read_finished(self, experiment: Experiment) -> dict[str, Tensor]:
        """Read the finished network of a phase of the same family.

        Raises:
            StateError: this client has not finished the phase, or the file is damaged or was
                written with other settings.
        """
        self.check_finished(experiment.phase)
        return self._read_own(self._get_finished_file(experiment.phase), experiment.digest)

    def check_finished(self, phase: str) -> None:
        """Raise StateError if this client has not finished a phase of the same family."""
        if not self.has_finished(phase):
            raise StateError(
                f"client {self.client} has no finished {phase!r}: train that phase first"
            )

    def has_begun(self, phase: str) -> bool:
        """Return True if this client has trained in that phase of the same family."""
        return self.has_finished(phase) or any(self.folder.glob(f"{phase}-round-*"))

    def has_finished(self, phase: str) -> bool:
        """Return True if this client has finished that phase of the same family."""
        return self._get_finished_file(phase).is_file()

    def clear(self) -> None:
        """Remove the files of the phase's rounds."""
        for path in self.folder.glob(f"{self._phase}-*"):
            path.unlink()

    def adversarial_cache(self, since: int) -> Path:
        """Return the file of round `since`'s adversarial examples; removes older ones."""
        path = self.folder / f"{self._phase}-attacked-{since:05d}.safetensors"
        for old in self.folder.glob(f"{self._phase}-attacked-*"):
            if old != path:
                old.unlink()
        return path

    def _read_own(self, path: Path, digest: str) -> dict[str, Tensor]:
        tensors, facts = state_file.read(path, digest)
        if facts.get("client") != self.client:
            raise StateError(f"client {self.client}: {path.name} is another client's")
        return tensors

    def _build_facts(self, digest: str) -> dict[str, str | int]:
        return {"digest": digest, "client": self.client}

    def _list_round_files(self) -> dict[int, Path]:
        files = self.folder.glob(f"{self._phase}-round-*.safetensors")
        return {int(path.stem.split("-")[-1]): path for path in files}

    def _get_round_file(self, round_index: int) -> Path:
        return self.folder / f"{self._phase}-round-{round_index:05d}.safetensors"

    def _get_finished_file(self, phase: str) -> Path:
        return self.folder / f"{phase}.safetensors"
