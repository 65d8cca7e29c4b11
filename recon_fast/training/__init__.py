"""Pretraining: loop, optimizer and schedule, checkpoints, logs."""
