"""Evidence on hafnium oxide; ``make evidence`` and ``make evidence-small``."""
