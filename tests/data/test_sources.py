"""Every layout reads its rows, refuses broken ones, and is told from the others by its columns."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.data.layouts import (
    LAYOUTS,
    Broken,
    CandidatesDraft,
    Draft,
    Layout,
    NoPreference,
    UnpairedDraft,
    canonical_row,
    check_responses,
    detect,
    draft_to_record,
)
from headwater.data.layouts.continuations import compared
from headwater.data.layouts.layout import Part
from headwater.data.preference import Candidates, Message, Preference, Response, Unpaired
from headwater.data.reading import read_rows
from headwater.errors import UsageError
from tests.data.layout_examples import (
    EARLIER,
    EXAMPLES,
    QUESTION,
    SYSTEM,
    Example,
    said,
)

Fields = dict[str, Any]
Record = Preference | Candidates | Unpaired


TOGETHER = [name for name, layout in LAYOUTS.items() if layout.together]
"""Layouts of which several rows become records: `test_grouped_rows.py` has the rest of their tests."""
CASES = [
    pytest.param(name, example, id=f"{name}-{number}")
    for name, examples in EXAMPLES.items()
    for number, example in enumerate(examples)
]


def good(name: str, **changes: Any) -> Fields:
    return {**EXAMPLES[name][0].good, **changes}


def drafted(layout: Layout, fields: Fields) -> Draft | CandidatesDraft | UnpairedDraft:
    """The draft of a row, or the first one of a row that belongs with others."""
    found = layout.read(fields)
    if isinstance(found, Part):
        assert layout.together
        (draft,) = layout.together.join([found.content])
        assert isinstance(draft, CandidatesDraft)
        return draft
    return compared(found, "last")


def record(fields: Fields) -> Record:
    source, _ = detect(fields)
    return draft_to_record(drafted(source, fields), fields, "file:1")


def read(fields: Fields) -> Preference:
    found = record(fields)
    assert isinstance(found, Preference)
    return found


def explicit(**changes: Any) -> Fields:
    return good("explicit-prompt", **changes)


# --- every layout -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_has_an_example_here(name: str) -> None:
    assert EXAMPLES.get(name), f"give {name} a good and a broken row in EXAMPLES"


def test_every_example_is_of_a_layout() -> None:
    assert set(EXAMPLES) == set(LAYOUTS)


def test_the_documentation_lists_every_layout() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "data.md").read_text(encoding="utf-8")
    assert [name for name in LAYOUTS if f"`{name}`" not in page] == []
    assert f"any of {len(LAYOUTS)} public layouts" in (root / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "example"), CASES)
def test_a_layout_reads_its_row(name: str, example: Example) -> None:
    if name in TOGETHER:
        assert drafted(LAYOUTS[name], example.good) == example.says
        return
    kinds = {"preferences": Preference, "candidates": Candidates, "unpaired": Unpaired}
    expected = kinds[LAYOUTS[name].yields](
        **example.says._asdict(), id="file:1", source=example.good.get("source", "file")
    )
    assert record(example.good) == expected


@pytest.mark.parametrize(("name", "example"), CASES)
def test_a_layout_refuses_its_broken_row(name: str, example: Example) -> None:
    fields = {**example.good, **example.broken}
    with pytest.raises(Broken) as problem:
        draft_to_record(drafted(LAYOUTS[name], fields), fields, "file:1")
    found, expected, *_ = problem.value.args
    assert example.problem in found
    assert expected.startswith("expected ")


ODD: dict[str, Any] = {"null": None, "number": 5, "ints": [1, 2], "object": {"a": 1}}
VERDICTS = {
    "align-anything": "overall_response",
    "pku-saferlhf": "better_response_id",
    "shp": "labels",
    "helpsteer2": "preference_strength",
    "helpsteer3": "overall_preference",
    "chatbot-arena": "winner",
    "alpaca-eval": "preference",
    "llmbar": "label",
    "webgpt": "score_0",
    "summarize-from-feedback": "choice",
    "prometheus": "orig_preference",
}
"""Columns that hold a verdict, which is null where there is none (`test_verdict_spellings.py` has the others)."""
HARMLESS = {
    **{(name, column, "null"): "no verdict" for name, column in VERDICTS.items()},
    ("best-of-n", "pref_vs_reference", "ints"): "scores like any other",
    **{("alpaca-eval-responses", "baseline_output", kind): "is not read" for kind in ODD},
    **{("helpsteer-ratings", "correctness", kind): "is not read" for kind in ODD},
    **{("webgpt", f"score_{n}", kind): "a score like any other" for n in (0, 1) for kind in ("number", "null")},
    **{("helpsteer-ratings", "helpfulness", kind): "a score like any other" for kind in ("number", "null")},
    ("distilabel-0", "rating", "ints"): "scores like any other",
    ("oasst", "parent_id", "null"): "the first message of a tree",
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("kind", ODD)
def test_no_layout_takes_anything_but_what_it_knows(name: str, kind: str) -> None:
    for column in LAYOUTS[name].columns:
        if (name, column, kind) not in HARMLESS:
            with pytest.raises(Broken, match="expected"):
                LAYOUTS[name].read(good(name, **{column: ODD[kind]}))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_survives_a_row_without_its_columns(name: str) -> None:
    with pytest.raises(Broken, match="expected"):
        LAYOUTS[name].read({})


TEXTS = st.sampled_from(
    ["", "Why?", "1", "2", "model_a", "tie", "[", '["a"]', "\n\nHuman: a\n\nAssistant: b", "\ud83d"]
)
LEAVES = st.none() | st.booleans() | st.integers(-4, 4) | st.sampled_from([1.5, float("nan"), 10**400]) | TEXTS
TURNS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["system", "user", "assistant", "tool"]) | LEAVES,
        "from": st.sampled_from(["human", "gpt"]) | LEAVES,
        **{key: TEXTS | LEAVES for key in ("content", "value", "response", "answer", "output", "score_chosen", "rank")},
    },
)
VALUES = st.recursive(
    LEAVES | TURNS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=6,
)
EXTRAS = ("system", "input", "history", "metadata", "score_chosen", "chosen_complete", "chosen_rating", "id", "source")


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_whatever_stands_in_its_columns_a_layout_gives_a_verdict(name: str, data: st.DataObject) -> None:
    columns = [*LAYOUTS[name].columns, *EXTRAS]
    wild = data.draw(st.dictionaries(st.sampled_from(columns), VALUES, max_size=4))
    fields = good(name, **wild)
    try:
        result = draft_to_record(drafted(LAYOUTS[name], fields), fields, "file:1")
    except NoPreference as reason:
        assert str(reason)
    except Broken as problem:
        assert len(problem.args) >= 2
        assert all(isinstance(part, str) and part for part in problem.args)
    else:
        assert any(message.role == "user" for message in result.prompt)


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_stands_in_the_columns_detection_gives_a_verdict(name: str, data: st.DataObject) -> None:
    fields = good(name, **data.draw(st.dictionaries(st.sampled_from(LAYOUTS[name].columns), VALUES)))
    try:
        source, reason = detect(fields)
    except Broken as problem:
        assert len(problem.args) >= 2
    else:
        assert set(source.columns) <= set(fields)
        assert reason


# --- detection ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "example"), CASES)
def test_a_layout_is_detected_and_says_why(name: str, example: Example) -> None:
    source, reason = detect(example.good)
    assert source is LAYOUTS[name]
    told_by = [column for column in source.told_by if column in example.good]
    assert reason == f"{name} (has {', '.join([*source.columns, *told_by])})"


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_taken_by_name(name: str) -> None:
    source, reason = detect(good(name), name)
    assert source is LAYOUTS[name]
    assert reason == f"{name} (named by --layout)"


@pytest.mark.parametrize("name", LAYOUTS)
def test_names_are_fit_for_a_flag(name: str) -> None:
    assert name == name.lower()
    assert name.replace("-", "").isalnum()


def test_a_layout_that_is_none_is_met_with_a_near_one() -> None:
    with pytest.raises(UsageError, match=r"--layout helpstear3 · no such layout · did you mean helpsteer3\?"):
        detect(explicit(), "helpstear3")


def test_a_named_layout_needs_its_columns() -> None:
    with pytest.raises(Broken) as problem:
        detect(explicit(), "helpsteer2")
    found, expected = problem.value.args
    assert found == "columns prompt, chosen, rejected lack response_1, response_2, preference_strength"
    assert expected == "--layout helpsteer2 expects them"


def test_unknown_columns_are_named_with_the_nearest_layouts() -> None:
    with pytest.raises(Broken) as problem:
        detect({"instruction": "a", "output_1": 1, "output_2": "b"})
    found, expected, fix = problem.value.args
    assert found == "columns instruction, output_1, output_2 fit no known layout"
    assert expected.startswith("expected one of alpaca-eval (lacks preference); ")
    assert "--columns" in fix


@pytest.mark.parametrize("fields", [{}, {"body": "a"}, {"body": None, "score": 3}])
def test_columns_near_to_nothing_are_met_with_all_layouts(fields: Fields) -> None:
    with pytest.raises(Broken, match="fit no known layout") as problem:
        detect(fields)
    assert problem.value.args[1:] == ("expected a known layout (docs/data.md lists them)", problem.value.args[2])
    assert problem.value.args[2].startswith("or describe it, such as --columns 'prompt=")


@pytest.mark.parametrize("other", [name for name in LAYOUTS if not {"chosen", "prompt"} <= {*LAYOUTS[name].columns}])
def test_no_layout_is_preferred_in_silence(other: str) -> None:
    """A row with the columns of two layouts names both; those that are told by what they lack yield to a pair."""
    both = {**good(other), **explicit()}
    if not LAYOUTS[other].fits(both):
        assert LAYOUTS["explicit-prompt"].fits(both)
        return
    with pytest.raises(Broken) as problem:
        detect(both)
    found, fix = problem.value.args
    fitting = found.rpartition("fit several layouts (")[2].removesuffix(")").split(", ")
    assert {"explicit-prompt", other} <= set(fitting)
    assert fix == "choose one with --layout NAME"
    assert detect(both, other)[0] is LAYOUTS[other]


def test_dialogues_beside_a_prompt_are_no_hh_rows() -> None:
    assert detect(good("hh", prompt="Why?"))[0] is LAYOUTS["explicit-prompt"]


# --- prompts, answers, scores -------------------------------------------------------------------------------------


def test_conversations_keep_their_turns_scores_and_ends() -> None:
    fields = {
        "id": "x7",
        "source": "lab",
        "prompt": said(SYSTEM, *EARLIER),
        "chosen": said(("assistant", "Because.")),
        "rejected": said(("assistant", "No.")),
        "score_chosen": 2.5,
        "score_rejected": -1,
        "chosen_complete": False,
        "rejected_complete": True,
    }
    assert read(fields) == Preference(
        prompt=(SYSTEM, *EARLIER),
        chosen=Response("Because.", 2.5, complete=False),
        rejected=Response("No.", -1.0, complete=True),
        id="x7",
        source="lab",
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"prompt": []}, "prompt is an empty list"),
        ({"prompt": [{"role": "human", "content": "Why?"}]}, "prompt has the role 'human'"),
        ({"prompt": [{"content": "Why?"}]}, "prompt has the role None"),
        ({"prompt": [{"role": ["user"], "content": "Why?"}]}, "prompt has the role ['user']"),
        ({"prompt": [{"role": "user", "content": None}]}, "prompt holds a dict"),
        ({"prompt": [{"role": "assistant", "content": "Why?"}]}, "a prompt without a user turn"),
        ({"chosen": [{"role": "assistant", "content": "a"}] * 2}, "chosen has 2 turns ending in assistant"),
        ({"rejected": [{"role": "user", "content": "No."}]}, "rejected has 1 turns ending in user"),
        ({"system": 5}, "system is a int"),
        ({"score_chosen": "9"}, "score_chosen is a str"),
        ({"score_chosen": True}, "score_chosen is a bool"),
        ({"score_rejected": float("nan")}, "score_rejected is nan"),
        ({"score_rejected": float("inf")}, "score_rejected is inf"),
        ({"chosen_complete": "false"}, "chosen_complete is a str"),
        ({"rejected_complete": 0}, "rejected_complete is a int"),
        ({"chosen": "\ud83d"}, r"a text holds half a character ('\ud83d')"),
        ({"prompt": "Why \ude00?"}, r"a text holds half a character ('\ude00')"),
        ({"id": "\ud83d"}, r"a text holds half a character ('\ud83d')"),
    ],
)
def test_a_broken_explicit_row_says_what_is_wrong(changes: Fields, problem: str) -> None:
    with pytest.raises(Broken) as raised:
        read(explicit(**changes))
    assert raised.value.args[0] == problem


def test_a_number_no_float_can_hold_is_refused() -> None:
    with pytest.raises(Broken, match="score_chosen is 1000"):
        read(explicit(score_chosen=10**400))


def test_a_response_whose_end_is_not_told_is_complete() -> None:
    assert read(explicit(chosen_complete=None)).chosen.complete
    assert read(explicit()).chosen.complete


def test_a_system_column_that_repeats_the_system_turn_is_not_said_twice() -> None:
    fields = explicit(system="Be brief.", prompt=said(SYSTEM, *QUESTION))
    assert read(fields).prompt == (SYSTEM, *QUESTION)


@pytest.mark.parametrize("name", ["implicit-prompt", "prompt-and-conversations"])
def test_a_system_column_stands_before_whole_conversations(name: str) -> None:
    pair = {side: said(*QUESTION, ("assistant", side)) for side in ("chosen", "rejected")}
    fields = {**pair, "system": "Be brief."} | ({} if name == "implicit-prompt" else {"prompt": "Why?"})
    assert detect(fields)[0] is LAYOUTS[name]
    assert read(fields).prompt == (SYSTEM, *QUESTION)


@pytest.mark.parametrize("system", ["", None])
def test_an_empty_system_column_says_nothing(system: str | None) -> None:
    assert read(explicit(system=system)).prompt == QUESTION


def test_the_score_of_a_pair_is_taken_before_its_metadata() -> None:
    fields = explicit(score_chosen=3, metadata={"score_chosen": 9, "score_rejected": 8})
    assert (read(fields).chosen.score, read(fields).rejected.score) == (3, 8)


# --- rows that hold no preference ---------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["chosen", "rejected"])
@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_response_is_no_preference(side: str, text: str) -> None:
    with pytest.raises(NoPreference, match=r"^empty_response$"):
        read(explicit(**{side: text}))


@pytest.mark.parametrize("text", ["Because.", " Because.\n"])
def test_identical_responses_are_no_preference(text: str) -> None:
    with pytest.raises(NoPreference, match=r"^identical_responses$"):
        read(explicit(rejected=text))


def test_responses_that_differ_in_case_are_a_preference() -> None:
    assert read(explicit(rejected="because.")).rejected.text == "because."


TIES = {
    "helpsteer2": {"preference_strength": 0},
    "helpsteer3": {"overall_preference": 0},
    "arena-human-preference": {"winner_model_b": 0, "winner_tie": 1},
    "alpaca-eval": {"preference": 1.5},
}


@pytest.mark.parametrize("name", TIES)
def test_a_tie_is_no_preference(name: str) -> None:
    with pytest.raises(NoPreference, match=r"^tie$"):
        read(good(name, **TIES[name]))


@pytest.mark.parametrize("winner", ["tie", "tie (bothbad)"])
def test_a_drawn_battle_is_no_preference(winner: str) -> None:
    with pytest.raises(NoPreference, match=r"^tie$"):
        read(good("chatbot-arena", winner=winner))


@pytest.mark.parametrize(("name", "column"), VERDICTS.items())
def test_a_judgement_that_failed_is_no_preference(name: str, column: str) -> None:
    with pytest.raises(NoPreference, match=r"^no_verdict$"):
        read(good(name, **{column: None}))


RATED = ["chosen-rating", "chosen_rating", "chosen_avg_rating"]


@pytest.mark.parametrize("column", RATED)
@pytest.mark.parametrize("name", ["explicit-prompt", "prompt-and-conversations", "implicit-prompt", "argilla"])
def test_equal_ratings_are_no_preference(name: str, column: str) -> None:
    ratings = {column: 4.0, column.replace("chosen", "rejected"): 4}
    with pytest.raises(NoPreference, match=r"^equal_ratings$"):
        read(good(name, **ratings))


def test_equal_scores_are_still_a_preference() -> None:
    """Who gave a score need not be who chose: UltraFeedback binarized has many such pairs."""
    assert read(explicit(score_chosen=7, score_rejected=7)).chosen.text == "Because."


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("hh", {"chosen": "\n\nHuman: why?\n\nAssistant: Because."}),
        ("implicit-prompt", {"chosen": said(*QUESTION, ("assistant", "Because."))}),
        ("prompt-and-conversations", {"rejected": said(*QUESTION, ("assistant", "No."))}),
        ("prompt-and-conversations", {"prompt": "Be brief."}),
        ("prompt-and-conversations", {"prompt": said(*EARLIER)}),
        ("chatbot-arena", {"conversation_a": said(*QUESTION, ("assistant", "No."))}),
        (
            "arena-human-preference",
            {"prompt": '["Hi", "Why?"]', "response_a": '["Yes?", "a"]', "response_b": '["No?", "b"]'},
        ),
    ],
)
def test_prompts_that_differ_are_no_preference(name: str, changes: Fields) -> None:
    with pytest.raises(NoPreference, match=r"^prompts_differ$"):
        read(good(name, **changes))


@pytest.mark.parametrize("texts", [[], ["Because."], ["Because.", " "]])
def test_fewer_than_two_responses_are_no_candidates(texts: list[str]) -> None:
    with pytest.raises(NoPreference, match=r"^fewer_than_two_responses$"):
        record(good("best-of-n", outputs=texts, pref_vs_reference=[0.5] * len(texts)))


def test_an_empty_one_among_several_responses_stays() -> None:
    candidates = record(good("best-of-n", outputs=["", "a", "b"], pref_vs_reference=[0, 0.5, 1]))
    assert isinstance(candidates, Candidates)
    assert [response.text for response in candidates.responses] == ["", "a", "b"]
    with pytest.raises(NoPreference, match="empty_response"):
        check_responses(*candidates.responses[:2])


def test_an_empty_unpaired_response_is_dropped() -> None:
    with pytest.raises(NoPreference, match=r"^empty_response$"):
        record(good("unpaired", completion=" "))


# --- where a conversation is split --------------------------------------------------------------------------------


def test_answers_that_start_alike_are_split_at_the_turn() -> None:
    blue, black = "It is blue", "It is black"
    for fields in (
        {"chosen": f"\n\nHuman: Sky?\n\nAssistant: {blue}", "rejected": f"\n\nHuman: Sky?\n\nAssistant: {black}"},
        {
            "chosen": said(("user", "Sky?"), ("assistant", blue)),
            "rejected": said(("user", "Sky?"), ("assistant", black)),
        },
    ):
        preference = read(fields)
        assert (preference.chosen.text, preference.rejected.text) == (blue, black)


@pytest.mark.parametrize("rejected", ["The sky is black.", "\n\nHuman: Sky?\n\nAssistant: Black."])
def test_plain_texts_are_never_split_by_what_they_share(rejected: str) -> None:
    with pytest.raises(Broken) as problem:
        read({"chosen": "The sky is blue.", "rejected": rejected})
    found, _, fix = problem.value.args
    assert found == "chosen is a text that shows no place where the prompt ends"
    assert fix == "name it with --columns prompt=NAME"


def test_hh_text_before_the_first_turn_is_not_lost_in_silence() -> None:
    fields = {side: f"Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: {side}" for side in ("chosen", "rejected")}
    with pytest.raises(Broken, match="text before its first turn"):
        read(fields)


@pytest.mark.parametrize("prompt", [" why?", "Why?\n"])
def test_a_question_may_be_spaced_otherwise_in_its_conversation(prompt: str) -> None:
    fields = good("prompt-and-conversations", prompt=prompt.replace("why", "Why"))
    assert read(fields).prompt == (SYSTEM, *EARLIER)


# --- verdicts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "column", "verdict", "better"),
    [
        ("align-anything", "overall_response", 1, "No."),
        ("align-anything", "overall_response", "1", "No."),
        ("align-anything", "overall_response", 2.0, "Because."),
        ("align-anything", "overall_response", "2", "Because."),
        ("pku-saferlhf", "better_response_id", 0, "No."),
        ("pku-saferlhf", "better_response_id", 1, "Because."),
        ("shp", "labels", 1, "No."),
        ("shp", "labels", 0, "Because."),
        ("helpsteer2", "preference_strength", -1, "No."),
        ("helpsteer2", "preference_strength", 3, "Because."),
        ("helpsteer3", "overall_preference", -1, "Because."),
        ("helpsteer3", "overall_preference", 1, "No."),
        ("chatbot-arena", "winner", "model_a", "No."),
        ("chatbot-arena", "winner", "model_b", "Because."),
        ("alpaca-eval", "preference", 1, "No."),
        ("alpaca-eval", "preference", 1.4999, "No."),
        ("alpaca-eval", "preference", 1.5001, "Because."),
        ("alpaca-eval", "preference", 2, "Because."),
        ("llmbar", "label", 1, "Because."),
        ("llmbar", "label", 2, "No."),
    ],
)
def test_the_verdict_names_the_chosen(name: str, column: str, verdict: object, better: str) -> None:
    preference = read(good(name, **{column: verdict}))
    assert preference.chosen.text == better
    assert {preference.chosen.text, preference.rejected.text} == {"Because.", "No."}


def test_scores_go_with_their_responses() -> None:
    preference = read(good("shp", labels=1))
    assert (preference.chosen, preference.rejected) == (Response("No.", 8), Response("Because.", 22))


def test_an_arena_answer_that_is_itself_a_list_is_a_text() -> None:
    fields = good("arena-human-preference", prompt="List it.", response_b='["a", "b"]')
    assert read(fields).chosen.text == '["a", "b"]'


@pytest.mark.parametrize("question", ["[sic] Why?", "[1]", "[]"])
def test_an_arena_question_in_brackets_is_a_text(question: str) -> None:
    answers = {"response_a": "[No.", "response_b": "[Because.]"}
    assert read(good("arena-human-preference", prompt=question, **answers)).prompt == (Message("user", question),)


def test_arena_turns_without_as_many_answers_are_broken() -> None:
    lists = {"prompt": '["Hi", "Why?"]', "response_a": '["Yes?"]', "response_b": '["Yes?", "Because."]'}
    with pytest.raises(Broken) as problem:
        read(good("arena-human-preference", **lists))
    assert problem.value.args[0] == "turns differ in number: 2 in prompt, 1 in response_a, 2 in response_b"


def test_an_arena_turn_without_an_answer_is_empty() -> None:
    fields = good(
        "arena-human-preference",
        **{column: json.dumps(turns) for column, turns in {"prompt": ["Hi"], "response_a": [None]}.items()},
        response_b='["Yes?"]',
    )
    with pytest.raises(NoPreference, match="empty_response"):
        read(fields)


# --- real data ----------------------------------------------------------------------------------------------------


class Real(NamedTuple):
    """What a real file holds: its layout, and its rows by what became of them."""

    layout: str
    kept: int
    dropped: dict[str, int] = {}  # noqa: RUF012 - a default that nobody changes


REAL = {
    "hh/harmless-base_test.jsonl.gz": Real("hh", 2303, {"prompts_differ": 5, "empty_response": 4}),
    "hh/helpful-base_test.jsonl.gz": Real(
        "hh", 2339, {"prompts_differ": 9, "empty_response": 4, "identical_responses": 2}
    ),
    "ultrafeedback_binarized/train_clean.jsonl.gz": Real(
        "explicit-prompt", 994, {"identical_responses": 4, "empty_response": 2}
    ),
    "ultrafeedback_binarized/eval_clean.jsonl.gz": Real("explicit-prompt", 199, {"identical_responses": 1}),
    "llamafactory/dpo_en_demo.json.gz": Real("llamafactory-sharegpt", 300),
    "llamafactory/kto_en_demo.json.gz": Real("llamafactory-kto", 300),
    "llmbar/Natural_dataset.json": Real("llmbar", 100),
    "llmbar/Adversarial_GPTInst_dataset.json": Real("llmbar", 92),
    "llmbar/Adversarial_GPTOut_dataset.json": Real("llmbar", 47),
    "llmbar/Adversarial_Manual_dataset.json": Real("llmbar", 46),
    "llmbar/Adversarial_Neighbor_dataset.json": Real("llmbar", 134),
    "alpaca_eval2/annotations_FuseChat-Gemma-2-9B-Instruct.json.gz": Real("alpaca-eval", 800, {"tie": 5}),
    "alpaca_eval2/annotations_gpt-3.5-turbo-1106.json.gz": Real("alpaca-eval", 801, {"tie": 4}),
    "alpaca_eval2/annotations_gpt4_0613_concise.json.gz": Real("alpaca-eval", 800, {"tie": 5}),
    "alpaca_eval2/annotations_text_davinci_001.json.gz": Real("alpaca-eval", 800, {"tie": 3}),
    "alpaca_eval2/multi_response_preferences.jsonl.gz": Real("alpaca-eval-responses", 805),
    "rewardbench_bon16/tulu2_dpo_13b_n16.jsonl.gz": Real("best-of-n", 805),
}


def everything(path: Path) -> tuple[str, list[Record], Counter[str], int]:
    """The layout of a file, its records, and its rows dropped by reason and counted in all."""
    rows = [row.fields for row in read_rows(path)]
    source, reason = detect(rows[0])
    records: list[Record] = []
    dropped: Counter[str] = Counter()
    for number, fields in enumerate(rows, start=1):
        try:
            records.append(draft_to_record(drafted(source, fields), fields, f"file:{number}"))
        except NoPreference as verdict:
            dropped[str(verdict)] += 1
    return reason.split(" ")[0], records, dropped, len(rows)


@pytest.mark.parametrize("name", REAL)
def test_a_real_file_is_detected_and_every_row_accounted_for(name: str, shared_data: Path) -> None:
    layout, records, dropped, rows = everything(shared_data / name)
    assert Real(layout, len(records), dict(dropped)) == REAL[name]
    assert len(records) + dropped.total() == rows


def test_real_scores_are_found(shared_data: Path) -> None:
    _, pairs, *_ = everything(shared_data / "ultrafeedback_binarized/eval_clean.jsonl.gz")
    assert all(isinstance(pair, Preference) and pair.chosen.score >= pair.rejected.score for pair in pairs)
    _, several, *_ = everything(shared_data / "rewardbench_bon16/tulu2_dpo_13b_n16.jsonl.gz")
    scored = Counter(sum(response.score is not None for response in row.responses) for row in several)
    assert scored == {11: 805}
    _, judged, *_ = everything(shared_data / "alpaca_eval2/multi_response_preferences.jsonl.gz")
    assert Counter(len(row.responses) for row in judged) == {29: 801, 28: 4}
    _, labelled, *_ = everything(shared_data / "llamafactory/kto_en_demo.json.gz")
    assert Counter(row.label for row in labelled) == {True: 150, False: 150}


# --- what headwater writes ----------------------------------------------------------------------------------------


def test_a_written_row_is_trls_explicit_conversational_form() -> None:
    preference = Preference(
        prompt=(SYSTEM, *QUESTION),
        chosen=Response("Because.", 1.5),
        rejected=Response("N", complete=False),
        id="lab:3",
        source="lab",
    )
    assert canonical_row(preference) == {
        "id": "lab:3",
        "source": "lab",
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
        "chosen": [{"role": "assistant", "content": "Because."}],
        "score_chosen": 1.5,
        "chosen_complete": True,
        "rejected": [{"role": "assistant", "content": "N"}],
        "score_rejected": None,
        "rejected_complete": False,
    }
    assert read(canonical_row(preference)) == preference
