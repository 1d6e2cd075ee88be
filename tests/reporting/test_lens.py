"""The lens: texts that join to the response, data that no markup leaves, and a page that does what a reader asks."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from headwater.data.preference import Message, Preference, Response
from headwater.data.templates import CHATML
from headwater.data.tokenizers import ScratchTokenizer, Tokenizer
from headwater.data.tokens import EndToken, tokenize
from headwater.data.truncation import CutBy, Keep, Truncation
from headwater.reporting import page as report
from headwater.reporting.lens import decodes
from headwater.reporting.lens.page import DATA, script, section
from headwater.reporting.lens.page import page as page_of
from headwater.reporting.lens.pieces import Piece, Pieces, at_pieces, by_characters, pieces_of
from headwater.reporting.lens.sections import extremes
from headwater.reporting.lens.views import ALONE, FULL_COLOUR, PAIR, Entry, Lens, Reading, Side, contents
from headwater.reporting.scripts import source
from headwater.results import runs
from tests.support.browser import Browser

BAD = "</script><img src=x onerror=\"document.title='broken'\"><!--"
HARD = (
    "plain words, twice: plain words",
    "family 👨‍👩‍👧‍👦 and flag 🏴󠁧󠁢󠁥󠁮󠁧󠁿!",
    "naïve e\u0301\u0327 日本語テキスト مرحبا",
    "  both ends are blank \n\n",
    f"spelt <|im_end|> and <|im_start|>user{BAD}",
    "\u202eevil\u0007 \ufffd \u200b",
)


def preference(chosen: str, rejected: str = "No.", prompt: str = "Why?", name: str = "p:1") -> Preference:
    message = Message("user", prompt)
    return Preference(prompt=(message,), chosen=Response(chosen), rejected=Response(rejected), id=name, source="p")


def stripping(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer under a template that strips what people say."""
    template = CHATML.replace("message['content']", "message['content'].strip()")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        chat_template=template,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
    )


def wordwise() -> Tokenizer:
    """A tokenizer that reports no white space, joins marks to letters and knows few words."""
    words = {word: i for i, word in enumerate(["[UNK]", "<|im_end|>", "plain", "words", ",", ":", "twice"])}
    backend = Backend(models.WordLevel(words, unk_token="[UNK]"))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, chat_template=CHATML, eos_token="<|im_end|>", unk_token="[UNK]"
    )


def trimming(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer with offsets that leave out leading white space, as GPT-2's do."""
    backend = Backend.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, chat_template=CHATML, bos_token="<|im_start|>", eos_token="<|im_end|>"
    )


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    bytewise = ScratchTokenizer(vocab=300).train([*HARD, CHATML])
    return {
        "bytes": bytewise,
        "stripping": stripping(bytewise),
        "trimming": trimming(bytewise),
        "words": wordwise(),
    }


def joined(pieces: Pieces) -> str:
    return pieces.before + "".join(piece.text for piece in pieces.text) + pieces.after


def check(one: Preference, tokenizer: Tokenizer, end: EndToken) -> Pieces:
    (pair,) = tokenize([one], tokenizer, 4096, end).pairs
    pieces = pieces_of(one, one.chosen, pair.chosen, tokenizer, end)
    assert pieces is not None
    assert joined(pieces) == one.chosen.text
    assert sum(piece.tokens for piece in (*pieces.text, *pieces.closing)) == len(pair.chosen)
    assert "".join(piece.text for piece in pieces.closing) == ("" if end == "never" else "<|im_end|>")
    return pieces


@pytest.mark.parametrize("end", ["complete", "never"])
@pytest.mark.parametrize("kind", ["bytes", "stripping", "trimming", "words"])
@pytest.mark.parametrize("text", HARD)
def test_pieces_join_to_the_response(tokenizers: dict[str, Tokenizer], text: str, kind: str, end: EndToken) -> None:
    pieces = check(preference(text), tokenizers[kind], end)
    assert all(piece.text for piece in pieces.text)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip))
def test_pieces_of_any_text_join_to_it(tokenizers: dict[str, Tokenizer], text: str) -> None:
    check(preference(text), tokenizers["bytes"], "complete")


def test_a_character_of_several_tokens_is_one_piece(tokenizers: dict[str, Tokenizer]) -> None:
    pieces = check(preference("a🦊b"), tokenizers["bytes"], "never")
    assert [piece.text for piece in pieces.text] == ["a", "🦊", "b"]
    assert [piece.tokens > 1 for piece in pieces.text] == [False, True, False]


def test_what_a_template_strips_stands_beside_the_pieces(tokenizers: dict[str, Tokenizer]) -> None:
    pieces = check(preference("  plain words \n"), tokenizers["stripping"], "complete")
    assert (pieces.before, pieces.after) == ("  ", " \n")


