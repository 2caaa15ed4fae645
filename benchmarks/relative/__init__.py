"""How far a relative coefficient lowers the correlation in different systems."""
