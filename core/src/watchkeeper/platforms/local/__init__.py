"""The local platform: supervisord keeps processes alive, Envoy is in front, files say what for."""

from watchkeeper.platforms.local.platform import LocalPlatform

__all__ = ["LocalPlatform"]
