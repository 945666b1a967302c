"""From scores to numbers and a report: score files, metrics, breakdowns, figures."""
