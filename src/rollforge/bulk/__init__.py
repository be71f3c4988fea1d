"""Rollouts by the million: rows decoded as far as they are asked, files worked on in blocks, order by sorting on disk.

`record` is one row, `blocks` cuts files and spreads work over processes, `spill` sorts and keeps
what memory should not hold. Nothing here holds more than a block of rows. Statistics, curation and export read through it.
"""
