"""What each process tells Prometheus: how it is served, and where its targets are found."""
