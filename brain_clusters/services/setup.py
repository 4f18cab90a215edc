"""What has to be true before anything runs: the schema is there, and the blueprints are stored."""

from __future__ import annotations

import logging

from brain_clusters.config import Settings
from brain_clusters.db import migrate
from brain_clusters.services import blueprints
from brain_clusters.services.control import Control
from brain_clusters.shipped import shipped

log = logging.getLogger(__name__)


def prepare(settings: Settings) -> None:
    """Migrate under a lock, then store our example blueprints and those of ``BRAIN_BLUEPRINTS_PATH``.

    Several may do so at once. Raises InvalidInput for a blueprint with faults, TemporaryError without PostgreSQL.
    """
    control = Control.open(settings, application="brain-setup")
    try:
        migrate.upgrade(control.database.engine, shipped("migrations"))
        for folder in (shipped("blueprints"), settings.blueprints_path):
            if folder is not None:
                blueprints.store_folder(control, folder)
    finally:
        control.close()
