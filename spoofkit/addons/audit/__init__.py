"""What a list gives away to trivial predictors: duration, silence, level, band, file format."""
