"""How the protocols of public corpora become manifests: one module a corpus, and what they have in common."""

CORPORA = {
    "asvspoof5": "asvspoof5:read",
    "asvspoof2019_la": "asvspoof2019:read",
    "asvspoof2021_la": "asvspoof2021:read_la",
    "asvspoof2021_df": "asvspoof2021:read_df",
    "in_the_wild": "in_the_wild:read",
    "partialspoof": "addons.partialspoof.corpus:read",
    "mlaad": "mlaad:read",
    "spoofceleb": "spoofceleb:read",
    "generic": "generic:read",
    "kaldi": "addons.kaldi.directory:read",
}
"""The corpora that `prepare` knows, and the module, here or of an addon, and function that reads the lists of each."""
