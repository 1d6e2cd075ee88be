"""Ten ratios of a prefix curve from one pass, against one padded forward pass a ratio.

    python benchmarks/prefix_curves.py                      # the built-in corpus
    python benchmarks/prefix_curves.py pairs.jsonl --pairs 24 --rounds 5

The padded way is what a script over `transformers` does: for every ratio, prompt and cut response of every pair in
right-padded batches of 8 pairs (16 rows), through the model's own attention, rewards read at the last token. One pass
is what `headwater signal` does: packed rows, prompts once a pair, every token read. Both give ten accuracies of the
same pairs; the largest difference of a reward is printed. The model is a Qwen2 with random weights, in fp32 and in
bf16; rounds are alternated, and the first one is a warm-up. Figures are pairs a second, and their ratio in the same
round: minimum, median and maximum. Seconds are of processor time, so that other work on the machine counts little; with
OMP_NUM_THREADS=1 they are what an idle core would take.

Before them stands what counting alone predicts: how many times the tokens, and the floating-point operations of matrix
products and attention (masked squares included, as they are computed), the padded way takes. What a figure is above or
below that is how well the machine runs either shape, and the bf16 one how much faster its bf16 is.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.tokenizers import ScratchTokenizer, texts_of
from headwater.data.tokens import PairTokens, tokenize
from headwater.data.truncation import Keep, Truncation
from headwater.forward.attention import TREES, attend_with
from headwater.forward.format_check import row_format_for
from headwater.forward.packing import tokens_of
from headwater.forward.passes import token_values
from headwater.forward.scores import token_rewards
from headwater.signals.prefix_scorers import kept_of, reward_prefix_scorer
from headwater.statistics import Floats

RATIOS = tuple(Fraction(n, 10) for n in range(1, 11))
BATCH = 8
ROOM = 8192
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
WAYS = ("padded", "one pass")


def model_of(vocab: int, dtype: torch.dtype) -> Any:
    """Return a reward model of 25 M parameters and its embeddings."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=vocab,
        hidden_size=512,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        intermediate_size=1376,
        max_position_embeddings=4096,
        pad_token_id=0,
        num_labels=1,
    )
    return transformers.AutoModelForSequenceClassification.from_config(config).to(dtype).eval()


def one_pass(model: Any, pairs: Sequence[PairTokens], row_format: Any) -> Floats:
    """Return margins [ratios, pairs] from one pass."""
    prefix_scorer = reward_prefix_scorer(
        pairs, token_values(model, token_rewards, pairs, ROOM, row_format, "rewards"), []
    )
    return np.stack([prefix_scorer.margins(Truncation(Keep(ratio)), np.ones(len(pairs))) for ratio in RATIOS])


def cut_rows(pairs: Sequence[PairTokens], ratio: Fraction) -> list[Any]:
    """Return prompt and cut response of either side of every pair, in turn."""
    lengths = np.array([[len(pair.chosen), len(pair.rejected)] for pair in pairs])
    kept = kept_of(Truncation(Keep(ratio)), lengths)
    return [
        np.concatenate([pair.prompt, side[:count]])
        for pair, counts in zip(pairs, kept, strict=True)
        for side, count in zip((pair.chosen, pair.rejected), counts, strict=True)
    ]


def counted(model: Any, pairs: Sequence[PairTokens]) -> str:
    """Say how many times the tokens and operations of one pass the padded way takes."""
    widths = []
    for rows in (cut_rows(pairs, ratio) for ratio in RATIOS):
        for batch in (rows[at : at + 2 * BATCH] for at in range(0, len(rows), 2 * BATCH)):
            widths += [max(map(len, batch))] * len(batch)
    trees = [tokens_of(pair, "shared") for pair in pairs]
    config = model.config
    weights = sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()
    tokens = [sum(each) for each in (widths, trees)]
    squares = [sum(n * n for n in each) for each in (widths, trees)]
    operations = [
        2 * weights * n + 4 * config.num_hidden_layers * config.hidden_size * square
        for n, square in zip(tokens, squares, strict=True)
    ]
    return f"{tokens[0] / tokens[1]:.1f} times the tokens, {operations[0] / operations[1]:.1f} times the operations"


