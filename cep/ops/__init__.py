"""Operations: is what runs well set up, and does it survive being killed.

==============  =============================================================
`doctor`        checks of a server and the pipelines on it, with remedies
`crash_test`    a pipeline is killed again and again and must not show it
`preloaded`     imported by the process from which those are forked
==============  =============================================================
"""
