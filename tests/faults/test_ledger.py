"""J1, J2, J6, D9: load is waited out, refusals are not, damaged ledgers are mended, hidden characters are shown."""

from __future__ import annotations

import http.server
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater import console
from headwater.cli import main
from headwater.errors import NetworkError, UsageError
from headwater.journal import Journal
from headwater.marks import hidden_in, marked, visible
from headwater.network.endpoint import Endpoint


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers with the statuses of its script, one after another."""

    script: list[int]
    asked: int

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked += 1
        status = type(self).script.pop(0)
        if status == 0:  # hang up in the middle
            self.connection.close()
            return
        self.send_response(status)
        body = b'{"choices": []}' if status == 200 else b'{"error": "model m is not here"}'
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", "3")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Scripted.asked = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.mark.fault("J1")
def test_load_is_waited_out_and_every_attempt_logged(address: str, caplog: pytest.LogCaptureFixture) -> None:
    Scripted.script = [429, 500, 503, 0, 200]
    waits: list[float] = []
    with caplog.at_level(logging.WARNING, logger="headwater"):
        assert Endpoint(address, sleep=waits.append).post("/x", {}) == {"choices": []}
    assert Scripted.asked == 5 and waits[0] == 3.0 and len(set(waits)) == 4
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("headwater")]
    assert len(logged) == 4
    assert "HTTP 429" in logged[0] and logged[0].endswith("attempt 2 of 8 in 3.0 s")


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
@pytest.mark.fault("J2")
def test_a_refusal_stops_at_once(status: int, address: str) -> None:
    Scripted.script = [status]
    with pytest.raises(NetworkError, match=f"HTTP {status}: .*model m is not here") as caught:
        Endpoint(address, sleep=lambda wait: pytest.fail("waited")).post("/x", {})
    assert Scripted.asked == 1 and caught.value.exit_code == 6


DAMAGED = {
    "flipped": b'{"key":"b","va\xffue":2}\n',
    "no JSON": b"{{{\n",
    "empty": b"\n",
    "without a key": b'{"value": 2}\n',
    "a list": b"[1]\n",
    "two lines in one": b'{"key":"b","value":2}{"key":"x","value":3}\n',
    "zeros": b"\0" * 40 + b"\n",
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.fault("J6")
def test_a_damaged_line_is_named_cut_and_done_again(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger"
    journal = Journal(path, {"seed": 1})
    for key in "abc":
        journal[key] = key.upper()
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], DAMAGED[kind], lines[3]]) + b'{"key":"d","val')
    with caplog.at_level(logging.WARNING, logger="headwater"):
        journal = Journal(path, {"seed": 1})
    assert "damaged in line 3; these are cut" in caplog.text
    assert [key in journal for key in "abcd"] == [True, False, True, False]
    journal["b"] = "B"
    assert [journal[key] for key in "abc"] == ["A", "B", "C"]
    journal.close()
    again = Journal(path, {"seed": 1})
    assert len(again) == 3 and again["c"] == "C"
    again.close()
    assert [file.name for file in tmp_path.iterdir()] == ["ledger"]
    assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.fault("J6")
def test_a_ledger_of_other_settings_or_with_a_damaged_first_line_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    journal = Journal(path, {"seed": 1})
    journal["a"] = 1
    journal.close()
    with pytest.raises(UsageError, match="begun with other settings"):
        Journal(path, {"seed": 2})
    path.write_bytes(b"\xff" + path.read_bytes())
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is damaged in line 1"):
        Journal(path, {"seed": 1})
    assert path.read_bytes() == before


HIDDEN = {"\0": "␀", "\x1b": "␛", "\x7f": "<U+007F>", "\u202e": "<U+202E>", "\u200b": "<U+200B>", "\ufeff": "<U+FEFF>"}


@pytest.mark.parametrize("character", HIDDEN)
@pytest.mark.fault("D9")
def test_hidden_characters_are_shown_and_counted(character: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"a{character}b\tc"
    assert marked(text) == f"a{HIDDEN[character]}b\tc" and HIDDEN[character] in visible(text)
    assert hidden_in(text * 3) == 3
    console.say(text)
    console.show(text)
    printed = "".join(capsys.readouterr())
    assert character not in printed and printed.count(HIDDEN[character]) == 2


@pytest.mark.fault("D9")
def test_ordinary_characters_are_not() -> None:
    text = "Ünïcödé 漢字 👩\u200d🔬 a\r\n\tb — ⏎"
    assert hidden_in(text) == 0 and marked("é 漢字 👩\u200d🔬\n") == "é 漢字 👩\u200d🔬\n"
    assert hidden_in("\udcff") == 1 and marked("\udcff") == "<U+DCFF>"


@pytest.mark.fault("D9")
def test_they_are_counted_by_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": "p\u202e", "chosen": "a\x1b[31m", "rejected": "b\0"},
        {"prompt": "q", "chosen": "c", "rejected": "d \u200b"},
        {"prompt": "r", "chosen": "e", "rejected": "f"},
    ]
    data = tmp_path / "odd.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["inspect", str(data)]) == 0
    printed = "".join(capsys.readouterr())
    assert "4 (controls, bidi, zero width) in 2 rows" in printed
    assert not set(HIDDEN) & set(printed)
