"""PairTrainer: trains a model on pairs, given how to score a response, which loss, and which rows.

The only class here that inherits from `transformers.Trainer`. What it changes, and why:

- a batch is pairs, computed in as many forward and backward passes as its tokens need; the loss is averaged over the
  **pairs** of an optimizer step, over all its passes and processes (averaging per pass and then over passes gives
  another gradient whenever passes differ in size);
- data parallelism wraps the model with its score function (`ScoredModel`), because the wrapper must be what is called;
- a step whose loss or gradient is not finite is not taken (`forward/finite.py`); transformers would take it;
- losses and rewards stay on the device and are read once a logging step, because every read waits for the device;
- checkpoints are plain tensors (`training/checkpoints.py`); a training that ends early leaves one.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate.utils import gather_object

from headwater.console import Pace, draws_bars, say
from headwater.data.tokens import TOKENS_PER_PASS, PairTokens
from headwater.errors import UsageError, first_line
from headwater.forward import halving
from headwater.forward.finite import StepGuard, check_scores
from headwater.forward.packing import UNIFORM, Packs, PairBatch, RowFormat
from headwater.forward.passes import computed
from headwater.forward.scores import ScoredLoss, ScoredModel, ScoreFunction, own_scores, pair_loss
from headwater.losses import Loss, PairScores
from headwater.losses.token_weights import Weights
from headwater.models.saving import check_weights
from headwater.training import batch_sorting, checkpoints, schedules
from headwater.training.callbacks import EvaluateBeforeSave, KeepBest
from headwater.training.kl_estimate import KLEstimate, add_estimate
from headwater.training.metrics import COLUMNS, WatchedRows, bounds, figures, line, watch, wins
from headwater.training.neftune import noisy_embeddings
from headwater.training.options import MAX_SKIPS, TrainingOptions
from headwater.training.order import Shares
from headwater.training.step_passes import StepPasses

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
        """Take the model, its score function, the loss and the rows.

        `log` receives every history row. A pass holds at most `max_tokens` tokens. `kl_estimate` is for a loss that
        needs one. `options` say what happens at a step that is not finite, and how much noise embeddings get.
        `fingerprints` are stored in every checkpoint; without them, checkpoints are written for --save-steps only.
        """
        self._passes = StepPasses(row_format, max_tokens, weights, kl_estimate)
        self._kl_estimate = kl_estimate
        with _config_kept(model):
            super().__init__(
                model=ScoredModel(model, score),
                args=arguments,
                train_dataset=train_pairs,
                eval_dataset=held_out or None,
                data_collator=self._passes.pack,
            )
        if self.is_fsdp_enabled and arguments.save_strategy != "no":
            raise UsageError("--save-steps", "does not gather a sharded model", "leave it out under FSDP")
        self.remove_callback(transformers.PrinterCallback)  # off a terminal, `log` prints a line of its own
        self._loss = loss
        self._log = log
        self._watched = WatchedRows()
        self._begun_at = 0
        self.last_evaluation: dict[str, float] = {}
        self.best: KeepBest | None = None
        self._pace: Pace | None = None
        self._fingerprints = fingerprints
        self._positions: list[checkpoints.Position] = []
        options = options or TrainingOptions()
        self._neftune_alpha = options.neftune_noise_alpha
        self.guard = StepGuard(self.accelerator, options.nan_policy, options.max_skips or MAX_SKIPS, self._keep_before)
        self.add_callback(EvaluateBeforeSave())

    def take_up(self, checkpoint: Path) -> bool:
        """Restore the figures of a checkpoint, and return whether steps are left; if so, `train` goes on from it.

        Where none are left the weights are restored as well: transformers would take one more step.
        """
        self._begun_at = checkpoints.step_of(checkpoint)
        self._go_on(checkpoint)
        state = transformers.TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if self._begun_at < state.max_steps:
            return True
        self.state = state
        checkpoints.load_weights(checkpoint, self.model)
        self.log({"train_loss": 0.0})
        return False

    def _go_on(self, checkpoint: Path) -> None:
        """Restore the figures of a checkpoint; the first process takes those of all, which are summed when logged."""
        saved, plain = checkpoints.load_tensors(checkpoint), checkpoints.load_plain(checkpoint)
        self.guard.go_on(saved, plain["skipped"])
        self.last_evaluation = plain["last_evaluation"]
        if self.best is not None and plain["best"]:
            self.best.go_on(saved, plain["best"])
        if self.accelerator.is_main_process:
            self._watched.restart([saved["watched"].to(self.args.device)])

    def _maybe_log_save_evaluate(self, *others: Any, **named: Any) -> None:
        super()._maybe_log_save_evaluate(*others, **named)
        now = checkpoints.position(self.state, self.lr_scheduler, len(self._watched.passes))
        # The step before the last one is kept too: on a GPU, that a step was bad is known one step later.
        self._positions = [each for each in self._positions if each.step == now.step - 1] + [now]

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self.save_at(checkpoints.position(self.state, self.lr_scheduler, len(self._watched.passes)))

    def save_at(self, position: checkpoints.Position) -> Path:
        """Write a checkpoint of the weights as they are, at a position; all processes call it."""
        self.guard.settle()
        folder = Path(self.args.output_dir)
        rows = self._gathered(self._watched.passes[: position.watched])
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
        return total  # stays on the device, without synchronisation

    def training_step(
        self, model: torch.nn.Module, inputs: Packs, num_items_in_batch: int | torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run forward and backward over the passes of a batch and return its loss, [].

        The loss is the sum over pairs, divided by the `num_items_in_batch` pairs of the optimizer step, so that the
        losses and gradients of its batches add up to the mean. Where memory runs out, the whole step is computed again
        in smaller passes. Errors: `ResourceError` where one pair does not fit.
        """
        model.train()
        packs = self._passes.begin(inputs)
        pairs = packs["num_pairs"] if num_items_in_batch is None else num_items_in_batch
        total = torch.zeros((), device=self.args.device)
        scored: ScoredLoss | None = None
        loss: torch.Tensor | None = None
        try:
            packs = self._prepare_inputs(packs)
            kl = self._estimate_kl(packs["partners"])
            batch_sorting.add_to_passes(self._loss, self._scores, packs["packs"])
            for number, batch in enumerate(packs["packs"], start=1):
                add_estimate(batch, kl)
                # Processes average their gradients once, in the backward pass of the last pass.
                last = number == len(packs["packs"])
                with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                    with noisy_embeddings(self.model, batch, self._neftune_alpha):
                        scored = pair_loss(model, own_scores, self._loss, batch)
                    # Data parallelism divides the sum of gradients by the number of processes: this undoes it.
                    loss = scored.result.loss.sum() * self.accelerator.num_processes / pairs
                    self.accelerator.backward(loss)
                self.guard.see_rows(scored.result.loss)
                self._watched.passes.append(watch(*scored))
                total += loss.detach()
            return self.guard.see_batch(total, packs["ids"])
        except (RuntimeError, MemoryError) as error:
            if not halving.is_exhausted(error):
                raise
            problem = first_line(error)
        # The error is gone and with it the frames that hold tensors; these two would keep the graph of the failed pass.
        scored = loss = None
        return self._step_in_smaller_passes(model, num_items_in_batch, problem)

    def _step_in_smaller_passes(
        self, model: torch.nn.Module, num_items_in_batch: int | torch.Tensor | None, problem: str
    ) -> torch.Tensor:
        """Compute the batches of the current step again in passes of half the size; return the loss of the last one."""
        self.model.zero_grad()
        self.guard.forget_step()
        self._watched.forget_step()
        for packs in self._passes.halved(self.accelerator.num_processes, problem):
            loss = self.training_step(model, packs, num_items_in_batch)
        return loss

    def _estimate_kl(self, partners: Sequence[PairBatch]) -> torch.Tensor | None:
        """Return the KL estimate of a batch, [], given its prompts with responses to others; None where not needed."""
        if self._kl_estimate is None:
            return None
        with self.accelerator.autocast():
            estimate = self._kl_estimate(self.accelerator.unwrap_model(self.model).model, partners)
        mean: torch.Tensor = self.accelerator.reduce(estimate, "mean")
        return mean

    def _scores(self, batch: PairBatch) -> PairScores:
        """Return the scores of a pass outside the training itself: without the wrapper that joins processes."""
        with self.accelerator.autocast():
            return own_scores(self.accelerator.unwrap_model(self.model), self._prepare_inputs(batch))

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Return the norm of the gradient, after deciding whether the step is taken: no other hook lies in between."""
        norm = super()._get_grad_norm(model, grad_norm)
        taken = self.guard.decide(self.state.global_step + 1, norm, self.optimizer)
        self._passes.end_step()
        self._watched.end_step(taken)
        return norm

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
        self.model.eval()
        kl = self._estimate_kl([self._prepare_inputs(batch) for batch in self._passes.partners(mine)])

        def of_pass(batch: PairBatch) -> ScoredLoss:
            batch = self._prepare_inputs(batch)
            add_estimate(batch, kl)
            return pair_loss(self.model, own_scores, self._loss, batch)

        places: list[int] = []
        losses: list[torch.Tensor] = []
        watched: list[torch.Tensor] = []
        passes = (self._passes.max_tokens, self._passes.row_format, "held-out pairs", self._passes.weights)
        with torch.no_grad(), self.accelerator.autocast():
            rows = batch_sorting.with_columns(
                self._loss, self._scores, mine, lambda read: computed(read, mine, *passes)
            )
            for indices, scored in computed(of_pass, rows, *passes):
                places += indices
                losses.append(scored.result.loss)
                watched.append(watch(*scored))
        total = sum((each.sum() for each in losses), torch.zeros((), dtype=torch.float64, device=self.args.device))
        loss = self.accelerator.reduce(total, "sum").item() / len(pairs)
        if not math.isfinite(loss):
            self._refuse_evaluation([mine[place].id for place in places], torch.cat(losses))
        metrics = {"loss": loss, **figures(self._gathered(watched)), **self._interval(pairs, places, watched)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
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

    def _interval(
        self, pairs: Sequence[PairTokens], places: Sequence[int], watched: Sequence[torch.Tensor]
    ) -> dict[str, float]:
        """Return the interval of the accuracy on `pairs`, of which this process has `watched` those at its `places`."""
        won = torch.zeros(len(pairs), dtype=torch.float64, device=self.args.device)
        mine = torch.tensor(places) * self.accelerator.num_processes + self.accelerator.process_index
        won[mine.to(won.device)] = wins(torch.cat([*watched]))
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
            logs.update(figures(self._gathered(self._watched.restart())))
        super().log(logs, start_time)
        self._log({"step": self.state.global_step, **logs})
        if not draws_bars():
            step, of = self.state.global_step, self.state.max_steps
            self._pace = self._pace or Pace(of, step)  # begins after the first step, which is slower than the others
            left = self._pace.left(step) if "loss" in logs else ""
            say(f"step {step}/{of}: {', '.join(filter(None, (line(logs), left)))}")

    def _gathered(self, watched: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return what was watched by all processes, [rows, COLUMNS]."""
        none = torch.zeros((0, COLUMNS), dtype=torch.float64, device=self.args.device)
        # Processes hold different numbers of rows; the rows that fill them up are NaN throughout, and count nowhere.
        padded = self.accelerator.pad_across_processes(torch.cat([none, *watched]), pad_index=float("nan"))
        gathered: torch.Tensor = self.accelerator.gather(padded)
        return gathered


@contextlib.contextmanager
def _config_kept(model: Any) -> Iterator[None]:
    """Undo inside changes to the configuration of a model, which would be saved with it: a trainer sets `use_cache`."""
    before = dict(vars(model.config))
    try:
        yield
    finally:
        vars(model.config).clear()
        vars(model.config).update(before)
