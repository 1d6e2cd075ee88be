"""PairTrainer: joins three values (how to score a response, which loss, which rows) and knows none of them.

It is the only class that inherits from `transformers.Trainer`. What it changes, and why:

- a batch is pairs, and is computed in as many forward and backward passes as its tokens need; the loss is averaged
  over the **pairs** of an optimizer step, over all its passes and processes (averaging per pass and then over passes
  gives another gradient whenever passes differ in size);
- what data parallelism wraps is the model with its way to score (`ScoredModel`): the wrapper must be what is called;
- a step whose loss or gradient is not finite is not taken (`forward/finite.py`; the trainer would take it);
- losses and rewards stay on the device and are read once a logging step;
- checkpoints are plain tensors (`training/checkpoints.py`), and what ends a training leaves one.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate.utils import gather_object

from headwater.console import draws_bars, say
from headwater.data.tokens import TOKENS_PER_PASS, PairTokens
from headwater.errors import UsageError, first_line
from headwater.forward import halving
from headwater.forward.finite import StepGuard, check_scores
from headwater.forward.packing import UNIFORM, Packs, PairBatch, RowFormat, pack, tokens_of
from headwater.forward.scores import ScoredModel, ScoreFunction, computed, reference_scores
from headwater.losses import Loss
from headwater.losses.token_weights import Weights
from headwater.models.saving import check_weights
from headwater.training import checkpoints, schedules
from headwater.training.callbacks import EvaluateBeforeSave, KeepBest
from headwater.training.kl_estimate import KLEstimate
from headwater.training.metrics import COLUMNS, bounds, figures, line, watch, wins
from headwater.training.options import MAX_SKIPS, TrainingOptions
from headwater.training.order import Shares

Log = Callable[[dict[str, Any]], None]


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
        row_format: RowFormat,
        log: Log,
        weights: Weights = UNIFORM,
        max_tokens: int = TOKENS_PER_PASS,
        kl_estimate: KLEstimate | None = None,
        options: TrainingOptions | None = None,
        fingerprints: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the three values; `log` receives every history row, a pass holds at most `max_tokens` tokens.

        `estimate_kl` estimates once a batch what a loss that `needs` it wants to know. `options` say what happens at a
        step that is not finite. `fingerprints` stand in every checkpoint; without them none is
        written but for --save-steps.
        """
        self._row_format: RowFormat = row_format
        self._max_tokens, self._weights, self._kl_estimate = max_tokens, weights, kl_estimate
        super().__init__(
            model=ScoredModel(model, score),
            args=arguments,
            train_dataset=train_pairs,
            eval_dataset=held_out or None,
            data_collator=self._laid_out,
        )
        if self.is_fsdp_enabled and arguments.save_strategy != "no":
            raise UsageError("--save-steps", "does not gather a sharded model", "leave it out under FSDP")
        self.remove_callback(transformers.PrinterCallback)  # off a terminal, `log` says a line of its own
        self._loss = loss
        self._log = log
        self._kl_value: torch.Tensor | None = None
        self._watched: list[torch.Tensor] = []
        self._step_batches: list[Packs] = []
        self._step_begun: checkpoints.Generators = {}
        self._row_losses = torch.empty(0)
        self._begun_at = self._watched_before = 0
        self.last_evaluation: dict[str, float] = {}
        self.best: KeepBest | None = None
        self._fingerprints = fingerprints
        self._positions: list[checkpoints.Position] = []
        options = options or TrainingOptions()
        self.guard = StepGuard(self.accelerator, options.nan_policy, options.max_skips or MAX_SKIPS, self._keep_before)
        self.add_callback(EvaluateBeforeSave())

    def train(self, resume_from_checkpoint: str | None = None, **others: Any) -> Any:
        """Train, from a checkpoint of `training/checkpoints.py` on where one is named."""
        if resume_from_checkpoint is None:
            return super().train(**others)
        checkpoint = Path(resume_from_checkpoint)
        self._begun_at = checkpoints.step_of(checkpoint)
        self._go_on(checkpoint)
        state = transformers.TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if self._begun_at < state.max_steps:
            return super().train(resume_from_checkpoint, **others)
        # All steps are done, which transformers does not expect: it would take one more.
        self.state = state
        self._load_from_checkpoint(resume_from_checkpoint)
        self.log({"train_loss": 0.0})
        return None

    def _go_on(self, checkpoint: Path) -> None:
        """Take up what a checkpoint holds of the figures; the first process takes those of all."""
        saved, plain = checkpoints.load_tensors(checkpoint), checkpoints.load_plain(checkpoint)
        self.guard.go_on(saved, plain["skipped"])
        self.last_evaluation = plain["last_evaluation"]
        if self.best is not None and plain["best"]:
            self.best.go_on(saved, plain["best"])
        if self.accelerator.is_main_process:
            self._watched, self._watched_before = [saved["watched"].to(self.args.device)], 1

    def _maybe_log_save_evaluate(self, *others: Any, **named: Any) -> None:
        super()._maybe_log_save_evaluate(*others, **named)
        now = checkpoints.position(self.state, self.lr_scheduler, len(self._watched))
        # The step before the last one too: a flag may be read a step late.
        self._positions = [each for each in self._positions if each.step == now.step - 1] + [now]

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self.save_at(checkpoints.position(self.state, self.lr_scheduler, len(self._watched)))

    def save_at(self, position: checkpoints.Position) -> Path:
        """Write a checkpoint of the weights as they are, at a position; all processes call it."""
        self.guard.settle()
        folder = Path(self.args.output_dir)
        rows = self._gathered(self._watched[: position.watched])
        taken = self.accelerator.reduce(self.guard.taken, "sum")
        every = gather_object([position.generators]) if self.accelerator.num_processes > 1 else [position.generators]
        best, figures_of_best = ({}, None) if self.best is None else self.best.saved()
        extras = checkpoints.Extras(
            every,
            {"watched": rows, "taken": taken, "logged": self.guard.logged, **best},
            {"skipped": self.guard.skipped, "last_evaluation": self.last_evaluation, "best": figures_of_best},
        )
        whole = self.accelerator.unwrap_model(self.model)
        check_weights(whole, f"{folder}, step {position.step}")
        if self.args.should_save:
            checkpoints.save(folder, position, whole, self.optimizer, extras, self._fingerprints or {})
        self.accelerator.wait_for_everyone()
        return folder / f"{checkpoints.PREFIX}{position.step}"

    def _keep_before(self, step: int) -> str:
        """Keep the training as it was before `step`, which was not taken; return the sentence that says so."""
        position = next((each for each in self._positions if each.step == step - 1), None)
        if self._fingerprints is None or self.is_fsdp_enabled:
            return "nothing was saved"
        if position is None and self._begun_at == step - 1 > 0:
            return f"the last good checkpoint is {self.args.output_dir}/{checkpoints.PREFIX}{self._begun_at}"
        if position is None:
            return "nothing was saved: no step was taken before"
        return f"the last good checkpoint is {self.save_at(position)}"

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        checkpoints.load_weights(Path(resume_from_checkpoint), self.model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_generators(Path(checkpoint), self.accelerator.process_index)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Return the learning-rate schedule; see `schedules`. Errors: `UsageError`."""
        if self.lr_scheduler is None:  # type: ignore[has-type]  # transformers has no types
            self.lr_scheduler = schedules.create(self.args, optimizer or self.optimizer, num_training_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

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
        least = 2 if self._kl_estimate else 1  # a partner's responses come from another row
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
        """Run the passes of a batch forward and backward, processes meeting at the last; return the loss.

        Where memory runs out, the whole step is computed anew in smaller passes. Errors: `ResourceError`.
        """
        model.train()
        if any(each["num_pairs"] > 1 and each["input_ids"].numel() > self._max_tokens for each in inputs["packs"]):
            inputs = self._laid_out(inputs["rows"].pairs)  # laid out before memory ran out
        if not self._step_batches:
            self._step_begun = checkpoints.generators()
        self._step_batches.append(inputs)
        error = ""
        try:
            return self._passes(model, inputs, num_items_in_batch)
        except (RuntimeError, MemoryError) as problem:
            if not halving.is_exhausted(problem):
                raise
            error = first_line(problem)
        self._make_room(error)
        batches = self._step_batches
        self._step_batches = []
        checkpoints.set_generators(self._step_begun)
        for batch in batches:
            loss = self.training_step(model, self._laid_out(batch["rows"].pairs), num_items_in_batch)
        return loss

    def _laid_out(self, pairs: Sequence[PairTokens]) -> Packs:
        """Lay the pairs of a batch out in passes of at most `max_tokens` tokens."""
        packs = pack(pairs, self._row_format, self._max_tokens, self._weights)
        if self._kl_estimate is not None:
            packs["partners"] = self._kl_estimate.partners(pairs, self._row_format, self._max_tokens, self._weights)
        return packs

    def _make_room(self, error: str) -> None:
        """Forget what was computed of this step, and halve the passes from now on. Errors: `ResourceError`."""
        self.model.zero_grad()
        self.guard.forget_step()
        del self._watched[self._watched_before :]
        self._row_losses = torch.empty(0)
        halving.release()
        of_pair = functools.partial(tokens_of, row_format=self._row_format)
        self._max_tokens = halving.smaller(self._step_batches[-1], of_pair, self.accelerator.num_processes, error)

    def _passes(
        self, model: torch.nn.Module, inputs: Packs, num_items_in_batch: int | torch.Tensor | None
    ) -> torch.Tensor:
        inputs = self._prepare_inputs(inputs)
        packs = inputs["packs"]
        self._estimate_kl(inputs["partners"])
        total = torch.zeros((), device=self.args.device)
        for number, batch in enumerate(packs, start=1):
            with contextlib.nullcontext() if number == len(packs) else self.accelerator.no_sync(model):
                loss = self.compute_loss(model, batch, num_items_in_batch=num_items_in_batch)
                self.accelerator.backward(loss)
            self.guard.see_rows(self._row_losses)
            total += loss.detach()
        return self.guard.see_batch(total, inputs["ids"])

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Decide, between the gradient and the step, whether the step is taken; return the norm."""
        norm = super()._get_grad_norm(model, grad_norm)
        takes = self.guard.decide(self.state.global_step + 1, norm, self.optimizer)
        self._step_batches = []
        since, self._watched_before = self._watched_before, len(self._watched)
        # What was watched of a step that is not taken counts nowhere, as if no row had a response.
        self._watched[since:] = [torch.where(takes, rows, torch.nan) for rows in self._watched[since:]]
        return norm

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
        if self._kl_value is not None:
            policy = policy._replace(kl_estimate=self._kl_value.expand(inputs["num_pairs"]))
        result = self._loss(policy, reference)
        self._watched.append(watch(result, policy, reference))
        self._row_losses = result.loss.detach()
        pairs = inputs["num_pairs"] if num_items_in_batch is None else num_items_in_batch
        total: torch.Tensor = result.loss.sum() * self.accelerator.num_processes / pairs
        return total

    def _estimate_kl(self, partners: Sequence[PairBatch]) -> None:
        """Estimate the drift of a batch, before its passes, from the same rows with responses to other prompts."""
        if self._kl_estimate is None:
            return
        with self.accelerator.autocast():
            kl_values = self._kl_estimate(self.accelerator.unwrap_model(self.model).model, partners)
        self._kl_value = self.accelerator.reduce(kl_values, "mean")

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
        if self._kl_estimate is not None:
            partners = self._kl_estimate.partners(mine, self._row_format, self._max_tokens, self._weights)
            self._estimate_kl(self._prepare_inputs(partners))

        def of_pass(batch: PairBatch) -> torch.Tensor:
            return self.compute_loss(self.model, self._prepare_inputs(batch), num_items_in_batch=1)

        places: list[int] = []
        losses: list[torch.Tensor] = []
        with torch.no_grad(), self.accelerator.autocast():
            for indices, loss in computed(
                of_pass, mine, self._max_tokens, self._row_format, "held-out pairs", self._weights
            ):
                places += indices
                total += loss
                losses.append(self._row_losses)
        loss = self.accelerator.reduce(total, "sum").item() / self.accelerator.num_processes / len(pairs)
        if not math.isfinite(loss):
            self._refuse_evaluation([mine[place].id for place in places], torch.cat(losses))
        interval = self._interval(pairs, places)
        metrics = {"loss": loss, **self._take_watched(), **interval}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self._watched = training
        self.last_evaluation = metrics
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # type: ignore[has-type]
        return metrics

    def _refuse_evaluation(self, ids: Sequence[str], losses: torch.Tensor) -> None:
        """Keep the training, and name the held-out rows of all processes whose loss is not finite."""
        mine = list(zip(ids, losses.tolist(), strict=True))
        every = gather_object(mine) if self.accelerator.num_processes > 1 else mine
        if self._fingerprints is not None and self.state.global_step > self._begun_at and not self.is_fsdp_enabled:
            self.save_at(checkpoints.position(self.state, self.lr_scheduler, 0))
        names, values = zip(*every, strict=True)
        check_scores(np.array(values), names, f"step {self.state.global_step}, held-out part")

    def _interval(self, pairs: Sequence[PairTokens], places: Sequence[int]) -> dict[str, float]:
        """Return the interval of the accuracy on `pairs`, whose rows were watched at this process's `places`."""
        won = torch.zeros(len(pairs), dtype=torch.float64, device=self.args.device)
        mine = torch.tensor(places) * self.accelerator.num_processes + self.accelerator.process_index
        won[mine.to(won.device)] = wins(torch.cat(self._watched))
        by_pair = self.accelerator.reduce(won, "sum").cpu().numpy()
        return bounds(by_pair, [pair.conversation_id for pair in pairs], self.args.seed)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the rewards since the last call, and hand the row on. Errors: `NumericalError` of a step before it."""
        self.guard.settle()
        if "loss" in logs or "train_loss" in logs:  # train_loss: the last row, with the steps since the one before
            means = {"loss": self.guard.mean_loss(), "train_loss": self.guard.whole_mean_loss()}
            # Of the steps that were taken; transformers' own means know nothing of others.
            logs |= {name: math.nan if mean is None else mean for name, mean in means.items() if name in logs}
            logs = {name: value for name, value in logs.items() if math.isfinite(value)}
            if self.guard.skipped:
                logs["skipped_steps"] = len(self.guard.skipped)
            logs.update(self._take_watched())
            self._watched_before = 0
        super().log(logs, start_time)
        self._log({"step": self.state.global_step, **logs})
        if not draws_bars():
            say(f"step {self.state.global_step}/{self.state.max_steps}: {line(logs)}")

    def _take_watched(self) -> dict[str, float]:
        """Return the figures of the rows since the last call, of all processes."""
        rows, self._watched = self._gathered(self._watched), []
        return figures(rows)

    def _gathered(self, watched: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return what was watched by all processes, [rows, COLUMNS]."""
        none = torch.zeros((0, COLUMNS), dtype=torch.float64, device=self.args.device)
        # Processes hold different numbers of rows; the rows that fill them up are NaN throughout, and count nowhere.
        padded = self.accelerator.pad_across_processes(torch.cat([none, *watched]), pad_index=float("nan"))
        gathered: torch.Tensor = self.accelerator.gather(padded)
        return gathered
