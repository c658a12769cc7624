"""Which NVIDIA GPUs this machine has, asked of the driver itself; needs no CUDA packages."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from typing import Any

from m2f.errors import DeviceError, UsageError

DRIVER = "libcuda.so.1"

_NAME_BYTES = 256
# From CUDA's driver API, enum CUdevice_attribute.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU.

    Attributes:
        index: Its number for CUDA.
        name: As the driver calls it.
        compute: Compute capability times ten, e.g. 89.
        memory: Bytes.
        driver: Newest CUDA its driver serves, e.g. "13.0".
    """

    index: int
    name: str
    compute: int
    memory: int
    driver: str

    def __str__(self) -> str:
        return f"{self.name} (SM{self.compute}, {self.memory / 2**30:.0f} GiB)"


def gpus() -> tuple[Gpu, ...]:
    """Every GPU, in CUDA's order.

    Raises:
        DeviceError: There is no driver, or it does not answer.
    """
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError as problem:
        raise DeviceError(
            f"no NVIDIA driver is installed ({problem}); install one, or stay on the CPU"
        ) from None
    _ask(driver, "cuInit", 0)
    version = _number(driver, "cuDriverGetVersion")
    count = _number(driver, "cuDeviceGetCount")
    return tuple(
        _gpu(driver, i, f"{version // 1000}.{version % 1000 // 10}") for i in range(count)
    )


def gpu(index: int = 0) -> Gpu:
    """One GPU by its number.

    Raises:
        DeviceError: There is no driver, or no such GPU.
    """
    found = gpus()
    if not found:
        raise DeviceError("the NVIDIA driver finds no GPU; see `nvidia-smi`")
    if not 0 <= index < len(found):
        raise DeviceError(
            f"there is no GPU {index}, only {', '.join(f'{g.index}: {g}' for g in found)}"
        )
    return found[index]


def parse_device(text: str) -> int | None:
    """Reads "cpu" as None, "cuda" as GPU 0 and "cuda:1" as GPU 1.

    Raises:
        UsageError: It is none of these.
    """
    match = re.fullmatch(r"cpu|cuda(?::([0-9]{1,3}))?", text)
    if match is None:
        raise UsageError(f"unknown device {text!r}; there are 'cpu', 'cuda' and e.g. 'cuda:1'")
    return None if text == "cpu" else int(match[1] or 0)


def _gpu(driver: Any, index: int, version: str) -> Gpu:
    device = _number(driver, "cuDeviceGet", index)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _ask(driver, "cuDeviceGetName", name, _NAME_BYTES, device)
    size = ctypes.c_size_t(0)
    _ask(driver, "cuDeviceTotalMem_v2", ctypes.byref(size), device)
    major, minor = (
        _number(driver, "cuDeviceGetAttribute", attribute, device)
        for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR)
    )
    return Gpu(
        index=index,
        name=name.value.decode(errors="replace"),
        compute=10 * major + minor,
        memory=size.value,
        driver=version,
    )


def _number(driver: Any, function: str, *args: Any) -> int:
    value = ctypes.c_int(0)
    _ask(driver, function, ctypes.byref(value), *args)
    return value.value


def _ask(driver: Any, function: str, *args: Any) -> None:
    """Calls the driver; every function of it returns 0 for success."""
    status = getattr(driver, function)(*args)
    if status != 0:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(text))
        reason = (text.value or b"unknown error").decode(errors="replace")
        raise DeviceError(
            f"the NVIDIA driver failed at {function}: {reason} ({status}); see `nvidia-smi`"
        )
