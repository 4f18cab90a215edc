"""The tasks of the studio. Each run is written down in a file."""

import json
import os
import time
from pathlib import Path

from celery import shared_task
from studio.app import app

RUNS = Path(__file__).with_name("runs")


def note(**what):
    with RUNS.open("a") as runs:  # one short write: lines of several workers do not mix
        runs.write(json.dumps({**what, "pid": os.getpid()}) + "\n")


@app.task
def draw(number, seconds=0.0):
    note(task="draw", number=number)
    time.sleep(seconds)
    return (number, number * number)  # a tuple: JSON would make a list of it


@app.task
def add(a, b):
    return a + b


@shared_task
def mix(pictures):
    return sum(square for _, square in pictures)


@app.task(autoretry_for=(ConnectionError,), retry_backoff=True, retry_jitter=False, max_retries=3)
def post(address, failures):
    """Fail as often as asked, and then succeed."""
    note(task="post", address=address)
    if RUNS.read_text().count(f'"address": "{address}"') <= failures:
        raise ConnectionError(f"{address} does not answer")
    return address


@app.task(bind=True)
def patient(self, rounds):
    note(task="patient", retries=self.request.retries)
    if self.request.retries < rounds:
        raise self.retry(countdown=0.5, max_retries=rounds)
    return self.request.retries


@app.task
def broken():
    raise ValueError("the paint is dry")
