"""PairTrainer: joins three values (how to score a response, which loss, which rows) and knows none of them.

It is the only class that inherits from `transformers.Trainer`. What it changes, and why:

- a batch is pairs, and is computed in as many forward and backward passes as its tokens need; the loss is averaged
  over the **pairs** of an optimizer step, over all its passes and processes (averaging per pass and then over passes
  gives another gradient whenever passes differ in size);
- what data parallelism wraps is the model with its way to score (`ScoredModel`): the wrapper must be what is called;
- a loss or gradient that is not finite ends the run with `NumericalError` (the trainer would log 0.0 and go on);
- losses and rewards stay on the device and are read once a logging step;
- checkpoints are plain tensors (`engine/resuming.py`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from headwater import statistics
from headwater.console import draws_bars, say
from headwater.data.tokens import PairTokens
from headwater.engine import precision, resuming
from headwater.engine.drift import Drift
from headwater.engine.losses import Loss, PairScores
from headwater.engine.options import TOKENS_PER_PASS, TrainingOptions
from headwater.engine.packing import UNIFORM, Layout, Packs, PairBatch, pack
from headwater.engine.scoring import ScoreFunction, batches, reference_scores
from headwater.engine.watching import COLUMNS, figures, watch
from headwater.engine.weights import Weights
from headwater.errors import NumericalError, UsageError, first_line

Log = Callable[[dict[str, Any]], None]


class ScoredModel(torch.nn.Module):
    """A model and its way to score, as one module with one forward."""

    def __init__(self, model: torch.nn.Module, score: ScoreFunction) -> None:
        super().__init__()
        self.model = model
        self._score = score

    def forward(self, batch: PairBatch) -> PairScores:
        """Score the responses of a batch."""
        return self._score(self.model, batch)


class Shares(torch.utils.data.Sampler[list[int]]):
    """What one process takes of every batch, in a new order each epoch; together the processes take every pair once.

    The samplers of transformers and accelerate fill the last batch up with pairs that were seen before. Here it stays
    small; where it has too few pairs for all processes, they go with the batch before.
    """

    def __init__(self, pairs: int, batch: int, seed: int, process: int = 0, processes: int = 1, least: int = 1) -> None:
        """Batches hold `batch` pairs a process; the last one `least` or more."""
        self._pairs, self._batch, self._seed, self._least = pairs, batch * processes, seed, least * processes
        self._process, self._processes = process, processes
        self.epoch = 0
        """The epoch that comes next."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        whole, rest = divmod(self._pairs, self._batch)
        return max(1, whole + (rest >= self._least))

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the indices of this process's pairs, batch by batch."""
        generator = torch.Generator().manual_seed(self._seed + self.epoch)
        self.epoch += 1
        order = torch.randperm(self._pairs, generator=generator).tolist()
        for number in range(len(self)):
            end = self._pairs if number == len(self) - 1 else (number + 1) * self._batch
            yield order[number * self._batch : end][self._process :: self._processes]


