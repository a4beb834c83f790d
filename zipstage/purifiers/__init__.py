"""The purifiers: `settings` says what there is, `build` makes one, `base` is the door they share."""

from __future__ import annotations

import importlib
import platform
from typing import Any

from zipstage.purifiers.base import Purifier
from zipstage.purifiers.settings import METHODS, ChainSettings, Settings, as_facts, method_of

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
    method = METHODS[method_of(settings)]
    given: Any = settings  # which class goes with which settings, only the table knows
    module, name = method.purifier.split(":")
    # Here, because torch and the networks load only for the method that is asked for.
    purifier: Any = getattr(importlib.import_module(f"zipstage.purifiers.{module}"), name)
    built: Purifier
    match method.network:
        case "none":
            built = purifier(settings)
        case "restorer":
            from zipstage.priors.builtin import load_restorer

            built = purifier(settings, load_restorer(given.prior, device), device, batch)
        case "prior":
            from zipstage.priors.load import load_prior

            built = purifier(settings, load_prior(given.prior, device), device, batch)
        case "steps":
            built = purifier([build(step, device, batch) for step in given.steps], batch)
    return built


def describe(settings: Settings) -> tuple[dict[str, Any], bool]:
    """What decides a purifier's results, as plain values, and whether it sees one image alone.

    The prior stands there by the digest of its weights: where it lies decides nothing.
    """
    purifier = build(settings)
    return _facts(settings, purifier), purifier.isolates


def _facts(settings: Settings, purifier: Purifier) -> dict[str, Any]:
    facts = {"method": method_of(settings), **as_facts(settings)}
    if "prior" in facts:
        facts["prior"] = purifier.digest
    if isinstance(settings, ChainSettings):
        built: Any = purifier  # a ChainPurifier
        # Without the builtin zip: once the module of that name is loaded, `zip` in this file is that module.
        facts["steps"] = {
            str(number): _facts(step, built.steps[number - 1])  # by number, so that a difference names the step
            for number, step in enumerate(settings.steps, 1)
        }
    return facts


def profile_of(purifier: Purifier, device: str) -> dict[str, Any]:
    """What a purifier runs on: equal bytes are promised for an equal profile."""
    import torch

    from zipstage.purifiers.calls import PIXELS_IN_A_CALL

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
