"""Show how far a policy has moved from its reference, position by position: KL(policy ‖ reference) in nats.

Along the responses of the data (what alignment did to these texts), or along the policy's own samples (summed, an
unbiased estimate of the KL between the two). Beside it stands the mean log-ratio of the tokens themselves, of chosen
and rejected responses: towards which texts the policy moved, and where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.table import Table

from headwater import files
from headwater.config import POSITIONAL
from headwater.console import say, say_notes, say_stages, show
from headwater.data import reading
from headwater.data.preparation import PrepLog
from headwater.data.reading import ReadOptions
from headwater.data.templates import renders_conversations
from headwater.data.tokens import TOKENS_PER_PASS, EncodeOptions, PairTokens
from headwater.data.truncation import Truncation
from headwater.errors import ModelError, UsageError
from headwater.results import runs
from headwater.statistics import LEVEL

if TYPE_CHECKING:
    from headwater.signal.divergence import Profile, Stretch
    from headwater.signal.passes import TwoPolicies

EXAMPLE = "headwater divergence --model runs/dpo --dataset pairs.jsonl"
PROFILE = "divergence.json"
"""In the run: the divergence by position and its shares, for every estimator, with n and interval."""
SAMPLED_AT_ONCE = 16

HELP = {
    "Input": ("model", "dataset", "reference", "split", "limit"),
    "Output": ("output", "overwrite"),
    "Measurement": ("along", "max_new_tokens", "max_length", "tokens_per_pass", "seed"),
}
"""Options that `--help` shows, by group; `--help-all` shows the others too."""


@dataclass(frozen=True)
class Config:
    """Flags of `headwater divergence`."""

    model: Annotated[str, POSITIONAL]
    """Policy: a training run, path or Hugging Face name."""
    dataset: Annotated[Path, POSITIONAL]
    """Preference pairs, whose prompts and responses are scored: a file, directory, pattern, run, or name on the hub."""
    output: Path | None = None
    """Directory of the run. Default: ./MODEL-divergence-on-DATASET."""
    reference: str | None = None
    """Model to compare the policy with. Default: the reference that its training run names."""
    along: Literal["texts", "samples"] = "texts"
    """Responses along which KL is measured: texts are both responses of every pair; samples, two responses that the
    policy draws to every prompt."""
    draws: int = 0
    """Monte-Carlo draws a position, to compare with the exact sum over the vocabulary; 0 for none."""
    max_new_tokens: int | None = None
    """Maximum number of tokens of a sample. Default: 256."""
    max_length: int | None = None
    """Maximum number of tokens of a prompt with its longer response; longer pairs are dropped and counted. Default:
    2048, or the number of positions of both models if that is less."""
    tokens_per_pass: int = TOKENS_PER_PASS
    """Maximum number of tokens in one forward pass. Changes memory use, not the result."""
    seed: int = 42
    """Random seed of samples, draws and bootstrap intervals."""
    chat_template: str | None = None
    """Chat template to use instead of the model's own: plain, chatml, or a Jinja file."""
    overwrite: bool = False
    """Replace an existing run at --output."""
    read_options: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        if self.max_new_tokens is not None and self.along == "texts":
            raise UsageError("--max-new-tokens", "is about samples", "add --along samples")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise UsageError(f"--max-new-tokens {self.max_new_tokens}", "expected 1 or more")
        if self.draws < 0:
            raise UsageError(f"--draws {self.draws}", "expected 0 or more")


@renders_conversations
def run(config: Config) -> Path:
    """Measure the divergence, print it and return the run directory."""
    from headwater.signal import passes
    from headwater.signal.divergence import by_position, profile, read_divergence, sampled_pairs

    output = config.output or Path(f"{Path(config.model).name}-divergence-on-{config.dataset.name.split('.')[0]}")
    runs.check_free(output, config.overwrite, config)
    if passes.head_of(config.model) == "reward":
        raise ModelError(config.model, "is a reward model", "name a policy")
    loaded = reading.load(config.dataset, config.read_options)
    say(f"data: {loaded.path} · {loaded.layout}")
    prep_log = PrepLog({"read": loaded.row_counts})
    encode_options = EncodeOptions(Truncation(), "complete", config.max_length)
    request = passes.Request(loaded.preferences, encode_options, config.tokens_per_pass, config.seed, prep_log)
    two = passes.both_policies(config.model, config.reference, request)
    say_stages(prep_log.stages)
    say_notes(prep_log.notes)

    writer = runs.start(output, "divergence", config, inputs=loaded.files, facts={"along": config.along})
    writer.count_stages(prep_log.stages)
    loaded.quarantine.save(writer.path / reading.QUARANTINE)
    pairs = two.pairs
    if config.along == "samples":
        tokens = config.max_new_tokens or 256
        prompts = _prompts(two, tokens, writer)
        pairs = sampled_pairs(two.policy, prompts, tokens, two.ends, SAMPLED_AT_ONCE)
    values = read_divergence(two.policy, two.reference, pairs, config.tokens_per_pass, config.draws)
    conversation_ids = [pair.conversation_id for pair in pairs for _ in range(2)]
    estimates = {"exact": values.exact}
    if values.drawn is not None:
        estimates[f"Monte-Carlo, {config.draws} draws"] = values.drawn
    found = {name: profile(each, conversation_ids, config.seed) for name, each in estimates.items()}
    # Texts are better or worse ones; both samples of a prompt are the same kind of thing.
    whose = {"chosen": slice(0, None, 2), "rejected": slice(1, None, 2)}
    whose = whose if config.along == "texts" else {"samples": slice(None)}
    log_ratios = {
        name: by_position(values.log_ratio[part], conversation_ids[part], config.seed) for name, part in whose.items()
    }
    rows = [row for name, each in found.items() for row in _rows(name, each)]
    rows += [row for name, each in log_ratios.items() for row in _log_ratio_rows(name, each)]
    files.write_json(writer.path / PROFILE, rows)
    exact = found["exact"]
    shares = {f"kl_share_of_first_{share.tokens}": share.share for share in exact.shares}
    writer.write_metrics({"kl_a_response": exact.total, **shares})
    _show(found, config)
    _show_log_ratios(log_ratios)
    return writer.finish()


