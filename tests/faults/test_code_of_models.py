"""S2: code that comes with a model is never run, whoever says yes."""

from __future__ import annotations

import ast
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import headwater
from headwater.cli import main
from headwater.data.tokenizers import Tokenizer, load_tokenizer
from headwater.data.untrusted import check_model
from headwater.errors import ModelError, NetworkError
from headwater.models import loading

pytestmark = pytest.mark.fault("S2")

CODE = "from pathlib import Path\nPath({marker!r}).write_text('ran')\nclass Config: ...\n"
OWN = {"AutoConfig": "evil.Config", "AutoTokenizer": ["evil.Config", None], "AutoModelForCausalLM": "evil.Config"}


def _edit(file: Path, **changes: Any) -> None:
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(before | changes))


@pytest.fixture
def policy(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    """A good policy, beside code of its own that writes a marker file."""
    import transformers

    path = tmp_path / "policy"
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    (path / "evil.py").write_text(CODE.format(marker=str(tmp_path / "marker")))
    return path


@pytest.fixture(autouse=True)
def yes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Somebody at a terminal who answers yes to everything."""
    asked: list[str] = []

    def answer(prompt: str = "") -> str:
        asked.append(prompt)
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 10))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    return asked


PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "config": ("config.json", {"auto_map": OWN, "model_type": "of-its-own"}),
    "config of a known type": ("config.json", {"auto_map": OWN}),
    "tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Config", None]}}),
    "nested": ("config.json", {"text_config": {"deeper": [{"auto_map": OWN}]}}),
    "nested flag": ("config.json", {"backbone_config": {"trust_remote_code": True}}),
    "another's code": ("config.json", {"auto_map": {"AutoConfig": "someone/else--evil.Config"}}),
    "processor": ("preprocessor_config.json", {"auto_map": OWN}),
    "new name": ("some_new_config.json", {"auto_map": OWN}),
    "generation": ("generation_config.json", {"trust_remote_code": True}),
    "kernels": ("config.json", {"_attn_implementation": "someone/kernels"}),
    "nested kernels": ("config.json", {"attn_implementation": {"text_config": "someone/kernels@main:f"}}),
    "adapter": ("adapter_config.json", {"auto_mapping": {"parent_library": "evil", "base_model_class": "Config"}}),
}


@pytest.mark.parametrize("place", PLACES)
def test_it_is_refused_before_anything_is_loaded(place: str, policy: Path, yes: list[str]) -> None:
    file, changes = PLACES[place]
    check_model(str(policy))
    _edit(policy / file, **changes)
    for load in (
        lambda: load_tokenizer(str(policy), ()),
        lambda: loading.load(str(policy), "policy", (), 0),
        lambda: loading.load(str(policy), "reward", (), 0),
        lambda: loading.head_of(str(policy)),
    ):
        with pytest.raises(ModelError, match=f"names code to run: .* in {file}"):
            load()
    assert not yes and not (policy.parent / "marker").exists()
    assert "evil" not in sys.modules


def test_the_base_of_an_adapter_is_looked_at(policy: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    _edit(adapter / "adapter_config.json", base_model_name_or_path=str(policy), peft_type="LORA")
    check_model(str(adapter))
    _edit(policy / "config.json", auto_map=OWN)
    with pytest.raises(ModelError, match="names code to run: auto_map"):
        check_model(str(adapter))
    _edit(adapter / "adapter_config.json", base_model_name_or_path=str(adapter))
    with pytest.raises(ModelError, match="adapter of an adapter"):
        check_model(str(adapter))


def test_a_model_of_the_hub_is_looked_at(policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name: ["config.json", "evil.py"])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file, **_: str(policy / file))
    check_model("someone/model")
    _edit(policy / "config.json", auto_map=OWN)
    with pytest.raises(ModelError, match=r"someone/model · names code to run: auto_map.* in config\.json"):
        check_model("someone/model")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\udcff"])
def test_a_configuration_that_cannot_be_read_is_refused(text: str, policy: Path) -> None:
    (policy / "generation_config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match="cannot be read"):
        check_model(str(policy))


def test_the_command_line_ends_with_4(policy: Path, tmp_path: Path, yes: list[str]) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text(json.dumps({"prompt": "p", "chosen": "a b", "rejected": "c d"}) + "\n")
    _edit(policy / "config.json", auto_map=OWN, model_type="of-its-own")
    assert main(["evaluate", "--model", str(policy), "--dataset", str(data), "--output", str(tmp_path / "run")]) == 4
    assert main(["tokens", str(data), "--model", str(policy)]) == 4
    assert not yes and not (tmp_path / "marker").exists() and not (tmp_path / "run").exists()


def test_every_loader_is_told_not_to_trust() -> None:
    """What loads by name without `trust_remote_code=False` would ask on the terminal."""
    culprits = []
    for path in Path(headwater.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr not in ("from_pretrained", "pipeline"):
                continue
            told = {keyword.arg: keyword.value for keyword in node.keywords}
            given = told.get("trust_remote_code")
            # An adapter's weights are read onto a model that is there: PeftModel takes no such argument.
            adapter = isinstance(node.func.value, ast.Attribute) and node.func.value.attr.startswith("Peft")
            if not adapter and not (isinstance(given, ast.Constant) and given.value is False):
                culprits.append(f"{path.name}:{node.lineno}")
    assert not culprits


@pytest.mark.parametrize("name", ["someone/not-there", "not-there"])
@pytest.mark.fault("R14")
def test_offline_the_error_says_what_to_set(name: str) -> None:
    with pytest.raises(NetworkError, match="HF_HUB_OFFLINE"):
        check_model(name)
