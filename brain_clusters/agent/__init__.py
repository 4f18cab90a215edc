"""What runs inside an agent: the zygote it is forked from, its Celery worker, its handler and its beats.

Runs users' code, so nothing here knows the database: no SQLAlchemy, no credentials but those of Redis.
"""
