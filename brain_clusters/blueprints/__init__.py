"""YAML text to ``specs.Blueprint``: loader, Cerberus schema, cross checks, JSON Schema export.

The only room, beside ``api/``, that knows yaml and cerberus. No database, no clock, no network; the only file read
is the one that ``validator.load_blueprint`` is given.
"""
