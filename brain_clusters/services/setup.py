"""What has to be true before anything runs: the schema is there, and the blueprints are stored."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from brain_clusters.config import Settings
from brain_clusters.db import migrate
from brain_clusters.errors import SchemaMismatch, TemporaryError
from brain_clusters.services import access, blueprints
from brain_clusters.services.control import Control
from brain_clusters.shipped import shipped

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 2.0


def prepare(settings: Settings) -> Path | None:
    """Migrate under a lock, then store our example blueprints and those of ``BRAIN_BLUEPRINTS_PATH``.

    Returns where the first admin's key was written to, if one had to be made. Several may do so at once.
    Raises InvalidInput for a blueprint with faults, TemporaryError without PostgreSQL.
    """
    control = Control.open(settings, application="brain-setup")
    try:
        migrate.upgrade(control.database.engine, shipped("migrations"))
        for folder in (shipped("blueprints"), settings.blueprints_path):
            if folder is not None:
                blueprints.store_folder(control, folder)
        return access.make_first(control)
    finally:
        control.close()


def wait_for_schema(settings: Settings) -> None:
    """Return when this code works with the database's schema, and say meanwhile what is awaited.

    So that no worker takes commands from those that can run them, and no clock asks for what nobody can do. Without
    PostgreSQL it returns at once: that is borne, and each transaction asks again.
    """
    control = Control.open(settings, application="brain-setup")
    try:
        while not _fits(control):
            time.sleep(_AGAIN_SECONDS)
    finally:
        control.close()


def _fits(control: Control) -> bool:
    try:
        control.database.check_schema()
    except SchemaMismatch as exc:
        log.warning("waiting: %s", exc)
        return False
    except TemporaryError as exc:
        log.warning("the schema was not looked at: %s", exc)
    return True
