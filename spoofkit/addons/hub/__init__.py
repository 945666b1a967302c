"""The Hugging Face hub: models and encoders by name, the verbs `push` and `pull`."""
