"""What is drawn from shapes, step by step: streams, rows on a device, augmentations."""
