"""The use cases. They own the transactions; their collaborators come in a ``Control``. No HTTP, no Celery here."""
