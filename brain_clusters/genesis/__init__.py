"""Drivers: the code that starts agents on one engine, and the host that supervises them there.

The only package that starts anything for a cluster. It reads no rows and knows no queues: see ``desk``.
"""
