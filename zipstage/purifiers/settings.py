"""The settings of each method and their presets, free of torch so that a config loads fast.

A setting that changes purified bytes stands here and nowhere else: the fingerprint is made of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from zipstage.errors import SettingsError, nearest

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreSettings:
    """`restore`: damage lightly, repair with a network that is told how (the default).

    Noise levels are in units of images whose standard deviation is .5, at 32 px; larger cells get
    `(cell / 32) ** growth` times as much.

    Args:
        prior: `builtin`, or the path of a restorer that `prior train` made.
        sigma_white: White noise of the second look.
        sigma_smooth: Low-frequency noise of the second look.
        smooth_up_to: Largest cell side in px that gets smooth noise. The built-in restorer has learnt
            it at 32 and 64 px; on larger images it leaves coloured clouds, so there low-frequency
            triggers stay.
        draws: Draws of the noise whose restorations are averaged (K); each costs a network call.
        first_look: Whether to restore once only to see what stands out, and hide it; costs a call.
        first_sigma: White noise of the first look.
        box: Edge of the box that is looked for, as a share of the image's side.
        hide_above: The box is hidden when its residual is over this many times the image's mean.
        spot_above: Pixels that the spotter takes for pasted with more than this probability are
            hidden, with their neighbours; 1 leaves the spotter out.
        own_factor: How many times the noise that the image already carries is told to the network.
        own_floor: What of it is forgiven: clean images carry that much.
        growth: Exponent by which noise grows with the cell's side.
            At .5, cells of 256 px stay within what the built-in restorer was trained on.
    """

    prior: str = "builtin"
    sigma_white: float = 0.1
    sigma_smooth: float = 0.2
    smooth_up_to: int = 64
    draws: int = 1
    first_look: bool = True
    first_sigma: float = 0.1
    box: float = 5 / 32
    hide_above: float = 3.0
    spot_above: float = 0.2
    own_factor: float = 2.0
    own_floor: float = 0.14
    growth: float = 0.5


TRANSFORMS = ("block_mean", "gray", "dct", "gray_block_mean", "gray_dct", "two")
SCALES = (1, 2, 4, 8)  # what divides the side of every cell

# Each text setting of `zip` and what it may be.
_ZIP_CHOICES = {
    "transform": TRANSFORMS,
    "sampler": ("few", "ddim", "ddpm"),
    "spacing": ("paper", "leading"),
    "switch": ("hard", "soft"),
    "start": ("projected", "received"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipSettings:
    """`zip`: a transform destroys, a diffusion prior restores what it took (Shi et al., NeurIPS 2023).

    Args:
        prior: `builtin`, a restorer file, or a diffusers folder.
        transform: A^+A: block_mean, gray, dct, gray_block_mean, gray_dct, or `two`, the mean of gray
            and block_mean that the authors' program has.
        scale: Edge of a block in pixels: 1, 2, 4 or 8.
        share: Share of frequencies that dct keeps along each axis.
        sampler: `few` calls from a noised image, `ddim` (Algorithm 2) or `ddpm` (Algorithm 1, 1000 calls).
        timesteps: Those of `few`, falling, 0 to 999; each costs a call.
        start: What `few` noises: the image `projected` by the transform, or as `received`.
        steps: Calls of `ddim`.
        spacing: Timesteps of `ddim`: from 999 down (`paper`), or down to 0 (`leading`, the program's).
        eta: Share of ancestral noise between steps, 0 to 1.
        switch: `hard`: guided while t > lambda_ * 1000; `soft`: by 1 - alphas_cumprod ** power.
        lambda_: Stop fraction of the hard switch; 0 guides to the end, 1 never.
        power: Exponent of the soft switch; 0 never guides.
    """

    prior: str = "builtin"
    transform: str = "block_mean"
    scale: int = 2
    share: float = 0.5
    sampler: str = "few"
    timesteps: tuple[int, ...] = (350, 200)
    start: str = "projected"
    steps: int = 20
    spacing: str = "paper"
    eta: float = 1.0
    switch: str = "hard"
    lambda_: float = 0.3
    power: float = 10.0

    def __post_init__(self) -> None:
        for name, choices in _ZIP_CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise _out_of_range(name, f"one of {', '.join(choices)}", value, nearest(value, choices))
        if self.scale not in SCALES:
            raise _out_of_range("scale", f"one of {SCALES}, which divide every cell", self.scale)
        for name, low, high in (("steps", 1, 1000), ("eta", 0, 1), ("lambda_", 0, 1), ("power", 0, float("inf"))):
            if not low <= getattr(self, name) <= high:
                raise _out_of_range(name, f"a number from {low} to {high}", getattr(self, name))
        if not 0 < self.share <= 1:
            raise _out_of_range("share", "a number above 0 and up to 1", self.share)
        integers = all(type(t) is int for t in self.timesteps)
        if not integers or not self.timesteps or list(self.timesteps) != sorted(set(self.timesteps), reverse=True):
            raise _out_of_range("timesteps", "one or more integers, falling, such as [350, 200]", self.timesteps)
        if self.timesteps[0] > 999 or self.timesteps[-1] < 0:
            raise _out_of_range("timesteps", "integers from 999 down to 0", self.timesteps)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoneSettings:
    """`none`: the images as they came, encoded anew. A control."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NaiveSettings:
    """`naive`: block means and nothing that restores. A control.

    Args:
        scale: Edge of a block in pixels: 1, 2, 4 or 8.
    """

    scale: int = 2

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise _out_of_range("scale", f"one of {SCALES}, which divide every cell", self.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class MedianSettings:
    """`median`: each pixel the median of 3x3, channel by channel. A control."""


Settings = RestoreSettings | ZipSettings | NoneSettings | NaiveSettings | MedianSettings

METHODS: dict[str, dict[str, Settings]] = {
    "restore": {
        "default": RestoreSettings(),
        "fast": RestoreSettings(first_look=False),
        "strong": RestoreSettings(sigma_white=0.2, draws=4),
    },
    "zip": {
        "default": ZipSettings(),
        "paper": ZipSettings(sampler="ddim"),
        "program": ZipSettings(sampler="ddim", spacing="leading", transform="two", switch="soft"),
    },
    "none": {"default": NoneSettings()},
    "naive": {"default": NaiveSettings()},
    "median": {"default": MedianSettings()},
}


def settings_for(method: str, preset: str = "default", overrides: dict[str, Any] | None = None) -> Settings:
    """The settings of a method: a preset, with some of it set otherwise.

    Raises:
        SettingsError: No such method, preset or setting (the nearest is named), or a wrong type.
    """
    presets = _look_up(METHODS, method, "purifier.method", "method")
    settings = _look_up(presets, preset, "purifier.preset", f"preset of {method}")
    known = {f.name for f in fields(settings)}
    for name, value in (overrides or {}).items():
        if name not in known:
            raise SettingsError(
                f"purifier.{name}: {method} has no such setting.{nearest(name, known)} "
                f"It has: {', '.join(sorted(known)) or 'none'}."
            )
        wanted = type(getattr(settings, name))
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if wanted is tuple and isinstance(value, list):
            value = tuple(value)
        if type(value) is not wanted:  # isinstance would let `true` pass for 1
            raise SettingsError(f"purifier.{name}: expected {wanted.__name__}, found {value!r}.")
        settings = replace(settings, **{name: value})
    return settings


def method_of(settings: Settings) -> str:
    """The method that settings belong to."""
    return next(method for method, presets in METHODS.items() if isinstance(settings, type(presets["default"])))


def as_facts(settings: Settings) -> dict[str, Any]:
    """The settings as plain values, for fingerprints and records."""
    return asdict(settings)


def _out_of_range(name: str, expected: str, found: object, hint: str = "") -> SettingsError:
    return SettingsError(f"purifier.{name}: expected {expected}, found {found!r}.{hint}")


def _look_up(table: dict[str, T], name: str, field: str, what: str) -> T:
    if name not in table:
        raise SettingsError(f"{field}: no {what} {name!r}.{nearest(name, table)} There are: {', '.join(table)}.")
    return table[name]
