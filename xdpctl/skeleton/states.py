"""Where a skeleton is in its life: opened, loaded, closed; and the errors for a call at the wrong time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.errors import ConfigError

if TYPE_CHECKING:
    from typing import Literal

    State = Literal["opened", "loaded", "failed", "closed"]

_INSTEAD = {
    "opened": "is not loaded yet",
    "loaded": "is loaded already",
    "failed": "failed to load",
    "closed": "is closed",
}
_HINTS = {
    ("opened", "loaded"): "call load() first",
    ("loaded", "opened"): "do it between open() and load(); open it again for other values",
    ("failed", "opened"): "open it again",
    ("failed", "loaded"): "open it again",
    ("closed", "opened"): "open it again",
    ("closed", "loaded"): "keep the `with` block open as long as the skeleton is used",
}


class Life:
    """The state of one skeleton.

    Attributes:
        what: the skeleton's name, for errors.
        state: opened, loaded, failed (its load did) or closed.
    """

    __slots__ = ("state", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self.state: State = "opened"

    def require(self, state: State, action: str) -> None:
        """Go on only in this state.

        Args:
            state: opened or loaded.
            action: what was tried, as a noun: ``attach of xdp_pass``.

        Raises:
            ConfigError: it is in another one.
        """
        if self.state != state:
            raise ConfigError(
                f"{action}: {self.what} {_INSTEAD[self.state]}", hint=_HINTS.get((self.state, state))
            )

    def require_open(self, action: str) -> None:
        """Go on unless it is closed.

        Raises:
            ConfigError: it is.
        """
        if self.state == "closed":
            self.require("loaded", action)
