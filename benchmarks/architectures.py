"""Every text architecture of transformers: the row format it is read in, and the error of its values.

    python -m benchmarks.architectures [NAME ...] [--output docs/architectures.md]

A tiny model with large random weights is built from the configuration of every family of causal language models and
sequence classifiers. Texts are read in the row format that the start-up check selects, and compared with one
forward pass a text, without padding: token by token, in passes of 64 and of 8192 tokens, and in reversed order.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.models.auto import modeling_auto as auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from benchmarks.architecture_configs import NOT_SMALL, SETTINGS, SIZES, VARIANTS
from headwater.data.tokens import PairTokens
from headwater.errors import HeadwaterError, first_line
from headwater.forward.attention import is_encoder
from headwater.forward.format_check import row_format_for
from headwater.forward.hidden_states import forget_longer_texts
from headwater.forward.passes import token_values
from headwater.forward.scores import kind_of

POLICY, REWARD = "causal", "sequence classification"
NAMES = {POLICY: auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, REWARD: auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES}
ROOMS = (64, 8192)
LARGEST = 3 * 10**7
"""Parameters; what is larger has parts that the common sizes do not reach (vision, audio)."""
LENGTHS = ((9, 30, 12), (3, 2, 5), (20, 25, 50), (1, 4, 9), (14, 3, 3), (6, 11, 20))
"""Tokens of prompt, chosen and rejected: the longest is beyond every window and trained length below 64."""


@dataclass(frozen=True)
class Row:
    """What was found for one family."""

    name: str
    kind: str
    model: str
    row_format: str
    """Or "refused", or "not built"."""
    error: float | None
    """Largest difference of a token's value from that of its text alone, relative to max(1, |value|) or the spread."""
    company: float | None
    """Largest difference between passes of 64 and of 8192 tokens, and the other order."""
    seconds: float
    reason: str


def made(name: str, kind: str) -> Any:
    """Build a tiny model. Errors: whatever transformers raises for a configuration that it cannot build."""
    family, more = VARIANTS.get(name, (name, {}))
    settings = {**SETTINGS.get(family, {}), **more}
    cls = CONFIG_MAPPING[family]
    if settings.pop("only", False):
        config = cls(**settings)
    else:
        known = cls()
        sizes = {key: value for key, value in SIZES.items() if _has(known, key)}
        config = cls(**{key: value for key, value in {**sizes, **settings}.items() if value is not None})
    torch.manual_seed(0)
    if kind == REWARD:
        config.num_labels = 1
        return transformers.AutoModelForSequenceClassification.from_config(config)
    if _has(config, "is_decoder"):
        config.is_decoder = True
    return transformers.AutoModelForCausalLM.from_config(config)


def _has(config: Any, name: str) -> bool:
    try:
        return hasattr(config, name)
    except Exception:  # some configurations refuse to be asked
        return False


def texts(model: Any) -> list[PairTokens]:
    """Return pairs of random tokens; they end with a model's end token, which some classifiers look for."""
    rng = np.random.default_rng(1)
    config = model.config.get_text_config()
    end = [config.eos_token_id] if isinstance(getattr(config, "eos_token_id", None), int) else []

    def draw(size: int, end: Sequence[int] = ()) -> np.ndarray[Any, Any]:
        return np.asarray([*rng.integers(8, 150, size - len(end)), *end], dtype=np.int32)

    return [
        PairTokens(draw(prompt), draw(chosen, end), draw(rejected, end), id=str(place), source="", conversation_id="")
        for place, (prompt, chosen, rejected) in enumerate(LENGTHS)
    ]


def alone(model: Any, pairs: Sequence[PairTokens]) -> np.ndarray[Any, Any]:
    """Return the values of plain forwards of single texts: of every token, or of the last one for a reward model."""
    found = []
    for pair in pairs:
        for side in (pair.chosen, pair.rejected):
            row = torch.tensor([[*pair.prompt, *side]])
            forget_longer_texts(model)
            logits = model(input_ids=row, attention_mask=torch.ones_like(row)).logits.double()
            if _is_policy(model):
                logits = (
                    logits[0, len(pair.prompt) - 1 : -1].log_softmax(-1).gather(1, row[0, len(pair.prompt) :, None])
                )
            found.append(logits[:, 0])
    return torch.cat(found).numpy()


def read(model: Any, pairs: Sequence[PairTokens], max_tokens: int) -> np.ndarray[Any, Any]:
    """Return the same values as headwater reads them."""
    values = token_values(
        model, kind_of(model).token_values, pairs, max_tokens, row_format_for(model, pairs, max_tokens), "texts"
    )
    sides = [side for value in values for side in (value.chosen, value.rejected)]
    return np.concatenate(sides if _is_policy(model) else [side[-1:] for side in sides]).astype(float)