def _prompts(two: TwoPolicies, tokens: int, writer: runs.RunWriter) -> list[PairTokens]:
    """Return the pairs whose prompts are drawn for: each once, and with room for `tokens`; others are counted."""
    from headwater.signal import passes

    once = list({pair.prompt.tobytes(): pair for pair in two.pairs}.values())
    found = passes.with_max_tokens(two, once, tokens)
    dropped = {"repeated_prompt": len(two.pairs) - len(once), "too_long": len(once) - len(found)}
    writer.count("prompts", len(two.pairs), len(found), dropped)
    return found


def _rows(estimator: str, found: Profile) -> list[dict[str, Any]]:
    """Return a profile as plain values, one row a figure."""
    rows = [{"what": "kl_a_token", "first": s.first, "last": s.last, **s.mean._asdict()} for s in found.stretches]
    rows += [{"what": "share", "first": 1, "last": s.tokens, **s.share._asdict()} for s in found.shares]
    rows.append({"what": "kl_a_response", "first": 1, "last": None, **found.total._asdict()})
    return [{"estimator": estimator} | row for row in rows]


def _log_ratio_rows(responses: str, found: Sequence[Stretch]) -> list[dict[str, Any]]:
    """Return the mean log-ratio by position as plain values; `responses` says of which."""
    what = {"what": "log_ratio_a_token", "responses": responses}
    return [what | {"first": s.first, "last": s.last, **s.mean._asdict()} for s in found]


def _show(found: dict[str, Profile], config: Config) -> None:
    """Print the divergence by position, and the share of the first tokens."""
    where = "the data's responses" if config.along == "texts" else "the policy's own samples"
    heads = [head for name in found for head in (name, f"{LEVEL:.0%} interval")]
    table = Table("position", *heads, "responses", title=f"KL in nats a token, along {where}", title_justify="left")
    exact = found["exact"]
    for place, stretch in enumerate(exact.stretches):
        cells = [each.stretches[place].mean for each in found.values()]
        texts = [text for kl in cells for text in (f"{kl.value:.4f}", kl.interval())]
        table.add_row(_position(stretch), *texts, str(stretch.mean.n))
    show(table)
    total = exact.total
    show(f"a response: {total.value:.4f} nats {total.interval()}, n = {total.n}")
    for share in exact.shares:
        show(f"first {share.tokens}: {share.share.value:.1%} of it {share.share.interval()}")


def _show_log_ratios(found: Mapping[str, Sequence[Stretch]]) -> None:
    """Print the mean log-ratio of the tokens at every position, a column for chosen, rejected or sampled responses."""
    heads = [head for name in found for head in (name, f"{LEVEL:.0%} interval", "n")]
    title = "mean log-ratio of policy to reference, nats a token"
    table = Table("position", *heads, title=title, title_justify="left")
    by_place: dict[int, list[str]] = {}
    positions: dict[int, str] = {}
    for number, stretches in enumerate(found.values()):
        for stretch in stretches:
            mean = stretch.mean
            positions[stretch.first] = _position(stretch)
            row = by_place.setdefault(stretch.first, [""] * len(heads))
            row[3 * number : 3 * number + 3] = [f"{mean.value:+.4f}", mean.interval(), str(mean.n)]
    for first, row in by_place.items():
        table.add_row(positions[first], *row)
    show(table)


def _position(stretch: Stretch) -> str:
    if stretch.last == stretch.first:
        return str(stretch.first)
    return f"{stretch.first} {'and on' if stretch.last is None else f'– {stretch.last}'}"
