"""What the term costs a training, and what MD costs."""
