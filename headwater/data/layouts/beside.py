"""What stands beside the texts of many rows (ids, sources, scores), as far as it can be read from columns."""

from __future__ import annotations

from typing import Any

import pyarrow
import pyarrow.compute as pc

from headwater.data.layouts.pairs import BESIDE_THE_TEXTS, SIDES

NAMES = ("id", "source")


def column_of(batch: Any, name: str) -> Any:
    """Return a column, or None."""
    place = batch.schema.get_field_index(name)
    return batch.column(place) if place >= 0 else None


def beside_of(batch: Any) -> tuple[Any, bool] | None:
    """Return what stands beside the texts, and whether that may be wrong; None for what only rows can say."""
    system = column_of(batch, "system")
    if system is not None and system.null_count < len(system):
        return None
    found = {name: column_of(batch, name) for name in (*NAMES, *BESIDE_THE_TEXTS)}
    held = {
        name: column if name in NAMES else _scores_alone(column) for name, column in found.items() if column is not None
    }
    held = {name: column for name, column in held.items() if column is not None}
    if not all(held[name].type in _WRITTEN_ALIKE for name in NAMES if name in held):
        return None
    if not held:
        return None, False
    unchecked = not all(_is_harmless(name, column) for name, column in held.items() if name not in NAMES)
    return pyarrow.RecordBatch.from_pydict(held), unchecked


TEXT = (pyarrow.string(), pyarrow.large_string())
_WRITTEN_ALIKE = (*TEXT, pyarrow.int64(), pyarrow.bool_(), pyarrow.null())
"""Types whose values are written alike by Arrow and by JSON; numbers with a point are not."""


def _scores_alone(column: Any) -> Any:
    """Return of objects (`metadata`) only the scores, which may be all that is small in them; None without any."""
    if not isinstance(column.type, pyarrow.StructType):
        return column
    names = [f"score_{side}" for side in SIDES if column.type.get_field_index(f"score_{side}") >= 0]
    return pyarrow.StructArray.from_arrays([pc.struct_field(column, name) for name in names], names) if names else None


def _is_harmless(name: str, column: Any) -> bool:
    """Say whether a column surely holds what its name promises: no rating, which may be equal to another."""
    if "rating" in name:
        return False
    if isinstance(column.type, pyarrow.StructType):
        return all(_is_harmless("score", pc.struct_field(column, [place])) for place in range(column.type.num_fields))
    if name.endswith("complete"):
        return column.type in (pyarrow.null(), pyarrow.bool_())
    if column.type == pyarrow.float64():
        return pc.all(pc.is_finite(column)).as_py() is not False
    return column.type in (pyarrow.null(), pyarrow.int64())
