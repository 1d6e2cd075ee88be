"""Print what a bug report needs: versions, machine, devices and settings, without secrets."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from headwater import masking
from headwater.console import show_line
from headwater.files import caches

EXAMPLE = "headwater env > env.txt"
PACKAGES = (
    "headwater",
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "peft",
    "datasets",
    "safetensors",
    "numpy",
    "pyarrow",
    "jinja2",
    "httpx2",
    "huggingface_hub",
)
SETTINGS = ("HEADWATER_", "HF_", "TRANSFORMERS_", "CUDA_", "OMP_", "TORCH_", "PYTORCH_", "OPENAI_", "LANG", "LC_")
"""Prefixes of the environment variables that change what headwater does."""

HELP: dict[str, tuple[str, ...]] = {}


@dataclass(frozen=True)
class Config:
    """`headwater env` has no flags."""


def run(config: Config) -> None:
    """Print one line for every package, device and setting."""
    for name, value in _lines():
        show_line(masking.mask(f"{name}: {value}"))


def _lines() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield package, "not installed"
    yield "python", f"{platform.python_version()} ({sys.executable})"
    yield "system", f"{platform.platform()}, {os.cpu_count()} CPUs"
    yield "encoding", f"{sys.stdout.encoding}, files {sys.getfilesystemencoding()}"
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            yield f"gpu {index}", f"{about.name}, {about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    else:
        yield "gpu", "none"
    yield "cache", str(caches.home())
    for name in sorted(os.environ):
        if name.startswith(SETTINGS):
            yield name, masking.MASK if masking.names_secret(name) else os.environ[name]