def test_tokens_of_another_text_are_not_parted(tokenizers: dict[str, Tokenizer]) -> None:
    one = preference("plain words")
    (pair,) = tokenize([preference("other words")], tokenizers["bytes"], 4096).pairs
    assert pieces_of(one, one.chosen, pair.chosen, tokenizers["bytes"], "complete") is None


def test_a_response_without_tokens_is_not_parted() -> None:
    empty = wordwise()
    empty.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^<>|]+"), "removed")
    one = preference("plain words")
    ids = empty.encode("<|im_end|>", add_special_tokens=False)
    assert pieces_of(one, one.chosen, np.array(ids, dtype=np.int32), empty, "complete") is None


# ---- The page as text ----


REWARD = (Reading("reward"),)


def written(lens: Lens) -> str:
    return page_of(contents(lens))


def shown(pairs: list[Preference], tokenizer: Tokenizer, seed: int = 0, readings: int = 1) -> Iterator[Entry]:
    """Pairs with random scores, whole margins and a depth."""
    rng = np.random.default_rng(seed)
    for one, tokens in zip(pairs, tokenize(pairs, tokenizer, 1 << 16).pairs, strict=True):
        sides = []
        for response, ids in ((one.chosen, tokens.chosen), (one.rejected, tokens.rejected)):
            pieces = pieces_of(one, response, ids, tokenizer, "complete")
            assert pieces is not None
            scores = (at_pieces(rng.normal(size=len(ids)).cumsum(), pieces) for _ in range(readings))
            sides.append(Side(pieces, tuple(scores)))
        margins = [float(a[-1] - b[-1]) for a, b in zip(sides[0].scores, sides[1].scores, strict=True)]
        depths = tuple(int(depth) for depth in rng.integers(1, 101, size=readings))
        yield Entry(one.id, one.prompt, dict(zip(PAIR, sides, strict=True)), tuple(margins), depths)


def data_of(page: str) -> Any:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(found)


@pytest.fixture(scope="module")
def hostile(tokenizers: dict[str, Tokenizer]) -> Lens:
    one = preference(f"yes {BAD} \u202eevil\u0007", f"no {BAD}", f"why {BAD}?", f"id {BAD}")
    two = preference("plain words", "words", "What else?", f"id {BAD}")
    pairs = list(shown([one, two], tokenizers["bytes"]))
    return Lens(f"data {BAD} by model {BAD}", [f"note {BAD}"], pairs, Truncation(), REWARD)


def test_the_page_holds_the_data_and_no_way_out_of_it(hostile: Lens) -> None:
    page = written(hostile)
    assert BAD not in page and page.count("<script") == 2 and page.count("</script>") == 2
    data = data_of(page)
    assert "".join(data["entries"][0]["chosen"]["pieces"]) == f"yes {BAD} \u202eevil\u0007<|im_end|>"
    assert [pair["link"] for pair in data["entries"]] == [f"id {BAD}", f"id {BAD}~2"]
    assert written(hostile) == page


def test_the_policy_lets_this_script_run_and_nothing_else(hostile: Lens) -> None:
    page = written(hostile)
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}';" in page
    addresses = set(re.findall(r"\w+://[\w.]+", page))
    assert addresses == {"http://www.w3.org"}  # the name of SVG, which nobody fetches


def test_scores_stand_at_the_ends_of_pieces() -> None:
    pieces = Pieces("", [Piece("a", 1), Piece("🦊", 3)], [Piece("<end>", 1)], "")
    side = Side(pieces, (at_pieces(np.array([1.0, 9.0, 9.0, 2.5, 2.0]), pieces),))
    one = Entry("p:1", (), {"chosen": side, "rejected": side}, (0.0,), (None,))
    cut = Truncation(Keep(Fraction(7), "tok"))
    page = data_of(written(Lens("t", [], [one], cut, (Reading("reward", sums=True),))))
    assert (page["mode"], page["at"]) == ("tokens", 7)
    found = page["entries"][0]["chosen"]
    assert found["scores"] == [[1.0, 2.5, 2.0]] and found["several"] == {"1": 3} and found["closing"] == 1
    assert page["readings"][0]["scale"] == pytest.approx(np.quantile([1.0, 1.5, 0.5] * 2, FULL_COLOUR), rel=1e-4)


def test_the_first_token_of_a_reward_model_adds_nothing_that_is_known() -> None:
    side = Side(Pieces("", [Piece("a", 1), Piece("b", 1)], [], ""), (np.array([100.0, 101.0]),))
    one = Entry("p:1", (), {"chosen": side, "rejected": side}, (0.0,), (None,))
    assert data_of(written(Lens("t", [], [one], Truncation(), REWARD)))["readings"][0]["scale"] == 1.0


