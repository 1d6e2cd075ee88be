"""The table of layouts: their columns, what tells them apart, and their readers. ★ A newcomer adds a line here.

The names are the values of `--format`; they do not change.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from headwater.data.layouts import (
    candidates,
    comparisons,
    demonstrations,
    judged,
    pairs,
    rated,
    trainers,
    trees,
    unpaired,
    verdicts,
)
from headwater.data.layouts.dialogues import is_dialogue
from headwater.data.layouts.layout import MESSAGE_KEYS, Fields, Layout
from headwater.data.layouts.messages import is_whole_conversation
from headwater.data.layouts.unread import SYSTEM_COLUMNS


def _has_conversations(fields: Fields) -> bool:
    return is_whole_conversation(fields["chosen"])


def _has_answers(fields: Fields) -> bool:
    return not is_whole_conversation(fields["chosen"])


def _has_dialogues(fields: Fields) -> bool:
    return is_dialogue(fields["chosen"]) and is_dialogue(fields["rejected"])


def _has_no_dialogues(fields: Fields) -> bool:
    return not _has_dialogues(fields)


def _is_compared(fields: Fields) -> bool:
    return comparisons.verdict_of(fields) is not None and any(name in fields for name in trainers.QUESTIONS)


def _is_rated(fields: Fields) -> bool:
    return rated.score_of(fields) is not None and ("prompt" in fields) != ("instruction" in fields)


def _is_tree(fields: Fields) -> bool:
    return isinstance(fields["prompt"], dict)


_PAIR = ("chosen", "rejected")
_ALPACA = (*SYSTEM_COLUMNS, *pairs.ALPACA)
_PROMPTS = ("prompt", "instruction", "conversations", "question", "input", "messages")
_COMPLETION = ("response", "overall_score", "fine-grained_score", "complete")
_LABELS = ("label", "kto_tag", "is_safe")
_COMPARED = (*_PAIR, "accepted", "rejected_response", "rejected_messages", "chosen_messages")


def _pair(columns: tuple[str, ...], read: Any, *recognise: Any, **more: Any) -> Layout:
    """Return a layout whose columns say which response is better."""
    return Layout(columns, read, *recognise, **{"reads": pairs.READS} | more)


def _judged(columns: tuple[str, ...], read: Any, **more: Any) -> Layout:
    """Return a layout of two responses and a verdict."""
    return Layout(columns, read, **{"reads": SYSTEM_COLUMNS} | more)


def _candidates(columns: tuple[str, ...], read: Any, **more: Any) -> Layout:
    """Return a layout of several responses to one prompt."""
    return Layout(columns, read, yields="candidates", **{"reads": SYSTEM_COLUMNS} | more)


def _labelled(columns: tuple[str, ...], read: Any, **more: Any) -> Layout:
    """Return a layout of one response and a label."""
    return Layout(columns, read, yields="unpaired", **{"reads": SYSTEM_COLUMNS} | more)


def _shown(columns: tuple[str, ...], read: Any, *without: str, **more: Any) -> Layout:
    """Return a layout of one response without a label."""
    return _labelled(columns, read, without=(*_LABELS, *_COMPARED, *without), **more)


def _pairwise(first: str, second: str, numbers: verdicts.Numbers) -> Layout:
    """Return a layout of two responses, a prompt, and a verdict or several votes, whatever the names of these."""
    read = partial(comparisons.pairwise, first=first, second=second, numbers=numbers)
    reads = (*_ALPACA, *trainers.QUESTIONS, *comparisons.VERDICTS)
    told_by = (*trainers.QUESTIONS, *comparisons.VERDICTS)
    column = comparisons.verdict_of if numbers is verdicts.ONE_TO_TWO else None
    return Layout((first, second), read, _is_compared, reads=reads, told_by=told_by, one_to_two=column)


LAYOUTS: dict[str, Layout] = {
    # A pair, whose columns say which response is better
    "explicit-prompt": _pair(("prompt", *_PAIR), pairs.explicit, _has_answers),
    "prompt-and-conversations": _pair(("prompt", *_PAIR), pairs.prompt_and_conversations, _has_conversations),
    "implicit-prompt": _pair(_PAIR, pairs.implicit, _has_no_dialogues, without=_PROMPTS),
    "hh": _pair(_PAIR, pairs.hh, _has_dialogues, without=_PROMPTS),
    "argilla": _pair(
        ("instruction", "chosen_response", "rejected_response"), pairs.argilla, reads=pairs.READS + pairs.ALPACA
    ),
    "llamafactory-alpaca": _pair(
        ("instruction", *_PAIR), trainers.llamafactory_alpaca, _has_answers, reads=pairs.READS + pairs.ALPACA
    ),
    "llamafactory-sharegpt": _pair(("conversations", *_PAIR), trainers.llamafactory_sharegpt),
    "messages-prompt": _pair(("messages", *_PAIR), trainers.messages_prompt, without=("prompt",)),
    "orca": _pair(("question", *_PAIR), trainers.orca, without=("prompt", "instruction")),
    "distilabel-orca": _pair(
        ("input", *_PAIR),
        trainers.distilabel_orca,
        without=("prompt", "instruction", "question"),
        reads=(*pairs.READS, "status"),
    ),
    "openai": _pair(
        ("input", "preferred_output", "non_preferred_output"),
        trainers.openai,
        items=(*MESSAGE_KEYS, "messages", "tools"),
    ),
    "swift": _pair(("messages", "rejected_response"), trainers.swift),
    "swift-messages": _pair(("messages", "rejected_messages"), trainers.swift_messages, without=("chosen_messages",)),
    "swift-query": _pair(
        ("query", "response", "rejected_response"), trainers.swift_query, reads=pairs.READS + pairs.ALPACA
    ),
    "chosen-messages": _pair(
        ("chosen_messages", "rejected_messages"),
        trainers.chosen_messages,
        reads=(*pairs.READS, *trainers.QUESTIONS, "messages", "conversations"),
    ),
    "accepted-rejected": _pair(
        ("accepted", "rejected"),
        trainers.accepted_rejected,
        reads=(*pairs.READS, *pairs.ALPACA, *trainers.QUESTIONS),
        told_by=trainers.QUESTIONS,
    ),
    "stack-exchange-paired": _judged(("question", "response_j", "response_k"), comparisons.stack_exchange_paired),
    # Two responses, and a column with the verdict
    "align-anything": _judged(("question", "response_1", "response_2", "overall_response"), judged.align_anything),
    "pku-saferlhf": _judged(("prompt", "response_0", "response_1", "better_response_id"), judged.pku_saferlhf),
    "shp": _judged(
        ("history", "human_ref_A", "human_ref_B", "labels"), judged.shp, reads=("score_A", "score_B", *SYSTEM_COLUMNS)
    ),
    "helpsteer2": _judged(("prompt", "response_1", "response_2", "preference_strength"), judged.helpsteer2),
    "helpsteer3": _judged(("context", "response1", "response2", "overall_preference"), judged.helpsteer3),
    "chatbot-arena": _judged(("conversation_a", "conversation_b", "winner"), judged.chatbot_arena),
    "arena-human-preference": _judged(
        ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"),
        judged.arena_human_preference,
    ),
    "alpaca-eval": _judged(
        ("instruction", "output_1", "output_2", "preference"),
        judged.alpaca_eval,
        reads=_ALPACA,
        one_to_two=lambda _: "preference",
    ),
    "llmbar": _judged(("input", "output_1", "output_2", "label"), judged.llmbar),
    "webgpt": _judged(
        ("question", "answer_0", "answer_1", "score_0", "score_1"), comparisons.webgpt, items=("full_text",)
    ),
    "summarize-from-feedback": _judged(
        ("info", "summaries", "choice"),
        comparisons.summarize_from_feedback,
        items=("text", "post", "title", "subreddit", "article"),
    ),
    "prometheus": _judged(
        ("orig_instruction", "orig_response_A", "orig_response_B", "orig_preference"),
        comparisons.prometheus,
        reads=("orig_score_A", "orig_score_B", *SYSTEM_COLUMNS),
        skips=("instruction", "input", "output"),
    ),
    "multipref": _judged(
        ("text", "completion_a", "completion_b", "normal_worker_annotations", "expert_worker_annotations"),
        comparisons.multipref,
        items=("overall_pref",),
    ),
    "pairwise-a-b": _pairwise("response_a", "response_b", verdicts.WORDS_ONLY),
    "pairwise-1-2": _pairwise("response_1", "response_2", verdicts.ONE_TO_TWO),
    "pairwise-0-1": _pairwise("response_0", "response_1", verdicts.ZERO_OR_ONE),
    # Several responses with scores
    "ultrafeedback": _candidates(
        ("instruction", "completions"),
        candidates.ultrafeedback,
        reads=_ALPACA,
        items=(*_COMPLETION, *MESSAGE_KEYS),
    ),
    "nectar": _candidates(("prompt", "answers"), candidates.nectar, items=("answer", "rank")),
    "alpaca-eval-responses": _candidates(
        ("instruction", "baseline_output", "responses"),
        candidates.alpaca_eval_responses,
        reads=_ALPACA,
        items=("output", "pref"),
        skips=("baseline_output",),
    ),
    "best-of-n": _candidates(("instruction", "outputs", "pref_vs_reference"), candidates.best_of_n, reads=_ALPACA),
    "distilabel": _candidates(
        ("instruction", "generations", "ratings"), candidates.distilabel, reads=_ALPACA, without=_PAIR
    ),
    "distilabel-0": _candidates(("input", "generations", "rating"), candidates.distilabel, without=_PAIR),
    "stack-exchange": _candidates(("question", "answers"), candidates.stack_exchange, items=("text", "pm_score")),
    # One rated response, or one message of a tree, a row
    "helpsteer-ratings": _candidates(
        ("prompt", "response", "helpfulness", "correctness"),
        rated.helpsteer_ratings,
        skips=("correctness",),
        together=rated.BY_PROMPT,
    ),
    "rated-responses": _candidates(
        ("response",),
        rated.rated,
        recognise=_is_rated,
        without=(*_LABELS, *_COMPARED, "helpfulness"),
        reads=(*_ALPACA, "prompt", "instruction", *rated.SCORES),
        told_by=("prompt", "instruction", *rated.SCORES),
        together=rated.BY_PROMPT,
    ),
    "oasst-trees": _candidates(
        ("message_tree_id", "prompt"),
        trees.tree,
        recognise=_is_tree,
        items=("replies", "role", "text", "rank", "deleted"),
        together=trees.QUESTIONS_OF_TREES,
    ),
    "oasst": _candidates(
        ("message_id", "parent_id", "message_tree_id", "role", "text"),
        trees.message_row,
        reads=("rank", "deleted"),
        together=trees.QUESTIONS_OF_TREES,
    ),
    # One response and a label
    "unpaired": _labelled(
        ("prompt", "completion", "label"), unpaired.unpaired, reads=("score", "complete", *SYSTEM_COLUMNS)
    ),
    "llamafactory-kto": _labelled(("messages", "label"), unpaired.llamafactory_kto),
    "llamafactory-kto-sharegpt": _labelled(("conversations", "kto_tag"), unpaired.llamafactory_kto_sharegpt),
    "llamafactory-kto-alpaca": _labelled(
        ("instruction", "output", "kto_tag"), unpaired.llamafactory_kto_alpaca, reads=_ALPACA
    ),
    "beavertails": _labelled(("prompt", "response", "is_safe"), unpaired.beavertails),
    # One response without a label
    "messages": _shown(("messages",), demonstrations.messages),
    "conversations": _shown(("conversations",), demonstrations.conversations),
    "alpaca": _shown(
        ("instruction", "output"), demonstrations.alpaca, "orig_instruction", reads=(*_ALPACA, "complete")
    ),
    "query-response": _shown(("query", "response"), demonstrations.query_response, reads=_ALPACA),
    "prompt-completion": _shown(("prompt", "completion"), demonstrations.prompt_completion),
    "prompt-response": _shown(("prompt", "response"), demonstrations.prompt_response, *rated.SCORES, "helpfulness"),
}
