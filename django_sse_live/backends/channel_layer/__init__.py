"""The bus through any layer of Django Channels."""

from .backend import ChannelLayerBackend

__all__ = ["ChannelLayerBackend"]