class PairTrainer(transformers.Trainer):  # type: ignore[misc]
    """Train `model` on pairs: `loss(score(model, batch), reference)`, averaged over pairs."""

    def __init__(
        self,
        model: torch.nn.Module,
        score: ScoreFunction,
        loss: Loss,
        arguments: transformers.TrainingArguments,
        train_pairs: Sequence[PairTokens],
        held_out: Sequence[PairTokens],
        layout: Layout,
        log: Log,
        weights: Weights = UNIFORM,
        room: int = TOKENS_PER_PASS,
        drift: Drift | None = None,
    ) -> None:
        """Take the three values; `log` receives every history row, a pass holds at most `room` tokens.

        `drift` estimates once a batch what a loss that `needs` it wants to know.
        """

        def laid_out(pairs: Sequence[PairTokens]) -> Packs:
            packs = pack(pairs, layout, room, weights)
            return {**packs, "partners": drift.partners(pairs, layout, room, weights)} if drift else packs

        super().__init__(
            model=ScoredModel(model, score),
            args=arguments,
            train_dataset=train_pairs,
            eval_dataset=held_out or None,
            data_collator=laid_out,
        )
        if self.is_fsdp_enabled and arguments.save_strategy != "no":
            raise UsageError("--save-steps", "does not gather a sharded model", "leave it out under FSDP")
        self.remove_callback(transformers.PrinterCallback)  # off a terminal, `log` says a line of its own
        self._loss = loss
        self._layout: Layout = layout
        self._room = room
        self._weights = weights
        self._log = log
        self._drift = drift
        self._drifted: torch.Tensor | None = None
        self._watched: list[torch.Tensor] = []
        self._begun_at = 0
        self.last_evaluation: dict[str, float] = {}

    def train(self, resume_from_checkpoint: str | None = None, **others: Any) -> Any:
        """Train, from a checkpoint of `engine/resuming.py` on where one is named."""
        self._begun_at = resuming.step_of(Path(resume_from_checkpoint)) if resume_from_checkpoint else 0
        return super().train(resume_from_checkpoint, **others)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        if self.args.should_save:
            whole = self.accelerator.unwrap_model(self.model)
            resuming.save(Path(self.args.output_dir), self.state, whole, self.optimizer, self.lr_scheduler)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        resuming.load_weights(Path(resume_from_checkpoint), self.model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            resuming.load_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            resuming.load_generators(Path(checkpoint))

    def get_train_dataloader(self) -> torch.utils.data.DataLoader[Packs]:
        """Return this process's share of the batches. Errors: `UsageError` for fewer pairs than processes."""
        processes = self.accelerator.num_processes
        if len(self.train_dataset) < processes:
            raise UsageError(f"{len(self.train_dataset)} pairs", f"for {processes} processes", "start fewer processes")
        shares = self._shares()
        shares.epoch = self._begun_at // self.steps_per_epoch
        return torch.utils.data.DataLoader(
            self.train_dataset,
            batch_sampler=shares,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def _shares(self) -> Shares:
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        least = 2 if self._drift else 1  # a partner's responses come from another row
        return Shares(len(self.train_dataset), self._train_batch_size, self.args.seed, process, processes, least)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch; the last one may have fewer pairs."""
        return int(-(len(self._shares()) // -self.args.gradient_accumulation_steps))

    def _get_num_items_in_batch(self, batch_samples: list[Packs], device: torch.device) -> int | torch.Tensor:
        pairs = sum(batch["num_pairs"] for batch in batch_samples)
        if self.accelerator.num_processes == 1:
            return pairs
        total: torch.Tensor = self.accelerator.reduce(torch.tensor(pairs, device=device), "sum")
        return total  # stays on the device: nobody waits for it

    def training_step(
        self, model: torch.nn.Module, inputs: Packs, num_items_in_batch: int | torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run the passes of a batch forward and backward, processes meeting at the last; return the loss."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        packs = inputs["packs"]
        self._estimate_drift(inputs["partners"])
        total = torch.zeros((), device=self.args.device)
        for number, batch in enumerate(packs, start=1):
            with contextlib.nullcontext() if number == len(packs) else self.accelerator.no_sync(model):
                loss = self.compute_loss(model, batch, num_items_in_batch=num_items_in_batch)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: PairBatch,
        return_outputs: bool = False,
        num_items_in_batch: int | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the sum of the batch's losses over the pairs of the optimizer step.

        With several processes, times their number: data parallelism averages gradients over processes.
        """
        policy, reference = model(inputs), reference_scores(inputs)
        if self._drifted is not None:
            policy = policy._replace(drift=self._drifted.expand(inputs["num_pairs"]))
        result = self._loss(policy, reference)
        self._watched.append(watch(result, policy, reference))
        pairs = inputs["num_pairs"] if num_items_in_batch is None else num_items_in_batch
        total: torch.Tensor = result.loss.sum() * self.accelerator.num_processes / pairs
        return total

    def _estimate_drift(self, partners: Sequence[PairBatch]) -> None:
        """Estimate the drift of a batch, before its passes, from the same rows with responses to other prompts."""
        if self._drift is None:
            return
        with self.accelerator.autocast():
            drifted = self._drift(self.accelerator.unwrap_model(self.model).model, partners)
        self._drifted = self.accelerator.reduce(drifted, "mean")

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """Gather the weights under the model's own names, from wherever they are sharded; all processes call it."""
        weights: dict[str, torch.Tensor] = self.accelerator.get_state_dict(self.model_wrapped)
        return {name.removeprefix("model."): weight for name, weight in weights.items()}

    def evaluate(
        self,
        eval_dataset: Sequence[PairTokens] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Score the held-out pairs; logs and returns mean loss and rewards, under `eval_`."""
        pairs = self.eval_dataset if eval_dataset is None else eval_dataset
        mine = pairs[self.accelerator.process_index :: self.accelerator.num_processes]
        training, self._watched = self._watched, []
        total = torch.zeros((), dtype=torch.float64, device=self.args.device)
        self.model.eval()
        if self._drift is not None:
            partners = self._drift.partners(mine, self._layout, self._room, self._weights)
            self._estimate_drift(self._prepare_inputs(partners))
        places: list[int] = []
        with torch.no_grad(), self.accelerator.autocast():
            for part in batches(mine, self._room, self._layout, "held-out pairs", self._weights):
                places += part.indices
                batch = self._prepare_inputs(part.batch)
                total += self.compute_loss(self.model, batch, num_items_in_batch=1)
        loss = self.accelerator.reduce(total, "sum").item() / self.accelerator.num_processes / len(pairs)
        interval = self._interval(pairs, places)
        metrics = {"loss": loss, **self._take_watched(), **interval}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self._watched = training
        self.last_evaluation = metrics
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # type: ignore[has-type]
        return metrics

    def _interval(self, pairs: Sequence[PairTokens], places: Sequence[int]) -> dict[str, float]:
        """Return the interval of the accuracy on `pairs`, whose rows were watched at this process's `places`.

        Bootstrapped over openings; there is none for labelled responses, or for a single opening.
        """
        won = torch.zeros(len(pairs), dtype=torch.float64, device=self.args.device)
        mine = torch.tensor(places) * self.accelerator.num_processes + self.accelerator.process_index
        chosen, rejected, *_ = torch.cat(self._watched).unbind(1)
        margins = chosen - rejected
        # The sign of NaN is 0 in torch, which would make a tie of a labelled response.
        won[mine.to(won.device)] = torch.where(margins.isnan(), margins, (torch.sign(margins) + 1) / 2)
        by_pair = self.accelerator.reduce(won, "sum").cpu().numpy()
        if np.isnan(by_pair).any():
            return {}
        found = statistics.mean(by_pair, [pair.opening for pair in pairs], self.args.seed)
        bounds = {"low": found.low, "high": found.high}
        return {f"rewards/accuracies_{name}": bound for name, bound in bounds.items() if bound is not None}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the rewards since the last call, and hand the row on. Errors: `NumericalError` for what is not finite."""
        broken = [name for name in ("loss", "grad_norm", "train_loss") if not math.isfinite(logs.get(name, 0.0))]
        if broken:
            raise NumericalError(
                f"step {self.state.global_step}",
                f"{' and '.join(broken)} not finite, here or in the steps since the last line",
                "lower --learning-rate; nothing was saved",
            )
        if "loss" in logs or "train_loss" in logs:  # train_loss: the last row, with the steps since the one before
            logs.update(self._take_watched())
        super().log(logs, start_time)
        self._log({"step": self.state.global_step, **logs})
        if not draws_bars():
            say(self._line(logs))

    def _line(self, logs: dict[str, float]) -> str:
        shown = ("loss", "learning_rate", "rewards/accuracies", "rewards/auc", "rewards/margins", "train_runtime")
        figures = [f"{name} {value:.4g}" for name, value in logs.items() if name.removeprefix("eval_") in shown]
        return f"step {self.state.global_step}/{self.state.max_steps}: {', '.join(figures)}"

    def _take_watched(self) -> dict[str, float]:
        """Return the figures of the rows since the last call, of all processes."""
        none = torch.zeros((0, COLUMNS), dtype=torch.float64, device=self.args.device)
        rows = torch.cat([none, *self._watched])
        self._watched = []
        # Processes hold different numbers of rows; the rows that fill them up are NaN throughout, and count nowhere.
        padded = self.accelerator.pad_across_processes(rows, pad_index=float("nan"))
        return figures(self.accelerator.gather(padded))


def arguments_for(options: TrainingOptions, output: str) -> transformers.TrainingArguments:
    """Translate options for `transformers.Trainer`; saving is headwater's own (`engine/checkpoints.py`).

    Errors: `UsageError` for a value that transformers refuses.
    """
    try:
        arguments = transformers.TrainingArguments(
            output_dir=output,
            num_train_epochs=options.num_train_epochs,
            learning_rate=options.learning_rate or 0.0,  # where it is searched for, the search sets it
            per_device_train_batch_size=options.per_device_train_batch_size,
            per_device_eval_batch_size=options.per_device_train_batch_size,
            gradient_accumulation_steps=options.gradient_accumulation_steps,
            lr_scheduler_type=options.lr_scheduler_type,
            warmup_steps=options.warmup_ratio,
            weight_decay=options.weight_decay,
            max_grad_norm=options.max_grad_norm,
            bf16=precision.resolve(options.precision) == "bf16",
            use_cpu=not torch.cuda.is_available(),
            logging_steps=options.logging_steps,
            logging_first_step=True,
            eval_strategy="no" if options.eval_fraction == 0 else "epoch",
            save_strategy="steps" if options.save_steps else "no",
            save_steps=options.save_steps or 500,
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            disable_tqdm=not draws_bars(),
            report_to=options.report_to,
            ddp_timeout=7 * 24 * 3600,  # processes wait for each other's share of a reference pass
            ddp_find_unused_parameters=False,
            seed=options.seed,
        )
    except (ValueError, ImportError) as error:
        raise UsageError("training options", first_line(error)) from error
    _ = arguments.device  # counts the GPUs, once; afterwards the count can be set
    arguments._n_gpu = 1  # DataParallel would scatter the rows of a batch away from their pairs
    return arguments
