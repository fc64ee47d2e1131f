"""The public path of the Redis backend, as settings name it. Its code is in the folder redis/."""

from .redis.backend import RedisStreamsBackend

__all__ = ["RedisStreamsBackend"]
