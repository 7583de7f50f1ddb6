"""The machine that a process runs on: its files, locks and memory.

files   whole writes, seals, the user's paths
inside  a folder below which nothing follows a link
locks   one writer at a time, also where a disk has no locks
memory  how much there is, and how many cores
"""
