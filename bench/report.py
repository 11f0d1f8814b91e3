# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmarks found, as rows of one table: ours, the rival's, their ratio, the goal."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """Measurements of one thing in one unit; what is said of it is their median and spread."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        if len(self.values) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return (high - low) / 2 / self.median

    def __str__(self) -> str:
        return f"{_three_digits(self.median)} {self.unit} ±{self.spread:.0%}"


@dataclass(frozen=True)
class Goal:
    """What the project promised itself, in words, and whether it came true this time."""

    text: str
    met: bool

    def and_also(self, other: Goal) -> Goal:
        """Both of them."""
        return Goal(f"{self.text}, {other.text}", self.met and other.met)


@dataclass(frozen=True)
class Row:
    """One comparison. rival: what theirs is of; goal: None for figures that only inform."""

    what: str
    ours: Sample
    rival: str
    theirs: Sample
    goal: Goal | None = None

    @property
    def ratio(self) -> float:
        """Ours to theirs: the median of all rounds, because a busy machine slows both of one."""
        rounds = zip(self.ours.values, self.theirs.values)
        return statistics.median(ours / theirs for ours, theirs in rounds)

    def with_goal(self, goal: Goal) -> Row:
        """The same, measured against a goal."""
        return dataclasses.replace(self, goal=goal)


def at_most(limit: float, value: float, text: str) -> Goal:
    """A goal for something of which less is better."""
    return Goal(f"≤ {text}", value <= limit)


def at_least(limit: float, value: float, text: str) -> Goal:
    """A goal for something of which more is better."""
    return Goal(f"≥ {text}", value >= limit)


def table(rows: Sequence[Row], machine: Machine) -> str:
    """The rows for a reader, in columns, and below them what they were measured on."""
    head = ("what", "ours", "rival", "", "ratio", "goal", "")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    goals = [row.goal for row in rows if row.goal]
    met = sum(goal.met for goal in goals)
    told = [f"{met} of {len(goals)} goals met."] if goals else []
    return "\n".join([*lines, "", *told, *machine.told()])


def to_json(rows: Sequence[Row], machine: Machine) -> str:
    """The rows with all their measurements, for scripts."""
    content = {"machine": dataclasses.asdict(machine), "rows": [_plain(row) for row in rows]}
    return json.dumps(content, indent=2)


@dataclass(frozen=True)
class Machine:
    """What is measured on. load: processes that wanted to run in the minute before it began."""

    cpu: str
    cores: int
    kernel: str
    python: str
    load: float

    @classmethod
    def here(cls) -> Machine:
        """This machine now."""
        return cls(
            cpu=_cpu_model(),
            cores=os.cpu_count() or 1,
            kernel=platform.release(),
            python=platform.python_version(),
            load=os.getloadavg()[0],
        )

    def told(self) -> list[str]:
        """The same in words, with a warning where it had something else to do."""
        words = [
            f"{self.cpu}, {self.cores} cores, Linux {self.kernel}, Python {self.python}, "
            f"load {self.load:.1f} before."
        ]
        if self.load > 0.75 * self.cores:
            words.append(
                "The machine was busy with something else: times and rates are worth little, "
                "ratios and memory a little more."
            )
        return words


def _cells(row: Row) -> tuple[str, ...]:
    goal, met = ("", "") if row.goal is None else (row.goal.text, _verdict(row.goal))
    return (row.what, str(row.ours), row.rival, str(row.theirs), f"{row.ratio:.2f}", goal, met)


def _verdict(goal: Goal) -> str:
    return "met" if goal.met else "NOT MET"


def _plain(row: Row) -> dict[str, Any]:
    return {
        "what": row.what,
        "unit": row.ours.unit,
        "ours": {"median": row.ours.median, "values": row.ours.values},
        "rival": {"name": row.rival, "median": row.theirs.median, "values": row.theirs.values},
        "ratio": row.ratio,
        "goal": None if row.goal is None else {"text": row.goal.text, "met": row.goal.met},
    }


def _three_digits(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cpu_model() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
