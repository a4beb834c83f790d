"""What a purifier's exception says of its device: too little memory, or sick for the rest of this process.

Judged by type names and texts, so that nobody here loads torch; the texts are those of torch 2.13.
"""

from __future__ import annotations

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "status_alloc_failed")


class SickDeviceError(Exception):
    """No call on this device will work again in this process. It must end; a fresh one tries the part again."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short: the GPU's, or the machine's."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or _is_of_gpu(error) or any(known in text for known in _NO_MEMORY)


def is_out_of_main_memory(error: BaseException) -> bool:
    """Whether the machine's memory was short: what was asked for once will be asked for again."""
    return is_out_of_memory(error) and not _is_of_gpu(error) and "cuda" not in str(error).lower()


def is_sick(error: BaseException) -> bool:
    """Whether the GPU's context is spoilt: after an illegal access, say, each further call fails as well."""
    reported = type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)
    return reported and not is_out_of_memory(error)


def _is_of_gpu(error: BaseException) -> bool:
    return type(error).__name__ == "OutOfMemoryError"
