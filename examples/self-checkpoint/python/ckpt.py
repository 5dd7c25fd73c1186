"""Checkpoints that a Python program makes of itself: libckpt by ctypes.

    import ckpt
    if ckpt.checkpoint("job.ckpt").restored:
        print("restored")

LIBCKPT names the library, if it is not where the system looks.
"""

import ctypes
import os
from collections import namedtuple

_lib = ctypes.CDLL(os.environ.get("LIBCKPT", "libckpt.so.0"))
_lib.ckpt_checkpoint.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(ctypes.c_uint64)]
_lib.ckpt_revert.argtypes = _lib.ckpt_forget.argtypes = [ctypes.c_uint64]
_lib.ckpt_error.restype = ctypes.c_char_p

Outcome = namedtuple("Outcome", "restored id")


class Error(Exception):
    """Why a checkpoint was not made, or not returned to."""


def checkpoint(path=None, *options):
    """Saves this program as the file `path`, or in memory. Returns once more in every run of it."""
    number = ctypes.c_uint64()
    words = (ctypes.c_char_p * (len(options) + 1))(*(option.encode() for option in options), None)
    result = _lib.ckpt_checkpoint(None if path is None else os.fsencode(path), words, ctypes.byref(number))
    if result < 0:
        raise Error(_lib.ckpt_error().decode())
    return Outcome(result == 1, number.value)


def revert(number):
    """Makes this process what it was at a checkpoint. Does not return."""
    _lib.ckpt_revert(number)
    raise Error(_lib.ckpt_error().decode())


def forget(number):
    """Frees a checkpoint in memory."""
    if _lib.ckpt_forget(number) < 0:
        raise Error(_lib.ckpt_error().decode())
