"""Parts of weights that a federation started from and did not train further: they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core import checkpoint
from core.checkpoint import WeightsError
from core.weights import system_file_name
from train.federated.client.local_state import ClientState
from train.federated.experiment import Experiment
from train.federated.state_file import StateError
from train.phases import interval, mae, novelty
from train.recipes import FILES, list_phases


class KeptParts:
    """Files of the weights in `start` whose phase none of the clients has begun.

    `names` holds the names of the tensors of each file of the system. Without `start` it is empty.

    Raises:
        StateError: a client has begun a phase and not finished it; no phase has been finished; or
            the autoencoder was trained further and the head that reads its tokens was not.
        WeightsError: `start` lacks a file or a client's, or is of another split.
    """

    def __init__(
        self,
        start: Path | None,
        experiment: Experiment,
        clients: Sequence[int],
        states: Path,
        split_sha256: str,
    ) -> None:
        self.start, self.names = start, dict[str, set[str]]()
        if start is None:
            return
        local = [ClientState(states, experiment, client) for client in clients]
        phases = list_phases(experiment.preset)
        kept = [p for p in phases if not any(state.has_begun(p) for state in local)]
        if kept == phases:
            raise StateError(
                f"no client has finished a phase in {states}: nothing to add to {start}"
            )
        for phase in set(phases) - set(kept):
            for state in local:
                state.check_finished(phase)
        if novelty.PHASE.name in kept and mae.PHASE.name not in kept:
            raise StateError(
                f"the autoencoder was trained further: train {novelty.PHASE.name!r} too, which "
                "reads its tokens"
            )
        lines = checkpoint.read_manifest(start)
        for name in (system_file_name(client + 1) for client in clients):
            if name not in lines:
                raise WeightsError(f"{start} holds no {name} to start from.")
        self.names = {
            FILES[p]: set(checkpoint.load_verified(FILES[p], start).state_dict) for p in kept
        }
        self._lines = {n: lines[n] for n in (*self.names, interval.PHASE.file) if n in lines}
        if any(line.split_sha256 != split_sha256 for line in self._lines.values()):
            raise WeightsError(f"The weights in {start} were trained on another split.")

    def copy(self, out: Path, written: set[str]) -> None:
        """Copy the kept files with their lines in the manifest to `out`, but those in `written`."""
        if self.start is None:
            return
        for file, line in self._lines.items():
            if file in written:
                continue
            checkpoint.load_verified(file, self.start)
            checkpoint.write_atomic(out / file, (self.start / file).read_bytes())
            checkpoint.write_manifest(
                out, [file], preset=line.preset, protocol=line.protocol, commit=line.commit,
                keep=True,
            )  # fmt: skip
