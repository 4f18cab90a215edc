"""Agents on engines of others, by HTTP: the driver ``remote``, what it speaks, and what a Genesis service serves.

Both ends are here, the wire between them is described in docs/genesis-openapi.yaml. The service's routes are in
``api/genesis``, since only ``api/`` knows how requests are answered.
"""
