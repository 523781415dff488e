"""What settings are called: ethtool's short names of features, and the words of `xdpctl driver set`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.errors import ConfigError, near

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

_CHECKSUMS = ("ipv4", "ip-generic", "ipv6", "fcoe-crc", "sctp")
_TCP = ("tcp", "tcp-ecn", "tcp-mangleid", "tcp6", "tcp-accecn")
_FEATURES: tuple[tuple[tuple[str, str], tuple[str, ...]], ...] = (
    (("rx", "rx-checksumming"), ("rx-checksum",)),
    (("tx", "tx-checksumming"), tuple(f"tx-checksum-{one}" for one in _CHECKSUMS)),
    (("sg", "scatter-gather"), ("tx-scatter-gather", "tx-scatter-gather-fraglist")),
    (("tso", "tcp-segmentation-offload"), tuple(f"tx-{one}-segmentation" for one in _TCP)),
    (("gso", "generic-segmentation-offload"), ("tx-generic-segmentation",)),
    (("gro", "generic-receive-offload"), ("rx-gro",)),
    (("lro", "large-receive-offload"), ("rx-lro",)),
    (("rxvlan", "rx-vlan-offload"), ("rx-vlan-hw-parse",)),
    (("txvlan", "tx-vlan-offload"), ("tx-vlan-hw-insert",)),
    (("ntuple", "ntuple-filters"), ("rx-ntuple-filter",)),
    (("rxhash", "receive-hashing"), ("rx-hashing",)),
)
"""ethtool -K's own names, each for one or more of the kernel's (netdev_features_strings)."""
SHORT = {name: kernel for names, kernel in _FEATURES for name in names}


def kernel_feature_names(name: str) -> tuple[str, ...]:
    """The kernel's features behind a name of ethtool's: ``tso`` is five; any other name is the kernel's own."""
    return SHORT.get(name, (name,))


RING_SIZES = ("rx", "tx", "rx-mini", "rx-jumbo")
RING_NAMES = (
    *RING_SIZES,
    *("rx-buf-len", "tcp-data-split", "hds-thresh", "cqe-size", "rx-push", "tx-push", "tx-push-buf-len"),
)
CHANNEL_NAMES = ("rx", "tx", "other", "combined")
PAUSE_NAMES = ("autoneg", "rx", "tx")
NAPI_NAMES = ("threaded", "defer-hard-irqs", "gro-flush-timeout", "irq-suspend-timeout")
THREADED = ("off", "on", "busy-poll")
"""By netlink.netdev.THREADED."""


def ring_word(name: str) -> str:
    """How `driver set` calls a ring setting: ``rx-ring`` for a size, else its own name."""
    return f"{name}-ring" if name in RING_SIZES else name


class Word(NamedTuple):
    """Where one word of `driver set` belongs in DeviceSettings."""

    part: str
    """Field of DeviceSettings."""
    name: str
    """Key in it, "" for a field of its own."""
    read: Callable[[str], Any]
    """Text -> value; ValueError with the reason."""


def switch(text: str) -> bool:
    """on/off, and what else people write."""
    if text.lower() in ("on", "true", "yes", "1"):
        return True
    if text.lower() in ("off", "false", "no", "0"):
        return False
    raise ValueError("on or off")


def number(text: str) -> int:
    """A count, at most 32 bits."""
    if not re.fullmatch(r"\d[\d_]{0,12}", text) or int(text) >= 1 << 32:
        raise ValueError("a whole number from 0 to 4294967295")
    return int(text)


_UNITS = {"": 1, "ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}


def nanoseconds(text: str) -> int:
    """``20000``, ``20us``."""
    found = re.fullmatch(r"(\d{1,12})(ns|us|ms|s|)", text)
    if not found:
        raise ValueError("a time: 20000 (ns), 20us, 2ms")
    return int(found[1]) * _UNITS[found[2]]


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(" or ".join((", ".join(words[:-1]), words[-1])))
        return text.lower()

    return read


def threaded(text: str) -> str:
    """on, off, busy-poll."""
    return text.lower() if text.lower() == THREADED[2] else THREADED[switch(text)]


def _read_ring(name: str) -> Callable[[str], Any]:
    if name == "tcp-data-split":
        return _one_of("on", "off", "auto")
    return switch if name.endswith("-push") else number


def words(features: Collection[str] = (), flags: Collection[str] = ()) -> dict[str, Word]:
    """Every word that `driver set` takes.

    Args:
        features: the kernel's feature names.
        flags: the device's private flags.
    """
    from xdpctl.netlink import coalesce

    made = {"up": Word("up", "", switch), "mtu": Word("mtu", "", number)}
    for name in RING_NAMES:
        made[ring_word(name)] = made[f"rings.{name}"] = Word("rings", name, _read_ring(name))
    made |= {f"channels.{name}": Word("channels", name, number) for name in CHANNEL_NAMES}
    made["combined"] = made["channels.combined"]
    for name in coalesce.NAMES:
        read = switch if name in coalesce.SWITCHES else number
        made[name] = made[f"coalesce.{name}"] = Word("coalesce", name, read)
    made |= {f"pause.{name}": Word("pause", name, switch) for name in PAUSE_NAMES}
    reads: dict[str, Callable[[str], Any]] = {"threaded": threaded, "defer-hard-irqs": number}
    made |= {f"napi.{name}": Word("napi", name, reads.get(name, nanoseconds)) for name in NAPI_NAMES}
    made |= {f"flag.{name}": Word("private_flags", name, switch) for name in flags}
    for name in (*SHORT, *filter(None, features)):
        word = Word("features", name, switch)
        made[f"features.{name}"] = word
        if name not in ("rx", "tx"):  # which of ring, channels and checksums would be meant?
            made.setdefault(name, word)
    return made


def parse(given: Sequence[str], known: dict[str, Word]) -> dict[str, Any]:
    """``NAME=VALUE`` words to the fields of DeviceSettings.

    Args:
        given: as typed.
        known: from `words`.

    Raises:
        ConfigError: every word that can't be read, one a line, with near names.
    """
    fields: dict[str, Any] = {}
    wrong: list[str] = []
    seen: dict[tuple[str, str], str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip()
        word = known.get(name)
        if not equals:
            wrong.append(f"{text}: give a value, as in {text}=...")
        elif word is None:
            wrong.append(f"{name}: no such setting{_suggestion(name, known)}")
        elif (word.part, word.name) in seen:
            wrong.append(f"{name}: given twice (as {seen[word.part, word.name]})")
        else:
            seen[word.part, word.name] = text
            try:
                read = word.read(value.strip())
            except ValueError as error:
                wrong.append(f"{name}={value}: not {error}")
                continue
            if word.name:
                fields.setdefault(word.part, {})[word.name] = read
            else:
                fields[word.part] = read
    if wrong:
        raise ConfigError("\n".join(wrong), hint="xdpctl driver set --help lists the settings")
    return fields


def _suggestion(name: str, known: Iterable[str]) -> str:
    if name in ("rx", "tx"):
        return f"; {name}-ring is its ring, channels.{name} its queues, {name}-checksumming its checksums"
    close = near(name, known) or near(name.rpartition(".")[2], known)
    return f"; did you mean {', '.join(close)}?" if close else ""
