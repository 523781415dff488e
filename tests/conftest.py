"""What holds for all tests: property tests are judged by what they find, never by how long one example takes."""

import os

from hypothesis import settings

# a machine that is busy, or emulated, is no failure; in CI the same examples each time, at a developer's new ones
settings.register_profile("xdpctl", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("xdpctl")
