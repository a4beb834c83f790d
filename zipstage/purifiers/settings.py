"""The table of methods with their settings and presets, free of torch so that a config loads fast.

A new purifier is one file and one line in `METHODS`. A file that loads without torch holds its own
settings; the settings of those that don't stand here. A setting that changes purified bytes is a
field of these classes and nothing else: the fingerprint is made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from zipstage.errors import SettingsError, nearest
from zipstage.purifiers.checks import check, check_between, choice, number, out_of_range, scale
from zipstage.purifiers.controls.bicubic import BicubicSettings
from zipstage.purifiers.controls.jpeg import JpegSettings
from zipstage.purifiers.controls.median import MedianSettings
from zipstage.purifiers.controls.motion_blur import MotionBlurSettings
from zipstage.purifiers.controls.naive import NaiveSettings
from zipstage.purifiers.controls.none import NoneSettings
from zipstage.purifiers.controls.shrinkpad import ShrinkPadSettings

T = TypeVar("T")


class Settings(Protocol):
    """A method's settings: a frozen dataclass of plain values, each with a default.

    What each may be is said beside it (`checks.number`, `checks.choice`); its `__post_init__` refuses
    the rest with a `SettingsError`.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreSettings:
    """`restore`: damage lightly, repair with a network that is told how (the default).

    Noise levels are in units of images whose standard deviation is .5, at 32 px; larger cells get
    `(cell / 32) ** growth` times as much.

    Args:
        prior: `builtin`, or the path of a restorer that `prior train` made.
        sigma_white: White noise of the second look.
        sigma_smooth: Low-frequency noise of the second look.
        assumed_smooth: Low-frequency noise that images are taken to carry as they come: the network is told of
            it and takes it out, though none was added. That costs less than noise of the same strength.
        smooth_up_to: Largest cell side in px for which there is smooth noise, added or assumed. The built-in
            restorer has learnt it at 32 and 64 px; on larger images it leaves coloured clouds, so there
            low-frequency triggers stay.
        draws: Draws of the noise whose restorations are averaged (K); each costs a network call.
        sharpen: How much of what a 3x3 kernel smooths away is added at the end: restored images are smoother
            than received ones, and some victims take that for their trigger.
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
    sigma_white: float = number(0.1, 0, 80)
    sigma_smooth: float = number(0.0, 0, 80)
    assumed_smooth: float = number(0.15, 0, 80)
    smooth_up_to: int = number(64, 0)
    draws: int = number(2, 1)
    sharpen: float = number(0.5, 0)
    first_look: bool = False
    first_sigma: float = number(0.1, 0, 80)
    box: float = number(5 / 32, 0, 1, above=True)
    hide_above: float = number(3.0, 0)
    spot_above: float = number(0.2, 0, 1)
    own_factor: float = number(1.8, 0)
    own_floor: float = number(0.1, 0)
    growth: float = number(0.5, 0, 2)

    def __post_init__(self) -> None:
        check(self)


TRANSFORMS = ("block_mean", "gray", "dct", "gray_block_mean", "gray_dct", "two")


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipSettings:
    """`zip`: a transform destroys, a diffusion prior restores what it took (Shi et al., NeurIPS 2023).

    Args:
        prior: `builtin`, a restorer file, or a diffusers folder.
        transform: A^+A: block_mean, gray, dct, gray_block_mean, gray_dct, or `two`, the mean of gray
            and block_mean that the authors' program has.
        scale: Edge of a block in pixels.
        share: Share of frequencies that dct keeps along each axis.
        sampler: `few` calls from a noised image, `ddim` (Algorithm 2) or `ddpm` (Algorithm 1, 1000 calls).
        timesteps: Those of `few`, falling, 0 to 999; each costs a call.
        start: What `few` noises: the image `projected` by the transform, or as `received`.
        steps: Calls of `ddim`.
        spacing: Timesteps of `ddim`: from 999 down (`paper`), or down to 0 (`leading`, the program's).
        eta: Share of ancestral noise between steps.
        switch: `hard`: guided while t > lambda_ * 1000; `soft`: by 1 - alphas_cumprod ** power.
        lambda_: Stop fraction of the hard switch; 0 guides to the end, 1 never.
        power: Exponent of the soft switch; 0 never guides.
    """

    prior: str = "builtin"
    transform: str = choice("block_mean", *TRANSFORMS)
    scale: int = scale()
    share: float = number(0.5, 0, 1, above=True)
    sampler: str = choice("few", "few", "ddim", "ddpm")
    timesteps: tuple[int, ...] = (350, 200)
    start: str = choice("projected", "projected", "received")
    steps: int = number(20, 1, 1000)
    spacing: str = choice("paper", "paper", "leading")
    eta: float = number(1.0, 0, 1)
    switch: str = choice("hard", "hard", "soft")
    lambda_: float = number(0.3, 0, 1)
    power: float = number(10.0, 0)

    def __post_init__(self) -> None:
        check(self)
        integers = all(type(t) is int for t in self.timesteps)
        if not integers or not self.timesteps or list(self.timesteps) != sorted(set(self.timesteps), reverse=True):
            raise out_of_range("timesteps", "one or more integers, falling, such as [350, 200]", self.timesteps)
        if self.timesteps[0] > 999 or self.timesteps[-1] < 0:
            raise out_of_range("timesteps", "integers from 999 down to 0", self.timesteps)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampDetoxSettings:
    """`sampdetox`: weak noise everywhere, strong noise where that changed much (Yang et al., NeurIPS 2024).

    The paper's t1 = 20 and t2 = 120 are steps of a cosine schedule (Nichol & Dhariwal 2021), whose
    alphas_cumprod there are .99825 and .96089. The linear schedule of this package comes nearest to
    those, in the logarithm of the signal-to-noise ratio, after 9 and 59 steps: timesteps 8 and 58.

    Args:
        prior: `builtin`, a restorer file, or a diffusers folder.
        t1: Timestep up to which all of the image is noised.
        t2: Timestep up to which is noised what changed most; by how much decides where below.
        calls1: Calls of the way back from t1, evenly over its timesteps; 0 is one each.
        calls2: Calls of the way back from t2; 0 is one each. What is noised less than halfway to the lowest
            of so many noise levels is left as it is, and a level that nothing reaches costs no call.
        form: `paper`, or `program` as the authors' program computes: the SSIM of images in [0, 1]
            as if they were in [0, 255], its map stretched over each image (so that some place gets all
            of t2 in each), red and blue weighted the wrong way round, noise of one timestep more than
            is taken back, and in the calls more noise than the posterior has.
    """

    prior: str = "builtin"
    t1: int = number(8, 0, 999)
    t2: int = number(58, 0, 999)
    calls1: int = number(0, 0, 1000)
    calls2: int = number(0, 0, 1000)
    form: str = choice("paper", "paper", "program")

    def __post_init__(self) -> None:
        check(self)
        least = int(self.form == "program")  # which takes back a timestep less than t
        for t, calls in (("t1", "calls1"), ("t2", "calls2")):
            check_between(t, least, 999, getattr(self, t))
            check_between(calls, 0, getattr(self, t) + 1 - least, getattr(self, calls))


@dataclass(frozen=True, slots=True, kw_only=True)
class SdeditSettings:
    """`sdedit`: noised and denoised, with no constraint (Meng et al. 2022). A control.

    Args:
        prior: `builtin`, a restorer file, or a diffusers folder.
        t: Timestep up to which the image is noised.
        calls: Calls of the way back, evenly over the timesteps; `t` at most.
    """

    prior: str = "builtin"
    t: int = number(200, 1, 999)
    calls: int = number(1, 1, 999)

    def __post_init__(self) -> None:
        check(self)
        check_between("calls", 1, self.t, self.calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRestoreSettings:
    """`block_restore`: block means, and a restorer that makes an image of them in one call. A control.

    Args:
        prior: `builtin`, or a restorer file; the built-in one was trained on noise, not on blocks.
        scale: Edge of a block in pixels.
    """

    prior: str = "builtin"
    scale: int = scale()

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSettings:
    """`chain`: methods one after the other.

    Args:
        steps: The settings of each. Typed as a list of `{method: ..., preset: ..., SETTING: ...}`.

    Example:
        purifier:
          method: chain
          steps:
            - {method: jpeg, quality: 50}
            - {method: restore, preset: fast}
    """

    steps: tuple[Settings, ...] = ()


Network = Literal["none", "restorer", "prior", "steps"]


@dataclass(frozen=True, slots=True)
class Method:
    """A line of the table.

    Args:
        purifier: Module below `zipstage.purifiers` and class of what does it, loaded when it is built.
        presets: Settings by name; one is called `default`.
        network: What its constructor takes between the settings and device and batch. With `none` it
            takes the settings alone, with `steps` the purifiers of its steps.
    """

    purifier: str
    presets: Mapping[str, Settings]
    network: Network = "none"


METHODS: dict[str, Method] = {
    "restore": Method(
        "restore:RestorePurifier",
        {
            "default": RestoreSettings(),
            "fast": RestoreSettings(draws=1),
            "strong": RestoreSettings(sigma_white=0.2, assumed_smooth=0.2, draws=4),
        },
        network="restorer",
    ),
    "zip": Method(
        "zip:ZipPurifier",
        {
            "default": ZipSettings(),
            "paper": ZipSettings(sampler="ddim"),
            "program": ZipSettings(sampler="ddim", spacing="leading", transform="two", switch="soft"),
        },
        network="prior",
    ),
    "sampdetox": Method(
        "sampdetox:SampDetoxPurifier",
        {
            "default": SampDetoxSettings(),
            "few": SampDetoxSettings(calls1=1, calls2=8),
            "program": SampDetoxSettings(t1=120, t2=120, form="program"),
        },
        network="prior",
    ),
    "chain": Method("chain:ChainPurifier", {"default": ChainSettings()}, network="steps"),
    "none": Method("controls.none:NonePurifier", {"default": NoneSettings()}),
    "naive": Method("controls.naive:NaivePurifier", {"default": NaiveSettings()}),
    "bicubic": Method("controls.bicubic:BicubicPurifier", {"default": BicubicSettings()}),
    "motion_blur": Method("controls.motion_blur:MotionBlurPurifier", {"default": MotionBlurSettings()}),
    "median": Method("controls.median:MedianPurifier", {"default": MedianSettings()}),
    "jpeg": Method("controls.jpeg:JpegPurifier", {"default": JpegSettings()}),
    "shrinkpad": Method("controls.shrinkpad:ShrinkPadPurifier", {"default": ShrinkPadSettings()}),
    "sdedit": Method(
        "sdedit:SdeditPurifier",
        {
            "default": SdeditSettings(),
            "t100": SdeditSettings(t=100),
            "t300": SdeditSettings(t=300),
            "t100x5": SdeditSettings(t=100, calls=5),
            "t200x5": SdeditSettings(t=200, calls=5),
            "t300x5": SdeditSettings(t=300, calls=5),
        },
        network="prior",
    ),
    "block_restore": Method(
        "block_restore:BlockRestorePurifier", {"default": BlockRestoreSettings()}, network="restorer"
    ),
}


def settings_for(method: str, preset: str = "default", overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a method: a preset, with some of it set otherwise.

    Args:
        method: One of `METHODS`.
        preset: One of the method's.
        overrides: Values by name, as YAML has them; of a chain, `steps`.

    Raises:
        SettingsError: No such method, preset or setting (the nearest is named), or a wrong type.
    """
    presets = _look_up(METHODS, method, "purifier.method", "method").presets
    settings = _look_up(presets, preset, "purifier.preset", f"preset of {method}")
    known = {f.name for f in fields(settings)}
    values = {}
    for name, value in (overrides or {}).items():
        if name not in known:
            raise SettingsError(
                f"purifier.{name}: {method} has no such setting.{nearest(name, known)} "
                f"It has: {', '.join(sorted(known)) or 'none'}."
            )
        values[name] = _of_type(type(getattr(settings, name)), name, value)
    if isinstance(settings, ChainSettings):
        return ChainSettings(steps=_steps(values.get("steps", ())))
    return replace(settings, **values)  # at once: some values fit only together


def method_of(settings: Settings) -> str:
    """The method that settings belong to."""
    return next(name for name, method in METHODS.items() if isinstance(settings, type(method.presets["default"])))


def as_facts(settings: Settings) -> dict[str, Any]:
    """The settings as plain values, for fingerprints and records."""
    return asdict(settings)


def _of_type(wanted: type, name: str, value: Any) -> Any:  # noqa: ANN401 - what a YAML file holds
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if wanted is tuple and isinstance(value, list):
        value = tuple(value)
    if type(value) is not wanted:  # isinstance would let `true` pass for 1
        expected = "a list" if wanted is tuple else wanted.__name__
        raise SettingsError(f"purifier.{name}: expected {expected}, found {value!r}.")
    return value


def _steps(typed: tuple[Any, ...]) -> tuple[Settings, ...]:
    """The settings of a chain's steps, from how they were typed."""
    if not typed:
        raise SettingsError(
            "purifier.steps: expected a chain's methods, such as [{method: median}, {method: restore}], found none."
        )
    return tuple(_step(number, step) for number, step in enumerate(typed, 1))


def _step(number: int, typed: Any) -> Settings:  # noqa: ANN401 - what a YAML file holds
    where = f"purifier.steps, step {number}"
    if not isinstance(typed, Mapping) or "method" not in typed:
        raise SettingsError(f"{where}: expected {{method: ..., SETTING: ...}}, found {typed!r}.")
    if typed["method"] == "chain":
        raise SettingsError(f"{where}: expected another method, found a chain. Write its steps into this one.")
    overrides = {str(name): value for name, value in typed.items() if name not in ("method", "preset")}
    for name in ("seed", "batch", "device"):
        if name in overrides:
            raise SettingsError(f"{where}: {name} is the whole job's. Set purifier.{name} beside the steps.")
    try:
        return settings_for(str(typed["method"]), str(typed.get("preset", "default")), overrides)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None


def _look_up(table: Mapping[str, T], name: str, field: str, what: str) -> T:
    if name not in table:
        raise SettingsError(f"{field}: no {what} {name!r}.{nearest(name, table)} There are: {', '.join(table)}.")
    return table[name]
