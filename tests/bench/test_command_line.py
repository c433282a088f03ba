"""Every command from end to end on a weights folder and phantoms; what wrong input gets."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from bench import options
from bench.__main__ import build_parser, main
from bench.app.latency import BESIDE
from bench.commands import MEASUREMENTS, tables
from bench.components import purifier
from bench.provenance import ROOT, key_of
from bench.report.write import fill, read_results
from bench.robustness import run as robustness
from bench.robustness.filters import STRENGTHS
from train.data.cifar import CLASSES, PARTS
from train.data.split import PAPER, PROTOCOLS

pytestmark = pytest.mark.usefixtures("quick_checks")
README = "# x\n" + "".join(
    f"<!-- results:{name} -->\nleft over\n<!-- /results -->\n" for name in sorted(tables())
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def bench(weights, data, results):
    """Runs one command; returns the exit code and its result file's content."""

    def run(command, *options, name=None):
        out = results / f"{name or command + '-paper'}.json"
        common = ["--data", data[0], "--manifests", data[1], "--out", out]
        if command not in ("certify", "latency"):
            common += ["--batch-size", "8"]
        common += ["--protocol", "paper", "--weights", weights]
        code = main(
            [command, *map(str, common), "--threads", "1", "--cache", str(results), *options]
        )
        return code, json.loads(out.read_text()) if out.is_file() else None

    return run


def test_robustness(bench):
    few = ["--systems", "defence,best-expert,undefended", "--val-limit", "2"]
    code, result = bench("robustness", "--rows", "clean,A0", *few)
    assert code == 0
    assert list(result["rows"]) == ["expert", "self-check", "clean", "A0", "A0-8bit"]
    facts = result["provenance"]
    assert facts["protocol"] == "paper"
    assert facts["settings"]["attack_eps"] == 0.015
    assert len(facts["weights"]) == 7
    code, again = bench("robustness", "--rows", "clean", *few)
    assert code == 0
    assert again["rows"] == result["rows"]


def test_the_suite_has_a_file_of_its_own_and_takes_more_systems_later(bench, monkeypatch):
    from bench.robustness.attacks import BUDGETS, Budget

    monkeypatch.setitem(BUDGETS, "smoke", Budget(3, 1, 1, 1, 1, 2, 1, 1, 1, 1))
    options = ["--budget", "smoke", "--rows", "A3..A5", "--systems"]
    code, result = bench("robustness", *options, "undefended", name="ladder-paper")
    assert code == 0
    rows = ["self-check", "clean", "noise", "A3", "A4"]
    known = [name for name in result["rows"] if "curve" not in name]
    assert known == [f"{row}: undefended" for row in rows]
    code, more = bench("robustness", *options, "undefended,median", name="ladder-paper")
    assert code == 0
    assert result["rows"].items() <= more["rows"].items()
    assert {"A5: median", "A3: median"} <= more["rows"].keys()
    assert set(more["standings"]) == {"undefended", "median"}
    with pytest.raises(SystemExit):
        bench("robustness", "--budget", "smoke", "--rows", "A5..A3")


def test_detection(bench):
    code, result = bench("detection", "--limit", "4")
    assert code == 0
    assert set(result["rows"]) >= {"clean", "benign: gamma 1.2", "plain, eps 0.015"}
    assert "fused" in result["rows"]["trained, eps 0.031"]["scores"]


@pytest.mark.slow
def test_purifier(bench, monkeypatch):
    few = {kind: dict(list(strengths.items())[:2]) for kind, strengths in STRENGTHS.items()}
    monkeypatch.setattr(purifier, "STRENGTHS", few)
    code, result = bench("purifier", "--limit", "2", "--val-limit", "2")
    assert code == 0
    assert list(result["rows"]) == ["filters", "energy", "denoising", "accuracy", "clean"]
    table = fill("<!-- results:purifier -->\n<!-- /results -->", {"purifier-paper": result})
    assert "| median |" in table and "| machine |" not in table


