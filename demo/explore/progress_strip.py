"""Progress strip: the pipeline's stages as they run, announced to screen readers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from html import escape

NAMES = ("load", "attack", "detect", "purify", "classify")
STATES = ("idle", "running", "done", "skipped", "failed")


@dataclass(frozen=True)
class Stages:
    """State and detail of each stage, and a line about the running one."""

    line: str = "Choose a scan, then press Analyse."
    states: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)

    def set(self, line: str, state: str, *names: str, **details: str) -> Stages:
        """Return a copy in which the named stages have this state; details by stage name."""
        if state not in STATES:
            raise ValueError(f"state must be one of {', '.join(STATES)}, got {state!r}")
        states = {**self.states, **dict.fromkeys(names, state)}
        return replace(self, line=line, states=states, details={**self.details, **details})

    def fail(self, line: str) -> Stages:
        """Return a copy in which the running stages have failed."""
        failed = [name for name, state in self.states.items() if state == "running"]
        return self.set(line, "failed", *failed)

    def render(self) -> str:
        """Render the strip; the line under it is a live region."""
        chips = "".join(self._render_stage(name) for name in NAMES)
        tone = " mf-bad" if "failed" in self.states.values() else ""
        return (
            f'<ol class="mf-stages" aria-label="Stages">{chips}</ol>'
            f'<p class="mf-line{tone}" role="status" aria-live="polite">{escape(self.line)}</p>'
        )

    def _render_stage(self, name: str) -> str:
        state, detail = self.states.get(name, "idle"), self.details.get(name, "")
        current = ' aria-current="step"' if state == "running" else ""
        said = f'<span class="mf-sr">, {state}</span>' if state != "idle" else ""
        return (
            f'<li class="mf-stage mf-{state}" data-stage="{name}"{current}>'
            f'<i aria-hidden="true"></i>'
            f"<b>{name.capitalize()}</b>{said}<small>{escape(detail)}</small></li>"
        )
