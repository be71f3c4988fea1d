"""Curation: a recipe of steps decides about every row. Each step keeps a row or drops it with a reason."""
