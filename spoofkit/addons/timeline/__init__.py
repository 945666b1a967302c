"""The pages of `localize`, for viewing and listening to marked recordings."""
