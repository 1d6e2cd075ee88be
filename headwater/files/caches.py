"""Where what can be made again lies."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Return the folder of all that can be made again: $HEADWATER_CACHE, or ~/.cache/headwater."""
    named = os.environ.get("HEADWATER_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "headwater"
