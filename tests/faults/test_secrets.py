"""S6: a canary key is in no message, file, page or traceback, whatever is done with it."""

from __future__ import annotations

import copy
import dataclasses
import http.server
import json
import logging
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater import cli, files, masking
from headwater.cli import main
from headwater.errors import NetworkError, UsageError
from headwater.journal import Journal
from headwater.masking import Secret, mask, mask_all, mask_values, masked_output
from headwater.network import endpoint
from headwater.network.endpoint import Endpoint
from headwater.results import runs

pytestmark = pytest.mark.fault("S6")

CANARY = "canary-0123456789abcdef"


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(endpoint.KEY, CANARY)
    return CANARY


class Echo(http.server.BaseHTTPRequestHandler):
    """A server that repeats the key it was sent, in its answers and in its errors."""

    status = 200
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        said = f"[[A>B]] your key is {self.headers['Authorization']}"
        choice = {"message": {"content": said}, "finish_reason": "stop"}
        body = json.dumps({"choices": [choice], said: 1, "usage": {"completion_tokens": 3}}).encode()
        self.send_response(type(self).status, said)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[str]:
    Echo.status = 200
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def grep(folder: Path, needle: str = CANARY) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and needle.encode() in path.read_bytes()]


# --- a key ---------------------------------------------------------------------------------------------------------


def test_a_secret_prints_pickles_and_serialises_as_a_mask() -> None:
    secret = Secret(CANARY)
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!r:>40}",
        secret + "",
        json.dumps([secret]),
    ]
    shown += [pickle.loads(pickle.dumps(secret)), copy.deepcopy(secret), repr({"k": secret}), str([secret])]  # noqa: S301
    assert not [text for text in shown if CANARY in text] and all(masking.MASK in text for text in shown)
    assert CANARY.encode() not in pickle.dumps(secret)
    assert secret.reveal() == CANARY


