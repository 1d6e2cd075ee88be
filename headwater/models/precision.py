"""Choose the training precision: bf16 where the device computes it natively and no slower than fp32.

Processors differ widely: with AMX a bf16 matrix product is many times as fast as in fp32; where AVX-512 has bf16 and
AMX is missing, it can take twice as long. A CPU is therefore measured, in less than a tenth of a second.
"""

from __future__ import annotations

import functools
import os
import time
from typing import Literal

import torch

from headwater.errors import UsageError

Precision = Literal["fp32", "bf16"]

_SHAPE = (512, 512, 512)
"""Shape of the timed matrix products, that of a small model."""
_TRIES = 12


def resolve(asked: str) -> Precision:
    """Return the precision that `auto` selects on this device, or the given one.

    Processes that train together must agree, so several processes take bf16 wherever it is native. Errors: `UsageError`
    when bf16 is given and the device lacks it.
    """
    if asked == "fp32":
        return "fp32"
    native = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
    if asked == "bf16" and not native:
        raise UsageError("--precision bf16", "this device does not compute bf16 natively", "use --precision fp32")
    if not native:
        return "fp32"
    alone = not torch.cuda.is_available() and int(os.environ.get("WORLD_SIZE", "1")) == 1
    return "fp32" if asked == "auto" and alone and bf16_gain() < 1 else "bf16"


@functools.cache
def bf16_gain() -> float:
    """Return the speed-up of bf16 over fp32 matrix products on one core of this CPU: the best of several tries.

    One core, since the load on other cores would otherwise decide the result.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = _best_times(torch.float32, torch.bfloat16)
    finally:
        torch.set_num_threads(threads)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _best_times(*dtypes: torch.dtype) -> dict[torch.dtype, float]:
    """Time a product in each precision, alternately."""
    n, k, m = _SHAPE
    best = dict.fromkeys(dtypes, float("inf"))
    products = {dtype: tuple(torch.ones(*shape, dtype=dtype) for shape in ((n, k), (k, m), (n, m))) for dtype in dtypes}
    for _ in range(_TRIES):
        for dtype, (one, other, product) in products.items():
            began = time.perf_counter()
            torch.mm(one, other, out=product)
            best[dtype] = min(best[dtype], time.perf_counter() - began)
    return best
