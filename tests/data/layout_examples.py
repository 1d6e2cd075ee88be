"""Rows of every layout in the published form, what they say, and changes that break them."""

from __future__ import annotations

from typing import Any, NamedTuple

from headwater.data.layouts import CandidatesDraft, Draft, UnpairedDraft
from headwater.data.preference import Message, Response

Fields = dict[str, Any]


class Example(NamedTuple):
    """A layout's good row with what it says, changes that break it, and what the message about it names."""

    good: Fields
    says: Draft | CandidatesDraft | UnpairedDraft
    broken: Fields
    problem: str


SYSTEM = Message("system", "Be brief.")
QUESTION = (Message("user", "Why?"),)
EARLIER = (Message("user", "Hi"), Message("assistant", "Yes?"), *QUESTION)
YES, NO = Response("Because."), Response("No.")
PAIR = Draft(QUESTION, YES, NO)
LONG = Draft(EARLIER, YES, NO)


def said(*turns: Message | tuple[str, str]) -> list[Fields]:
    """Chat messages as the datasets spell them, with a key that does not count."""
    return [{"role": role, "content": content, "weight": 1} for role, content in map(_pair, turns)]


def shared(*turns: Message | tuple[str, str]) -> list[Fields]:
    """ShareGPT messages."""
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[role], "value": content} for role, content in map(_pair, turns)]


def _pair(turn: Message | tuple[str, str]) -> tuple[str, str]:
    return (turn.role, turn.content) if isinstance(turn, Message) else turn


def parts(*turns: Message | tuple[str, Any]) -> list[Fields]:
    """Chat messages whose content is a list of parts, as LMArena publishes them."""
    return [
        {"role": role, "content": [{"type": "text", "text": content, "image": None, "mimeType": None}]}
        for role, content in map(_pair, turns)
    ]


def ended(answer: str) -> list[Fields]:
    return said(SYSTEM, *EARLIER, ("assistant", answer))


