"""The bus through Redis Streams: see backend.py."""
