"""Real processes, real clients, and everything that can break breaks: is a token lost?"""
