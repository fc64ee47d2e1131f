"""StreamWriter: adds batches of events to the Redis stream, none of them twice.

When, and what to do if Redis does not answer, is outbox.py's part.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Final

import redis

from ...events import ENDS, LOST_EVENTS
from ...hub.recent_ends import REVOKED_KEYS_MAX, kept_milliseconds
from .buffer import Parcel
from .entries import FIELD, encode_entry, read_id
from .server import Client
from .stream import RedisStream

BATCH_EVENTS: Final = 100  # in one round trip
BATCH_BYTES: Final = 512 * 1024
# Of the stream of presence and worker reports: a worker asks again for what it missed there.
NOW_ENTRIES_MAX: Final = 500
NUMBER_KEPT_SECONDS: Final = 86_400  # after the publisher's last event

# Adds the entries above the publisher's last number, and returns their ids, "" for the others. KEYS: stream, number.
# ARGV: greatest length, greatest size in bytes (0: do not measure now), whether to make room first, the first entry's
# number, the entries. The number is kept for a day after the publisher's last event. Revocations in the entries are
# kept apart, if a reader has begun to keep them (BEGIN_KEEPING): KEYS[3] and KEYS[4]; ARGV[5]: for how many
# milliseconds; ARGV[6]: JSON, [index of the entry, conditions] for each; "" as conditions if events were dropped, since
# a revocation may be among them. Dropping a revocation moves "since". A full Redis allows XTRIM, and whatever a script
# writes after it: new events push out old ones.
ADD: Final = """
local most, size = tonumber(ARGV[1]), tonumber(ARGV[2])
if size > 0 then
  local used = redis.pcall('MEMORY', 'USAGE', KEYS[1])
  if type(used) == 'number' and used > size then
    redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', math.floor(redis.call('XLEN', KEYS[1]) * 0.9 * size / used))
  end
