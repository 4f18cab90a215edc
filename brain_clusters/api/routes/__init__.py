"""One module per resource, each with its ``routes``: Flask's blueprints, which would share a name with ours."""
