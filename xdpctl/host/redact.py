"""Pseudonyms for hardware and IP addresses in a dumped snapshot, the same address always by the same pseudonym."""

from __future__ import annotations

import re
from typing import Any

_HARDWARE = re.compile(r"(?<![0-9A-Za-z:])[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5,19}(?![0-9A-Za-z:])")
_IN_NAME = re.compile(r"(?<![0-9A-Za-z])((?:en|wl|ww|ib|sl)x)([0-9a-f]{12})(?![0-9A-Za-z])")
"""systemd's names of interfaces by hardware address: enx020000000001."""
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}(?:[0-9.]*)(?![\w:])")
_KEPT = frozenset({"release", "machine", "taken_at", "schema", "config"})
"""Fields that hold no address, though a version may look like one."""


def redacted(document: dict[str, Any]) -> dict[str, Any]:
    """A copy without addresses.

    Hardware addresses become 02:00:00:..., IPv4 198.18.x.y, IPv6 2001:db8::x, numbered as they appear;
    all-zero, broadcast and loopback ones stay, since they tell of nobody.
    """
    names = _Pseudonyms()
    return {key: value if key in _KEPT else names.walk(value) for key, value in document.items()}


class _Pseudonyms:
    def __init__(self) -> None:
        self._hardware: dict[str, int] = {}
        self._addresses: dict[str, int] = {}

    def walk(self, value: Any) -> Any:
        """A value with every text in it rewritten; keys of objects are names of ours, but for statistics'."""
        if isinstance(value, str):
            return self.rewrite(value) if len(value) > 3 else value
        if isinstance(value, list):
            return [self.walk(one) for one in value]
        if isinstance(value, dict):
            return {key: one if key in _KEPT else self.walk(one) for key, one in value.items()}
        return value

    def rewrite(self, text: str) -> str:
        """One text without addresses."""
        text = _HARDWARE.sub(lambda found: self._mac(found[0]), text)
        text = _IN_NAME.sub(lambda found: found[1] + self._mac(found[2], colons=False), text)
        if "." in text:
            text = _IPV4.sub(lambda found: self._ip(found[0]), text)
        return _IPV6.sub(lambda found: self._ip(found[0]), text) if text.count(":") >= 2 else text

    def _mac(self, address: str, *, colons: bool = True) -> str:
        digits = address.replace(":", "").lower()
        if set(digits) in ({"0"}, {"f"}):
            return address
        number = self._hardware.setdefault(digits, len(self._hardware) + 1)
        made = "02" + f"{number:0{len(digits) - 2}x}"
        return ":".join(made[at : at + 2] for at in range(0, len(made), 2)) if colons else made

    def _ip(self, address: str) -> str:
        import ipaddress

        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return address
        if parsed.is_loopback or parsed.is_unspecified:
            return address
        number = self._addresses.setdefault(str(parsed), len(self._addresses) + 1)
        if parsed.version == 4:
            return str(ipaddress.IPv4Address("198.18.0.0") + number % (1 << 17))
        return str(ipaddress.IPv6Address("2001:db8::") + number)
