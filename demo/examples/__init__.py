"""Synthetic example scans that ship with the page, with the facts measured on each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.scan import ScanError, read_scan, to_uint8

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Example:
    """Synthetic scan with facts that `tools.make_examples` measured."""

    name: str
    levels: np.ndarray  # (1, 224, 224) uint8
    tumour: bool  # what was drawn
    correlation: float  # with the most similar training scan in any orientation
    read_right: bool  # by the defended system, clean
    flips_undefended: bool  # the default attack flips the plain classifier's right output
    right_defended: bool  # the defended system is right under the attack

    @property
    def is_failure(self) -> bool:
        """True if the example shows a known failure."""
        return not (self.read_right and self.flips_undefended and self.right_defended)

    def describe(self) -> str:
        """Describe the example in a sentence for the visitor."""
        drawn = "drawn with a tumour" if self.tumour else "drawn without a tumour"
        faults = [
            text
            for is_fault, text in (
                (not self.read_right, "wrong on the clean scan"),
                (
                    not self.flips_undefended,
                    "the default attack does not flip the undefended output",
                ),
                (not self.right_defended, "the defence fails under the default attack"),
            )
            if is_fault
        ]
        known = f" Known failure: {'; '.join(faults)}." if faults else ""
        return (
            f"Synthetic, {drawn}; no training scan (correlation with the closest: "
            f"{self.correlation:.2f}).{known}"
        )


def load_examples(folder: Path = FOLDER) -> list[Example]:
    """Load the examples of a folder in order of name: PNG files, each with a JSON file of facts.

    Raises:
        ValueError: a fact or a picture is missing or cannot be read; the message names the file.
    """
    examples = []
    for path in sorted(folder.glob("*.json")):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            levels = to_uint8(read_scan(path.with_suffix(".png")))
            examples.append(Example(levels=levels, **facts))
        except (ScanError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path.name}: {error}") from None
    return examples
