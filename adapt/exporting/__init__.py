"""Export: one fast network that anybody can run, checked against the one that was trained."""
