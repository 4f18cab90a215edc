"""Handlers that the shipped blueprints run, to read and to copy. Standard library only, nothing of ours imported.

A handler is called with (payload, context) and returns JSON data; what it raises becomes the job's error.
"""
