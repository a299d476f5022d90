"""Whether one stream has to do with another, and honest numbers about it.

====================  ========================================================
`series`              a value over time, from a frame; one value per instant
`lead_lag`            Hayashi-Yoshida correlation of two series of ticks, by lag
`inference`           blocks of time, intervals, q-values
====================  ========================================================

Nothing here reads Redis; frames come from `cep.load` or from anywhere else.
"""

from __future__ import annotations

from cep.analysis.inference import q_values
from cep.analysis.lead_lag import LeadLag, lead_lag
from cep.analysis.series import Series, series

__all__ = ["LeadLag", "lead_lag", "Series", "series", "q_values"]
