"""Check this installation: packages, devices, packing, the hub, folders and disk, one line each.

The exit code is 7 if something does not work; its line says what to do.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from headwater import masking
from headwater.console import show_line
from headwater.errors import ResourceError, first_line
from headwater.files import caches

EXAMPLE = "headwater doctor --output runs"
MISSING = "not installed"
ROOM = 5 * 2**30
"""Bytes of free disk space below which doctor warns."""


class Finding(NamedTuple):
    """Result of one check."""

    name: str
    works: bool | None
    """None: it works, with a limitation."""
    message: str


HELP = {"Output": ("output",)}


@dataclass(frozen=True)
class Config:
    """Flags of `headwater doctor`."""

    output: Path | None = None
    """Directory in which runs are to be written, whose disk is checked. Default: the working directory."""


def run(config: Config) -> None:
    """Print a line for every check. Errors: `ResourceError` if something does not work."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("installation", _installation),
        ("devices", _devices),
        ("packing", _packing),
        ("hub", _hub),
        ("cache", _cache),
        ("disk", lambda: _disk(config.output or Path())),
    ]
    findings = [found for name, check in checks for found in _shown(name, check)]
    if broken := [found.name for found in findings if found.works is False]:
        raise ResourceError("doctor", f"does not work: {', '.join(broken)}", "see the lines above")


def _shown(name: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Print and return the results of a check; an error of the check is a result too."""
    try:
        found = list(check())
    except Exception as error:
        found = [Finding(name, False, f"{type(error).__name__}: {first_line(error)}")]
    for each in found:
        mark = {True: "ok  ", None: "note", False: "FAIL"}[each.works]
        show_line(masking.mask(f"{mark} {each.name:13} {each.message}"))
    return found


def _installation() -> Iterator[Finding]:
    lines = importlib.metadata.requires("headwater") if _version("headwater") != MISSING else None
    required = [Requirement(line) for line in lines or ()]
    needed = [each.name for each in required if each.marker is None or each.marker.evaluate({"extra": ""})]
    missing = [name for name in needed if _version(name) == MISSING]
    about = f"headwater {_version('headwater')}, Python {platform.python_version()}, {platform.system()}"
    yield Finding("installation", not missing, about + (f"; missing: {', '.join(missing)}" if missing else ""))
    named = ("torch", "transformers", "tokenizers", "peft", "datasets")
    yield Finding("packages", True, ", ".join(f"{name} {_version(name)}" for name in named))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return MISSING


def _devices() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
            yield Finding("device", True, f"{about.name}, {about.total_memory / 2**30:.0f} GiB, fp32 and {bf16}")
    else:
        yield Finding("device", None, f"CPU alone, {os.cpu_count()} cores, {torch.get_num_threads()} threads for torch")
    for dtype in (torch.float32, torch.bfloat16):
        ones = torch.ones(8, 8, dtype=dtype, device="cuda" if torch.cuda.is_available() else "cpu")
        works = bool((ones @ ones == 8).all())
        yield Finding("dtype", works, f"{str(dtype).removeprefix('torch.')} on {ones.device.type}")


def _packing() -> Iterator[Finding]:
    """Compare packed rows with separate ones, on a scratch model."""
    from headwater.data.corpus import Corpus, generate
    from headwater.data.tokens import tokenize
    from headwater.forward.format_check import row_format_for
    from headwater.models import loading

    records = generate(Corpus(pairs=4, seed=0))
    model, tokenizer = loading.load("scratch(hidden=32, layers=1, vocab=400)", "policy", records, 0)
    pairs = tokenize(records, tokenizer, 512)[0]
    row_format = row_format_for(model, pairs)
    said = f"rows of a pair are {row_format}, with the log-probabilities of separate ones"
    yield Finding("packing", True if row_format == "shared" else None, said)


def _hub() -> Iterator[Finding]:
    import huggingface_hub

    if huggingface_hub.constants.is_offline_mode():
        yield Finding("hub", None, "HF_HUB_OFFLINE is set: models come from the cache alone")
        return
    try:
        token = huggingface_hub.get_token()
        huggingface_hub.HfApi().whoami() if token else huggingface_hub.auth_check("gpt2")
        yield Finding("hub", True, f"is reached, {'with' if token else 'without'} a token")
    except Exception as error:
        fix = "local models work; set HF_ENDPOINT or HTTPS_PROXY for another way, HF_TOKEN for a token"
        yield Finding("hub", None, f"is not reached: {first_line(error)} · {fix}")


def _cache() -> Iterator[Finding]:
    home = caches.home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=home).close()
        yield Finding("cache", True, f"{home} can be written")
    except OSError as error:
        yield Finding("cache", False, f"{home}: {error.strerror} · set HEADWATER_CACHE to a folder that can be written")


def _disk(output: Path) -> Iterator[Finding]:
    place = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    yield Finding("disk", None if free < ROOM else True, f"{free / 2**30:.1f} GiB are free at {place}")
