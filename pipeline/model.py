"""What all settings have in common: they are frozen, and nothing unknown passes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Base of all settings: frozen, and nothing unknown passes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
