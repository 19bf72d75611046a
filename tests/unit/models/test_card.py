"""A card brings its network back; anything that does not fit is refused before it runs."""

from __future__ import annotations

import hashlib
import io
import json
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from splicestore.errors import InputError, ModelError
from splicestore.models.card import (
    LoadedModel,
    ModelCard,
    build_module,
    check_fits,
    encode_bases_as,
    load_card,
    load_model,
    one_thread,
    save_model,
    task_names,
    task_scores,
)
from splicestore.models.splice import SpliceNet
from splicestore.storage import StoreRoot

OPTIONS = {"n_conditions": 2, "context_size": 10, "channels": 5, "dilations": [1, 2], "kernel_size": 3}
WIDE = {**OPTIONS, "channels": 32}
FACTORY = "splicestore.models.splice:SpliceNet"


def saved(folder, network=None, **changes) -> SpliceNet:
    torch.manual_seed(3)
    network = network or SpliceNet(**OPTIONS).eval()
    values = {
        "name": "small", "factory": FACTORY, "factory_options": OPTIONS, "window_size": 20, "context_size": 10,
        "condition_names": ["brain", "liver"], "provenance": {"split_digest": "abc"},
    }  # fmt: skip
    save_model(StoreRoot(str(folder)), network, **{**values, **changes})
    return network


def rewrite(folder, **changes) -> None:
    card = folder / "card.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), **changes}))


def test_a_saved_model_comes_back(tmp_path):
    network = saved(tmp_path)
    loaded = load_model(str(tmp_path / "card.json"), name="small")
    codes = torch.randint(0, 5, (3, 40), dtype=torch.uint8)
    site, usage = network(encode_bases_as(codes).transpose(1, 2))
    expected = task_scores(site, usage)
    torch.testing.assert_close(loaded.scores(codes), expected.detach())
    np.testing.assert_allclose(loaded.window_scores(codes.numpy()), expected.detach().numpy(), rtol=1e-6)
    assert loaded.card.tasks == ("acceptor", "donor", "sse:brain", "sse:liver")
    assert loaded.card.condition_names == ("brain", "liver")
    assert loaded.card.provenance == {"split_digest": "abc"}
    assert not loaded.module.training


def test_a_loaded_model_travels_by_the_address_of_its_card(tmp_path):
    network = saved(tmp_path, network=SpliceNet(**WIDE), factory_options=WIDE)
    loaded = load_model(str(tmp_path / "card.json"))
    data = pickle.dumps(loaded)
    assert len(data) < 1_000 < sum(value.nbytes for value in network.state_dict().values())
    arrived = pickle.loads(data)
    assert (arrived.card, arrived.device, arrived.url) == (loaded.card, loaded.device, loaded.url)
    for name, value in network.state_dict().items():
        assert torch.equal(arrived.module.state_dict()[name], value), name
    assert pickle.dumps(arrived) == data


def test_a_model_replaced_on_the_way_is_refused(tmp_path):
    saved(tmp_path)
    data = pickle.dumps(load_model(str(tmp_path / "card.json")))
    saved(tmp_path, network=SpliceNet(**WIDE), factory_options=WIDE)
    with pytest.raises(ModelError, match=r"has digest [0-9a-f]{64}, expected [0-9a-f]{64}"):
        pickle.loads(data)


def test_a_model_made_here_travels_whole():
    torch.manual_seed(1)
    made = LoadedModel(card(tasks=task_names(["brain", "liver"])), SpliceNet(**OPTIONS).eval(), torch.device("cpu"))
    arrived = pickle.loads(pickle.dumps(made))
    codes = torch.randint(0, 5, (3, 40), dtype=torch.uint8)
    assert arrived.card == made.card
    assert torch.equal(arrived.scores(codes), made.scores(codes))


def test_digest_is_the_sha256_of_the_checkpoint(tmp_path):
    saved(tmp_path)
    card = load_card(str(tmp_path / "card.json"))
    assert card.digest == hashlib.sha256((tmp_path / "model.pt").read_bytes()).hexdigest()
    assert load_model(str(tmp_path / "card.json"), digest=card.digest).card == card


def test_another_digest_or_name_is_refused(tmp_path):
    saved(tmp_path)
    url = str(tmp_path / "card.json")
    with pytest.raises(ModelError, match=r"has name small, expected large"):
        load_model(url, name="large")
    with pytest.raises(ModelError, match=r"has digest [0-9a-f]{64}, expected 00"):
        load_model(url, digest="00")


