"""One layout or file format per file: from what lies on a disk to entries and clouds."""
