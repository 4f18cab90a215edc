"""A Celery application as others write them. It knows nothing of BRAiN Clusters, and neither imports nor names it."""
