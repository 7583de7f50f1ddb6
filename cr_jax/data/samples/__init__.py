"""Small redistributable texts; README.md names their origin."""
