"""The README's table shows what the result files hold, and says what was not measured."""

import pytest

from bench.report.headline import READINGS, SUITE, SYSTEMS, render_headline


def block(share, n):
    return {"accuracy": share, "n": n, "interval_by_group": [share - 0.02, share + 0.01]}


@pytest.fixture
def results():
    rows = {
        row: {"systems": {name: block(share + i / 100, 480) for i, name in enumerate(SYSTEMS)}}
        for row, share in (("clean", 0.94), ("A0", 0.5))
    }
    worst = {name: {"worst": block(0.8, 200)} for name in SYSTEMS if name != "plain-purified"}
    return {READINGS: {"rows": rows}, SUITE: {"standings": worst}}


def test_a_line_for_each_system_with_intervals_and_the_number_of_scans(results):
    lines = render_headline(results).splitlines()
    assert lines[0].count("n = 480") == 2 and lines[0].count("n = 200") == 1
    assert [line.split(" | ")[0] for line in lines[2:6]] == [f"| {n}" for n in SYSTEMS.values()]
    assert "| 94.0 [92.0 to 95.0] | 50.0 [48.0 to 51.0] | 80.0 [78.0 to 81.0] |" in lines[2]


def test_what_was_not_measured_is_said(results):
    line = next(x for x in render_headline(results).splitlines() if "detector and purifier |" in x)
    assert line.endswith("| not measured |")


def test_without_the_attack_suite_its_column_is_not_measured(results):
    del results[SUITE]
    lines = render_headline(results).splitlines()
    assert lines[0].endswith("| worst case of the attacks run |") and "Worst case" not in lines[-1]
    assert all(line.endswith("| not measured |") for line in lines[2:6])


def test_a_missing_file_is_named(results):
    del results[READINGS]
    with pytest.raises(KeyError, match=rf"{READINGS}\.json"):
        render_headline(results)
