"""README tables of the single parts: detector, purifier, autoencoder, speed."""

from __future__ import annotations

from bench.markdown import (
    PROTOCOLS,
    Results,
    accuracy,
    area,
    by_class,
    number,
    percent,
    results_of,
    source,
    table,
)

NOTE = (
    "Energy of a perturbation d that is removed: 1 - |P(x + d) - P(x)|² / |d|², how far the "
    "attack still shows behind P. The same against the clean scan: 1 - |P(x + d) - x|² / |d|²; "
    "what P itself changes counts too, and is far more than an invisible attack. On flagged A0 "
    "scans of the plain classifier for the purifier, on all of them for the rest. Filters: at the "
    "strength that is best on validation scans, by PSNR for the column in dB, by the plain "
    "classifier's accuracy for the others."
)


def detection(results: Results) -> str:
    """AUROC and detection rates of the named scores, false alarms under harmless change."""
    parts = []
    for protocol, result in results_of(results, "detection", PROTOCOLS).items():
        attacked, alarms, notes = [], [], []
        for name, row in result["rows"].items():
            for score, cells in row.get("scores", {}).items():
                if score.startswith("feature"):
                    continue
                rates = [percent(row["flagged"][score]["accuracy"])]
                rates += [percent(cells["tpr_at_5"]), percent(cells["tpr_at_1"])]
                attacked.append([name, score, area(cells), *rates])
            if "carried" in row:
                most = max(row["carried"], key=row["carried"].get)
                notes.append(f"{name}: {most}, {percent(row['carried'][most])} %")
            if "scores" not in row:
                blocks = {
                    name: row,
                    **{f"{name}, {k}": b for k, b in row.get("sources", {}).items()},
                }
                for label, block in blocks.items():
                    shares = (block["flagged"][s]["accuracy"] for s in ("paper", "fused"))
                    alarms.append([label, *map(percent, shares)])
        head = ["attack on", "score", "AUROC", "flagged at τ, %",
                "found where 5 % of the clean twins raise an alarm, %", "where 1 %, %"]  # fmt: skip
        text = f"**{protocol}**\n\n{table(head, attacked)}"
        text += f"\n\n{table(['scans', 'paper: flagged, %', 'fused: flagged, %'], alarms)}"
        n = next(row["n"] for row in result["rows"].values() if "n" in row)
        text += f"\n\nn = {n}; intervals by near-duplicate group. "
        if notes:
            text += f"What carries most of the fused score's distance: {'; '.join(notes)}. "
        parts.append(text + source(result))
    return "\n\n".join(parts)


def purifier(results: Results) -> str:
    """The purifier beside the best filters."""
    parts = []
    for protocol, result in results_of(results, "purifier", PROTOCOLS).items():
        rows = result["rows"]
        energy, noise, behind = rows["energy"], rows["denoising"], rows["accuracy"]["systems"]
        filters = [n for n, f in energy.items() if isinstance(f, dict) and "removed" in f]
        names = dict.fromkeys([*behind, *filters])
        lines = []
        for name in names:
            removed = energy.get(name) or {}
            psnr = noise["psnr"].get({"nothing": "noisy"}.get(name, name), {}).get("mean")
            right = behind.get(name) or {}
            lines.append(
                [
                    name,
                    percent(removed.get("removed")),
                    percent(removed.get("removed_and_faithful")),
                    number(psnr, 2),
                    *(accuracy(right.get(row)) for row in ("clean", "A0")),
                    by_class((right.get("A0") or {}).get("recall", {})),
                ]
            )
        head = ["", "perturbation energy removed, %", "the same against the clean scan, %",
                f"PSNR at t = {noise['t']}, dB", "plain classifier behind it: clean, %", "A0, %",
                "tumour / no tumour under A0, %"]  # fmt: skip
        note = f"Energy and PSNR: n = {energy['n']} and {noise['n']}. {NOTE}"
        parts.append(f"**{protocol}**\n\n{table(head, lines)}\n\n{note} {source(result)}")
    return "\n\n".join(parts)


def mae(results: Results) -> str:
    """Hidden patches: the autoencoder against filling in."""
    lines = []
    for protocol, result in results_of(results, "mae", PROTOCOLS).items():
        for name, row in result["rows"].items():
            if "ratio" in row:
                errors = [f"{row[k]:.5f}" for k in ("mae_mse", "filling_mse")]
                low, high = row["ratio_interval"]
                ratio = f"{row['ratio']:.2f} [{low:.2f} to {high:.2f}]"
                lines.append([protocol, name, *errors, ratio, str(row["n"])])
    head = ["protocol", "masks", "autoencoder, MSE", "filling in, MSE", "ratio", "n"]
    return table(head, lines)


def novelty(results: Results) -> str:
    """What the system refuses to judge."""
    parts = []
    for result in results_of(results, "novelty", PROTOCOLS).values():
        lines = []
        for name, row in result["rows"].items():
            by_group = None if row["k"] in (0, row["n"]) else row.get("group_interval")
            low, high = by_group or row["interval"]  # of none or all, resampling cannot tell
            share = f"{percent(row['refused'])} [{percent(low)} to {percent(high)}]"
            lines.append([name, share, f"{row['k']}/{row['n']}"])
        head = ["pictures", "'cannot judge', % [95 %]", ""]
        parts.append(f"{table(head, lines)}\n\n{source(result)}")
    return "\n\n".join(parts)


