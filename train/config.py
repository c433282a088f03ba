"""Presets: one TOML file an experiment, read into frozen dataclasses; unknown keys are errors.

A preset may begin with `extends = "NAME"`, a shipped preset that extends no other, and then holds
only the differences. `NAME+METHOD+...` overrides a preset with files of `conf/overrides`, which
hold the settings of a method.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from core.pipeline import PipelineConfig
from train.calibration.calibrate import CalibrateConfig
from train.data.corpus import Corpus
from train.federated_config import FederatedConfig
from train.phases import PHASES

PRESET_FOLDER = Path(__file__).parent / "conf"
METHOD_FOLDER = PRESET_FOLDER / "overrides"


class PresetError(ValueError):
    """Preset that does not exist, or has an unknown key or an invalid value."""


@dataclass(frozen=True)
class _Common:
    """Tables of a preset that belong to no training phase."""

    name: str
    system: PipelineConfig = field(default_factory=PipelineConfig)
    calibrate: CalibrateConfig = field(default_factory=CalibrateConfig)
    federated: FederatedConfig = field(default_factory=FederatedConfig)

    def override(self, **tables: Any) -> Preset:
        """Return a copy with other tables."""
        changed: Preset = dataclasses.replace(self, **tables)  # type: ignore[assignment]
        return changed


if TYPE_CHECKING:

    class Preset(_Common):
        """One experiment: the system's shape, and a table for each training phase."""

        def __init__(self, name: str, **tables: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...

else:
    Preset = dataclasses.make_dataclass(
        "Preset",
        [(p.section, p.config, field(default_factory=p.config)) for p in PHASES],
        bases=(_Common,),
        frozen=True,
        namespace={"__doc__": "One experiment: the system's shape, and a table for each phase."},
    )


def list_presets() -> list[str]:
    """List the names of the presets that ship."""
    return sorted(path.stem for path in PRESET_FOLDER.glob("*.toml"))


def list_methods() -> list[str]:
    """List the names of the methods that ship."""
    return sorted(path.stem for path in METHOD_FOLDER.glob("*.toml"))


def read_preset(name: str) -> Preset:
    """Read a preset by name, or from the path of a TOML file, with its overrides.

    Raises:
        PresetError: the preset is unknown, or a key or value is wrong; the message names it.
    """
    base, *methods = name.split("+")
    path = _find_preset(base)
    values = _read_values(path)
    for method in methods:
        if method not in list_methods():
            raise PresetError(f"unknown method {method!r}: choose from {', '.join(list_methods())}")
        values = _merge(values, _read_toml(METHOD_FOLDER / f"{method}.toml"))
    full = "+".join([path.stem, *methods])
    preset: Preset = _build(Preset, {"name": full, **values}, path.name)
    return preset


def _find_preset(name: str) -> Path:
    path = Path(name) if name.endswith(".toml") else PRESET_FOLDER / f"{name}.toml"
    if not path.is_file():
        raise PresetError(
            f"unknown preset {name!r}: choose from {', '.join(list_presets())}, or give a TOML file"
        )
    return path


def _read_values(path: Path) -> dict[str, Any]:
    """Return a preset's values merged over those of the preset that it extends."""
    values = _read_toml(path)
    if "extends" not in values:
        return values
    name = values.pop("extends")
    bases = [base for base in list_presets() if "extends" not in _read_toml(_find_preset(base))]
    if name not in bases:
        raise PresetError(f"{path.name} cannot extend {name!r}: choose from {', '.join(bases)}")
    return _merge(_read_toml(_find_preset(name)), values)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise PresetError(f"{path.name} is not valid TOML: {error}") from None


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merge tables key by key; replace anything else."""
    both = {
        k: _merge(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v
        for k, v in changes.items()
    }
    return {**base, **both}


def check_fit(preset: Preset, corpus: Corpus) -> None:
    """Raise ValueError if the preset's networks do not fit the corpus' scans."""
    system = preset.system
    side, chans = system.moe.img_size, system.moe.in_chans
    parts = (system.plain, system.mae, system.unet, system.residual)
    if any(part.in_chans != chans for part in parts):
        raise ValueError(f"the parts of preset {preset.name!r} differ in in_chans")
    if corpus.shape != (chans, side, side):
        raise ValueError(
            f"preset {preset.name!r} reads pictures of shape {(chans, side, side)}, "
            f"those of {corpus.protocol!r} are {corpus.shape}"
        )
    if preset.classifier.loss.map_loss and not system.moe.map_width:
        raise ValueError(
            f"preset {preset.name!r} has a map_loss, but its experts make no map: set map_width"
        )
    classes = min(system.moe.num_classes, system.plain.num_classes)
    if corpus.num_classes > classes:
        raise ValueError(
            f"preset {preset.name!r} has {classes} classes, "
            f"{corpus.protocol!r} has {corpus.num_classes}"
        )


def _build(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise PresetError(f"{where} must be a table, got {values!r}")
    hints = get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise PresetError(f"unknown key {key!r} in {where}: choose from {', '.join(hints)}")
    try:
        return kind(**{k: _convert(hints[k], v, f"{where}: {k}") for k, v in values.items()})
    except PresetError:
        raise
    except (ValueError, TypeError) as error:
        raise PresetError(f"{where}: {error}") from None


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise PresetError(f"{where} must be a list, got {value!r}")
        item = get_args(hint)[0]
        return tuple(_convert(item, v, f"each of {where}") for v in value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:  # a bool is no int here
        raise PresetError(f"{where} must be {hint.__name__}, got {value!r}")
    return value
