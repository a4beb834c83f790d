from __future__ import annotations

import numpy as np
import pytest
import torch

from zipstage.errors import PriorError, SettingsError
from zipstage.noise import image_key, normal, smooth_field
from zipstage.priors.builtin import Restorer, load_restorer
from zipstage.priors.network import RestorationUNet
from zipstage.priors.spotter import PatchSpotter, pasted_places
from zipstage.purifiers.restore import RestorePurifier, carried_noise, hide, largest_box, sharpened
from zipstage.purifiers.settings import RestoreSettings, settings_for
from zipstage.tiles import pack, unpack


def restorer() -> Restorer:
    torch.manual_seed(0)
    network = RestorationUNet(width=8, depths=(1, 1, 1))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    spotter = PatchSpotter(width=4).eval().requires_grad_(False)
    return Restorer(network.eval().requires_grad_(False), "digest", spotter)


def images(count: int, size: int = 32) -> list[np.ndarray]:
    generator = np.random.default_rng(7)
    return [generator.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(count)]


def keys(count: int) -> np.ndarray:
    return np.array([image_key(b"seed", bytes([i])) for i in range(count)])


def purified(pictures: list[np.ndarray], noise_keys: np.ndarray, **settings: object) -> list[np.ndarray]:
    purifier = RestorePurifier(RestoreSettings(**settings), restorer(), "cpu", batch=4)
    packed = pack(pictures, noise_keys)
    return unpack([purifier.purify(group) for group in packed.groups], packed.placements)[0]


def test_an_image_gets_the_same_bytes_wherever_it_stands() -> None:
    pictures, noise_keys = images(7), keys(7)
    order = [3, 1, 6, 0, 2, 5, 4]
    straight = purified(pictures, noise_keys)
    shuffled = purified([pictures[i] for i in order], noise_keys[order])
    for place, i in enumerate(order):
        assert np.array_equal(shuffled[place], straight[i])


def test_another_key_gives_another_image() -> None:
    pictures = images(1)
    assert not np.array_equal(purified(pictures, keys(2)[:1])[0], purified(pictures, keys(2)[1:])[0])


def test_a_network_that_passes_its_input_gives_the_image_plus_its_noise() -> None:
    network = RestorationUNet(width=8, depths=(1, 1, 1)).eval()

    class Echo(torch.nn.Module):
        def forward(self, damaged, sigma_white, sigma_smooth, mask):  # type: ignore[no-untyped-def]
            return damaged

    settings = RestoreSettings(draws=1, sharpen=0.0, spot_above=1.0, sigma_white=0.1, sigma_smooth=0.2)
    purifier = RestorePurifier(settings, Restorer(network, "digest"), "cpu", batch=1)
    purifier._network = Echo()  # type: ignore[assignment]
    purifier._bf16 = False
    picture = np.full((32, 32, 3), 128, np.uint8)
    picture[:16] = 96
    noise_keys = keys(1)
    tiles = pack([picture], noise_keys).groups[0]
    (_, restored), *_ = purifier.restored(tiles)

    y = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    deviation = float(y.std(correction=0))
    noise = 0.1 * normal(noise_keys, (3, 32, 32), 1) + 0.2 * smooth_field(normal(noise_keys, (3, 85), 2), 32)
    expected = y + noise * deviation / 0.5
    assert torch.allclose(restored.x0, expected, atol=1e-5)


def test_the_first_look_hides_what_stands_out_and_nothing_on_an_even_residual() -> None:
    residual = torch.full((2, 3, 32, 32), 0.01)
    residual[0, :, 20:25, 8:13] = 0.5
    mask, ratio = hide(residual, box=5 / 32, above=3.0), largest_box(residual, box=5 / 32).ratio
    assert (mask[0, 0] == 0).nonzero().tolist() == [[r, c] for r in range(20, 25) for c in range(8, 13)]
    assert bool((mask[1] == 1).all())
    assert ratio[0] > 3
    assert float(ratio[1]) == pytest.approx(1.0)


