"""Studies in the regime that people work in."""
