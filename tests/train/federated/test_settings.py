"""Settings that cannot work together are refused with the reason."""

from __future__ import annotations

import pytest

from train.config import PresetError, read_preset
from train.federated.experiment import Experiment, read_experiment


def test_the_preset_that_ships_is_reduced_and_says_so():
    config = read_preset("sites").federated
    assert (config.partition.num_clients, config.num_rounds, config.local_epochs) == (10, 400, 1)


def test_without_words_the_paper_s_numbers_hold(tmp_path):
    path = tmp_path / "empty.toml"
    path.write_text("")
    config = read_preset(str(path)).federated
    assert (config.partition.num_clients, config.num_rounds, config.local_epochs) == (10, 20, 15)


@pytest.mark.parametrize(
    ("federated", "strategy", "message"),
    [
        ("round = 3", "", "unknown key 'round'"),
        ("", 'name = "fedsgd"', "name must be one of fedavg, fedprox"),
        ("", 'nam = "krum"', "unknown key 'nam'"),
        ("num_rounds = 0", "", "num_rounds"),
        ("fraction = 0.0", "", r"fraction must be in \(0, 1\]"),
        ("fraction = 0.4", "", r"min_clients must be in \[1, 1\]"),
        ("min_clients = 9", "", r"min_clients must be in \[1, 3\]"),
        ("late_clients = [3]", "", r"late_clients must be in \[0, 2\]"),
        ('batch_norm = "none"', "", "batch_norm must be one of shared, silo, local"),
        ("timeout = 0", "", "timeout positive"),
        ('share = "some"', "", "share must be one of experts, all, none"),
        ('share = "none"', 'name = "trimmed"', "share none sends nothing"),
        ("resources = [0.5]", "", "a share for each of 3 clients"),
        ("resources = [0.5, 2.0, 0.1]", "", r"shares in \[0, 1\]"),
        ("refresh_every = -1", "", "refresh_every must be 0 or more"),
        ("", 'name = "fedprox"', "fedprox needs a proximal_mu"),
        ("", "proximal_mu = 0.1", "only fedprox takes one"),
        ("", "malicious = 1", "malicious is for krum"),
        ("", 'name = "krum"\nmalicious = 1', "needs 5 or more clients, min_clients is 2"),
        ("", 'name = "fedmedian"', "fedmedian of two is their mean"),
        ("min_clients = 3", 'name = "trimmed"\ntrim = 0.2', "removes no client"),
        ("", "trim = 0.5", "trim must be in"),
        ("", "momentum = 1.0", r"momentum must be in \[0, 1\)"),
        ("", "average = 1.0", r"average must be in \[0, 1\)"),
        ('batch_norm = "shared"', "momentum = 0.5", "can make them negative"),
        ("", "dp_noise = 1.0", "dp_noise without dp_clip"),
        ('batch_norm = "shared"', "dp_clip = 1.0", "set batch_norm to silo or local"),
        ('batch_norm = "local"', 'dp_clip = 1.0\nname = "krum"', "krum takes none"),
        ("min_clients = 3", 'secagg = true\nname = "fedmedian"', "fedmedian compares"),
        ("", "secagg = true", "secagg of two clients"),
        ("min_clients = 3", "secagg = true\nequal = true", "equal is for a mean"),
        ("min_clients = 3", 'name = "fedmedian"\nequal = true', "equal is for a mean"),
        (
            "min_clients = 3",
            "secagg = true\ndp_clip = 1.0",
            "single updates, which secagg conceals",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(preset, federated, strategy, message):
    with pytest.raises(PresetError, match=message):
        read_preset(str(preset(federated, strategy=strategy)))


def test_the_command_ends_in_one_sentence(preset, federate, capsys):
    assert federate(preset("round = 3")) == 2
    assert capsys.readouterr().err.startswith("error: unknown key 'round'")
    with pytest.raises(SystemExit) as stop:
        federate(preset(), "out", "--runtime", "elsewhere")
    assert stop.value.code == 2


def test_an_experiment_is_its_settings_without_the_number_of_rounds(preset):
    first = read_experiment(str(preset("num_rounds = 1")), "paper", 0)
    longer = read_experiment(str(preset("num_rounds = 5")), "paper", 0)
    other = read_experiment(str(preset("calm_rounds = 1")), "paper", 0)
    assert first.digest == longer.digest != other.digest
    assert Experiment(first.preset, "patients", 0).digest != first.digest
    assert Experiment(first.preset, "paper", 1).digest != first.digest
