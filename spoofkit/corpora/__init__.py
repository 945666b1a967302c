"""One module a corpus: how its own protocol becomes our manifest."""