end
if ARGV[3] == '1' then
  redis.call('XTRIM', KEYS[1], 'MAXLEN', math.max(redis.call('XLEN', KEYS[1]) - 2 * (#ARGV - 6), 100))
end
local last, number, ids = tonumber(redis.call('GET', KEYS[2]) or 0), tonumber(ARGV[4]), {}
for i = 7, #ARGV do
  if number > last then
    ids[i - 6] = redis.call('XADD', KEYS[1], 'MAXLEN', '~', most, '*', 'event', ARGV[i])
  else
    ids[i - 6] = ''
  end
  number = number + 1
end
if number - 1 > last then redis.call('SET', KEYS[2], number - 1, 'EX', {kept}) end
local since = ARGV[6] ~= '[]' and redis.pcall('HGET', KEYS[3], 'since')
if type(since) == 'string' then
  local epoch, latest = string.match(since, '^(.-):'), 0
  for _, kept in ipairs(cjson.decode(ARGV[6])) do
    local id = ids[kept[1]]
    if id ~= '' then
      latest = tonumber(string.match(id, '^%d+'))
      if kept[2] == '' then
        redis.pcall('HSET', KEYS[3], 'since', epoch .. ':' .. id)
      else
        redis.pcall('HSET', KEYS[3], kept[2], id)
        redis.pcall('ZADD', KEYS[4], latest, kept[2])
      end
    end
  end
  local old = redis.pcall('ZRANGEBYSCORE', KEYS[4], '-inf', latest - tonumber(ARGV[5]), 'WITHSCORES', 'LIMIT', 0, 100)
  local count = redis.pcall('ZCARD', KEYS[4])
  if #old == 0 and type(count) == 'number' and count > {most} then
    old = redis.pcall('ZRANGE', KEYS[4], 0, 99, 'WITHSCORES')
  end
  for i = 1, #old, 2 do
    redis.pcall('HDEL', KEYS[3], old[i])
    redis.pcall('ZREM', KEYS[4], old[i])
  end
  if #old > 0 then
    local moved = string.format('%.0f-18446744073709551615', tonumber(old[#old]))
    local at = tonumber(string.match(redis.call('HGET', KEYS[3], 'since'), ':(%d+)'))
    if at <= tonumber(old[#old]) then redis.pcall('HSET', KEYS[3], 'since', epoch .. ':' .. moved) end
  end
end
return ids
""".replace("{most}", str(REVOKED_KEYS_MAX)).replace("{kept}", str(NUMBER_KEPT_SECONDS))


class StreamWriter:
    """One publisher. Events get their numbers when they are first sent. Redis has the number of the last one beside the
    stream, and changes both together. One thread at a time."""

    def __init__(self, stream: RedisStream) -> None:
        self._stream = stream
        self._publisher = secrets.token_hex(6)
        self._number_key = f"{stream.root}:{self._publisher}"
        self._number = 0
        # sent since the stream was last measured; the limit, so that it is measured first
        self._unmeasured_bytes = stream.max_bytes

    def next_batch(self, parcels: Sequence[Parcel]) -> list[Parcel]:
        """The first of these, as many as one round trip takes, numbered."""
        batch: list[Parcel] = []
        size = 0
        for parcel in parcels[:BATCH_EVENTS]:
            size += parcel.event.size
            if batch and size > BATCH_BYTES:
                break
            if not parcel.number:
                self._number += 1
                parcel.number = self._number
            batch.append(parcel)
        return batch

    def last_number(self, client: Client) -> int:
        """The number of this publisher's last event in Redis."""
        return int(client.get(self._number_key) or 0)

    def keep_number(self, client: Client) -> None:
        """Write the number of this publisher's last event again. Raises one of UNAVAILABLE if Redis takes no writes."""
        client.set(self._number_key, self.last_number(client), ex=NUMBER_KEPT_SECONDS)

    def add(self, client: Client, batch: Sequence[Parcel]) -> list[int]:
        """Add all of these numbered events, or none. Those that were not there get their ids. Returns their sizes."""
        stream = self._stream
        entries = [encode_entry(parcel.event, self._publisher, parcel.number) for parcel in batch]
        sizes = [len(entry) for entry in entries]
        self._unmeasured_bytes += sum(sizes)
        size = 0
        if stream.max_bytes and self._unmeasured_bytes >= stream.max_bytes // 64:
            size, self._unmeasured_bytes = stream.max_bytes, 0
        keys = "EVAL", ADD, 4, stream.name, self._number_key, stream.revoked_key, stream.revoked_times_key
        rest = batch[0].number, kept_milliseconds(), _revocations(batch), *entries
        try:
            ids = client.execute_command(*keys, stream.max_length, size, 0, *rest)
        except redis.ResponseError as error:
            if not _is_full(error):
                raise
            ids = client.execute_command(*keys, stream.max_length, size, 1, *rest)
        for parcel, entry_id in zip(batch, ids, strict=True):
            if entry_id:
                parcel.event.stamp(stream.epoch, read_id(entry_id))
        return sizes

    def add_now(self, client: Client, parcels: Sequence[Parcel]) -> None:
        """Add to the stream of presence and worker reports."""
        for parcel in parcels:
            entry = encode_entry(parcel.event, self._publisher, 0)
            try:
                client.execute_command("XADD", self._stream.now_name, "MAXLEN", "~", NOW_ENTRIES_MAX, "*", FIELD, entry)
            except redis.ResponseError as error:
                if not _is_full(error):
                    raise


def _revocations(batch: Sequence[Parcel]) -> str:
    """The revocations of a batch, as ADD takes them."""
    kept = [
        (place, json.dumps(event.data, sort_keys=True) if event.type in ENDS else "")
        for place, event in enumerate((parcel.event for parcel in batch), 1)
        if event.type in ENDS or event.type == LOST_EVENTS
    ]
    return json.dumps(kept)


def _is_full(error: redis.ResponseError) -> bool:
    return "maxmemory" in str(error) or type(error).__name__ == "OutOfMemoryError"
