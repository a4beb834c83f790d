"""How well a purifier does: on iterables of arrays, with no storage and no network."""
