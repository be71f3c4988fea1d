"""Models: everything that answers a request. `models.base` has the protocol; one module per backend."""
