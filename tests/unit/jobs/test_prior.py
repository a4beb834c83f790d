from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import UNet2DModel
from PIL import Image
from safetensors.torch import load_file

from jobs.prior import export_checkpoint, import_prior, progress_line, train
from jobs.training_config import load_training_config
from jobs.training_data import read_images, read_labels
from pipeline.errors import ConfigError
from zipstage.errors import PriorError, SettingsError
from zipstage.priors import load_prior, load_restorer, training
from zipstage.priors.training import Progress

TINY = {
    "width": 8,
    "depths": [1, 1, 1],
    "images": 40,
    "batch": 8,
    "large_views": 0.3,
    "feature_start": 16,
    "spotter_images": 32,
    "feature_images": 16,
    "checkpoint_s": 0,
}


def _shard(path, count, side, suffix="png", labels=True):
    generator = np.random.default_rng(side)
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for i in range(count):
            buffer = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(buffer, suffix)
            members = {suffix: buffer.getvalue()} | ({"cls": str(i % 3).encode()} if labels else {})
            for name, content in members.items():
                info = tarfile.TarInfo(f"{i:06d}.{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def data(tmp_path):
    torch.set_num_threads(1)
    _shard(tmp_path / "data" / "small" / "shard-000000.tar.gz", 120, 40)
    _shard(tmp_path / "data" / "large" / "shard-000000.tar", 12, 80, "webp", labels=False)
    return tmp_path / "data"


@pytest.fixture
def config(tmp_path):
    return _config(tmp_path)


def _config(folder, name="recipe.yaml", *, recipe=None, **changes):
    values = {
        "recipe": TINY | (recipe or {}),
        "data": [
            {"folder": "small", "labelled": True, "held_out": 20, "origin": "random dots"},
            {"folder": "large", "origin": "more random dots"},
        ],
        "terms": "Ours to use as we like.",
    }
    (folder / name).write_text(yaml.safe_dump(values | changes))
    return folder / name


def _ignore(_progress):
    pass


class _CutError(Exception):
    pass


def _cut_after(monkeypatch, name, calls):
    """Let the training call one of its own functions so often, then end as if killed."""
    original, count = getattr(training, name), iter(range(calls))

    def until_cut(*arguments, **named):
        if next(count, None) is None:
            raise _CutError
        return original(*arguments, **named)

    monkeypatch.setattr(training, name, until_cut)


def test_a_training_that_is_cut_and_resumed_ends_in_the_same_weights(data, config, tmp_path, monkeypatch):
    whole = train(config, data, tmp_path / "whole", _ignore)
    for name, calls in (("random_views", 1), ("feature_distance", 1)):  # in the first training, in the second
        with monkeypatch.context() as patch:
            _cut_after(patch, name, calls)
            with pytest.raises(_CutError):
                train(config, data, tmp_path / "cut", _ignore)
    resumed = train(config, data, tmp_path / "cut", _ignore)
    wanted, found = load_file(whole), load_file(resumed)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert load_restorer(whole).digest == load_restorer(resumed).digest


def test_another_seed_gives_other_weights(data, tmp_path):
    recipe = {"images": 16, "feature_weight": 0}
    digests = {
        load_restorer(train(_config(tmp_path, recipe=recipe | {"seed": s}), data, tmp_path / str(s), _ignore)).digest
        for s in (0, 1)
    }
    assert len(digests) == 2


def test_a_finished_training_leaves_a_restorer_and_its_card(data, config, tmp_path):
    seen = []
    path = train(config, data, tmp_path / "out", seen.append)
    assert {progress.step for progress in seen} == {"features", "spotter", "restorer"}
    assert load_prior(path).predict(torch.zeros(1, 3, 32, 32), 100).x0.shape == (1, 3, 32, 32)
    card = path.with_suffix(".md").read_text()
    for what in (
        load_restorer(path).digest,
        "`small`: random dots",
        "Ours to use as we like.",
        "on 20 images",
        "| 0.7 |",
    ):
        assert what in card


def test_an_unfinished_training_can_be_exported(data, tmp_path, monkeypatch):
    config = _config(tmp_path, recipe={"feature_weight": 0})
    with monkeypatch.context() as patch:
        _cut_after(patch, "random_damage", 3)
        with pytest.raises(_CutError):
            train(config, data, tmp_path / "out", _ignore)
    export_checkpoint(config, data, tmp_path / "out" / "restorer.pt", tmp_path / "early.safetensors")
    assert load_restorer(tmp_path / "early.safetensors").network.width == 8
    assert "| images seen | 24 |" in (tmp_path / "early.md").read_text()


def test_the_held_out_images_are_never_trained_on(data, config, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(training, "random_views", lambda images, *_: given.append(images) or pytest.fail("stop"))
    with pytest.raises(pytest.fail.Exception, match="stop"):
        train(config, data, tmp_path / "out", _ignore)
    assert torch.equal(given[0], read_images(data / "small")[20:])


def test_a_folder_with_another_recipes_training_is_refused(data, config, tmp_path):
    recipe = {"images": 8, "feature_weight": 0}
    train(_config(tmp_path, recipe=recipe), data, tmp_path / "out", _ignore)
    changed = _config(tmp_path, recipe=recipe | {"images": 16, "learning_rate": 0.1})
    with pytest.raises(ConfigError, match=r"another recipe; these differ: images, learning_rate\."):
        train(changed, data, tmp_path / "out", _ignore)


def test_a_checkpoint_of_another_recipe_is_not_exported(data, tmp_path):
    recipe = {"images": 8, "feature_weight": 0}
    train(_config(tmp_path, recipe=recipe), data, tmp_path / "out", _ignore)
    other = _config(tmp_path, "other.yaml", recipe=recipe | {"width": 4})
    with pytest.raises(PriorError, match="its network isn't the recipe's"):
        export_checkpoint(other, data, tmp_path / "out" / "restorer.pt", tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipes": {}}, r"no such field 'recipes'. Did you mean 'recipe'\?"),
        ({"recipe": {"widht": 8}}, r"no such field 'recipe.widht'. Did you mean 'width'\?"),
        ({"data": [{"foldr": "x"}]}, r"no such field 'data.0.foldr'. Did you mean 'folder'\?"),
        ({"recipe": {"width": "wide"}}, r"recipe.width: .*found 'wide'"),
        ({"data": [{"folder": "small", "labelled": True}]}, "expected a set with `held_out` images"),
        ({"data": [{"folder": "small", "held_out": 1}]}, "expected one set with `labelled: true`"),
    ],
)
def test_a_wrong_field_is_named(changes, message, tmp_path):
    path = _config(tmp_path)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    with pytest.raises(ConfigError, match=message):
        load_training_config(path)


def test_a_number_out_of_range_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"recipe.batch: expected 4 to"):
        load_training_config(_config(tmp_path, recipe={"batch": 2}))


