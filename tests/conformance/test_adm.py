"""ADM's own UNet (its numbers, made outside) against the network that the import makes of the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file

from zipstage.errors import PriorError
from zipstage.priors import load_prior
from zipstage.priors.adm import import_adm, network_from_adm
from zipstage.priors.adm_layout import AdmOptions, infer_layout, map_names, unet_arguments
from zipstage.schedule import schedule

GOLDEN = Path(__file__).parent / "golden" / "adm"
SMALL = AdmOptions(image_size=32, head_channels=16)
TOLERANCE = 5e-5  # measured: 2.3e-6


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "adm_small_io.npz", allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]).float() for name in arrays.files}


@pytest.fixture(scope="module")
def weights():
    return load_file(GOLDEN / "adm_small.safetensors")


def _outputs(network, golden):
    with torch.no_grad():
        return network(golden["x"], golden["t"], return_dict=False)[0]


def test_the_imported_network_gives_what_adm_gives(weights, golden):
    network = network_from_adm(weights, SMALL, "adm_small")
    assert (_outputs(network, golden) - golden["y"]).abs().max() < TOLERANCE


def test_its_parts_give_what_adms_parts_give(weights, golden):
    network = network_from_adm(weights, SMALL, "adm_small")
    seen = {}
    probes = {"time_embedding": "time_embed", "conv_in": "input_blocks_0", "mid_block": "middle_block"}
    probes |= {
        "down_blocks.0.downsamplers.0": "input_blocks_3_resdown",
        "down_blocks.1.attentions.0": "input_blocks_4_attn",
    }
    for module, probe in probes.items():
        network.get_submodule(module).register_forward_hook(lambda _m, _i, out, probe=probe: seen.update({probe: out}))
    _outputs(network, golden)
    for probe, out in seen.items():
        wanted = golden[probe]
        assert (out[:, : wanted.shape[1]] - wanted).abs().max() < TOLERANCE, probe
    assert seen.keys() == set(probes.values())


def test_the_other_attention_order_gives_what_adm_gives_in_that_order(weights, golden):
    options = AdmOptions(image_size=32, head_channels=16, new_attention_order=True)
    y = _outputs(network_from_adm(weights, options, "adm_small"), golden)[:1]
    assert (y - golden["y_if_new_attention_order"]).abs().max() < TOLERANCE
    assert (y - golden["y"][:1]).abs().max() > 0.5


def test_other_head_channels_give_something_else(weights, golden):
    network = network_from_adm(weights, AdmOptions(image_size=32, head_channels=32), "adm_small")
    assert (_outputs(network, golden) - golden["y"]).abs().max() > 0.1


def test_every_tensor_of_the_full_model_is_mapped_and_fits():
    facts = json.loads((GOLDEN / "adm256_keys.json").read_text())
    shapes = {name: tuple(shape) for name, shape in facts["tensors"].items()}
    layout = infer_layout(shapes, "adm256")
    with torch.device("meta"):
        network = UNet2DModel(**unet_arguments(layout, AdmOptions(), "adm256"))
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    sources = map_names(layout, list(wanted))
    assert (len(shapes), len(sources)) == (566, 630)
    assert set(sources.values()) == set(shapes)
    imported = network_from_adm(tensors, AdmOptions(), "adm256").state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in imported.items()} == wanted
    assert sum(tensor.numel() for tensor in imported.values()) == facts["n_params"]


def test_the_layout_is_read_off_the_shapes():
    facts = json.loads((GOLDEN / "adm256_keys.json").read_text())
    config = facts["config"]
    layout = infer_layout({name: tuple(shape) for name, shape in facts["tensors"].items()}, "adm256")
    assert layout.channels == tuple(config["model_channels"] * m for m in config["channel_mult"])
    assert layout.blocks == config["num_res_blocks"]
    assert layout.attention == tuple(2**level in config["attention_downsample_factors"] for level in range(6))


def test_a_pickled_checkpoint_becomes_a_prior_that_gives_what_adm_gives(weights, golden, tmp_path):
    torch.save(weights, tmp_path / "adm_small.pt")
    prior = load_prior(import_adm(tmp_path / "adm_small.pt", tmp_path / "small", SMALL))
    assert len({path.stat().st_mode for path in (tmp_path / "small").rglob("*") if path.is_file()}) == 1
    assert (_outputs(prior.network, golden) - golden["y"]).abs().max() < TOLERANCE
    assert not prior.canvas
    t = int(golden["t"][1])
    prediction = prior.predict(golden["x"][1:], t)
    assert (prediction.eps - golden["y"][1:, :3]).abs().max() < TOLERANCE
    a = schedule().alpha_bar(t)
    assert torch.allclose(a**0.5 * prediction.x0 + (1 - a) ** 0.5 * prediction.eps, golden["x"][1:], atol=1e-5)


def test_an_import_into_an_existing_folder_is_refused(tmp_path):
    with pytest.raises(PriorError, match="found one that exists"):
        import_adm(GOLDEN / "adm_small.safetensors", tmp_path, SMALL)


def test_missing_and_left_over_tensors_are_named(weights):
    changed = dict(weights)
    changed["input_blocks.9.9.weight"] = changed.pop("middle_block.1.norm.weight")
    with pytest.raises(PriorError, match=r"Missing: middle_block.1.norm.weight. Unexpected: input_blocks.9.9.weight."):
        network_from_adm(changed, SMALL, "adm_small")


def test_a_tensor_of_another_shape_is_named(weights):
    changed = {**weights, "middle_block.1.norm.weight": torch.zeros(63)}
    with pytest.raises(PriorError, match=r"middle_block.1.norm.weight: expected what gives \(64,\), found \(63,\)"):
        network_from_adm(changed, SMALL, "adm_small")


def test_heads_that_do_not_divide_the_channels_are_refused(weights):
    with pytest.raises(PriorError, match="32 channels can't have heads of 64"):
        network_from_adm(weights, AdmOptions(image_size=32), "adm_small")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {"layer.weight": torch.zeros(1)}, "found layer.weight"),
        (lambda w: {**w, "label_emb.weight": torch.zeros(1)}, "class-conditional"),
        (lambda w: {**w, "input_blocks.3.0.op.weight": torch.zeros(1)}, "resblock_updown"),
        (lambda w: {**w, "input_blocks.1.0.emb_layers.1.weight": torch.zeros(32, 128)}, "use_scale_shift_norm"),
    ],
)
def test_networks_of_other_kinds_are_refused(weights, change, message):
    with pytest.raises(PriorError, match=message):
        network_from_adm(change(weights), SMALL, "adm_small")


class _Harmful:
    def __reduce__(self):
        return Path.touch, (Path("touched"),)


def test_a_pickle_that_holds_more_than_tensors_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": _Harmful()}, tmp_path / "harmful.pt")
    with pytest.raises(PriorError, match=r"harmful.pt: expected a .pt file of tensors alone"):
        import_adm(tmp_path / "harmful.pt", tmp_path / "out")
    assert not (tmp_path / "touched").exists()


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PriorError, match=r"away.pt: no such file"):
        import_adm(tmp_path / "away.pt", tmp_path / "out")
    with pytest.raises(PriorError, match=r"away.safetensors: expected a safetensors file"):
        import_adm(tmp_path / "away.safetensors", tmp_path / "out")
