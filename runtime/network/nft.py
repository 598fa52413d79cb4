"""Runs nftables commands in this process, by libnftables: a tenth of what starting `nft` costs.

A context belongs to the network namespace of the thread that made it.  One call to `run` is one transaction: all of
its commands take effect, or none.
"""

import ctypes
from typing import Self

from swarmd.runtime.errors import RuntimeFault, Unsupported


def _load() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise Unsupported("libnftables.so.1 is not installed: install the package libnftables1") from error
    lib.nft_ctx_new.restype = ctypes.c_void_p
    lib.nft_ctx_new.argtypes = [ctypes.c_uint32]
    lib.nft_ctx_free.argtypes = [ctypes.c_void_p]
    lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("output", "error"):
        getattr(lib, f"nft_ctx_buffer_{name}").argtypes = [ctypes.c_void_p]
        getattr(lib, f"nft_ctx_get_{name}_buffer").argtypes = [ctypes.c_void_p]
        getattr(lib, f"nft_ctx_get_{name}_buffer").restype = ctypes.c_char_p
    return lib


class Nft:
    def __init__(self) -> None:
        self._lib = _load()
        self._context = self._lib.nft_ctx_new(0)
        self._lib.nft_ctx_buffer_output(self._context)
        self._lib.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> str:
        """Return what nft would print; raise RuntimeFault with its first complaint."""
        failed = self._lib.nft_run_cmd_from_buffer(self._context, commands.encode())
        output = self._lib.nft_ctx_get_output_buffer(self._context) or b""
        error = self._lib.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise RuntimeFault(f"nftables refused a change: {error.decode().strip().splitlines()[:1]}")
        return bytes(output).decode()

    def close(self) -> None:
        self._lib.nft_ctx_free(self._context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