def test_a_config_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_training_config(tmp_path / "away.yaml")
    (tmp_path / "broken.yaml").write_text("recipe: {")
    with pytest.raises(ConfigError, match="not YAML"):
        load_training_config(tmp_path / "broken.yaml")


def test_the_shipped_recipe_trains_on_no_set_that_the_evaluation_asks_about():
    config = load_training_config(Path(__file__).parents[3] / "jobs" / "configs" / "prior-builtin.yaml")
    shipped = load_restorer().network
    assert (config.recipe.width, config.recipe.depths) == (shipped.width, shipped.depths)
    assert [(images.folder, images.held_out) for images in config.data] == [
        ("tinyimagenet-train", 500),
        ("photos256", 0),
    ]


def test_images_and_labels_come_in_the_order_of_the_shards(data):
    images, labels = read_images(data / "small", limit=5), read_labels(data / "small")
    with tarfile.open(data / "small" / "shard-000000.tar.gz") as tar:
        fifth = np.asarray(Image.open(io.BytesIO(tar.extractfile("000004.png").read())))
    assert images.shape == (5, 3, 40, 40)
    assert np.array_equal(images[4].permute(1, 2, 0).numpy(), fifth)
    assert labels[:5].tolist() == [0, 1, 2, 0, 1]


def test_data_that_cannot_serve_is_named(data, tmp_path):
    with pytest.raises(ConfigError, match=r"away: expected shards"):
        read_images(tmp_path / "away")
    with pytest.raises(ConfigError, match=r"expected a number in 000000.cls"):
        read_labels(data / "large")
    _shard(data / "mixed" / "a.tar", 1, 40)
    (data / "mixed" / "b.tar").write_bytes((data / "large" / "shard-000000.tar").read_bytes())
    with pytest.raises(ConfigError, match=r"squares of one size, found 80x80 in 000000"):
        read_images(data / "mixed")