def test_mae(bench):
    code, result = bench("mae", "--limit", "4", "--val-limit", "2")
    assert code == 0
    assert result["rows"]["random masks"]["n"] == 4


def test_novelty(bench, data):
    for part in PARTS:
        for n, name in enumerate(CLASSES):
            folder = data[0] / "cifar10-jpeg" / part / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (20 * n, 90, 30)).save(folder / "0001.jpg")
    code, result = bench("novelty", "--limit", "4")
    assert code == 0
    counts = {name: (row["k"], row["n"]) for name, row in result["rows"].items()}
    assert counts == {  # an untrained head judges everything
        "test scans": (0, 4),
        "test scans under A0, 8 bits": (0, 4),
        "grey CIFAR-10 pictures": (0, 10),
        "phantoms": (0, 200),
    }
    assert len(result["warnings"]) == 1


@pytest.mark.slow
def test_latency(bench, tmp_path):
    preset = tmp_path / "tiny.toml"
    preset.write_text("[system.unet]\nchannels = [8, 16]\n[system.moe]\nsides = [28]\n")
    options = ["--repeats", "3", "--peer", str(preset), "--peer-repeats", "2", "--no-app"]
    code, result = bench("latency", *options)
    assert code == 0
    rows = result["rows"]
    assert rows["read"]["n"] == 3
    assert rows["read"]["median_ms"] <= rows["read"]["p95_ms"]
    assert rows["read"]["stages_median_ms"].keys() == {
        "detect",
        "purify",
        "classify",
        "stability",
        "total",
    }
    assert rows[f"{preset} preset"]["ratio"] > 0
    assert rows["machine"]["best_gflops"] > 0
    assert rows["PGD-7, knows the defence"]["median_ms"] > rows["PGD-7, classifier"]["median_ms"]
    for place, busy in (("", 0), (BESIDE, 2)):
        analysis, volume = rows[f"analysis{place}"], rows[f"volume{place}"]
        assert analysis["n"] == 3 and 0 < analysis["first_median_ms"] < analysis["median_ms"]
        assert volume["n"] == 3 and volume["slices"] == 48
        assert analysis["busy_processes"] == volume["busy_processes"] == busy
        assert analysis["load_average"] >= 0


def test_unseen(bench):
    code, result = bench("unseen", "--attacked", "2")
    assert code == 0
    assert list(result["rows"]) == ["overlap", "clean", "A0"]
    [(source, found)] = result["rows"]["overlap"]["sources"].items()
    assert (source, found["n"], found["used_scans"], found["left"]) == ("br35h", 8, 0, 8)
    assert result["rows"]["clean"]["scopes"]["all"]["n"] == 8
    assert result["rows"]["A0"]["n"] == 2
    assert bench("unseen", "--attacked", "2")[1]["rows"] == result["rows"]


def test_report_fills_every_table_from_the_results(results, tmp_path):
    files = {path.stem for path in results.glob("*.json")}
    if len(files) < 6:
        pytest.skip("runs after the commands above, which write the results that it reads")
    readme = tmp_path / "README.md"
    readme.write_text(README)
    options = ["report", "--results", str(results), "--pages", str(readme)]
    assert main([*options, "--check"]) == 1
    assert main(options) == 0
    assert main([*options, "--check"]) == 0
    text = readme.read_text()
    assert "left over" not in text
    assert "| full pipeline |" in text
    assert "Not measured yet (`results/robustness-patients.json` is missing)." in text
    assert "| median filter |" in text
    assert text.count("<!-- /results -->") == len(tables())


def test_report_refuses_unknown_tables_and_open_blocks():
    with pytest.raises(ValueError, match="unknown table 'speed'"):
        fill("<!-- results:speed -->\n<!-- /results -->", {})
    with pytest.raises(ValueError, match="needs its"):
        fill("<!-- results:mae -->\n", {})
    assert "Not measured yet" in fill("<!-- results:mae -->\n<!-- /results -->", {})


