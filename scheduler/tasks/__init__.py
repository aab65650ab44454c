"""Celery tasks: slow work with retries. They take ids, look whether there is still something to
do, and are safe to run twice."""
