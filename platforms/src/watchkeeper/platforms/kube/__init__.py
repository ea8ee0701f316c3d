"""The cluster platform: KServe serves, the Gateway API routes, Jobs train."""

from watchkeeper.platforms.kube.platform import KubePlatform

__all__ = ["KubePlatform"]
