"""The main job, end to end: train, adapt, measure, export, verify, report (`lse demo`)."""
