"""Training steps of headwater against TRL's, on the same pairs of the same tokens, in alternated runs.

    python benchmarks/training.py pairs.jsonl                       # DPO, whole responses
    python benchmarks/training.py pairs.jsonl --keep 0.4 --vocab 50304
    python benchmarks/training.py pairs.jsonl --reward              # reward models

Every figure is pairs a second against TRL's defaults in the same round, over the same pairs: minimum, median and
maximum of the rounds; the first round is a warm-up. Variants:

    trl                 DPOTrainer or RewardTrainer as it comes: bf16, gradient checkpointing, reference at every step
    trl precomputed     without checkpointing, reference log-probabilities given
    trl in fp32         as it comes, but in fp32: only where headwater takes fp32, because this CPU is quicker in it
    headwater           reference log-probabilities given, as they are from the second epoch, ratio or seed on
    headwater compiled  the same with --torch-compile; what it compiles in the first round is not counted
    headwater epoch     the reference pass included: a first epoch
    … grouped           batches of like length (the best that TRL's sampler can do), against headwater on the same pairs

headwater's precision is what `--precision auto` says here (`--precision` to ask for another). A step is forward,
backward, clipping, fused AdamW. The model is a Qwen2 with random weights. Losses are printed: the
same numbers on both sides say that the same thing was computed.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
import transformers
import trl

from headwater.data import reading
from headwater.data.tokenizers import ScratchTokenizer, Tokenizer, texts_of
from headwater.data.tokens import PairTokens, token_ends, tokenize
from headwater.data.truncation import Keep, Truncation, truncate
from headwater.forward.attention import TREES, attend_with
from headwater.forward.compilation import compile_layers
from headwater.forward.packing import common_prefix_length, tokens_of
from headwater.forward.passes import with_reference
from headwater.forward.scores import policy_scores, reward_scores
from headwater.losses import DPO, BradleyTerry
from headwater.models import loading, precision
from headwater.models.precision import Precision
from headwater.training import memory
from headwater.training.options import TrainingOptions
from headwater.training.trainer import PairTrainer, arguments_for

BATCH = 8
DEVICE = loading.device()
ROOM = 8192
POOL = 400
"""Pairs that TRL's length-grouping sampler sorts at a time (50 batches)."""


SHAPES = [(2048, 512, 512), (2048, 512, 1376), (2048, 1376, 512)]
"""Of matrix products whose best rate is called the machine's peak: those of the model's own layers."""


class Timed(NamedTuple):
    """Seconds and mean loss of a variant over the pairs of a round."""

    seconds: float
    loss: float


def model_of(vocab: int, reward: bool) -> Any:
    """Return the same Qwen2 for every variant: 25 M parameters and its embeddings."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=vocab,
        hidden_size=512,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        intermediate_size=1376,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
    )
    config.pad_token_id = 0
    if not reward:
        return transformers.AutoModelForCausalLM.from_config(config)
    config.num_labels = 1
    return transformers.AutoModelForSequenceClassification.from_config(config)


class Stepper:
    """A trainer of either library, stepped by hand: one optimizer step a batch."""

    def __init__(self, trainer: transformers.Trainer) -> None:
        trainer.create_optimizer()
        self.trainer = trainer
        self.model, self.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        trainer.model_wrapped = self.model
        trainer.current_gradient_accumulation_steps = 1  # what Trainer.train sets before its first step

    def step(self, rows: Sequence[Any]) -> float:
        """Take one step on a batch of rows and return its loss."""
        batch = self.trainer.data_collator(rows)
        loss = self.trainer.training_step(self.model, batch, None if "num_pairs" not in batch else len(rows))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.model.zero_grad()
        return float(loss)


def trl_stepper(model: Any, tokenizer: Tokenizer, reward: bool, defaults: bool, bf16: bool = True) -> Stepper:
    """Return TRL's trainer as it comes, or without gradient checkpointing for rows with reference values."""
    changes: dict[str, Any] = {} if defaults else {"gradient_checkpointing": False}
    changes |= {} if bf16 else {"bf16": False}
    if not defaults and not reward:
        changes["precompute_ref_log_probs"] = True  # no second model; rows of a step bring their values
    arguments = (trl.RewardConfig if reward else trl.DPOConfig)(
        output_dir=tempfile.mkdtemp(), report_to="none", use_cpu=not torch.cuda.is_available(), **changes
    )
    example = [{"role": "user", "content": "a"}], [{"role": "assistant", "content": "b"}]
    rows = datasets.Dataset.from_list([{"prompt": example[0], "chosen": example[1], "rejected": example[1]}])
    if reward:
        return Stepper(trl.RewardTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer))
    return Stepper(
        trl.DPOTrainer(
            model=model,
            ref_model=copy.deepcopy(model) if defaults else None,
            args=arguments,
            train_dataset=rows,
            processing_class=tokenizer,
        )
    )


