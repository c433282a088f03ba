"""The command `mixtures`: mixtures from training folders, compared on the same scans.

A mixture of `train mixture` is calibrated on the protocol's validation scans. Of a federation each
scan is read at its own hospital: of exported weights with the calibration there, of a folder of
`train federated` with its own statistics of normalisation and a calibration on its own validation
scans. Detector and purifier are left out. Worst case: right on the clean scan, after PGD-7 and
after APGD on the cross-entropy. Of a source that the protocol leaves out, the operating point is
set without labels as well, and the least confident answers are refused, as `coverage` does it;
further those that a small change would flip.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import markdown as md
from bench import options
from bench.intervals import draw_balanced_accuracy, draw_units, find_interval
from bench.parallel import progress
from bench.provenance import machine_facts
from bench.result_file import ResultFile
from bench.robustness.attacks import Attacker
from bench.robustness.survivors import mark_survivors
from bench.summaries import from_bits, group_rows, share_by_label, to_bits
from bench.unseen.coverage import measure_site, render_site, render_table
from bench.unseen.figures import Facts, average_balanced_accuracy, summarize_system
from bench.unseen.flips import COLUMNS, SCANS, find_distances, measure_flips, render_flips
from bench.unseen.hospitals import Reader, deal, find_readers, group_by_reader
from bench.unseen.run import thin_by_source
from bench.unseen.tables import render_percent
from core import checkpoint, metrics, weights
from core.attacks import paper_attack
from core.attacks.threat_models import PAPER_EPS
from core.classifier import Calibrated
from core.moe import MixtureOfExperts, MoEConfig
from train.calibration.calibrate import set_operating_point
from train.data.corpus import Corpus, load_corpus
from train.data.dataset import ScanDataset, space_evenly
from train.data.partition import select_client_corpus
from train.data.split import PROTOCOLS, Manifest, read_manifest
from train.federated.client.local_state import ClientState
from train.federated.experiment import Experiment, read_experiment
from train.federated.state_file import StateError

HELP = (
    "mixtures of `train mixture` by source, clean, attacked, and where training left a source out"
)
FILE, RUN = "classifier.safetensors", "mixture/federated.json"
SCOPE = "attacked"
Classifiers = Mapping[Reader, Calibrated]
LEFT_OUT = [protocol for protocol in PROTOCOLS if protocol.startswith("without-")]
MIN_SCANS = 20  # of a source left out, half of which set its operating point


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = parser.add_argument
    add("--protocol", default="patients", choices=list(PROTOCOLS), help="split to test on")
    add(
        "--run", action="append", required=True, type=parse_run, metavar="NAME=DIR", dest="trained",
        help="a name and the folder of `train mixture`, `train federated mixture` or of weights; "
        "repeat it, the first is the base",
    )  # fmt: skip
    add(
        "--attacked", type=int, default=150,
        help="largest number of scans of each source that are attacked, evenly spaced",
    )  # fmt: skip
    options.add_scans(parser, "--batch-size", "--fold", "--val-limit")


def parse_run(text: str) -> tuple[str, Path]:
    """Parse NAME=DIR."""
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"expected NAME=DIR, got {text!r}")
    return name, Path(folder)


def run(args: argparse.Namespace) -> None:
    """Measures each mixture; rows of an earlier call stay."""
    manifest, device = read_manifest(args.protocol, args.manifests), options.device_of(args)
    settings = {name: getattr(args, name) for name in ("attacked", "fold", "limit", "val_limit")}
    store = ResultFile(
        args.out or options.result_path(args),
        args.command,
        {"protocol": args.protocol, "manifest_sha256": manifest.sha256, "settings": settings},
        {"machine": machine_facts(device)},
        args.fresh,
    )
    fold, validation = options.open_fold(args), options.open_validation(args)
    for name, folder in args.trained:
        trained = next((f for f in (RUN, checkpoint.MANIFEST) if (folder / f).is_file()), FILE)
        classifiers: Classifiers
        readers: list[Reader]
        if trained == RUN:
            corpus = load_corpus(args.protocol, options.root_of(args), args.cache, args.manifests)
            experiment, classifiers = read_federation(folder, corpus, device)
            readers = [*deal(experiment.config.partition, fold, manifest)]
        else:
            part = _load_part(folder / FILE, manifest)
            if trained == FILE:
                only = build_classifier(part.config, part.state_dict, validation, device)
                classifiers, readers = {None: only}, [None] * len(fold)
            else:
                systems = weights.load_all(folder, device)
                classifiers = {number: system.classifier for number, system in systems.items()}
                readers = find_readers(systems, fold, manifest)
        store.row(
            name,
            lambda c=classifiers, r=readers: measure(
                c, r, fold, args.attacked, args.batch_size, device
            ),
            classifier=hashlib.sha256((folder / trained).read_bytes()).hexdigest(),
        )
    store.close()


def _load_part(file: Path, manifest: Manifest) -> checkpoint.Checkpoint:
    part = checkpoint.load(file)
    if part.split_sha256 != manifest.sha256:
        raise checkpoint.WeightsError(
            f"{file} was trained on another split than {manifest.protocol!r}: its training scans "
            "may be test scans here"
        )
    return part


def read_federation(
    folder: Path, corpus: Corpus, device: torch.device
) -> tuple[Experiment, Classifiers]:
    """Read every hospital's mixture from a folder of `train federated mixture`, calibrated.

    Raises:
        StateError: a hospital has not finished it, or it is of another protocol.
        PresetError: its preset is not known here.
    """
    facts = json.loads((folder / RUN).read_text(encoding="utf-8"))
    if facts["protocol"] != corpus.protocol:
        raise StateError(f"{folder} was trained on {facts['protocol']!r}, not {corpus.protocol!r}")
    experiment = read_experiment(facts["preset"], facts["protocol"], facts["seed"])
    config, classifiers = asdict(experiment.preset.system.moe), dict[Reader, Calibrated]()
    for client in range(experiment.config.partition.num_clients):
        state = ClientState(folder / "clients", experiment, client).read_finished(experiment)
        own = select_client_corpus(corpus, experiment.config.partition, client).val
        classifiers[client + 1] = build_classifier(config, state, own, device)
    return experiment, classifiers


def build_classifier(
    config: dict[str, Any],
    state: dict[str, Tensor],
    validation: ScanDataset,
    device: torch.device,
) -> Calibrated:
    """Build a mixture from its stored configuration and tensors, calibrated on validation scans."""
    shape = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    classifier = Calibrated(MixtureOfExperts(MoEConfig(**{**shape, "pretrained": False})))
    classifier.model.load_state_dict(state)
    classifier.eval().requires_grad_(False).to(device)
    x, y = validation.all(device)
    set_operating_point(classifier, x, y, validation.weights, validation.groups)
    return classifier


def measure(
    classifiers: Classifiers,
    readers: Sequence[Reader],
    fold: ScanDataset,
    attacked: int,
    batch_size: int,
    device: torch.device,
) -> dict[str, Any]:
    """Measure all scans clean and some of each source in the worst case; bits are by scan.

    `classifiers[readers[i]]` reads scan i.
    """
    facts = Facts.of(fold, {})
    log_odds = read_each(
        classifiers, readers, fold, lambda c, part: read_clean(c, part, batch_size, device)
    )
    rows = list(thin_by_source({SCOPE: range(len(fold))}, fold.sources, attacked)[SCOPE])
    some = facts.pick(rows)
    attacks = (paper_attack(eight_bit=True), replace(Attacker(PAPER_EPS).apgd(), eight_bit=True))
    right = read_each(
        classifiers,
        [readers[i] for i in rows],
        fold.pick(rows),
        lambda c, part: mark_survivors(c, part, attacks, batch_size),
    )
    flips = {}
    for source, own in list_left_out(fold).items():
        few = [own[i] for i in space_evenly(len(own), SCANS)]
        distance = read_each(
            classifiers,
            [readers[i] for i in few],
            fold.pick(few),
            lambda c, part: find_distances(c, part, batch_size, device),
        )
        flips[source] = measure_flips(log_odds[few], distance, fold.pick(few))
    signed = torch.where(right == (some.y == 1), 1.0, -1.0)  # as if the answer were its log-odds
    return {
        "clean": summarize_system(log_odds, facts),
        "left_out": measure_left_out(log_odds, fold),
        "flips": flips,
        "right": to_bits((log_odds >= 0) == (facts.y == 1)),
        "attacked": len(rows),
        "worst": average_balanced_accuracy(signed, some),
        "worst_by_source": {
            source: share_by_label(right[own], some.y[own])["recall"]
            for source, own in group_rows(some.sources).items()
        },
        "worst_bits": to_bits(right),
        "worst_facts": {
            "labels": to_bits(some.y == 1), "units": list(some.units), "sources": some.sources,
        },
    }  # fmt: skip


def measure_left_out(log_odds: Tensor, fold: ScanDataset) -> dict[str, Any]:
    """Measure each source with both classes that training left out, by source."""
    return {
        source: measure_site(log_odds[rows], None, fold.pick(rows))
        for source, rows in list_left_out(fold).items()
    }


def list_left_out(fold: ScanDataset) -> dict[str, list[int]]:
    """Return the scans of each source with both classes that training left out."""
    out = [i for i, entry in enumerate(fold.entries) if entry.first_fold]
    found = {}
    for source, places in group_rows([fold.sources[i] for i in out]).items():
        rows = [out[i] for i in places]
        if len(rows) >= MIN_SCANS and 0 < int(fold.labels[rows].sum()) < len(rows):
            found[source] = rows
    return found


def read_each(
    classifiers: Classifiers,
    readers: Sequence[Reader],
    fold: ScanDataset,
    read: Callable[[Calibrated, ScanDataset], Tensor],
) -> Tensor:
    """Return what `read` tells of every scan (N,), of `classifiers[readers[i]]` for scan i."""
    groups, back = group_by_reader(readers)
    parts = [read(classifiers[reader], fold.pick(rows)) for reader, rows in groups.items()]
    return torch.cat(parts)[back]


@torch.no_grad()
def read_clean(
    classifier: Calibrated, fold: ScanDataset, batch_size: int, device: torch.device
) -> Tensor:
    """Return the calibrated log-odds of every scan, (N,) float64 on the CPU."""
    parts = []
    for x, _, _ in progress(fold.batches(batch_size, device), "clean"):
        logits = classifier(x)
        parts.append((logits[:, 1] - logits[:, 0]).cpu().double())
    return torch.cat(parts)


def render_unstable(results: md.Results) -> str:
    """Renders what refusing answers that would flip costs where training left a source out.

    Raises:
        KeyError: no result has measured it; it names the missing files.
    """
    lines = _list_sites(results, "flips", render_flips)
    head = ["protocol", "mixture", "source, scans", "refused within", *COLUMNS.values()]
    return md.table(head, lines)


def render_left_out(results: md.Results) -> str:
    """Renders what sites without labels and refusals bring where training left a source out.

    Raises:
        KeyError: no result has left a source out; it names the missing files.
    """
    lines = _list_sites(results, "left_out", render_site)
    return render_table(["protocol", "mixture", "source, scans"], lines)


def _list_sites(
    results: md.Results,
    figure: str,
    render: Callable[[list[str], dict[str, Any]], Iterable[list[str]]],
) -> list[list[str]]:
    lines = [
        line
        for protocol, result in md.results_of(results, "mixtures", PROTOCOLS).items()
        for name, row in result["rows"].items()
        for source, site in row.get(figure, {}).items()  # rows of earlier versions have none
        for line in render([protocol, name, f"{source}, {site['n']}"], site)
    ]
    if not lines:
        raise KeyError(" or ".join(f"mixtures-{protocol}.json" for protocol in LEFT_OUT))
    return lines


def render_trainings(results: md.Results) -> str:
    """Renders the mixtures of the protocols that leave no source out."""
    return _render_mixtures(results, [p for p in PROTOCOLS if p not in LEFT_OUT])


def render_mixtures(results: md.Results) -> str:
    """Renders the mixtures of the protocols that leave a source out."""
    return _render_mixtures(results, LEFT_OUT)


def _render_mixtures(results: md.Results, protocols: Sequence[str]) -> str:
    """Renders every mixture of each protocol, and its worst case against the first one's."""
    parts = []
    for protocol, result in md.results_of(results, "mixtures", protocols).items():
        rows = result["rows"]
        base = next(iter(rows))
        lines = [_render(name, row, rows[base]) for name, row in rows.items()]
        sources = list(rows[base]["clean"]["sources"])
        head = ["mixture", *(f"{source}: AUC; balanced, %" for source in sources),
                "mean balanced, %", "mean worst case, %", f"worst case against {base}"]  # fmt: skip
        parts += [f"**{protocol}**", md.table(head, lines), md.source(result)]
    return "\n\n".join(parts)