def test_a_diffusers_folder_is_imported_without_its_pickles(tmp_path):
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    UNet2DModel(sample_size=32, layers_per_block=1, norm_num_groups=4, **blocks).save_pretrained(tmp_path / "in")
    (tmp_path / "in" / "optimizer.bin").write_bytes(b"pickle")
    digest = import_prior(tmp_path / "in", tmp_path / "out")
    assert digest == load_prior(tmp_path / "in").digest == load_prior(tmp_path / "out").digest
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    with pytest.raises(PriorError, match="found one that exists"):
        import_prior(tmp_path / "in", tmp_path / "out")


def test_an_adm_checkpoint_is_imported_with_its_options(tmp_path):
    golden = Path(__file__).parents[2] / "conformance" / "golden" / "adm" / "adm_small.safetensors"
    digest = import_prior(golden, tmp_path / "out", image_size=32, head_channels=16)
    assert digest == load_prior(tmp_path / "out").digest
    assert json.loads((tmp_path / "out" / "unet" / "config.json").read_text())["attention_head_dim"] == 16


def test_a_progress_line_says_how_far_and_how_long():
    line = progress_line(Progress("restorer", 40_000, 400_000, 0.12345, 60.0))
    assert line == "restorer: 40,000 of 400,000 images, loss 0.1235, 60 images/s, 100 min left"


def test_a_training_that_starts_from_a_restorer_gives_back_what_that_one_gave_before_the_first_step(data, tmp_path):
    first = train(_config(tmp_path, "first.yaml"), data, tmp_path / "first", _ignore)
    # A rate of zero: what comes out is what the training began with, two blocks deeper.
    deeper = _config(tmp_path, "deeper.yaml", recipe={"depths": [2, 1, 2], "learning_rate": 0, "ema": 0})
    second = train(deeper, data, tmp_path / "second", _ignore, start=str(first))
    x = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    sigma, mask = torch.full((2,), 0.1), torch.ones((2, 1, 32, 32))
    given = [load_restorer(path).network(x, sigma, sigma, mask) for path in (first, second)]
    assert torch.allclose(given[0], given[1], atol=1e-6)
    assert load_restorer(second).network.depths == (2, 1, 2)
    with pytest.raises(ConfigError, match="these differ: start"):
        train(deeper, data, tmp_path / "second", _ignore)


def test_a_restorer_that_does_not_fit_into_the_recipe_is_no_start(data, tmp_path):
    deeper = train(_config(tmp_path, "a.yaml", recipe={"depths": [2, 1, 1]}), data, tmp_path / "a", _ignore)
    with pytest.raises(PriorError, match=r"at most \(1, 1, 1\) blocks, found width 8 and \(2, 1, 1\)"):
        train(_config(tmp_path, "b.yaml"), data, tmp_path / "b", _ignore, start=str(deeper))
