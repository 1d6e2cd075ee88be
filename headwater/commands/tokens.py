"""Show one row token by token: prompt and response, the place of the cut, and the tokens in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from rich.text import Text

from headwater.commands._flags import DataFlags
from headwater.config import POSITIONAL
from headwater.console import show
from headwater.data import reading
from headwater.data.preference import Preference, Response
from headwater.data.templates import renders_conversations
from headwater.data.tokenizers import Tokenizer, load_tokenizer
from headwater.data.tokens import closing_tokens, render, token_ends, tokenize
from headwater.data.truncation import truncate
from headwater.data.truncation_options import TruncationOptions
from headwater.data.turns import closing_of
from headwater.errors import UsageError
from headwater.reporting.lens.pieces import Piece, pieces_of_row

EXAMPLE = "headwater tokens pairs.jsonl --row 3 --tokenizer Qwen/Qwen2.5-0.5B-Instruct --keep 40%"

HELP = {
    "Input": ("data", "row", "split"),
    "Model": ("tokenizer", "chat_template"),
    "Truncation": ("keep", "cut", "max_length"),
}


@dataclass(frozen=True, kw_only=True)
class Config(DataFlags):
    """Flags of `headwater tokens`."""

    data: Annotated[Path, POSITIONAL]
    """Preference pairs: a file, directory, pattern, run, or name on the hub."""
    row: int = 1
    """Number of the row to show, from 1, among those that were read."""
    tokenizer: str = "scratch(vocab=4096)"
    """Tokenizer: Hugging Face name or path, or scratch(vocab=…) for one trained on the data."""
    seed: int = 42
    """Random seed of the place of a random span."""
    truncation: TruncationOptions = field(default_factory=TruncationOptions)


@renders_conversations
def run(config: Config) -> str:
    """Print the row, and return what was printed as plain text."""
    encode_options = config.truncation.encode_options(config.seed)
    preferences = reading.load(config.data, config.read_options).preferences
    if not 1 <= config.row <= len(preferences):
        raise UsageError(f"--row {config.row}", f"the data holds {len(preferences)} preferences", "count from 1")
    whole = preferences[config.row - 1]
    tokenizer = load_tokenizer(config.tokenizer, preferences)
    shortened = truncate([whole], encode_options.truncation, token_ends(tokenizer))
    if not shortened.preferences:
        raise UsageError(whole.id, f"is dropped by this cut ({', '.join(shortened.row_counts.dropped)})", "keep more")
    text = marked(whole, shortened.preferences[0], tokenizer, config)
    show(text)
    return text.plain


def marked(whole: Preference, kept: Preference, tokenizer: Tokenizer, config: Config) -> Text:
    """Mark a row: `|` separates tokens, `✂` marks the cut; only response tokens are in the loss.

    The text is that of the rendered row, as it was encoded: `{2}` follows characters that are two tokens together.
    """
    encode_options = config.truncation.encode_options(config.seed)
    pairs, row_counts, notes = tokenize([kept], tokenizer, encode_options.longest, encode_options.end)
    if not pairs:
        raise UsageError(whole.id, f"is dropped ({', '.join(row_counts.dropped)})", *row_counts.first.values())
    (pair,) = pairs
    text, closing = Text(), closing_tokens(tokenizer, encode_options.end)
    rules = "".join(f" · {note}" for note in notes)
    text.append(
        f"{whole.id} · keep {config.truncation.keep}, "
        f"cut {encode_options.truncation.cut}, end {encode_options.end}{rules}\n",
        "bold",
    )
    text.append(f"\nprompt · {len(pair.prompt)} tokens, not in the loss\n", "bold")
    rows = [render(kept, each, tokenizer, encode_options.end) for each in kept.responses]
    pieces = [pieces_of_row(row, tokenizer, len(pair.prompt)) for row in rows]
    text.append(_joined(pieces[0][0]) + "\n", "dim")
    for side, ids, scored, part, full, (_, said) in (
        ("chosen", pair.chosen, pair.scored[0], kept.chosen, whole.chosen, pieces[0]),
        ("rejected", pair.rejected, pair.scored[1], kept.rejected, whole.rejected, pieces[1]),
    ):
        ends = "with its end token" if closing_of(ids, closing) else "no end token"
        counted = "all" if scored == len(ids) else f"{scored} of the assistant's turns"
        text.append(f"\n{side} · {len(ids)} tokens, {counted} in the loss, {ends}\n", "bold")
        before, after = _cut_off(part, full)
        text.append(f"{before} ✂ " if before else "", "strike dim")
        text.append(_joined(said), "green" if side == "chosen" else "yellow")
        text.append(f" ✂ {after}" if after else "", "strike dim")
        text.append("\n")
    return text


def _joined(pieces: Sequence[Piece]) -> str:
    """Join pieces; a piece of several tokens, which share characters, is followed by their number."""
    shown = (piece.text.replace("\n", "⏎") + (f"{{{piece.tokens}}}" if piece.tokens > 1 else "") for piece in pieces)
    return "|".join(shown)


def _cut_off(part: Response, full: Response) -> tuple[str, str]:
    """Return the text of a response before and after what was kept."""
    said, whole = part.shown, full.shown
    if len(said) == len(whole):
        return "", ""
    start = whole.find(said)
    before, after = whole[:start], whole[start + len(said) :]
    return before.replace("\n", "⏎"), after.replace("\n", "⏎")
