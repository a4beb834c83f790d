"""zipstage: purify the images that an untrusted classifier is asked about.

This package is the method alone: arrays in, arrays out. It loads neither Ray nor any storage client.
"""

from zipstage.errors import PriorError, SettingsError, ZipstageError

__version__ = "0.1.0"

__all__ = ["PriorError", "SettingsError", "ZipstageError", "__version__"]
