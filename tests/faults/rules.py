"""The pipeline module that the faults are done to: `live.RULES` on two streams."""

import live

pipeline = live.pipeline()