def examined(name: str, kind: str) -> Row:
    """Build one family, read texts, and compare."""
    began, title = time.perf_counter(), ""
    try:
        with torch.device("meta"):
            size = sum(each.numel() for each in made(name, kind).parameters())
        if size > LARGEST:
            return Row(name, kind, "", "not built", None, None, 0, f"{size / 1e6:.0f} M parameters at the sizes given")
        model = made(name, kind).eval()
        title = type(model).__name__
        pairs = texts(model)
        with torch.no_grad():
            expected = alone(_wide(model), pairs)
    except Exception as error:
        return Row(name, kind, title, "not built", None, None, time.perf_counter() - began, first_line(error)[:160])
    try:
        found = [read(model, pairs, max_tokens) for max_tokens in ROOMS]
        turned = pairs[::-1]
        places = np.concatenate([np.full(_size(model, pair), place) for place, pair in enumerate(turned)])
        back = read(model, turned, ROOMS[0])
        found.append(np.concatenate([back[places == place] for place in reversed(range(len(turned)))]))
        row_format = row_format_for(model, pairs)
    except HeadwaterError as error:
        return Row(name, kind, title, "refused", None, None, time.perf_counter() - began, str(error).split(" · ")[1])
    except Exception as error:  # a bug of ours, which the table shall show
        problem = f"{type(error).__name__}: {first_line(error)}"
        return Row(name, kind, title, "failed", None, None, time.perf_counter() - began, problem)
    scale = np.maximum(1, abs(expected)) if _is_policy(model) else expected.std()
    error = max(float((abs(each - expected) / scale).max()) for each in found)
    company = max(float((abs(each - found[0]) / scale).max()) for each in found[1:])
    return Row(name, kind, title, row_format, error, company, time.perf_counter() - began, _reason(model, row_format))


def _is_policy(model: Any) -> bool:
    return kind_of(model).values == "log-probabilities"


def _size(model: Any, pair: PairTokens) -> int:
    return len(pair.chosen) + len(pair.rejected) if _is_policy(model) else 2


def _wide(model: Any) -> Any:
    """Return a copy in float64 where its forward can be computed in it, else the model."""
    wide = copy.deepcopy(model).double()
    try:
        row = torch.tensor([[9, 10, 11, *([model.config.eos_token_id] if is_encoder(model) else [])]])
        wide(input_ids=row)
    except Exception:
        return model
    return wide


def _reason(model: Any, row_format: str) -> str:
    problems = vars(model)["_headwater_checked"].problems
    if is_encoder(model) and row_format == "padded":
        return "an encoder: its tokens see all of their row"
    return "; ".join(f"{each}: {problem}" for (each, _), problem in problems.items() if problem)


def families() -> Iterator[tuple[str, str]]:
    """Yield every family with its kind, and the variants."""
    for kind, names in NAMES.items():
        yield from (
            (name, kind) for name in sorted({*names, *VARIANTS}) if name not in NOT_SMALL and _of(name) in names
        )


def _of(name: str) -> str:
    return VARIANTS.get(name, (name, {}))[0]


def page(rows: Sequence[Row]) -> str:
    """Return the table as Markdown."""
    built = [row for row in rows if row.row_format != "not built"]
    counts = {row_format: sum(row.row_format == row_format for row in built) for row_format in
              ("shared", "packed", "padded", "single", "refused", "failed")}  # fmt: skip
    lines = [
        "# Architectures",
        "",
        f"Made by `make architectures` with transformers {transformers.__version__} and torch {torch.__version__}.",
        "",
        *__doc__.strip().split("\n\n")[-1].splitlines(),
        "The error is the largest of any token, relative to max(1, |log-probability|) or to the spread of rewards,",
        "against float64 where the model can be computed in it. *Company* is the largest difference between passes of",
        "64 and of 8192 tokens and the reversed order. *shared*: a prompt and the common prefix of both responses are",
        "read once; *packed*: texts one after another in one row; *padded*: a row each; *single*: a forward pass each.",
        "",
        f"{len(built)} models of {len({_of(row.name) for row in built})} families: "
        + ", ".join(f"{count} {row_format}" for row_format, count in counts.items()) + ".",
        "",
        "| family | model | rows | error | company | reason |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in built:
        numbers = f"{_number(row.error)} | {_number(row.company)}"
        lines.append(f"| {row.name} | {row.model} | {row.row_format} | {numbers} | {_cell(row.reason)} |")
    left = [row for row in rows if row.row_format == "not built"]
    lines += ["", "Not built from a small configuration:", ""]
    lines += [f"- {row.name} ({row.kind}): {_cell(row.reason)}" for row in left]
    lines += [f"- {name}: {reason}" for name, reason in NOT_SMALL.items()]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0e}" if np.isfinite(value) else "not finite"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


def main() -> None:
    """Examine the families that are named, or all, and write the table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rows", type=Path, help="keep what was found here, and go on from it")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    known = options.rows.read_text().splitlines() if options.rows and options.rows.exists() else []
    rows = {(row.name, row.kind): row for row in (Row(**json.loads(line)) for line in known)}
    for name, kind in families():
        if (options.names and name not in options.names) or (name, kind) in rows:
            continue
        row = rows[name, kind] = examined(name, kind)
        print(
            f"{row.name:24} {row.kind:24} {row.row_format:9} "
            f"{_number(row.error):6} {_number(row.company):6} {row.reason}"
        )
        if options.rows:
            with options.rows.open("a") as handle:
                handle.write(json.dumps(asdict(row)) + "\n")
    if options.output:
        options.output.write_text(page(list(rows.values())), encoding="utf-8")


if __name__ == "__main__":
    main()
