"""The HTTP process. Imports loraplex only."""
