"""A client's local state: personal tensors of each round, and each phase's finished network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from train.federated import state_file
from train.federated.experiment import Experiment
from train.federated.state_file import StateError


class ClientState:
    """Local state of client number `client` under `root`, for every phase of a family."""

    def __init__(self, root: Path, experiment: Experiment, client: int) -> None:
        self.folder = root / experiment.family[:12] / f"client-{client:03d}"
        self.client = client
        self._phase = experiment.phase
        self._digest = experiment.digest

    def latest(self, round_index: int) -> int:
        """Return the last round up to `round_index` that has a file; 0 if there is none."""
        return max((n for n in self._files() if n <= round_index), default=0)

    def nearest(self, round_index: int) -> int:
        """Return the last round up to `round_index`, else the next one; 0 without files."""
        return self.latest(round_index) or min(self._files(), default=0)

    def read(self, round_index: int) -> dict[str, Tensor]:
        """Read the personal tensors of round `round_index`; 0 stands for a lost one.

        Raises:
            StateError: it is lost, damaged or another client's.
        """
        if not round_index:
            raise StateError(
                f"client {self.client} trained before, but its attention is not on its disk: give "
                "it back its state folder, or let it join anew under another client number"
            )
        return self._checked(self._file(round_index), self._digest)

    def write(self, round_index: int, tensors: Mapping[str, Tensor]) -> None:
        """Write the personal tensors of round `round_index`."""
        state_file.write(
            self._file(round_index), tensors, self._facts(self._digest) | {"round": round_index}
        )

    def keep_only(self, rounds: set[int]) -> None:
        """Removes the files of all other rounds."""
        for number, path in self._files().items():
            if number not in rounds:
                path.unlink()

    def finish(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the finished network of the phase."""
        state_file.write(self._finished(self._phase), tensors, self._facts(self._digest))

    def finished(self, experiment: Experiment) -> dict[str, Tensor]:
        """Read the finished network of a phase of the same family.

        Raises:
            StateError: the phase has not ended here yet, or the file is damaged or of other
                settings.
        """
        path = self._finished(experiment.phase)
        if not path.is_file():
            raise StateError(
                f"client {self.client} has no finished {experiment.phase!r}: train that phase first"
            )
        return self._checked(path, experiment.digest)

    def has_finished(self, phase: str) -> bool:
        """Return True where a phase of the same family has finished here."""
        return self._finished(phase).is_file()

    def clear(self) -> None:
        """Remove the files of the phase's rounds."""
        for path in self.folder.glob(f"{self._phase}-*"):
            path.unlink()

    def attacked(self, since: int) -> Path:
        """Return the file of the adversarial examples of round `since`; removes older ones."""
        path = self.folder / f"{self._phase}-attacked-{since:05d}.safetensors"
        for old in self.folder.glob(f"{self._phase}-attacked-*"):
            if old != path:
                old.unlink()
        return path

    def _checked(self, path: Path, digest: str) -> dict[str, Tensor]:
        tensors, facts = state_file.read(path, digest)
        if facts.get("client") != self.client:
            raise StateError(f"client {self.client}: {path.name} is another client's")
        return tensors

    def _facts(self, digest: str) -> dict[str, str | int]:
        return {"digest": digest, "client": self.client}

    def _files(self) -> dict[int, Path]:
        files = self.folder.glob(f"{self._phase}-round-*.safetensors")
        return {int(path.stem.split("-")[-1]): path for path in files}

    def _file(self, round_index: int) -> Path:
        return self.folder / f"{self._phase}-round-{round_index:05d}.safetensors"

    def _finished(self, phase: str) -> Path:
        return self.folder / f"{phase}.safetensors"
