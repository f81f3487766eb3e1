"""What the configs share: data, schedule, models."""