def padded(model: Any, pairs: Sequence[PairTokens]) -> Floats:
    """Return margins [ratios, pairs] from one padded pass a ratio."""
    margins = []
    for rows in (cut_rows(pairs, ratio) for ratio in RATIOS):
        rewards = np.concatenate([_forward(model, rows[at : at + 2 * BATCH]) for at in range(0, len(rows), 2 * BATCH)])
        margins.append(rewards[0::2] - rewards[1::2])
    return np.stack(margins)


@torch.inference_mode()
def _forward(model: Any, rows: Sequence[Any]) -> Floats:
    ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.from_numpy(row.astype(np.int64))
        mask[number, : len(row)] = 1
    return np.asarray(model(input_ids=ids, attention_mask=mask).logits[:, 0].double().numpy())


def timed(work: Callable[[], Floats]) -> tuple[float, Floats]:
    """Return the seconds of processor time that `work` takes, and what it returns."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def spread(values: Sequence[float]) -> str:
    """Write minimum, median and maximum."""
    return f"min {min(values):.3g} med {statistics.median(values):.3g} max {max(values):.3g} (n={len(values)})"


def compare(pairs: Sequence[PairTokens], vocab: int, rounds: int) -> None:
    """Time both ways in both precisions, in alternated rounds, and print them."""
    models = {name: model_of(vocab, dtype) for name, dtype in PRECISIONS.items()}
    layouts = {name: row_format_for(model, pairs) for name, model in models.items()}
    print(f"padded against one pass: {counted(models['fp32'], pairs)}")
    seconds: dict[tuple[str, str], list[float]] = {(way, name): [] for way in WAYS for name in models}
    margins: dict[tuple[str, str], Floats] = {}
    for number in range(rounds + 1):
        for way, name in seconds:
            model, row_format = models[name], layouts[name]
            attend_with(model, "sdpa" if way == "padded" or row_format == "padded" else TREES)
            work = partial(padded, model, pairs) if way == "padded" else partial(one_pass, model, pairs, row_format)
            took, margins[way, name] = timed(work)
            seconds[way, name] += [took] if number else []
    for (way, name), taken in seconds.items():
        rows = f"{layouts[name]} rows" if way == "one pass" else f"batches of {BATCH} pairs"
        print(f"{way:8} {name}: pairs/s {spread([len(pairs) / each for each in taken])} · {rows}")
    for fast, slow in (("fp32", "fp32"), ("bf16", "bf16"), ("bf16", "fp32")):
        times = [a / b for a, b in zip(seconds["padded", slow], seconds["one pass", fast], strict=True)]
        off = float(np.abs(margins["padded", slow] - margins["one pass", fast]).max())
        print(f"one pass {fast} against padded {slow}: {spread(times)} times · margins differ by at most {off:.2g}")


def main() -> None:
    """Make the pairs and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="preference file; default: the built-in corpus")
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=8192)
    options = parser.parse_args()
    preferences = reading.load(options.data).preferences if options.data else generate(Corpus(pairs=400))
    tokenizer = ScratchTokenizer(options.vocab).train(texts_of(preferences))
    fitting = tokenize(preferences, tokenizer, options.max_length, "never").pairs
    chosen = np.random.default_rng(0).permutation(len(fitting))[: options.pairs]
    pairs = [fitting[index] for index in chosen]
    prompt = statistics.mean(len(pair.prompt) for pair in pairs)
    response = statistics.mean(len(side) for pair in pairs for side in (pair.chosen, pair.rejected))
    print(f"{len(pairs)} pairs, prompts of {prompt:.0f} and responses of {response:.0f} tokens on average")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}")
    compare(pairs, len(tokenizer), options.rounds)


if __name__ == "__main__":
    main()