def test_a_changed_checkpoint_is_refused(tmp_path):
    saved(tmp_path)
    data = bytearray((tmp_path / "model.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model.pt").write_bytes(bytes(data))
    with pytest.raises(ModelError, match=r"model.pt has sha256 [0-9a-f]{64}, the card says"):
        load_model(str(tmp_path / "card.json"))


def test_a_missing_checkpoint_or_card_is_named(tmp_path):
    saved(tmp_path)
    (tmp_path / "model.pt").unlink()
    with pytest.raises(ModelError, match=r"its checkpoint .*model.pt cannot be read"):
        load_model(str(tmp_path / "card.json"))
    with pytest.raises(InputError, match="no such file"):
        load_card(str(tmp_path / "nothing.json"))


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pickled_object_does_not_run(tmp_path, capsys):
    saved(tmp_path)
    stream = io.BytesIO()
    torch.save({"model": Evil()}, stream)
    (tmp_path / "model.pt").write_bytes(stream.getvalue())
    rewrite(tmp_path, digest=hashlib.sha256(stream.getvalue()).hexdigest())
    with pytest.raises(ModelError, match=r"weights in model.pt do not fit"):
        load_model(str(tmp_path / "card.json"))
    assert "code ran" not in capsys.readouterr().out


def test_reading_a_card_imports_nothing(tmp_path):
    saved(tmp_path)
    rewrite(tmp_path, factory="no_such_package.models:Net")
    assert load_card(str(tmp_path / "card.json")).factory == "no_such_package.models:Net"
    with pytest.raises(ModelError, match=r"cannot import no_such_package.models"):
        load_model(str(tmp_path / "card.json"))


def test_weights_of_another_network_are_refused(tmp_path):
    saved(tmp_path)
    rewrite(tmp_path, factory_options={**OPTIONS, "channels": 7})
    with pytest.raises(ModelError, match=r"weights in model.pt do not fit splicestore.models.splice:SpliceNet"):
        load_model(str(tmp_path / "card.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": "../model.pt"}, "checkpoint"),
        ({"checkpoint": "folder/model.pt"}, "checkpoint"),
        ({"factory": "os.system"}, "package.module:callable"),
        ({"bases": "ACGG"}, "bases"),
        ({"layout": "LNC"}, "layout"),
        ({"tasks": ["donor", "acceptor"]}, "acceptor, donor"),
        ({"tasks": ["acceptor", "donor", "sse:x", "sse:x"]}, "twice"),
        ({"target": "bins"}, "target"),
        ({"digest": "12"}, "digest"),
        ({"activation": {"site": "sigmoid", "usage": "sigmoid"}}, "activation"),
        ({"window": 5}, "window"),
        ({"splicestore_card": 2}, "splicestore_card"),
    ],
)
def test_a_card_with_a_wrong_field_is_refused(tmp_path, changes, message):
    saved(tmp_path)
    rewrite(tmp_path, **changes)
    with pytest.raises(ModelError, match=rf"not a valid model card: .*{message}"):
        load_card(str(tmp_path / "card.json"))


def test_a_card_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "card.json").write_text("weights: yes")
    with pytest.raises(ModelError, match="not a valid model card"):
        load_card(str(tmp_path / "card.json"))


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("splicestore.models.splice:SpliceNett", {}, "did you mean SpliceNet"),
        (FACTORY, {"width": 3}, "does not take"),
        ("builtins:dict", {}, "returned dict, not a torch.nn.Module"),
        ("os", {}, "package.module:callable"),
    ],
)
def test_a_factory_that_gives_no_network_is_refused(factory, options, message):
    with pytest.raises(ModelError, match=message):
        build_module(factory, options)


def card(**changes) -> ModelCard:
    values = {
        "name": "m",
        "factory": FACTORY,
        "digest": "0" * 64,
        "window_size": 20,
        "context_size": 10,
        "tasks": task_names(["brain"]),
    }
    return ModelCard(**{**values, **changes})


def test_input_is_encoded_as_the_card_says():
    codes = torch.tensor([[0, 1, 2, 3, 4]], dtype=torch.uint8)
    plain = card().encode(codes)
    assert plain[0].tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]
    other = card(bases="ATCG", layout="NLC", n="quarter").encode(codes)
    assert other[0].tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0.25] * 4]


def test_data_of_another_geometry_or_condition_are_refused():
    check_fits(card(), window_size=20, context_size=10, condition_names=["brain"])
    with pytest.raises(ModelError, match=r"20 \+ 2 x 10 bp, the data have 20 \+ 2 x 11 bp"):
        check_fits(card(), window_size=20, context_size=11)
    with pytest.raises(ModelError, match=r"does not predict 1 of 2 conditions.*'brian'; did you mean brain"):
        check_fits(card(), window_size=20, context_size=10, condition_names=["brain", "brian"])


class WrongShape(nn.Module):
    def forward(self, x):
        return x.new_zeros((len(x), 3, 7)), x.new_zeros((len(x), 1, 7))


def test_a_network_that_breaks_its_card_is_refused():
    model = LoadedModel(card(), WrongShape(), torch.device("cpu"))
    with pytest.raises(ModelError, match=r"gives site logits \(2, 3, 7\).*its card promises \(2, 3, 20\)"):
        model.scores(torch.zeros(2, 40, dtype=torch.uint8))
    with pytest.raises(ModelError, match=r"= 40 bp, got 41"):
        model.scores(torch.zeros(2, 41, dtype=torch.uint8))


def test_one_thread_is_given_back_as_many():
    torch.set_num_threads(3)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    with pytest.raises(ModelError, match="reads 20"), one_thread():
        LoadedModel(card(), WrongShape(), torch.device("cpu")).logits(torch.zeros(1, 7, dtype=torch.uint8))
    assert torch.get_num_threads() == 3
