"""Parts of a federation: serialization, policy, sharing, state files, aggregation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from core.moe import MixtureOfExperts, MoEConfig, is_personal
from train.federated import metrics, secagg, state_file
from train.federated.client.policy import Policy, PolicyError, read_policy
from train.federated.runtime.in_process import InProcessGrid
from train.federated.serialization import PayloadError, pack, unpack
from train.federated.server.strategies import BUILDERS, RunningMean, build_strategy
from train.federated.shared_parameters import select_personal, select_shared
from train.federated_config import STRATEGIES, StrategyConfig

LIKE = {"experts.a": torch.zeros(2, 3), "experts.b": torch.zeros(4)}


@pytest.fixture(scope="module")
def model() -> MixtureOfExperts:
    return MixtureOfExperts(
        MoEConfig(sides=(28, 14), channels=(8, 8, 8, 8), hidden=8, attention_hidden=4)
    )


# --- sharing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", ["shared", "silo", "local"])
def test_every_tensor_is_either_shared_or_personal(model, batch_norm):
    shared, personal = (
        select_shared(model, "experts", batch_norm),
        select_personal(model, "experts", batch_norm),
    )
    assert shared.keys() | personal.keys() == model.state_dict().keys()
    assert not shared.keys() & personal.keys()
    assert shared and not any(is_personal(name) for name in shared)
    statistics = [name for name in model.state_dict() if "running_" in name]
    assert statistics and all((name in shared) == (batch_norm == "shared") for name in statistics)


def test_local_normalisation_keeps_weights_and_statistics_but_not_convolutions(model):
    gone = (
        select_shared(model, "experts", "shared").keys()
        - select_shared(model, "experts", "local").keys()
    )
    assert any(name.endswith("bn1.weight") for name in gone)
    assert not any("conv" in name.split(".")[-2] for name in gone)


# --- wire ----------------------------------------------------------------------------------------


def test_a_real_network_survives_the_wire_bit_for_bit(model):
    shared = select_shared(model, "experts", "shared")
    back = unpack(pack(shared), shared, "client 1")
    assert list(back) == list(shared)
    assert all(torch.equal(back[name], shared[name]) for name in shared)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention.c": np.zeros(1)}, r"client 1 sent unknown tensor 'attention.c' \(1 unknown"),
        ({"experts.b": None}, r"client 1 sent no tensor 'experts.b' \(0 unknown, 1 missing"),
        ({"experts.b": np.zeros(5)}, r"'experts.b' of shape \(5,\), .* expected \(4,\)"),
        ({"experts.b": np.array([1, np.nan, 0, 0])}, "not finite"),
        ({"experts.b": np.array([1, np.inf, 0, 0])}, "not finite"),
        ({"experts.b": np.array([1e300, 0, 0, 0])}, "not finite"),
        ({"experts.b": np.array(["a", "b", "c", "d"])}, "an invalid array"),
    ],
)
def test_a_wrong_payload_names_sender_and_cause(changes, message):
    arrays = {name: value.numpy() for name, value in LIKE.items()} | changes
    sent = ArrayRecord({n: Array(np.asarray(v)) for n, v in arrays.items() if v is not None})
    with pytest.raises(PayloadError, match=message):
        unpack(sent, LIKE, "client 1")


def test_a_huge_or_broken_payload_is_refused_before_it_is_decoded():
    sent = pack(LIKE)
    sent["experts.b"] = Array("float32", (4,), "numpy.ndarray", b"x" * 10_000)
    with pytest.raises(PayloadError, match="10000 bytes"):
        unpack(sent, LIKE, "client 1")
    sent["experts.b"] = Array("float32", (4,), "numpy.ndarray", b"x" * 100)
    with pytest.raises(PayloadError, match="an invalid array"):
        unpack(sent, LIKE, "client 1")


# --- policy --------------------------------------------------------------------------------------


def test_a_hospital_s_policy_bars_names_and_sizes(tmp_path):
    with pytest.raises(PolicyError, match=r"does not allow 'attention\.0'"):
        Policy(("experts.*",)).apply(
            {"experts.a": torch.zeros(1), "attention.0": torch.zeros(1)}, {}
        )
    with pytest.raises(PolicyError, match="allows 1e-06 MB"):
        Policy(max_mb=1e-6).apply(LIKE, LIKE)
    path = tmp_path / "policy.toml"
    path.write_text('allow = ["experts.a"]\nmax_mb = 1.5')
    assert read_policy(str(path)) == Policy(("experts.a",), 1.5)
    path.write_text("alow = []")
    with pytest.raises(PolicyError, match="unknown key 'alow'"):
        read_policy(str(path))
    with pytest.raises(PolicyError, match="cannot be read"):
        read_policy(str(tmp_path / "none.toml"))


def test_a_policy_bounds_an_update():
    new = {name: value + 3 for name, value in LIKE.items()}
    out = Policy(clip=0.5).apply(new, LIKE)
    assert float(torch.cat([t.flatten() for t in out.values()]).norm()) == pytest.approx(0.5)
    assert Policy(clip=100.0).apply(new, LIKE)["experts.b"].tolist() == [3.0] * 4


# --- state files ---------------------------------------------------------------------------------


def test_a_state_comes_back_with_the_same_bytes_and_belongs_to_its_experiment(tmp_path):
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        state_file.write(path, LIKE, {"digest": "d", "round": 3, "names": ["x", "y"]})
    assert paths[0].read_bytes() == paths[1].read_bytes()
    tensors, facts = state_file.read(paths[0], "d")
    assert facts["round"] == 3 and all(torch.equal(tensors[n], LIKE[n]) for n in LIKE)
    with pytest.raises(state_file.StateError, match="other settings"):
        state_file.read(paths[0], "e")
    paths[1].write_bytes(paths[0].read_bytes()[:-3])
    for path in (paths[1], tmp_path / "none"):
        with pytest.raises(state_file.StateError, match="damaged"):
            state_file.read(path, "d")


# --- aggregation ---------------------------------------------------------------------------------


def replies(states: list[dict[str, torch.Tensor]], counts: list[int]) -> list[Message]:
    InProcessGrid(None, {}, [])  # whoever makes a Message must have an identity
    asked = Message(RecordDict(), 1, "train")
    return [
        Message(
            RecordDict(
                {
                    "arrays": pack(s),
                    "metrics": MetricRecord({"num-examples": n, "one": 1, "loss": 0.5}),
                }
            ),
            reply_to=asked,
        )
        for s, n in zip(states, counts, strict=True)
    ]


def aggregate(config: StrategyConfig, states, counts) -> dict[str, torch.Tensor]:
    arrays, _ = build_strategy(config, pack(LIKE), len(states)).aggregate_train(
        1, replies(states, counts)
    )
    assert arrays is not None
    return unpack(arrays, LIKE, "the aggregation")


@pytest.fixture
def honest() -> list[dict[str, torch.Tensor]]:
    draws = torch.Generator().manual_seed(0)
    return [
        {n: 1 + 0.1 * torch.randn(t.shape, generator=draws) for n, t in LIKE.items()}
        for _ in range(9)
    ]


def test_every_strategy_of_a_preset_has_a_builder():
    assert tuple(BUILDERS) == STRATEGIES


def test_the_mean_taken_an_answer_at_a_time_is_flower_s(honest):
    counts = [10 * (i + 1) for i in range(9)]
    mean = RunningMean()
    for tensors, count in zip(honest, counts, strict=True):
        mean.add(tensors, count)
    expected = aggregate(StrategyConfig(), honest, counts)
    assert all(torch.allclose(mean.result()[n], expected[n], atol=1e-6) for n in LIKE)


@pytest.mark.parametrize("config", [StrategyConfig(), StrategyConfig("fedprox", proximal_mu=0.1)])
def test_the_mean_is_the_paper_s_by_sample_count(honest, config):
    counts = [10 * (i + 1) for i in range(9)]
    found = aggregate(config, honest, counts)
    for name in LIKE:  # Eq. 23
        expected = sum(n * own[name] for n, own in zip(counts, honest, strict=True)) / sum(counts)
        assert torch.allclose(found[name], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "withstands"),
    [
        (StrategyConfig(), False),
        (StrategyConfig("fedmedian"), True),
        (StrategyConfig("trimmed", trim=0.2), True),
        (StrategyConfig("krum", malicious=1), True),
    ],
)
def test_one_client_of_ten_that_sends_noise(honest, config, withstands):
    noise = {n: 1000 * torch.ones_like(t) for n, t in LIKE.items()}
    found = aggregate(config, [*honest, noise], [20] * 10)
    assert all(((found[n] - 1).abs().max() < 0.5) == withstands for n in LIKE)


def test_server_side_clipping_bounds_every_client_whatever_its_size(honest):
    far = {n: 1000 * torch.ones_like(t) for n, t in LIKE.items()}
    config = StrategyConfig(dp_clip=0.1)
    found = aggregate(config, [honest[0], far], [1, 100_000])
    assert float(torch.cat([t.flatten() for t in found.values()]).norm()) <= 0.1 + 1e-6
    noisy = StrategyConfig(dp_clip=0.1, dp_noise=5.0)
    assert not torch.equal(
        aggregate(noisy, honest, [1] * 9)["experts.a"],
        aggregate(noisy, honest, [1] * 9)["experts.a"],
    )


def test_an_update_beyond_the_range_of_secure_aggregation_is_refused_not_cut():
    new = {"experts.a": torch.full((2, 3), 0.5), "experts.b": torch.full((4,), 3.0)}
    with pytest.raises(PayloadError, match=r"'experts\.b' is 3, beyond secagg_range 1"):
        secagg.compute_update(new, LIKE, 1.0)
    back = secagg.add_update(secagg.compute_update(new, LIKE, 4.0), LIKE)
    assert all(torch.equal(back[n], new[n]) for n in LIKE)


# --- figures over clients ------------------------------------------------------------------------


def test_the_spread_over_clients():
    clients = {
        i: {"clean": i / 10, "nll": i / 10, "num-examples": 1 + 9 * (i == 9)} for i in range(10)
    }
    found = metrics.summarize(clients)
    assert found["clean"]["mean"] == pytest.approx(0.45)
    assert found["clean"]["weighted"] == pytest.approx((4.5 + 9 * 0.9) / 19)
    assert found["clean"]["worst"] == found["clean"]["bottom_decile"] == 0.0
    assert found["nll"]["worst"] == pytest.approx(0.9)
    assert "pgd" not in found
