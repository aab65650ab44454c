"""What starts and stops replicas: one small interface, one file a platform."""
