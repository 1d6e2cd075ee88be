"""The 70 cases of the fault matrix (docs/reliability.md), and the line that a test run prints about them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

CASES = {
    "D1": "broken JSON in the middle of a file",
    "D2": "torn last line",
    "D3": "a response of another type",
    "D4": "a response that is missing or null",
    "D5": "a JSON line that is no object",
    "D6": "a key twice in one object",
    "D7": "half a surrogate pair",
    "D8": "invalid UTF-8, another encoding, byte order mark, CRLF",
    "D9": "control characters and bidirectional overrides in texts",
    "D10": "empty response",
    "D11": "two responses that are the same, also after a cut",
    "D12": "duplicate rows, rows with the label flipped",
    "D13": "evaluation prompts in the training data",
    "D14": "a prompt that is implied by a common beginning",
    "D15": "a dialogue without a boundary, or with two prompts",
    "D16": "roles out of order or unknown",
    "D17": "a file without a usable row",
    "D18": "fewer rows than a batch",
    "D19": "a prompt longer than the maximum",
    "D20": "a row of 5 MB; a million rows in bounded memory",
    "D21": "a compressed or columnar file cut in half, a wrong extension",
    "D22": "data that changes during a run",
    "D23": "scores that are not finite, variance of one response",
    "T1": "a cut inside of a grapheme",
    "T2": "a token that spans prompt and response",
    "T3": "beginning and end tokens twice or missing",
    "T4": "no pad token, pad = end, no chat template",
    "T5": "padding side, batch size, order",
    "T6": "token ids beyond the embeddings",
    "T7": "a ratio outside of 0 to 1",
    "T8": "special tokens spelled in the data",
    "T9": "policy and reference with different tokenizers",
    "R1": "killed at any file operation of a save",
    "R2": "a checkpoint without its optimizer state",
    "R3": "a checkpoint without its generator state",
    "R4": "a truncated or altered weight file",
    "R5": "an empty newest checkpoint, a leftover staging folder",
    "R6": "disk full during checkpoint, metrics, report, cache",
    "R7": "SIGTERM in every phase",
    "R8": "SIGINT once and twice",
    "R9": "out of memory in a pass",
    "R10": "out of memory at one pair",
    "R11": "resuming with other settings, data, models, versions",
    "R12": "two processes on one output",
    "R13": "an output that cannot be written",
    "R14": "a hub that is offline, refuses, or lacks what is asked for",
    "R15": "a process of several dies or hangs",
    "R16": "odd locale, odd paths, a working folder that is gone",
    "R17": "one point of a sweep fails",
    "N1": "a loss that is not a number",
    "N2": "an infinite gradient",
    "N3": "a row without a token to learn from",
    "N4": "extreme logits, extreme beta",
    "N5": "weights that are not finite",
    "J1": "a judge that is busy, fails, or breaks off",
    "J2": "a judge that refuses the key or the model",
    "J3": "killed while judging",
    "J4": "verdicts that cannot be read, injected verdicts",
    "J5": "verdicts that differ by order",
    "J6": "a ledger of another judge, or damaged",
    "J7": "length control that is undefined",
    "J8": "bootstrap intervals: same seed, one item",
    "S1": "scripts in texts and names, in a browser",
    "S2": "model repositories with code",
    "S3": "pickles in place of weights, optimizer, cache",
    "S4": "YAML with objects, aliases, or of enormous size",
    "S5": "names that leave the output folder",
    "S6": "secrets in environment, configuration, addresses, replies",
    "S7": "chat templates that do not end or reach out",
    "S8": "unknown keys and flags, wrong types, conflicts",
}


class Record:
    """What the tests of every case came to."""

    def __init__(self) -> None:
        self.failed: dict[str, list[str]] = defaultdict(list)
        self.skipped: dict[str, str] = {}
        self.passed: set[str] = set()
        self.silent = self.lost = 0

    def add(self, cases: Iterable[str], report: Any) -> None:
        """Take the report of a test of some cases."""
        for case in cases:
            if report.failed:
                self.failed[case].append(report.nodeid)
                self.silent += "SilentError" in report.longreprtext
                self.lost += "RowsLostError" in report.longreprtext
            elif report.skipped and report.when in ("setup", "call"):
                self.skipped[case] = str(report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr)
            elif report.when == "call":
                self.passed.add(case)

    def lines(self) -> list[str]:
        """Return the summary; a case with a test that passed and another that was skipped here is survived."""
        survived = self.passed - set(self.failed)
        not_run = {case: why for case, why in self.skipped.items() if case not in self.passed | set(self.failed)}
        lines = [f"faults: {len(survived)}/{len(CASES)} survived, {self.lost} rows lost, {self.silent} silent"]
        lines += [f"  {case} ({CASES[case]}): FAILED" for case in sorted(self.failed, key=_order)]
        lines += [f"  {case} ({CASES[case]}): not run here: {not_run[case]}" for case in sorted(not_run, key=_order)]
        missing = sorted(set(CASES) - self.passed - set(self.failed) - set(self.skipped), key=_order)
        return [*lines, f"  not part of this run: {', '.join(missing)}"] if missing else lines


def _order(case: str) -> tuple[int, int]:
    return "DTRNJS".index(case[0]), int(re.sub(r"\D", "", case))
