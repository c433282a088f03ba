"""Client app: unpack a message, let the hospital work, pack a reply that may leave."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from core.checkpoint import WeightsError
from core.weights import load
from train.config import PresetError
from train.data.corpus import Corpus, load_corpus
from train.data.errors import DataError
from train.data.partition import select_client_corpus
from train.data.sources import find_data_root
from train.federated import secagg
from train.federated.client.hospital import Hospital
from train.federated.client.policy import PolicyError, read_policy
from train.federated.experiment import read_experiment
from train.federated.metrics import EQUAL_WEIGHT, SCAN_COUNT, SECONDS
from train.federated.serialization import PayloadError, pack, unpack
from train.federated.state_file import StateError
from train.federated.warm_start import load_personal_start

REFUSED_CODE = 2  # an error's code: the reason is a sentence for the server
# keys of the node config: a hospital's folders, and whether all scans there are its own
PLACES = ("data", "cache", "state", "manifests", "whole", "defence", "start")
PRIVATE_ERRORS = (DataError, WeightsError, OSError)  # stay here: a file's name may hold a patient's
# errors whose message is sent to the server
REPORTED_ERRORS = (StateError, PayloadError, PolicyError, PresetError, FloatingPointError)

app = ClientApp(mods=[secagg.client_mod])


@app.query()
def introduce(message: Message, context: Context) -> Message:
    """Reply with the client's number, its experiment and its number of scans."""

    def work(hospital: Hospital) -> RecordDict:
        identity = ConfigRecord({"client": hospital.client, "digest": hospital.experiment.digest})
        identity["num-train"] = len(hospital.corpus.train)
        identity["num-val"] = len(hospital.corpus.val)
        return RecordDict({"who": identity})

    return _answer(message, context, work)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Run one round of local training; reply with the shared tensors and metrics."""

    def work(hospital: Hospital) -> RecordDict:
        shared = _unpack_shared(message, hospital)
        config = message.content.config_records["config"]
        joined = config["joined"]
        has_joined = isinstance(joined, list) and hospital.client in joined
        if not has_joined and not hospital.experiment.is_all_shared:
            hospital.start.check(str(config.get("start", "")), hospital.client)
        new, figures = hospital.train(
            shared,
            _read_int(config["round"]),
            has_joined=has_joined,
            best=_read_int(config["best"]),
            span=(_read_share(config["from"]), _read_share(config["to"])),
            adv_share=_read_share(config["adv-share"]) if "adv-share" in config else None,
        )
        if new.keys() != hospital.spec.keys():
            raise PayloadError("something personal was about to leave: nothing was sent")
        new = read_policy(str(context.node_config.get("policy", ""))).apply(new, shared)
        if hospital.experiment.config.strategy.secagg:
            new = secagg.compute_update(
                new, shared, hospital.experiment.config.strategy.secagg_range
            )
        metrics = MetricRecord(
            {SCAN_COUNT: int(figures.pop(SCAN_COUNT)), EQUAL_WEIGHT: 1, **figures}
        )
        return RecordDict({"arrays": pack(new), "metrics": metrics})

    return _answer(message, context, work)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Reply with metrics of the client's model on its validation scans."""

    def work(hospital: Hospital) -> RecordDict:
        config = message.content.config_records["config"]
        figures = hospital.evaluate(
            _unpack_shared(message, hospital),
            _read_int(config["round"]),
            finish=bool(config["finish"]),
        )
        metrics = MetricRecord({SCAN_COUNT: int(figures.pop(SCAN_COUNT)), **figures})
        return RecordDict({"metrics": metrics})

    return _answer(message, context, work)


def _answer(message: Message, context: Context, work: Callable[[Hospital], RecordDict]) -> Message:
    start = time.monotonic()
    try:
        content = work(_get_hospital(context))
        for metrics in content.metric_records.values():
            metrics[SECONDS] = time.monotonic() - start
        return Message(content, reply_to=message)
    except PRIVATE_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        reason = "its scans, weights or folders cannot be read; its own log says which"
    except REPORTED_ERRORS as error:
        reason = str(error)
    return Message(Error(REFUSED_CODE, reason), reply_to=message)


def _unpack_shared(message: Message, hospital: Hospital) -> dict[str, Tensor]:
    return unpack(message.content.array_records["arrays"], hospital.spec, "the server")


def _read_share(value: object) -> float:
    if not isinstance(value, float) or not 0 <= value <= 1:
        raise PayloadError(f"the server sent {value!r} in place of a share")
    return value


def _read_int(value: object) -> int:
    if not isinstance(value, int):
        raise PayloadError(f"the server sent {value!r} in place of a whole number")
    return value


def _get_hospital(context: Context) -> Hospital:
    """Return this node's hospital.

    Folders come from the node's config; simulated nodes have none and take the run's.
    """
    node, run = context.node_config, context.run_config
    places = {name: str((node if "data" in node else run).get(name, "")) for name in PLACES}
    return _open_hospital(
        str(run["preset"]),
        str(run["protocol"]),
        int(run["seed"]),
        str(run["phase"]),
        int(node["partition-id"]),
        **places,
    )


@cache
def _open_hospital(
    preset: str,
    protocol: str,
    seed: int,
    phase: str,
    client: int,
    data: str,
    cache: str,
    state: str,
    manifests: str,
    whole: str,
    defence: str,
    start: str,
) -> Hospital:
    experiment = read_experiment(preset, protocol, seed, phase)
    with_masks = experiment.preset.classifier.loss.map_loss > 0
    corpus = _load_corpus(protocol, data, cache, manifests, with_masks=with_masks)
    if whole.lower() not in ("true", "1"):
        corpus = select_client_corpus(corpus, experiment.config.partition, client)
    system = None
    if experiment.config.purify and experiment.step.is_adversarial:
        if not defence:
            raise PresetError(f"client {client}: purify needs weights to purify with: --defence")
        system = load(defence)
    own = load_personal_start(experiment, Path(start), client) if start else None
    try:
        return Hospital(experiment, corpus, client, Path(state or "state"), system, own)
    except ValueError as error:
        raise PresetError(f"client {client}: {error}") from None


def clear_cache() -> None:
    """Close all opened hospitals: the next run may find other files in their folders."""
    _open_hospital.cache_clear()
    _load_corpus.cache_clear()


@lru_cache(maxsize=1)
def _load_corpus(
    protocol: str, data: str, cache: str, manifests: str, *, with_masks: bool
) -> Corpus:
    root = Path(data) if data else find_data_root()
    if root is None:
        raise DataError("name the data folder in the node's config, or set MEDFEDPURE_DATA")
    folder = Path(manifests) if manifests else None
    return load_corpus(protocol, root, Path(cache or ".cache"), folder, with_masks=with_masks)
