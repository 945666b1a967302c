"""The verb `serve`: a model behind an HTTP interface and a page, for this machine, or with keys for others."""
