"""What streaming through Redis costs an API process."""
