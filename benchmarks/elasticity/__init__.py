"""How well do scaling laws follow a load: cost, waits and cold starts, each law a frontier."""