def test_carried_noise_measures_white_noise_and_ignores_a_ramp() -> None:
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    noisy = ramp + 0.2 * torch.randn((1, 3, 64, 64), generator=generator)
    assert float(carried_noise(ramp)) == pytest.approx(0.0, abs=1e-6)
    assert float(carried_noise(noisy)) == pytest.approx(0.2, rel=0.05)


def test_smooth_noise_has_unit_variance_at_each_pixel() -> None:
    coefficients = torch.randn((4000, 1, 85), generator=torch.Generator().manual_seed(1))
    variance = smooth_field(coefficients, 40).var(0)
    assert float(variance.min()) > 0.85
    assert float(variance.max()) < 1.15


def test_averaging_draws_comes_nearer_to_the_image() -> None:
    picture = np.tile(np.linspace(0, 255, 32).astype(np.uint8)[None, :, None], (32, 1, 3))

    def error(draws: int) -> float:
        result = purified([picture], keys(1), draws=draws, first_look=False, sigma_smooth=0.0)[0]
        return float(np.abs(result.astype(int) - picture.astype(int)).mean())

    assert error(8) < error(1)


def test_sharpening_leaves_a_flat_image_and_raises_an_edge() -> None:
    flat = torch.full((1, 3, 8, 8), 0.3)
    assert torch.allclose(sharpened(flat, 0.5), flat, atol=1e-6)
    edge = torch.zeros((1, 3, 8, 8))
    edge[..., 4:] = 1
    # One step of a row: the kernel (1, 2, 1) / 4 makes 1/4 and 3/4 of it; half of what that took is added.
    assert sharpened(edge, 0.5)[0, 0, 4].tolist() == pytest.approx([0, 0, 0, -0.125, 1.125, 1, 1, 1])
    assert torch.equal(sharpened(edge, 0.0), edge)


def test_pasted_pixels_are_hidden_with_their_neighbours() -> None:
    logits = torch.full((1, 1, 8, 8), -5.0)
    logits[0, 0, 3, 3] = 2.0
    places = pasted_places(logits, above=0.5)
    assert places[0, 0].nonzero().tolist() == [[r, c] for r in (2, 3, 4) for c in (2, 3, 4)]


def test_the_built_in_spotter_finds_a_square_and_a_checker_patch_on_a_smooth_image() -> None:
    picture = np.full((64, 64, 3), 120, np.uint8)
    picture[:, :, 0] = np.linspace(60, 180, 64).astype(np.uint8)
    small = picture[::2, ::2].copy()
    patched = small.copy()
    patched[20:23, 8:11] = 255
    patched[5:9, 20:24] = (np.indices((4, 4)).sum(0) % 2 * 255)[..., None]
    purifier = RestorePurifier(RestoreSettings(), load_restorer(), "cpu", batch=2)
    tiles = pack([small, patched], keys(2)).groups[0]
    (_, restored), *_ = purifier.restored(tiles)
    assert float(restored.mask[0].mean()) > 0.98
    assert float(restored.mask[1, 0, 20:23, 8:11].max()) == 0
    assert float(restored.mask[1, 0, 5:9, 20:24].max()) == 0
    assert float(restored.mask[1].mean()) > 0.85


def test_the_spotter_looks_also_where_there_is_no_first_look() -> None:
    picture = np.full((32, 32, 3), 90, np.uint8)
    picture[20:23, 8:11] = 255
    purifier = RestorePurifier(RestoreSettings(first_look=False), load_restorer(), "cpu", batch=1)
    (_, restored), *_ = purifier.restored(pack([picture], keys(1)).groups[0])
    assert float(restored.mask[0, 0, 20:23, 8:11].max()) == 0
    assert [
        RestorePurifier(settings, load_restorer(), "cpu").calls
        for settings in (RestoreSettings(), RestoreSettings(draws=1), RestoreSettings(first_look=True))
    ] == [2, 1, 3]


