"""Where a batch's facts about each event are: the rows of its table of integers."""

TIME, STREAM, ENTRY_MS, ENTRY_SEQ, TYPE, ID_HI, ID_LO, PLACE = range(8)
ROWS = 8
