"""What the shell offers behind <tab>: interfaces, network namespaces, programs. Nothing here may fail or be slow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def _matching(names: Iterable[str | None], incomplete: str) -> list[str]:
    return sorted({one for one in names if one and one.startswith(incomplete)})


def interface(ctx: Any, incomplete: str) -> list[str]:
    """Interfaces of the namespace that ``--netns`` names, or of the current one."""
    try:
        from xdpctl.netlink import interfaces, netns

        with netns.enter(ctx.params.get("netns")):
            return _matching(interfaces.names().values(), incomplete)
    except Exception:  # noqa: BLE001 - a completion that fails offers nothing
        return []


def namespace(incomplete: str) -> list[str]:
    """Named network namespaces."""
    try:
        from xdpctl.netlink import netns

        return _matching((one.name for one in netns.list_named()), incomplete)
    except Exception:  # noqa: BLE001 - see above
        return []


def use(incomplete: str) -> list[str]:
    """What `driver tune` makes a device fit for."""
    return _matching(("xdp-native", "xdp-redirect", "af-xdp"), incomplete)


def program_of_object(ctx: Any, incomplete: str) -> list[str]:
    """Programs of the object on the command line so far."""
    try:
        from pathlib import Path

        from xdpctl.obj import reader

        words = list(ctx.params.get("words") or ctx.params.get("obj") or [])
        path = next(Path(one) for one in reversed(words) if Path(one).is_file())
        return _matching((one.name for one in reader.read(path).programs), incomplete)
    except Exception:  # noqa: BLE001 - see above
        return []


def attached_program(incomplete: str) -> list[str]:
    """Programs that xdpctl has loaded."""
    try:
        from xdpctl.attach import runstate

        return _matching((one.name for one in runstate.read().values()), incomplete)
    except Exception:  # noqa: BLE001 - see above
        return []


def map_name(incomplete: str) -> list[str]:
    """Maps by name, and pins of maps."""
    try:
        from xdpctl.attach import find_map

        return _matching(find_map.known_names(), incomplete)
    except Exception:  # noqa: BLE001 - see above
        return []


def program_type(incomplete: str) -> list[str]:
    """What ``--type`` takes."""
    try:
        from xdpctl.obj import sections

        return _matching(sections.type_names(), incomplete)
    except Exception:  # noqa: BLE001 - see above
        return []


def one_of(*choices: str) -> Any:
    """A completion over fixed words."""

    def complete(incomplete: str) -> list[str]:
        return _matching(choices, incomplete)

    return complete
