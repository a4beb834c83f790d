"""The purifiers: `settings` says what there is, `build` makes one, `base` is the door they share."""

from __future__ import annotations

import platform
from typing import Any

from zipstage.purifiers.base import Purifier
from zipstage.purifiers.settings import (
    MedianSettings,
    NaiveSettings,
    NoneSettings,
    RestoreSettings,
    Settings,
    ZipSettings,
    as_facts,
    method_of,
)

__all__ = ["Purifier", "build", "describe", "profile_of"]


def build(settings: Settings, device: str = "cpu", batch: int = 0) -> Purifier:
    """A purifier on its device.

    Args:
        settings: Of its method; `settings.settings_for` makes them.
        device: `cpu` or `cuda`.
        batch: Cells in a network call; 0 takes the device's default.

    Raises:
        PriorError: The prior isn't there or can't be read.
    """
    match settings:  # torch and the networks load only for the method that is asked for
        case RestoreSettings():
            from zipstage.priors.builtin import load_restorer
            from zipstage.purifiers.restore import RestorePurifier

            return RestorePurifier(settings, load_restorer(settings.prior, device), device, batch)
        case NoneSettings():
            from zipstage.purifiers.controls import NonePurifier

            return NonePurifier()
        case NaiveSettings():
            from zipstage.purifiers.controls import NaivePurifier

            return NaivePurifier(settings)
        case MedianSettings():
            from zipstage.purifiers.controls import MedianPurifier

            return MedianPurifier()
        case ZipSettings():
            from zipstage.priors.load import load_prior
            from zipstage.purifiers.zip import ZipPurifier

            return ZipPurifier(settings, load_prior(settings.prior, device), device, batch)


def describe(settings: Settings) -> tuple[dict[str, Any], bool]:
    """What decides a purifier's results, as plain values, and whether it sees one image alone.

    The prior stands there by the digest of its weights: where it lies decides nothing.
    """
    purifier = build(settings)
    facts = {"method": method_of(settings), **as_facts(settings)}
    if "prior" in facts:
        facts["prior"] = purifier.digest
    return facts, purifier.isolates


def profile_of(purifier: Purifier, device: str) -> dict[str, Any]:
    """What a purifier runs on: equal bytes are promised for an equal profile."""
    import torch

    from zipstage.purifiers.batches import PIXELS_IN_A_CALL

    model = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    return {
        "device": device,
        "model": model,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "numbers": purifier.number_type,
        "batch": getattr(purifier, "batch", 0) or f"{PIXELS_IN_A_CALL[device]} px",
        "torch": torch.__version__,
    }
