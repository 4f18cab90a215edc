"""The Genesis service: a driver of this machine served to hosts elsewhere, by HTTP.

A second application beside the API, without a database. Its routes turn requests into calls on the keepers of
``genesis.remote``, which own the drivers.
"""
