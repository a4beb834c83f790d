"""The settings of each method and their presets, free of torch so that a config loads fast.

A setting that changes purified bytes stands here and nowhere else: the fingerprint is made of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from zipstage.errors import SettingsError, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreSettings:
    """`restore`: damage lightly, repair with a network that is told how (the default).

    Noise levels are in units of images whose standard deviation is .5, at 32 px; larger cells get
    `(cell / 32) ** growth` times as much.

    Args:
        prior: `builtin`, or the path of a restorer that `prior train` made.
        sigma_white: White noise of the second look.
        sigma_smooth: Low-frequency noise of the second look.
        draws: Draws of the noise whose restorations are averaged (K); each costs a network call.
        first_look: Whether to look for an opaque trigger first and hide it; costs a call.
        first_sigma: White noise of the first look.
        box: Edge of the box that is looked for, as a share of the image's side.
        hide_above: The box is hidden when its residual is over this many times the image's mean.
        own_factor: How many times the noise that the image already carries is told to the network.
        own_floor: What of it is forgiven: clean images carry that much.
        growth: Exponent by which noise grows with the cell's side.
    """

    prior: str = "builtin"
    sigma_white: float = 0.1
    sigma_smooth: float = 0.2
    draws: int = 1
    first_look: bool = True
    first_sigma: float = 0.1
    box: float = 5 / 32
    hide_above: float = 3.0
    own_factor: float = 2.0
    own_floor: float = 0.14
    growth: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class NoneSettings:
    """`none`: the images as they came, encoded anew. A control."""


Settings = RestoreSettings | NoneSettings

METHODS: dict[str, dict[str, Settings]] = {
    "restore": {
        "default": RestoreSettings(),
        "fast": RestoreSettings(first_look=False),
        "strong": RestoreSettings(sigma_white=0.2, draws=4),
    },
    "none": {"default": NoneSettings()},
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
        if not isinstance(value, wanted):
            raise SettingsError(f"purifier.{name}: expected {wanted.__name__}, found {value!r}.")
        settings = replace(settings, **{name: value})
    return settings


def as_facts(settings: Settings) -> dict[str, Any]:
    """The settings as plain values, for fingerprints and records."""
    return asdict(settings)


def _look_up(table: dict[str, Any], name: str, field: str, what: str) -> Any:
    if name not in table:
        raise SettingsError(f"{field}: no {what} {name!r}.{nearest(name, table)} There are: {', '.join(table)}.")
    return table[name]
