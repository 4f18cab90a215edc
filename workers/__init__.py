"""The composition root of the Celery side: the app, lifecycle tasks and periodic tasks, one line each.

``celery -A workers.app worker -Q brain.lifecycle`` and ``celery -A workers.app beat`` work as they do for any app.
"""
