"""The rules of the system, pure: no I/O, no clock, no SQLAlchemy, no Celery. Time is an argument."""
