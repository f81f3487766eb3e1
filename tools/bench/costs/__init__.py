"""What the benchmarks of cost share: models to compare, counts of work, turns on the clock, pages."""
