"""The local platform: processes under supervisord, Envoy as gateway, desired state in files."""

from watchkeeper.platforms.local.platform import LocalPlatform

__all__ = ["LocalPlatform"]
