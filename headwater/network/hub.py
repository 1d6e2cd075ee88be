"""Small files of models on the Hugging Face hub, and advice for errors of the hub."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from headwater.errors import HeadwaterError, ModelError, NetworkError, first_line

OFFLINE = "unset HF_HUB_OFFLINE (and TRANSFORMERS_OFFLINE), or download it where there is a network: hf download NAME"
BUSY = "repeat the command later; set HF_TOKEN for a higher limit"


def files_of(name: str, wanted: Collection[str]) -> Iterator[Path]:
    """Yield those of the `wanted` files that the repository `name` has, downloaded or from the cache.

    Errors: `ModelError` for an invalid name; `NetworkError` for a repository that cannot be reached or does not exist.
    """
    import huggingface_hub

    try:
        huggingface_hub.utils.validate_repo_id(name)  # type: ignore[attr-defined]
    except huggingface_hub.errors.HFValidationError as error:
        fix = "name a training run, a path, or a model of the hub as OWNER/NAME"
        raise ModelError(name, "is no folder here, and no name of the hub's", fix) from error
    there, cached = _listed(name)
    found = 0
    for file in sorted(set(wanted) & there if there is not None else wanted):
        try:
            path = huggingface_hub.hf_hub_download(name, file, local_files_only=cached)
        except huggingface_hub.errors.EntryNotFoundError:  # not in the repository, or not in the cache
            continue
        except Exception as error:
            raise problem(name, error) from error
        found += 1
        yield Path(path)
    if not found:
        raise problem(name, huggingface_hub.errors.LocalEntryNotFoundError("nothing of it is in the cache"))


def file_of(name: str, file: str) -> Path:
    """Return a file of the repository `name`, downloaded or from the cache. Errors: `NetworkError`."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(name, file))
    except Exception as error:
        raise problem(f"{name}/{file}", error) from error


def _listed(name: str) -> tuple[set[str] | None, bool]:
    """Return the names of a repository's files, or None; and whether only the cache is left to search."""
    import huggingface_hub

    try:
        return set(huggingface_hub.list_repo_files(name)), False
    except Exception as error:
        if _answered(error):
            raise problem(name, error) from error
        return None, True


def _answered(error: Exception) -> bool:
    """Return whether the hub itself answered; otherwise it was not reached, and the cache may have the model."""
    return _status(error) is not None


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def problem(name: str, error: BaseException) -> HeadwaterError:
    """Return the error for a `name` that the hub does not deliver: what happened, and which setting helps."""
    found, fix = _explained(name, error)
    return NetworkError(name, found, fix)


def advice(name: str, error: BaseException) -> str:
    """Return which setting or action helps after `error` of the hub for `name`."""
    return _explained(name, error)[1]


def _explained(name: str, error: BaseException) -> tuple[str, str]:
    from huggingface_hub import constants, errors

    status = _status(error)
    if isinstance(error, errors.GatedRepoError):
        return "is gated", f"ask for access at https://huggingface.co/{name}, then set HF_TOKEN or run hf auth login"
    if isinstance(error, errors.RevisionNotFoundError):
        return "has no such revision", "name a branch, tag or commit of the repository"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403, 404):
        fix = "check the name; for a private one set HF_TOKEN or run hf auth login"
        return f"is no folder here, and the hub does not show it (HTTP {status})", fix
    if status == 429:
        return "cannot be had: the hub asks to wait (HTTP 429)", BUSY
    if status is not None:
        return f"cannot be had: the hub answers HTTP {status}", "repeat the command later"
    if constants.is_offline_mode():
        return "is no folder here and not in the cache, and HF_HUB_OFFLINE is set", OFFLINE
    fix = "check the network (HF_ENDPOINT, HTTPS_PROXY); set HF_HUB_OFFLINE=1 to use the cache alone"
    return f"is no folder here and not in the cache, and the hub is not reached: {first_line(error)}", fix
