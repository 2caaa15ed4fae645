"""Allegro on HfO2 with and without the flag, side by side; ``make quickstart``."""
