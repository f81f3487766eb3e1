"""What the configs share: the data, and the schedule of training."""
