"""The model card that lies beside a restorer file: what it was made of, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from zipstage.priors.recipe import Recipe


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card states.

    Args:
        digest: Of the restorer file.
        size_bytes: Of the restorer file.
        recipe: What shaped the training.
        images_seen: Counted with repeats; less than the recipe's where a training was cut short.
        seconds: Of training, the recognition network's apart: by step.
        data: What each set of images is and where it comes from.
        terms: What the images' terms allow.
        notes: How the run went, where the recipe doesn't say it.
        losses_float32: Mean absolute error by sigma of the white noise, as trained.
        losses_float16: The same of the restorer file.
        held_out: Images that these losses were measured on.
    """

    digest: str
    size_bytes: int
    recipe: Recipe
    images_seen: int
    seconds: Mapping[str, float]
    data: Mapping[str, str]
    terms: str
    notes: str
    losses_float32: Mapping[str, float]
    losses_float16: Mapping[str, float]
    held_out: int


def write_card(facts: CardFacts, path: Path) -> None:
    """Write the card as Markdown."""
    path.write_text("\n\n".join([_HEAD, *_sections(facts)]) + "\n", encoding="utf-8")


_HEAD = """# Restorer

A residual U-Net of convolutions that gives back an image that was damaged on purpose, lightly: white and
low-frequency noise, hidden rectangles, small pasted patches. It serves the purifier `restore` and, told of white noise
alone, as a diffusion prior."""

_NOT_FOR = """## What it must not be used for

- No proof of safety: triggers that look like the image itself (another photograph blended in) survive it.
- Not for images that people look at or measure in: what it adds is plausible, not true. Never in medicine, in
  forensics, or to tell who somebody is.
- An attacker who holds these weights can optimise a trigger against them.
- It has seen no drawings, documents, scans or satellite images."""


def _sections(facts: CardFacts) -> list[str]:
    sets = "\n".join(f"- `{name}`: {what}" for name, what in facts.data.items())
    return [
        _NOT_FOR,
        f"## Images\n\n{sets}\n\n{facts.terms}",
        _table("## Weights", _weights(facts)),
        _table("## Recipe", {name: str(value) for name, value in asdict(facts.recipe).items()}),
        *([facts.notes] if facts.notes else []),
        _losses(facts),
    ]


def _weights(facts: CardFacts) -> dict[str, str]:
    seconds = {f"seconds of training, {step}": f"{seconds:.0f}" for step, seconds in facts.seconds.items()}
    return {
        "digest": f"`{facts.digest}`",
        "file": f"{facts.size_bytes / 1e6:.1f} MB, fp16",
        "images seen": f"{facts.images_seen:,}",
        **seconds,
    }


def _losses(facts: CardFacts) -> str:
    rows = "\n".join(
        f"| {sigma} | {loss:.5f} | {facts.losses_float16[sigma]:.5f} |" for sigma, loss in facts.losses_float32.items()
    )
    return (
        f"## Losses\n\nMean absolute error on {facts.held_out} images that the training never saw, at 32x32, contrast "
        f"set to a standard deviation of .5, white noise alone.\n\n| sigma | as trained, float32 | as shipped, fp16 |\n"
        f"|---|---|---|\n{rows}"
    )


def _table(title: str, rows: Mapping[str, str]) -> str:
    return f"{title}\n\n| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows.items())
