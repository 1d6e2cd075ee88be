"""The table of layouts: their columns, what tells them apart, and their readers. ★ A newcomer adds a line here.

The names are the values of `--format`; they do not change.
"""

from __future__ import annotations

from headwater.data.layouts import candidates, judged, pairs, unpaired
from headwater.data.layouts.dialogues import is_dialogue
from headwater.data.layouts.layout import Fields, Layout
from headwater.data.layouts.messages import is_whole_conversation


def _has_conversations(fields: Fields) -> bool:
    return is_whole_conversation(fields["chosen"])


def _has_answers(fields: Fields) -> bool:
    return not is_whole_conversation(fields["chosen"])


def _has_dialogues(fields: Fields) -> bool:
    return is_dialogue(fields["chosen"]) and is_dialogue(fields["rejected"])


def _has_no_dialogues(fields: Fields) -> bool:
    return not _has_dialogues(fields)


_PAIR = ("chosen", "rejected")
_PROMPTS = ("prompt", "instruction", "conversations")

_SYSTEM = ("system",)
_COMPLETION = ("response", "overall_score", "fine-grained_score", "complete")

LAYOUTS: dict[str, Layout] = {
    # A pair, whose columns say which response is better
    "explicit-prompt": Layout(("prompt", *_PAIR), pairs.explicit, _has_answers, reads=pairs.READS),
    "prompt-and-conversations": Layout(
        ("prompt", *_PAIR),
        pairs.prompt_and_conversations,
        _has_conversations,
        reads=pairs.READS,
    ),
    "implicit-prompt": Layout(_PAIR, pairs.implicit, _has_no_dialogues, without=_PROMPTS, reads=pairs.READS),
    "hh": Layout(_PAIR, pairs.hh, _has_dialogues, without=_PROMPTS, reads=pairs.READS),
    "argilla": Layout(
        ("instruction", "chosen_response", "rejected_response"), pairs.argilla, reads=pairs.READS + pairs.ALPACA
    ),
    "llamafactory-alpaca": Layout(("instruction", *_PAIR), pairs.llamafactory_alpaca, reads=pairs.READS + pairs.ALPACA),
    "llamafactory-sharegpt": Layout(("conversations", *_PAIR), pairs.llamafactory_sharegpt, reads=pairs.READS),
    # Two responses, and a column with the verdict
    "align-anything": Layout(
        ("question", "response_1", "response_2", "overall_response"), judged.align_anything, reads=_SYSTEM
    ),
    "pku-saferlhf": Layout(
        ("prompt", "response_0", "response_1", "better_response_id"), judged.pku_saferlhf, reads=_SYSTEM
    ),
    "shp": Layout(
        ("history", "human_ref_A", "human_ref_B", "labels"), judged.shp, reads=("score_A", "score_B", *_SYSTEM)
    ),
    "helpsteer2": Layout(
        ("prompt", "response_1", "response_2", "preference_strength"), judged.helpsteer2, reads=_SYSTEM
    ),
    "helpsteer3": Layout(("context", "response1", "response2", "overall_preference"), judged.helpsteer3, reads=_SYSTEM),
    "chatbot-arena": Layout(("conversation_a", "conversation_b", "winner"), judged.chatbot_arena, reads=_SYSTEM),
    "arena-human-preference": Layout(
        ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"),
        judged.arena_human_preference,
        reads=_SYSTEM,
    ),
    "alpaca-eval": Layout(
        ("instruction", "output_1", "output_2", "preference"), judged.alpaca_eval, reads=_SYSTEM + pairs.ALPACA
    ),
    "llmbar": Layout(("input", "output_1", "output_2", "label"), judged.llmbar, reads=_SYSTEM),
    # Several responses with scores
    "ultrafeedback": Layout(
        ("instruction", "completions"),
        candidates.ultrafeedback,
        yields="candidates",
        reads=_SYSTEM + pairs.ALPACA,
        items=(*_COMPLETION, "role", "content"),
    ),
    "nectar": Layout(
        ("prompt", "answers"), candidates.nectar, yields="candidates", reads=_SYSTEM, items=("answer", "rank")
    ),
    "alpaca-eval-responses": Layout(
        ("instruction", "baseline_output", "responses"),
        candidates.alpaca_eval_responses,
        yields="candidates",
        reads=_SYSTEM + pairs.ALPACA,
        items=("output", "pref"),
    ),
    "best-of-n": Layout(
        ("instruction", "outputs", "pref_vs_reference"),
        candidates.best_of_n,
        yields="candidates",
        reads=_SYSTEM + pairs.ALPACA,
    ),
    # One response and a label
    "unpaired": Layout(
        ("prompt", "completion", "label"),
        unpaired.unpaired,
        yields="unpaired",
        reads=("score", "complete", *_SYSTEM),
    ),
    "llamafactory-kto": Layout(("messages", "label"), unpaired.llamafactory_kto, yields="unpaired", reads=_SYSTEM),
    "llamafactory-kto-sharegpt": Layout(
        ("conversations", "kto_tag"), unpaired.llamafactory_kto_sharegpt, yields="unpaired", reads=_SYSTEM
    ),
    "llamafactory-kto-alpaca": Layout(
        ("instruction", "output", "kto_tag"),
        unpaired.llamafactory_kto_alpaca,
        yields="unpaired",
        reads=_SYSTEM + pairs.ALPACA,
    ),
}
