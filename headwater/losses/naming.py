"""From the text of `--loss` to a loss: a constructor call, or a weighted sum of calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headwater.config.calls import build, read_sum
from headwater.errors import UsageError
from headwater.losses.custom import custom_loss, is_custom
from headwater.losses.mixture import Mix
from headwater.losses.reference_free import SFT
from headwater.losses.types import Loss, LossBase

OTHER_NAMES: Mapping[str, str] = {
    "sigmoid": "TRL's sigmoid is dpo(beta=0.1) here",
    "sigmoid_norm": 'TRL\'s sigmoid_norm is --loss "dpo(beta=0.1)" --weights "mean()" here',
    "cdpo": "conservative DPO is dpo(label_smoothing=0.1) here",
    "kto_pair": "kto takes pairs and labelled rows here",
    "aot_pair": "the losses are aot and aot_unpaired here; TRL called the latter aot_pair before 0.29",
    "apo_zero_unpaired": "apo_zero takes pairs; for labelled rows there is kto",
    "ld_dpo": 'LD-DPO is --loss "dpo()" --weights "tail(alpha=0.5)" here',
    "sft": "headwater train-sft trains by it; as a part, write mix(dpo()*0.8 + sft()*0.2)",
}
"""Names of losses elsewhere, most of them TRL's, and what to write here."""


def loss_of(text: str, losses: Mapping[str, Callable[..., Loss]]) -> Any:
    """Return the loss that a text names, of those that a command offers: `dpo(beta=0.1)`, `mix(dpo()*0.8 + sft()*0.2)`.

    Only a command for policies, which offers `dpo`, mixes. `module:name` is a callable of the user (`custom.py`), for
    policies, and for reward models, which have no reference. Errors: `UsageError`.
    """
    if is_custom(text):
        if not {"dpo", "bradley_terry"} & set(losses):
            raise UsageError(
                f"--loss {text}", "this training takes no loss of one's own", f"one of {', '.join(losses)}"
            )
        return custom_loss(text, has_reference="dpo" in losses)
    if not text.strip().startswith("mix(") or "dpo" not in losses:
        return build(text, losses, "loss", OTHER_NAMES)
    terms = []
    for call, weight in read_sum(text, "loss"):
        if call.startswith("mix("):
            raise UsageError(text, "has a mixture in a mixture", "add its losses to the one sum")
        loss = build(call, {**losses, SFT.name: SFT}, "loss", OTHER_NAMES)
        if not isinstance(loss, LossBase) or loss.needs & {"divergence", "kl_estimate"}:
            raise UsageError(text, f"{call} evaluates the reference in every step", "use it alone, or another one")
        terms.append((loss, weight))
    return Mix(tuple(terms))
