"""The scaler (one leader, standbys) and the Celery task workers."""
