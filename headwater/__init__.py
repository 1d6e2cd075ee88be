"""headwater: align language models from the part of preference data that carries the signal.

The Python interface has a function for every command, which takes the command's options as keyword arguments, raises
`headwater.errors.HeadwaterError` where the command line exits, and returns the finished run as a `Result`:

    import headwater as hw

    pairs = hw.load("pairs.jsonl")                                   # Pairs: a sequence, shown as a table in notebooks
    train, held_out = pairs.split(0.1)
    dpo = hw.train_dpo(train.truncate("40%"), "Qwen/Qwen2.5-0.5B-Instruct", loss=hw.losses.DPO(beta=0.1))
    dpo.figures["loss"]                                              # an Altair chart
    hw.evaluate(dpo, held_out).metrics["accuracy"]                   # Estimate(value=…, low=…, high=…, n=…, clusters=…)

A function is made when it is first asked for: `import headwater` imports nothing else, and no function imports torch
before it is called; `hw.losses` does.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

__all__ = [
    "Pairs",
    "Result",
    "Table",
    "compare",
    "decode",
    "divergence",
    "download_models",
    "evaluate",
    "frontier",
    "generate",
    "inspect",
    "judge",
    "lens",
    "load",
    "load_run",
    "losses",
    "preprocess",
    "report",
    "reward_bench",
    "sample",
    "score",
    "select",
    "signal",
    "sweep",
    "train_dpo",
    "train_reward",
    "train_sft",
]


def __getattr__(name: str) -> Any:
    """Return a part of the Python interface."""
    if name not in __all__:
        raise AttributeError(f"module 'headwater' has no attribute {name!r}")
    from importlib import import_module

    if name == "losses":
        return import_module("headwater.losses")
    interface = import_module("headwater.interface")
    made = name in interface.FUNCTIONS
    found = globals()[name] = interface.function(name) if made else getattr(interface, name)
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