def test_wrong_input_ends_in_one_sentence(bench, data, tmp_path, capsys):
    assert bench("mae", "--weights", str(tmp_path), name="x")[0] == 2
    assert "There are no weights in" in capsys.readouterr().err
    assert bench("robustness", "--rows", "A9", name="x")[0] == 2
    assert "unknown row 'A9'" in capsys.readouterr().err
    assert bench("mae", "--data", str(tmp_path / "none"), name="x")[0] == 2
    assert "no data folder at" in capsys.readouterr().err
    assert bench("explanations", name="y2")[0] == 2
    assert "no test scan has an outline" in capsys.readouterr().err
    assert bench("mae", "--limit", "0", name="x")[0] == 2
    assert "limit must be at least 1" in capsys.readouterr().err
    assert main(["report", "--pages", str(tmp_path / "R.md")]) == 2
    with pytest.raises(SystemExit):
        main(["speed"])


@pytest.mark.parametrize("command", ["robustness", "latency", "mixtures", "report"])
def test_help_explains_every_option(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert "--" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("mae", "results/mae-patients.json"),
        ("robustness --protocol paper", "results/robustness-paper.json"),
        ("robustness --budget cpu", "results/ladder-patients.json"),
        ("robustness --budget full", "results/ladder-full-patients.json"),
        ("robustness --budget smoke --fold val", "runs/ladder-smoke-patients.json"),
        ("certify --out x.json", "x.json"),
        ("unseen", "results/unseen-patients.json"),
    ],
)
def test_every_question_has_a_file_of_its_own(words, path):
    args = build_parser().parse_args(words.split())
    named = robustness.result_path if args.command == "robustness" else options.result_path
    assert (args.out or named(args)) == Path(path)


def test_results_are_read_by_stem(tmp_path):
    (tmp_path / "mae-paper.json").write_text('{"rows": {}}')
    assert read_results(tmp_path) == {"mae-paper": {"rows": {}}}


def test_a_command_is_one_line(monkeypatch, capsys):
    """A module with its options, its measurement and its table is all that a command needs."""
    done = []
    dummy = SimpleNamespace(
        HELP="counts to a number",
        add_options=lambda parser: parser.add_argument("--to", type=int, default=3, help="number"),
        run=lambda args: done.append(args.to),
        table=lambda results: f"counted to {results['count-paper']['rows']}",
    )
    monkeypatch.setitem(MEASUREMENTS, "count", dummy)
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "counts to a number" in capsys.readouterr().out
    assert main(["count", "--to", "5"]) == 0
    assert done == [5]
    text = fill("<!-- results:count -->\n<!-- /results -->", {"count-paper": {"rows": 5}})
    assert "counted to 5" in text


IDENTITY = (
    "protocol",
    "manifest_sha256",
    "split_sha256",
    "weights",
    "lent",
    "timed_on",
    "preset",
    "hospital",
)


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.json")), ids=lambda p: p.stem)
def test_committed_results_are_recognised(path):
    """The settings of a committed file, given as options, make the same key."""
    result = json.loads(path.read_text(encoding="utf-8"))
    facts, command = result["provenance"], result["bench"]
    settings = facts["settings"]
    if settings.get("protocol", PAPER) not in PROTOCOLS:
        pytest.skip("measured on a split that is gone")
    if command == "robustness" and "lite_limit" in settings:
        pytest.skip("measured when the command had another option")
    required = {"mixtures": ["--run", "x=y"]}
    words = [command, *required.get(command, [])]
    for name, value in settings.items():
        if value is not None:
            text = ",".join(value) if isinstance(value, list) else str(value)
            words += [f"--{name.replace('_', '-')}", text]
    args = build_parser().parse_args(words)
    found = options.settings_of(args)
    if command == "robustness" and args.budget:
        del found["systems"]
    if command not in ("demo", "mixtures"):  # which write down their own
        assert found == settings
    identity = {name: facts[name] for name in IDENTITY if name in facts}
    assert key_of({**identity, "settings": settings}) == result["key"]
