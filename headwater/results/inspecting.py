"""Inspect a data set: read its rows once, and describe their counts, lengths, shortcuts, words and samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from headwater.data import embedding
from headwater.data.preference import Preference, Record, question_of
from headwater.data.profiling import Profile, Spread, responses_of
from headwater.data.reading import RowReader
from headwater.data.terms import LEAST, PRIOR, contrast
from headwater.results.embedding import Embedding
from headwater.results.inspection import (
    BadRows,
    HiddenCharacters,
    InspectedCounts,
    Inspection,
    Quantiles,
    SampleResponse,
    SampleRow,
    SharedBeginning,
    TermContrast,
    WordCount,
)
from headwater.statistics import Estimate

SAMPLES = 10
"""Rows that are shown."""
LONGEST = 300
"""Characters of a text that are kept; the terminal shows a line."""


def inspect_rows(row_reader: RowReader, tokenizer: str | None = None) -> tuple[Inspection, Profile]:
    """Read all rows and return what they hold, with the profile they were measured by.

    `tokenizer` also measures lengths in tokens. Errors: those of the reader, `DataError` where no row is usable.
    """
    profile = Profile()
    for record in row_reader:
        profile.add(record)
    if not profile.rows:
        raise row_reader.no_usable_rows()
    return _inspection(row_reader, profile, tokenizer), profile


def metrics(found: Inspection) -> dict[str, Estimate | float | int | str | None]:
    """Return the figures that a run keeps as metrics."""
    figures: dict[str, Estimate | float | int | str | None] = {"rows": found.row_counts.kept}
    if found.longer_wins and found.shared_beginning:
        figures["longer_wins"] = found.longer_wins
        figures["sharing_an_opening"] = found.shared_beginning.share_of_pairs
    for side, lengths in found.characters.items():
        figures[f"{side}_characters_median"] = lengths.p50
    return figures | {"near_duplicate_prompts": found.near_duplicate_prompts.having_one}


def _inspection(row_reader: RowReader, profile: Profile, tokenizer: str | None) -> Inspection:
    row_counts = row_reader.row_counts
    margins, shared = profile.margins(), profile.shared_conversations()
    return Inspection(
        data=row_reader.place,
        layout=row_reader.layout,
        holds=row_reader.yields,
        row_counts=InspectedCounts(
            row_counts.rows_in,
            row_counts.kept,
            row_counts.quarantined,
            dict(row_counts.dropped),
            row_counts.split or None,
            tuple(row_counts.not_read) or None,
            dict(row_counts.notes) or None,
        ),
        bad_rows=BadRows(dict(row_reader.quarantine.codes), row_reader.quarantine.first or None),
        turns={str(turns): rows for turns, rows in sorted(profile.turns.items())},
        with_system_turn=profile.with_system,
        hidden_characters=HiddenCharacters(profile.with_hidden, profile.hidden),
        sampled_rows=len(profile.sample),
        scripts=profile.scripts(),
        characters=_quantiles_by_side(profile.characters()),
        length_histogram=profile.length_histogram(),
        near_duplicate_prompts=profile.near_duplicates(),
        samples=tuple(sample_row(record) for record in profile.shown(SAMPLES)),
        tokens=_quantiles_by_side(_tokens(tokenizer, profile)) if tokenizer else None,
        score_margin=_quantiles(margins) if margins else None,
        longer_wins=profile.longer_wins() if shared else None,
        difference_histogram=profile.difference_histogram() if shared else None,
        terms=_terms(profile) if shared else None,
        shared_beginning=SharedBeginning(profile.sharing(), _quantiles(shared)) if shared else None,
    )


def _terms(profile: Profile) -> TermContrast:
    pairs = (record for record in profile.sample if isinstance(record, Preference))
    found = contrast((pair.chosen.words, pair.rejected.words) for pair in pairs)
    frequent = (tuple(WordCount(*word) for word in side) for side in found.frequent)
    return TermContrast(found.pairs, found.words, PRIOR, LEAST, found.chosen, found.rejected, *frequent)


def _tokens(name: str, profile: Profile) -> dict[str, Spread]:
    from headwater.data.tokenizers import load_tokenizer

    pairs = [record for record in profile.sample if isinstance(record, Preference)]
    tokenizer = load_tokenizer(name, pairs)

    def count(texts: Sequence[str]) -> Iterator[int]:
        return (len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"])

    return profile.tokens(count)


def _quantiles_by_side(spreads: Mapping[str, Spread]) -> dict[str, Quantiles]:
    return {side: _quantiles(found) for side, found in spreads.items()}


def _quantiles(found: Spread) -> Quantiles:
    return Quantiles(found.n, found.mean, *found.quantiles)


def sample_row(record: Record) -> SampleRow:
    """Return a row with the beginning of its texts."""
    prompt = question_of(record.prompt)
    responses = (
        SampleResponse(side, response.shown[:LONGEST], response.score) for side, response in responses_of(record)
    )
    return SampleRow(record.id, prompt[:LONGEST], tuple(responses))


def embed_pairs(profile: Profile, count: int, seed: int) -> Embedding:
    """Lay out the responses of some sampled pairs. Errors: `DataError` where there are no pairs, or too few."""
    every = [record for record in profile.sample if isinstance(record, Preference)]
    pairs = [every[place] for place in embedding.drawn(every, count, seed)]
    features = embedding.of_texts([response.words for pair in pairs for response in (pair.chosen, pair.rejected)])
    of = f"TF-IDF of {features.shape[1]:,} words"
    return Embedding.of_pairs([pair.id for pair in pairs], embedding.project(features, seed), of, seed)
