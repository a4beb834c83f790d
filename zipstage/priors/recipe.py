"""The recipe of a training: all that shapes the restorer and the spotter, free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from zipstage.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the built-in restorer is made.

    Args:
        width: Channels at full resolution.
        depths: Residual blocks at full, half and quarter resolution.
        images: Images seen in all, counted with repeats.
        batch: Images of 32x32 in a step; larger views take fewer.
        large_views: Share of steps on 64x64 views.
        learning_rate: Its peak; linear warm-up over 500 steps, then a cosine to zero.
        ema: Decay of the averaged weights, which are the ones that ship.
        feature_weight: Weight of the feature distance beside L1.
        feature_start: Images seen before the feature distance counts; until then it teaches little.
        patch_start: Images seen before small opaque patches are pasted onto some.
        focused: Whether most damage has the noise levels of the settings, or all levels come equally often; with it,
            a quarter of the noise is partly gray.
        soft_views: Share of steps on views that are enlarged by two to three and a half.
        blocks: Edge in pixels of the blocks whose means it learns to restore, in place of noise: the network of the
            control `block_restore`; 0 for noise.
        feature_images: Images seen by the recognition network.
        spotter_images: Images seen by the spotter.
        spotter_graphics: Share of its views with a drawn object, whose rims and strokes it learns to leave alone.
        checkpoint_s: Seconds between checkpoints.
        seed: Of weights, views and damage.
    """

    width: int = 32
    depths: tuple[int, int, int] = (2, 3, 5)
    images: int = 400_000
    batch: int = 64
    large_views: float = 0.15
    learning_rate: float = 1e-3
    ema: float = 0.999
    feature_weight: float = 0.2
    feature_start: int = 80_000
    patch_start: int = 0
    focused: bool = False
    soft_views: float = 0.0
    blocks: int = 0
    feature_images: int = 300_000
    spotter_images: int = 200_000
    spotter_graphics: float = 0.0
    checkpoint_s: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        for names, low, high in _RANGES:
            for name in names:
                if not low <= getattr(self, name) <= high:
                    raise SettingsError(f"recipe.{name}: expected {low} to {high}, found {getattr(self, name)}.")
        if self.blocks not in (0, 2, 4, 8):
            raise SettingsError(f"recipe.blocks: expected 0, 2, 4 or 8, which divide every view, found {self.blocks}.")
        if min(self.depths) < 1:
            raise SettingsError(f"recipe.depths: expected at least 1 block at each resolution, found {self.depths}.")


_RANGES = (
    (("width", "images", "feature_images", "spotter_images"), 1, 2**40),
    (("batch",), 4, 2**20),  # a step on large views takes a quarter of it
    (("large_views", "soft_views", "spotter_graphics", "ema"), 0, 1),
    (("learning_rate", "feature_weight", "feature_start", "patch_start", "checkpoint_s", "seed"), 0, 2**40),
)
