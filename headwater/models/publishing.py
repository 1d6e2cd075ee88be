"""Upload the model of a finished run to the Hugging Face hub, without any of its training data."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub

from headwater.console import say
from headwater.errors import NetworkError, UsageError, first_line
from headwater.network import hub

MODEL_FILES = (
    "README.md",
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab*",
    "merges.txt",
    "*.jinja",
    "adapter/*",
)
"""Files to upload. A run directory also holds texts and row counts, which are not uploaded."""


def check(repository: str) -> None:
    """Refuse, before training, a name that the hub would refuse. Errors: `UsageError`."""
    try:
        huggingface_hub.utils.validate_repo_id(repository)  # type: ignore[attr-defined]
    except huggingface_hub.errors.HFValidationError as error:
        raise UsageError(f"--push-to-hub {repository}", first_line(error), "name it OWNER/NAME") from error


def push(run: Path, repository: str) -> None:
    """Upload the model of a run; a missing repository is created as a private one.

    The token is that of `hf auth login`, or `$HF_TOKEN`. Errors: `NetworkError`; the run stays finished.
    """
    try:
        huggingface_hub.create_repo(repository, private=True, exist_ok=True)
        huggingface_hub.upload_folder(
            repo_id=repository, folder_path=run, allow_patterns=list(MODEL_FILES), ignore_patterns=["reference/*"]
        )
    except (OSError, huggingface_hub.errors.HfHubHTTPError) as error:
        fix = f"the model is in {run}; {hub.advice(repository, error)}"
        raise NetworkError(f"--push-to-hub {repository}", first_line(error), fix) from error
    say(f"pushed: https://huggingface.co/{repository}")
