"""Presets: those that ship parse, and errors name the key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.pipeline import build
from train.config import PresetError, list_methods, list_presets, read_preset


@pytest.fixture
def preset(tmp_path: Path):
    """Return a function that writes TOML and reads it as a preset."""

    def read(text: str):
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return read_preset(str(path))

    return read


def test_the_presets_that_ship():
    assert list_presets() == [
        "br35h-reduced", "cifar10-paper", "cifar10-reduced", "default", "federation-bench",
        "loopback", "paper", "sites", "smoke",
    ]  # fmt: skip


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_parses_under_its_own_name(name):
    assert read_preset(name).name == name


@pytest.mark.parametrize("method", list_methods())
def test_every_method_can_override_the_federation(method):
    own = ("covered", "iid", "labels", "transplants")
    base = "sites" if method in own else "federation-bench"  # which has these
    changed, plain = read_preset(f"{base}+{method}"), read_preset(base)
    assert changed.name == f"{base}+{method}"
    assert replace(changed, name="") != replace(plain, name="")


def test_methods_add_up_and_unknown_ones_are_named():
    p = read_preset("sites+one-expert-112+all-shared+no-attacks")
    assert len(p.system.moe.sides) == 1 and p.federated.share == "all"
    assert p.classifier.loss.adv_eps == 0 and p.federated.num_rounds == 400
    with pytest.raises(
        PresetError, match="unknown method 'fedem': choose from all-hospitals, all-shared"
    ):
        read_preset("sites+fedem")


@pytest.mark.parametrize("name", ["paper", "cifar10-paper"])
def test_the_paper_s_numbers(name):
    p = read_preset(name)
    mae, unet = p.system.mae, p.system.unet
    assert (mae.embed_dim, mae.depth, mae.num_heads) == (512, 12, 8)
    assert (mae.decoder_dim, mae.decoder_depth, mae.decoder_heads) == (512, 8, 8)
    assert mae.mask_ratio == 0.75
    assert unet.unshuffle == 1 and len(unet.channels) == 5 and unet.channels[-1] == 256
    assert p.system.moe.channels == p.system.plain.channels == (64, 128, 256, 512)
    assert p.system.moe.sides == p.system.plain.sides == (p.system.moe.img_size,) * 3
    assert (p.diffusion.fit.epochs, p.mae.fit.epochs) == (50, 30)
    assert p.classifier.fit.epochs == 20 * 15
    assert p.diffusion.loss.t_max == 999
    assert (p.system.purifier.policy, p.system.detector.score) == ("paper", "paper")
    assert p.plain.loss.adv_eps == 0 < p.classifier.loss.adv_eps


def test_the_paper_s_kappa_and_patches():
    mri, cifar = read_preset("paper").system, read_preset("cifar10-paper").system
    assert (mri.detector.kappa, cifar.detector.kappa) == (0.18, 0.05)
    assert (mri.mae.patch_size, cifar.mae.patch_size) == (16, 4)
    assert (cifar.moe.img_size, cifar.moe.in_chans, cifar.moe.num_classes) == (32, 3, 10)


@pytest.mark.parametrize(
    "name",
    ["cifar10-reduced", pytest.param("cifar10-paper", marks=pytest.mark.slow), "default", "smoke"],
)
def test_a_preset_s_system_reads_scans_of_its_own_shape(name):
    system = build(read_preset(name).system)
    shape = system.config.moe
    x = torch.rand(2, shape.in_chans, shape.img_size, shape.img_size)
    with torch.no_grad():
        assert system.logits(x, [0, 1]).shape == (2, shape.num_classes)


def test_an_empty_preset_has_all_defaults(preset):
    assert preset("").name == "mine"


def test_whole_numbers_may_stand_for_reals_and_lists_become_tuples(preset):
    p = preset("[mae.fit]\nlr = 1\n[calibrate]\neps = [1, 0.5]")
    assert p.mae.fit.lr == 1.0 and isinstance(p.mae.fit.lr, float)
    assert p.calibrate.eps == (1.0, 0.5)


def test_a_preset_that_extends_another_changes_what_it_names_alone(preset):
    p, base = preset("extends = 'default'\n[mae.fit]\nepochs = 3"), read_preset("default")
    assert (p.name, p.mae.fit.epochs) == ("mine", 3)
    assert p == replace(
        base, name="mine", mae=replace(base.mae, fit=replace(base.mae.fit, epochs=3))
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 3", r"unknown key 'epochs' in mine\.toml: choose from name, system"),
        ("[mae]\nfits = 1", r"unknown key 'fits' in mine\.toml: mae"),
        ("[mae.fit]\nepoch = 3", r"unknown key 'epoch' in mine\.toml: mae: fit"),
        ("[system.unet]\nchanels = [8, 8]", r"unknown key 'chanels' in .*system: unet"),
        ("[mae.fit]\nepochs = '3'", r"mae: fit: epochs must be int, got '3'"),
        ("[mae.fit]\nepochs = true", r"epochs must be int, got True"),
        ("[mae.fit]\nepochs = 2.5", r"epochs must be int, got 2\.5"),
        ("[mae.fit]\nlr = 'fast'", r"lr must be float, got 'fast'"),
        ("[mae.augment]\nflip = 1", r"flip must be bool, got 1"),
        ("[mae]\nfit = 3", r"mae: fit must be a table, got 3"),
        ("[system.unet]\nchannels = 8", r"channels must be a list, got 8"),
        ("[system.unet]\nchannels = [8, 'x']", r"each of .*channels must be int, got 'x'"),
        ("[mae.fit]\nepochs = -1", r"mae: fit: .*epochs"),
        ("[system.purifier]\npolicy = 'none'", r"policy must be one of picture, paper, floor"),
        ("[system.moe]\nimg_size = 112", r"must share one img_size"),
        ("extends = 'defualt'", r"mine\.toml cannot extend 'defualt': choose from cifar10-paper"),
        ("extends = 'sites'", r"cannot extend 'sites': choose from .*paper"),
        ("extends = 3", r"cannot extend 3: choose from"),
        ("extends = ['default']", r"cannot extend \['default'\]: choose from"),
        ("[mae.fit\n", r"mine\.toml is not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(preset, text, message):
    with pytest.raises(PresetError, match=message):
        preset(text)


def test_an_unknown_preset_names_the_known_ones(tmp_path):
    with pytest.raises(PresetError, match=r"'papr': choose from br35h-reduced, cifar10-paper"):
        read_preset("papr")
    with pytest.raises(PresetError, match="unknown preset"):
        read_preset(str(tmp_path / "none.toml"))


def test_pooled_and_federated_training_with_masks_share_network_and_loss():
    pooled, sites = read_preset("default+masks"), read_preset("sites")
    assert pooled.system == sites.system and sites.system.moe.map_width == 32
    assert sites.system.plain.map_width == 0
    assert pooled.classifier.loss == sites.classifier.loss
    assert pooled.classifier.styles == sites.classifier.styles
    labels = read_preset("default+masks+labels").classifier
    assert labels.loss == replace(pooled.classifier.loss, map_loss=0.0, map_attack=0.0)
    assert replace(labels, loss=pooled.classifier.loss) == pooled.classifier
