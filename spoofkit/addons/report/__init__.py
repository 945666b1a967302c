"""The verb `report`: what was found of a recording, for people who have to rely on it, and how it is checked."""
