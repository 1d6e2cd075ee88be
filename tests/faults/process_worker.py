"""One process of two that train; the second one hangs or dies after three optimizer steps."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from headwater import cli
from headwater.training import trainer

step_as_is = trainer.PairTrainer.training_step


def broken(self: Any, *others: Any, **named: Any) -> Any:
    """Take the step, unless this is the process whose turn it is to fail."""
    if self.state.global_step == 3 and os.environ["RANK"] == "1":
        if os.environ["FAULT"] == "dies":
            os._exit(9)
        time.sleep(1000)
    return step_as_is(self, *others, **named)


if __name__ == "__main__":
    trainer.PairTrainer.training_step = broken  # type: ignore[method-assign]
    sys.exit(cli.main(sys.argv[1:]))
