"""Command name to module; imports only the one that is asked for, so that `--help` answers at once."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import headwater
from headwater import config, interrupts, masking
from headwater.errors import HeadwaterError, UsageError, did_you_mean, first_line
from headwater.files import caches, locks, write_text
from headwater.marks import marked


class Command(NamedTuple):
    """Where a verb lives, and what it does in one line."""

    module: str
    does: str


COMMANDS = {
    "demo": Command("headwater.studies.demo", "run the main job on a built-in corpus with a planted signal depth"),
    "inspect": Command("headwater.commands.inspect", "show what a data set is, and which rows are bad"),
    "preprocess": Command("headwater.commands.preprocess", "cut responses to their beginnings"),
    "tokens": Command("headwater.commands.tokens", "show a row token by token: prompt, response, cut, loss"),
    "sample": Command("headwater.commands.sample", "draw several responses a prompt, from a model or a server"),
    "select": Command("headwater.commands.select", "keep the rows that teach most: preference variance and rivals"),
    "train-sft": Command("headwater.commands.train_sft", "fine-tune a policy on chosen responses"),
    "train-reward": Command("headwater.commands.train_reward", "train a reward model"),
    "train-dpo": Command("headwater.commands.train_dpo", "train a policy on preferences directly"),
    "score": Command("headwater.commands.score", "give every response its reward: pairs or candidates in and out"),
    "evaluate": Command("headwater.commands.evaluate", "score preference pairs: accuracy, rewards, margins"),
    "generate": Command("headwater.commands.generate", "let models answer evaluation prompts, a file each"),
    "judge": Command("headwater.commands.judge", "ask judges which of two models' answers are better"),
    "compare": Command("headwater.commands.compare", "say whether a tuned model is better, and how sure that is"),
    "reward-bench": Command("headwater.commands.reward_bench", "judge rewards on RewardBench 1 and 2, or RM-Bench"),
    "signal": Command("headwater.commands.signal", "find where the preference is decided, and how much to keep"),
    "sweep": Command("headwater.studies.sweep", "train and judge at several kept ratios and seeds, resumably"),
    "divergence": Command(
        "headwater.commands.divergence", "show how far a policy moved from its reference, by position"
    ),
    "decode": Command("headwater.commands.decode", "let a policy and its reference answer prompts together"),
    "frontier": Command("headwater.commands.frontier", "show reward against KL over grids of decoding strategies"),
    "lens": Command("headwater.commands.lens", "show pairs token by token, in one page: scores, cut, depth"),
    "report": Command("headwater.commands.report", "write one HTML page from runs"),
    "doctor": Command("headwater.commands.doctor", "look at this installation: devices, packing, hub, folders, disk"),
    "env": Command("headwater.commands.env", "print what a bug report needs, without secrets"),
}

EXIT_CODES = {
    0: "done",
    1: "a bug of ours",
    2: "a flag, key or path cannot work",
    3: "the data was refused",
    4: "the model or tokenizer cannot do this",
    5: "a loss, gradient or score was not finite",
    6: "the network gave up",
    7: "out of disk or memory",
    75: "stopped by SIGTERM: the same command goes on",
    130: "interrupted: the same command goes on",
}


def usage() -> str:
    """Return the top-level help."""
    width = max(map(len, COMMANDS))
    verbs = "\n".join(f"  {name:{width}}  {command.does}" for name, command in COMMANDS.items())
    codes = ", ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())
    return f"""headwater {headwater.__version__}: align language models from the part of preference data with the signal

  headwater demo                                                  # see it work, in minutes, without a network
  headwater preprocess --input pairs.jsonl --output cut.jsonl --truncate-percentage 50
  headwater train-reward --data cut.jsonl --output runs/reward
  headwater evaluate --model runs/reward --dataset pairs.jsonl

commands
{verbs}

  headwater COMMAND --help           its flags; every one can also stand in a YAML file: --config FILE.yaml
  headwater --version
  headwater COMMAND … --traceback    show where an error came from
  headwater COMMAND … --trust-files  load trained models by the sizes of their files, without reading them twice

exit codes: {codes}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. No secret of the environment is printed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    wanted = "--traceback" in given
    if "--trust-files" in given:
        os.environ["HEADWATER_TRUST_FILES"] = "1"
    given = [argument for argument in given if argument not in ("--traceback", "--trust-files")]
    with masking.masked_output(), locks.released():
        try:
            with interrupts.handled():
                _leave_removed_folder()
                return _dispatch(given)
        except interrupts.Stopped as stopped:
            return _ended(stopped, str(stopped), stopped.exit_code, wanted)
        except KeyboardInterrupt as error:
            return _ended(error, "interrupted; the run has no done-marker", 130, wanted)
        except Exception as error:
            code = _exit_code(error)
            message = _as_bug(error, wanted) if code == 1 and not isinstance(error, HeadwaterError) else _message(error)
            return _ended(error, message, code, wanted)


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
    found = f"a bug of ours: {type(error).__name__}: {first_line(error)}"
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


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(headwater.__version__)
        return 0
    name = arguments[0].replace("_", "-")
    if name not in COMMANDS:
        raise UsageError(f"unknown command {arguments[0]}", did_you_mean(name, COMMANDS), "see headwater --help")
    module = importlib.import_module(COMMANDS[name].module)
    description = f"{module.__doc__}\n\nExample:\n\n  {module.EXAMPLE}"
    module.run(config.parse(module.Config, arguments[1:], f"headwater {name}", description))
    return 0
