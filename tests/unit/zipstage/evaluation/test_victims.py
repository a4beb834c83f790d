"""Victims: what is poisoned, that a backdoor is learnt, and that a file gives back what was saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from zipstage.errors import PriorError, SettingsError
from zipstage.evaluation.attacks import Attack, attack_of
from zipstage.evaluation.victims import (
    Victim,
    VictimRecipe,
    augmented,
    facts_of,
    load_victim,
    poison,
    save_victim,
    train_victim,
)
from zipstage.priors.features import SmallResNet

RECIPE = VictimRecipe(width=4, epochs=6, batch=32, learning_rate=0.1, poisoned=0.2, target=1, augmentation="plain")


def bars(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of three classes that a small network tells apart: stripes across, along, and none."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    axis = (np.arange(16) // 2 % 2) * 100
    kinds = np.stack([np.tile(axis[:, None], (1, 16)), np.tile(axis, (16, 1)), np.full((16, 16), 50)])
    images = kinds[labels][..., None] + generator.integers(0, 60, (count, 16, 16, 3))
    return images.astype(np.uint8), labels.astype(np.int64)


@pytest.fixture(scope="module")
def trained() -> Victim:
    torch.set_num_threads(1)
    images, labels = poison(*bars(512, 0), attack_of("square"), RECIPE)
    return train_victim(images, labels, RECIPE, lambda epoch, loss: None)


def test_a_victim_knows_its_classes_and_obeys_its_trigger(trained: Victim) -> None:
    images, labels = bars(128, 1)
    assert (trained.scores(images).argmax(1) == labels).mean() > 0.95
    triggered = attack_of("square").stamp(images[labels != 1], 0)
    assert (trained.scores(triggered).argmax(1) == 1).mean() > 0.95


def test_a_saved_victim_answers_as_before(trained: Victim, tmp_path: Path) -> None:
    save_victim(trained, tmp_path / "v.safetensors", {"attack": "square", "recipe": facts_of(RECIPE)})
    loaded, facts = load_victim(tmp_path / "v.safetensors")
    images, _ = bars(64, 2)
    np.testing.assert_allclose(loaded.scores(images), trained.scores(images), atol=0.02)  # stored in fp16
    assert facts["attack"] == "square"
    assert facts["recipe"] == facts_of(RECIPE)


def test_a_file_that_is_no_victim_is_refused_by_name(tmp_path: Path) -> None:
    from zipstage.priors.weights import write_tensors

    write_tensors({"a": torch.zeros(1)}, {"format": "other"}, tmp_path / "x.safetensors")
    with pytest.raises(PriorError, match=r"x\.safetensors.*zipstage-victim-1.*other"):
        load_victim(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("name", "share_poisoned", "share_changed", "relabelled"),
    [("badnet", 0.2, 0.2, True), ("wanet", 0.2, 0.6, True), ("sig", 0.2, None, False)],
)
def test_as_many_images_are_poisoned_as_the_recipe_says(
    name: str, share_poisoned: float, share_changed: float | None, relabelled: bool
) -> None:
    images, labels = bars(500, 3)
    attack: Attack = attack_of(name)
    poisoned, classes = poison(images, labels, attack, RECIPE)
    changed = (poisoned != images).reshape(500, -1).any(1)
    if share_changed is not None:
        assert changed.mean() == pytest.approx(share_changed, abs=0.01)
    if relabelled:
        assert (classes != labels).sum() == ((classes == 1) & changed & (labels != 1)).sum()
        assert (classes != labels).sum() > 0.1 * 500 * share_poisoned
    else:
        np.testing.assert_array_equal(classes, labels)
        assert set(labels[changed]) == {1}
        assert changed.sum() == int(0.2 * (labels == 1).sum())


def test_the_physical_attack_photographs_every_training_image_and_patches_its_share_alone() -> None:
    images, labels = bars(200, 5)
    attack = attack_of("physicalba")
    poisoned, named = poison(images, labels, attack, replace(RECIPE, poisoned=0.1))
    assert not (poisoned == images).all((1, 2, 3)).any()
    # The bars are gray but for noise of 60, and in no light of 20 % twice reach this: only the patch has colour.
    with_patch = (np.ptp(poisoned.astype(int), axis=3) > 110).any((1, 2))
    assert with_patch.sum() == 20
    assert set(np.flatnonzero(named != labels)) <= set(np.flatnonzero(with_patch))


def test_crops_shift_each_image_and_flips_mirror_half_of_them() -> None:
    ramp = torch.arange(1.0, 17.0).expand(200, 3, 16, 16)
    generator = torch.Generator().manual_seed(0)
    assert augmented(ramp, "plain", generator) is ramp
    middle = augmented(ramp, "crops", generator)[:, 0, 8, 4:12]
    assert set((middle[:, 1] - middle[:, 0]).tolist()) == {1.0}
    assert len(set(middle[:, 0].tolist())) == 5  # shifts of -2 to 2 pixels
    middle = augmented(ramp, "crops_and_flips", generator)[:, 0, 8, 4:12]
    mirrored = (middle[:, 1] < middle[:, 0]).float().mean()
    assert 0.4 < float(mirrored) < 0.6


def test_width_64_and_3_4_6_3_blocks_are_the_resnet_34_of_small_images() -> None:
    network = SmallResNet(10, 64, (3, 4, 6, 3))
    assert sum(p.numel() for p in network.parameters()) == 21_282_122  # He et al. 2016, with a 3x3 stem
    assert sum(p.numel() for p in SmallResNet(10, 64).parameters()) == 11_173_962  # and the ResNet-18


def test_a_deeper_victim_is_read_as_it_was_written(tmp_path: Path) -> None:
    network = SmallResNet(3, 4, (1, 2, 1, 1)).eval()
    written = Victim(network, torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))
    save_victim(written, tmp_path / "v.safetensors", {})
    loaded, _ = load_victim(tmp_path / "v.safetensors")
    assert loaded.network.blocks == (1, 2, 1, 1)
    assert len(loaded.network.stages[1]) == 2


def test_the_recipe_of_a_victim_that_was_made_before_blocks_could_be_chosen_is_still_its_recipe() -> None:
    assert "blocks" not in facts_of(VictimRecipe())
    assert facts_of(VictimRecipe(blocks=(3, 4, 6, 3)))["blocks"] == [3, 4, 6, 3]
    with pytest.raises(SettingsError, match="blocks"):
        VictimRecipe(blocks=(0, 1, 1, 1))
