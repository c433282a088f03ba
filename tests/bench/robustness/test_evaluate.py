"""The attack suite on phantoms: every attack runs on every system that it fits."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from bench.__main__ import main
from bench.parallel import ParallelBatches
from bench.provenance import machine_facts
from bench.report.write import fill
from bench.result_file import ResultFile, ResultFileError
from bench.robustness import run as commands
from bench.robustness.attacks import (
    ATTACKS,
    BUDGETS,
    DEFENCE,
    Attack,
    Attacker,
    attacks_named,
    row_names,
)
from bench.robustness.evaluate import evaluate_scans, read_adversarial, run_suite
from bench.robustness.systems import (
    SUITE_SYSTEMS,
    AttackedDetector,
    DetectorReading,
    System,
    build_systems,
)

EPS = 0.015
CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("quick_checks")


@pytest.fixture(scope="module")
def suite(pipeline, test_fold, tmp_path_factory, tiny, quick_checks):
    """The whole suite on three scans, two sizes of the curve; summarized once, at its end."""
    path = tmp_path_factory.mktemp("suite") / "suite.json"
    store = ResultFile(path, "robustness", {"of": "this"}, {"machine": machine_facts(CPU)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "run_suite", lambda *given: run_suite(*given[:-1]))
        patch.setattr(commands, "CURVE", (0.004, 0.06))
        # asserted in test_checks
        patch.setattr(commands, "run_checks", lambda s, *_: {"weights": s.key, "warnings": []})
        commands.measure(
            store, pipeline, [pipeline], test_fold, row_names(), None, tiny, eps=EPS,
            lanes=ParallelBatches(CPU, 3),
        )  # fmt: skip
    return json.loads(path.read_text())


@pytest.mark.slow
def test_every_row_runs_on_every_target_that_it_fits(suite, known):
    rows = suite["rows"]
    for attack in ATTACKS:
        for system in known.values():
            assert (f"{attack.key}: {system.name}" in rows) == attack.fits_to(system)
    fitting = {r.key: [t for t in known.values() if r.fits_to(t)] for r in ATTACKS}
    assert all(fitting.values())
    assert {t.name for t in fitting["A7"]} == {"diffpure"}
    assert {t.name for t in fitting["A9"]} == {
        "defence", "defence-paper-policy", "detection-only", "plain-purified",
    }  # fmt: skip
    assert len(fitting["A3"]) == len(known)
    assert "randomness: defence" in rows and "self-check: defence" in rows
    assert sum(name.startswith("curve") for name in rows) == 2 * len(commands.CURVED)
    assert suite["unfinished"] == {}


@pytest.mark.slow
def test_a_rows_bits_say_what_was_tried_and_what_fell(suite):
    for name, row in suite["rows"].items():
        if "system" not in row:
            continue
        for form in ("right", "right_8bit"):
            assert len(row[form]) == row["n"] == 3
        assert row["right"].count("0") == row["fell"]
        assert 3 - row["right"].count("-") == row["tried"]
        gated = row["system"].startswith(("defence", "plain-purified", "detection"))
        tried = 3 - row["right"].count("-")
        assert ("scores" in row) == (gated and tried > 0), name
        assert ("unnoticed" in row) == gated
        if gated and row["row"] == "A9":
            assert [len(scores) for scores in row["scores"]] == [tried, tried]


@pytest.mark.slow
def test_the_standing_is_the_worst_case_of_each_scan(suite, known):
    found = suite["standings"]
    assert set(found) == set(known)
    for name, standing in found.items():
        own = [r for r in suite["rows"].values() if r.get("system") == name]
        left = {
            form: {i for i in range(3) if all(r[form][i] != "0" for r in own)}
            for form in ("right", "right_8bit")
        }
        assert standing["worst_8bit"]["k"] == len(left["right_8bit"])
        assert standing["worst"]["k"] == len(left["right"] & left["right_8bit"])
        assert standing["worst"]["k"] <= standing["clean"]["k"]
        assert ("mcnemar" in standing) == (name != "defence")
        assert ("detection" in standing) == ("scores" in own[0])
        assert not standing["to_come"]
        fell = sum(row["fell"] for row in standing["falls"].values())
        assert (
            standing["worst"]["k"]
            == sum(own[0]["right"][i] == own[0]["right_8bit"][i] == "1" for i in range(3)) - fell
        )


@pytest.mark.slow
def test_the_tables_show_every_system_row_and_reading(suite, known):
    results = {"ladder-paper": suite}
    rows = fill("<!-- results:attack-suite -->\n<!-- /results -->", results)
    for system in known.values():
        assert rows.count(f"| {SUITE_SYSTEMS[system.name]} |") == 1
    broken = fill("<!-- results:attack-suite-broken -->\n<!-- /results -->", results)
    for attack in ATTACKS:
        assert f"- {attack.title}: {attack.meaning}" in broken and f"| {attack.title} |" in broken
    curve = fill("<!-- results:attack-suite-curve -->\n<!-- /results -->", results)
    assert (
        "eps 0.06" in curve
        and "| APGD-CE with EOT |" in curve
        and "| known noise, with the draw it knows |" in curve
    )
    found = fill("<!-- results:attack-suite-detection -->\n<!-- /results -->", results)
    assert found.count("| adaptive, 3 variants (3) |") == found.count("| worst case |") == 4
    assert "Undetected: paper, full pipeline: " in found and found.count("| no attack |") == 4
    places = fill("<!-- results:attack-suite-sources -->\n<!-- /results -->", results)
    assert places.count("| worst case, 8 bits |") == 1


def test_scans_that_fell_are_not_tried_again_but_for_those_rows_are_compared_on(
    store, four, known, tiny
):
    system = known["undefended"]
    wrong = replace(system, classify=lambda x: system.classify(x).flip(1))
    clean = _run(store, four, [system], [], tiny)["clean: undefended"]["right"]
    assert "0" in clean and "1" in clean  # an untrained network: some of both
    rows = _run(store, four, [replace(wrong, name="wrong")], ["A0"], tiny)
    few = (0, 3)  # of four
    tried = [bit != "-" for bit in rows["A0: wrong"]["right"]]
    assert tried == [bit == "0" or i in few for i, bit in enumerate(clean)]
    assert rows["A0: wrong"]["tried"] == sum(tried)


def test_what_fell_to_rows_that_the_file_holds_stays_fallen(store, four, known, tiny):
    """Whatever rows a run asks for, and in whatever order."""
    system = known["undefended"]
    first = _run(store, four, [system], ["A3"], tiny)
    right = {i for i, bit in enumerate(first["clean: undefended"]["right"]) if bit == "1"}
    (open_one,) = sorted(right - {0, 3})[:1]
    for form in ("right", "right_8bit"):
        bits = list(first["A3: undefended"][form])
        bits[open_one] = "0"
        first["A3: undefended"][form] = "".join(bits)
    row = _run(store, four, [system], ["A0"], tiny)["A0: undefended"]
    assert row["right"][open_one] == "-"


@pytest.mark.slow
def test_a_row_that_lacks_scans_is_measured_again(store, four, known, tiny, monkeypatch):
    """Such as one that was measured when fewer scans were compared."""
    system, calls = known["detection-only"], []  # the quickest with a detector
    whole = deepcopy(_run(store, four, [system], ["A9"], tiny)["A9: detection-only"])
    cut = deepcopy(whole)
    for key in ("right", "right_8bit", "unnoticed"):
        cut[key] = "-" + cut[key][1:]
    assert whole["right"][0] != "-"
    cut["scores"] = [scores[1:] for scores in cut["scores"]]
    store.content["rows"]["A9: detection-only"] = cut | {"tried": 0, "fell": 0}
    real = evaluate_scans

    def seen_by(into, name, what, fold, tried, *rest):
        assert (
            store.content["rows"]["A9: detection-only"]["tried"] == 0
        )  # kept until the new one is whole
        calls.append((name, [bit == "-" for bit in whole["right"]] == (~tried).tolist()))
        return real(into, name, what, fold, tried, *rest)

    monkeypatch.setattr("bench.robustness.evaluate.evaluate_scans", seen_by)
    row = _run(store, four, [system], ["A9"], tiny)["A9: detection-only"]
    assert calls == [("A9: detection-only", True)]
    for key in ("right", "right_8bit", "unnoticed", "tried", "fell", "commit"):
        assert row[key] == whole[key], key
    torch.testing.assert_close(
        *(torch.tensor(r["scores"]) for r in (row, whole)), atol=1e-4, rtol=0
    )
    again = _run(store, four, [system], ["A9"], tiny)["A9: detection-only"]
    assert again == row and len(calls) == 1


def test_a_scan_broken_before_stays_broken_when_its_row_is_measured_again(store, four, known, tiny):
    system, few = known["undefended"], (0, 3)
    right = _run(store, four, [system], [], tiny)["noise: undefended"]["right"]
    robust = next(i for i in few if right[i] == "1")  # as it is measured
    lacks = 3 - robust
    bits = ["-" if i == lacks else "0" if i == robust else bit for i, bit in enumerate(right)]
    store.content["rows"]["noise: undefended"]["right"] = "".join(bits)
    row = _run(store, four, [system], [], tiny)["noise: undefended"]
    assert row["right"][robust] == "0" and row["right"][lacks] == right[lacks] != "-"
    assert row["fell"] == row["right"].count("0")


def _run(store, fold, chosen, names, budget):
    run_suite(
        store, fold, chosen, attacks_named(names), Attacker(EPS, budget), ParallelBatches(CPU, 2)
    )
    return store.content["rows"]


def test_a_killed_row_resumes_and_is_no_result_before(tmp_path, four, known):
    system, every = known["undefended"], torch.ones(4, dtype=torch.bool)
    path, calls = tmp_path / "suite.json", []

    def attack(scans):
        calls.append(len(scans.y))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return [scans.x]

    def run():
        store = ResultFile(path, "robustness", {}, {"machine": {}})
        return store.row(
            "A3",
            lambda: evaluate_scans(
                store, "A3", system, four, every, attack, ParallelBatches(CPU, 2)
            ),
        )

    with pytest.raises(KeyboardInterrupt):
        run()
    kept = json.loads(path.read_text())
    assert kept["rows"] == {} and kept["unfinished"]["A3"]["done"] == 2
    row = run()
    assert calls == [2, 2, 2] and row["tried"] == 4
    assert json.loads(path.read_text())["unfinished"] == {}
    whole = evaluate_scans(
        ResultFile(tmp_path / "w.json", "", {}, {}),
        "A3",
        system,
        four,
        every,
        lambda s: [s.x],
        ParallelBatches(CPU, 4),
    )
    assert row["right"] == whole["right"]


def test_what_other_code_began_is_begun_again(tmp_path):
    path = tmp_path / "suite.json"
    store = ResultFile(path, "robustness", {}, {"machine": {}})
    store.keep("A3", {"of": [0, 1], "done": 1, "right": "1"})
    again = ResultFile(path, "robustness", {}, {"machine": {}})
    start = {"of": [0, 1], "done": 0, "right": ""}
    assert again.begun("A3", start)["done"] == 1
    assert again.begun("A3", {**start, "of": [0, 2]})["done"] == 0
    again._code = "another"
    assert again.begun("A3", start) == start


def test_other_budgets_are_other_rows(store, four, known, tiny):
    system = known["undefended"]
    first = _run(store, four, [system], ["A0"], tiny)["A0: undefended"]
    assert _run(store, four, [system], ["A0"], tiny)["A0: undefended"] == first
    other = _run(store, four, [system], ["A0"], replace(tiny, steps=3))["A0: undefended"]
    assert other["key"] != first["key"]


def test_numbers_that_are_none_under_attack_are_refused(four):
    scans = four.batches(4, CPU)[0]
    odd = System("odd", "", lambda x: x.flatten(1)[:, :2].log())
    with pytest.raises(ValueError, match="no number for an attacked scan"):
        read_adversarial(odd, scans, [scans.x * 0 - 1])


def test_eight_bits_are_read_beside(four, known):
    scans = four.batches(4, CPU)[0]
    bits, scores = read_adversarial(known["undefended"], scans, [scans.x, scans.x])
    assert bits["right"] == bits["right_8bit"] and len(bits["right"]) == 4 and scores == []
    _, scores = read_adversarial(known["defence"], scans, [scans.x, scans.x])
    assert scores[0] == scores[1] and len(scores[0]) == 4


def test_what_is_flagged_is_not_unnoticed_and_not_read_where_flagged_scans_are_refused(four, known):
    """A gate that sees the mean: above .5 all is flagged."""
    scans = four.batches(4, CPU)[0]

    def read(x, seeds):
        logits = torch.stack([torch.zeros(len(x)), 1 - 2.0 * scans.y], 1)  # always wrong
        return DetectorReading(logits, x.mean((1, 2, 3)), x.flatten(1)[:, :3])

    wrong = replace(known["detection-only"], detector=AttackedDetector(read, 0.5, 1.0))
    dark, bright = torch.zeros_like(scans.x), torch.ones_like(scans.x)
    dark[..., 0, 0] = 1 / 255  # no longer the scan itself
    assert read_adversarial(wrong, scans, [dark]).bits["unnoticed"] == "1111"
    bits = read_adversarial(wrong, scans, [bright]).bits
    assert bits["unnoticed"] == "0000" and bits["right"] == "1111"  # refused: no harm done
    assert read_adversarial(wrong, scans, [bright, dark]).bits["right"] == "0000"
    clean = scans._replace(x=bright)
    assert read_adversarial(wrong, clean, [bright]).bits["right"] == "0000"  # a clean scan is lost
    reads = replace(wrong, refuses=False)
    assert read_adversarial(reads, scans, [bright]).bits["right"] == "0000"


@pytest.mark.slow
def test_standings_are_on_disk_before_the_noise_and_a_weak_attack_on_it_is_named(
    store, pipeline, test_fold, monkeypatch, tiny
):
    def noise(into, *_):
        assert "defence" in json.loads(into.path.read_text())["standings"]
        share_of = {"A3 with EOT": 1.0, "A8": 0.0}
        said = {k: {"one_shot": {"mean": m}, "first": m} for k, m in share_of.items()}
        return {"n": 8, "eot": 2, "draws": 20, **said}

    monkeypatch.setattr(commands, "measure_randomness", noise)
    commands.measure(
        store,
        pipeline,
        [],
        test_fold,
        ["A8"],
        ["defence"],
        tiny,
        eps=EPS,
        lanes=ParallelBatches(CPU, 3),
    )
    assert any("too weak" in warning for warning in store.content["warnings"])


def test_a_run_that_is_killed_leaves_the_standings_of_rows_that_are_whole(
    store, pipeline, test_fold, monkeypatch, tiny
):
    def run(into, rows, systems):
        lanes = ParallelBatches(CPU, 3)
        commands.measure(into, pipeline, [], test_fold, rows, systems, tiny, eps=EPS, lanes=lanes)

    def on_disk():
        return json.loads(store.path.read_text())["standings"]

    real = commands.run_suite

    def killed(*given):
        *first, stand = given

        def after(system):
            stand(system)
            if system == "median":
                raise KeyboardInterrupt

        real(*first, after)

    monkeypatch.setattr(commands, "run_suite", killed)
    with pytest.raises(KeyboardInterrupt):
        run(store, ["A0"], ["undefended", "median", "bits"])
    found = on_disk()
    assert {name: s["rows"] for name, s in found.items()} == {
        "undefended": ["clean", "noise"], "median": ["clean", "noise"]
    }  # fmt: skip
    again = ResultFile(store.path, "robustness", {"of": "this"}, {"machine": machine_facts(CPU)})
    again.warn("killed before the first row")
    assert on_disk() == found
    monkeypatch.setattr(commands, "run_suite", real)
    run(again, ["A0"], ["undefended", "median", "bits"])
    assert {tuple(s["rows"]) for s in on_disk().values()} == {("clean", "noise", "A0")}


def test_attacks_that_fit_and_have_not_been_tried_are_to_come(store, pipeline, test_fold, tiny):
    for rows, systems in ((["A0"], ["undefended", "jpeg"]), (["A5"], ["jpeg"])):
        lanes = ParallelBatches(CPU, 3)
        commands.measure(store, pipeline, [], test_fold, rows, systems, tiny, eps=EPS, lanes=lanes)
    found = store.content["standings"]
    assert found["undefended"]["to_come"] == ["A1", "A2", "A3", "A4", "A10", "A11"]
    assert found["jpeg"]["to_come"] == found["undefended"]["to_come"]
    results = {"ladder-paper": store.content}
    suite = fill("<!-- results:attack-suite -->\n<!-- /results -->", results)
    (plain,) = (line for line in suite.splitlines() if line.startswith("| plain classifier |"))
    assert plain.endswith("Square, low-frequency |")
    table = fill("<!-- results:attack-suite-broken -->\n<!-- /results -->", results)
    lines = {line.split(" | ")[0]: line.split(" | ") for line in table.splitlines()}
    column = lines["| attack"].index("plain classifier")
    assert lines["| PGD with restarts"][column] == "pending" and "- Square: " in table
    assert lines["| BPDA"][column] == "" and "/" in lines["| PGD-7 (paper)"][column]


def test_budgets_grow():
    smoke, cpu, full = BUDGETS.values()
    for name in vars(smoke):
        assert getattr(smoke, name) <= getattr(cpu, name) <= getattr(full, name)


def test_the_time_of_a_killed_row_is_kept(store, four, known, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("bench.result_file.time.monotonic", lambda: clock[0])

    def takes(seconds, kill):
        def row():
            state = store.begun("A0: it", {"of": [0], "done": 0})
            clock[0] += seconds
            store.keep("A0: it", state)
            if kill:
                raise KeyboardInterrupt
            return {}

        return row

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            store.row("A0: it", takes(30, kill=True))
        clock[0] += 1000  # between the runs
    assert store.row("A0: it", takes(40, kill=False))["wall_s"] == 100
    assert store.row("A1: it", takes(5, kill=False))["wall_s"] == 5


@pytest.mark.parametrize(
    ("part", "stay"),
    [
        ("plain", {"trained-mixture", "uniform-attention", "purify-all"}),
        ("detector", {"trained-mixture", "uniform-attention", "purify-all", "undefended", "jpeg",
                      "median", "bits", "diffpure"}),
        ("classifier", {"undefended", "jpeg", "median", "bits", "diffpure"}),
        ("purifier", {"undefended", "jpeg", "median", "bits", "trained-mixture",
                      "uniform-attention"}),
    ],
)  # fmt: skip
def test_rows_of_other_tensors_are_forgotten_and_no_others(store, pipeline, part, stay):
    for place in ("rows", "unfinished"):
        kinds = ("A3", "self-check", "curve 0.004")
        store.content[place] = {
            f"{kind}: {t.name}": {"weights": t.key}
            for kind in kinds
            for t in build_systems(pipeline)
        }
    store.content["rows"] |= {"A3: defence": {}, "randomness": {}}  # of before rows knew
    with pytest.raises(
        ResultFileError, match=r"of other weights \(defence, randomness\): name another"
    ):
        commands.forget(store, build_systems(pipeline), False)
    assert len(store.content["rows"]) == 3 * len(SUITE_SYSTEMS) + 1  # refused: nothing is lost
    commands.forget(store, build_systems(pipeline), True)
    assert len(store.content["rows"]) == 3 * len(SUITE_SYSTEMS) - 1
    commands.forget(store, build_systems(pipeline), False)
    changed = deepcopy(pipeline)
    tensors = getattr(changed, part).state_dict().values()
    next(t for t in tensors if t.is_floating_point()).add_(1)
    commands.forget(store, build_systems(changed), True)
    for place in ("rows", "unfinished"):
        assert {name.rpartition(": ")[2] for name in store.content[place]} == stay


def test_another_attack_is_one_line(store, pipeline, test_fold, tiny, monkeypatch, capsys):
    """It is evaluated, in the help text and in the tables."""
    line = Attack("A12", "to white", "every pixel up by eps", DEFENCE,
                  lambda a: lambda _, x, y, seeds: (x + a.eps).clamp(0, 1))  # fmt: skip
    monkeypatch.setattr("bench.robustness.attacks.ATTACKS", (*ATTACKS, line))
    with pytest.raises(SystemExit):
        main(["robustness", "--help"])
    assert "A12 to white" in " ".join(capsys.readouterr().out.split())
    lanes = ParallelBatches(CPU, 3)
    commands.measure(
        store, pipeline, [], test_fold, ["A12"], ["undefended"], tiny, eps=EPS, lanes=lanes
    )
    assert store.content["rows"]["A12: undefended"]["tried"] > 0
    results = {"ladder-paper": store.content}
    table = fill("<!-- results:attack-suite-broken -->\n<!-- /results -->", results)
    (shown,) = (text for text in table.splitlines() if text.startswith("| to white |"))
    assert "/" in shown and "- to white: every pixel up by eps" in table
