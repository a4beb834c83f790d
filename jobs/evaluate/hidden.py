"""What `restore` hides: how much of each trigger that stands in one place, and of clean images.

Its looks are worth what they find on triggered images, and cost what they hide on clean ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jobs.evaluate.config import DefenceConfig, SetConfig
from jobs.evaluate.victims import CLEAN, triggered, untriggered
from zipstage.purifiers import build
from zipstage.purifiers.restore import RestorePurifier
from zipstage.purifiers.settings import settings_for
from zipstage.tiles import pack, unpack

LOCAL = 0.1
"""A trigger stands in one place when it changes at most this share of an image."""
LOOKED_AT = 300
"""Images of each kind, the first ones."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """What a defence hides of one kind of images.

    Args:
        set, defence, kind: Which; the kind is an attack, or `clean`.
        images: How many were looked at.
        touched: Share of them in which anything is hidden.
        share: Of their pixels, how many are hidden.
        found: Share of images in which at least half of the trigger's pixels are hidden; None for clean ones.
    """

    set: str
    defence: str
    kind: str
    images: int
    touched: float
    share: float
    found: float | None


def hidden_by(one: SetConfig, defence: DefenceConfig, images: np.ndarray, device: str = "cpu") -> Iterator[Hidden]:
    """What a defence hides of clean images, and of those with each trigger that stands in one place.

    Args:
        one: The set, for its attacks.
        defence: None but `restore` hides anything.
        images: Clean ones, uint8 [n, s, s, 3].
        device: Where to look.
    """
    purifier = build(settings_for(defence.method, defence.preset, defence.settings), device=device)
    if not isinstance(purifier, RestorePurifier):
        return
    images = images[:LOOKED_AT]
    clean = _hidden(purifier, images)
    yield Hidden(one.name, defence.name, CLEAN, len(images), float(clean.any((1, 2)).mean()), float(clean.mean()), None)
    for attack in one.attacks:
        with_trigger = triggered(attack, images)
        changed = (with_trigger != untriggered(attack, images)).any(3)
        seen = changed.any((1, 2))  # a photographed patch may lie outside the picture
        if not seen.any() or changed.mean() > LOCAL:
            continue
        hidden = _hidden(purifier, with_trigger)
        found = (hidden & changed).sum((1, 2))[seen] >= changed.sum((1, 2))[seen] / 2
        touched, share = float(hidden.any((1, 2)).mean()), float(hidden.mean())
        yield Hidden(one.name, defence.name, attack.name, len(images), touched, share, float(found.mean()))


def hidden_table(found: Sequence[Hidden]) -> Iterator[str]:
    """The table, line by line; in percent."""
    kinds = list(dict.fromkeys(one.kind for one in found if one.kind != CLEAN))
    yield f"| set | defence | images | clean ones touched | their pixels hidden | {' | '.join(kinds)} |"
    yield f"|---|---|--:|--:|--:|{'--:|' * len(kinds)}"
    for clean in (one for one in found if one.kind == CLEAN):
        of = {one.kind: one for one in found if (one.set, one.defence) == (clean.set, clean.defence)}
        cells = [_percent(of[kind].found) if kind in of else "-" for kind in kinds]
        touched, share = f"{100 * clean.touched:.0f}", f"{100 * clean.share:.1f}"
        yield f"| {' | '.join([clean.set, clean.defence, str(clean.images), touched, share, *cells])} |"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}"


def _hidden(purifier: RestorePurifier, images: np.ndarray) -> np.ndarray:
    """The pixels that are hidden, bool [n, s, s]; the noise of the look is the same in each run."""
    keys = np.stack([np.arange(len(images)), np.zeros(len(images))], 1).astype(np.uint64)
    packed = pack(list(images), keys)
    drawn = [np.repeat(purifier.hidden(group)[..., None], 3, 3) for group in packed.groups]
    groups = [group.with_cells(255 * cells.astype(np.uint8)) for group, cells in zip(packed.groups, drawn, strict=True)]
    return np.stack(unpack(groups, packed.placements)[0])[..., 0] > 127
