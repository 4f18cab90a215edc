"""Redis: the Celery app, names of queues and keys, publishing, and what can be counted. No database, no decisions."""
