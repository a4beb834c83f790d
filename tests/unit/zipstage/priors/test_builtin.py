from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from zipstage.errors import PriorError
from zipstage.priors import load_prior, load_restorer
from zipstage.priors.builtin import BUILTIN_PATH, BuiltinPrior, Restorer, export_restorer
from zipstage.priors.network import RestorationUNet
from zipstage.schedule import schedule


@pytest.fixture
def network():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = RestorationUNet(8, (1, 1, 1))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape))
    return network.eval()


@pytest.fixture
def path(network, tmp_path):
    export_restorer(network, tmp_path / "small.safetensors", {"images_seen": 3})
    return tmp_path / "small.safetensors"


def _restore(network, images):
    ones = torch.ones(len(images))
    with torch.no_grad():
        return network(images, 0.2 * ones, 0 * ones, torch.ones(len(images), 1, *images.shape[2:]))


def test_an_exported_restorer_answers_as_before_but_for_fp16(network, path):
    images = torch.randn(2, 3, 16, 16)
    restorer = load_restorer(path)
    assert torch.allclose(_restore(restorer.network, images), _restore(network, images), atol=2e-3)
    assert restorer.network.stem.weight.dtype == torch.float32
    assert restorer.network.stem.weight.is_contiguous(memory_format=torch.channels_last)
    assert not restorer.network.training


def test_the_file_holds_fp16_and_says_how_it_was_made(path):
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    metadata = json.loads(header)["__metadata__"]
    assert (metadata["width"], metadata["depths"]) == ("8", "[1, 1, 1]")
    assert json.loads(metadata["facts"]) == {"images_seen": 3}


def test_the_file_is_readable_for_whom_the_umask_allows(path, tmp_path):
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_digest_is_of_the_weights_alone(network, path, tmp_path):
    again = export_restorer(network, tmp_path / "again.safetensors", {"images_seen": 4})
    assert again == load_restorer(path).digest == load_restorer(tmp_path / "again.safetensors").digest
    with torch.no_grad():
        network.head.bias[0] += 0.01
    assert export_restorer(network, tmp_path / "other.safetensors", {}) != again


def test_a_missing_restorer_is_named_with_what_to_do(tmp_path):
    with pytest.raises(PriorError, match=r"away.safetensors: no such file.*`zipstage prior train`"):
        load_restorer(tmp_path / "away.safetensors")


def test_a_file_that_is_no_restorer_is_refused(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(PriorError, match=r"expected a file of format zipstage-restorer-1.*found no format"):
        load_restorer(tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(PriorError, match=r"text.safetensors: expected a safetensors file"):
        load_restorer(tmp_path / "text.safetensors")


def test_a_restorer_without_one_of_its_tensors_is_refused(path, tmp_path):
    tensors = load_file(path)
    tensors.pop("head.bias")
    metadata = {"format": "zipstage-restorer-1", "width": "8", "depths": "[1, 1, 1]"}
    save_file(tensors, tmp_path / "less.safetensors", metadata)
    with pytest.raises(PriorError, match=r"don't fit.*head.bias"):
        load_restorer(tmp_path / "less.safetensors")


def test_weights_beyond_fp16_are_not_exported(network, tmp_path):
    with torch.no_grad():
        network.head.bias[0] = 1e6
    with pytest.raises(PriorError, match=r"head\.bias"):
        export_restorer(network, tmp_path / "big.safetensors", {})
    assert not list(tmp_path.iterdir())


class _Recording(torch.nn.Module):
    """A restorer that knows the clean image and notes what it is told."""

    def __init__(self, clean):
        super().__init__()
        self.clean = clean

    def forward(self, damaged, sigma_white, sigma_smooth, mask):
        self.damaged, self.sigma_white, self.sigma_smooth, self.mask = damaged, sigma_white, sigma_smooth, mask
        return self.clean


@pytest.mark.parametrize("t", [0, 100, 500, 999])
def test_as_a_prior_it_is_told_the_noise_level_and_nothing_else(t):
    clean, eps = torch.rand(2, 3, 8, 8) * 2 - 1, torch.randn(2, 3, 8, 8)
    a = schedule().alpha_bar(t)
    recording = _Recording(clean)
    prior = BuiltinPrior(Restorer(recording, "digest"))
    prediction = prior.predict(a**0.5 * clean + (1 - a) ** 0.5 * eps, t)
    sigma = recording.sigma_white[0]
    assert torch.allclose(recording.damaged, clean + sigma * eps, atol=1e-4 * float(sigma) + 1e-5)
    assert not recording.sigma_smooth.any()
    assert recording.mask.all()
    assert torch.equal(prediction.x0, clean)
    assert torch.allclose(prediction.eps, eps, atol=1e-4)
    assert prior.canvas is False


def test_a_prior_answers_in_the_type_it_is_asked_in(path):
    prediction = load_prior(path).predict(torch.randn(1, 3, 8, 8, dtype=torch.float64), 300)
    assert prediction.x0.dtype == prediction.eps.dtype == torch.float64


def test_the_built_in_weights_are_small_and_take_noise_away():
    torch.set_num_threads(1)
    assert BUILTIN_PATH.stat().st_size <= 15_000_000
    prior = load_prior("builtin")
    assert prior.digest == load_restorer().digest
    ramp = torch.linspace(-1, 1, 32)
    clean = torch.stack([ramp.expand(32, 32), ramp.expand(32, 32).T, ramp.expand(32, 32).flip(1)])[None]
    t = 200
    a = schedule().alpha_bar(t)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    noisy = a**0.5 * clean + (1 - a) ** 0.5 * noise
    error = (prior.predict(noisy, t).x0 - clean).abs().mean()
    assert error < 0.3 * (noisy / a**0.5 - clean).abs().mean()


@pytest.mark.parametrize("name", ["bultin", "model.pt", "no/such/folder"])
def test_a_prior_that_is_not_there_is_named(name):
    with pytest.raises(PriorError, match=rf"prior {name}: expected `builtin`, a diffusers folder or"):
        load_prior(name)
