"""Figures in their forms: names that stay, files that stand alone, tooltips that tell every number, colours."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headwater import cli
from headwater.errors import UsageError
from headwater.reporting import figures, outline, page
from headwater.reporting.figures import Drawing
from headwater.reporting.plots import DETAILS, KEY, PLOTS, SECTIONS, Block
from headwater.reporting.plots.drawing import COLOURS, DARK, GREY
from headwater.results import runs
from tests.reporting.colour import VISIONS, contrast, difference
from tests.reporting.test_findings import evaluated as found
from tests.reporting.test_page import study
from tests.reporting.test_plots import NEEDS, compared, diagnosed, trained


def drawings(section: str, given: list[runs.Run]) -> list[Drawing]:
    return [one for figure in figures.figures({section: PLOTS[section]}, given) for one in figure.drawings]


def units(spec: Any) -> list[dict[str, Any]]:
    return [unit for layer in spec["layer"] for unit in (units(layer) if "layer" in layer else [layer])]


def tooltips(spec: Any) -> list[dict[str, str]]:
    told = [layer["encoding"].get("tooltip", []) for layer in units(spec) if "encoding" in layer]
    return [{one["field"]: one["title"] for one in tooltip} for tooltip in told if tooltip]


@pytest.mark.parametrize("section", PLOTS)
def test_every_drawing_has_marks_that_tell_their_numbers(section: str, tmp_path: Path) -> None:
    found = drawings(section, NEEDS[section](tmp_path))
    assert found
    for drawing in found:
        told = tooltips(drawing.spec)
        assert told and all(title for tooltip in told for title in tooltip.values()), drawing.name


def test_a_tooltip_says_which_one_where_and_how_sure(tmp_path: Path) -> None:
    (drawing,) = drawings("accuracy", NEEDS["accuracy"](tmp_path))
    assert tooltips(drawing.spec)[-1] == {
        "run": "run",
        "keep": "Kept beginning of each response (%)",
        "accuracy": "Held-out accuracy (share of pairs)",
        "low": "from",
        "high": "to",
    }


def test_a_line_is_told_point_by_point_and_looks_the_same(tmp_path: Path) -> None:
    (drawing,) = drawings("loss", [trained(tmp_path / "a", "loss")])
    line, points = units(drawing.spec)
    assert line["mark"]["type"] == "line" and "tooltip" not in line["encoding"]
    assert points["mark"]["type"] == "point" and points["mark"]["opacity"] == 0
    assert points["encoding"]["x"] == line["encoding"]["x"] and points["encoding"]["y"] == line["encoding"]["y"]
    assert "opacity" not in json.dumps(drawing.panel.chart.to_dict()["layer"])  # the picture has none of it


def test_shares_are_told_in_percent_and_numbers_are_short(tmp_path: Path) -> None:
    (drawing,) = drawings("scores", NEEDS["scores"](tmp_path))
    formats = {one["field"]: one.get("format") for one in units(drawing.spec)[1]["encoding"]["tooltip"]}
    assert formats == {"x": ".4~g", "share": ".3~p"}
    assert not re.search(r"\d\.\d{9}", json.dumps(drawing.spec["datasets"]))


def test_names_are_those_of_figure_block_and_panel(tmp_path: Path) -> None:
    given = [trained(tmp_path / "a", "rewards/chosen"), trained(tmp_path / "b", "rewards/chosen", command="日本")]
    names = [one.name for one in drawings("rewards", given)]
    assert names == ["rewards-train-dpo-chosen-reward", "rewards-chosen-reward"]
    given.append(trained(tmp_path / "c", "rewards/chosen", command="本"))
    assert [one.name for one in drawings("rewards", given)] == [*names, f"{names[1]}-2"]
    assert len(figures.figures(PLOTS, given, "-7")[0].drawings[0].name) <= figures.LONGEST


def test_no_two_drawings_of_a_page_share_a_name(tmp_path: Path) -> None:
    given = [trained(tmp_path / "a", "loss", command="norm")]
    plots = {"loss": PLOTS["loss"], "loss-norm": PLOTS["loss"]}
    names = [one.name for figure in figures.figures(plots, given) for one in figure.drawings]
    assert names == ["loss-norm", "loss-norm-norm"]
    given = [trained(tmp_path / "b", "loss", command="norm"), trained(tmp_path / "c", "loss", command="日")]
    names = [one.name for figure in figures.figures(plots, given) for one in figure.drawings]
    assert names == ["loss-norm", "loss", "loss-norm-norm", "loss-norm-2"]


def test_files_for_papers_stand_alone(tmp_path: Path) -> None:
    given = [trained(tmp_path / "one run", "loss"), diagnosed(tmp_path / "s")]
    written = figures.write(given, tmp_path / "figures")
    assert sorted(tmp_path.glob("figures/*")) == sorted(written)
    names = {path.stem for path in written}
    assert {"loss-train-dpo", "diagnostics-s-confidence", "diagnostics-s-margin"} <= names
    assert len(written) == 3 * len(names)
    begins = {".svg": b"<svg", ".pdf": b"%PDF", ".png": b"\x89PNG"}
    assert all(path.read_bytes().startswith(begins[path.suffix]) for path in written)
    loss = (tmp_path / "figures" / "loss-train-dpo.svg").read_text()
    assert ">one run<" in loss and COLOURS[0] in loss  # the key, which the page writes beside the drawing
    again = figures.write(given, tmp_path / "again")
    svgs = [[path.read_bytes() for path in files if path.suffix == ".svg"] for files in (written, again)]
    assert svgs[0] == svgs[1]


def test_the_command_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path / "a", "loss")
    arguments = ["report", str(run.path), str(run.path), "--output", str(tmp_path / "r.html")]
    assert cli.main([*arguments, "--figures", str(tmp_path / "figures")]) == 0
    assert "figures: 3 files in" in capsys.readouterr().err
    assert cli.main([*arguments, "--figures", str(tmp_path / "r.html")]) == UsageError.exit_code


def test_every_figure_stands_in_one_section(tmp_path: Path) -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    assert len(listed) == len(set(listed)) and set(listed) <= set(PLOTS)
    assert set(listed) >= {*DETAILS, *KEY}
    drawn = figures.figures({"new": PLOTS["loss"], **PLOTS}, study(tmp_path))
    plan = outline.outline(study(tmp_path / "again"), drawn, with_data=False)
    assert [section.title for section in plan.sections] == ["Training", "Models", "Further figures"]
    assert [figure.id for figure in plan.sections[-1].figures] == ["new"]
    found = [figure.id for section in plan.sections for figure in (*section.figures, *section.details)]
    assert plan.figure is not None
    assert sorted([*found, plan.figure.id]) == sorted(f.id for f in drawn)
    signal = figures.figures(PLOTS, NEEDS["signal"](tmp_path / "signal"))
    several = outline.outline(NEEDS["signal"](tmp_path / "other"), signal, with_data=False)
    assert several.figure is not None
    left = [one.name for section in several.sections for figure in section.figures for one in figure.drawings]
    assert [*(one.name for one in several.figure.drawings), *left] == [one.name for f in signal for one in f.drawings]
    assert len(several.figure.drawings) == 1 and several.figure.id == "signal-first"


def test_a_figure_shows_three_rows_and_folds_the_rest() -> None:
    def figure(*sizes: int) -> figures.Figure:
        named = [(Block(str(i), [], []), [None] * size) for i, size in enumerate(sizes)]
        return figures.Figure("f", "F", "", named)  # type: ignore[arg-type]

    def sizes(blocks: Sequence[tuple[Block, Sequence[object]]]) -> list[tuple[str, int]]:
        return [(block.title, len(drawings)) for block, drawings in blocks]

    assert sizes(figure(5, 4).shown) == [("0", 3), ("1", 3)] and sizes(figure(5, 4).folded) == [("0", 2), ("1", 1)]
    many = figure(*[3] * 5)
    assert sizes(many.shown) == [("0", 3), ("1", 3), ("2", 3)] and sizes(many.folded) == [("3", 3), ("4", 3)]
    assert len(figure(*[1] * 12).shown) == 9 and len(figure(*[1] * 12).folded) == 3
    assert figure(2).folded == []


def test_the_contents_lead_to_every_section(tmp_path: Path) -> None:
    text = page.render(study(tmp_path))
    links = re.findall('<li><a href="#([^"]+)">', text)
    assert links == re.findall(r'<(?:section|details class="fold") id="([\w-]+)"', text)


# ---- Colours ----


def themes(tmp_path: Path) -> dict[str, dict[str, str]]:
    """The page's colours by name, light and dark."""
    blocks = re.findall(r":root \{(.*?)\}", page.render(study(tmp_path)), flags=re.DOTALL)[:2]
    return {
        theme: dict(re.findall(r"--(\w+): (#\w{6})", block))
        for theme, block in zip(("light", "dark"), blocks, strict=True)
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(theme: str, tmp_path: Path) -> None:
    named = themes(tmp_path)[theme]
    for text, ground in itertools.product(("ink", "soft"), ("paper", "wash")):
        assert contrast(named[text], named[ground]) >= 4.5, (text, ground)
    shown = [*(COLOURS if theme == "light" else DARK.values()), GREY]
    for colour in shown:
        assert contrast(colour, named["paper"]) >= 3, colour
    for side in ("chosen", "rejected"):
        assert contrast(named[side], named["paper"]) >= 4.5, side  # their names are written in them


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("palette", [COLOURS, tuple(DARK.values())], ids=["light", "dark"])
def test_colours_are_told_apart_by_every_vision(palette: tuple[str, ...], vision: str) -> None:
    assert min(difference(*pair, vision) for pair in itertools.combinations(palette, 2)) > 10


def test_black_on_white_and_like_on_like() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#123456", "#123456") == 1
    assert difference("#cc0000", "#00aa00", "usual") > 5 * difference("#cc4400", "#886600", "protanopia")


def test_title_verdict_and_key_figure_are_about_the_same(tmp_path: Path) -> None:
    given = [found(tmp_path / "reward-on-test", 0.9), compared(tmp_path / "judged")]
    plan = outline.outline(given, figures.figures(PLOTS, given), with_data=False)
    assert plan.figure is not None and plan.figure.id.startswith("win-rates")
    assert plan.title == "Policies under judges: judged"
    assert plan.verdict == "judged: By rm, dpo is better than sft: win rate 0.7."
