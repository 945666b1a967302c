"""How a detector stands what happens to audio outside the lab: codecs, noise, rooms, levels, cuts."""
