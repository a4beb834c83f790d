"""The purifiers. `settings` says what there is; `build` makes one."""

from __future__ import annotations
