"""Where the declared columns stand in a file's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contract.declaration import Declaration
from contract.errors import SchemaMismatch
from training.columns import Declared, declared_columns


@dataclass(frozen=True)
class Layout:
    """The positions of the declared columns."""

    width: int
    positions: Sequence[int]
    """Of each declared column, features first and then the target."""
    declared: Sequence[Declared]
    has_header: bool

    @classmethod
    def from_header(cls, cells: Sequence[str], declaration: Declaration, file: str) -> Layout:
        """Return the layout that a header tells.

        Raises:
            SchemaMismatch: a declared column is missing, or stands there twice.
        """
        declared = declared_columns(declaration)
        names = [column.name for column in declared]
        missing = [name for name in names if name not in cells]
        doubled = sorted({name for name in names if cells.count(name) > 1})
        if missing or doubled:
            what = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(doubled)} twice"
            raise SchemaMismatch(
                f"{file} {what}. Its header is: {', '.join(cells[:30])}. Expected, in any order: {', '.join(names)}.",
                missing=missing,
                doubled=doubled,
            )
        return cls(len(cells), [cells.index(name) for name in names], declared, True)

    @classmethod
    def without_header(cls, declaration: Declaration) -> Layout:
        """Return the layout of files without a header: the target, then the features in the declared order."""
        count = len(declaration.features)
        return cls(count + 1, [*range(1, count + 1), 0], declared_columns(declaration), False)
