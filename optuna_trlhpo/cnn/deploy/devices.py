"""Microcontrollers and what of their memory a network may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from optuna_trlhpo._checks import check_positive_integer, is_number


@dataclass(frozen=True)
class Device:
    """The memory of a device, as its data sheet states it.

    Attributes:
        name: Part number and core.
        flash_bytes: Size of the program memory, which holds the network.
        ram_bytes: Size of the working memory, which holds the activations.

    Raises:
        ValueError: If a size is not a positive integer.

    Examples:
        >>> STM32L432KC.limits()
        {'max_model_bytes': 131072, 'max_activation_bytes': 32768, 'quantize': 'int8'}
    """

    name: str
    flash_bytes: int
    ram_bytes: int

    def __post_init__(self) -> None:
        check_positive_integer("flash_bytes", self.flash_bytes)
        check_positive_integer("ram_bytes", self.ram_bytes)

    def limits(self, share: float = 0.5) -> dict[str, Any]:
        """Return the limits of a search for int8 networks: ``CNNObjective("mnist", **STM32L432KC.limits())``.

        Args:
            share: Share of both memories for the network, in (0, 1]. The rest is for the program around it.

        Raises:
            ValueError: If the share is out of range.
        """
        if not (is_number(share) and 0 < share <= 1):
            raise ValueError(f"share is {share!r}; it must be above 0 and at most 1")
        return {
            "max_model_bytes": max(int(share * self.flash_bytes), 1),
            "max_activation_bytes": max(int(share * self.ram_bytes), 1),
            "quantize": "int8",
        }


STM32F103C8 = Device("STM32F103C8, Cortex-M3 at 72 MHz", 64 * 1024, 20 * 1024)
"""Source: STMicroelectronics, data sheet DS5319."""
STM32L432KC = Device("STM32L432KC, Cortex-M4 at 80 MHz", 256 * 1024, 64 * 1024)
"""Source: STMicroelectronics, data sheet DS11451."""
NRF52840 = Device("nRF52840, Cortex-M4 at 64 MHz", 1024 * 1024, 256 * 1024)
"""Source: Nordic Semiconductor, nRF52840 product specification."""
