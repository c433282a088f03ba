"""The table at a glance shows what the files hold, and nothing of what has not been measured."""

import pytest

from bench.glance import glance

SHARES = {"undefended": {"clean": 0.9, "A0": 0.03}, "defence": {"clean": 0.98, "A0": 0.95}}
PLACES = ("br35h", "brain-tumor-mri")


def _robustness():
    def block(share):
        return {
            "accuracy": share,
            "sources": {place: {"accuracy": share - 0.01} for place in PLACES},
        }

    return {"rows": {
        row: {"systems": {name: block(shares[row]) for name, shares in SHARES.items()}}
        for row in ("clean", "A0")
    }}  # fmt: skip


def _ladder(*systems):
    worst = {"sources": {"br35h": {"accuracy": 0.915}, "brain-tumor-mri": {"accuracy": 0.845}}}
    found = {name: {"worst": worst} for name in systems}
    if "defence" in found:
        found["defence"]["detection"] = {"A9": {"auroc": 0.948}}
    return {"standings": found}


def _cells(text, start):
    line = next(x for x in text.splitlines() if x.startswith(f"| {start}"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_the_published_figures_stand_beside_those_of_the_same_split():
    text = glance({"robustness-paper": _robustness()})
    assert _cells(text, "Br35H, the published") == ["97.67 / 87.33", "90.0 / 3.0", "98.0 / 95.0"]
    assert len(text.splitlines()) == 3


def test_sources_stand_apart():
    text = glance(
        {"robustness-multi-source": _robustness(), "ladder-multi-source": _ladder("defence")}
    )
    assert _cells(text, "Br35H, no near") == ["", "89.0 / 2.0", "97.0 / 94.0"]
    assert _cells(text, "Br35H: read right whatever") == ["", "", "91.5"]
    assert _cells(text, "the second source: read right whatever") == ["", "", "84.5"]
    assert _cells(text, "attacks that hide") == ["", "", "0.948"]


def test_a_ladder_without_the_defence_says_nothing_of_it():
    text = glance({"ladder-multi-source": _ladder("undefended")})
    assert _cells(text, "Br35H: read right whatever") == ["", "91.5", ""]
    assert "AUROC" not in text


def test_parts():
    scores = {f"trained, eps {eps}": {"scores": {"fused": {"auroc": area}}}
              for eps, area in (("0.015", 1.0), ("0.004", 0.99))}  # fmt: skip
    accuracy = {"eps": 0.015, "constant": 0.5, "certified": {"balanced": 0.661}}
    looks = {
        "lesions": {"contrast_kept": {"median": 0.947, "tenth": 0.904},
                    "energy_removed": {"median": 0.448}},
        "painting": {"tumour": {"accuracy": 0.855}, "elsewhere": {"accuracy": 0.058}},
    }  # fmt: skip
    text = glance({
        "detection-multi-source": {"rows": scores},
        "certify-multi-source": {"rows": {"accuracy": accuracy}},
        "looks-multi-source": {"rows": looks},
    })  # fmt: skip
    assert _cells(text, "A0 detected")[-1] == "1.000 / 0.990"
    assert _cells(text, "certified at")[1:] == ["50.0 (one answer for all)", "66.1"]
    assert _cells(text, "purified")[-1] == "94.7 / 90.4"
    assert _cells(text, "and an attack's")[-1] == "44.8"
    assert _cells(text, "tumour painted")[-1] == "85.5 / 5.8"


def test_nothing_measured():
    with pytest.raises(KeyError, match=r"robustness-paper\.json"):
        glance({"robustness-leak-free": _robustness()})
