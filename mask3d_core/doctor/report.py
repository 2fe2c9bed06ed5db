"""What the doctor says: findings with a severity, words a person can act on, and the numbers behind them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

SEVERITIES = ("ok", "warn", "error")


def many(count: int, what: str) -> str:
    """ "1 frame", "2 frames", "2 classes"."""
    ending = "es" if what.endswith(("s", "x", "sh", "ch")) else "s"
    return f"{count} {what}{'' if count == 1 else ending}"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        check: what was looked at, in a word or two.
        severity: "ok", "warn" (usable, but look) or "error" (not usable like this).
        text: one or two sentences: what is, and what to do about it.
        numbers: what was measured, as plain JSON values.
    """

    check: str
    severity: str
    text: str
    numbers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        assert self.severity in SEVERITIES, self.severity


@dataclass(frozen=True)
class Report:
    """All findings about one thing.

    Args:
        what: what was examined.
        findings: in the order in which they were made.
    """

    what: str
    findings: tuple[Finding, ...]

    @property
    def severity(self) -> str:
        """The worst of all findings."""
        return max((f.severity for f in self.findings), key=SEVERITIES.index, default="ok")

    def of(self, check: str) -> list[Finding]:
        """The findings of one check."""
        return [f for f in self.findings if f.check == check]

    def text(self) -> str:
        """For a terminal: one line per finding, its severity first, and a last line that sums up."""
        lines = [self.what]
        width = max((len(f.check) for f in self.findings), default=0)
        lines += [f"  {f.severity:5}  {f.check:{width}}  {f.text}" for f in self.findings]
        counts = {severity: sum(f.severity == severity for f in self.findings) for severity in SEVERITIES}
        verdict = {"ok": "Nothing to mend.", "warn": "Usable; look at the warnings.", "error": "Mend the errors first."}
        lines.append(f"{many(counts['error'], 'error')}, {many(counts['warn'], 'warning')}. {verdict[self.severity]}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The same as indented JSON."""
        return json.dumps({"what": self.what, "severity": self.severity,
                           "findings": [asdict(f) for f in self.findings]}, indent=1)
