"""Looking at a list before it is used: is it whole, what does it share, what does it give away."""
