"""Pictures of what a model does, of runs and of data, as pages that open from disk and load nothing."""
