"""The controls, on the door of all purifiers: one that can't beat them has no place.

Those in this folder call no network and change each cell alone. They hold their own settings, since
they load without torch.
"""
