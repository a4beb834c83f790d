from __future__ import annotations

import json

import pytest
import torch
from diffusers import DDIMPipeline, DDPMScheduler, UNet2DConditionModel, UNet2DModel

from zipstage.errors import PriorError
from zipstage.priors import load_prior
from zipstage.schedule import schedule

T = 300


def _unet(**changes):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    arguments = {
        "sample_size": 32,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 4,
    }
    return UNet2DModel(**(arguments | changes)).eval()


def _save(folder, unet, **scheduler):
    DDIMPipeline(unet, DDPMScheduler(**scheduler)).save_pretrained(folder)
    return folder


@pytest.fixture
def x_t():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_each_prediction_type_gives_the_x0_that_diffusers_own_step_gives(prediction_type, x_t, tmp_path):
    unet = _unet()
    prior = load_prior(_save(tmp_path / "p", unet, prediction_type=prediction_type))
    scheduler = DDPMScheduler(prediction_type=prediction_type, clip_sample=False)
    with torch.no_grad():
        output = unet(x_t, T, return_dict=False)[0]
    wanted = scheduler.step(output, T, x_t).pred_original_sample
    prediction = prior.predict(x_t, T)
    assert torch.allclose(prediction.x0, wanted, atol=1e-4)
    a = schedule().alpha_bar(T)
    assert torch.allclose(a**0.5 * prediction.x0 + (1 - a) ** 0.5 * prediction.eps, x_t, atol=1e-5)


def test_of_a_learned_variance_the_first_three_channels_count(x_t, tmp_path):
    unet = _unet(out_channels=6)
    with torch.no_grad():
        eps = unet(x_t, T, return_dict=False)[0][:, :3]
    assert torch.allclose(load_prior(_save(tmp_path / "p", unet)).predict(x_t, T).eps, eps, atol=1e-5)


def test_a_networks_own_folder_is_a_prior_too(x_t, tmp_path):
    unet = _unet()
    unet.save_pretrained(tmp_path / "unet_alone")
    with torch.no_grad():
        eps = unet(x_t, T, return_dict=False)[0]
    assert torch.allclose(load_prior(tmp_path / "unet_alone").predict(x_t, T).eps, eps, atol=1e-5)


@pytest.mark.parametrize(("sample_size", "canvas"), [(256, True), ((256, 256), True), (32, False), (None, False)])
def test_a_network_for_256_px_takes_the_canvas(sample_size, canvas, tmp_path):
    assert load_prior(_save(tmp_path / "p", _unet(sample_size=sample_size))).canvas is canvas


def test_the_digest_names_weights_and_reading(tmp_path):
    unet = _unet()
    digests = {
        "eps": load_prior(_save(tmp_path / "a", unet)).digest,
        "v": load_prior(_save(tmp_path / "b", unet, prediction_type="v_prediction")).digest,
    }
    again = load_prior(_save(tmp_path / "c", unet)).digest
    with torch.no_grad():
        unet.conv_out.bias[0] += 1
    digests["other weights"] = load_prior(_save(tmp_path / "d", unet)).digest
    assert again == digests["eps"]
    assert len(set(digests.values())) == 3


def test_sides_that_the_network_cannot_halve_are_refused(tmp_path):
    prior = load_prior(_save(tmp_path / "p", _unet()))
    with pytest.raises(PriorError, match="multiples of 2, found 15x16"):
        prior.predict(torch.zeros(1, 3, 15, 16), T)


def test_pickles_are_refused(tmp_path):
    unet = _unet()
    unet.save_pretrained(tmp_path / "p", safe_serialization=False)
    with pytest.raises(PriorError, match=r"found diffusion_pytorch_model.bin. Pickles are not opened"):
        load_prior(tmp_path / "p")


def test_another_schedule_is_refused(tmp_path):
    folder = _save(tmp_path / "p", _unet(), beta_schedule="squaredcos_cap_v2")
    with pytest.raises(PriorError, match=r"expected beta_schedule linear .*found squaredcos_cap_v2"):
        load_prior(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_channels": 1, "out_channels": 1}, "expected 3 channels in"),
        ({"num_class_embeds": 10}, "class-conditional"),
    ],
)
def test_other_networks_are_refused(change, message, tmp_path):
    with pytest.raises(PriorError, match=message):
        load_prior(_save(tmp_path / "p", _unet(**change)))


def test_a_network_that_wants_a_text_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": UNet2DConditionModel.__name__}))
    with pytest.raises(PriorError, match="expected an unconditional UNet2DModel, found UNet2DConditionModel"):
        load_prior(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "expected JSON"), ("[]", "expected a JSON object"), (None, "can't be read")]
)
def test_a_folder_without_a_readable_config_is_refused(text, message, tmp_path):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(PriorError, match=message):
        load_prior(tmp_path)


def test_weights_of_another_configuration_are_refused(tmp_path):
    folder = _save(tmp_path / "p", _unet())
    config = folder / "unet" / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"block_out_channels": [8, 16]}))
    with pytest.raises(PriorError, match=r"unet: can't be read"):
        load_prior(folder)
    config.write_text(json.dumps(values | {"layers_per_block": 2}))
    with pytest.raises(PriorError, match=r"unet: its weights have missing keys: "):
        load_prior(folder)