@pytest.mark.parametrize("first_look", [True, False])
def test_a_patch_that_was_painted_over_stands_out_in_the_residual_with_and_without_a_first_look(first_look) -> None:
    smooth = np.full((32, 32, 3), 120, np.uint8)
    smooth[:, :, 0] = np.linspace(60, 180, 32).astype(np.uint8)
    patched = smooth.copy()
    patched[20:23, 8:11] = 255
    purifier = RestorePurifier(RestoreSettings(first_look=first_look), load_restorer(), "cpu", batch=2)
    residual = purifier.purify(pack([smooth, patched], keys(2)).groups[0]).residual
    assert residual is not None
    assert residual[1] > 2 * residual[0]


def test_settings_that_want_a_spotter_refuse_a_restorer_without_one() -> None:
    alone = Restorer(restorer().network, "digest")
    with pytest.raises(PriorError, match=r"purifier\.spot_above to 1"):
        RestorePurifier(RestoreSettings(), alone, "cpu")
    RestorePurifier(RestoreSettings(spot_above=1.0), alone, "cpu")


@pytest.mark.parametrize(("size", "told"), [(32, 0.5), (80, 0.0)])
def test_assumed_smooth_noise_is_told_to_the_network_and_not_added(size: int, told: float) -> None:
    heard, seen = [], []

    class Listener(torch.nn.Module):
        def forward(self, damaged, sigma_white, sigma_smooth, mask):  # type: ignore[no-untyped-def]
            seen.append(damaged)
            heard.append(sigma_smooth)
            return damaged

    picture = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    for added, assumed in ((0.3, 0.4), (0.3, 0.0), (0.0, 0.4), (0.0, 0.0)):
        settings = RestoreSettings(draws=1, growth=0.0, sigma_smooth=added, assumed_smooth=assumed)
        purifier = RestorePurifier(settings, restorer(), "cpu", batch=1)
        purifier._network = Listener()  # type: ignore[assignment]
        purifier._bf16 = False
        list(purifier.restored(pack([picture], keys(1)).groups[0]))
    assert float(heard[0]) == pytest.approx(told)
    assert torch.equal(seen[0], seen[1])  # what is assumed adds nothing
    assert torch.equal(seen[2], seen[3])


def test_cells_above_the_learnt_sizes_get_no_smooth_noise() -> None:
    settings = RestoreSettings(first_look=False, growth=0.0, sigma_smooth=0.15)
    purifier = RestorePurifier(settings, restorer(), "cpu", batch=1)

    class Echo(torch.nn.Module):
        def forward(self, damaged, sigma_white, sigma_smooth, mask):  # type: ignore[no-untyped-def]
            return damaged

    purifier._network = Echo()  # type: ignore[assignment]
    purifier._bf16 = False

    def low_frequencies(size: int) -> float:
        picture = np.full((size, size, 3), 128, np.uint8)
        picture[::2] = 64
        (_, restored), *_ = purifier.restored(pack([picture], keys(1)).groups[0])
        return float(torch.nn.functional.avg_pool2d(restored.damaged, size // 4).std())

    assert low_frequencies(64) > 5 * low_frequencies(80)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"draws": 0}, "purifier.draws: expected a number from 1 upwards, found 0"),
        ({"sigma_white": -0.1}, "purifier.sigma_white: expected a number from 0 to 80, found -0.1"),
        ({"sigma_smooth": float("nan")}, "purifier.sigma_smooth: expected a number from 0 to 80, found nan"),
        ({"box": 0.0}, "purifier.box: expected a number above 0, up to 1, found 0.0"),
        ({"spot_above": 1.5}, "purifier.spot_above: expected a number from 0 to 1, found 1.5"),
    ],
)
def test_a_strength_that_can_not_be_is_refused_before_any_work(setting, told):
    with pytest.raises(SettingsError, match=told):
        settings_for("restore", "default", setting)
