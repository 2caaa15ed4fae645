"""MD stability: run replicas, find failures, and say what can be said of them."""