def rows_of(pairs: Sequence[PairTokens], reward: bool, with_values: bool) -> list[dict[str, Any]]:
    """Return pairs as the rows that TRL's collators take."""
    rows = []
    for pair in pairs:
        prompt, chosen, rejected = (ids.tolist() for ids in (pair.prompt, pair.chosen, pair.rejected))
        if reward:
            rows.append({"chosen_ids": prompt + chosen, "rejected_ids": prompt + rejected})
            continue
        row = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        if with_values:
            assert pair.chosen_reference is not None
            assert pair.rejected_reference is not None
            row["ref_chosen_logps"] = float(pair.chosen_reference.sum())
            row["ref_rejected_logps"] = float(pair.rejected_reference.sum())
        rows.append(row)
    return rows


def ours(model: Any, reward: bool, trained_in: Precision, compiled: bool = False) -> Stepper:
    """Return headwater's trainer, at the learning rate that TRL has as its default."""
    attend_with(model, TREES)
    if compiled:
        compile_layers(model)
    arguments = arguments_for(
        TrainingOptions(learning_rate=1e-4 if reward else 1e-6, eval_fraction=0.0, precision=trained_in),
        tempfile.mkdtemp(),
    )
    score, loss = (reward_scores, BradleyTerry()) if reward else (policy_scores, DPO())
    pair = PairTokens(*(np.ones(2, dtype=np.int32),) * 3, "0", "", "")
    return Stepper(PairTrainer(model, score, loss, arguments, [pair], [], "shared", lambda row: None, max_tokens=ROOM))


