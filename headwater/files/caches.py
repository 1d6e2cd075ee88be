"""Location of the cache."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Return the cache folder, whose contents can be recomputed: $HEADWATER_CACHE, or ~/.cache/headwater."""
    named = os.environ.get("HEADWATER_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "headwater"
