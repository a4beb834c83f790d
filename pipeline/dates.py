"""`{date}` in the places of a job that runs night after night: filled once, before anything else is looked at.

For schedulers, whose config stays the same while input and output move on. A trap: "today" is that of
UTC at the moment of the start, so who repeats a night later has to name its date.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pipeline.errors import ConfigError

PLACES = ("input", "output", "marker", "latest")

_DATE = re.compile(r"\{date(?::([^{}]+))?\}")
_ANY = re.compile(r"\{[^{}]*\}")
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}")
_DAYS_AGO = {"today": 0, "yesterday": 1}


def fill_date(values: dict[str, Any], now: datetime | None = None) -> dict[str, Any]:
    """A job's values with each `{date}` filled; `{date:%Y/%m/%d}` takes any format of strftime.

    Args:
        values: Fields of the job, as the file, the environment and the flags say together.
        now: What "today" is taken from; none: the clock.

    Raises:
        ConfigError: The date can't be understood, nothing asks for it, or a place has another placeholder.
    """
    places = {name: values[name] for name in PLACES if values.get(name) is not None}
    if not any(_DATE.search(text) for place in places.values() for text in _texts(place)):
        if values.get("date"):
            raise ConfigError(
                f"date {values['date']}: expected {{date}} in input or output, found it nowhere. Write it as in "
                "--input 's3://incoming/{date}/', or leave the date out."
            )
        _refuse_other_placeholders(places)
        return values
    night = _night(values.get("date"), now or datetime.now(UTC))
    filled = {name: _each(place, lambda text: _filled(text, night)) for name, place in places.items()}
    _refuse_other_placeholders(filled)
    output = places.get("output")
    if "latest" not in filled and isinstance(output, str):
        filled["latest"] = _beside_dated(output)
    return {**values, **filled, "date": night.isoformat()}


def _night(asked: Any, now: datetime) -> date:  # noqa: ANN401 - what a YAML file holds
    text = str(asked or "today").strip()
    if text in _DAYS_AGO:
        return now.astimezone(UTC).date() - timedelta(days=_DAYS_AGO[text])
    try:
        if _ISO.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass  # such as the 31st of June
    raise ConfigError(f"date: expected YYYY-MM-DD, today or yesterday, found {text!r}.")


def _filled(text: str, night: date) -> str:
    return _DATE.sub(lambda found: night.strftime(found[1]) if found[1] else night.isoformat(), text)


def _refuse_other_placeholders(places: dict[str, Any]) -> None:
    """Else a folder would be made that is named `{day}`. An input's braces are patterns."""
    for name in ("output", "marker", "latest"):
        for text in _texts(places.get(name)):
            if found := _ANY.search(text):
                raise ConfigError(f"{name} {text}: there is no placeholder {found[0]}. The only one is {{date}}.")


def _beside_dated(output: str) -> str | None:
    """`latest.json` above the first segment with the date in it; None where that is the bucket's own name."""
    found = _DATE.search(output)
    if found is None:
        return None
    folder = output[: output.rfind("/", 0, found.start()) + 1]
    return None if folder.endswith("//") else f"{folder}latest.json"


def _texts(place: Any) -> list[str]:  # noqa: ANN401 - what a YAML file holds
    several = place if isinstance(place, list | tuple) else [place]
    return [text for text in several if isinstance(text, str)]


def _each(place: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - what a YAML file holds
    if isinstance(place, list | tuple):
        return [_each(one, change) for one in place]
    return change(place) if isinstance(place, str) else place
