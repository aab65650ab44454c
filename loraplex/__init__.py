"""Loraplex: the vocabulary that every process shares. Imports nothing else of ours."""

__version__ = "0.1.0"
