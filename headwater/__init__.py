"""headwater: align language models from the part of preference data that carries the signal.

The Python interface has a function for every command, which takes the command's options as keyword arguments, raises
`headwater.errors.HeadwaterError` where the command line exits, and returns the finished run:

    import headwater

    pairs = headwater.load_pairs("pairs.jsonl")
    run = headwater.train_dpo("pairs.jsonl", output="runs/dpo", model="Qwen/Qwen2.5-0.5B-Instruct", learning_rate=1e-6)
    accuracy = headwater.evaluate(run.path, "heldout.jsonl").metrics["accuracy"]

A function is made when it is first asked for: `import headwater` imports nothing else, and no function imports torch
before it is called.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

__all__ = [
    "compare",
    "decode",
    "download_models",
    "evaluate",
    "frontier",
    "generate",
    "inspect_data",
    "judge",
    "load_pairs",
    "load_run",
    "measure_divergence",
    "measure_signal",
    "preprocess",
    "reward_bench",
    "sample",
    "score",
    "select",
    "sweep",
    "train_dpo",
    "train_reward",
    "train_sft",
    "write_lens",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Return a function of the Python interface."""
    if name not in __all__:
        raise AttributeError(f"module 'headwater' has no attribute {name!r}")
    from importlib import import_module

    interface = import_module("headwater.interface")
    found = globals()[name] = getattr(interface, name, None) or interface.function(name)
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
