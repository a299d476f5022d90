"""The same pipeline, whose time also goes on by ticks."""

from dataclasses import replace

import live

streams = [replace(one, idle_ns=30_000_000_000) for one in live.STREAMS]
pipeline = live.pipeline(streams=streams)
