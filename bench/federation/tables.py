"""Tables of `python -m bench federation`."""

from __future__ import annotations

from collections.abc import Callable

from bench.markdown import Result, Results, number, percent, results_of, source, table

MB = 2**20
WORDS = {True: "yes", False: "**no**", None: ""}


def federation(results: Results) -> str:
    """Renders a line for each row, then the details of some.

    Rows of removed measurements ('twice', 'simulation', 'faults') are left out.
    """
    result = results_of(results, "federation", ("",))[""]
    lines, parts = [], []
    order = list(_FIGURE)
    kinds = {name: name.split(":")[0] for name in result["rows"]}
    for name in sorted(
        (n for n in kinds if kinds[n] in order), key=lambda n: order.index(kinds[n])
    ):
        kind, row = kinds[name], result["rows"][name]
        lines.append([name, _FIGURE[kind](row), row["must"], WORDS[row["met"]]])
        if kind in _DETAIL:
            parts.append(f"**{name}**: {row['meaning']}.\n\n{_DETAIL[kind](row)}")
    head = ["", "measured", "must", "met"]
    return "\n\n".join([table(head, lines), *parts, source(result)])


def _overhead(row: Result) -> str:
    ratio, n = row["ratio"], len(row["times"]["bare"])
    return (
        f"{ratio['wall']:.3f} on the clock, {ratio['cpu']:.3f} of the processor's time, "
        f"medians of {n}"
    )


def _payload(row: Result) -> str:
    return f"{row['packed_by_tensors']:.4f} of the tensors' bytes at most"


def _scaling(row: Result) -> str:
    off = {key: percent(fit["largest_deviation"]) for key, fit in row["fits"].items()}
    held = row["growth"].get("per_client_mb")
    memory = "not measured" if held is None else f"{held:+.3f} MB a client"
    return (
        f"off a line by at most: seconds {off['cpu_s']} %, bytes {off['bytes']} %; memory, scans "
        f"apart, {memory}"
    )


def _poison(row: Result) -> str:
    lost = row["lost_points"]
    return ", ".join(f"{name} {-value:+.1f} points" for name, value in lost.items())


def _batch_norm(row: Result) -> str:
    means = {kind: run["last"]["clean"]["mean"] for kind, run in row["runs"].items()}
    return ", ".join(f"{kind} {percent(mean)} %" for kind, mean in means.items())


def _personal(row: Result) -> str:
    test = row["differences"]["test"]
    low, high = test["interval"]
    return f"{test['points']:+.1f} points on test scans [{low:+.1f} to {high:+.1f}]"


def _payload_detail(row: Result) -> str:
    lines = [
        [
            phase,
            *(number(p[k] / MB, 2) for k in ("tensors", "down_per_round", "up_per_round")),
            str(p["rounds"]),
            number(p["total_per_client"] / MB, 0),
        ]
        for phase, p in row["phases"].items()
    ]
    head = ["phase", "tensors, MB", "down a round, MB", "up a round, MB", "rounds", "in all, MB"]
    return table(head, lines)


def _scaling_detail(row: Result) -> str:
    lines = [
        [
            n,
            *(number(f[k], 1) for k in ("wall_s", "cpu_s")),
            number(1e3 * f["cpu_s"] / int(n), 0),
            number(f["bytes"] / MB, 1),
            *(number(f[k], 0) for k in ("peak_mb", "resident_mb", "scans_mb")),
        ]
        for n, f in row["clients"].items()
    ]
    head = ["clients", "a round, s", "of it the processor's", "a client's part, ms"]
    head += ["bytes of a round, MB", "peak, MB", "resident, MB", "of it the clients' scans, MB"]
    payload = next(iter(row["clients"].values()))["payload_mb"]
    return f"{table(head, lines)}\n\nOne payload: {payload:.2f} MB."


def _runs_detail(row: Result) -> str:
    lines = [
        [
            name,
            *(percent(run["last"][key][k]) for key in ("clean", "pgd") for k in ("mean", "worst")),
            percent(run["best"]["clean"]["mean"]),
        ]
        for name, run in row["runs"].items()
    ]
    head = ["", "clean, mean, %", "worst client", "PGD-3, mean, %", "worst client"]
    return table([*head, "best round, clean, %"], lines)


def _personal_detail(row: Result) -> str:
    lines = []
    for name, folds in row["systems"].items():
        cells = [percent(folds[f][k]) for f in ("validation", "test") for k in ("mean", "worst")]
        lines.append([f"attention {name}", *cells])
    for fold, d in row["differences"].items():
        low, high = d["interval"]
        lines.append(
            [f"difference on {fold} scans", f"{d['points']:+.1f} [{low:+.1f} to {high:+.1f}]"]
            + [""] * 3
        )
    head = ["", "validation, mean, %", "worst client", "test, mean, %", "worst client"]
    gaps = [
        100 * (min(own["test"]) - min(one["test"]))
        for own, one in zip(row["runs"]["personal"], row["runs"]["shared"], strict=True)
    ]
    worst = ", ".join(f"{gap:+.1f}" for gap in gaps)
    return f"{table(head, lines)}\n\nThe worst client's difference on test scans, by seed: {worst}."


_FIGURE: dict[str, Callable[[Result], str]] = {
    "overhead": _overhead,
    "payload": _payload,
    "scaling": _scaling,
    "poison": _poison,
    "batch_norm": _batch_norm,
    "personal": _personal,
}
_DETAIL: dict[str, Callable[[Result], str]] = {
    "payload": _payload_detail,
    "scaling": _scaling_detail,
    "poison": _runs_detail,
    "batch_norm": _runs_detail,
    "personal": _personal_detail,
}
