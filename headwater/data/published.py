"""Read published curves, to be drawn beside measured ones: a JSON object of names and points [[x, y], …]."""

from __future__ import annotations

import json
from pathlib import Path

from headwater.errors import UsageError, did_you_mean


def published_points(text: str) -> list[tuple[float, float]]:
    """Read the points of `--published FILE.json:NAME`, or FILE.json for a file of one curve, by x.

    Errors: `UsageError`.
    """
    flag = f"--published {text}"
    file, _, name = (text, "", "") if text.endswith(".json") else text.rpartition(":")
    try:
        curves = json.loads(Path(file).read_text(encoding="utf-8"))
        return sorted((float(x), float(y)) for x, y in (curves[name] if name else curves))
    except OSError as error:
        raise UsageError(flag, error.strerror or "cannot be read", "write FILE.json:NAME") from error
    except KeyError as error:
        raise UsageError(flag, f"{file} holds no {name}", did_you_mean(name, curves)) from error
    except (ValueError, TypeError) as error:
        raise UsageError(flag, "is no curve", "expected a JSON object of names and [[x, y], …]") from error