SYSTEM_LONG = Draft((SYSTEM, *EARLIER), YES, NO)
HH_OPENING = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant:"
BATTLE = {"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}

EXAMPLES: dict[str, list[Example]] = {
    "explicit-prompt": [
        Example({"prompt": "Why?", "chosen": "Because.", "rejected": "No."}, PAIR, {"chosen": [1, 2]}, "holds a int"),
        Example(
            {
                "prompt": said(SYSTEM, *EARLIER),
                "chosen": said(("assistant", "Because.")),
                "rejected": said(("assistant", "No.")),
            },
            SYSTEM_LONG,
            {"rejected": said(("assistant", "No."), ("assistant", "No."))},
            "rejected has 2 turns ending in assistant",
        ),
        # The cleaned UltraFeedback: scores lie deeper.
        Example(
            {
                **{"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "system": "Be brief."},
                "metadata": {"score_chosen": 9.0, "score_rejected": 9.0},
            },
            Draft((SYSTEM, *QUESTION), Response("Because.", 9.0), Response("No.", 9.0)),
            {"metadata": {"score_chosen": "9"}},
            "score_chosen is a str",
        ),
    ],
    "prompt-and-conversations": [
        # UltraFeedback binarized
        Example(
            {
                **{"prompt": "Why?", "prompt_id": "f0e3", "messages": ended("Because.")},
                **{"chosen": ended("Because."), "rejected": ended("No."), "score_chosen": 8.5, "score_rejected": 3},
            },
            Draft((SYSTEM, *EARLIER), Response("Because.", 8.5), Response("No.", 3)),
            {"rejected": said(*EARLIER)},
            "rejected does not end in an assistant turn",
        ),
        # distilabel, FormatTextGenerationDPO
        Example(
            {
                **{"instruction": "Why?", "generations": ["Because.", "No."], "ratings": [5, 2], "prompt": "Why?"},
                **{"chosen": said(*QUESTION, ("assistant", "Because.")), "chosen_rating": 5, "chosen_model": "a"},
                **{"rejected": said(*QUESTION, ("assistant", "No.")), "rejected_rating": 2, "rejected_model": "b"},
            },
            Draft(QUESTION, Response("Because.", 5), Response("No.", 2)),
            {"chosen_rating": "5"},
            "chosen_rating is a str",
        ),
        # Argilla's cleaned one
        Example(
            {
                **{"prompt": said(SYSTEM, *EARLIER), "chosen": ended("Because."), "rejected": ended("No.")},
                **{"chosen-rating": 5, "rejected-rating": 2.5},
            },
            Draft((SYSTEM, *EARLIER), Response("Because.", 5), Response("No.", 2.5)),
            {"prompt": 7},
            "prompt is a int",
        ),
    ],
    "implicit-prompt": [
        # Skywork-Reward-Preference
        Example(
            {"chosen": ended("Because."), "rejected": ended("No."), "source": "magpie"},
            SYSTEM_LONG,
            {"chosen": "The sky is blue.", "rejected": "The sky is black."},
            "chosen is a text that shows no place where the prompt ends",
        ),
        # ShareGPT messages
        Example(
            {"chosen": shared(*EARLIER, ("assistant", "Because.")), "rejected": shared(*EARLIER, ("assistant", "No."))},
            LONG,
            {"rejected": shared(*EARLIER, ("system", "No."))},
            "rejected does not end in an assistant turn",
        ),
        # RLHFlow
        Example(
            {"chosen": ended("Because."), "rejected": ended("No."), "chosen_score": 4.0, "rejected_score": 1.0},
            Draft((SYSTEM, *EARLIER), Response("Because.", 4.0), Response("No.", 1.0)),
            {"chosen": said(*EARLIER, ("tool", "Because."))},
            "chosen does not end in an assistant turn",
        ),
        # Argilla's dpo-mix
        Example(
            {"chosen": ended("Because."), "rejected": ended("No."), "chosen_rating": 5, "rejected_rating": None},
            Draft((SYSTEM, *EARLIER), Response("Because.", 5), NO),
            {"rejected_rating": "bad"},
            "rejected_rating is a str",
        ),
    ],
    "hh": [
        Example(
            {"chosen": f"{HH_OPENING} Because.", "rejected": f"{HH_OPENING} No."},
            LONG,
            {"rejected": "\n\nHuman: Why?"},
            "rejected does not end in an assistant turn",
        )
    ],
    "argilla": [
        Example(
            {
                **{"instruction": "Why?", "chosen_response": "Because.", "rejected_response": "No."},
                **{"chosen_avg_rating": 4.75, "rejected_avg_rating": 1.5},
            },
            Draft(QUESTION, Response("Because.", 4.75), Response("No.", 1.5)),
            {"rejected_response": None},
            "rejected_response is null",
        )
    ],
    "llamafactory-alpaca": [
        Example(
            {
                **{"instruction": "Wh", "input": "y?", "chosen": "Because.", "rejected": "No."},
                **{"system": "Be brief.", "history": [["Hi", "Yes?"]]},
            },
            Draft((SYSTEM, *EARLIER[:2], Message("user", "Wh\ny?")), YES, NO),
            {"history": [["Hi"]]},
            "history holds a list",
        ),
        Example(
            {"instruction": "Why?", "input": "", "chosen": "Because.", "rejected": "No."},
            PAIR,
            {"input": 3},
            "input is a int",
        ),
    ],
    "llamafactory-sharegpt": [
        Example(
            {
                "conversations": shared(*EARLIER),
                "chosen": shared(("assistant", "Because."))[0],
                "rejected": shared(("assistant", "No."))[0],
                "system": "Be brief.",
            },
            SYSTEM_LONG,
            {"rejected": shared(("user", "No."))[0]},
            "rejected has 1 turns ending in user",
        )
    ],
    "align-anything": [
        Example(
            {"question": "Why?", "response_1": "No.", "response_2": "Because.", "overall_response": 2},
            PAIR,
            {"overall_response": 3},
            "overall_response is 3",
        )
    ],
    "pku-saferlhf": [
        Example(
            {
                **{"prompt": "Why?", "response_0": "No.", "response_1": "Because."},
                **{"better_response_id": 1, "safer_response_id": 0},
            },
            PAIR,
            {"better_response_id": True},
            "better_response_id is True",
        )
    ],
    "shp": [
        Example(
            {
                **{"history": "Why?", "human_ref_A": "No.", "human_ref_B": "Because.", "labels": 0},
                **{"score_A": 8, "score_B": 22},
            },
            Draft(QUESTION, Response("Because.", 22), Response("No.", 8)),
            {"labels": 2},
            "labels is 2",
        )
    ],
    "helpsteer2": [
        Example(
            {"prompt": "Why?", "response_1": "No.", "response_2": "Because.", "preference_strength": 1},
            PAIR,
            {"preference_strength": -4},
            "preference_strength is -4",
        ),
        Example(
            {
                "prompt": "Hi\n<extra_id_1>Assistant\nYes?\n<extra_id_1>User\nWhy?",
                **{"response_1": "Because.", "response_2": "No.", "preference_strength": -3},
            },
            LONG,
            {"prompt": "<extra_id_1>Assistant\nYes?"},
            "a prompt without a user turn",
        ),
    ],
    "helpsteer3": [
        Example(
            {"context": said(*EARLIER), "response1": "Because.", "response2": "No.", "overall_preference": -2},
            LONG,
            {"context": []},
            "context is an empty list",
        )
    ],
    "chatbot-arena": [
        # LMArena's 140k: the content is a list of parts
        Example(
            {
                "conversation_a": parts(*EARLIER, ("assistant", "No.")),
                "conversation_b": parts(*EARLIER, ("assistant", "Because.")),
                **{"winner": "model_b", "evaluation_order": 1, "is_code": False, "language": "en"},
            },
            LONG,
            {"conversation_a": parts(*EARLIER, ("assistant", None))},
            "conversation_a holds a part of a message that is of the type 'text'",
        ),
        Example(
            {"conversation_a": ended("No."), "conversation_b": ended("Because."), "winner": "model_b"},
            SYSTEM_LONG,
            {"winner": "model_c"},
            "winner is 'model_c'",
        ),
    ],
    "arena-human-preference": [
        Example(
            {"prompt": "Why?", "response_a": "No.", "response_b": "Because.", **BATTLE},
            PAIR,
            {"winner_model_a": 1},
            "winner_model_a, winner_model_b, winner_tie are 1, 1, 0",
        ),
        Example(
            {
                "prompt": '["Hi", "Why?"]',
                "response_a": '["Yes?", "No."]',
                "response_b": '["Yes?", "Because."]',
                **BATTLE,
            },
            LONG,
            {"response_a": ["Yes?", "No."]},
            "response_a is a list",
        ),
    ],
    "alpaca-eval": [
        Example(
            {"instruction": "Why?", "output_1": "No.", "output_2": "Because.", "preference": 1.73},
            PAIR,
            {"preference": 0.4},
            "preference is 0.4",
        )
    ],
    "llmbar": [
        Example(
            {"input": "Why?", "output_1": "Because.", "output_2": "No.", "label": 1}, PAIR, {"label": 0}, "label is 0"
        )
    ],
    "ultrafeedback": [
        Example(
            {
                "instruction": "Why?",
                "completions": [
                    {"model": "a", "response": "Because.", "overall_score": 8.5, "annotations": {}},
                    {"model": "b", "response": "No.", "overall_score": None, "fine-grained_score": 2.25},
                ],
            },
            CandidatesDraft(QUESTION, (Response("Because.", 8.5), Response("No.", 2.25))),
            {"completions": [{"response": "No."}, "Because."]},
            "completions holds a str",
        )
    ],
    "nectar": [
        Example(
            {
                "prompt": f"{HH_OPENING} ",
                "answers": [
                    {"answer": "No.", "model": "a", "rank": 2.0},
                    {"answer": "Because.", "model": "b", "rank": 1.0},
                ],
            },
            CandidatesDraft(EARLIER, (Response("No.", -2.0), Response("Because.", -1.0))),
            {"prompt": f"{HH_OPENING} Because."},
            "prompt does not end where an answer is due",
        )
    ],
    "alpaca-eval-responses": [
        Example(
            {
                **{"instruction": "Why?", "baseline": "a", "baseline_output": "Well."},
                "responses": [
                    {"generator": "b", "output": "Because.", "pref": 0.75},
                    {"generator": "c", "output": "No.", "pref": 0.25},
                ],
            },
            CandidatesDraft(QUESTION, (Response("Because.", 0.75), Response("No.", 0.25))),
            {"responses": [{"output": "No.", "pref": True}]},
            "pref is a bool",
        )
    ],
    "best-of-n": [
        Example(
            {"instruction": "Why?", "outputs": ["Because.", "No."], "pref_vs_reference": [0.75, None]},
            CandidatesDraft(QUESTION, (Response("Because.", 0.75), NO)),
            {"outputs": ["Because."]},
            "1 outputs and 2 pref_vs_reference",
        )
    ],
    "unpaired": [
        Example(
            {"prompt": "Why?", "completion": "Because.", "label": True},
            UnpairedDraft(QUESTION, YES, True),
            {"label": 2},
            "label is a int",
        ),
        Example(
            {"prompt": said(SYSTEM, *EARLIER), "completion": said(("assistant", "No.")), "label": False},
            UnpairedDraft((SYSTEM, *EARLIER), NO, False),
            {"completion": said(("user", "No."))},
            "completion has 1 turns ending in user",
        ),
    ],
    "llamafactory-kto": [
        Example(
            {"messages": ended("Because."), "label": True},
            UnpairedDraft((SYSTEM, *EARLIER), YES, True),
            {"messages": said(*EARLIER)},
            "messages does not end in an assistant turn",
        )
    ],
    "llamafactory-kto-sharegpt": [
        Example(
            {"conversations": shared(*EARLIER, ("assistant", "No.")), "system": "Be brief.", "kto_tag": False},
            UnpairedDraft((SYSTEM, *EARLIER), NO, False),
            {"conversations": shared(SYSTEM, *EARLIER, ("assistant", "No.")), "system": "Be long."},
            "a system column and another system turn",
        )
    ],
    "llamafactory-kto-alpaca": [
        Example(
            {"instruction": "Why?", "input": "", "output": "Because.", "kto_tag": True},
            UnpairedDraft(QUESTION, YES, True),
            {"output": None},
            "output is null",
        )
    ],
    # Other training services and libraries
    "openai": [
        Example(
            {
                "input": {"messages": said(SYSTEM, *EARLIER), "tools": [], "parallel_tool_calls": True},
                "preferred_output": said(("assistant", "Because.")),
                "non_preferred_output": said(("assistant", "No.")),
            },
            SYSTEM_LONG,
            {"input": said(*EARLIER)},
            "input is a list",
        )
    ],
    "swift": [
        Example(
            {"messages": ended("Because."), "rejected_response": "No."},
            SYSTEM_LONG,
            {"messages": said(*EARLIER)},
            "messages does not end in an assistant turn",
        )
    ],
    "swift-messages": [
        Example(
            {"messages": ended("Because."), "rejected_messages": ended("No.")},
            SYSTEM_LONG,
            {"rejected_messages": said(*EARLIER)},
            "rejected_messages does not end in an assistant turn",
        )
    ],
    "swift-query": [
        Example(
            {
                **{"system": "Be brief.", "query": "Why?", "response": "Because.", "rejected_response": "No."},
                "history": [["Hi", "Yes?"]],
            },
            SYSTEM_LONG,
            {"rejected_response": None},
            "rejected_response is null",
        )
    ],
    "messages-prompt": [
        # Axolotl, chat_template.default; LLaMA-Factory, openai
        Example(
            {
                "messages": said(SYSTEM, *EARLIER),
                "chosen": said(("assistant", "Because."))[0],
                "rejected": said(("assistant", "No."))[0],
            },
            SYSTEM_LONG,
            {"rejected": said(("user", "No."))[0]},
            "rejected has 1 turns ending in user",
        ),
        Example(
            {"messages": said(SYSTEM, *EARLIER), "chosen": ended("Because."), "rejected": ended("No.")},
            SYSTEM_LONG,
            {"messages": 5},
            "messages is a int",
        ),
        Example(
            {"messages": said(*EARLIER), "chosen": "Because.", "rejected": "No."}, LONG, {"chosen": 1}, "chosen is"
        ),
    ],
    "chosen-messages": [
        Example(
            {"chosen_messages": ended("Because."), "rejected_messages": ended("No."), "prompt": "Why?"},
            SYSTEM_LONG,
            {"rejected_messages": said(*EARLIER)},
            "rejected_messages does not end in an assistant turn",
        ),
        Example(
            {
                "messages": said(SYSTEM, *EARLIER),
                "chosen_messages": said(("assistant", "Because.")),
                "rejected_messages": said(("assistant", "No.")),
            },
            SYSTEM_LONG,
            {"question": "Why?"},
            "question and messages are both columns of a prompt",
        ),
    ],
    "accepted-rejected": [
        Example(
            {"question": "Why?", "accepted": "Because.", "rejected": "No."}, PAIR, {"accepted": [1]}, "accepted holds"
        ),
        Example(
            {"instruction": "Why?", "input": "", "accepted": "Because.", "rejected": "No.", "system": "Be brief."},
            Draft((SYSTEM, *QUESTION), YES, NO),
            {"rejected": None},
            "rejected is null",
        ),
        Example(
            {"accepted": ended("Because."), "rejected": ended("No.")},
            SYSTEM_LONG,
            {"accepted": "So."},
            "is a text that",
        ),
    ],
    "orca": [
        Example(
            {"system": "Be brief.", "question": "Why?", "chosen": "Because.", "rejected": "No."},
            Draft((SYSTEM, *QUESTION), YES, NO),
            {"question": 3},
            "question is a int",
        )
    ],
    "distilabel-orca": [
        Example(
            {
                **{"system": "Be brief.", "input": "Why?", "chosen": "Because.", "rejected": "No."},
                **{"generations": ["Because.", "No."], "rating": [9.0, 7.0], "status": "swapped", "chosen_score": 9.0},
                **{"order": ["a", "b"], "labelling_prompt": [{"content": "Judge.", "role": "system"}]},
            },
            Draft((SYSTEM, *QUESTION), Response("Because.", 9.0), NO),
            {"input": None},
            "input is null",
        )
    ],
    "stack-exchange-paired": [
        Example(
            {"qid": 1, "question": "Why?", "response_j": "Because.", "response_k": "No."},
            PAIR,
            {"response_k": 3},
            "response_k is a int",
        )
    ],
    "webgpt": [
        Example(
            {
                "question": {"dataset": "eli5", "id": "q1", "full_text": "Why?"},
                **{"answer_0": "No.", "answer_1": "Because.", "score_0": -0.5, "score_1": 0.5},
                **{"quotes_0": {"title": ["a"], "extract": ["b"]}, "tokens_0": {"prefix": [1], "completion": [2]}},
            },
            Draft(QUESTION, Response("Because.", 0.5), Response("No.", -0.5)),
            {"question": {"dataset": "eli5"}},
            "full_text is null",
        )
    ],
    "summarize-from-feedback": [
        Example(
            {
                "info": {"id": "t3", "post": "It rained.", "title": "Rain", "subreddit": "pets", "article": None},
                "summaries": [{"text": "No.", "policy": "ref", "note": ""}, {"text": "Because.", "policy": "sup"}],
                **{"choice": 1, "worker": "w1", "batch": "b0", "split": "train", "extra": {"confidence": 7}},
            },
            Draft((Message("user", "SUBREDDIT: r/pets\n\nTITLE: Rain\n\nPOST: It rained.\n\nTL;DR:"),), YES, NO),
            {"choice": 2},
            "choice is 2",
        ),
        Example(
            {
                "info": {"id": "c1", "post": None, "title": None, "subreddit": None, "article": "It rained."},
                **{"summaries": [{"text": "Because."}, {"text": "No."}], "choice": 0},
            },
            Draft((Message("user", "Article:\n\nIt rained.\n\nTL;DR:"),), YES, NO),
            {"summaries": [{"text": "No."}]},
            "1 summaries",
        ),
    ],
    "prometheus": [
        Example(
            {
                **{"orig_instruction": "Why?", "orig_response_A": "No.", "orig_response_B": "Because."},
                **{"orig_score_A": "2", "orig_score_B": "4", "orig_preference": "B", "orig_criteria": "Is it clear?"},
                **{"instruction": "Judge: Why?", "input": "", "output": "B", "orig_reference_answer": "Hm."},
            },
            Draft(QUESTION, Response("Because.", 4), Response("No.", 2)),
            {"orig_preference": "D"},
            "orig_preference is 'D'",
        )
    ],
    "multipref": [
        Example(
            {
                **{"text": "Why?", "completion_a": "No.", "completion_b": "Because.", "comparison_id": "c1"},
                "normal_worker_annotations": [
                    {"evaluator": "n1", "overall_pref": "B-is-slightly-better"},
                    {"evaluator": "n2", "overall_pref": "Tie"},
                ],
                "expert_worker_annotations": [{"evaluator": "e1", "overall_pref": "B-is-clearly-better"}],
            },
            PAIR,
            {"expert_worker_annotations": [{"overall_pref": "B-is-best"}]},
            "overall_pref in expert_worker_annotations is 'B-is-best'",
        )
    ],
    "pairwise-a-b": [
        Example(
            {"prompt": "Why?", "response_a": "No.", "response_b": "Because.", "votes": ["b", "a", "B", None, "tie"]},
            PAIR,
            {"votes": ["b", 1]},
            "votes is 1",
        ),
        Example(
            {"question": "Why?", "response_a": "No.", "response_b": "Because.", "winner": "response_b"},
            PAIR,
            {"winner": 1},
            "winner is 1",
        ),
    ],
    "pairwise-1-2": [
        Example(
            {"prompt": said(*EARLIER), "response_1": "Because.", "response_2": "No.", "label": 1},
            LONG,
            {"label": 3},
            "label is 3",
        )
    ],
    "pairwise-0-1": [
        Example(
            {"instruction": "Wh", "input": "y?", "response_0": "No.", "response_1": "Because.", "preferred": "1"},
            Draft((Message("user", "Wh\ny?"),), YES, NO),
            {"preferred": 2},
            "preferred is 2",
        )
    ],
    "distilabel": [
        Example(
            {
                **{"instruction": "Why?", "generations": ["Because.", None, "No."], "ratings": [5, None, 2]},
                **{"generation_models": ["a", "b", "c"], "rationales": ["good", "", "bad"]},
            },
            CandidatesDraft(QUESTION, (Response("Because.", 5), Response("No.", 2))),
            {"ratings": [1]},
            "3 generations and 1 ratings",
        )
    ],
    "distilabel-0": [
        Example(
            {"input": "Why?", "generations": ["Because.", "No."], "rating": [9.0, 7.5]},
            CandidatesDraft(QUESTION, (Response("Because.", 9.0), Response("No.", 7.5))),
            {"generations": "Because."},
            "generations is a str",
        )
    ],
    "stack-exchange": [
        Example(
            {
                **{"qid": 1, "question": "Why?", "date": "2020/01/02", "metadata": ["https://example.org"]},
                "answers": [
                    {"answer_id": 2, "author": "a", "pm_score": 4, "selected": True, "text": "Because."},
                    {"answer_id": 3, "author": "b", "pm_score": -1, "selected": False, "text": "No."},
                ],
            },
            CandidatesDraft(QUESTION, (Response("Because.", 4), Response("No.", -1))),
            {"answers": [{"pm_score": 3}]},
            "text is null",
        )
    ],
    "helpsteer-ratings": [
        Example(
            {
                **{"prompt": "Hi\n<extra_id_1>Assistant\nYes?\n<extra_id_1>User\nWhy?", "response": "Because."},
                **{"helpfulness": 4, "correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 1},
            },
            CandidatesDraft(EARLIER, (Response("Because.", 4),)),
            {"helpfulness": "4"},
            "helpfulness is a str",
        )
    ],
    "rated-responses": [
        Example(
            {"prompt": "Why?", "response": "Because.", "score": 4.5},
            CandidatesDraft(QUESTION, (Response("Because.", 4.5),)),
            {"response": None},
            "response is null",
        ),
        Example(
            {"instruction": "Wh", "input": "y?", "response": "Because.", "reward": -1},
            CandidatesDraft((Message("user", "Wh\ny?"),), (Response("Because.", -1),)),
            {"reward": float("nan")},
            "reward is nan",
        ),
    ],
    "oasst-trees": [
        Example(
            {
                **{"message_tree_id": "t1", "tree_state": "ready_for_export"},
                "prompt": {
                    **{"message_id": "m1", "text": "Why?", "role": "prompter", "lang": "en"},
                    "replies": [
                        {"message_id": "m2", "text": "Because.", "role": "assistant", "rank": 0, "replies": []},
                        {"message_id": "m3", "text": "No.", "role": "assistant", "rank": 1},
                    ],
                },
            },
            CandidatesDraft(QUESTION, (Response("Because.", -0.0), Response("No.", -1))),
            {"prompt": {"text": "Why?", "role": "user"}},
            "a message has the role 'user'",
        )
    ],
    "oasst": [
        Example(
            {
                **{"message_id": "m1", "parent_id": None, "message_tree_id": "t1", "text": "Why?", "role": "prompter"},
                **{"rank": None, "lang": "en"},
            },
            CandidatesDraft(QUESTION, ()),
            {"text": None},
            "text is null",
        )
    ],
    "beavertails": [
        Example(
            {"prompt": "Why?", "response": "No.", "is_safe": False, "category": {"abuse": True, "privacy": False}},
            UnpairedDraft(QUESTION, NO, False),
            {"is_safe": "no"},
            "is_safe is a str",
        )
    ],
    # Demonstrations
    "messages": [
        Example(
            {"messages": ended("Because."), "prompt_id": "p1"},
            UnpairedDraft((SYSTEM, *EARLIER), YES, True),
            {"messages": said(*EARLIER)},
            "messages does not end in an assistant turn",
        )
    ],
    "conversations": [
        Example(
            {"conversations": shared(*EARLIER, ("assistant", "Because.")), "system": "Be brief."},
            UnpairedDraft((SYSTEM, *EARLIER), YES, True),
            {"conversations": "Hi"},
            "conversations is a str",
        )
    ],
    "alpaca": [
        Example(
            {"instruction": "Wh", "input": "y?", "output": "Because."},
            UnpairedDraft((Message("user", "Wh\ny?"),), YES, True),
            {"output": None},
            "output is null",
        )
    ],
    "query-response": [
        Example(
            {"query": "Why?", "response": "Because.", "history": [["Hi", "Yes?"]]},
            UnpairedDraft(EARLIER, YES, True),
            {"history": "Hi"},
            "history is a str",
        )
    ],
    "prompt-completion": [
        Example(
            {"prompt": said(*EARLIER), "completion": said(("assistant", "Because."))},
            UnpairedDraft(EARLIER, YES, True),
            {"completion": said(("user", "No."))},
            "completion has 1 turns ending in user",
        )
    ],
    "prompt-response": [
        Example(
            {"prompt": "Why?", "response": "Because."},
            UnpairedDraft(QUESTION, YES, True),
            {"response": 5},
            "response is",
        )
    ],
}
