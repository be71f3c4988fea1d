"""Collect, curate, train, evaluate, again: one recipe, resumable, with the lineage of every model."""