def luminance(colour: list[float]) -> float:
    """WCAG 2.2, relative luminance."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[float], other: list[float]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_is_readable_on_every_colour(hostile: Lens, scheme: int) -> None:
    block = re.findall(r":root, :host \{(.*?)\}", written(hostile), flags=re.DOTALL)[scheme]
    named = {
        name: [int(code[i : i + 2], 16) for i in (0, 2, 4)] for name, code in re.findall(r"--(\w+): #(\w{6})", block)
    }
    (share,) = (int(number) / 100 for number in re.findall(r"--strongest: (\d+)%", block))
    for hue in ("up", "down"):
        strongest = [share * c + (1 - share) * p for c, p in zip(named[hue], named["paper"], strict=True)]
        assert contrast(named["ink"], strongest) >= 4.5, hue
        assert contrast(named["paper"], strongest) >= 1.7, f"{hue} cannot be told from paper"
    for text in ("ink", "soft", "chosen", "rejected"):
        for ground in ("paper", "wash"):
            assert contrast(named[text], named[ground]) >= 4.5, (text, ground)


# ---- The page in a browser ----


class Opened:
    """A lens in a browser, at its first pair."""

    def __init__(self, browser: Browser, lens_: Lens, path: Path, anchor: str = "") -> None:
        self.browser, self.lens = browser, lens_
        path.write_text(written(lens_), encoding="utf-8")
        browser.visit(path.as_uri() + anchor)

    def text(self, selector: str) -> str:
        return str(self.browser.run(f"document.querySelector({json.dumps(selector)}).textContent"))

    def texts(self, selector: str) -> list[str]:
        every = f"[...document.querySelectorAll({json.dumps(selector)})]"
        return list(self.browser.run(f"{every}.map(one => one.textContent)"))

    def box(self, selector: str) -> dict[str, float]:
        return dict(
            self.browser.run(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
        )

    def choose(self, selector: str, value: str, event: str = "change") -> None:
        self.browser.run(
            f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event({json.dumps(event)})) }})"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        self.browser.settle()

    def slider(self, name: str) -> str:
        return str(self.browser.run(f"document.getElementById('cut').getAttribute('aria-{name}')"))

    def listed(self) -> list[str]:
        return self.texts("#list .id")


@pytest.fixture(scope="module")
def many(corpus: list[Preference], tokenizer: Tokenizer) -> Lens:
    pairs = [dataclasses.replace(one, id=f"row {i}") for i, one in enumerate(corpus[:12])]
    return Lens("corpus by model", ["A note."], list(shown(pairs, tokenizer)), Truncation(Keep(Fraction(1, 2))), REWARD)


def test_injected_markup_is_text_and_runs_nothing(browser: Browser, hostile: Lens, tmp_path: Path) -> None:
    page = Opened(browser, hostile, tmp_path / "lens.html")
    assert browser.run("document.title") == f"headwater lens · data {BAD} by model {BAD}"
    assert browser.run("document.querySelectorAll('img, iframe, object, link').length") == 0
    assert browser.run("document.scripts.length") == 2
    assert page.text("#id") == f"id {BAD}" and f"why {BAD}?" in page.text("#prompt")
    # Bidi and control characters are named, not obeyed.
    assert page.text("#chosen") == f"yes {BAD} U+202EevilU+0007<|im_end|>"
    assert page.texts("#chosen .mark") == ["U+202E", "U+0007"]
    assert browser.problems == [] and browser.requests == [(tmp_path / "lens.html").as_uri()]


def test_a_line_ends_where_the_text_says_so(browser: Browser, tokenizers: dict[str, Tokenizer], tmp_path: Path) -> None:
    text = "one\n\n\ttwo 👨‍👩‍👧‍👦 日本"
    pairs = list(shown([preference(text)], tokenizers["bytes"]))
    page = Opened(browser, Lens("t", [], pairs, Truncation(), REWARD), tmp_path / "lens.html")
    assert page.text("#chosen") == text + "<|im_end|>"
    chosen, rejected = (page.box(side)["height"] - 24 for side in ("#chosen", "#rejected"))  # less 1.5rem of padding
    assert chosen == pytest.approx(3 * rejected, rel=0.05)


def test_the_names_of_two_curves_do_not_meet_at_the_edge(browser: Browser, many: Lens, tmp_path: Path) -> None:
    (one, *_) = many.entries
    rising = {
        name: dataclasses.replace(side, scores=tuple(np.linspace(0, 1, len(scores)) for scores in side.scores))
        for name, side in one.sides.items()
    }
    lens_ = dataclasses.replace(many, entries=[dataclasses.replace(one, sides=rising)])
    Opened(browser, lens_, tmp_path / "lens.html")
    code = "['chosen', 'rejected'].map(n => Number(document.querySelector(`svg text.${n}`).getAttribute('y')))"
    places = browser.run(code)
    assert abs(places[0] - places[1]) >= 12 and min(places) > 0


def test_tokens_are_coloured_by_what_they_add(browser: Browser, many: Lens, tmp_path: Path) -> None:
    page = Opened(browser, many, tmp_path / "lens.html")
    browser.press("End")  # no focus yet: the browser's own key, the cut stays
    browser.run("document.getElementById('cut').focus()")
    browser.press("End")
    added = np.diff(many.entries[0].sides["chosen"].scores[0])
    signs = ["up" if value > 0 else "down" for value in added]
    found = browser.run("[...document.querySelectorAll('#chosen > span')].map(one => one.className.split(' '))")
    assert not {"up", "down"} & set(found[0])
    assert [next(name for name in names if name in ("up", "down")) for names in found[1:]] == signs
    strongest = float(browser.run("document.querySelectorAll('#chosen > span')[1].style.getPropertyValue('--v')"))
    assert strongest == pytest.approx(min(1, abs(added[0]) / data_of(written(many))["readings"][0]["scale"]), rel=1e-3)
    green, purple = "color(srgb 0.1058", "color(srgb 0.4627"
    backgrounds = "getComputedStyle(document.querySelector('#chosen > {}')).backgroundColor"
    assert str(browser.run(backgrounds.format(".up"))).startswith(green)
    assert str(browser.run(backgrounds.format(".down"))).startswith(purple)
    assert page.text("#at") == "100 %"


@pytest.mark.parametrize("by", ["own", "equal", "shared"])
@pytest.mark.parametrize("keep", ["0.01", "0.3", "0.5", "0.999", "1"])
def test_a_cut_keeps_what_truncation_keeps(browser: Browser, many: Lens, tmp_path: Path, keep: str, by: CutBy) -> None:
    truncation = Truncation(Keep(Fraction(keep)), by)
    check_cut(Opened(browser, dataclasses.replace(many, cut=truncation), tmp_path / "lens.html"), truncation)


@pytest.mark.parametrize("tokens", [1, 20, 10_000])
def test_a_cut_at_tokens_keeps_as_many(browser: Browser, many: Lens, tmp_path: Path, tokens: int) -> None:
    truncation = Truncation(Keep(Fraction(tokens), "tok"))
    check_cut(Opened(browser, dataclasses.replace(many, cut=truncation), tmp_path / "lens.html"), truncation)


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def check_cut(page: Opened, truncation: Truncation) -> None:
    entry = page.lens.entries[0]
    sides = [entry.sides[name] for name in PAIR]
    lengths = [sum(piece.tokens for piece in side.pieces.text) for side in sides]
    kept = truncation.counts(*lengths)
    scores = []
    for name, side, count, length in zip(("chosen", "rejected"), sides, kept, lengths, strict=True):
        assert lengths[0] != lengths[1]
        scores.append(float(side.scores[0][-1 if count == length else count - 1]))
        dropped = page.browser.run(f"document.querySelectorAll('#{name} > .dropped').length")
        assert dropped == (0 if count == length else len(side.scores[0]) - count)
        row = page.texts(f"#scores tr:nth-child({1 if name == 'chosen' else 2}) td")
        assert row[0] == f"{count} of {length}"
        assert [number(row[1]), number(row[2])] == pytest.approx([scores[-1], float(side.scores[0][-1])], abs=0.006)
    margin = page.texts("#scores tr:nth-child(3) td")
    assert [number(text) for text in margin[1:]] == pytest.approx([scores[0] - scores[1], entry.margins[0]], abs=0.006)


def test_the_cut_is_dragged_stepped_and_clicked(browser: Browser, many: Lens, tmp_path: Path) -> None:
    page = Opened(browser, many, tmp_path / "lens.html")
    assert (page.text("#at"), page.slider("valuenow")) == ("50 %", "500")
    box = page.box("#cut .gone")  # it reaches from the handle to the axis's end
    y, start, end = box["top"] + 5, box["left"], box["right"]
    browser.mouse("mousePressed", start, y, held=True)
    browser.mouse("mouseMoved", (start + end) / 2, y, held=True)
    browser.mouse("mouseReleased", (start + end) / 2, y)
    assert int(page.slider("valuenow")) == pytest.approx(750, abs=3)
    browser.mouse("mouseMoved", start, y)
    assert int(page.slider("valuenow")) == pytest.approx(750, abs=3)  # let go
    browser.press("Home")
    assert page.slider("valuenow") == "1"
    browser.press("ArrowRight")
    assert page.slider("valuenow") == "11"
    page.choose("#mode", "tokens")
    browser.press("ArrowRight")
    before = int(page.slider("valuenow"))
    browser.press("ArrowLeft")
    assert int(page.slider("valuenow")) == before - 1
    box = page.box("#chosen > span:nth-child(7)")
    browser.mouse("mousePressed", box["left"] + 2, box["top"] + 4, held=True)
    browser.mouse("mouseReleased", box["left"] + 2, box["top"] + 4)
    assert page.slider("valuenow") == "7" and page.texts("#scores td")[0].startswith("7 of ")
    assert re.fullmatch(r"chosen, token 7 · adds [+−].* · reward [+−].*", page.text("#readout"))
    page.choose("#mode", "own")
    assert page.texts("#scores td")[0].startswith("7 of ")
    assert "chosen 7 of" in page.slider("valuetext") and "margin" in page.slider("valuetext")
    assert browser.problems == []


def test_a_finger_drags_the_cut_on_a_phone(browser: Browser, many: Lens, tmp_path: Path) -> None:
    page = Opened(browser, many, tmp_path / "lens.html")
    browser.window(390, 844)
    browser.settle()
    browser("Emulation.setTouchEmulationEnabled", enabled=True)
    box = page.box("#cut .gone")
    y, start, end = box["top"] + 5, box["left"], box["right"]
    for kind, x in (
        ("touchStart", start),
        ("touchMove", (start + end) / 2),
        ("touchMove", end - 1),
        ("touchEnd", None),
    ):
        points = [] if x is None else [{"x": x, "y": y}]
        browser("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        browser.settle()
    browser("Emulation.setTouchEmulationEnabled", enabled=False)
    assert int(page.slider("valuenow")) >= 980
    assert browser.problems == []


def test_the_keyboard_s_place_is_seen(browser: Browser, many: Lens, tmp_path: Path) -> None:
    Opened(browser, many, tmp_path / "lens.html")
    seen = set()
    for _ in range(40):
        browser("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        browser("Input.dispatchKeyEvent", type="keyUp", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        name = browser.run("document.activeElement.id || document.activeElement.tagName")
        if name in ("BODY", "HTML"):
            break
        seen.add(name)
        outline = browser.run("(s => [s.outlineStyle, s.outlineWidth])(getComputedStyle(document.activeElement))")
        assert outline == ["solid", "2px"], name
    assert {"search", "sort", "A", "name", "copy", "previous", "next", "prompt", "mode", "cut"} <= seen


def test_keys_search_and_links_lead_to_pairs(browser: Browser, many: Lens, tmp_path: Path) -> None:
    page = Opened(browser, many, tmp_path / "lens.html", "#row%203")
    assert (page.text("#id"), page.text("#place")) == ("row 3", "4 of 12")
    browser.press("j")
    assert page.text("#id") == "row 4" and browser.run("location.hash") == "#row%204"
    browser.press("k")
    browser.press("k")
    assert page.text("#id") == "row 2"
    assert page.texts("#list a[aria-current] .id") == ["row 2"]
    browser.press("/")
    assert browser.run("document.activeElement.id") == "search"
    for key in "row 11":
        browser.press(key)
    assert page.listed() == ["row 11"] and page.text("#count") == "1 of 12"
    assert page.text("#id") == "row 2"  # j and k are letters here
    browser.press("Enter")
    assert page.text("#id") == "row 11"
    browser.press("/")
    browser.press("Escape")
    assert len(page.listed()) == 12
    browser.run("document.querySelector('#list a').focus()")
    browser.press("ArrowUp")
    assert page.text("#id") == "row 10" and browser.run("document.activeElement.textContent").endswith("row 10")
    browser.run("location.hash = '#nowhere'")
    browser.settle()
    assert page.text("#place") == "no pair nowhere on this page"
    assert browser.problems == []


def test_pairs_are_sorted(browser: Browser, many: Lens, tmp_path: Path) -> None:
    page = Opened(browser, many, tmp_path / "lens.html")

    def by(key: Any) -> list[str]:
        return [entry.id for entry in sorted(many.entries, key=key)]

    def length(entry: Entry) -> int:
        return sum(piece.tokens for side in entry.sides.values() for piece in side.pieces.text)

    expected = {
        "margin": by(lambda entry: -entry.margins[0]),
        "error": by(lambda entry: entry.margins[0]),
        "depth": by(lambda entry: -entry.depths[0]),
        "length": by(lambda entry: -length(entry)),
        "id": [f"row {i}" for i in range(12)],
        "order": [f"row {i}" for i in range(12)],
    }
    for name, ids in expected.items():
        page.choose("#sort", name)
        assert page.listed() == ids, name
    wrong = [entry.id for entry in many.entries if entry.margins[0] < 0]
    assert 0 < len(wrong) < 12
    found = "[...document.querySelectorAll('#list .wrong')].map(one => one.querySelector('.id').textContent)"
    assert browser.run(found) == wrong


def test_without_a_model_there_are_lengths_openings_and_the_cut(
    browser: Browser, tokenizers: dict[str, Tokenizer], tmp_path: Path
) -> None:
    two = [preference("plain words, twice", "plain words: plain")]
    pairs = list(shown(two, tokenizers["bytes"], readings=0))
    page = Opened(browser, Lens("t", [], pairs, Truncation()), tmp_path / "lens.html")
    assert "in both" in page.text("#chosen-size") and page.texts("#chosen > .opening") == page.texts(
        "#rejected > .opening"
    )
    assert page.texts("#sort option") == ["order in the data", "length, longest first", "id"]
    assert browser.run("document.querySelectorAll('#cut line.chosen, #cut line.rejected').length") == 2
    assert browser.run("document.querySelectorAll('.up, .down, #scale').length") == 0
    assert browser.problems == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_the_window(browser: Browser, hostile: Lens, tmp_path: Path, width: int, dark: bool) -> None:
    page = Opened(browser, hostile, tmp_path / "lens.html")
    browser.window(width, 844, dark)
    browser.open((tmp_path / "lens.html").as_uri())
    browser.settle()
    assert browser.run("document.documentElement.scrollWidth") <= width
    paper = "rgb(22, 22, 21)" if dark else "rgb(255, 254, 251)"
    assert browser.run("getComputedStyle(document.body).backgroundColor") == paper
    left, right = page.box("#chosen"), page.box("#rejected")
    assert (left["right"] < right["left"]) == (width == 1280)  # beside each other, or one above the other
    assert (left["bottom"] <= right["top"]) == (width == 390)
    assert browser.run("document.getElementById('all').open") == (width == 1280)
    browser.picture(tmp_path / "lens.png")
    assert (tmp_path / "lens.png").stat().st_size > 20_000


def test_answers_get_most_of_the_height_and_the_prompt_opens_at_its_end(
    browser: Browser, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    turns = [Message("user" if i % 2 == 0 else "assistant", f"turn {i}: " + "some words " * 30) for i in range(9)]
    answer = Response("a long answer " * 400, 1.0)
    pair = Preference(id="row 1", prompt=tuple(turns), chosen=answer, rejected=answer)
    lens_ = Lens("long", ["A note."], list(shown([pair], tokenizer)), Truncation(Keep(Fraction(1, 2))), REWARD)
    page = Opened(browser, lens_, tmp_path / "lens.html")
    top, bottom = page.box("#chosen")["top"], page.box(".panel")["top"]
    assert bottom - top > 450, "more than half of a window of 900 pixels"
    left = browser.run("(p => p.scrollHeight - p.clientHeight - p.scrollTop)(document.getElementById('prompt'))")
    assert abs(left) < 2
    assert page.text("#name").startswith("turn 8: some words") and page.text("#id") == "row 1"
    assert page.texts("#list .question")[0].startswith("turn 8: some words")


def test_what_can_be_used_has_a_name(browser: Browser, many: Lens, tmp_path: Path) -> None:
    Opened(browser, many, tmp_path / "lens.html")
    nodes = browser("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "combobox", "searchbox", "slider", "link", "region", "heading")
    used = [(node["role"]["value"], node["name"]["value"]) for node in nodes if node["role"]["value"] in roles]
    assert {role for role, _ in used} == set(roles)
    assert all(name for _, name in used), used


@pytest.fixture(scope="module")
def large() -> Lens:
    """200 pairs of 500 tokens."""
    rng = np.random.default_rng(0)

    def side() -> Side:
        pieces = [Piece(f" word{i}", 1) for i in rng.integers(1000, size=499)]
        return Side(Pieces("", pieces, [Piece("<end>", 1)], ""), (rng.normal(size=500).cumsum(),))

    def entry(i: int) -> Entry:
        return Entry(f"row {i}", (), {name: side() for name in PAIR}, (float(i),), (50,))

    pairs = [entry(i) for i in range(200)]
    return Lens("large", [], pairs, Truncation(Keep(Fraction(1, 2))), REWARD)


def test_two_hundred_pairs_of_five_hundred_tokens_open_in_two_seconds(
    browser: Browser, large: Lens, tmp_path: Path
) -> None:
    page = Opened(browser, large, tmp_path / "l.html")
    loaded = "performance.getEntriesByType('navigation')[0].loadEventEnd"
    opened = [browser.run(loaded)]
    while min(opened) >= 2000 and len(opened) < 5:  # what is tested is the page, not what else the machine is doing
        browser.open((tmp_path / "l.html").as_uri())
        opened.append(browser.run(loaded))
    browser.press("j")
    drag = browser.run(
        "(() => { const began = performance.now(); const cut = document.getElementById('cut'); cut.focus();"
        "for (let i = 0; i < 20; i++) cut.dispatchEvent(new KeyboardEvent('keydown',"
        "{ key: 'ArrowRight', bubbles: true })); return (performance.now() - began) / 20 })()"
    )
    assert page.text("#id") == "row 1" and len(page.listed()) == 200
    assert min(opened) < 2000 and drag < 100, (opened, drag)


# ---- Two readings; what was decoded; a part of another page ----


def test_scores_of_another_tokenizer_stand_where_its_tokens_end() -> None:
    ours = Pieces("", [Piece("ab", 1), Piece("c", 1), Piece("de", 1)], [Piece("<end>", 1)], "")
    theirs = Pieces("", [Piece("abc", 1), Piece("d", 1), Piece("e", 1)], [Piece("<e>", 1)], "")
    scores = np.array([1.0, 2.0, 3.0, 4.0])
    assert by_characters(scores, theirs, ours, 0.0).tolist() == [0.0, 1.0, 3.0, 4.0]
    assert by_characters(scores, ours, ours, 0.0).tolist() == scores.tolist()
    bare = Pieces("", ours.text, [], "")
    assert by_characters(scores, theirs, bare, 0.0).tolist() == [0.0, 1.0, 4.0]


def test_a_second_reading_has_its_own_curve_colour_and_order(
    browser: Browser, corpus: list[Preference], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    pairs = [dataclasses.replace(one, id=f"row {i}") for i, one in enumerate(corpus[:5])]
    entries = list(shown(pairs, tokenizer, readings=2))
    readings = (Reading("reward", model="one"), Reading("implicit reward", True, "two"))
    page = Opened(browser, Lens("t", [], entries, Truncation(), readings), tmp_path / "lens.html")
    assert browser.run("document.querySelectorAll('#cut .curve').length") == 4
    for by in (0, 1):
        page.choose("#sort", "order")
        page.choose("#by", str(by))
        whole = number(page.texts("#scores tr:nth-child(3) td")[2])
        assert whole == pytest.approx(entries[0].margins[by], abs=0.006)
        page.choose("#sort", "margin")
        assert page.listed() == [one.id for one in sorted(entries, key=lambda one: -one.margins[by])]
    page.choose("#sort", "order")
    added = np.diff(entries[0].sides["chosen"].scores[1], prepend=0.0)
    found = browser.run("[...document.querySelectorAll('#chosen > span')].map(one => one.classList.contains('up'))")
    assert found == [value > 0 for value in added]
    assert browser.problems == []


def decoded() -> Lens:
    pieces = Pieces("", [Piece("It", 1), Piece(" is", 1), Piece(" so", 2)], [Piece("end of turn", 1)], "")
    scores = (np.array([0.5, 0.5, 2.0, 2.25]), np.array([0.5, 0.0, -1.0, -1.0]))
    entry = Entry("p:1", [Message("user", "Why?")], {"response": Side(pieces, scores, np.array([1, 0.25, 0, 0]))})
    other = dataclasses.replace(entry, id="p:2", sides={"response": Side(pieces, scores, np.array([1, 1, 1, 0]))})
    return Lens("run", ["Note."], [entry, other], Truncation(), decodes.READINGS, ALONE)


def test_decoded_tokens_show_their_divergence_and_who_said_them(browser: Browser, tmp_path: Path) -> None:
    page = Opened(browser, decoded(), tmp_path / "lens.html")
    classes = browser.run("[...document.querySelectorAll('#response > span')].map(one => one.className)")
    assert ["policy" in classes[0], "both" in classes[1], "reference" in classes[2]] == [True] * 3
    assert ["up" in one for one in classes] == [True, False, True, True]
    assert page.texts("#scores td") == ["4 of 4", "+2.25", "+2.25"]
    assert browser.run("document.querySelectorAll('#cut rect[class^=by-]').length") == 3
    page.choose("#sort", "share")
    assert page.listed() == ["p:2", "p:1"]
    box = page.box("#response > span:nth-child(2)")
    browser.mouse("mouseMoved", box["left"] + 3, box["top"] + 5)
    readout = page.text("#readout")
    said = "response, token 2 · 25 % of it said by the policy"
    assert readout == f"{said} · adds 0 · KL +0.500 · adds −0.500 · log-ratio 0"
    browser.run("document.getElementById('cut').focus()")
    browser.press("Home")
    assert page.texts("#scores td")[0] == "1 of 4"
    assert browser.problems == [] and browser.requests == [(tmp_path / "lens.html").as_uri()]


def embedding(lenses: list[Lens]) -> str:
    """A page with other things of the same names and styles, and these lenses."""
    sections = "".join(section(contents(one), f"lens-{i}:") for i, one in enumerate(lenses, start=1))
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {source(script())}"
    style = "h2, h3, h4, h5 { font-size: 99px } table { display: none } .chosen { display: none }"
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}"><style>{style}</style>'
    return f"<!doctype html>{head}<p id=list>theirs</p>{sections}<script>{script()}</script>"


def test_lenses_are_parts_of_another_page(browser: Browser, hostile: Lens, many: Lens, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(embedding([many, hostile]), encoding="utf-8")
    browser.visit(path.as_uri() + "#lens-2:" + quote(f"id {BAD}~2"))
    inside = "document.querySelectorAll('.lens')[{}].shadowRoot"
    assert browser.run(inside.format(1) + ".getElementById('id').textContent") == f"id {BAD}"
    assert browser.run(inside.format(1) + ".getElementById('place').textContent") == "2 of 2"
    assert browser.run("window.scrollY") > 0
    assert browser.run(inside.format(0) + ".getElementById('place').textContent") == "1 of 12"
    assert browser.run("document.getElementById('list').textContent") == "theirs"
    assert browser.run(f"getComputedStyle({inside.format(0)}.querySelector('.chosen')).display") == "block"
    assert browser.run("document.querySelectorAll('img').length") == 0
    browser.press("j")  # the keyboard is the page's until the lens has the focus
    assert browser.run(inside.format(0) + ".getElementById('place').textContent") == "1 of 12"
    browser.run(inside.format(0) + ".querySelector('#list a').focus()")
    browser.press("j")
    browser.settle()
    assert browser.run("location.hash") == "#lens-1%3Arow%201"
    assert browser.run(inside.format(0) + ".getElementById('place').textContent") == "2 of 12"
    assert browser.problems == [] and len(browser.requests) == 1


def test_a_report_holds_the_extremes_that_fit(many: Lens) -> None:
    whole = contents(many)
    margins = sorted(entry.margins[0] for entry in many.entries)
    for max_tokens, count in ((0, 0), (10_000_000, 12)):
        assert len(extremes(whole, max_tokens)["entries"]) == count
    some = extremes(whole, 60_000)["entries"]
    assert 2 <= len(some) < 12
    found = sorted(entry["margins"][0] for entry in some)
    low = (len(some) + 1) // 2
    assert found == pytest.approx(margins[:low] + margins[len(margins) - len(some) + low :], rel=1e-4)
    order = [entry["id"] for entry in whole["entries"]]
    assert [entry["id"] for entry in some] == sorted((entry["id"] for entry in some), key=order.index)


def test_a_link_is_copied(browser: Browser, many: Lens, tmp_path: Path) -> None:
    page = Opened(browser, many, tmp_path / "lens.html", "#row%203")
    kept = "navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve() }"
    browser.run(kept)
    browser.run("document.getElementById('copy').click()")
    browser.settle()
    assert page.text("#place") == "link copied"
    assert browser.run("window.copied") == (tmp_path / "lens.html").as_uri() + "#row%203"
    browser.run("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    browser.run("document.getElementById('copy').click()")
    browser.settle()
    assert page.text("#place") == "the address bar has the link"


def test_it_is_printed_without_what_paper_cannot_do(browser: Browser, many: Lens, tmp_path: Path) -> None:
    Opened(browser, many, tmp_path / "lens.html")
    browser("Emulation.setEmulatedMedia", media="print")
    hidden = "['aside', '#copy', '.keys'].map(one => getComputedStyle(document.querySelector(one)).display)"
    assert browser.run(hidden) == ["none"] * 3
    assert browser.run("getComputedStyle(document.querySelector('.panel')).position") == "static"
    browser("Emulation.setEmulatedMedia", media="")


# ---- In a report ----


@dataclasses.dataclass(frozen=True)
class Ran:
    model: str = BAD


def lens_run(path: Path, shown: Lens) -> runs.Run:
    writer = runs.start(path, "lens", Ran())
    (writer.path / DATA).write_text(json.dumps(contents(shown)))
    return runs.load(writer.finish())


def test_a_report_holds_the_lenses_of_its_runs(
    browser: Browser, hostile: Lens, many: Lens, large: Lens, tmp_path: Path
) -> None:
    folder = tmp_path / BAD.replace("/", "")
    found = [lens_run(folder / f"{i} {BAD.replace('/', '')}", one) for i, one in enumerate((hostile, many, large))]
    path = report.write(found, tmp_path / "report.html")
    assert path.stat().st_size < 5_000_000
    browser.visit(path.as_uri())
    shown = "[...document.querySelectorAll('.lens')].map(one => one.shadowRoot.querySelectorAll('#list li').length)"
    counts = browser.run(shown)
    assert counts[:2] == [2, 12] and 10 < counts[2] < 200
    assert f"{counts[2]} of 200 pairs: those with the lowest" in browser.run("document.body.textContent")
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert "broken" not in browser.run("document.title").replace(BAD.replace("/", ""), "")
    assert browser.problems == [] and browser.requests == [path.as_uri()]
    browser.window(390, 844)
    browser.settle()
    assert browser.run("document.documentElement.scrollWidth") <= 390