def timed(stepper: Stepper, rows: Sequence[Any]) -> Timed:
    """Time steps over all rows, in batches as they come."""
    began = time.perf_counter()
    losses = [stepper.step(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
    wait()
    return Timed(time.perf_counter() - began, statistics.fmean(losses))


def wait() -> None:
    """Wait for the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def peak(trained_in: Precision) -> float:
    """Measure the machine's GEMM rate in a precision, in GFLOP/s: the best of SHAPES, of 20 tries."""
    rates = []
    dtype = torch.bfloat16 if trained_in == "bf16" else torch.float32
    for n, k, m in SHAPES:
        a, b = (torch.randn(*shape, dtype=dtype, device=DEVICE) for shape in ((n, k), (k, m)))
        for _ in range(20):
            wait()
            began = time.perf_counter()
            a @ b
            wait()
            rates.append(2 * n * k * m / (time.perf_counter() - began) / 1e9)
    return max(rates)


def useful_flops(pairs: Sequence[PairTokens], model: Any, reward: bool) -> float:
    """Count what a step on pairs needs, forward and backward, every token once: linear layers, attention, head."""
    config = model.config
    body = sum(p.numel() for name, p in model.named_parameters() if "layers" in name and p.ndim == 2)
    total = 0.0
    for pair in pairs:
        conversation_id = common_prefix_length(pair)
        trunk = len(pair.prompt) + conversation_id
        seen = trunk * (trunk + 1) / 2
        for response in (pair.chosen, pair.rejected):
            n = len(response) - conversation_id
            seen += n * trunk + n * (n + 1) / 2
        scored = 0 if reward else len(pair.chosen) + len(pair.rejected) - conversation_id
        head = 2 * config.hidden_size * config.vocab_size * scored
        attention = 4 * config.hidden_size * config.num_hidden_layers * seen
        total += 3 * (2 * body * tokens_of(pair, "shared") + attention + head)
    return total


def load(path: Path, vocab: int, keep: str, count: int) -> tuple[list[PairTokens], Tokenizer]:
    """Read pairs, cut their responses to the ratio kept, and tokenize them by a byte-level BPE of their own."""
    preferences = reading.load(path).preferences
    tokenizer = ScratchTokenizer(min(vocab, 8192)).train(texts_of(preferences))
    truncation = Truncation(Keep(Fraction(keep)))
    cut = truncate(preferences, truncation, token_ends(tokenizer)).preferences
    return list(tokenize(cut, tokenizer, 1024).pairs)[:count], tokenizer


def main() -> None:
    """Print ratios by variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--keep", default="1")
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--reward", action="store_true")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps a round")
    parser.add_argument("--only", nargs="*", help="variants to run; the first is what the others are measured against")
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto", help="headwater's")
    options = parser.parse_args()
    options.precision = precision.resolve(options.precision)
    transformers.logging.set_verbosity_error()
    run(options)


def reference_of(model: Any, pairs: list[PairTokens], trained_in: Precision) -> list[PairTokens]:
    """Return pairs with the log-probabilities of the reference."""
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=trained_in == "bf16"):
        return with_reference(model, pairs, ROOM, "shared")


def variants_of(
    model: Any, tokenizer: Tokenizer, reward: bool, trained_in: Precision
) -> dict[str, Callable[[list[PairTokens]], Timed]]:
    """Return the variants by name: what each does with the pairs of a round."""
    reference = copy.deepcopy(model)
    attend_with(reference, TREES)
    steppers: dict[str, Stepper] = {}

    def stepper(name: str, make: Callable[[], Stepper]) -> Stepper:
        if name not in steppers:
            steppers[name] = make()
        return steppers[name]

    def of_trl(defaults: bool, bf16: bool = True) -> Callable[[list[PairTokens]], Timed]:
        def run(pairs: list[PairTokens]) -> Timed:
            made = stepper(
                f"trl {defaults} {bf16}",
                lambda: trl_stepper(copy.deepcopy(model), tokenizer, reward, defaults, bf16),
            )
            return timed(made, rows_of(pairs, reward, not defaults))

        return run

    def of_ours(pairs: list[PairTokens]) -> Timed:
        return timed(stepper("ours", lambda: ours(copy.deepcopy(model), reward, trained_in)), pairs)

    def of_compiled(pairs: list[PairTokens]) -> Timed:
        return timed(stepper("compiled", lambda: ours(copy.deepcopy(model), reward, trained_in, compiled=True)), pairs)

    def epoch(pairs: list[PairTokens]) -> Timed:
        began = time.perf_counter()
        fresh = reference_of(reference, pairs, trained_in)
        spent = time.perf_counter() - began
        result = timed(stepper("epoch", lambda: ours(copy.deepcopy(model), reward, trained_in)), fresh)
        return Timed(spent + result.seconds, result.loss)

    given = "trl without checkpointing" if reward else "trl precomputed"
    variants = {"trl": of_trl(True), given: of_trl(False), "headwater": of_ours, "headwater compiled": of_compiled}
    variants |= {} if trained_in == "bf16" else {"trl in fp32": of_trl(True, bf16=False)}
    return variants if reward else variants | {"headwater epoch": epoch}


def run(options: argparse.Namespace) -> None:
    """Read, tokenize and compare."""
    pairs, tokenizer = load(options.data, options.vocab, options.keep, POOL)
    compare(pairs, tokenizer, model_of(options.vocab, options.reward).to(DEVICE), options)


def compare(pairs: list[PairTokens], tokenizer: Tokenizer, model: Any, options: argparse.Namespace) -> None:
    """Run the rounds on pairs and print the table."""
    if not options.reward:
        reference = copy.deepcopy(model)
        attend_with(reference, TREES)
        pairs = reference_of(reference, pairs, options.precision)
    variants = variants_of(model, tokenizer, options.reward, options.precision)
    names = options.only or list(variants)
    rng = np.random.default_rng(0)
    count = options.steps * BATCH
    by_length = sorted(range(len(pairs)), key=lambda i: longest(pairs[i]))
    runs: dict[str, list[Timed]] = {}
    rates: dict[Precision, list[float]] = {"bf16": [], options.precision: []}
    shares: dict[str, list[float]] = {}
    for number in range(options.rounds + 1):
        for kind, found in rates.items():
            found.append(peak(kind))
        mixed = [pairs[i] for i in rng.choice(len(pairs), count, replace=False)]
        starts = rng.choice(len(pairs) // BATCH, options.steps, replace=False)
        grouped = [pairs[i] for s in starts for i in by_length[s * BATCH : (s + 1) * BATCH]]
        for label, chosen in (("", mixed), (" grouped", grouped)):
            for name in names:
                # TRL's batches are of like length in the grouped rounds; headwater takes the same pairs as they come.
                order = [chosen[i] for i in rng.permutation(count)] if "headwater" in name else chosen
                result = variants[name](order)
                if number:
                    runs.setdefault(name + label, []).append(result)
                    if "headwater" in name and not label:
                        useful = useful_flops(chosen, model, options.reward) / result.seconds / 1e9
                        for kind, found in rates.items():
                            shares.setdefault(f"{name}, {kind}", []).append(useful / found[-1])
    report(options, runs, names, count, rates, shares)


def longest(pair: PairTokens) -> int:
    """Return the tokens of prompt and longer response."""
    return len(pair.prompt) + max(len(pair.chosen), len(pair.rejected))


def report(
    options: argparse.Namespace,
    seconds: dict[str, list[Timed]],
    names: Sequence[str],
    count: int,
    rates: Mapping[Precision, Sequence[float]],
    shares: Mapping[str, Sequence[float]],
) -> None:
    """Print the table, and one line of JSON."""
    machine = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    print(f"{machine}, torch {torch.__version__}, trl {trl.__version__}")
    what = "reward model" if options.reward else "DPO"
    setting = f"{what}, keep {options.keep}, vocabulary {options.vocab}, headwater in {options.precision}"
    print(f"{setting}, {options.rounds} rounds of {count} pairs in batches of {BATCH}")
    table = {}
    for label in ("", " grouped"):
        base = [timed.seconds for timed in seconds[names[0] + label]]
        for name in names:
            runs = seconds[name + label]
            ratios = sorted(b / r.seconds for b, r in zip(base, runs, strict=True))
            rate = count / statistics.median(r.seconds for r in runs)
            low, middle, high = ratios[0], statistics.median(ratios), ratios[-1]
            table[name + label] = [round(x, 2) for x in (low, middle, high)]
            loss = statistics.fmean(r.loss for r in runs)
            print(f"{name + label:34s} {rate:7.2f} pairs/s   × {low:.2f} / {middle:.2f} / {high:.2f}   loss {loss:.4f}")
    for kind, found in rates.items():
        print(f"GEMM peak in {kind}: {min(found):.0f} to {max(found):.0f} GFLOP/s")
    for name, parts in shares.items():
        best = [round(x, 3) for x in (min(parts), statistics.median(parts), max(parts))]
        print(f"useful share of the peak in the steps of {name}: {best}")
    print(f"peak memory {memory.peak() / memory.GIB:.2f} GiB, of all variants that ran; use --only for one's own")
    print(json.dumps({"what": what, "keep": options.keep, "vocabulary": options.vocab, "ratios": table}))


if __name__ == "__main__":
    main()
