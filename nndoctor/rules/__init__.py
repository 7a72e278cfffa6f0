"""The rule language: loading, expressions, judging, testing."""
