"""Streams kept as Parquet files: written once, checked, read with what is live.

============  ================================================================
`entries`     entries as an Arrow table, byte for byte
`layout`      folders, file names, footers
`write`       from streams to files, once, whenever the process dies
`verify`      whether the files are what was written
`prune`       trimming streams of what is archived and read
`read`        files, and files joined with streams, as a source of frames
`restore`     streams made anew
============  ================================================================
"""