@pytest.mark.parametrize("around", [f"{CANARY}\n", f" {CANARY} ", f"{CANARY}\r\n"])
def test_white_space_around_a_key_is_no_part_of_it(around: str, echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(endpoint.KEY, around)
    assert "your key is Bearer ***" in str(Endpoint(echo).post("/x", {}))


@pytest.mark.parametrize("bad", [f"{CANARY}\nX-Other: 1", f"{CANARY} x", f"{CANARY}\x07", f"{CANARY}é"])
def test_a_key_that_cannot_be_sent_is_refused_by_its_name(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(endpoint.KEY, bad)
    with pytest.raises(UsageError, match="OPENAI_API_KEY · holds") as caught:
        Endpoint("http://127.0.0.1:9/v1")
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("host", ["10.0.0.5", "example.org", "127.0.0.1.example.org", "[2001:db8::1]"])
def test_a_key_does_not_leave_this_machine_unencrypted(host: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="to another machine unencrypted") as caught:
        Endpoint(f"http://{host}:8000/v1")
    assert CANARY not in str(caught.value)
    Endpoint(f"https://{host}:8000/v1")
    monkeypatch.delenv(endpoint.KEY)
    Endpoint(f"http://{host}:8000/v1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_a_key_may_go_to_this_machine(host: str, key: str) -> None:
    Endpoint(f"http://{host}:8000/v1")


@pytest.mark.parametrize("address", ["http://", "http://host:port/v1", "http://[::1/v1", "http://a b/v1", "HTTP//x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        Endpoint(address)


# --- texts ---------------------------------------------------------------------------------------------------------

FORMS = {
    "plain": "before {} after",
    "bearer": "Authorization: Bearer {}",
    "address": "https://user:{}@host/v1",
    "query": "https://host/?api_key={}&x=1",
    "json": '{{"key": "{}"}}',
}


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "HF_TOKEN", "MY_SECRET", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY"])
@pytest.mark.parametrize("form", FORMS)
def test_secrets_of_the_environment_are_known_by_value(form: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, CANARY)
    for masked in (mask(FORMS[form].format(CANARY)), mask_values(FORMS[form].format(CANARY))):
        assert CANARY not in masked and masking.MASK in masked


def test_a_secret_is_known_in_the_forms_it_is_written_in(monkeypatch: pytest.MonkeyPatch) -> None:
    import base64
    import html
    import urllib.parse

    value = 'a"b\\c<d>&e\n/ü-canary'
    monkeypatch.setenv("SOME_TOKEN", value)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:proxy-password-1@host:1")
    forms = [value, json.dumps(value), repr(value), html.escape(value), urllib.parse.quote(value)]
    forms += [base64.b64encode(value.encode()).decode(), "proxy-password-1"]
    assert not [form for form in forms if "canary" in mask_values(form) or "proxy-password" in mask_values(form)]
    assert masking.MASK in mask_values(base64.b64encode(value.encode()).decode())


@pytest.mark.parametrize(
    "text",
    [
        "sk-proj-abcdefghijklmnop",
        "hf_abcdefghijklmnopqrst",
        "Bearer abcdefghijkl",
        "http://me:abcdefgh@host.org/",
        "http://host/?token=abcdefgh",
        "x-api-key: abcdefghijkl",
    ],
    ids=range(6),  # pytest tells the environment the name of a test
)
def test_what_looks_like_a_secret_is_masked_in_messages_and_kept_in_data(text: str) -> None:
    assert "abcdefgh" not in mask(text)
    assert mask_values(text) == text


def test_ordinary_texts_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    monkeypatch.setenv("SOME_KEY", "")
    monkeypatch.setenv("MONKEY_ISLAND", "an island in the sea")
    text = "1 token of 2 · https://host/v1 · risk-free · user@host · a/b@main · the key: value · an island in the sea"
    assert mask(text) == text
    assert mask_all({"a": ["b", 1, None, 2.5]}) == {"a": ["b", 1, None, 2.5]}


# --- everything that is written ----------------------------------------------------------------------------------


def test_an_answer_that_repeats_the_key_is_masked_before_it_is_stored(key: str, echo: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger", {"endpoint": f"http://x:{CANARY}@y"})
    journal["a"] = Endpoint(echo).post("/chat/completions", {})
    journal["b"] = {"direct": CANARY}
    journal.close()
    assert not grep(tmp_path) and masking.MASK in (tmp_path / "ledger").read_text()
    again = Journal(tmp_path / "ledger", {"endpoint": f"http://x:{CANARY}@y"})
    assert again["b"] == {"direct": masking.MASK}
    again.close()


@pytest.mark.parametrize("status", [400, 401, 402, 404, 500])
def test_an_error_that_repeats_the_key_is_masked(
    status: int, key: str, echo: str, caplog: pytest.LogCaptureFixture
) -> None:
    Echo.status = status
    with pytest.raises(NetworkError) as caught:
        Endpoint(echo, attempts=2, sleep=lambda wait: None).post("/x", {})
    assert "***" in str(caught.value) and CANARY not in str(caught.value) + caplog.text
    assert caught.value.__cause__ is None


@dataclasses.dataclass(frozen=True)
class Config:
    model: str
    output: Path


def test_a_run_holds_no_secret(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["headwater", "x", "--model", f"http://me:{CANARY}@h", "hf_abcdefghijklmnopqrst"])
    writer = runs.start(tmp_path / "run", "x", Config(CANARY, tmp_path), facts={"said": CANARY})
    writer.log({"loss": 1.0, "note": CANARY})
    writer.write_metrics({f"win_rate/{CANARY}": 0.5})
    files.write_text(tmp_path / "run" / "README.md", f"card {CANARY}")
    files.write_text(tmp_path / "page.html", f"<p>{CANARY}</p>")
    writer.finish()
    assert not grep(tmp_path)
    assert not grep(tmp_path, "hf_abcdefghijklmnopqrst")
    assert runs.load(tmp_path / "run").config["model"] == masking.MASK


def test_what_libraries_print_is_masked(key: str, capfd: pytest.CaptureFixture[str]) -> None:
    def in_thread() -> None:
        raise ValueError(CANARY)

    with masked_output():
        print(CANARY)
        warnings.warn(CANARY, stacklevel=1)
        handler = logging.StreamHandler()
        logging.getLogger("somebody").addHandler(handler)
        logging.getLogger("somebody").error("%s", CANARY)
        logging.getLogger("somebody").removeHandler(handler)
        sys.stderr.writelines([CANARY, "sk-abcdefghijklmnopqrst"])
        assert sys.stderr.isatty() is False and sys.stdout.encoding
    out, err = capfd.readouterr()
    assert CANARY not in out + err and "abcdefghijkl" not in err and masking.MASK in out


@pytest.mark.parametrize("flag", [(), ("--traceback",)])
def test_a_bug_prints_and_keeps_no_secret(
    flag: tuple[str, ...], key: str, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(name: str) -> str:
        try:
            raise ValueError(f"header Authorization: Bearer {CANARY}")
        except ValueError as error:
            raise KeyError(CANARY) from error

    monkeypatch.setattr(cli, "_command", broken)
    assert main(["demo", *flag]) == 1
    printed = "".join(capsys.readouterr())
    assert CANARY not in printed and masking.MASK in printed and not grep(cache)
    assert ("Traceback" in printed) == bool(flag)


def test_a_judge_run_holds_no_secret(
    key: str, echo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("base", "new"):
        rows = [{"instruction": f"q{n}", "output": f"{name} {n}", "generator": name} for n in range(3)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    arguments = ["judge", "--baseline", str(tmp_path / "base.json"), "--answers", str(tmp_path / "new.json")]
    arguments += ["--judge", "pairwise(model='m')", "--endpoint", echo, "--output", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["headwater", *arguments])
    assert main(arguments) == 6, "the server echoes, and judges nothing"
    assert not grep(tmp_path) and CANARY not in "".join(capsys.readouterr())


def test_the_client_is_built_once_a_process_and_asks_nobody_else(key: str, echo: str) -> None:
    """Connections are kept, and the HTTP library is never told the key but in the header."""
    found: list[Any] = [Endpoint(echo).post("/x", {}) for _ in range(3)]
    assert len(found) == 3
    import os

    client = endpoint._client(os.getpid())
    assert CANARY not in repr(vars(client)) and "authorization" not in client.headers
    assert not client.follow_redirects


def test_at_the_shell(tmp_path: Path) -> None:
    """A key with a line break inside, as a file read by `$(cat …)` in quotes may give it."""
    environment = {"PATH": "/usr/bin:/bin", "OPENAI_API_KEY": f"{CANARY}\nmore", "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-m", "headwater", "sample", "--input", "x.jsonl", "--output", "y.jsonl", "--model", "m"]
    done = subprocess.run(
        [*command, "--endpoint", "http://127.0.0.1:9/v1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 2 and "OPENAI_API_KEY" in done.stderr
    assert CANARY not in done.stdout + done.stderr and "Traceback" not in done.stderr
