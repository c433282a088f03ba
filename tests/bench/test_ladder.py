"""The ladder on phantoms: every row runs on every target, and each self-check can fail."""

from __future__ import annotations

import json
import time
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from bench import climbing
from bench.budgets import BUDGETS, Budget
from bench.figures import share
from bench.filters import bits
from bench.ladder import attack_scans, check_target, climb, read_after
from bench.ladder_checks import FEW, check_gradients
from bench.lanes import Lanes
from bench.pace import Work, time_left
from bench.provenance import machine_facts
from bench.randomness import check_noise, drawn, figures, randomness
from bench.report import fill
from bench.rungs import LADDER, RUNGS, Attacker, rungs_named, seen
from bench.standings import compare_rows, standings
from bench.store import Store, StoreError
from bench.systems import Bench, systems_named
from bench.targets import NAMES, PATHS, Gate, GateReading, Target, targets

EPS = 0.015
TINY = Budget(
    scans=3, steps=1, restarts=1, starts=1, eot=2, queries=2, few_scans=2, curve_scans=1, others=1,
    checked=1,
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def four(test_fold):
    return test_fold.thin(4)


@pytest.fixture(scope="module")
def known(pipeline):
    return {t.name: t for t in targets(pipeline)}


@pytest.fixture
def store(tmp_path):
    return Store(
        tmp_path / "ladder.json", "robustness", {"of": "this"}, {"machine": machine_facts(CPU)}
    )


@pytest.fixture(scope="module")
def climbed(pipeline, test_fold, tmp_path_factory):
    path = tmp_path_factory.mktemp("ladder") / "ladder.json"
    store = Store(path, "robustness", {"of": "this"}, {"machine": machine_facts(CPU)})
    climbing.run(
        store, pipeline, [pipeline], test_fold, LADDER, None, TINY, eps=EPS, lanes=Lanes(CPU, 3)
    )
    return json.loads(path.read_text())


@pytest.mark.slow
def test_every_row_runs_on_every_target_that_it_fits(climbed, known):
    rows = climbed["rows"]
    for rung in RUNGS:
        for target in known.values():
            assert (f"{rung.name}: {target.name}" in rows) == rung.fits(target)
    fitting = {r.name: [t for t in known.values() if r.fits(t)] for r in RUNGS}
    assert all(fitting.values())
    assert {t.name for t in fitting["A7"]} == {"diffpure"}
    assert {t.name for t in fitting["A9"]} == {
        "defence", "defence-paper-policy", "detection-only", "plain-purified",
    }  # fmt: skip
    assert len(fitting["A3"]) == len(known)
    assert "randomness: defence" in rows and "self-check: defence" in rows
    assert sum(name.startswith("curve") for name in rows) == 15
    assert climbed["unfinished"] == {}


@pytest.mark.slow
def test_a_rows_bits_say_what_was_tried_and_what_fell(climbed):
    for name, row in climbed["rows"].items():
        if "system" not in row:
            continue
        for form in ("right", "right_8bit"):
            assert len(row[form]) == row["n"] == 3
            assert 3 - row[form].count("-") >= row["tried"]  # watched scans are tried again
        assert row["right"].count("0") >= row["fell"]
        gated = row["system"].startswith(("defence", "plain-purified", "detection"))
        tried = 3 - row["right"].count("-")
        assert ("scores" in row) == (gated and tried > 0), name
        assert ("unnoticed" in row) == gated
        if gated and row["row"] == "A9":
            assert [len(scores) for scores in row["scores"]] == [tried, tried]


@pytest.mark.slow
def test_the_standing_is_the_worst_case_of_each_scan(climbed, known):
    found = climbed["standings"]
    assert set(found) == set(known)
    for name, standing in found.items():
        own = [r for r in climbed["rows"].values() if r.get("system") == name]
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


@pytest.mark.slow
def test_the_tables_show_every_system_row_and_reading(climbed, known):
    results = {"ladder-leak-free": climbed}
    rows = fill("<!-- results:ladder -->\n<!-- /results -->", results)
    for target in known.values():
        assert rows.count(f"| {target.meaning} |") == 1
    for rung in RUNGS:
        assert f"{rung.name}: {rung.meaning}" in rows
    curve = fill("<!-- results:ladder-curve -->\n<!-- /results -->", results)
    assert (
        "eps 0.06" in curve
        and "| A3 with EOT |" in curve
        and "| A8, the draw that it knows |" in curve
    )
    found = fill("<!-- results:ladder-detection -->\n<!-- /results -->", results)
    assert found.count("| A9b (3) |") == found.count("| worst |") == 4
    assert "Misread under some row without an alarm: leak-free, defence: " in found
    places = fill("<!-- results:ladder-sources -->\n<!-- /results -->", results)
    assert places.count("| worst, 8bit |") == 1


def test_scans_that_fell_are_not_tried_again_but_for_those_rows_are_compared_on(store, four, known):
    target = known["undefended"]
    wrong = replace(target, classify=lambda x: target.classify(x).flip(1))
    clean = _climbed(store, four, [target], [], TINY)["clean: undefended"]["right"]
    assert "0" in clean and "1" in clean  # an untrained network: some of both
    rows = _climbed(store, four, [replace(wrong, name="wrong")], ["A0"], TINY)
    row = rows["A0: wrong"]
    assert row["tried"] == clean.count("0")
    assert 4 - row["right"].count("-") == clean.count("0") + (clean[0] == "1")


def _climbed(store, fold, chosen, names, budget):
    climb(store, fold, chosen, rungs_named(names), Attacker(EPS, budget), Lanes(CPU, 2))
    return store.content["rows"]


def test_a_killed_row_goes_on_and_is_no_figure_before(tmp_path, four, known):
    target, every = known["undefended"], torch.ones(4, dtype=torch.bool)
    path, calls = tmp_path / "ladder.json", []

    def attack(scans):
        calls.append(len(scans.y))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return [scans.x]

    def run():
        store = Store(path, "robustness", {}, {"machine": {}})
        return store.row(
            "A3", lambda: attack_scans(store, "A3", target, four, every, attack, Lanes(CPU, 2))
        )

    with pytest.raises(KeyboardInterrupt):
        run()
    kept = json.loads(path.read_text())
    assert kept["rows"] == {} and kept["unfinished"]["A3"]["done"] == 2
    row = run()
    assert calls == [2, 2, 2] and row["tried"] == 4
    assert json.loads(path.read_text())["unfinished"] == {}
    whole = attack_scans(
        Store(tmp_path / "w.json", "", {}, {}),
        "A3",
        target,
        four,
        every,
        lambda s: [s.x],
        Lanes(CPU, 4),
    )
    assert row["right"] == whole["right"]


def test_what_other_code_began_is_begun_again(tmp_path):
    path = tmp_path / "ladder.json"
    store = Store(path, "robustness", {}, {"machine": {}})
    store.keep("A3", {"of": [0, 1], "done": 1, "right": "1"})
    again = Store(path, "robustness", {}, {"machine": {}})
    start = {"of": [0, 1], "done": 0, "right": ""}
    assert again.begun("A3", start)["done"] == 1
    assert again.begun("A3", {**start, "of": [0, 2]})["done"] == 0
    again._code = "another"
    assert again.begun("A3", start) == start


def test_other_budgets_are_other_rows(store, four, known):
    target = known["undefended"]
    first = _climbed(store, four, [target], ["A0"], TINY)["A0: undefended"]
    assert _climbed(store, four, [target], ["A0"], TINY)["A0: undefended"] == first
    other = _climbed(store, four, [target], ["A0"], replace(TINY, steps=3))["A0: undefended"]
    assert other["key"] != first["key"]


def test_numbers_that_are_none_under_attack_are_refused(four):
    scans = four.batches(4, CPU)[0]()
    odd = Target("odd", "", lambda x: x.flatten(1)[:, :2].log())
    with pytest.raises(ValueError, match="no number for an attacked scan"):
        read_after(odd, scans, [scans.x * 0 - 1])


def test_attackers_see_the_system_at_its_own_depth(four, known):
    target, looks = known["defence"], []

    def depth(x):
        looks.append(len(x))
        return target.depth(x)

    watched, scans = replace(target, depth=depth), four.batches(2, CPU)[0]()
    exact = target.logits(scans.x, scans.seeds)
    for fine in (False, True):
        found = seen(watched, scans, fine=fine)(scans.x)
        torch.testing.assert_close(found, exact, atol=1e-4 if fine else 0.1, rtol=0)
    assert looks == [2, 2]


@pytest.mark.parametrize("path", PATHS)
def test_ways_back_differ_and_the_way_forward_does_not(pipeline, four, known, path):
    target = known["plain-purified"]
    x, _, seeds = four.batches(2, CPU)[0]()
    grads = {}
    for way in ("exact", path):
        z = x.clone().requires_grad_()
        logits = target.logits(z, seeds, way)
        torch.testing.assert_close(logits, target.logits(x, seeds), atol=1e-4, rtol=0)
        (grads[way],) = torch.autograd.grad(logits[:, 1].sum(), z)
    assert torch.equal(grads["exact"], grads[path]) == (path == "exact")


def test_the_paths_add_up(four, known):
    """What the identity and the predicted noise carry back is all that there is."""
    target = known["purify-all"]
    x, _, seeds = four.batches(2, CPU)[0]()
    grads = {}
    for way in PATHS:
        z = x.clone().requires_grad_()
        # a linear reader: its own gradient is the same wherever it is taken
        pure = replace(target, classify=lambda p: p.flatten(1)).logits(z, seeds, way)
        (grads[way],) = torch.autograd.grad(pure.sum(), z)
    pure = target.front(x, seeds)
    inside = (pure > 0) & (pure < 1)
    assert inside.any()
    total = inside * grads["identity"] + grads["noise"]
    torch.testing.assert_close(grads["exact"], total, atol=1e-4, rtol=1e-4)


def test_eight_bits_are_read_beside(four, known):
    scans = four.batches(4, CPU)[0]()
    bits, scores = read_after(known["undefended"], scans, [scans.x, scans.x])
    assert bits["right"] == bits["right_8bit"] and len(bits["right"]) == 4 and scores == []
    _, scores = read_after(known["defence"], scans, [scans.x, scans.x])
    assert scores[0] == scores[1] and len(scores[0]) == 4


def test_what_is_flagged_is_not_unnoticed_and_not_read_where_flagged_scans_are_refused(four, known):
    """A gate that sees the mean: above .5 all is flagged."""
    scans = four.batches(4, CPU)[0]()

    def read(x, seeds):
        logits = torch.stack([torch.zeros(len(x)), 1 - 2.0 * scans.y], 1)  # always wrong
        return GateReading(logits, x.mean((1, 2, 3)), x.flatten(1)[:, :3])

    wrong = replace(known["detection-only"], gate=Gate(read, 0.5, 1.0))
    dark, bright = torch.zeros_like(scans.x), torch.ones_like(scans.x)
    dark[..., 0, 0] = 1 / 255  # no longer the scan itself
    assert read_after(wrong, scans, [dark]).bits["unnoticed"] == "1111"
    bits = read_after(wrong, scans, [bright]).bits
    assert bits["unnoticed"] == "0000" and bits["right"] == "1111"  # refused: no harm done
    assert read_after(wrong, scans, [bright, dark]).bits["right"] == "0000"
    clean = scans._replace(x=bright)
    assert read_after(wrong, clean, [bright]).bits["right"] == "0000"  # a clean scan is lost
    reads = replace(wrong, refuses=False)
    assert read_after(reads, scans, [bright]).bits["right"] == "0000"


def test_a_planted_mask_is_caught(pipeline, test_fold, known, store):
    """Rounding hides the gradient: the share of scans without one, and the rows, give it away."""
    plain = known["undefended"].classify
    masked = Target("masked", "", plain, lambda x, _: bits(x, 3))  # claims to have a gradient
    found, warnings = check_gradients(masked, test_fold.thin(4), EPS, CPU)
    assert found["zero_gradients"] == 1.0
    assert any("no gradient at all" in w for w in warnings)
    assert any("0.00 times what its gradient promises" in w for w in warnings)
    honest, warnings = check_gradients(known["undefended"], test_fold.thin(4), EPS, CPU)
    assert honest["zero_gradients"] == 0.0 and honest["slope"] == pytest.approx(1, abs=0.1)
    assert not any("gradient" in w and "eps" not in w for w in warnings)


def test_a_gradient_that_lies_is_caught(four):
    """Forward one function, backward another of opposite sign."""

    def liar(x):
        mean = x.mean((1, 2, 3)) * 50 - 10
        return torch.stack([torch.zeros_like(mean), 2 * mean.detach() - mean], 1)

    found, warnings = check_gradients(Target("liar", "", liar), four, EPS, CPU)
    assert found["slope"] == pytest.approx(-1, abs=0.05)
    assert any("-1.00 times what its gradient promises" in w for w in warnings)


def test_attacks_that_reach_nothing_or_never_settle_are_caught(four, monkeypatch):
    """A planted reader for each law that is left."""
    x, y, _ = four.batches(4, CPU)[0]()
    truth = torch.stack([0.5 - y.float(), y.float() - 0.5], 1)

    def stubborn(z):  # right whatever is done to it
        return 8 * truth[: len(z)] + 0 * z.mean((1, 2, 3))[:, None]

    _, warnings = check_gradients(Target("stubborn", "", stubborn), four, EPS, CPU)
    assert any("eps 0.25 leaves 1.000 right: gradients may be masked" in w for w in warnings)

    calls = []

    def moody(z):  # another answer each time
        calls.append(z)
        sign = 1 if len(calls) % 2 else -1
        return sign * truth[: len(z)] + 0 * z.mean((1, 2, 3))[:, None]

    _, warnings = check_gradients(Target("moody", "", moody), four, EPS, CPU)
    assert any("eps 0 leaves" in w for w in warnings)

    def mean(z):
        level = 40 * (z.mean((1, 2, 3)) - x.mean((1, 2, 3))[: len(z)])
        return truth[: len(z)] * (1 - level.abs())[:, None]

    def odd(eps, steps):  # moves far in few steps, and not at all in many
        return lambda logits, z, *_: (z + (0.2 if steps == FEW else 0.0)).clamp(0, 1)

    monkeypatch.setattr("bench.ladder_checks.APGD", odd)
    _, warnings = check_gradients(Target("level", "", mean), four, EPS, CPU)
    assert any("25 steps leave 1.000 right, 5 steps 0.000" in w for w in warnings)


def test_refusing_is_not_being_right_in_the_self_checks(test_fold, known):
    found, _ = check_gradients(known["detection-only"], test_fold.thin(4), EPS, CPU)
    plain = replace(known["detection-only"], gate=None, refuses=False)
    assert found == check_gradients(plain, test_fold.thin(4), EPS, CPU)[0]


def test_scans_that_fall_with_an_alarm_are_tried_by_who_goes_round_it(store, four, known):
    """A gate that flags everything: nothing gets past, so that A9 tries all again."""
    flags = Gate(known["defence"].gate.read, -1e9, 1.0)
    target = replace(known["defence"], gate=flags)
    rows = _climbed(store, four, [target], ["A0", "A9"], TINY)
    assert "-" not in rows["A9: defence"]["right"]
    assert rows["A9: defence"]["tried"] <= 4
    assert "1" not in rows["A9: defence"]["unnoticed"]
    found = standings(rows, four)["defence"]["unnoticed"]
    assert found["k"] == found["n"] == 4


def test_rows_that_contradict_each_other_are_warnings():
    def row(name, right):
        return {f"{name}: it": {"row": name, "system": "it", "right": right}}

    masked = row("A2", "0000") | row("A10", "0-00") | row("A3", "1111") | row("clean", "1111")
    warnings = compare_rows(masked | row("noise", "1111"), "it", range(4), 0.01)
    assert len(warnings) == 2
    silent = row("A10", "1111") | row("noise", "0101")
    (warning,) = compare_rows(silent, "it", range(4), 0.01)
    assert "A10 leaves 1.000 of 4 scans right, more than noise (0.500)" in warning
    assert "A3 leaves 1.000 of 4 scans right, more than A2 (0.000)" in warnings[0]
    sound = row("A2", "1011") | row("A10", "11-1") | row("A3", "0010") | row("clean", "1111")
    assert compare_rows(sound, "it", range(4), 0.01) == []


@pytest.mark.parametrize(
    ("classify", "words"),
    [
        (lambda x: torch.full((len(x), 2), 0.5), "returns probabilities"),
        (lambda x: torch.full((len(x), 2), torch.nan), "no number"),
        (lambda x: torch.tensor([[-3.0, 1.0]]).expand(len(x), 2), "the same of every scan"),
        (lambda x: torch.zeros(len(x), 1), "not a logit for each class"),
        (lambda x: torch.zeros(len(x)), "not a logit for each class"),
    ],
)
def test_what_attacks_cannot_follow_is_refused(four, classify, words):
    with pytest.raises(ValueError, match=words):
        check_target(Target("odd", "", classify), four, CPU)


def test_noise_drawn_anew_is_read_more_than_once(store, four, known):
    lanes = Lanes(CPU, 1)
    found = randomness(store, known["purify-all"], four.thin(2), Attacker(EPS, TINY), lanes)
    kept = store.content["unfinished"]["randomness: purify-all"]
    assert kept["done"] == 2  # a killed run goes on
    again = randomness(store, known["purify-all"], four.thin(2), Attacker(EPS, TINY), lanes)
    assert again == found
    draws = [known["purify-all"].logits(*_of(four, draw)) for draw in (0, 1, 7)]
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    for name in ("clean", "A3 with EOT", "A8"):
        block = found[name]
        assert block["right_in_all"][20] <= block["right_in_all"][5] <= block["right_in_all"][1]
        assert 0 <= block["one_shot"]["mean"] <= 1
    assert found["n"] == 2 and found["draws"] == 20


def _of(fold, draw):
    x, _, seeds = fold.thin(2).batches(2, CPU)[0]()
    return x, drawn(seeds, draw)


def test_an_attack_in_expectation_that_is_weaker_than_one_on_a_single_draw_is_named():
    def row(many, single, known):
        """Shares right on draws that neither knows; `known`: of the one draw that A8 knows."""
        mean = (19 * single + known) / 20
        said = {"A3 with EOT": {"one_shot": {"mean": many}, "first": many},
                "A8": {"one_shot": {"mean": mean}, "first": known}}  # fmt: skip
        return {"n": 50, "eot": 4, "draws": 20, **said}

    assert not check_noise(row(0.80, 0.84, 0.4), 0.01)
    assert not check_noise(row(0.86, 0.84, 0.4), 0.01)
    assert "too weak" in check_noise(row(0.90, 0.84, 0.84), 0.01)[0]


def test_standings_are_on_disk_before_the_noise_and_a_weak_attack_on_it_is_named(
    store, pipeline, test_fold, monkeypatch
):
    def noise(into, *_):
        assert "defence" in json.loads(into.path.read_text())["standings"]
        share_of = {"A3 with EOT": 1.0, "A8": 0.0}
        said = {k: {"one_shot": {"mean": m}, "first": m} for k, m in share_of.items()}
        return {"n": 8, "eot": 2, "draws": 20, **said}

    monkeypatch.setattr(climbing, "randomness", noise)
    climbing.run(
        store, pipeline, [], test_fold, ["A8"], ["defence"], TINY, eps=EPS, lanes=Lanes(CPU, 3)
    )
    assert any("too weak" in warning for warning in store.content["warnings"])


def test_a_run_that_is_killed_leaves_the_standings_of_rows_that_are_whole(
    store, pipeline, test_fold, monkeypatch
):
    def run(into, rows, systems):
        lanes = Lanes(CPU, 3)
        climbing.run(into, pipeline, [], test_fold, rows, systems, TINY, eps=EPS, lanes=lanes)

    def on_disk():
        return json.loads(store.path.read_text())["standings"]

    real = climbing.climb

    def killed(*given):
        *first, stand = given

        def after(system):
            stand(system)
            if system == "median":
                raise KeyboardInterrupt

        real(*first, after)

    monkeypatch.setattr(climbing, "climb", killed)
    with pytest.raises(KeyboardInterrupt):
        run(store, ["A0"], ["undefended", "median", "bits"])
    found = on_disk()
    assert {name: s["rows"] for name, s in found.items()} == {
        "undefended": ["clean", "noise"], "median": ["clean", "noise"]
    }  # fmt: skip
    again = Store(store.path, "robustness", {"of": "this"}, {"machine": machine_facts(CPU)})
    again.warn("killed before the first row")
    assert on_disk() == found
    monkeypatch.setattr(climbing, "climb", real)
    run(again, ["A0"], ["undefended", "median", "bits"])
    assert {tuple(s["rows"]) for s in on_disk().values()} == {("clean", "noise", "A0")}


def test_rows_of_another_budget_have_no_part_in_the_standings(four):
    row = {"row": "clean", "meaning": "", "right": "1101", "right_8bit": "1101"}
    old = {**row, "right": "11011", "right_8bit": "11011", "system": "old"}
    rows = {"clean: it": {**row, "system": "it"}, "clean: old": old}
    assert set(standings(rows, four)) == {"it"}


def test_attacks_that_fit_and_have_not_been_tried_are_to_come(store, pipeline, test_fold):
    for rows, systems in ((["A0"], ["undefended", "jpeg"]), (["A5"], ["jpeg"])):
        lanes = Lanes(CPU, 3)
        climbing.run(store, pipeline, [], test_fold, rows, systems, TINY, eps=EPS, lanes=lanes)
    found = store.content["standings"]
    assert found["undefended"]["to_come"] == ["A1", "A2", "A3", "A4", "A10", "A11"]
    assert found["jpeg"]["to_come"] == found["undefended"]["to_come"]
    table = fill("<!-- results:ladder -->\n<!-- /results -->", {"ladder-leak-free": store.content})
    lines = {line.split(" | ")[0]: line.split(" | ") for line in table.splitlines()}
    column = {name: i for i, name in enumerate(lines["| system"])}
    plain = lines["| plain classifier alone"]
    assert plain[column["A1"]] == "not yet" and "A10: Square" in table  # tried on none so far
    assert plain[column["A5"]] == "" and "/" in plain[column["A0"]]  # A5 is none on it


def test_one_shot_resubmission_and_vote_are_counted():
    right = torch.zeros(20, 2, dtype=torch.bool)
    right[:, 0] = True
    right[::2, 1] = True  # right in the first, the third, ...: 3 of 5, 10 of 20
    found = figures(right)
    assert found["one_shot"]["mean"] == pytest.approx(0.75)
    assert found["right_in_all"] == {1: 1.0, 5: 0.5, 20: 0.5}
    assert found["vote"] == {1: 1.0, 5: 1.0, 20: 0.5}


def test_standings_of_a_sole_system_have_no_rival(four):
    row = {"row": "clean", "system": "it", "meaning": "m", "right": "1101", "right_8bit": "1100"}
    found = standings({"clean: it": row}, four)
    assert found["it"]["clean"]["accuracy"] == share(torch.tensor([1, 1, 0, 1]).bool())["accuracy"]
    assert found["it"]["worst"]["k"] == 2  # what is misread in 8 bits is misread in the ball
    assert found["it"]["worst_8bit"]["k"] == 2 and "mcnemar" not in found["it"]


def test_budgets_grow():
    smoke, cpu, full = BUDGETS.values()
    for name in vars(smoke):
        assert getattr(smoke, name) <= getattr(cpu, name) <= getattr(full, name)


def test_unknown_rows_and_targets_are_named(pipeline):
    with pytest.raises(ValueError, match="unknown row 'A12'"):
        rungs_named(["A12"])
    with pytest.raises(ValueError, match="unknown system 'nobody'"):
        targets(pipeline, ["nobody"])
    assert tuple(t.name for t in targets(pipeline)) == NAMES  # what `--help` lists


def test_lanes_keep_the_order_and_stop_where_one_fails(four):
    def slowest_first(scans):
        time.sleep(0.05 * (4 - scans.seeds[0] % 5))
        return scans.seeds

    alone = list(Lanes(CPU, 1).map(slowest_first, four, ""))
    assert list(Lanes(CPU, 1, 3).map(slowest_first, four, "")) == alone

    def fails(scans):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(Lanes(CPU, 1, 2).map(fails, four, ""))
    with pytest.raises(ValueError, match="1 or more"):
        Lanes(CPU, 1, 0)


def test_threads_side_by_side_find_what_one_finds(store, four, known, tmp_path):
    """A7 listens to a network that both threads use."""
    target, rows = known["diffpure"], []
    for workers in (1, 2):
        own = Store(tmp_path / f"{workers}.json", "robustness", {}, {"machine": {}})
        climb(own, four, [target], rungs_named(["A7"]), Attacker(EPS, TINY), Lanes(CPU, 2, workers))
        rows.append({n: (r["right"], r["right_8bit"]) for n, r in own.content["rows"].items()})
    assert rows[0] == rows[1]


def test_the_time_left_is_judged_by_rows_of_the_same_kind_and_system():
    def row(name, system, seconds, right):
        return {"row": name, "system": system, "wall_s": seconds, "n": 4, "right": right}

    by_name = {r.name: r for r in RUNGS}
    budget = replace(TINY, steps=50)
    rows = {
        "A0": row("A0", "it", 28.0, "1111"),  # a second a look, at the classifier alone
        "A3": row("A3", "it", 300.0, "11--"),  # three, at the whole of it
        "A3 of another": row("A3", "other", 2000.0, "1111"),
        "clean": {"row": "clean", "system": "it", "wall_s": 9.0, "n": 4, "right": "1111"},
    }

    def left(name, system, scans):
        return time_left(rows, [Work(by_name[name], system, scans)], budget)

    assert left("A4", "it", 4) == "about 10 min"  # 50 looks, 4 scans, 3 s
    assert left("A1", "it", 6) == "about 5 min"
    assert left("A4", "other", 4) == "about 33 min"
    assert left("A4", "third", 3) == "about 19 min"  # (300 + 2000) s for 300 looks
    assert left("A4", "it", 400) == "about 16.7 h"
    assert left("A1", "other", 6) == "about 5 min"
    assert time_left({}, [Work(by_name["A4"], "it", 4)], budget) == ""
    assert left("A4", "it", 0) == ""


def test_the_time_of_a_killed_row_is_kept(store, four, known, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("bench.store.time.monotonic", lambda: clock[0])

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


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_scan_through_every_target(known, four, name):
    x, _, seeds = four.batches(2, CPU)[0]()
    x.requires_grad_()
    known[name].logits(x, seeds)[:, 1].sum().backward()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    "name", ["defence", "defence-paper-policy", "trained-mixture", "uniform-attention",
             "undefended", "plain-purified"],
)  # fmt: skip
def test_what_is_attacked_is_what_is_read(pipeline, known, four, name):
    x, _, seeds = four.batches(4, CPU)[0]()
    reading = Bench(pipeline).read(systems_named([name]), x, seeds)[name]
    with torch.no_grad():
        logits = known[name].logits(x, seeds)
    assert torch.allclose(reading.probability, logits.exp()[:, 1], atol=1e-5)


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
            f"{kind}: {t.name}": {"weights": t.key} for kind in kinds for t in targets(pipeline)
        }
    store.content["rows"] |= {"A3: defence": {}, "randomness": {}}  # of before rows knew
    with pytest.raises(StoreError, match=r"of other weights \(defence, randomness\): name another"):
        climbing.forget(store, targets(pipeline), False)
    assert len(store.content["rows"]) == 3 * len(NAMES) + 1  # refused: nothing is lost
    climbing.forget(store, targets(pipeline), True)
    assert len(store.content["rows"]) == 3 * len(NAMES) - 1
    climbing.forget(store, targets(pipeline), False)
    changed = deepcopy(pipeline)
    tensors = getattr(changed, part).state_dict().values()
    next(t for t in tensors if t.is_floating_point()).add_(1)
    climbing.forget(store, targets(changed), True)
    for place in ("rows", "unfinished"):
        assert {name.rpartition(": ")[2] for name in store.content[place]} == stay


def test_what_else_decides_a_reading_is_in_its_key(pipeline, monkeypatch):
    before = {t.name: t.key for t in targets(pipeline)}
    monkeypatch.setattr("bench.targets.QUALITY", 60)
    monkeypatch.setattr("bench.targets.DIFFPURE_T", 90)
    other = deepcopy(pipeline)
    other.config = replace(other.config, moe=replace(other.config.moe, sides=(56, 56, 56)))
    changed = {t.name for t in targets(other) if t.key != before[t.name]}
    assert changed == set(NAMES) - {"undefended", "median", "bits"}


def test_a_purifier_s_settings_are_its_own(pipeline):
    before = {t.name: t.key for t in targets(pipeline)}
    other = deepcopy(pipeline)
    other.config = replace(other.config, purifier=replace(other.config.purifier, t_floor=7))
    changed = {t.name for t in targets(other) if t.key != before[t.name]}
    assert {"defence", "purify-all"} <= changed and not changed & {"undefended", "trained-mixture"}
