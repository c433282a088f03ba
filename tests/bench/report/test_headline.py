"""The table at a glance shows what the files hold, and nothing of what has not been measured."""

import pytest

from bench.report.headline import glance

SHARES = {"undefended": {"clean": 0.9, "A0": 0.03}, "defence": {"clean": 0.98, "A0": 0.95}}
PLACES = ("br35h", "brain-tumor-mri")


def _sources(share):
    return {place: {"accuracy": share - 0.01, "n": 40} for place in PLACES}


def _robustness():
    return {"rows": {
        row: {"systems": {
            name: {"accuracy": shares[row], "n": 80, "sources": _sources(shares[row])}
            for name, shares in SHARES.items()
        }}
        for row in ("clean", "A0")
    }}  # fmt: skip


def _ladder(to_come=()):
    found = {
        name: {"clean": {"sources": _sources(0.97)}, "worst": {"sources": _sources(share)}}
        for name, share in (("defence", 0.9), ("undefended", 0.02))
    }
    known = {"A9 (1)": 0.948, "A9 (2)": 0.7, "A9b (1)": 0.8, "A9b (3)": 0.362, "worst": 0.52}
    areas = {"clean": {"n": 80}} | {name: {"auroc": area} for name, area in known.items()}
    found["defence"] |= {"to_come": list(to_come), "detection": areas}
    return {"standings": found}


def _cells(text, start):
    line = next(x for x in text.splitlines() if x.startswith(f"| {start}"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_the_published_figures_stand_beside_those_of_the_same_split():
    text = glance({"robustness-paper": _robustness()})
    cells = _cells(text, "Br35H, the published kind of split, pooled training, n = 80")
    assert cells == ["97.67 / 87.33", "90.0 / 3.0", "98.0 / 95.0"]
    assert len(text.splitlines()) == 3


def test_sources_stand_apart_and_the_worst_case_beside_the_same_scans_as_they_are():
    text = glance({"robustness-multi-source": _robustness(), "ladder-multi-source": _ladder()})
    assert _cells(text, "Br35H, near-duplicates") == ["", "89.0 / 2.0", "97.0 / 94.0"]
    assert _cells(text, "Br35H, n = 40 of the same fold") == ["", "96.0 / 1.0", "96.0 / 89.0"]
    assert _cells(text, "the second source, n = 40 of the same fold") == [
        "",
        "96.0 / 1.0",
        "96.0 / 89.0",
    ]
    assert _cells(text, "detected, AUROC") == ["", "", "0.948 / 0.700 / 0.362 / 0.520"]
    assert text.count("after every attack of the ladder") == 2


def test_attacks_that_wait_are_named():
    text = glance({"ladder-multi-source": _ladder(["A10", "A11"])})
    assert text.count("after all attacks tried so far (to come: A10 and A11) of the ladder") == 2


@pytest.mark.parametrize("broken", [{}, {"standings": {}}, {"rows": {}}])
def test_a_file_that_is_not_whole_leaves_its_lines_out(broken):
    text = glance({"robustness-paper": _robustness(), "ladder-multi-source": broken})
    assert text == glance({"robustness-paper": _robustness()})


def test_parts():
    rows = {
        f"trained, eps {eps}": {
            "n": 120, "scores": {"fused": {"auroc": area}},
            "flagged": {"fused": {"accuracy": share}},
        }
        for eps, area, share in (("0.015", 1.0, 1.0), ("0.004", 0.99, 0.717))
    }  # fmt: skip
    looks = {
        "lesions": {"contrast_kept": {"median": 0.947, "tenth": 0.904},
                    "energy_removed": {"median": 0.448}, "n": 187},
        "painting": {"tumour": {"accuracy": 0.855, "n": 69}, "elsewhere": {"accuracy": 0.058},
                     "found": 202},
    }  # fmt: skip
    text = glance({"detection-multi-source": {"rows": rows}, "looks-multi-source": {"rows": looks}})
    assert _cells(text, "PGD-7 on the mixture")[-1] == "1.000 / 0.990"
    assert _cells(text, "the same: an alarm")[-1] == "100.0 / 71.7"
    assert _cells(text, "187 flagged tumours")[-1] == "94.7 / 90.4"
    assert _cells(text, "and an attack's")[-1] == "44.8"
    assert _cells(text, "of 69 tumours (of 202 found")[-1] == "85.5 / 5.8"


def test_nothing_measured():
    with pytest.raises(KeyError, match=r"robustness-paper\.json"):
        glance({"robustness-leak-free": _robustness()})
