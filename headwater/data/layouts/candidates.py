"""Layouts with several responses to one prompt, each with a score; preference variance is computed from them."""

from __future__ import annotations

from headwater.data.layouts.dialogues import dialogue_turns
from headwater.data.layouts.fields import complete, items, kind, listed, number, text
from headwater.data.layouts.layout import Broken, CandidatesDraft, Fields
from headwater.data.layouts.messages import instructed, prompt, with_system
from headwater.data.preference import Message, Response


def ultrafeedback(fields: Fields) -> CandidatesDraft:
    """UltraFeedback (OpenBMB): the `completions` of several models, scored by `overall_score`.

    Where that is null, `fine-grained_score`, the mean over the aspects, is the score. headwater writes this form too,
    with `complete` for whether a response is complete.
    """
    return CandidatesDraft(
        instructed(fields),
        tuple(
            Response(text(item, "response"), _ultrafeedback_score(item), complete(item, "complete"))
            for item in items(fields, "completions")
        ),
    )


def _ultrafeedback_score(item: Fields) -> float | None:
    overall = number(item, "overall_score")
    return number(item, "fine-grained_score") if overall is None else overall


def nectar(fields: Fields) -> CandidatesDraft:
    r"""Nectar (Berkeley): a dialogue up to `\n\nAssistant:`, and `answers` with a `rank`, 1 for the best.

    The score is the negative rank, so that more is better here too: it orders responses, its differences mean nothing.
    """
    turns = dialogue_turns(text(fields, "prompt"), "prompt")
    if turns and turns[-1] == Message("assistant", ""):
        turns = turns[:-1]
    if not turns or turns[-1].role != "user":
        raise Broken(
            "prompt does not end where an answer is due",
            r"expected \n\nHuman: … \n\nAssistant:",
            code="NO_ASSISTANT_TURN",
        )
    return CandidatesDraft(
        with_system(fields, turns),
        tuple(Response(text(item, "answer"), _negative(number(item, "rank"))) for item in items(fields, "answers")),
    )


def _negative(rank: float | None) -> float | None:
    return None if rank is None else -rank


def alpaca_eval_responses(fields: Fields) -> CandidatesDraft:
    """AlpacaEval, many models: `responses` with `pref`, the judge's probability that each beats `baseline_output`.

    The baseline's own answer is not one of the candidates: it has no judgement.
    """
    return CandidatesDraft(
        instructed(fields),
        tuple(Response(text(item, "output"), number(item, "pref")) for item in items(fields, "responses")),
    )


def best_of_n(fields: Fields) -> CandidatesDraft:
    """RewardBench best-of-16: `outputs`; `pref_vs_reference` holds P(better than the reference), or null."""
    outputs, scores = (_list(fields, column) for column in ("outputs", "pref_vs_reference"))
    if len(outputs) != len(scores):
        raise Broken(f"{len(outputs)} outputs and {len(scores)} pref_vs_reference", "expected one for each")
    rows = [{"outputs": output, "pref_vs_reference": score} for output, score in zip(outputs, scores, strict=True)]
    return CandidatesDraft(
        instructed(fields),
        tuple(Response(text(row, "outputs"), number(row, "pref_vs_reference")) for row in rows),
    )


def _list(fields: Fields, column: str) -> list[object]:
    value = listed(fields, column)
    if not isinstance(value, list):
        raise Broken(f"{column} is {kind(value)}", "expected a list")
    return value


def distilabel(fields: Fields) -> CandidatesDraft:
    """distilabel: `generations` of several models, and their `ratings` (in early versions `rating`)."""
    column = "ratings" if "ratings" in fields else "rating"
    texts, ratings = _list(fields, "generations"), _list(fields, column)
    if len(texts) != len(ratings):
        raise Broken(f"{len(texts)} generations and {len(ratings)} {column}", "expected one for each")
    rows = [{"generations": output, column: rating} for output, rating in zip(texts, ratings, strict=True)]
    asked = instructed(fields) if "instruction" in fields else prompt(fields, "input")
    return CandidatesDraft(
        asked, tuple(Response(text(row, "generations"), number(row, column)) for row in rows if _said(row))
    )


def _said(row: Fields) -> bool:
    """Return whether a model answered: distilabel stores null where it failed."""
    return row["generations"] is not None


def stack_exchange(fields: Fields) -> CandidatesDraft:
    """Stack Exchange (HuggingFaceH4/stack-exchange-preferences): `answers` with `pm_score`, from votes and acceptance.

    Texts are HTML, as published.
    """
    return CandidatesDraft(
        prompt(fields, "question"),
        tuple(Response(text(item, "text"), number(item, "pm_score")) for item in items(fields, "answers")),
    )
