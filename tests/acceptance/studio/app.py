"""The application. Its settings are in ``settings.py`` of its installation."""

from celery import Celery

app = Celery("studio", include=["studio.tasks"])
app.config_from_object("studio.settings")
