"""Events as they happen, to many listeners at once: one reader of PostgreSQL and one sender for all of a process.

A listener holds no thread: once it is let in, its connection is taken over from the server.
"""
