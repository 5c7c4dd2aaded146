"""Files on the shared volume: their places, and writes that appear whole or not at all."""
