"""The servers that are compared: each answers /events/ with a stream, and /publish?events=&hz=&bytes= by publishing.

Each is as its own documentation shows it, and publishes from within the server's process, so that the figures are those
of the fan-out.
"""
