"""A figure: ours beside the peer's, measured in one run, with what it should reach."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """Measurements of one thing; median with the spread around it."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.median:.3g} ({min(self.values):.3g}–{max(self.values):.3g})"


@dataclass(frozen=True)
class Row:
    """target_ratio: ours/peer at most (at_least: at least); target: ours at most (at_least: ours at least)."""

    name: str
    unit: str
    ours: Sample
    peer_name: str = ""
    peer: Sample | None = None
    target_ratio: float | None = None
    target: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.ours.median / self.peer.median if self.peer else None

    @property
    def reached(self) -> bool | None:
        """None when there is nothing to compare with."""
        if self.target is not None:
            return self.ours.median >= self.target if self.at_least else self.ours.median <= self.target
        if self.target_ratio is not None and self.ratio is not None:
            return self.ratio >= self.target_ratio if self.at_least else self.ratio <= self.target_ratio
        return None

    def wanted(self) -> str:
        if self.target is not None:
            return f"{'≥' if self.at_least else '≤'} {self.target:g} {self.unit}"
        if self.target_ratio is None:
            return ""
        return f"{'≥' if self.at_least else '≤'} {self.target_ratio:.3g} × {self.peer_name or 'peer'}"


@dataclass
class Table:
    rows: list[Row] = field(default_factory=list)

    def text(self) -> str:
        heads = ("figure", "unit", "ours", "peer", "ratio", "target", "reached", "n")
        lines = [heads]
        for row in self.rows:
            peer = f"{row.peer_name} {row.peer}" if row.peer else "–"
            ratio = f"{row.ratio:.2f}" if row.ratio is not None else "–"
            reached = {True: "yes", False: "NO", None: "–"}[row.reached]
            cells = (row.name, row.unit, str(row.ours), peer, ratio, row.wanted(), reached, str(len(row.ours.values)))
            lines.append(cells)
        widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    def write(self, path: Path) -> None:
        rows = [
            {**asdict(row), "ratio": row.ratio, "reached": row.reached, "n": len(row.ours.values)} for row in self.rows
        ]
        path.write_text(json.dumps(rows, indent=2))
