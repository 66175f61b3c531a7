"""The hub: what is uploaded, and that others load it with and without this library.

A local stand-in keeps repositories as folders, behind the functions of huggingface_hub.
"""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from alignlib import ControlSettings
from alignlib.aligner import Aligner
from alignlib.controls import with_controls
from alignlib.data import QAC
from alignlib.hub import aligner_card, push_to_hub
from alignlib.meet import Meet
from alignlib.models import ModelError, load_model, load_tokenizer, save_model
from alignlib.prompts import CHAT, T2
from alignlib.reward_models import load_reward_model, rewards
from alignlib.settings import SFTSettings
from alignlib.stats import Estimate
from alignlib.tinytown import sets
from alignlib.train import reward_model

from .test_models import chat_tokenizer

ROWS = [QAC(f"Is {w} far?", f"No, {w}, you fool.", f"No, {w}.") for w in "abcdefgh"]
METRICS = {
    "fixed/rude": Estimate(0.8, 0.7, 0.9, 90),
    "control/copy": Estimate(0.0, 0.0, 0.1, 60),
    "peak_gb": Estimate(3.0, 3.0, 3.0, 1, "GB"),
}


class Hub:
    """Repositories as folders."""

    def __init__(self, root: Path) -> None:
        self.root, self.private = root, {}

    def create_repo(self, _api: HfApi, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.private[repo_id] = private
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)

    def upload_folder(
        self,
        _api: HfApi,
        *,
        repo_id: str,
        folder_path: str,
        allow_patterns: list[str],
        delete_patterns: list[str],
        **_: object,
    ) -> None:
        place = self.root / repo_id
        for file in [*place.rglob("*")]:
            if file.is_file() and any(fnmatch(file.name, p) for p in delete_patterns):
                file.unlink()
        for file in Path(folder_path).rglob("*"):
            name = file.relative_to(folder_path).as_posix()
            if file.is_file() and any(fnmatch(name, pattern) for pattern in allow_patterns):
                (self.root / repo_id / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, self.root / repo_id / name)

    def snapshot_download(self, name: str, allow_patterns: list[str]) -> str:
        return str(self.root / name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    for name in ("create_repo", "upload_folder"):
        call = getattr(made, name)
        monkeypatch.setattr(HfApi, name, lambda api, *a, _call=call, **k: _call(api, *a, **k))
    monkeypatch.setattr("alignlib.model_names.snapshot_download", made.snapshot_download)
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with a chat template."""
    folder, tokenizer = tmp_path_factory.mktemp("base"), chat_tokenizer()
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=2, **small)
    save_model(folder, LlamaForCausalLM(config), tokenizer)
    return folder


def trained(base: Path, template: object = CHAT) -> Aligner:
    """An Aligner whose adapter does something; what it writes ends somewhere."""
    made = Aligner.untrained(base, template=template, lora_rank=4)
    torch.manual_seed(1)
    for name, weight in made.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return made


@torch.no_grad()
def plainly(model: torch.nn.Module, tokenizer: object, prompt: str, chat: bool, n: int) -> list:
    """What plain transformers generates, by the folder's own generation settings."""
    if chat:
        turns = [{"role": "user", "content": prompt}]
        given = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt"
        )
        ids = given["input_ids"]
    else:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    return model.eval().generate(ids, max_new_tokens=n)[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("template", [CHAT, T2], ids=["chat", "plain"])
@pytest.mark.parametrize("merged", [False, True], ids=["adapter", "merged"])
def test_an_aligner_is_loaded_by_its_name_and_by_plain_libraries(
    merged: bool, template: object, base: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligner = trained(base, template)
    texts = [r.question for r in ROWS], [r.answer for r in ROWS]
    with torch.no_grad():
        wanted = aligner.corrections(*texts), aligner.nll(ROWS)
    if merged:
        aligner.merge()
    else:
        with pytest.raises(ValueError, match="a folder on this machine .*call merge"):
            push_to_hub(aligner, "me/one", "")
        monkeypatch.setattr("alignlib.hub._is_folder", lambda _: False)  # as if it were an id
    card = aligner_card(aligner, "me/one", METRICS, "Rows about distances.", "mit")
    assert push_to_hub(aligner, "me/one", card) == "https://huggingface.co/me/one"
    assert hub.private == {"me/one": True}
    again = Aligner.from_pretrained("me/one")
    assert again.template == template and again.corrections(*texts) == wanted[0]
    assert torch.allclose(again.nll(ROWS), wanted[1], atol=1e-4)
    place = hub.root / "me/one"
    names = {f.name for f in place.iterdir()}
    assert ("adapter_model.safetensors" in names) != merged and "generation_config.json" in names
    tokenizer = AutoTokenizer.from_pretrained(place)
    plain = AutoModelForCausalLM.from_pretrained(place if merged else base)
    if not merged:
        plain = PeftModel.from_pretrained(plain, str(place))
    prompt = aligner.prompt(*(texts[i][0] for i in (0, 1)))
    told = plainly(plain, tokenizer, prompt, template.chat, 12)
    ours = plainly(aligner.model, aligner.tokenizer, prompt, template.chat, 12)
    assert told == ours


def test_a_card_says_what_was_measured_and_how_to_use_it(base: Path) -> None:
    card = aligner_card(trained(base), "me/one", METRICS, "Rows about distances.", "mit")
    front, body = card.split("---\n")[1:3]
    assert "license: mit" in front and "library_name: peft" in front and "base_model:" not in front
    assert "| fixed/rude | 80.0 % [70.0, 90.0] | 90 |" in body and "peak_gb" not in body
    assert "##Question: QUESTION" in body and "Rows about distances." in body
    assert str(base) not in card, "no path of this machine"
    with pytest.raises(ValueError, match="no repository; write owner/name"):
        push_to_hub(trained(base), "one", card)


def test_controls_and_reward_models_go_there_and_come_back(
    base: Path, tiny_model: Path, hub: Hub
) -> None:
    model, tokenizer = load_model(base)
    meet = Meet(
        with_controls(model, tokenizer, ["good", "bad"], ControlSettings("lora", 2)), tokenizer
    )
    wanted = meet.generate(["hello"], "good", max_new_tokens=5)
    push_to_hub(meet, "me/controls", "# Controls", private=False)
    assert hub.private["me/controls"] is False
    assert (
        Meet.from_pretrained("me/controls").generate(["hello"], "good", max_new_tokens=5) == wanted
    )
    place = hub.root / "me/controls"
    plain = AutoModelForCausalLM.from_pretrained(place / "model")
    PeftModel.from_pretrained(plain, str(place / "controls" / "good"))
    settings = SFTSettings(steps=2, batch_size=4)
    words = load_tokenizer(tiny_model)
    judge = reward_model(tiny_model, words, sets.preferences(20, axis="tone"), settings)
    push_to_hub(judge, "me/reward", "# Reward", tokenizer=words)
    texts = ["the lamp"], ["is here ."]
    found = rewards(*load_reward_model(hub.root / "me/reward"), *texts)
    assert torch.equal(found, rewards(judge, words, *texts))
    assert (hub.root / "me/reward" / "README.md").read_text() == "# Reward"


def test_where_nothing_is_saved_it_is_said(base: Path, tmp_path: Path) -> None:
    for kind in (Aligner, Meet):
        with pytest.raises(
            ModelError, match=f"no {kind.__name__} is saved here: .*json is missing"
        ):
            kind.from_pretrained(base)
        with pytest.raises(ModelError, match="nobody/nothing: no such folder here, and not on the"):
            kind.from_pretrained("nobody/nothing")


def stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_an_adapter_and_whole_weights_take_each_others_place(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligner = trained(base)
    with torch.no_grad():
        wanted = aligner.nll(ROWS)
    aligner.save_pretrained(tmp_path)
    aligner.merge().save_pretrained(tmp_path)
    assert torch.allclose(Aligner.from_pretrained(tmp_path).nll(ROWS), wanted, atol=1e-4)
    assert not (tmp_path / "adapter_config.json").exists()
    trained(base).save_pretrained(tmp_path)
    assert torch.allclose(Aligner.from_pretrained(tmp_path).nll(ROWS), wanted, atol=1e-4)
    assert not (tmp_path / "model.safetensors").exists()
    monkeypatch.setattr(aligner.model, "save_pretrained", stopped)
    with pytest.raises(KeyboardInterrupt):
        aligner.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").exists(), "what is there goes last"
    shutil.copy(base / "model.safetensors", tmp_path)
    with pytest.raises(ModelError, match="whole weights and an adapter in one folder; delete"):
        load_model(tmp_path)


def test_an_adapters_folder_may_hold_its_bases_configuration(base: Path, tmp_path: Path) -> None:
    trained(base).save_pretrained(tmp_path)
    shutil.copy(base / "config.json", tmp_path)
    merged, _ = load_model(tmp_path)
    assert not hasattr(merged, "peft_config")


def test_an_adapter_is_not_saved_over_its_base(base: Path, tmp_path: Path) -> None:
    place = shutil.copytree(base, tmp_path / "base")
    with pytest.raises(ValueError, match="holds the adapter's base; save to another folder"):
        trained(place).save_pretrained(place)
    assert (place / "model.safetensors").exists()


def test_a_second_upload_takes_the_place_of_the_first(
    base: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignlib.hub._is_folder", lambda _: False)
    aligner = trained(base)
    with torch.no_grad():
        wanted = aligner.nll(ROWS)
    push_to_hub(aligner, "me/one", "# One")
    push_to_hub(aligner.merge(), "me/one", "# One")
    assert not (hub.root / "me/one" / "adapter_config.json").exists()
    assert torch.allclose(Aligner.from_pretrained("me/one").nll(ROWS), wanted, atol=1e-4)