def demo(results: Results) -> str:
    """The page as visitors meet it."""
    result = results_of(results, "demo", ("",))[""]
    rows = result["rows"]
    page, access = rows["page"], rows["accessibility"]
    crowd = next(row for name, row in rows.items() if name.endswith("visitors"))
    name = next(name for name in rows if name.endswith("visitors"))
    times = {
        k: " / ".join(f"{page[k][m] / 1e3:.2f} s" for m in ("median_ms", "p95_ms"))
        for k in ("first_picture", "pgd7_reading")
    }
    wait = crowd["wait"]
    lines = [
        ["a file dropped to its picture, median / p95", times["first_picture"]],
        ["Analyse to the whole result with PGD-7, median / p95", times["pgd7_reading"]],
        ["requests of the browser that left the machine", str(page["requests_that_leave"])],
        ["files left after closing", str(page["left_after_close"])],
        [
            "axe-core violations, all tabs and steps of the lesson, dark and light",
            str(access["violations"]),
        ],
        [
            f"{name} of the endpoint `read` for {crowd['seconds']:.0f} s: asked, read, errors, "
            "another's results",
            f"{crowd['asked']}, {crowd['readings']}, {crowd['errors']}, {crowd['mixed']}",
        ],
        ["their wait for a reading, median", f"{wait['median_ms'] / 1e3:.1f} s"],
        [
            "memory of the app after 200 of them against after 20",
            f"{crowd['growth_20_to_200']:+.1%}",
        ],
        [
            "and after all",
            f"{crowd['memory_mb_at_the_end'] / crowd['memory_mb_after_20'] - 1:+.1%}",
        ],
    ]
    return f"{table(['', ''], lines)}\n\n{source(result)}"


def latency(results: Results) -> str:
    """Times of single scans."""
    parts = []
    for result in results_of(results, "latency", PROTOCOLS).values():
        rows, lines = result["rows"], []
        for name, label in (
            ("read", "flagged file to Diagnosis"),
            ("PGD-7, classifier", "PGD-7 on the classifier"),
            ("PGD-7, knows the defence", "PGD-7 knowing the defence"),
        ):
            if name in rows:
                row = rows[name]
                times = [f"{row[k] / 1e3:.2f} s" for k in ("median_ms", "p95_ms")]
                lines.append([label, " / ".join(times) + f" (n = {row['n']})"])
        for row in rows.values():
            if "ratio" in row:
                lines.append([f"times faster than preset `{row['preset']}`", f"{row['ratio']:.1f}"])
        if "app" in rows:
            app = rows["app"]
            lines.append(["`python app.py` to first page", f"{app['first_page_s']:.1f} s"])
            if app["peak_reading_mb"] is not None:
                lines.append(
                    ["peak memory while reading", f"{app['peak_reading_mb'] / 1024:.2f} GB"]
                )
        rate = f"{rows['machine']['best_gflops']:.0f} GFLOP/s"
        lines.append(["the machine's own matrix products", rate])
        parts.append(f"{table(['', 'median / p95'], lines)}\n\n{source(result)}")
    return "\n\n".join(parts)


def looks(results: Results) -> str:
    """Lesions behind the purifier, explanations against outlines, tumours painted over."""
    lines, notes = [], []
    for protocol, result in results_of(results, "looks", PROTOCOLS).items():
        kept, where, paint = (result["rows"][n] for n in ("lesions", "pointing", "painting"))
        for name, key in (
            ("lesion contrast kept", "contrast_kept"),
            ("perturbation energy removed from the same scans", "energy_removed"),
        ):
            found = kept[key]
            values = f"{percent(found['median'])} / {percent(found['tenth'])}"
            lines.append([protocol, f"{name}, %, median / 10th percentile", values, str(kept["n"])])
        inside, chance = percent(where["energy_inside"]), percent(where["by_chance"])
        pointing = f"{accuracy(where['pointing'])} ({chance})"
        lines += [
            [protocol, "Grad-CAM's highest point in the outline (by chance), %", pointing, ""],
            [protocol, "its energy in the outline (by chance), %", f"{inside} ({chance})",
             str(where["n"])],
        ]  # fmt: skip
        for name, title in (
            ("tumour", "painted over from the other side: the probability falls, %"),
            ("elsewhere", "the same patch painted elsewhere: it falls, %"),
        ):
            lines.append([protocol, title, accuracy(paint[name]), str(paint[name]["n"])])
        notes.append(
            f"{protocol}: of {paint['found']} tumours that are found, "
            f"{paint['across_the_midline']} reach across the midline, where the other side is "
            f"tumour too, and {paint['without_room']} leave no room elsewhere: not painted."
        )
    head = ["protocol", "outlined tumours of the test fold", "", "n"]
    return (
        f"{table(head, lines)}\n\nA fall is one of .1 or more. By chance: the outline's share of "
        f"the brain. {' '.join(notes)} {source(result)}"
    )
