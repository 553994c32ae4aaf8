"""What an export may lose before it fails, and the errors that say so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contract.edge import COREML_MODEL, INT8
from contract.errors import ExportFailed
from contract.manifest import ONNX
from edge.export.figures import grade
from edge.export.teacher import Answers


@dataclass(frozen=True)
class Tolerance:
    """What an export may lose before it fails."""

    student: float = 0.05
    """How much lower than the model's the student's R2 on held-out rows may be; of classes the accuracy."""
    int8: float = 0.02
    """How much lower the int8 file's may be than the student's."""
    float: float = 1e-4
    """How far float32 files may be from the student on any row: a share of the answers' standard deviation, or of a
    probability."""


DEFAULT = Tolerance()


@dataclass(frozen=True)
class Bounds:
    """The tolerance in the figures of one model."""

    student: float
    int8: float
    """Where nothing is made of the student, no int8 file is either."""
    float: float
    what: str

    @classmethod
    def of(
        cls, figures: Mapping[str, dict[str, Any]], told: Answers, rows: int, tolerance: Tolerance, *, is_class: bool
    ) -> Bounds:
        """Return what each may not go below, or, of floats, beyond. One of few rows more or less proves nothing of classes."""
        least = 1.001 / rows if is_class else -math.inf
        best = grade(figures["teacher"])
        taught = grade(figures["student"]) if "student" in figures else best
        spread = 1.0 if is_class else float(told.std()) or 1.0
        return cls(
            best - max(tolerance.student, least),
            taught - max(tolerance.int8, least),
            tolerance.float * spread,
            "accuracy" if is_class else "R2",
        )

    def check_student(self, figures: Mapping[str, dict[str, Any]]) -> None:
        """Raise ExportFailed where the student is too far below its teacher."""
        if "student" not in figures:
            return
        found, best = grade(figures["student"]), grade(figures["teacher"])
        if not found >= self.student:
            raise ExportFailed(
                f"The student's {self.what} on held-out rows is {found:.4f}, where at least {self.student:.4f} was expected: "
                f"the model's is {best:.4f}. It is too small for what this model says, or the rows are too few to tell; give "
                "--student-loss to take it all the same.",
                found=found,
                expected=self.student,
            )

    def check_file(self, name: str, entry: Mapping[str, Any]) -> None:
        """Raise ExportFailed where a file is too far from what it was made of."""
        found = grade(dict(entry))
        if name == INT8 and not found >= self.int8:
            raise ExportFailed(
                f"{name} has an {self.what} of {found:.4f} on held-out rows, where at least {self.int8:.4f} was expected: "
                "eight bits are too few for this model. Serve the float file, or give --int8-loss to take it all the same.",
                found=found,
                expected=self.int8,
            )
        off = entry["largest_difference" if name in {ONNX, COREML_MODEL} else "student_difference"]
        if name != INT8 and not off <= self.float:
            raise ExportFailed(
                f"{name} is {off:.3g} off what it was made of, where at most {self.float:.3g} was expected. Are the versions "
                "of the libraries those of requirements.lock?",
                found=off,
                expected=self.float,
            )
