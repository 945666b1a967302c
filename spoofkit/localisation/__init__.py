"""Where in an utterance is it spoofed: scores of frames, their file, their figures."""