def _render(name: str, row: dict[str, Any], base: dict[str, Any]) -> list[str]:
    cells = []
    for block in row["clean"]["sources"].values():
        if "auc" in block:
            cells.append(f"{block['auc']['value']:.3f}; {md.percent(block['balanced']['value'])}")
        else:
            only = block.get("specificity") or block["recall"]
            cells.append(f"{md.percent(only['value'])} right")
    against = "" if row is base else _compare(row, base)
    clean, worst = row["clean"]["mean_balanced"], row["worst"]
    return [name, *cells, _render_mean(clean), _render_mean(worst), against]


def _compare(row: dict[str, Any], base: dict[str, Any]) -> str:
    """Compare the worst cases: scans won and lost, and the difference with its interval by patient.

    McNemar's p counts scans as independent, which those of a patient are not.
    """
    own, other = from_bits(row["worst_bits"]), from_bits(base["worst_bits"])
    won, lost, p = metrics.mcnemar(own, other)
    low, high = find_interval(draw_difference(own, other, row["worst_facts"]))
    difference = row["worst"]["value"] - base["worst"]["value"]
    return (
        f"{100 * difference:+.1f} [{100 * low:+.1f} to {100 * high:+.1f}]; +{won} -{lost} of "
        f"{len(own)} scans (p = {p:.2g} by scan)"
    )


def draw_difference(own: Tensor, other: Tensor, facts: dict[str, Any]) -> Tensor:
    """Draw units, and compute the difference of the mean balanced accuracies in each draw, (D,)."""
    y, times = from_bits(facts["labels"]), draw_units(facts["units"])
    parts = []
    for rows in group_rows(facts["sources"]).values():
        if 0 < int(y[rows].sum()) < len(rows):
            drawn = [
                draw_balanced_accuracy(times[:, rows], right[rows], y[rows].long())
                for right in (own, other)
            ]
            parts.append(drawn[0] - drawn[1])
    return torch.stack(parts).mean(0)


def _render_mean(mean: dict[str, Any]) -> str:
    return render_percent(mean if mean["sources"] else None)


TABLES: dict[str, md.Renderer] = {
    "trainings": render_trainings,
    "mixtures": render_mixtures,
    "left-out": render_left_out,
    "left-out-unstable": render_unstable,
}
